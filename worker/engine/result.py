"""What a batch reads, what came of it, and what must be asked before it goes on: data alone."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from schemas import Audit, Claim, Migrate, NodePut, NodeRemove, Resize
from schemas.commands import InstanceCommand
from worker.accounting.rules.looks import Look
from worker.engine.ports import ReadKeys, WriteSet

if TYPE_CHECKING:
    from collections.abc import Sequence

    from worker.accounting.rules.decision import Decision
    from worker.accounting.state.view import Facts, Question
    from worker.engine.drift import Found
    from worker.engine.intake import AnyCommand, Item
    from worker.engine.outcomes import Rendered
    from worker.engine.ports import Delivery


@dataclass(slots=True)
class Inquiry:
    """What must be asked before a lane goes on, at which addresses, and what was answered before."""

    question: Question
    addresses: dict[str, str]
    facts: Facts


@dataclass(slots=True)
class Result:
    """What came of a batch.

    ``held`` are commands that go back to their lanes until the ``inquiries`` of
    their nodes are answered. ``dead_lettered`` go to the dead letters. ``stuck`` are
    nodes of which a parked command has to stay so, and with it all behind it;
    ``leaving`` those of which one is put away, and what else was parked behind it
    is decided once that is written down. ``unrecorded`` are those whose answer
    no row holds: ``duplicates``, so many, which get the stored outcome once
    more, and ``denied``, which the rules refuse. ``differing`` is what the last
    audit of a node found; those in ``look_again`` are to be looked at again soon.
    """

    changes: WriteSet = field(default_factory=WriteSet)
    done: list[Item] = field(default_factory=list)
    outcomes: list[tuple[Item, Rendered]] = field(default_factory=list)
    held: list[Item] = field(default_factory=list)
    inquiries: dict[str, Inquiry] = field(default_factory=dict)
    stuck: set[str] = field(default_factory=set)
    dead_lettered: list[tuple[Item, str, str]] = field(default_factory=list)
    decided: list[tuple[Item, Decision]] = field(default_factory=list)
    leaving: set[str] = field(default_factory=set)
    differing: dict[str, Found] = field(default_factory=dict)
    look_again: set[str] = field(default_factory=set)
    unrecorded: list[Item] = field(default_factory=list)
    duplicates: int = 0
    denied: list[tuple[Item, Decision]] = field(default_factory=list)

    def settled(self) -> list[Delivery]:
        """What may be acknowledged: all that is done, but for those whose answer is not safe before it is published."""
        unrecorded = {id(item) for item in self.unrecorded}
        return [item.delivery for item in self.done if item.delivery is not None and id(item) not in unrecorded]


def read_keys(items: Sequence[Item], facts: Facts) -> ReadKeys:
    """What the transaction of a batch must load."""
    want = ReadKeys()
    want.hosts = {name: seen.host_uuid for name, seen in facts.observations.items() if seen.host_uuid is not None}
    for item in items:
        want.commands.append(item.command.id)
        want.nodes.add(item.command.node)
        _want(want, item.command, facts)
    return want


def _want(want: ReadKeys, command: AnyCommand, facts: Facts) -> None:
    """Add what one command speaks of besides its node."""
    if isinstance(command, InstanceCommand):
        want.instances.add(command.instance)
        if isinstance(command, Resize | Migrate) and command.destination is not None:
            want.nodes.add(command.destination)
    elif isinstance(command, Claim):
        if command.instances is None and command.instance is not None:
            want.instances.add(command.instance)
            want.nodes.update(command.candidates)
        for member in command.instances or ():
            want.instances.add(member.instance)
            want.nodes.add(member.node)
    elif isinstance(command, NodePut):
        if command.replaces is not None:
            want.nodes.add(command.replaces)
            want.members.add(command.replaces)
    elif isinstance(command, NodeRemove | Audit | Look):
        want.members.add(command.node)
        want.instances.update(domain.uuid for domain in facts.listings.get(command.node) or ())
        if (sight := facts.sights.get(command.node)) is not None:
            want.instances.update(domain.uuid for domain in sight.listing or ())
