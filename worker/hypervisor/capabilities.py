"""A host's capabilities: its cells, cores, caches, pages and CPU features.

Hosts differ more than their manuals say: no cells at all (s390x), cells that
hold memory only (CXL, HBM), cells whose CPUs are all offline, numbers with
gaps, cores of eight threads (POWER), cores of one and of two threads side by
side (hybrid), sockets that nobody knows (-1), a CPU in two cells (a faulty
table, with which the kernel lives). What is unknown stays unknown; what is odd
or contradicts what came before it is left out and noted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from uuid import UUID
from xml.etree.ElementTree import tostring

from schemas.base import MAX_AMOUNT
from schemas.cpuset import MAX_CPU
from schemas.inventory import MAX_CELLS, MAX_PAGE_SIZES
from worker.hypervisor.documents import (
    Oddities,
    XmlFault,
    attribute,
    cpu_set,
    document,
    kibibytes,
    known_attribute,
    number,
    text_of,
)

if TYPE_CHECKING:
    from collections.abc import Mapping
    from xml.etree.ElementTree import Element

_MAX_ID: Final = 65_535
_MAX_DISTANCE: Final = 255
"""As ACPI has them: 10 is the cell itself, 255 out of reach."""

_PLACES: Final = ("socket_id", "die_id", "cluster_id")
_Groups = dict[tuple[int | None, ...], set[int]]


@dataclass(frozen=True, slots=True)
class HostCell:
    """One NUMA cell as described, offline CPUs included.

    ``placed`` are the CPUs whose place in a core or socket is known: libvirt
    reads it of online CPUs only.
    ``cores`` lists the sibling threads of each core, ``dies`` and ``clusters``
    the CPUs of each, restricted to this cell and as far as they are known.
    ``socket`` is ``None`` where it is unknown or where the cell spans several.
    ``pages`` maps a page size in KiB to the number of pages, ``distances``
    a cell to how far it is from this one, in tenths of a local access.
    """

    id: int
    socket: int | None
    cpus: frozenset[int]
    placed: frozenset[int]
    cores: tuple[frozenset[int], ...]
    dies: tuple[frozenset[int], ...]
    clusters: tuple[frozenset[int], ...]
    memory_kib: int
    pages: tuple[tuple[int, int], ...]
    distances: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class HostCapabilities:
    """What ``virConnectGetCapabilities`` tells of the host.

    ``cpu_xml`` is the host's ``<cpu>`` element, for asking libvirt to expand
    its model into features; ``None`` where the host names no model. ``caches``
    are the CPUs of each last-level cache, ``iommu`` says whether devices can
    be given to guests at all, ``uuid`` is the machine's own; hosts that are
    alike but for it are equal.
    """

    arch: str
    features: frozenset[str]
    cpu_xml: str | None
    cells: tuple[HostCell, ...]
    caches: tuple[frozenset[int], ...] = ()
    iommu: bool | None = None
    uuid: UUID | None = field(default=None, compare=False)
    oddities: tuple[str, ...] = ()


def parse_capabilities(text: str) -> HostCapabilities:
    """Read a capabilities document.

    Raises:
        XmlFault: it is none: malformed, of another kind, or without a host.
    """
    with document(text, root="capabilities") as element:
        host = element.find("host")
        if host is None:
            raise XmlFault("<capabilities>: has no <host>")
        return _host(host)


def _host(host: Element) -> HostCapabilities:
    cpu, iommu = host.find("cpu"), host.find("iommu")
    oddities = Oddities()
    cells = _cells(host.findall("topology/cells/cell"), oddities)
    return HostCapabilities(
        arch="" if cpu is None else text_of(cpu, "arch") or "",
        features=frozenset() if cpu is None else feature_names(cpu),
        cpu_xml=None if cpu is None or cpu.find("model") is None else tostring(cpu, encoding="unicode"),
        cells=cells,
        caches=_caches(host.findall("cache/bank"), oddities),
        iommu=None if iommu is None else {"yes": True, "no": False}.get(iommu.get("support", "")),
        uuid=_uuid(host, oddities),
        oddities=oddities.told,
    )


def feature_names(cpu: Element) -> frozenset[str]:
    """Return the names of the features a ``<cpu>`` element has, those it forbids or disables left out."""
    return frozenset(
        name
        for feature in cpu.iter("feature")
        if (name := feature.get("name")) and feature.get("policy", "require") not in {"disable", "forbid"}
    )


def _uuid(host: Element, oddities: Oddities) -> UUID | None:
    """The machine's own UUID; one of all the same digits is a board's that was never given one."""
    text = text_of(host, "uuid")
    try:
        uuid = None if text is None else UUID(text)
    except ValueError:
        oddities.tell("<host> <uuid>: not a UUID")
        return None
    return None if uuid is None or len(set(uuid.hex)) == 1 else uuid


def _caches(banks: list[Element], oddities: Oddities) -> tuple[frozenset[int], ...]:
    """The CPUs of each cache of the last level that holds data; a CPU belongs to the first that names it."""
    caches: list[tuple[int, frozenset[int]]] = []
    for bank in banks:
        with oddities.alone("<cache>"):
            if bank.get("type") != "code":
                cpus = cpu_set(bank.get("cpus", ""), "<bank> cpus")
                caches.append((attribute(bank, "level", most=_MAX_ID), cpus))
    last = max((level for level, _ in caches), default=0)
    taken: set[int] = set()
    found: list[frozenset[int]] = []
    for level, cpus in caches:
        if level == last and (own := cpus - taken):
            taken |= own
            found.append(own)
    return tuple(sorted(found, key=min))


def _cells(elements: list[Element], oddities: Oddities) -> tuple[HostCell, ...]:
    """The cells by number; what is listed a second time stays where it was listed first."""
    cells: dict[int, HostCell] = {}
    home: dict[int, int] = {}
    for element in elements:
        with oddities.alone():
            identity = attribute(element, "id", most=_MAX_ID)
            if identity in cells:
                raise XmlFault(f"<cell id={identity}>: listed twice")
            if len(cells) == MAX_CELLS:
                raise XmlFault(f"<cells>: more than {MAX_CELLS} cells")
            cells[identity] = _cell(element, identity, home, oddities)
            home.update(dict.fromkeys(cells[identity].cpus, identity))
    return tuple(cells[identity] for identity in sorted(cells))


def _cell(element: Element, identity: int, home: Mapping[int, int], oddities: Oddities) -> HostCell:
    """Read a cell; ``home`` tells in which cell a CPU was listed before."""
    where = f"<cell id={identity}>"
    siblings: dict[int, frozenset[int]] = {}
    sockets: set[int] = set()
    dies: _Groups = {}
    clusters: _Groups = {}
    placed: set[int] = set()
    for cpu in element.findall("cpus/cpu"):
        index = _own_cpu(cpu, where, home, oddities)
        if index is None:
            continue
        siblings[index] = siblings.get(index, frozenset()) | _siblings(cpu, f"{where} <cpu id={index}>", oddities)
        if len(cpu.keys()) > 1:
            placed.add(index)
        place = {name: known_attribute(cpu, name, most=_MAX_ID, oddities=oddities) for name in _PLACES}
        if (socket := place["socket_id"]) is not None:
            sockets.add(socket)
        _join(dies, place, index, _PLACES[:2])
        _join(clusters, place, index, _PLACES)
    pages = _pages(element, where, oddities)
    return HostCell(
        id=identity,
        socket=sockets.pop() if len(sockets) == 1 else None,
        cpus=frozenset(siblings),
        placed=frozenset(placed),
        cores=_cores(siblings),
        dies=tuple(map(frozenset, dies.values())),
        clusters=tuple(map(frozenset, clusters.values())),
        memory_kib=_memory_kib(element, where, pages, oddities),
        pages=pages,
        distances=_distances(element, where, oddities),
    )


def _own_cpu(cpu: Element, where: str, home: Mapping[int, int], oddities: Oddities) -> int | None:
    """The number of a CPU that is listed in no cell before this one."""
    with oddities.alone():
        index = number(cpu.get("id"), f"{where} <cpu> id", most=MAX_CPU)
        if index not in home:
            return index
        oddities.tell(f"{where} <cpu id={index}>: is in cell {home[index]} already, and stays there")
    return None


def _siblings(cpu: Element, where: str, oddities: Oddities) -> frozenset[int]:
    with oddities.alone():
        return cpu_set(cpu.get("siblings", ""), f"{where} siblings")
    return frozenset()


def _join(groups: _Groups, place: Mapping[str, int | None], index: int, path: tuple[str, ...]) -> None:
    """Put a CPU with those of the same place, whose last number has to be known; those above it may not be."""
    if place[path[-1]] is not None:
        groups.setdefault(tuple(place[name] for name in path), set()).add(index)


def _pages(cell: Element, where: str, oddities: Oddities) -> tuple[tuple[int, int], ...]:
    pages: dict[int, int] = {}
    for element in cell.findall("pages"):
        with oddities.alone():
            if element.get("unit", "KiB") != "KiB":
                raise XmlFault(f"{where} <pages> unit: not KiB")
            size = number(element.get("size"), f"{where} <pages> size", least=1, most=MAX_AMOUNT)
            if size in pages:
                raise XmlFault(f"{where} <pages size={size}>: listed twice")
            if len(pages) == MAX_PAGE_SIZES:
                raise XmlFault(f"{where} <pages>: of more than {MAX_PAGE_SIZES} sizes")
            pages[size] = number(element.text, f"{where} <pages size={size}>", most=MAX_AMOUNT)
    return tuple(sorted(pages.items()))


def _memory_kib(cell: Element, where: str, pages: tuple[tuple[int, int], ...], oddities: Oddities) -> int:
    """The cell's memory as it says, or else as its pages add up to."""
    memory = cell.find("memory")
    most = MAX_AMOUNT * 1024
    if memory is not None:
        with oddities.alone(where):
            return kibibytes(memory, most=most)
    added = sum(size * total for size, total in pages)
    if added > most:
        oddities.tell(f"{where} <pages>: they add up to {added} KiB")
        return 0
    return added


def _distances(cell: Element, where: str, oddities: Oddities) -> tuple[tuple[int, int], ...]:
    distances: dict[int, int] = {}
    for element in cell.findall("distances/sibling"):
        with oddities.alone(f"{where} <distances>"):
            other = attribute(element, "id", most=_MAX_ID)
            distances.setdefault(other, attribute(element, "value", most=_MAX_DISTANCE))
    return tuple(sorted(distances.items()))


def _cores(siblings: dict[int, frozenset[int]]) -> tuple[frozenset[int], ...]:
    """Group a cell's CPUs into cores; a CPU belongs to the first core that names it, whatever others claim."""
    cores: list[frozenset[int]] = []
    taken: set[int] = set()
    for cpu in sorted(siblings):
        if cpu not in taken:
            core = siblings[cpu].intersection(siblings).difference(taken) | {cpu}
            taken |= core
            cores.append(core)
    return tuple(cores)
