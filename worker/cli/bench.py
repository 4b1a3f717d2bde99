"""``nodeledger bench``: measure this installation."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.bench.parts import Part

ScenarioOption = Annotated[
    list[str] | None, typer.Option("--scenario", metavar="NAME", help="Only this one; may be repeated. See --list.")
]
CommandsOption = Annotated[int, typer.Option(min=100, help="Commands in each run.")]
RepeatsOption = Annotated[int, typer.Option(min=1, help="Runs of each side.")]
QuickFlag = Annotated[bool, typer.Option("--quick", help="One scenario, two short runs: whether it works at all.")]
ListFlag = Annotated[bool, typer.Option("--list", help="Print the scenarios, and measure nothing.")]
GrowthFlag = Annotated[bool, typer.Option("--growth", help="Also rate and latency against what may grow.")]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE", help="Draw the results, as PNG or SVG by the file's name.")
]
JsonFlag = Annotated[bool | None, typer.Option("--json/--table", help="Default: JSON unless on a terminal.")]


def bench(
    scenario: ScenarioOption = None,
    commands: CommandsOption = 12_000,
    repeats: RepeatsOption = 3,
    quick: QuickFlag = False,
    growth: GrowthFlag = False,
    plot: PlotOption = None,
    list_: ListFlag = False,
    as_json: JsonFlag = None,
) -> None:
    """Measure this installation: commands per second beside a bare consume-publish-acknowledge loop, in one run.

    Starts workers of its own, on servers that must not be in use; its nodes
    are removed at the end. With JSON, the tables go to standard error.
    """
    from rich.console import Console

    from worker.bench import plot as plotting
    from worker.bench import report
    from worker.bench.rounds import Options
    from worker.bench.run import measure

    chosen = _chosen(["claims-100"] if quick and not scenario else scenario, growth=growth or list_)
    if list_:
        console.print_rows(({"name": each.name, "load": each.title} for each in chosen), "name load", as_json=False)
        return
    if plot is not None:
        plotting.check()
    options = Options(2000, 2) if quick else Options(commands, repeats)
    results = run(measure(chosen, options, console.note))
    if plot is not None:
        plotting.draw(results, plot)
    as_json = not sys.stdout.isatty() if as_json is None else as_json
    report.show(results, Console(stderr=as_json))
    if as_json:
        console.print_document(report.document(results), as_json=True)
    raise typer.Exit(FINDING if results.differences or results.failures else OK)


def _chosen(names: list[str] | None, *, growth: bool) -> list[Part]:
    from worker.bench.parts import PARTS

    known = {part.name: part for part in PARTS}
    if unknown := [name for name in names or () if name not in known]:
        raise UsageError(f"there is no scenario {unknown[0]}: choose from {', '.join(known)}")
    return [known[name] for name in names or ()] or [part for part in PARTS if part.usual or growth]
