"""What becomes of a batch: every command decided in order on what the transaction loaded.

No I/O happens here. What must be written, published, asked or dead-lettered comes out
as data.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING

from schemas import Claim, Delete, NodePut
from schemas.commands import InstanceCommand
from worker.accounting.decide import decide
from worker.accounting.post import post
from worker.accounting.rules.decision import Decision
from worker.accounting.rules.lifecycle import Expire
from worker.accounting.rules.looks import Look
from worker.accounting.rules.nodes import observe
from worker.accounting.rules.waiting import waits_behind_others
from worker.accounting.state.view import Question
from worker.engine.drift import drift_change, note_drift
from worker.engine.outcomes import Rendered, render, render_dead
from worker.engine.permissions import Permissions, senders_of
from worker.engine.ports import Known, OutcomeRecord, Parked
from worker.engine.result import Inquiry, Result
from worker.engine.statuses import FINAL, may_move

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from datetime import datetime
    from uuid import UUID

    from worker.accounting.state.view import Facts
    from worker.engine.intake import Item
    from worker.engine.ports import ReadSet


@dataclass(slots=True)
class Decider:
    """Decides the commands of one batch, one after the other, each on the state the others left.

    ``clock`` gives the loop's time, in which deliveries say when they came.
    ``park_deadline`` is how long a command may wait for a hypervisor.
    """

    loaded: ReadSet
    facts: Facts
    clock: float
    park_deadline: timedelta
    refusal: Callable[[str], str | None]
    permissions: Permissions = field(default_factory=Permissions)
    result: Result = field(default_factory=Result)

    def run(self, items: Sequence[Item]) -> Result:
        """Decide them all."""
        view = self.loaded.view
        view.facts = self.facts
        for name, observation in self.facts.observations.items():
            self.facts.observations[name] = replace(observation, at=self.loaded.now)
            if name in view.nodes:
                observe(view, view.nodes[name], self.facts.observations[name])
        for item in items:
            self._one(item)
        self.result.stuck |= self.result.leaving
        self.result.changes.drift = drift_change(self.loaded.drift, self.result.differing)
        return self.result

    def _one(self, item: Item) -> None:
        command = item.command
        if command.node in self.result.inquiries:
            self._hold(item)
            return
        known = self.loaded.known.get(command.id)
        if known is not None and self._settled_before(item, known):
            return
        if item.parked is not None and command.node in self.result.stuck:
            self.result.done.append(item)
            return
        came = item.parked is None and item.delivery is not None
        waiting = came and waits_behind_others(self.loaded.view, command)
        denied = self.permissions.refusal(item, self.loaded.view.instances, waiting=waiting)
        if denied is not None:
            self._deny(item, denied)
        elif item.dead_lettered is not None:
            self._record_dead(item, *item.dead_lettered)
        elif waiting:
            self._park(item, "waits behind other parked commands", blocking=True)
        else:
            self._decide(item)

    def _decide(self, item: Item) -> None:
        command = item.command
        if isinstance(command, NodePut) and command.hypervisor is not None:
            refusal = self.refusal(command.hypervisor)
            if refusal is not None:
                self.loaded.view.refused_addresses[command.hypervisor] = refusal
        if item.parked is not None and isinstance(command, Delete):
            # what overtook it while it waited cannot make it stale
            command = command.model_copy(update={"revision": None})
        decision = decide(self.loaded.view, command, self.loaded.now)
        if isinstance(decision, Decision) and decision.status == "parked":
            self._waits(item, decision)
        elif item.parked is not None and command.node in self.result.leaving:
            self.result.done.append(item)
        elif isinstance(decision, Question):
            self._ask(item, decision)
        elif isinstance(command, Look):
            self._looked(item, decision)
        else:
            self._answer(item, decision)

    def _settled_before(self, item: Item, known: Known) -> bool:
        """Deal with an id that was seen before; says whether what came ends here, and its command stays as it is."""
        if known.fingerprint != item.fingerprint:
            detail = f"id {item.command.id} was used before by another command"
            self.result.dead_lettered.append((item, "id_reuse", detail))
            return True
        if may_move(known.status, "message" if item.parked is None else "parked row"):
            return False
        if item.parked is None and item.dead_lettered is None:
            self._answer_again(item, known)
        self._tried(item)
        self.result.done.append(item)
        return True

    def _answer_again(self, item: Item, known: Known) -> None:
        """A duplicate gets the stored outcome."""
        self.result.duplicates += 1
        self.result.unrecorded.append(item)
        self.result.outcomes.append((item, Rendered(known.kind, known.status, known.node, known.outcome)))

    def _deny(self, item: Item, denied: Decision) -> None:
        """Answer what the rules refuse, and keep nothing under its id, which its sender may have taken from another."""
        if item.parked is not None:
            self._answer(item, denied)  # the row is this command's own since it was parked
            return
        if item.dead_lettered is None:
            rendered = render(self.loaded, item.command, denied, denied.status)
        else:
            rendered = render_dead(self.loaded, item.command, *item.dead_lettered, permitted=False)
        self.result.denied.append((item, denied))
        self.result.unrecorded.append(item)
        self.result.outcomes.append((item, rendered))
        self._tried(item)
        self.result.done.append(item)

    def _tried(self, item: Item) -> None:
        """A command that was delivered before came to its end: its attempts are over."""
        if item.delivery is not None and item.delivery.redelivered:
            self.result.changes.tried.append(item.command.id)

    def _ask(self, item: Item, question: Question) -> None:
        """Hold the rest of the lane until its hypervisor answered."""
        command = item.command
        addresses = {
            name: node.hypervisor
            for name in {*question.inventories, *question.listings, *(name for name, _ in question.domains)}
            if (node := self.loaded.view.nodes.get(name)) is not None and node.hypervisor is not None
        }
        if isinstance(command, NodePut) and command.hypervisor is not None:
            addresses[command.node] = command.hypervisor
        self.result.inquiries[command.node] = Inquiry(question, addresses, self.facts)
        self.result.held.append(item)

    def _hold(self, item: Item) -> None:
        """A command behind one that waits for an answer. What it would ask itself is asked together with that."""
        self.result.held.append(item)
        if isinstance(item.command, Delete):
            further = decide(self.loaded.view, item.command, self.loaded.now)
            inquiry = self.result.inquiries[item.command.node]
            if isinstance(further, Question) and {n for n, _ in further.domains} <= inquiry.addresses.keys():
                inquiry.question |= further

    def _waits(self, item: Item, decision: Decision) -> None:
        """A command whose hypervisor does not answer, or whose domain still runs."""
        if isinstance(item.command, Expire):
            self.result.done.append(item)
            return
        parked = item.parked
        if parked is not None and self.loaded.now - (parked.parked_at or self.loaded.now) >= self.park_deadline:
            detail = "; ".join(reason.detail for reason in decision.reasons)
            self.result.dead_lettered.append((item, "hypervisor_timeout", detail))
            if parked.blocking:
                self.result.leaving.add(item.command.node)
            return
        detail = "; ".join(reason.detail for reason in decision.reasons)
        self._park(item, detail, blocking=decision.blocking, decision=decision)

    def _park(self, item: Item, detail: str, *, blocking: bool, decision: Decision | None = None) -> None:
        """Keep a command, in order, until its hypervisor answers; say so once."""
        if item.parked is not None:
            if blocking:
                self.result.stuck.add(item.command.node)
            if item.parked.blocking != blocking:
                self._unpark(item)
                self._count_parked(item, blocking)
                self.result.changes.parked.append(replace(item.parked, blocking=blocking, detail=detail))
            self.result.done.append(item)
            return
        delivery = item.delivery
        if delivery is None:
            raise AssertionError("only what came from a queue can be parked")
        self._count_parked(item, blocking)
        parked = Parked(
            node=item.command.node,
            command=item.command.id,
            body=delivery.body,
            reply=item.reply,
            user_id="\n".join(senders_of(item)) or None,
            received_at=self._received_at(item),
            blocking=blocking,
            detail=detail,
        )
        self.result.changes.parked.append(parked)
        self._write(item, render(self.loaded, item.command, decision, "parked"), decision)

    def _looked(self, item: Item, decision: Decision) -> None:
        """What a worker saw by itself is kept and answered to nobody; an audit behind it asks anew."""
        note_drift(self.result.differing, decision)
        node = item.command.node
        if decision.look_again:
            self.result.look_again.add(node)
        self.facts.listings.pop(node, None)
        if (sight := self.facts.sights.get(node)) is not None and sight.load is not None:
            self.result.changes.loads[node] = sight.load
        self.result.done.append(item)

    def _answer(self, item: Item, decision: Decision) -> None:
        """A final decision: post it, and keep its outcome."""
        command = item.command
        if decision.status == "applied" and not command.dry_run:
            for posting in post(self.loaded.view, command, decision):
                self.result.changes.postings.append((command.id, command.kind, posting))
            note_drift(self.result.differing, decision)
        self.result.decided.append((item, decision))
        self._unpark(item)
        self._write(item, render(self.loaded, command, decision, decision.status), decision)

    def _record_dead(self, item: Item, reason: str, detail: str) -> None:
        self._unpark(item)
        self._write(item, render_dead(self.loaded, item.command, reason, detail))

    def _unpark(self, item: Item) -> None:
        if item.parked is None:
            return
        self.result.changes.unparked[item.command.id] = item.parked.node
        self._count_parked(item, -item.parked.blocking)

    def _count_parked(self, item: Item, change: int) -> None:
        """Count a parked command that others wait behind; a change of its node like any other."""
        view, name = self.loaded.view, item.command.node
        node = view.nodes.get(name)
        if node is None:
            view.waiting[name] = view.waiting.get(name, 0) + change
        elif change:
            node.parked += change
            node.generation += 1

    def _write(self, item: Item, rendered: Rendered, decision: Decision | None = None) -> None:
        """Keep an outcome under the command's id, to be published after the commit."""
        command = item.command
        before = self.loaded.known.get(command.id)
        if before is not None and rendered.status in FINAL:
            self.result.changes.revived.append(command.id)
        self._tried(item)
        answer = OutcomeRecord(
            command=command.id,
            fingerprint=item.fingerprint,
            kind=command.kind,
            status=rendered.status,
            node=command.node,
            instance=_subject(command),
            received_at=self._received_at(item),
            codes=tuple(dict.fromkeys(reason.code for reason in decision.reasons)) if decision is not None else (),
            reply=item.reply,
            outcome=rendered.text,
        )
        self.result.changes.answers.append(answer)
        self.loaded.known[command.id] = Known(
            item.fingerprint, rendered.status, command.kind, command.node, rendered.text
        )
        self.result.outcomes.append((item, rendered))
        self.result.done.append(item)

    def _received_at(self, item: Item) -> datetime:
        if item.delivery is not None:
            return self.loaded.now - timedelta(seconds=max(0.0, self.clock - item.delivery.received_at))
        return item.parked.received_at if item.parked is not None else self.loaded.now


def _subject(command: object) -> UUID | None:
    """The instance a command is about; a claim for several has none of its own."""
    return command.instance if isinstance(command, InstanceCommand | Claim) else None
