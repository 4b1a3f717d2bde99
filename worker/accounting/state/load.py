"""How busy a host is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Load:
    """Shares of the CPU time of all CPUs in whole percent, and memory in use in MiB; ``None`` what is not known."""

    user_percent: int | None
    kernel_percent: int | None
    iowait_percent: int | None
    idle_percent: int | None
    memory_used_mib: int | None
