"""How busy a host is, from libvirt's counters: CPU time since the look before, and memory in use."""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, Final

from worker.accounting.state.load import Load

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.hypervisor.connection import Connection

_MODES: Final = ("user", "kernel", "iowait", "idle")
_LEAST_SECONDS: Final = 5.0
"""Over less, the kernel's counters, in hundredths of a second each, say more of chance than of the host."""


class LoadReader:
    """Reads one host's counters again and again; used by one thread at a time."""

    __slots__ = ("_at", "_before", "_load")

    def __init__(self) -> None:
        self._before: Mapping[str, int] | None = None
        self._at = 0.0
        self._load: Load | None = None

    def read(self, connection: Connection) -> Load | None:
        """How busy the host was since it was read before; the CPU's part is ``None`` the first time.

        Raises:
            CallFailed: libvirt answered with an error.
        """
        now, before = monotonic(), self._before
        if before is not None and now - self._at < _LEAST_SECONDS:
            return self._load
        spent, memory = connection.cpu_time(), connection.memory()
        self._before, self._at = spent, now
        used = None
        if memory is not None and {"total", "free"} <= memory.keys():
            spare = memory["free"] + memory.get("buffers", 0) + memory.get("cached", 0)
            used = max(0, memory["total"] - spare) // 1024
        shares = percentages(before, spent)
        user, kernel, iowait, idle = shares or (None, None, None, None)
        self._load = None if used is None and shares is None else Load(user, kernel, iowait, idle, used)
        return self._load


def percentages(before: Mapping[str, int] | None, after: Mapping[str, int] | None) -> tuple[int, int, int, int] | None:
    """The share of each mode in the time spent in between, 100 in all; ``None`` if that is not known.

    Rounded by the largest remainder, so that they add up. Counters that went back are a host that was restarted.
    """
    if before is None or after is None:
        return None
    spent = [after.get(mode, 0) - before.get(mode, 0) for mode in _MODES]
    total = sum(spent)
    if total <= 0 or min(spent) < 0:
        return None
    shares = [100 * one // total for one in spent]
    by_remainder = sorted(range(len(spent)), key=lambda place: -(100 * spent[place] % total))
    for place in by_remainder[: 100 - sum(shares)]:
        shares[place] += 1
    user, kernel, iowait, idle = shares
    return user, kernel, iowait, idle
