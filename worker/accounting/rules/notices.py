"""What is worth knowing of a node whose settings were replaced: nothing here refuses anything."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.cpuset import format_cpu_set
from schemas.outcomes import Notice
from worker.accounting.host.compiled import beside_isolated
from worker.accounting.host.cpus import bits_of, mask_of
from worker.accounting.state.occupancy import isolated
from worker.accounting.survey import Stray, strays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from schemas.outcomes import NoticeCode
    from worker.accounting.host.compiled import Host
    from worker.accounting.state.occupancy import Occupancy
    from worker.accounting.state.view import Node, Observation
    from worker.accounting.survey import StrayKind

_MOST: Final = 32
"""How many of a kind are told one by one: an answer stays readable, and below what a broker takes."""

_CODES: Final[dict[StrayKind, NoticeCode]] = {
    "device": "device_not_offered",
    "amount": "used_above_capacity",
}


def notices(node: Node, observation: Observation | None) -> Iterator[Notice]:
    """That its hypervisor does not answer, that less is offered than is held, and settings that nothing answers to."""
    if observation is not None and observation.address == node.hypervisor and observation.inventory is None:
        yield Notice(code="hypervisor_unreachable", detail=f"the hypervisor does not answer: {observation.detail}")
    if node.host is None or node.inventory is None:
        return
    found = strays(node.host, node.occupancy)
    if cpus := [int(one.name) for one in found if one.kind == "cpu"]:
        detail = f"CPUs {format_cpu_set(cpus)} are pinned and not among the dedicated CPUs that are online"
        yield Notice(code="cpu_not_dedicated", detail=detail)
    yield from _withheld(node.host, node.occupancy)
    for kind, code in _CODES.items():
        yield from _some(code, [one for one in found if one.kind == kind])
    yield from _unknown_pages(node)


def _withheld(host: Host, occupancy: Occupancy) -> Iterator[Notice]:
    """Threads that came on beside CPUs whose guests have their cores alone."""
    siblings = beside_isolated(host, isolated(occupancy.used)) & ~mask_of(occupancy.pinned)
    if siblings:
        withheld = format_cpu_set(bits_of(siblings))
        detail = f"CPUs {withheld} are siblings of CPUs whose guests have their cores alone: nobody is given them"
        yield Notice(code="siblings_withheld", detail=detail)


def _some(code: NoticeCode, found: list[Stray]) -> Iterator[Notice]:
    for one in found[:_MOST]:
        yield Notice(code=code, detail=one.detail)
    if len(found) > _MOST:
        yield Notice(code=code, detail=f"and {len(found) - _MOST} more")


def _unknown_pages(node: Node) -> Iterator[Notice]:
    """Reserved pages on a cell, or of a size, that the host has not."""
    cells = node.inventory.cells if node.inventory is not None else []
    sizes = {cell.id: {pages.size_kib for pages in cell.pages} for cell in cells}
    wrong: list[str] = []
    for pages in node.policy.reserved.pages:
        if pages.cell not in sizes:
            wrong.append(f"the host has no cell {pages.cell}")
        elif pages.size_kib not in sizes[pages.cell]:
            wrong.append(f"cell {pages.cell} has no pages of {pages.size_kib} KiB")
    wrong = list(dict.fromkeys(wrong))
    for detail in wrong[:_MOST]:
        yield Notice(code="reserved_pages_unknown", detail=f"reserved.pages: {detail}")
    if len(wrong) > _MOST:
        yield Notice(code="reserved_pages_unknown", detail=f"and {len(wrong) - _MOST} more")
