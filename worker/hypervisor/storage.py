"""Local disk of a host: its storage pools, each filesystem counted once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from worker.hypervisor.documents import parse, storage_bytes, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable

_LOCAL: Final = frozenset({"dir", "fs", "logical", "disk", "zfs"})
_ON_FILESYSTEM: Final = frozenset({"dir", "fs"})
_SAME_FILESYSTEM_BYTES: Final = 256 * 2**20
"""Two pools of one filesystem are measured one after the other; this much may be written in between."""


@dataclass(frozen=True, slots=True)
class StoragePool:
    """One active pool, sizes in bytes. ``source`` is its device or volume group, where it has one."""

    type: str
    source: str | None
    capacity_bytes: int
    available_bytes: int


def parse_pool(text: str) -> StoragePool:
    """Read a storage pool's description.

    Raises:
        XmlFault: malformed, or sizes that are no numbers.
    """
    pool = parse(text, root="pool")
    device = pool.find("source/device")
    sizes = {name: pool.find(name) for name in ("capacity", "available")}
    return StoragePool(
        type=pool.get("type", ""),
        source=text_of(pool, "source/name") or (None if device is None else device.get("path")),
        capacity_bytes=0 if sizes["capacity"] is None else storage_bytes(sizes["capacity"]),
        available_bytes=0 if sizes["available"] is None else storage_bytes(sizes["available"]),
    )


def local_disk_gib(pools: Iterable[StoragePool]) -> int:
    """Sum the local pools, in GiB, rounded down; shared storage (NFS, Ceph, iSCSI) is no disk of the host's.

    Directories on one filesystem each report all of it, and nothing says which
    they share: those of one size and with as much free are taken for one.
    """
    counted: list[StoragePool] = []
    for pool in sorted(pools, key=lambda pool: (pool.type, pool.source or "", pool.capacity_bytes)):
        if pool.type in _LOCAL and not any(_same(pool, other) for other in counted):
            counted.append(pool)
    return sum(pool.capacity_bytes for pool in counted) // 2**30


def _same(one: StoragePool, other: StoragePool) -> bool:
    if one.source is not None and other.source is not None:
        return one.source == other.source
    return (
        {one.type, other.type} <= _ON_FILESYSTEM
        and one.capacity_bytes == other.capacity_bytes
        and abs(one.available_bytes - other.available_bytes) <= _SAME_FILESYSTEM_BYTES
    )
