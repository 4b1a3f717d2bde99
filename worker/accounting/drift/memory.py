"""In which pages and on which host cells a claimed guest's memory lies, held against what it was given."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from schemas.cpuset import parse_cpu_set
from worker.accounting.drift.found import Drift
from worker.accounting.host.cpus import bits_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from worker.accounting.host.compiled import Host
    from worker.accounting.state.domains import Domain, DomainMemory
    from worker.accounting.state.instances import Holding, Instance
    from worker.accounting.state.view import Node

_BASE_PAGES_KIB: Final = frozenset({4, 16, 64})
"""Sizes of ordinary pages on the architectures that libvirt knows, for hosts that do not tell of theirs."""


def memory_drift(node: Node, holder: Instance, held: Holding, domain: Domain) -> Iterator[Drift]:
    """Tell of other pages, and of other cells."""
    if node.host is None:
        return
    given: Any = held.placement.assignment
    cells = {cell["guest_cell"]: cell for cell in given["cells"]}
    yield from _pages(node.name, node.host, holder, cells, domain)
    if cells and node.host.cells:
        yield from _cells(node.name, node.host, holder, cells, domain)


def ordinary_pages(host: Host) -> frozenset[int]:
    """The sizes in KiB of pages that are not set aside as huge ones."""
    return frozenset(cell.pages[0].size_kib for cell in host.cells if cell.pages) or _BASE_PAGES_KIB


def _pages(node: str, host: Host, holder: Instance, cells: Mapping[int, Any], domain: Domain) -> Iterator[Drift]:
    ordinary = ordinary_pages(host)
    ours: dict[str, int | None] = {}
    theirs: dict[str, list[int | None]] = {}
    for number, pieces in _by_cell(domain.memory).items():
        size = cells[number]["page_size_kib"] if number in cells else None
        due = None if size in ordinary else size
        actual = {None if piece.page_size_kib in ordinary else piece.page_size_kib for piece in pieces}
        if due is not None and 0 in actual:
            actual = actual - {0} | {due}  # of the host's default size, which it does not tell
        if actual != {due}:
            ours[str(number)], theirs[str(number)] = due, sorted(actual, key=lambda one: one or -1)
    if ours:
        told = "; ".join(
            f"guest cell {number} was given {_page(ours[number])} and uses {', '.join(map(_page, theirs[number]))}"
            for number in ours
        )
        yield Drift(node, "pages", holder.id, told, ours, theirs)


def _page(size: int | None) -> str:
    if size is None:
        return "ordinary pages"
    return f"pages of {size} KiB" if size else "huge pages of the default size"


def _cells(node: str, host: Host, holder: Instance, cells: Mapping[int, Any], domain: Domain) -> Iterator[Drift]:
    ours = {
        str(number): {"memory_mib": cell["memory_mib"], "host_cells": [cell["host_cell"]]}
        for number, cell in cells.items()
    }
    theirs: dict[str, dict[str, object]] = {}
    for number, pieces in _by_cell(domain.memory).items():
        bound = frozenset[int]().union(*(piece.host_cells for piece in pieces))
        if not all(piece.host_cells for piece in pieces):
            bound |= _near(host, cells.get(number), domain)
        amount = sum(piece.memory_mib for piece in pieces)
        theirs[str(number)] = {"memory_mib": amount, "host_cells": sorted(bound)}
    if sum(cell["memory_mib"] for cell in cells.values()) != domain.memory_mib:  # told as an amount
        for key in ours.keys() & theirs.keys():
            theirs[key]["memory_mib"] = ours[key]["memory_mib"]
    if ours != theirs:
        detail = f"memory on host cells {_places(ours.values())} claimed, on {_places(theirs.values())} in the domain"
        yield Drift(node, "cells", holder.id, detail, ours, theirs)


def _places(cells: Iterable[Mapping[str, Any]]) -> str:
    return ", ".join("/".join(map(str, cell["host_cells"])) or "any" for cell in cells)


def _near(host: Host, cell: Any, domain: Domain) -> frozenset[int]:
    """The host cells of the CPUs that a guest cell's vCPUs are confined to; none if one of them is not.

    Memory that nothing binds is taken from the cell of the CPU that touches it first.
    """
    if cell is None:
        return frozenset()
    vcpus = [*map(int, cell["pins"]), *parse_cpu_set(cell["shared_vcpus"])]
    if not all(vcpu in domain.vcpu_cpus for vcpu in vcpus):
        return frozenset()
    cpus = frozenset[int]().union(*(domain.vcpu_cpus[vcpu] for vcpu in vcpus))
    return frozenset(one.id for one in host.cells if not cpus.isdisjoint(bits_of(sum(one.siblings))))


def _by_cell(memory: Iterable[DomainMemory]) -> dict[int, list[DomainMemory]]:
    found: dict[int, list[DomainMemory]] = {}
    for piece in memory:
        found.setdefault(piece.guest_cell, []).append(piece)
    return found
