"""Having nodes compared with their hypervisors, and gathering what the workers find."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID

from pydantic_core import to_json

from schemas import Outcome
from schemas.client import NoAnswerError
from worker.errors import UsageError
from worker.ledger import readers
from worker.operations.producing import RefusedLineError, complete
from worker.operations.shards import shards
from worker.servers import client, reading

if TYPE_CHECKING:
    from schemas.client import Message, Pending
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
    report = Report()
    asked = _commands(nodes or await _audited_nodes(), repair=repair)
    parked: set[UUID | None] = set()

    def waits(outcome: Outcome) -> None:
        parked.add(outcome.command)
        note(f"the audit of {outcome.node} waits for its hypervisor")

    async with client(await shards()) as ledger:
        async for one in ledger.ask_many(asked, seconds=patience, on_parked=waits):
            _take(report, one, parked=one.message.id in parked, patience=patience)
    report.outcomes.sort(key=lambda one: one.node)
    return report


def _take(report: Report, one: Pending, *, parked: bool, patience: float) -> None:
    failed = one.over.exception()
    if isinstance(failed, NoAnswerError):
        waits = "the audit waits for its hypervisor" if parked else f"no answer within {patience:g} s"
        report.unanswered[one.message.node] = waits
        return
    outcome = one.over.result().outcome
    if outcome.status == "dead":
        report.unanswered[one.message.node] = "the audit is in the dead letters"
    else:
        report.outcomes.append(outcome)


def _commands(nodes: Sequence[str], *, repair: bool) -> list[Message]:
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
