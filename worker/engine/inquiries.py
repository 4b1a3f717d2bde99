"""Questions to hypervisors: outside any transaction, one flight for a lane, each with a deadline."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from worker.accounting.state.view import Facts, Observation
from worker.engine.ports import HypervisorUnreachable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from uuid import UUID

    from worker.accounting.state.domains import Domain, DomainState
    from worker.engine.ports import Hypervisors
    from worker.engine.result import Inquiry


async def answer(hypervisors: Hypervisors, inquiry: Inquiry) -> Facts:
    """Ask everything that an inquiry asks. A hypervisor that does not answer is a fact too.

    What was answered before is kept, so that a command that asks a second thing
    does not ask the first one again.
    """
    facts = Facts()
    facts.update(inquiry.facts)

    async def look_at(node: str) -> None:
        facts.observations[node] = await observe(hypervisors, node, inquiry.addresses.get(node))

    async def look_for(node: str, instance: UUID) -> None:
        facts.domains[node, instance] = await _domain(hypervisors, node, inquiry.addresses.get(node), instance)

    async def list_all(node: str) -> None:
        facts.listings[node] = await _listing(hypervisors, node, inquiry.addresses.get(node))

    question = inquiry.question
    await asyncio.gather(
        *(list_all(node) for node in question.listings),
        *(look_at(node) for node in question.inventories),
        *(look_for(node, instance) for node, instance in question.domains),
    )
    return facts


def unanswered(inquiry: Inquiry) -> Facts:
    """What is known when nobody could be asked: nothing, which is a fact too."""
    now = datetime.now(UTC)
    facts = Facts()
    facts.update(inquiry.facts)
    for node in inquiry.question.inventories:
        facts.observations[node] = Observation(
            now, inquiry.addresses.get(node), None, f"the hypervisor of {node} does not answer"
        )
    facts.domains.update(dict.fromkeys(inquiry.question.domains))
    facts.listings.update(dict.fromkeys(inquiry.question.listings))
    return facts


async def observe(hypervisors: Hypervisors, node: str, address: str | None) -> Observation:
    """Ask a hypervisor what its node has.

    Why one does not answer is for those who run it, in the log: told to whoever
    put the node, a refused and a silent port would be two things to learn.
    """
    now = datetime.now(UTC)
    if address is None:
        return Observation(now, None, None, f"no hypervisor is known for {node}")
    try:
        inventory = await hypervisors.inventory(node, address)
        return Observation(now, address, inventory, host_uuid=hypervisors.host_uuid(node))
    except HypervisorUnreachable:
        return Observation(now, address, None, f"the hypervisor of {node} does not answer")


async def _domain(hypervisors: Hypervisors, node: str, address: str | None, instance: UUID) -> DomainState | None:
    if address is None:
        return None
    try:
        return await hypervisors.domain_state(node, address, instance)
    except HypervisorUnreachable:
        return None


async def _listing(hypervisors: Hypervisors, node: str, address: str | None) -> Sequence[Domain] | None:
    if address is None:
        return None
    try:
        return await hypervisors.domains(node, address)
    except HypervisorUnreachable:
        return None
