"""One command, one decision: the guards that all kinds share, and the way to each kind's rules.

A decision depends on the view, the command and the time alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final

from schemas import Abort, Audit, Claim, Confirm, Delete, Migrate, NodePut, NodeRemove, Resize, Revert, Update
from schemas.commands import MODELS, InstanceCommand
from worker.accounting.reasons.refusals import MOST_BYTES
from worker.accounting.rules.audits import audit
from worker.accounting.rules.claims import abort, claim
from worker.accounting.rules.decision import Decision, refuse, rejected, unanswerable
from worker.accounting.rules.lifecycle import Expire, delete, expire, update
from worker.accounting.rules.looks import Look, look
from worker.accounting.rules.moves import confirm, migrate, resize, revert
from worker.accounting.rules.nodes import put_node, remove_node
from worker.accounting.rules.renaming import unknown_node
from worker.accounting.state.view import Question, View

if TYPE_CHECKING:
    from datetime import datetime

    from schemas import Command
    from worker.accounting.state.instances import Instance

Rules = Mapping[type, Callable[..., Decision | Question]]


def every_kind(rules: Rules, models: Mapping[str, type] = MODELS) -> Rules:
    """The same rules.

    Raises:
        TypeError: a kind has none, so that each of its commands would fail when it is decided.
    """
    missing = sorted(kind for kind, model in models.items() if model not in rules)
    if missing:
        raise TypeError(f"no rule decides {', '.join(missing)}")
    return rules


_RULES: Final = every_kind({
    NodePut: put_node,
    NodeRemove: remove_node,
    Claim: claim,
    Resize: resize,
    Migrate: migrate,
    Confirm: confirm,
    Revert: revert,
    Abort: abort,
    Update: update,
    Delete: delete,
    Audit: audit,
})  # fmt: skip
_OWN_RULES: Final[Rules] = {Expire: expire, Look: look}
"""Of commands that the workers make themselves."""


def decide(view: View, command: Command | Expire | Look, now: datetime) -> Decision | Question:
    """Decide one command, or say what must be asked first. Changes nothing."""
    if command.expires_at is not None and command.expires_at <= now:
        return refuse(command.node, "expired", f"expired at {command.expires_at.isoformat()} without being applied")
    if (own := _OWN_RULES.get(type(command))) is not None:
        return own(view, command, now)
    if isinstance(command, InstanceCommand) and (barred := _barred(view, command)) is not None:
        return barred
    decision = _RULES[type(command)](view, command, now)
    if isinstance(decision, Decision) and (size := unanswerable(decision)):
        detail = f"the answer would take {size} bytes, of which {MOST_BYTES} can be sent: ask for fewer devices at once"
        return refuse(command.node, "invalid_request", detail)
    if isinstance(decision, Decision) and decision.status == "parked" and command.dry_run:
        return Decision("rejected", decision.node, decision.reasons)
    return decision


def _barred(view: View, command: InstanceCommand) -> Decision | None:
    """Why a command cannot be about this instance on this node."""
    instance = view.instances.get(command.instance)
    if instance is not None and _stale(instance.revision, command.revision):
        detail = f"revision {command.revision} is not above the applied {instance.revision}"
        return refuse(command.node, "stale", detail)
    if isinstance(command, Delete):
        return None
    if instance is not None and instance.deleted_at is not None:
        return refuse(command.node, "superseded", f"instance {command.instance} was deleted")
    homeless = instance is not None and _homeless(instance) and isinstance(command, Migrate | Update)
    if command.node not in view.nodes and not homeless:
        return rejected(command.node, [unknown_node(view, command.node)])
    if instance is None or not (_there(instance, command.node) or homeless):
        where = ", ".join(instance.nodes()) if instance is not None else ""
        detail = f"instance {command.instance} holds nothing on {command.node}" + (
            f"; it does on {where}" if where else ""
        )
        return refuse(command.node, "instance_unknown", detail)
    return None


def _homeless(instance: Instance) -> bool:
    """Whether an instance holds nothing, or but what its stray domains are charged since its node was removed."""
    return not instance.holdings or (instance.stranded is not None and not instance.claims)


def _there(instance: Instance, node: str) -> bool:
    """Whether commands for an instance belong on a node: where it has a claim, and if it has none, where it runs."""
    return bool(instance.claims_on(node)) if instance.claims else bool(instance.on(node))


def _stale(applied: int | None, revision: int | None) -> bool:
    return applied is not None and revision is not None and revision <= applied
