"""``nodeledger audit``: compare nodes with their hypervisors now, and say where they differ."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Final

import typer

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.errors import UsageError

if TYPE_CHECKING:
    from worker.operations.auditing import Report

Nodes = Annotated[list[str] | None, typer.Argument(metavar="[NODE]...", help="The nodes.", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Every node that has a hypervisor.")]
Repair = Annotated[bool, typer.Option("--repair", help="Charge what runs there unclaimed, and uncharge what is gone.")]
Timeout = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the answers.")]

_COLUMNS: Final = "node kind instance detail"


def audit(
    nodes: Nodes = None,
    everything: Everything = False,
    repair: Repair = False,
    timeout: Timeout = 60.0,
    as_json: console.JsonFlag = False,
) -> None:
    """Compare nodes with their hypervisors, through the workers and in the order of each node's commands.

    Exit status 1 if anything differs (with --repair too: what is shown is what
    was found), or if a node could not be compared.
    """
    from worker.operations import auditing

    if bool(nodes) == everything:
        raise UsageError("say which nodes: their names, or --all")
    report = run(auditing.audit(nodes, repair=repair, patience=timeout, note=console.note))
    console.print_rows(_documents(report) if as_json else _rows(report), _COLUMNS, as_json=as_json)
    if not as_json:
        _conclude(report)
    raise typer.Exit(OK if report.clean else FINDING)


def _rows(report: Report) -> list[Mapping[str, object]]:
    return [{"node": one.node, **found} for one in report.outcomes for found in one.drift or ()]


def _documents(report: Report) -> list[Mapping[str, object]]:
    answered: list[Mapping[str, object]] = [
        {
            "node": one.node,
            "status": one.status,
            "drift": one.drift,
            "reasons": [why.model_dump(exclude_none=True) for why in one.reasons],
        }
        for one in report.outcomes
    ]
    silent: list[Mapping[str, object]] = [
        {"node": node, "status": None, "detail": why} for node, why in sorted(report.unanswered.items())
    ]
    return [*answered, *silent]


def _conclude(report: Report) -> None:
    for one in report.outcomes:
        for reason in one.reasons:
            console.note(f"{one.node} was not compared: {reason.detail}")
    for node, why in sorted(report.unanswered.items()):
        console.note(f"{node} was not compared: {why}")
    compared = [one for one in report.outcomes if one.status == "applied"]
    differing = sum(bool(one.drift) for one in compared)
    console.note(f"{len(compared)} nodes compared, {differing} of them differ from their hypervisors")
