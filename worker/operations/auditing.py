"""Having nodes compared with their hypervisors, and gathering what the workers find."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pydantic_core import to_json

from schemas import Outcome
from worker.errors import UsageError
from worker.ledger import readers
from worker.operations.producing import RefusedLineError, complete
from worker.operations.sending import Awaited, OutcomeQueue, Sender
from worker.operations.shards import shards
from worker.servers import broker, reading

if TYPE_CHECKING:
    from worker.operations.producing import Sendable
    from worker.operations.reporting import Note

_PAGE: Final = 1000


@dataclass(slots=True)
class Report:
    """What the audits of some nodes found; ``outcomes`` of those answered, ``unanswered`` with what is known."""

    outcomes: list[Outcome] = field(default_factory=list)
    unanswered: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether every node was compared, and none differed."""
        return not self.unanswered and all(one.status == "applied" and not one.drift for one in self.outcomes)


async def audit(nodes: Sequence[str] | None, *, repair: bool, patience: float, note: Note) -> Report:
    """Have these nodes, or all that have a hypervisor, audited by the workers; wait ``patience`` seconds for them.

    Raises:
        UsageError: something else than a node's name is given.
        OperationError, UnreachableError: they could not be asked.
    """
    report, awaited = Report(), Awaited()
    asked = {UUID(str(command.id)): command for command in _commands(nodes or await _audited_nodes(), repair=repair)}
    async with AsyncExitStack() as stack:
        link = await stack.enter_async_context(broker())
        reply_to = await OutcomeQueue(awaited, lambda body: _keep(report, body), note).open(link.connection)
        sender = await Sender.open(link.connection, await shards(), reply_to)
        awaited.expect([str(id_) for id_ in asked])
        await sender.send(list(asked.values()))
        await awaited.wait(link.tap.lost, patience)
    answered = {one.command for one in report.outcomes}
    for id_, command in asked.items():
        if id_ not in answered:
            late = str(id_) in awaited.open
            why = f"no answer within {patience:g} s" if late else "the audit is in the dead letters"
            report.unanswered[command.node] = why
    report.outcomes.sort(key=lambda one: one.node)
    return report


def _keep(report: Report, body: bytes) -> None:
    report.outcomes.append(Outcome.model_validate_json(body))


def _commands(nodes: Sequence[str], *, repair: bool) -> list[Sendable]:
    commands = []
    for node in dict.fromkeys(nodes):
        try:
            commands.append(complete(to_json({"kind": "audit", "node": node, "repair": repair})))
        except RefusedLineError as error:
            raise UsageError(f"{node!r} is no name of a node: {error}") from None
    return commands


async def _audited_nodes() -> list[str]:
    names: list[str] = []
    after = ""
    async with reading() as pool, pool.acquire() as connection:
        while page := await readers.nodes(connection, after=after, limit=_PAGE):
            names += [node.node for node in page if node.hypervisor is not None]
            after = page[-1].node
    return names
