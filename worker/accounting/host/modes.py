"""The ways to use devices that exclude each other.

A card is used whole, or by its functions; a parent carries mediated devices of
one type, or of another. Offers that exclude each other, directly or through
others, are a *block*; a way to use as many of them as can be used together is
one of its *modes*.
"""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


class Mode(NamedTuple):
    """The mask of offers that are used together, and blocks of which any mode may be chosen beside them."""

    offers: int
    parts: tuple[Block, ...] = ()


class Block(NamedTuple):
    """Offers that exclude each other, as a mask, and the modes to use them in."""

    offers: int
    modes: tuple[Mode, ...]


def bits(mask: int) -> Iterator[int]:
    """The numbers in a mask, lowest first."""
    while mask:
        low = mask & -mask
        yield low.bit_length() - 1
        mask ^= low


def union(masks: Iterable[int]) -> int:
    """All that is in any of the masks."""
    return reduce(or_, masks, 0)


def best_use(offers: int, excludes: Sequence[int]) -> Mode:
    """What is used of some offers where as many are as can be: those that exclude none of the others, and the blocks.

    ``excludes`` gives for each offer the mask of those that cannot be taken beside it.
    """
    blocks = []
    alone = 0
    while offers:
        low = offers & -offers
        members = _connected(low, offers, excludes)
        offers &= ~members
        if members == low:
            alone |= low
        else:
            blocks.append(Block(members, tuple(_modes(members, excludes))))
    return Mode(alone, tuple(blocks))


def _connected(members: int, offers: int, excludes: Sequence[int]) -> int:
    fresh = members
    while fresh:
        reached = union([excludes[number] for number in bits(fresh)]) & offers
        fresh = reached & ~members
        members |= fresh
    return members


def _modes(members: int, excludes: Sequence[int]) -> Iterator[Mode]:
    """The modes of a block, each offer that excludes all others first.

    There is always one: the topmost of a tree of devices excludes all below
    it. Should none, the one that excludes the most serves as well.
    """
    rivals = {number: (excludes[number] & members).bit_count() for number in bits(members)}
    most = max(rivals.values())
    rest = members
    for number in [number for number, count in rivals.items() if count == most]:
        rest &= ~(1 << number)
        beside = best_use(members & ~excludes[number] & ~(1 << number), excludes)
        yield Mode(beside.offers | 1 << number, beside.parts)
    if rest:
        yield best_use(rest, excludes)
