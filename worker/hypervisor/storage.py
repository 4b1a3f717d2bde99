"""Local disk of a host: its storage pools, each piece of disk counted once.

Pools lie in one another: a filesystem on a volume of a volume group, a volume
group on a partition, several directories on one filesystem. A filesystem's
pool names its device, a directory's does not, and nothing of libvirt's tells
where a directory lies. One that could lie in a pool that hands out volumes is
taken to lie there: too little is counted at worst, and never a disk twice.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.base import MAX_AMOUNT
from worker.hypervisor.documents import Oddities, XmlFault, document, storage_bytes, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from xml.etree.ElementTree import Element

_VOLUMES: Final = frozenset({"logical", "disk", "zfs"})
_ON_FILESYSTEM: Final = frozenset({"dir", "fs"})
_LOCAL: Final = _VOLUMES | _ON_FILESYSTEM
_MOST_GIB: Final = MAX_AMOUNT // 1024
_SAME_FILESYSTEM_BYTES: Final = 256 * 2**20
"""Two pools of one filesystem are measured one after the other; this much may be written in between."""

_DISK: Final = re.compile(r"/dev/(?:(?:[shv]|xv)d[a-z]+\d*|(?:nvme\d+n|mmcblk)\d+(?:p\d+)?)")
"""A disk or a partition under the kernel's own name: what is on it lies on no volume."""


@dataclass(frozen=True, slots=True)
class StoragePool:
    """One active pool, sizes in bytes.

    ``source`` is its device or volume group, where it has one, ``devices`` are
    the paths of all it lies on. ``available_bytes`` is ``None`` where it is not
    known. Of pools that are no disk of the host's nothing but the type is read.
    """

    type: str
    source: str | None
    capacity_bytes: int
    available_bytes: int | None
    name: str = ""
    devices: tuple[str, ...] = ()
    oddities: tuple[str, ...] = ()


def parse_pool(text: str) -> StoragePool:
    """Read a storage pool's description.

    Raises:
        XmlFault: malformed, or a capacity that is no amount.
    """
    with document(text, root="pool") as pool:
        return _pool(pool)


def _pool(pool: Element) -> StoragePool:
    kind, name = pool.get("type", ""), text_of(pool, "name") or ""
    if kind not in _LOCAL:
        return StoragePool(kind, None, 0, 0, name)
    capacity, available = pool.find("capacity"), pool.find("available")
    try:
        size = 0 if capacity is None else storage_bytes(capacity, most=_MOST_GIB * 2**30)
    except XmlFault as fault:
        raise XmlFault(f"<pool> {name[:64]}: {fault}") from None
    left = 0 if available is None else _available(available, size)
    told = "" if left is not None else f"<pool> {name[:64]} <available>: is no part of its capacity, and so not known"
    devices = tuple(path for device in pool.findall("source/device") if (path := device.get("path")))
    source = text_of(pool, "source/name") or (devices[0] if devices else None)
    return StoragePool(
        type=kind,
        source=source,
        capacity_bytes=size,
        available_bytes=left,
        name=name,
        devices=devices,
        oddities=(told,) if told else (),
    )


def _available(element: Element, size: int) -> int | None:
    """What is left of a pool. libvirt subtracts unsigned: what cannot be says nothing, and is another each time."""
    try:
        return storage_bytes(element, most=size)
    except XmlFault:
        return None


def local_disk_gib(pools: Iterable[StoragePool], oddities: Oddities | None = None) -> int:
    """Sum the local pools, in GiB, rounded down; shared storage (NFS, Ceph, iSCSI) is no disk of the host's.

    Directories on one filesystem each report all of it, and nothing says which
    they share: those of one size and with as much free are taken for one. Those
    that fit into what is not yet taken of a pool of volumes are part of it, the
    largest first.
    """
    oddities = Oddities() if oddities is None else oddities
    distinct: list[StoragePool] = []
    for pool in sorted(pools, key=lambda pool: (pool.type, pool.source or "", pool.capacity_bytes)):
        oddities.tell(*pool.oddities)
        if pool.type in _LOCAL and not any(_same(pool, other) for other in distinct):
            distinct.append(pool)
    apart = [pool for pool in distinct if not any(_within(pool, other) for other in distinct if other is not pool)]
    volumes = [pool for pool in apart if pool.type in _VOLUMES]
    files = sorted((pool for pool in apart if pool.type not in _VOLUMES), key=lambda pool: -pool.capacity_bytes)
    counted = [*volumes, *_beside(files, volumes, oddities)]
    return min(sum(pool.capacity_bytes for pool in counted) // 2**30, _MOST_GIB)


def _beside(files: Iterable[StoragePool], volumes: Sequence[StoragePool], oddities: Oddities) -> Iterator[StoragePool]:
    """Those of some filesystems that lie in none of the pools of volumes."""
    room = [pool.capacity_bytes for pool in volumes]
    for pool in files:
        fitting = [number for number, left in enumerate(room) if left >= pool.capacity_bytes]
        if not fitting or any(_DISK.fullmatch(path) for path in pool.devices):
            yield pool
            continue
        holder = min(fitting, key=room.__getitem__)
        room[holder] -= pool.capacity_bytes
        oddities.tell(
            f"<pool> {pool.name[:64]}: may lie in the pool {volumes[holder].name[:64]} and is counted as a part of it;"
            " a pool of type fs says on which device it lies"
        )


def _same(one: StoragePool, other: StoragePool) -> bool:
    if one.source is not None and other.source is not None:
        return one.source == other.source
    if not {one.type, other.type} <= _ON_FILESYSTEM or one.capacity_bytes != other.capacity_bytes:
        return False
    if one.available_bytes is None or other.available_bytes is None:
        return True
    return abs(one.available_bytes - other.available_bytes) <= _SAME_FILESYSTEM_BYTES


def _within(pool: StoragePool, other: StoragePool) -> bool:
    """Whether a pool lies in another one, as its source tells."""
    source = other.source
    if other.type == "disk":
        return any(path == disk or _is_part(path, disk) for path in pool.devices for disk in other.devices)
    if source is None:
        return False
    if other.type == "zfs":
        datasets = (f"{source}/",) if pool.type == "zfs" else (f"/dev/zvol/{source}/",)
        return (pool.source or "").startswith(datasets)
    if other.type == "logical":
        mapped = source.replace("-", "--")  # as the device mapper writes a name that holds a dash
        return any(path.startswith((f"/dev/{source}/", f"/dev/mapper/{mapped}-")) for path in pool.devices)
    return False


def _is_part(path: str, disk: str) -> bool:
    """Whether a path names a partition of a disk: sda1, nvme0n1p1, or ata-...-part1 among the links."""
    form = r"(?:-part|p)\d+" if disk[-1:].isdigit() else r"(?:-part)?\d+"
    return path.startswith(disk) and re.fullmatch(form, path[len(disk) :]) is not None
