"""Memory pages of a host cell, and which size of them a guest cell gets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from worker.accounting.host.capacity import grows

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from schemas.requests import PageSize


class Pages(NamedTuple):
    """Pages of one size on one cell; ``counter`` is the name under which their use is counted."""

    size_kib: int
    total: int
    reserved: int
    counter: str


def candidates(pages: Sequence[Pages], wanted: PageSize) -> Sequence[Pages]:
    """The pages a request accepts, largest first. ``pages`` is sorted by size, smallest first."""
    if wanted == "small":
        return pages[:1]
    if wanted == "large":
        return pages[:0:-1]
    if wanted == "any":
        return pages[::-1]
    return [some for some in pages if some.size_kib == wanted]


def page_size_for(
    pages: Sequence[Pages], wanted: PageSize, memory_mib: int, used: Mapping[str, int], own: Mapping[str, int]
) -> int | None:
    """The size of the pages a guest cell gets, in KiB; None where no accepted size has enough of them."""
    for some in candidates(pages, wanted):
        if holds(some, memory_mib, used, own, whole=False):
            return some.size_kib
    return None


def holds(some: Pages, memory_mib: int, used: Mapping[str, int], own: Mapping[str, int], *, whole: bool) -> bool:
    """Whether the memory is a multiple of the page size and there are enough pages.

    ``whole`` counts all pages instead of the free ones: memory that is not
    backed by huge pages and not pinned may be overcommitted.
    """
    needed, rest = divmod(memory_mib * 1024, some.size_kib)
    if rest:
        return False
    return needed <= (some.total if whole else free_pages(some, used)) or not grows(needed, some.counter, own)


def free_pages(some: Pages, used: Mapping[str, int]) -> int:
    """Pages that are neither used nor reserved; negative where more are used than there are."""
    return some.total - some.reserved - used.get(some.counter, 0)
