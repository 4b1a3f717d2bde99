"""Who waits behind commands that are parked for the same node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas import Audit, Claim, Confirm, Migrate, NodePut, NodeRemove, Revert

if TYPE_CHECKING:
    from schemas import Command
    from worker.accounting.rules.lifecycle import Expire
    from worker.accounting.rules.looks import Look
    from worker.accounting.state.view import View


def waits_behind_others(view: View, command: Command | Expire | Look) -> bool:
    """Whether commands of this node are parked before it, and it is to keep their order.

    What may be the way out waits for nothing: an evacuation and its end, other
    settings for the node, and its removal; nor does a claim that may go to
    another node, or an audit, which is to say how things are now.
    """
    node = view.nodes.get(command.node)
    if node is None or not node.parked or command.dry_run:
        return False
    if isinstance(command, Confirm | Revert):
        instance = view.instances.get(command.instance)
        return instance is None or instance.move != "evacuate"
    elsewhere = isinstance(command, Claim) and command.candidates
    evacuates = isinstance(command, Migrate) and command.reason == "evacuate"
    return not (elsewhere or evacuates or isinstance(command, NodePut | NodeRemove | Audit))
