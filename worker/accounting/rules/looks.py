"""A look at a node without being asked: an audit that the workers make themselves, and that answers nobody."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from schemas.commands import CommandBase
from worker.accounting.rules.audits import audit
from worker.accounting.rules.decision import Decision
from worker.accounting.state.view import Facts

if TYPE_CHECKING:
    from datetime import datetime

    from worker.accounting.state.view import Question, View


class Look(CommandBase):
    """Compare a node with its hypervisor. Made by the workers themselves; never accepted from a queue."""

    kind: Literal["look"] = "look"
    repair: Literal[False] = False


def look(view: View, command: Look, now: datetime) -> Decision | Question:
    """Compare a node with what its hypervisor was found to have.

    What was listed ahead holds while nothing has changed on the node since
    before the listing: then it is as if it had been asked in the node's order.
    Else the hypervisor is asked in that order. A node that is gone, has no
    hypervisor or does not answer is not compared; nor is one with commands that
    wait, since what they will change has happened there already.
    """
    node = view.nodes.get(command.node)
    if node is None or node.hypervisor is None or node.parked:
        return Decision("applied", command.node)
    sight = view.facts.sights.get(node.name)
    if sight is not None and sight.listing is None:
        return Decision("applied", command.node)
    if sight is not None and (sight.generation, sight.address) == (node.generation, node.hypervisor):
        view = replace(view, facts=Facts(listings={node.name: sight.listing}))
    return audit(view, command, now)
