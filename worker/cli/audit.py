"""``nodeledger audit``: compare nodes with their hypervisors now, and say where they differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Final
from uuid import UUID

import typer
from pydantic_core import to_json

from worker.cli.common import console
from worker.cli.common.errors import FINDING, OK
from worker.cli.common.running import run
from worker.errors import UsageError
from worker.servers import broker, reading

if TYPE_CHECKING:
    from schemas import Outcome
    from worker.operations.producing import Sendable

Nodes = Annotated[list[str] | None, typer.Argument(metavar="[NODE]...", help="The nodes.", show_default=False)]
Everything = Annotated[bool, typer.Option("--all", help="Every node that has a hypervisor.")]
Repair = Annotated[bool, typer.Option("--repair", help="Charge what runs there unclaimed, and uncharge what is gone.")]
Timeout = Annotated[float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for the answers.")]

_PAGE: Final = 1000
_COLUMNS: Final = "node kind instance detail"


@dataclass(slots=True)
class Report:
    """What the audits of some nodes found; ``outcomes`` of those answered, ``unanswered`` with what is known."""

    outcomes: list[Outcome] = field(default_factory=list)
    unanswered: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether every node was compared, and none differed."""
        return not self.unanswered and all(one.status == "applied" and not one.drift for one in self.outcomes)


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
    if bool(nodes) == everything:
        raise UsageError("say which nodes: their names, or --all")
    report = run(_audit(nodes, repair=repair, timeout=timeout))
    console.print_rows(_documents(report) if as_json else _rows(report), _COLUMNS, as_json=as_json)
    if not as_json:
        _conclude(report)
    raise typer.Exit(OK if report.clean else FINDING)


async def _audit(nodes: Sequence[str] | None, *, repair: bool, timeout: float) -> Report:  # noqa: ASYNC109 - the user's patience, told as a result
    from worker.cli.common.waiting import await_outcomes
    from worker.cli.send import shards
    from worker.operations.sending import Awaited, OutcomeQueue, Sender

    report, awaited = Report(), Awaited()
    asked = {UUID(str(command.id)): command for command in _commands(nodes or await _audited_nodes(), repair=repair)}
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(broker())
        reply_to = await OutcomeQueue(awaited, lambda body: _keep(report, body), console.note).open(link.connection)
        sender = await Sender.open(link.connection, await shards(), reply_to)
        awaited.expect([str(id_) for id_ in asked])
        await sender.send(list(asked.values()))
        await await_outcomes(awaited, link.tap.lost, timeout)
    answered = {one.command for one in report.outcomes}
    for id_, command in asked.items():
        if id_ not in answered:
            late = str(id_) in awaited.open
            why = f"no answer within {timeout:g} s" if late else "the audit is in the dead letters"
            report.unanswered[command.node] = why
    report.outcomes.sort(key=lambda one: one.node)
    return report


def _keep(report: Report, body: bytes) -> None:
    from schemas import Outcome

    report.outcomes.append(Outcome.model_validate_json(body))


def _commands(nodes: Sequence[str], *, repair: bool) -> list[Sendable]:
    from worker.operations.producing import RefusedLineError, complete

    commands = []
    for node in dict.fromkeys(nodes):
        try:
            commands.append(complete(to_json({"kind": "audit", "node": node, "repair": repair})))
        except RefusedLineError as error:
            raise UsageError(f"{node!r} is no name of a node: {error}") from None
    return commands


async def _audited_nodes() -> list[str]:
    from worker.ledger import readers

    names: list[str] = []
    after = ""
    async with reading() as pool, pool.acquire() as connection:
        while page := await readers.nodes(connection, after=after, limit=_PAGE):
            names += [node.node for node in page if node.hypervisor is not None]
            after = page[-1].node
    return names


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
