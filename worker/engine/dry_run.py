"""What would become of commands if they came now: decided by today's code on what is stored, and forgotten.

Each is decided on the state that those before it would leave. No hypervisor is
asked: where one would be, it is taken to say what it said last.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pydantic_core import from_json

from worker.accounting.state.view import Facts, Observation, View
from worker.engine.batch import Decider
from worker.engine.intake import Item, fingerprint
from worker.engine.permissions import Permissions
from worker.engine.ports import Delivery, ReadKeys, ReadSet
from worker.engine.result import read_keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from datetime import datetime, timedelta

    from schemas import Command
    from worker.engine.result import Inquiry, Result

_UNTOLD = "cannot be told: an earlier one on its node would ask a hypervisor first, and of that one nothing is known"


@dataclass(slots=True)
class DryRun:
    """Previews commands one after the other, on a state of its own that starts as what ``load`` finds."""

    load: Callable[[ReadKeys], Awaitable[ReadSet]]
    refusal: Callable[[str], str | None]
    park_deadline: timedelta
    permissions: Permissions = field(default_factory=Permissions)
    _loaded: ReadSet | None = None
    _seen: ReadKeys = field(default_factory=ReadKeys)
    _untold: set[str] = field(default_factory=set)

    async def read(self, commands: Sequence[Command]) -> None:
        """Load what further commands touch. What earlier ones would have changed stays changed."""
        want = read_keys([Item(command, fingerprint(command)) for command in commands], Facts())
        seen = self._seen
        missing = ReadKeys(
            want.nodes - seen.nodes, want.instances - seen.instances, want.commands, want.members - seen.members
        )
        found = await self.load(missing)
        if self._loaded is None:
            self._loaded = ReadSet(View(), {}, found.now)
        for name, node in found.view.nodes.items():
            if name not in seen.nodes:
                self._loaded.view.nodes[name] = node
        for key, instance in found.view.instances.items():
            if key not in seen.instances:
                self._loaded.view.instances[key] = instance
        for id_, known in found.known.items():
            self._loaded.known.setdefault(id_, known)
        seen.nodes |= missing.nodes
        seen.instances |= {*missing.instances, *found.view.instances}
        seen.members |= missing.members

    def tell(
        self, command: Command, body: bytes, *, user: str | None = None, headers: Mapping[str, object] | None = None
    ) -> str:
        """What would become of a command that was read, in a sentence; those after it find it done."""
        if self._loaded is None:
            raise AssertionError("what a command touches has to be read first")
        touched = read_keys([Item(command, fingerprint(command))], Facts()).nodes
        if touched & self._untold:
            self._untold |= touched
            return _UNTOLD
        delivery = Delivery(0, body, 0, None, redelivered=False, received_at=0.0, user_id=user, headers=headers or {})
        item = Item(command, fingerprint(command), delivery)
        try:
            return self._decided(self._loaded, item)
        except Exception as error:  # noqa: BLE001 - what makes the code fail here would make it fail in a worker
            return f"would fail: {type(error).__name__}: {error}"

    def _decided(self, loaded: ReadSet, item: Item) -> str:
        result = self._run(loaded, item, Facts())
        inquiry = result.inquiries.get(item.command.node)
        if inquiry is None:
            return _told(result)
        names = ", ".join(sorted(inquiry.addresses))
        facts = _as_before(loaded.view, inquiry, loaded.now)
        if facts is not None:
            result = self._run(loaded, item, facts)
        if facts is None or result.inquiries:
            self._untold.add(item.command.node)
            return f"would ask the hypervisor of {names} first"
        gone = " and has no such domain" if inquiry.question.domains else ""
        return f"would ask the hypervisor of {names} first; if it says what it said last{gone}: {_told(result)}"

    def _run(self, loaded: ReadSet, item: Item, facts: Facts) -> Result:
        return Decider(
            loaded=loaded,
            facts=facts,
            clock=0.0,
            park_deadline=self.park_deadline,
            refusal=self.refusal,
            permissions=self.permissions,
        ).run([item])


def _as_before(view: View, inquiry: Inquiry, now: datetime) -> Facts | None:
    """The answers of hypervisors that say again what they said last; ``None`` where that is not known."""
    question = inquiry.question
    facts = Facts(domains=dict.fromkeys(question.domains, "absent"))
    for name in question.inventories:
        node = view.nodes.get(name)
        if node is None or node.inventory is None or node.hypervisor != inquiry.addresses.get(name):
            return None
        facts.observations[name] = Observation(now, node.hypervisor, node.inventory, host_uuid=node.host_uuid)
    return None if question.listings else facts


def _told(result: Result) -> str:
    if result.dead_lettered:
        _, reason, detail = result.dead_lettered[0]
        return f"would be dead-lettered again: {reason}: {detail}"
    if not result.outcomes:
        return "would change nothing: it was dealt with before"
    rendered = result.outcomes[-1][1]
    document = from_json(rendered.text)
    reasons = "; ".join(str(reason["detail"]) for reason in document["reasons"])
    if result.duplicates:
        return f"duplicate: it is {rendered.status} already"
    where = f" on {rendered.node}" if rendered.status == "applied" else ""
    parked = result.changes.parked
    return f"would be {rendered.status}{where}" + (f": {reasons or parked[-1].detail}" if reasons or parked else "")
