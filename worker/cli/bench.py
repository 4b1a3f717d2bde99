"""``nodeledger bench``: measure this installation."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli import console
from worker.cli.connect import run
from worker.cli.faults import FINDING, OK, USAGE, CommandError

if TYPE_CHECKING:
    from worker.bench.parts import Part
    from worker.bench.results import Results

ScenarioOption = Annotated[
    list[str] | None, typer.Option("--scenario", metavar="NAME", help="Only this one; may be repeated. See --list.")
]
CommandsOption = Annotated[int, typer.Option(min=100, help="Commands in each run.")]
RepeatsOption = Annotated[int, typer.Option(min=1, help="Runs of each side.")]
QuickFlag = Annotated[bool, typer.Option("--quick", help="One scenario, two short runs: whether it works at all.")]
ListFlag = Annotated[bool, typer.Option("--list", help="Print the scenarios, and measure nothing.")]
JsonFlag = Annotated[bool | None, typer.Option("--json/--table", help="Default: JSON unless on a terminal.")]


def bench(
    scenario: ScenarioOption = None,
    commands: CommandsOption = 12_000,
    repeats: RepeatsOption = 3,
    quick: QuickFlag = False,
    list_: ListFlag = False,
    as_json: JsonFlag = None,
) -> None:
    """Measure this installation: commands per second beside a bare consume-publish-acknowledge loop, in one run.

    Starts workers of its own, on servers that must not be in use; its nodes
    are removed at the end. With JSON, the tables go to standard error.
    """
    from worker.bench.bench import Options
    from worker.bench.run import measure

    chosen = _chosen(["claims-100"] if quick and not scenario else scenario)
    if list_:
        console.print_rows(({"name": each.name, "load": each.title} for each in chosen), "name load", as_json=False)
        return
    options = Options(2000, 2) if quick else Options(commands, repeats)
    results = run(measure(chosen, options, console.note))
    raise typer.Exit(_print(results, as_json=not sys.stdout.isatty() if as_json is None else as_json))


def _chosen(names: list[str] | None) -> list[Part]:
    from worker.bench.parts import PARTS

    known = {part.name: part for part in PARTS}
    if unknown := [name for name in names or () if name not in known]:
        raise CommandError(f"there is no scenario {unknown[0]}: choose from {', '.join(known)}", USAGE)
    return [known[name] for name in names] if names else list(PARTS)


def _print(results: Results, *, as_json: bool) -> int:
    from rich.console import Console

    from worker.bench.report import document, show

    if as_json:
        show(results, Console(stderr=True))
        console.print_document(document(results), as_json=True)
    else:
        show(results, Console())
    return FINDING if results.differences else OK
