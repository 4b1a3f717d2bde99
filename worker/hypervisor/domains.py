"""Domains as the hypervisor knows them, for comparing with what the ledger believes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from schemas.cpuset import MAX_CPU
from worker.hypervisor.devices import pci_address
from worker.hypervisor.documents import XmlFault, attribute, cpu_set, document, kibibytes, number, text_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

_MAX_VCPUS: Final = 65_536


@dataclass(frozen=True, slots=True)
class Domain:
    """One domain: what it uses of its host.

    ``pinned_cpus`` are the host CPUs a vCPU is pinned to alone,
    ``emulator_cpus`` those its emulator is confined to, ``host_cells`` the
    cells its memory comes from (empty: anywhere). ``page_size_kib`` is ``None``
    for ordinary pages and 0 for huge ones of the host's default size.
    ``devices`` holds PCI addresses, ``mdevs`` mediated devices' UUIDs. Where
    the description cannot be used, ``fault`` says why and what it uses is not
    known: a guest's owner may have written into it, and must not hide the
    other domains by that.
    """

    uuid: UUID
    name: str
    active: bool
    vcpus: int = 0
    memory_mib: int = 0
    pinned_cpus: frozenset[int] = frozenset()
    emulator_cpus: frozenset[int] = frozenset()
    host_cells: frozenset[int] = frozenset()
    page_size_kib: int | None = None
    devices: tuple[str, ...] = ()
    mdevs: tuple[UUID, ...] = ()
    fault: str | None = None


def read_domain(uuid: str, text: str, *, active: bool) -> Domain:
    """Read a domain whose UUID is known from elsewhere; a description that cannot be used is its ``fault``."""
    try:
        return parse_domain(text, active=active)
    except XmlFault as fault:
        return Domain(UUID(uuid), "", active, fault=str(fault))


def parse_domain(text: str, *, active: bool) -> Domain:
    """Read a domain's description; a guest's owner may have written into it.

    Raises:
        XmlFault: malformed, or a number, CPU set or address that cannot be.
    """
    with document(text, root="domain") as domain:
        return _domain(domain, active=active)


def _domain(domain: Element, *, active: bool) -> Domain:
    vcpu = domain.find("vcpu")
    memory = domain.find("memory")
    return Domain(
        uuid=_uuid(text_of(domain, "uuid"), "<uuid>"),
        name=text_of(domain, "name") or "",
        active=active,
        vcpus=_vcpus(vcpu),
        memory_mib=0 if memory is None else kibibytes(memory) // 1024,
        pinned_cpus=_pinned(domain),
        emulator_cpus=_cpus(domain.find("cputune/emulatorpin"), "cpuset"),
        host_cells=frozenset(_host_cells(domain)),
        page_size_kib=_page_size(domain),
        devices=tuple(sorted(set(_pci_devices(domain)))),
        mdevs=tuple(
            _uuid(address.get("uuid"), "<address> uuid")
            for address in domain.findall("devices/hostdev[@type='mdev']/source/address")
        ),
    )


def _uuid(text: str | None, where: str) -> UUID:
    try:
        return UUID(text or "")
    except ValueError:
        raise XmlFault(f"{where}: not a UUID") from None


def _vcpus(vcpu: Element | None) -> int:
    if vcpu is None:
        return 1
    if vcpu.get("current") is not None:
        return attribute(vcpu, "current", most=_MAX_VCPUS)
    return number(vcpu.text, "<vcpu>", most=_MAX_VCPUS)


def _cpus(element: Element | None, name: str) -> frozenset[int]:
    text = None if element is None else element.get(name)
    return cpu_set(text, f"{name}") if text else frozenset()


def _pinned(domain: Element) -> frozenset[int]:
    sets = (_cpus(pin, "cpuset") for pin in domain.findall("cputune/vcpupin"))
    return frozenset(cpu for cpus in sets if len(cpus) == 1 for cpu in cpus if cpu <= MAX_CPU)


def _host_cells(domain: Element) -> Iterator[int]:
    tune = domain.find("numatune")
    if tune is not None:
        for element in (*tune.findall("memory"), *tune.findall("memnode")):
            yield from _cpus(element, "nodeset")


def _page_size(domain: Element) -> int | None:
    if domain.find("memoryBacking/hugepages") is None:
        return None
    page = domain.find("memoryBacking/hugepages/page")
    if page is None:
        return 0
    size = attribute(page, "size")
    return {"KiB": size, "MiB": size * 1024, "GiB": size * 1024**2}.get(page.get("unit", "KiB"), 0)


def _pci_devices(domain: Element) -> Iterator[str]:
    sources = (
        *domain.findall("devices/hostdev[@type='pci']/source/address"),
        *domain.findall("devices/interface[@type='hostdev']/source/address[@type='pci']"),
    )
    for address in sources:
        yield pci_address(*(attribute(address, part) for part in ("domain", "bus", "slot", "function")))
