"""Who may send what: the operator's rules, held against the user that the broker vouches for.

Everything a command would touch must be allowed: each of its nodes, those that
the instance holds something on included, for each project concerned. Of a
command on an instance that is the instance's own project; an instance that the
ledger does not know has none, so that only who may act for all projects may
act on it. Rules only ever add: what no rule allows is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas import Claim, Migrate, NodePut, Resize
from schemas.commands import InstanceCommand
from worker.accounting.rules.decision import Decision, refuse
from worker.engine.ports import NOBODY, SENDERS_HEADER, line_up
from worker.permission_rules import matcher

if TYPE_CHECKING:
    import re
    from collections.abc import Iterable, Mapping, Sequence
    from uuid import UUID

    from worker.accounting.state.instances import Instance
    from worker.engine.intake import AnyCommand, Item
    from worker.permission_rules import PermissionRule

_EVERY_PROJECT: Final = None

Project = str | None


@dataclass(frozen=True, slots=True)
class Concern:
    """What a command touches. A project of ``None`` stands for all; no project at all for one not yet known."""

    kind: str
    nodes: frozenset[str]
    projects: frozenset[Project]


@dataclass(frozen=True, slots=True)
class _Rule:
    users: tuple[re.Pattern[str], ...]
    kinds: tuple[re.Pattern[str], ...]
    nodes: tuple[re.Pattern[str], ...]
    projects: tuple[re.Pattern[str], ...]
    every_project: bool

    def covers(self, user: str, kind: str, node: str) -> bool:
        return _any(self.users, user) and _any(self.kinds, kind) and _any(self.nodes, node)

    def covers_project(self, project: Project) -> bool:
        return self.every_project if project is _EVERY_PROJECT else _any(self.projects, project)


class Permissions:
    """The rules, compiled; without rules everybody may do everything."""

    def __init__(self, rules: Iterable[PermissionRule] | None = None) -> None:
        self._rules = None if rules is None else [_compile(rule) for rule in rules]

    def refusal(self, item: Item, instances: Mapping[UUID, Instance], *, waiting: bool = False) -> Decision | None:
        """Refuse a command that one of its senders may not send; ``None`` if all may.

        Of one that is to wait behind others (``waiting``) the instance may not
        be claimed yet: its project is judged when its turn comes.
        """
        if self._rules is None or (item.delivery is None and item.parked is None):
            return None
        command = item.command
        senders = senders_of(item)
        concern = concern_of(command, instances, waiting=waiting and len(senders) == 1)
        for sender in senders:
            if not self.allows(sender, concern):
                who = f"user {sender!r}" if sender else "a sender without a user_id"
                detail = f"no rule lets {who} send {command.kind} for all that this command touches"
                return refuse(command.node, "not_permitted", detail)
        return None

    def allows(self, user: str, concern: Concern) -> bool:
        """Whether rules let a user do all this."""
        if self._rules is None:
            return True
        if user == NOBODY:
            return False
        for node in concern.nodes:
            fitting = [rule for rule in self._rules if rule.covers(user, concern.kind, node)]
            if not fitting:
                return False
            if not all(any(rule.covers_project(project) for rule in fitting) for project in concern.projects):
                return False
        return True


def concern_of(command: AnyCommand, instances: Mapping[UUID, Instance], *, waiting: bool = False) -> Concern:
    """What a command touches, as far as the ledger knows."""
    nodes = {command.node}
    projects: set[Project] = set()
    if isinstance(command, Claim):
        nodes.update(command.candidates)
        nodes.update(member.node for member in command.instances or ())
        projects.add(command.project)
        before = [instances[member.instance] for member in command.members() if member.instance in instances]
        projects.update(instance.project for instance in before)
        return Concern(command.kind, frozenset(nodes), frozenset(projects))
    if isinstance(command, NodePut) and command.replaces is not None:
        nodes.add(command.replaces)
    if not isinstance(command, InstanceCommand):
        return Concern(command.kind, frozenset(nodes), frozenset({_EVERY_PROJECT}))
    if isinstance(command, Resize | Migrate) and command.destination is not None:
        nodes.add(command.destination)
    instance = instances.get(command.instance)
    if instance is not None:
        nodes.update(instance.nodes())
        projects.add(instance.project)
    elif not waiting:
        projects.add(_EVERY_PROJECT)
    return Concern(command.kind, frozenset(nodes), frozenset(projects))


def senders_of(item: Item) -> Sequence[str]:
    """Everybody through whose hands a command went: its sender, and of a replay those before."""
    if item.delivery is not None:
        return line_up(item.delivery.headers.get(SENDERS_HEADER), item.delivery.user_id)
    return (item.parked.user_id or NOBODY).split("\n") if item.parked is not None else ()


def _compile(rule: PermissionRule) -> _Rule:
    users, kinds, nodes, projects = (
        tuple(map(matcher, patterns)) for patterns in (rule.users, rule.kinds, rule.nodes, rule.projects)
    )
    return _Rule(users, kinds, nodes, projects, every_project="*" in rule.projects)


def _any(patterns: Iterable[re.Pattern[str]], text: str) -> bool:
    return any(pattern.fullmatch(text) for pattern in patterns)
