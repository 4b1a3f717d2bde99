"""Host CPUs as bit masks, and packing a guest's dedicated vCPUs onto cores.

Bit *n* of a mask is CPU *n*: intersecting, counting and comparing sets of CPUs
are single operations on integers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from schemas.requests import ThreadPolicy


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
    bits = []
    while mask:
        low = mask & -mask
        bits.append(low.bit_length() - 1)
        mask ^= low
    return bits


def packable(
    cores: Sequence[int], free: int, wanted: int, reserved: int, policy: ThreadPolicy | None, threads_per_core: int
) -> bool:
    """Whether :func:`pack` would find a way, given that ``wanted + reserved`` CPUs are free."""
    if policy is None or policy == "prefer":
        return True
    if policy == "isolate":
        return isolated(cores, free, reserved, threads_per_core) >= max(wanted, 1)
    sizes = sorted(((core & free).bit_count() for core in cores), reverse=True)
    return any(size > 1 and size * count >= wanted for count, size in enumerate(sizes, 1))


def isolated(cores: Sequence[int], free: int, reserved: int, threads_per_core: int) -> int:
    """How many vCPUs could have a full core each, ``reserved`` emulator CPUs having cores to themselves too."""
    whole = [core.bit_count() for core in cores if core & free == core]
    return min(whole.count(threads_per_core), len(whole) - reserved)


def pack(
    cores: Sequence[int], free: int, wanted: int, reserved: int, policy: ThreadPolicy | None, threads_per_core: int
) -> Packing:
    """Choose host CPUs out of ``free`` for ``wanted`` vCPUs and ``reserved`` emulator CPUs.

    ``cores`` are the sibling sets in order of preference, and ``threads_per_core``
    the size of the largest. As many threads of each core as possible are used,
    so that siblings of the host are siblings in the guest:

    * ``prefer`` (and none given) settles for any free CPUs in the end,
    * ``require`` uses at least two threads of a core,
    * ``isolate`` uses one thread of a core that is wholly free, also for emulator threads.

    Raises:
        ValueError: there is no way, as :func:`packable` would have told.
    """
    cores_left = [left for core in cores if (left := core & free) and (policy != "isolate" or left == core)]
    if policy == "isolate":
        pins = _spread([left for left in cores_left if left.bit_count() == threads_per_core], 1, wanted)
    else:
        pins = _siblings_first(cores_left, wanted, fewest=2 if policy == "require" else 1)
    if pins is None:
        raise ValueError("the guest's CPUs do not fit on these cores")
    return Packing(pins, _beside(cores_left, pins, reserved, whole_cores=policy == "isolate") if reserved else [])


def _beside(cores_left: Sequence[int], pins: Sequence[int], reserved: int, *, whole_cores: bool) -> list[int]:
    """CPUs for emulator threads out of what the pins leave; on other cores than theirs with ``whole_cores``."""
    taken = mask_of(pins)
    rest = [left & ~taken for left in cores_left if not (whole_cores and left & taken)]
    emulator = [cpu for left in rest for cpu in bits_of(left)][:reserved]
    if len(emulator) < reserved:
        raise ValueError("no CPU is left for the emulator threads")
    return emulator


def _siblings_first(cores_left: Sequence[int], wanted: int, *, fewest: int) -> list[int] | None:
    """CPUs with as many threads of each core as there are enough cores for; with ``fewest`` 1, any at last."""
    most = max((left.bit_count() for left in cores_left), default=0)
    for threads in range(most, fewest - 1, -1):
        pins = _spread([left for left in cores_left if left.bit_count() >= threads], threads, wanted)
        if pins is not None:
            return pins
    if fewest > 1:
        return None
    pins = [cpu for left in cores_left for cpu in bits_of(left)]
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
