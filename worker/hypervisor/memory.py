"""The memory of a domain: how much of its host's it is, in which pages, and on which cells."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from worker.accounting.state.domains import DomainMemory
from worker.hypervisor.documents import XmlFault, attribute, attribute_kib, cpu_set, kibibytes, number, text_of

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_MAX_CELL: Final = 1023
"""The highest number of a cell, of a host or a guest: what Linux can be built for."""

_MOST_ELEMENTS: Final = 2 * (_MAX_CELL + 1)
"""How many cells, page sizes or memory devices a guest may have; libvirt allows 256 devices."""

_NO_RAM: Final = frozenset({"nvdimm", "virtio-pmem", "sgx-epc"})
"""Models of memory devices that are counted in ``<memory>`` and are files, or the processor's enclaves, and no RAM."""


class _Backing(NamedTuple):
    """Where memory comes from by default: pages and host cells, of all guest cells and of single ones."""

    page: int | None
    pages: dict[int, int]
    nodes: frozenset[int]
    nodes_of: dict[int, frozenset[int]]

    def page_of(self, cell: int) -> int | None:
        return self.pages.get(cell, self.page)

    def cells_of(self, cell: int) -> frozenset[int]:
        return self.nodes_of.get(cell, self.nodes)


def ram_mib(domain: Element) -> int:
    """The host's memory that a domain may take, in MiB: that of its cells and memory devices, balloon blown up or not.

    Raises:
        XmlFault: an amount that cannot be.
    """
    memory = domain.find("memory")
    return 0 if memory is None else max(0, kibibytes(memory) - _no_ram_kib(domain)) // 1024


def memory_of(domain: Element) -> tuple[DomainMemory, ...]:
    """Where a domain's memory lies, in the order of its cells, devices behind what they are plugged into.

    Raises:
        XmlFault: a number or set that cannot be.
    """
    backing = _backing(domain)
    extra = [_device(device, backing) for device in _few(domain, "devices/memory") if _is_ram(device)]
    cells = [
        (attribute(cell, "id", most=_MAX_CELL), attribute_kib(cell, "memory") // 1024)
        for cell in _few(domain, "cpu/numa/cell")
    ] or [(0, ram_mib(domain) - sum(piece.memory_mib for piece in extra))]
    whole = [DomainMemory(cell, mib, backing.page_of(cell), backing.cells_of(cell)) for cell, mib in cells if mib > 0]
    return tuple(sorted([*whole, *extra], key=lambda piece: piece.guest_cell))


def _is_ram(device: Element) -> bool:
    return device.get("model") not in _NO_RAM


def _no_ram_kib(domain: Element) -> int:
    sizes = (device.find("target/size") for device in domain.findall("devices/memory") if not _is_ram(device))
    return sum(kibibytes(size) for size in sizes if size is not None)


def _few(domain: Element, path: str) -> list[Element]:
    found = domain.findall(path)
    if len(found) > _MOST_ELEMENTS:
        raise XmlFault(f"<{found[0].tag}>: more than {_MOST_ELEMENTS} of them")
    return found


def _device(device: Element, backing: _Backing) -> DomainMemory:
    size, page = device.find("target/size"), device.find("source/pagesize")
    cell = number(device.findtext("target/node", "0"), "<node>", most=_MAX_CELL)
    nodes = text_of(device, "source/nodemask")
    return DomainMemory(
        cell,
        0 if size is None else kibibytes(size) // 1024,
        backing.page_of(cell) if page is None else kibibytes(page),
        backing.cells_of(cell) if nodes is None else _numbers(nodes, "<nodemask>"),
    )


def _backing(domain: Element) -> _Backing:
    hugepages = domain.find("memoryBacking/hugepages")
    pages = _few(domain, "memoryBacking/hugepages/page")
    default = None if hugepages is None or pages else 0
    single: dict[int, int] = {}
    for page in pages:
        nodeset = page.get("nodeset")
        if nodeset is None:
            default = attribute_kib(page, "size")
        else:
            single.update(dict.fromkeys(_numbers(nodeset, "<page> nodeset"), attribute_kib(page, "size")))
    nodes_of = {
        attribute(memnode, "cellid", most=_MAX_CELL): _nodes(memnode) for memnode in _few(domain, "numatune/memnode")
    }
    return _Backing(default, single, _nodes(domain.find("numatune/memory")), nodes_of)


def _nodes(element: Element | None) -> frozenset[int]:
    nodeset = None if element is None else element.get("nodeset")
    return frozenset() if element is None or not nodeset else _numbers(nodeset, f"<{element.tag}> nodeset")


def _numbers(text: str, where: str) -> frozenset[int]:
    cells = cpu_set(text, where)
    if cells and max(cells) > _MAX_CELL:
        raise XmlFault(f"{where}: {max(cells)} is above {_MAX_CELL}")
    return cells
