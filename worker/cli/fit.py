"""``nodeledger fit``: which nodes could take a claim, how many times, and why the others cannot."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.lines import read_input
from worker.cli.common.running import run
from worker.servers import writing

if TYPE_CHECKING:
    from worker.operations.fitting import Fit

_COLUMNS: Final = "node #times"


class _By(StrEnum):
    """What nodes are sorted by."""

    ROOM = "room"
    LOAD = "load"


FileArgument = Annotated[str, typer.Argument(metavar="FILE", help="A claim as one JSON object; - is standard input.")]
TimesOption = Annotated[int, typer.Option(min=1, max=1_000_000, help="Count no further than this on one node.")]
LimitOption = Annotated[int | None, typer.Option(min=1, help="Show so many nodes at most; all if unset.")]
ByOption = Annotated[_By, typer.Option(help="Those with the most room first, or those whose hosts are the least busy.")]
FittingFlag = Annotated[bool, typer.Option("--fitting", help="Show only nodes that could take it.")]


def fit(
    file: FileArgument,
    times: TimesOption = 10_000,
    limit: LimitOption = None,
    fitting: FittingFlag = False,
    by: ByOption = _By.ROOM,
    as_json: console.JsonFlag = False,
) -> None:
    """Tell which nodes could take a claim, how many times over, and why the others cannot.

    The claim needs its resources, and its topology, devices and traits if it
    has any; with a node (or candidates) only those are asked. Nothing is
    locked or changed, and no hypervisor is asked: the answer is about what the
    ledger knows now. Exit status 1 if no node could take it.
    """
    found = run(_fits(read_input(file), times, by))
    shown = [one for one in found if one.times or not fitting][:limit]
    console.print_rows(
        map(_document if as_json else _row, shown),
        _COLUMNS + (" #busy_percent:busy" if by is _By.LOAD else "") + " why_no_more",
        as_json=as_json,
    )
    able = sum(one.times > 0 for one in found)
    console.note(f"{able} of {len(found)} nodes could take it, {sum(one.times for one in found)} times altogether")
    raise typer.Exit(OK if able else FINDING)


async def _fits(text: bytes, times: int, by: _By) -> list[Fit]:
    from worker.operations.fitting import fits, read_claim

    claim, names = read_claim(text)
    async with writing() as pool:
        return await fits(pool, claim, names, most=times, progress=console.progress, by=by.value)


def _row(one: Fit) -> dict[str, object]:
    why = "; ".join(why.detail for why in one.reasons)
    return {
        "node": one.node,
        "times": one.times,
        "busy_percent": one.busy_percent,
        "why_no_more": "counted no further" if one.counted_out else why,
    }


def _document(one: Fit) -> dict[str, object]:
    reasons = [why.model_dump(exclude_none=True) for why in one.reasons]
    return {
        "node": one.node,
        "times": one.times,
        "counted_out": one.counted_out,
        "observed_at": one.observed_at,
        "busy_percent": one.busy_percent,
        "reasons": reasons,
    }
