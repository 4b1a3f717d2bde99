"""Why a guest finds no place among a host's cells: what each of them lacks, in numbers and in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.cpuset import format_cpu_set
from worker.accounting.capacity import MILLION, grows
from worker.accounting.cpus import isolated
from worker.accounting.pages import Pages, candidates, free_pages
from worker.accounting.refusals import refusal
from worker.accounting.search import unmatched

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from schemas.outcomes import Reason
    from worker.accounting.cells import Room
    from worker.accounting.requests import Guest, Need
    from worker.accounting.work import Work

Lack = dict[str, object]
"""One thing a host cell has too little of: ``resource``, ``requested``, ``free``, ``short_by``."""


def too_few_cells(wanted: int, present: int) -> Reason:
    """The guest has more cells than the host."""
    known = f"the node has {present}" if present else "the node reports no cells"
    return refusal(
        "no_numa_fit",
        f"the guest has {wanted} cells, {known}",
        resource="cells",
        requested=wanted,
        capacity=present,
        short_by=wanted - present,
    )


def why_no_cells(
    rooms: Sequence[Room],
    rows: Sequence[int],
    guest: Guest,
    used: Mapping[str, int],
    own: Mapping[str, int],
    work: Work,
) -> Reason:
    """What each host cell lacks for the guest cells that are left over when as many as can be have found room.

    Raises:
        TooComplexError: finding out takes more work than is left.
    """
    left = unmatched(rows, work) or []
    short_by = len(left)
    needs = {guest.cells[number].need for number in left}
    left = [number for number, cell in enumerate(guest.cells) if cell.need in needs]
    work.spend(1 + len(rooms) * (len(rows) // 8 + 4 * len(needs)))
    shown: list[dict[str, object]] = []
    for position, room in sorted(enumerate(rooms), key=lambda item: item[1].cell.id):
        entry: dict[str, object] = {"cell": room.cell.id}
        if fitting := [number for number, row in enumerate(rows) if row >> position & 1]:
            entry["fits"] = format_cpu_set(fitting)
        if lacking := _lacking(room, guest, [n for n in left if n not in fitting], used, own):
            entry["lacks"] = lacking
        shown.append(entry)
    return refusal(
        "no_numa_fit",
        f"no room for {short_by} of {len(rows)} guest cells: {_sentence(shown)}",
        resource="cells",
        requested=len(rows),
        capacity=len(rooms),
        short_by=short_by,
        cells=shown,
    )


def _lacking(
    room: Room, guest: Guest, numbers: Sequence[int], used: Mapping[str, int], own: Mapping[str, int]
) -> list[Lack]:
    """What the cell lacks for the guest cells ``numbers``; alike ones are named together."""
    alike: dict[Need, list[int]] = {}
    for number in numbers:
        alike.setdefault(guest.cells[number].need, []).append(number)
    return [
        {"guest_cells": format_cpu_set(members), **lack}
        for need, members in alike.items()
        for lack in lacks(room, guest, need, used, own)
    ]


def lacks(room: Room, guest: Guest, need: Need, used: Mapping[str, int], own: Mapping[str, int]) -> Iterator[Lack]:
    """All that keeps a guest cell off a host cell."""
    yield from _memory_lacks(room, guest, need, used, own)
    yield from _cpu_lacks(room, guest, need, own)
    if guest.policy == "dedicated":
        return
    cell = room.cell
    vcpu_limit = cell.shared.bit_count() * cell.vcpu_ratio // MILLION
    if room.vcpus + need.shared > vcpu_limit and grows(need.shared, cell.vcpus_counter, own):
        yield _lack("vcpus", need.shared, vcpu_limit - room.vcpus)
    memory_limit = cell.memory_mib * cell.memory_ratio // MILLION
    if room.memory_mib + need.memory_mib > memory_limit and grows(need.memory_mib, cell.memory_counter, own):
        yield _lack("memory_mib", need.memory_mib, memory_limit - room.memory_mib)


def _lack(resource: str, requested: int, free: int) -> Lack:
    return {"resource": resource, "requested": requested, "free": max(0, free), "short_by": requested - free}


def _memory_lacks(
    room: Room, guest: Guest, need: Need, used: Mapping[str, int], own: Mapping[str, int]
) -> Iterator[Lack]:
    cell = room.cell
    pinned = guest.policy != "shared"
    if guest.page_size is None and not cell.pages:
        free = cell.memory_mib - (room.memory_mib if pinned else 0)
        if need.memory_mib > free and grows(need.memory_mib, cell.memory_counter, own):
            yield _lack("memory_mib", need.memory_mib, free)
        return
    options = candidates(cell.pages, guest.page_size or "small")
    if not options:
        size = guest.page_size if isinstance(guest.page_size, int) else None
        yield {
            "resource": "pages",
            "page_size_kib": size,
            "requested": None if size is None else need.memory_mib * 1024 // size,
            "free": 0,
        }
        return
    whole = guest.page_size is None and not pinned
    found = [_page_lack(some, need, used, own, whole=whole) for some in options]
    if None not in found:
        yield min((lack for lack in found if lack is not None), key=_missing_kib)


def _page_lack(some: Pages, need: Need, used: Mapping[str, int], own: Mapping[str, int], *, whole: bool) -> Lack | None:
    """What is missing to back a guest cell's memory with these pages; None if nothing is."""
    requested, rest = divmod(need.memory_mib * 1024, some.size_kib)
    if rest:
        return {"resource": "page_multiple", "page_size_kib": some.size_kib, "requested": need.memory_mib}
    free = some.total if whole else free_pages(some, used)
    if requested <= free or not grows(requested, some.counter, own):
        return None
    return {**_lack("pages", requested, free), "page_size_kib": some.size_kib}


def _missing_kib(lack: Lack) -> tuple[bool, int]:
    short_by, size = lack.get("short_by"), lack["page_size_kib"]
    missing = short_by * size if isinstance(short_by, int) and isinstance(size, int) else 0
    return lack["resource"] == "page_multiple", missing


def _cpu_lacks(room: Room, guest: Guest, need: Need, own: Mapping[str, int]) -> Iterator[Lack]:
    cell = room.cell
    shared = cell.shared.bit_count()
    if need.shared > shared and grows(need.shared, cell.vcpus_counter, own):
        yield _lack("shared_cpus", need.shared, shared)
    if guest.policy == "shared":
        return
    wanted, free = need.dedicated + need.emulator, room.free.bit_count()
    if wanted > free:
        yield _lack("dedicated_cpus", wanted, free)
    if guest.thread_policy == "isolate":
        if not cell.isolating:
            yield _lack("cores_without_siblings", wanted, 0)
        elif (cores := isolated(room.cores, room.free, need.emulator, cell.threads_per_core)) < need.dedicated:
            yield _lack("free_cores", need.dedicated, cores)
    elif guest.thread_policy == "require":
        sizes = sorted(((core & room.free).bit_count() for core in room.cores), reverse=True)
        reach = max((size * count for count, size in enumerate(sizes, 1) if size > 1), default=0)
        if reach < max(need.dedicated, 1):
            yield _lack("sibling_cpus", max(need.dedicated, 1), reach)


def why_no_networks(rooms: Sequence[Room], rows: Sequence[int], guest: Guest) -> Reason:
    """The cells with room for the guest are not those that its networks are near to."""
    shown: list[dict[str, object]] = []
    for position, room in sorted(enumerate(rooms), key=lambda item: item[1].cell.id):
        near = sorted(guest.physnets & room.cell.physnets)
        fits = format_cpu_set(number for number, row in enumerate(rows) if row >> position & 1)
        shown.append(
            {"cell": room.cell.id, "physnets": near, "tunneled": guest.tunneled and room.cell.tunneled, "fits": fits}
        )
    wanted = [*sorted(guest.physnets), *(["tunnels"] if guest.tunneled else [])]
    return refusal(
        "no_numa_fit",
        f"no {len(rows)} cells with room for the guest are near all its networks ({', '.join(wanted)})",
        resource="networks",
        requested=len(wanted),
        cells=shown,
    )


def _sentence(shown: Sequence[Mapping[str, object]]) -> str:
    return "; ".join(f"cell {entry['cell']} {_cell_words(entry)}" for entry in shown)


def _cell_words(entry: Mapping[str, object]) -> str:
    lacking = entry.get("lacks")
    if not isinstance(lacking, list):
        return f"has room for guest cell {entry['fits']}"
    return "lacks " + ", ".join(_words(lack) for lack in lacking)


def _words(lack: Lack) -> str:
    of = f" of {lack['page_size_kib']} KiB" if lack.get("page_size_kib") else ""
    if lack["resource"] == "page_multiple":
        return f"pages that divide {lack['requested']} MiB (they are{of})"
    if "short_by" not in lack:
        return f"pages{of} altogether" if of else "such pages altogether"
    return f"{lack['short_by']} {lack['resource']}{of} ({lack['requested']} requested, {lack['free']} free)"
