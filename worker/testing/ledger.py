"""Commands decided in memory, by the rules that decide them in a worker."""

from __future__ import annotations

import asyncio
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Coroutine,
    Iterable,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Self, Unpack
from uuid import UUID

from pydantic_core import to_json

from schemas import Command, Outcome, Status
from schemas.asking import Asking, Ledger, each, judged
from schemas.errors import NoAnswerError
from schemas.parsing import parse_command
from worker.accounting.answers import Document, answer, dead
from worker.accounting.decide import decide
from worker.accounting.post import post
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.nodes import observe
from worker.accounting.rules.waiting import waits_behind_others
from worker.accounting.state.view import Facts, Observation, Question, View
from worker.testing.hypervisor import MemoryHypervisor
from worker.testing.outcomes import MemoryRead, OutcomeQueue

_SECONDS = 60.0


@dataclass(slots=True, eq=False)
class _Waiting:
    """A command that is parked."""

    command: Command
    blocking: bool


class MemoryLedger(Ledger[Coroutine[Any, Any, Outcome]]):
    """An installation of one worker: what is sent is decided at once, and is gone with the object.

    Args:
        hypervisors: what each libvirt address says; one that is not in it does not answer. May be changed at any time.
        seconds: how long to wait for each answer unless told otherwise.
        raising: a refusal is a :class:`~schemas.errors.RejectedError` unless told otherwise.
        now: the time.
    """

    def __init__(
        self,
        hypervisors: dict[str, MemoryHypervisor] | None = None,
        *,
        seconds: float = _SECONDS,
        raising: bool = False,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.hypervisors = {} if hypervisors is None else hypervisors
        self._seconds = seconds
        self._raising = raising
        self._now = now
        self._view = View()
        self._known: dict[UUID, tuple[bytes, Outcome]] = {}
        self._waiting: list[_Waiting] = []
        self._settled = asyncio.Condition()
        self._queues: dict[str, OutcomeQueue] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Nothing is open."""

    async def send(self, command: Command, **how: Unpack[Asking]) -> Outcome:
        """Send a command and wait for its outcome, as :meth:`schemas.client.Client.send` does."""
        outcome = self._take(parse_command(to_json(command)))
        if outcome.status == "parked":
            on_parked = how.get("on_parked")
            if on_parked is not None:
                on_parked(outcome)
            outcome = await self._final(outcome, how.get("seconds", self._seconds))
        return judged(outcome, raising=how.get("raising", self._raising))

    async def send_many(
        self,
        commands: Iterable[Command] | AsyncIterable[Command],
        *,
        window: int = 512,  # noqa: ARG002 - the client's signature; here nothing is under way
        seconds: float | None = None,
        on_parked: Callable[[Outcome], object] | None = None,
    ) -> AsyncGenerator[Outcome, None]:
        """Send commands, as :meth:`schemas.client.Client.send_many` does."""
        parked: list[Outcome] = []
        async for command in each(commands):
            outcome = self._take(parse_command(to_json(command)))
            if outcome.status != "parked":
                yield outcome
                continue
            parked.append(outcome)
            if on_parked is not None:
                on_parked(outcome)
        late: list[Outcome] = []
        for outcome in parked:
            try:
                yield await self._final(outcome, self._seconds if seconds is None else seconds)
            except NoAnswerError:
                late.append(outcome)
        if late:
            raise NoAnswerError([one.command for one in late], "none came in time", late)

    @asynccontextmanager
    async def outcomes(
        self,
        queue: str,
        *,
        kinds: Sequence[str] = (),
        statuses: Sequence[Status] = (),
        nodes: Sequence[str] = (),
    ) -> AsyncIterator[AsyncGenerator[MemoryRead, None]]:
        """Outcomes from a queue, as :meth:`schemas.client.Client.outcomes` gives them."""
        kept = self._queues.setdefault(queue, OutcomeQueue(kinds, statuses, nodes))
        reading = kept.read()
        try:
            yield reading
        finally:
            await reading.aclose()

    async def retry(self) -> None:
        """Decide anew what is parked, in order: for when a hypervisor answers again, or a domain is gone."""
        stuck: set[str] = set()
        for waiting in list(self._waiting):
            if waiting.command.node in stuck:
                continue
            decision = self._decide(waiting.command)
            if decision.status == "parked":
                stuck |= {waiting.command.node} if decision.blocking else set()
                continue
            self._waiting.remove(waiting)
            self._count(waiting, -1)
            self._settle(waiting.command, decision)
        async with self._settled:
            self._settled.notify_all()

    def _take(self, command: Command) -> Outcome:
        """What becomes of a command that was sent."""
        content, known = self._known.get(command.id, (command.fingerprint(), None))
        if content != command.fingerprint():
            return self._reused(command)
        if known is not None and known.status != "dead":
            return self._told(known)
        if waits_behind_others(self._view, command):
            return self._park(command, None)
        decision = self._decide(command)
        return self._park(command, decision) if decision.status == "parked" else self._settle(command, decision)

    def _decide(self, command: Command) -> Decision:
        """Decide, asking the hypervisors as long as there are questions."""
        self._view.facts = Facts()
        while True:
            found = decide(self._view, command, self._now())
            if isinstance(found, Decision):
                return found
            self._look(found, command)

    def _settle(self, command: Command, decision: Decision) -> Outcome:
        if decision.status == "applied" and not command.dry_run:
            post(self._view, command, decision)
            self._view.removed.clear()
        return self._keep(command, self._answer(command, decision, decision.status))

    def _park(self, command: Command, decision: Decision | None) -> Outcome:
        waiting = _Waiting(command, decision is None or decision.blocking)
        self._waiting.append(waiting)
        self._count(waiting, 1)
        return self._keep(command, self._answer(command, decision, "parked"))

    def _count(self, waiting: _Waiting, change: int) -> None:
        node = self._view.nodes.get(waiting.command.node)
        if waiting.blocking and node is not None:
            node.parked += change
            node.generation += 1

    def _reused(self, command: Command) -> Outcome:
        detail = f"id {command.id} was used before by another command"
        return Outcome.model_validate_json(
            to_json(dead(self._view, self._now(), command, "id_reuse", detail, sequence=0))
        )

    def _answer(self, command: Command, decision: Decision | None, status: Status) -> Document:
        known = self._known.get(command.id)
        sequence = 1 if known is None else known[1].sequence + 1
        return answer(self._view, self._now(), command, decision, status, sequence=sequence)

    def _keep(self, command: Command, document: Document) -> Outcome:
        outcome = Outcome.model_validate_json(to_json(document))
        self._known[command.id] = command.fingerprint(), outcome
        return self._told(outcome)

    def _told(self, outcome: Outcome) -> Outcome:
        for queue in self._queues.values():
            queue.take(outcome)
        return outcome

    async def _final(self, parked: Outcome, seconds: float) -> Outcome:
        """The final outcome of what is parked."""
        try:
            async with asyncio.timeout(seconds), self._settled:
                while (known := self._known[parked.command][1]).status == "parked":
                    await self._settled.wait()
                return known
        except TimeoutError:
            raise NoAnswerError([parked.command], f"none came within {seconds:g} s", [parked]) from None

    def _look(self, question: Question, command: Command) -> None:
        """Put what the hypervisors say into the view's facts."""
        facts, view = self._view.facts, self._view
        for name in question.inventories:
            address = getattr(command, "hypervisor", None) if name == command.node else None
            address = address or view.nodes[name].hypervisor
            seen = self._answering(address)
            told = None if seen is None else seen.inventory
            detail = "" if seen is not None else f"the hypervisor of {name} does not answer"
            facts.observations[name] = Observation(self._now(), address, told, detail)
            if name in view.nodes:
                observe(view, view.nodes[name], facts.observations[name])
        for name, instance in question.domains:
            seen = self._answering(view.nodes[name].hypervisor)
            facts.domains[name, instance] = None if seen is None else seen.state(instance)
        for name in question.listings:
            seen = self._answering(view.nodes[name].hypervisor)
            facts.listings[name] = None if seen is None else seen.domains

    def _answering(self, address: str | None) -> MemoryHypervisor | None:
        found = self.hypervisors.get(address or "")
        return found if found is not None and found.answers else None
