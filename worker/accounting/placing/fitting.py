"""Whether a cell of a guest fits on a cell of a host, and if not, what the host's cell lacks: one computation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.host.capacity import MILLION, grows
from worker.accounting.host.cpus import attainable
from worker.accounting.host.pages import Pages, candidates, free_pages
from worker.accounting.placing.caching import caches_of, in_fewest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from worker.accounting.host.cells import HostCell, Room
    from worker.accounting.placing.guests import Guest, Need
    from worker.accounting.placing.keeping import Licence

Lack = dict[str, object]
"""One thing a host cell has too little of: ``resource``, ``requested``, ``free``, ``short_by``."""


def fitting(
    room: Room, guest: Guest, need: Need, used: Mapping[str, int], licence: Licence, *, pinned: bool
) -> int | list[Lack]:
    """The page size in KiB a guest cell gets on a host cell, or all that keeps it off.

    0 stands for a host that does not report pages. What does not grow beyond
    the licence does not refuse. ``pinned`` tells that it has dedicated CPUs there
    already, with which it comes by all it needs.
    """
    backing = _backing(room, guest, need, used, licence)
    lacking = [*_cpu_lacks(room, guest, need, licence.own, pinned=pinned)]
    if guest.policy != "dedicated":
        lacking += _cpu_ratio_lacks(room, need, licence)
        if not isinstance(backing, int) or is_small(room.cell, backing):
            lacking += _memory_ratio_lacks(room, need, licence)
    if isinstance(backing, int):
        return lacking or backing
    return [backing, *lacking]


def _lack(resource: str, requested: int, free: int) -> Lack:
    return {"resource": resource, "requested": requested, "free": max(0, free), "short_by": requested - free}


def _backing(room: Room, guest: Guest, need: Need, used: Mapping[str, int], licence: Licence) -> int | Lack:
    """The size of the pages that back a guest cell's memory, the largest of those that do; or the nearest miss."""
    cell, whole = room.cell, guest.page_size is None and guest.policy == "shared"
    own = licence.own if whole else licence.backed
    if guest.page_size is None and not cell.pages:
        free = cell.memory_mib - (0 if whole else room.memory_mib)
        if need.memory_mib > free and grows(need.memory_mib, cell.memory_counter, own):
            return _lack("memory_mib", need.memory_mib, free)
        return 0
    missed: list[Lack] = []
    for some in candidates(cell.pages, guest.page_size or "small"):
        lack = _page_lack(some, need, used, own, whole=whole)
        if lack is None:
            return some.size_kib
        missed.append(lack)
    if (size := _held_unlisted(cell, guest, need, own)) is not None:
        return size
    if missed:
        return min(missed, key=_missing_kib)
    size = guest.page_size if isinstance(guest.page_size, int) else None
    requested = None if size is None else need.memory_mib * 1024 // size
    return {"resource": "pages", "page_size_kib": size, "requested": requested, "free": 0}


def _held_unlisted(cell: HostCell, guest: Guest, need: Need, own: Mapping[str, int]) -> int | None:
    """A size of pages that the host lists no more, of which the guest holds enough on this cell already."""
    listed = {some.counter for some in cell.pages}
    for counter, amount in own.items():
        if not counter.startswith(f"cell/{cell.id}/pages/") or counter in listed:
            continue
        size = int(counter.rsplit("/", 1)[1])
        pages, rest = divmod(need.memory_mib * 1024, size)
        if guest.page_size in {size, "large", "any"} and not rest and pages <= amount:
            return size
    return None


def _page_lack(some: Pages, need: Need, used: Mapping[str, int], own: Mapping[str, int], *, whole: bool) -> Lack | None:
    """What is missing to back a guest cell's memory with these pages; None if nothing is.

    ``whole`` counts all pages instead of the free ones: memory that is not
    backed by huge pages and not pinned may be overcommitted.
    """
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


def _cpu_lacks(room: Room, guest: Guest, need: Need, own: Mapping[str, int], *, pinned: bool) -> Iterator[Lack]:
    cell = room.cell
    shared = cell.shared.bit_count()
    if need.shared > shared and grows(need.shared, cell.vcpus_counter, own):
        yield _lack("shared_cpus", need.shared, shared)
    wanted, free = need.dedicated + need.emulator, room.free.bit_count()
    if pinned or not wanted:
        return
    if wanted > free:
        yield _lack("dedicated_cpus", wanted, free)
    if guest.thread_policy == "isolate" and not cell.isolating:
        yield _lack("cores_without_siblings", wanted, 0)
    elif guest.thread_policy in {"isolate", "require"}:
        resource = "free_cores" if guest.thread_policy == "isolate" else "sibling_cpus"
        reach = attainable(room.cores, room.free, need.emulator, guest.thread_policy)
        if reach < need.dedicated:
            yield _lack(resource, need.dedicated, reach)
    caches = caches_of(room, guest, need) if guest.cache == "require" else None
    if caches is not None and caches.most is not None:
        reach = in_fewest(room, guest, caches.most)
        if reach < need.dedicated:
            yield {**_lack("cache_cpus", need.dedicated, reach), "caches": caches.most}


def is_small(cell: HostCell, size_kib: int) -> bool:
    """Whether pages of a size, or memory in no pages that are reported, are not set aside as huge pages."""
    return size_kib == (cell.pages[0].size_kib if cell.pages else 0)


def _cpu_ratio_lacks(room: Room, need: Need, licence: Licence) -> Iterator[Lack]:
    cell = room.cell
    vcpu_limit = cell.shared.bit_count() * cell.vcpu_ratio // MILLION
    if room.vcpus + need.shared > vcpu_limit and grows(need.shared, cell.vcpus_counter, licence.own):
        yield _lack("vcpus", need.shared, vcpu_limit - room.vcpus)


def _memory_ratio_lacks(room: Room, need: Need, licence: Licence) -> Iterator[Lack]:
    cell, memory_limit = room.cell, room.cell.overcommitted_mib
    if room.memory_mib + need.memory_mib > memory_limit and grows(need.memory_mib, cell.memory_counter, licence.rated):
        yield _lack("memory_mib", need.memory_mib, memory_limit - room.memory_mib)
