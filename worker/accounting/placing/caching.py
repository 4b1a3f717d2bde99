"""In how many last-level caches of a host cell a guest cell's dedicated vCPUs are to lie.

Under ``require`` these are the fewest that could hold them on that host cell if
nobody else were there: with caches of equal size, their number divided by what
one cache has of dedicated CPUs, rounded up. Emulator threads are not among
them, and what is not known to share a cache does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from worker.accounting.host.caches import Caches, reach
from worker.accounting.host.cpus import attainable, left_of

if TYPE_CHECKING:
    from worker.accounting.host.cells import Room
    from worker.accounting.placing.guests import Guest, Need


def caches_of(room: Room, guest: Guest, need: Need) -> Caches | None:
    """The caches that a guest cell is packed into on a host cell; None where they do not matter."""
    masks = room.cell.caches
    if guest.cache is None or not need.dedicated or not (masks or guest.cache == "require"):
        return None
    return Caches(masks, None if guest.cache == "prefer" else _fewest(room, guest, need))


def in_reach(room: Room, guest: Guest, need: Need) -> int:
    """How many dedicated vCPUs could have CPUs on a host cell as the guest wants them, beside its emulator's."""
    most = attainable(room.cores, room.free, need.emulator, guest.thread_policy)
    return most if guest.cache != "require" else min(most, in_fewest(room, guest, _fewest(room, guest, need)))


def in_fewest(room: Room, guest: Guest, caches: int) -> int:
    """How many dedicated vCPUs could have CPUs that are free in so many caches."""
    return _reach(room, guest, room.free)[caches - 1] if caches else 0


def _fewest(room: Room, guest: Guest, need: Need) -> int:
    empty = _reach(room, guest, room.cell.dedicated | room.free)
    return next((count for count, most in enumerate(empty, 1) if most >= need.dedicated), len(empty))


def _reach(room: Room, guest: Guest, free: int) -> list[int]:
    policy = guest.thread_policy
    return reach(room.cell.caches, left_of(room.cores, free, policy), 2 if policy == "require" else 1)
