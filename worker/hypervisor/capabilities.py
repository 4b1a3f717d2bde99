"""A host's capabilities: its cells, cores, pages and CPU features.

Hosts differ more than their manuals say: no cells at all (s390x), cells that
hold memory only (CXL, HBM), cells whose CPUs are all offline, numbers with
gaps, cores of eight threads (POWER), cores of one and of two threads side by
side (hybrid), sockets that nobody knows (-1). What is unknown stays unknown;
what contradicts itself is refused by name: a cell twice, a CPU in two cells.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from schemas.cpuset import MAX_CPU
from worker.hypervisor.documents import (
    XmlFault,
    attribute,
    cpu_set,
    kibibytes,
    number,
    optional_attribute,
    parse,
    text_of,
)

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_ID: Final = 65_535
_MAX_CELLS: Final = 1024

_Groups = dict[tuple[int | None, ...], set[int]]


@dataclass(frozen=True, slots=True)
class HostCell:
    """One NUMA cell as described, offline CPUs included.

    ``placed`` are the CPUs whose place in a core or socket is known: libvirt
    reads it of online CPUs only.
    ``cores`` lists the sibling threads of each core, ``dies`` and ``clusters``
    the CPUs of each, restricted to this cell and as far as they are known.
    ``socket`` is ``None`` where it is unknown or where the cell spans several.
    ``pages`` maps a page size in KiB to the number of pages.
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


@dataclass(frozen=True, slots=True)
class HostCapabilities:
    """What ``virConnectGetCapabilities`` tells of the host.

    ``cpu_xml`` is the host's ``<cpu>`` element, for asking libvirt to expand
    its model into features; ``None`` where the host names no model.
    """

    arch: str
    features: frozenset[str]
    cpu_xml: str | None
    cells: tuple[HostCell, ...]


def parse_capabilities(text: str) -> HostCapabilities:
    """Read a capabilities document.

    Raises:
        XmlFault: malformed, a number that cannot be, a cell listed twice, a CPU
            in two cells.
    """
    host = parse(text, root="capabilities").find("host")
    if host is None:
        raise XmlFault("<capabilities>: has no <host>")
    cpu = host.find("cpu")
    elements = host.findall("topology/cells/cell")
    if len(elements) > _MAX_CELLS:
        raise XmlFault(f"<cells>: more than {_MAX_CELLS} cells")
    cells = tuple(sorted((_cell(element) for element in elements), key=lambda cell: cell.id))
    _refuse_twice(cells)
    return HostCapabilities(
        arch="" if cpu is None else text_of(cpu, "arch") or "",
        features=frozenset() if cpu is None else feature_names(cpu),
        cpu_xml=None if cpu is None or cpu.find("model") is None else _serialised(cpu),
        cells=cells,
    )


def feature_names(cpu: Element) -> frozenset[str]:
    """Return the names of the features a ``<cpu>`` element has, those it forbids or disables left out."""
    return frozenset(
        name
        for feature in cpu.iter("feature")
        if (name := feature.get("name")) and feature.get("policy", "require") not in {"disable", "forbid"}
    )


def _serialised(cpu: Element) -> str:
    from xml.etree.ElementTree import tostring

    return tostring(cpu, encoding="unicode")


def _cell(element: Element) -> HostCell:
    identity = attribute(element, "id", most=_MAX_ID)
    where = f"<cell id={identity}>"
    siblings: dict[int, frozenset[int]] = {}
    sockets: set[int | None] = set()
    dies: _Groups = {}
    clusters: _Groups = {}
    placed: set[int] = set()
    for cpu in element.findall("cpus/cpu"):
        index = number(cpu.get("id"), f"{where} <cpu> id", most=MAX_CPU)
        named = cpu_set(cpu.get("siblings", ""), f"{where} <cpu id={index}> siblings")
        siblings[index] = siblings.get(index, frozenset()) | named
        if len(cpu.keys()) > 1:
            placed.add(index)
        if cpu.get("socket_id") is not None:
            sockets.add(optional_attribute(cpu, "socket_id", most=_MAX_ID))
        _join(dies, cpu, index, ("socket_id", "die_id"))
        _join(clusters, cpu, index, ("socket_id", "die_id", "cluster_id"))
    pages = _pages(element, where)
    memory = element.find("memory")
    return HostCell(
        id=identity,
        socket=sockets.pop() if len(sockets) == 1 else None,
        cpus=frozenset(siblings),
        placed=frozenset(placed),
        cores=_cores(siblings),
        dies=tuple(map(frozenset, dies.values())),
        clusters=tuple(map(frozenset, clusters.values())),
        memory_kib=sum(size * total for size, total in pages) if memory is None else kibibytes(memory),
        pages=pages,
    )


def _join(groups: _Groups, cpu: Element, index: int, path: tuple[str, ...]) -> None:
    """Put a CPU with those of the same place, whose last number has to be known; those above it may not be."""
    place = tuple(None if cpu.get(name) is None else optional_attribute(cpu, name, most=_MAX_ID) for name in path)
    if place[-1] is not None:
        groups.setdefault(place, set()).add(index)


def _pages(cell: Element, where: str) -> tuple[tuple[int, int], ...]:
    pages: dict[int, int] = {}
    for element in cell.findall("pages"):
        if element.get("unit", "KiB") != "KiB":
            raise XmlFault(f"{where} <pages> unit: not KiB")
        size = attribute(element, "size", least=1, most=2**40)
        if size in pages:
            raise XmlFault(f"{where} <pages size={size}>: listed twice")
        pages[size] = number(element.text, f"{where} <pages size={size}>", most=2**40)
    return tuple(sorted(pages.items()))


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


def _refuse_twice(cells: tuple[HostCell, ...]) -> None:
    seen: dict[int, int] = {}
    for before, cell in zip((None, *cells), cells, strict=False):
        if before is not None and before.id == cell.id:
            raise XmlFault(f"<cell id={cell.id}>: listed twice")
        for cpu in cell.cpus:
            if cpu in seen:
                raise XmlFault(f"<cpu id={cpu}>: in cell {seen[cpu]} and in cell {cell.id}")
            seen[cpu] = cell.id
