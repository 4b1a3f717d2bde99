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


def set_aside_mib(pages: Sequence[Pages]) -> int:
    """The memory that is set aside as huge pages: all but those of the smallest size. ``pages`` is sorted by size."""
    return sum([some.total * some.size_kib for some in pages[1:]]) // 1024


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
