"""Memory pages of a host cell, and which size of them a guest cell gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.requests import PageSize


class Pages(NamedTuple):
    """Pages of one size on one cell; ``counter`` is the name under which their use is counted."""

    size_kib: int
    total: int
    reserved: int
    counter: str


def pages_counter(cell: int, size_kib: int) -> str:
    """The name under which the use of pages of a size on a cell is counted."""
    return f"cell/{cell}/pages/{size_kib}"


def set_aside_mib(pages: Sequence[Pages]) -> int:
    """The memory that is set aside as huge pages: all but those of the smallest size. ``pages`` is sorted by size."""
    return sum([some.total * some.size_kib for some in pages[1:]]) // 1024


def resettled(cells: Sequence[Sequence[Pages]], used: Mapping[str, int]) -> Mapping[str, int]:
    """What is used, where huge pages of cells that are gone or shrank count against those there are elsewhere.

    ``cells`` are the pages of each cell. Guests keep what they hold however a
    host's cells change, so that it lies in the pages that are left.
    """
    huge = [some for pages in cells for some in pages[1:]]
    if not huge:
        return used
    smallest = {pages[0].counter for pages in cells if pages}
    known = {some.counter: some for some in huge}
    excess: dict[int, int] = {}
    for counter, amount in used.items():
        if "/pages/" in counter:
            some = known.get(counter)
            size = int(counter.rsplit("/", 1)[1])
            here = some.total if some is not None else amount if counter in smallest else 0
            if amount > here:
                excess[size] = excess.get(size, 0) + amount - here
    if not excess:
        return used
    settled = dict(used)
    for some in huge:
        moved = min(excess.get(some.size_kib, 0), max(0, free_pages(some, used)))
        if moved:
            excess[some.size_kib] -= moved
            settled[some.counter] = settled.get(some.counter, 0) + moved
    return settled


def candidates(pages: Sequence[Pages], wanted: PageSize) -> Sequence[Pages]:
    """The pages a request accepts, largest first. ``pages`` is sorted by size, smallest first."""
    if wanted == "small":
        return pages[:1]
    if wanted == "large":
        return pages[:0:-1]
    if wanted == "any":
        return pages[::-1]
    return [some for some in pages if some.size_kib == wanted]


def free_pages(some: Pages, used: Mapping[str, int]) -> int:
    """Pages that are neither used nor reserved; negative where more are used than there are."""
    return some.total - some.reserved - used.get(some.counter, 0)
