"""Host CPUs as bit masks, and packing a guest's dedicated vCPUs onto cores.

Bit *n* of a mask is CPU *n*: intersecting, counting and comparing sets of CPUs
are single operations on integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from schemas.requests import ThreadPolicy
    from worker.accounting.host.caches import Caches


_WIDE: Final = 4096
"""Above so many CPUs a mask is read as text, digit by digit."""


class Packing(NamedTuple):
    """Host CPUs for dedicated vCPUs, in the vCPUs' order, and those for emulator threads."""

    pins: list[int]
    emulator: list[int]


def mask_of(cpus: Iterable[int]) -> int:
    """The mask of some CPUs."""
    mask = 0
    for cpu in cpus:
        mask |= 1 << cpu
    return mask


def bits_of(mask: int) -> list[int]:
    """The numbers in a mask, lowest first."""
    if mask.bit_length() > _WIDE:  # each step below would copy the whole mask
        base = (mask & -mask).bit_length() - 1
        return [base + cpu for cpu, bit in enumerate(reversed(f"{mask >> base:b}")) if bit == "1"]
    bits: list[int] = []
    while mask:
        low = mask & -mask
        bits.append(low.bit_length() - 1)
        mask ^= low
    return bits


def attainable(cores: Iterable[int], free: int, reserved: int, policy: ThreadPolicy | None) -> int:
    """How many vCPUs could have CPUs as the policy says, given that they and ``reserved`` emulator CPUs are free.

    :func:`pack` finds a way for so many, and for no more.
    """
    if policy == "isolate":
        return sum(core.bit_count() == 1 for core in cores if core & free) - reserved
    if policy == "require":
        sizes = sorted(((core & free).bit_count() for core in cores), reverse=True)
        return max((size * count for count, size in enumerate(sizes, 1) if size > 1), default=0)
    return free.bit_count() - reserved


def pack(
    cores: Sequence[int],
    free: int,
    wanted: int,
    reserved: int,
    policy: ThreadPolicy | None,
    caches: Caches | None = None,
) -> Packing:
    """Choose host CPUs out of ``free`` for ``wanted`` vCPUs and ``reserved`` emulator CPUs.

    ``cores`` are the sibling sets in order of preference. As many threads of
    each core as possible are used, so that siblings of the host are siblings in
    the guest:

    * ``prefer`` (and none given) settles for any free CPUs in the end,
    * ``require`` uses at least two threads of a core,
    * ``isolate`` uses cores of one CPU, also for emulator threads.

    Of all ways to use so many threads of each core, the vCPUs take one with the fewest ``caches``.

    Raises:
        ValueError: there is no way, as :func:`attainable` would have told.
    """
    if caches is None and not reserved and (whole := _whole_cores(cores, free, wanted, policy)) is not None:
        return Packing(whole, [])
    left = left_of(cores, free, policy)
    pins = _siblings_first(left, wanted, caches, fewest=2 if policy == "require" else 1)
    if pins is None:
        raise ValueError("the guest's CPUs do not fit on these cores")
    return Packing(pins, _beside(left, pins, reserved))


def extended(
    cores: Sequence[int],
    free: int,
    pins: Sequence[int],
    more: int,
    policy: ThreadPolicy | None,
    caches: Caches | None = None,
) -> list[int] | None:
    """CPUs for ``more`` vCPUs of a guest that has ``pins`` already, or None where that breaks the policy.

    Those beside the CPUs it has come first, and of them those that give a
    sibling to one that has none: all together are to lie as if packed at once,
    also within the bound of ``caches``.
    """
    has = mask_of(pins)
    begun = [(bits_of(core & free & ~has), (core & has).bit_count()) for core in cores if core & has]
    added = [rest[0] for rest, count in begun if rest and count == 1]
    added += [cpu for rest, count in begun for cpu in rest[count == 1 :]]
    del added[more:]
    untouched = left_of((core for core in cores if not core & has), free, policy)
    begun_cpus, missing = has | mask_of(added), more - len(added)
    fresh = _siblings_first(untouched, missing, caches, begun_cpus, fewest=2 if policy == "require" else 1)
    if fresh is None:
        return None
    together = begun_cpus | mask_of(fresh)
    if not follows(cores, together, policy) or not (caches is None or caches.hold(together)):
        return None
    return added + fresh


def follows(cores: Iterable[int], pins: int, policy: ThreadPolicy | None) -> bool:
    """Whether CPUs lie on their cores as the policy wants: each beside a sibling but at most one, or each alone."""
    used = [core for core in cores if core & pins]
    if policy == "isolate":
        return all(core.bit_count() == 1 for core in used)
    return policy != "require" or sum((core & pins).bit_count() == 1 for core in used) <= 1


def _whole_cores(cores: Sequence[int], free: int, wanted: int, policy: ThreadPolicy | None) -> list[int] | None:
    """What :func:`_siblings_first` finds where the first widest cores that are free are enough; else None."""
    widest = max(map(int.bit_count, cores), default=0)
    if (policy == "isolate" and widest > 1) or (policy == "require" and widest == 1):
        return None
    pins: list[int] = []
    for core in cores:
        left = core & free
        if left.bit_count() == widest:
            pins += bits_of(left)
            if len(pins) >= wanted:
                return pins[:wanted]
    return None


def left_of(cores: Iterable[int], free: int, policy: ThreadPolicy | None) -> list[int]:
    """What is free of each core, of those that the policy admits."""
    return [left for core in cores if (left := core & free) and (policy != "isolate" or core.bit_count() == 1)]


def _beside(left: Iterable[int], pins: Iterable[int], reserved: int) -> list[int]:
    """CPUs for emulator threads out of what the pins leave.

    Raises:
        ValueError: there are not so many.
    """
    taken = mask_of(pins)
    emulator = [cpu for some in left for cpu in bits_of(some & ~taken)][:reserved] if reserved else []
    if len(emulator) < reserved:
        raise ValueError("no CPU is left for the emulator threads")
    return emulator


def _siblings_first(
    cores_left: Sequence[int], wanted: int, caches: Caches | None, begun: int = 0, *, fewest: int
) -> list[int] | None:
    """CPUs with as many threads of each core as there are enough cores for; with ``fewest`` 1, any at last.

    They are in few ``caches``, those that the CPUs ``begun`` lie in first: one thread of
    each core is then no aim of its own.
    """
    if not wanted:
        return []
    most = max((left.bit_count() for left in cores_left), default=0)
    lowest = fewest if caches is None else max(2, fewest)
    for threads in range(most, lowest - 1, -1):
        near = cores_left if caches is None else caches.nearest(cores_left, wanted, threads, begun)
        pins = _spread([left for left in near if left.bit_count() >= threads], threads, wanted)
        if pins is not None:
            return pins
    if fewest > 1:
        return None
    near = cores_left if caches is None else caches.nearest(cores_left, wanted, None, begun)
    pins = [cpu for left in near for cpu in bits_of(left)]
    return pins[:wanted] if len(pins) >= wanted else None


def _spread(cores_left: Sequence[int], threads: int, wanted: int) -> list[int] | None:
    """The first ``threads`` CPUs of each core until there are ``wanted``, or None if there are not so many."""
    if threads * len(cores_left) < wanted:
        return None
    pins: list[int] = []
    for left in cores_left:
        if len(pins) >= wanted:
            break
        pins += bits_of(left)[:threads]
    return pins[:wanted]
