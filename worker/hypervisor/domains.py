"""Domains as the hypervisor describes them: what each uses of its host.

What an element means is as in libvirt's "Domain XML format", and what is taken
where it says nothing as in libvirt's QEMU driver: a vCPU, the emulator and an I/O
thread that nothing pins run where ``<vcpu cpuset>`` lets them; a memory device
lies where its guest cell does.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final
from uuid import UUID

from worker.accounting.state.domains import Domain
from worker.hypervisor.devices import pci_address
from worker.hypervisor.documents import XmlFault, attribute, cpu_set, document, number, text_of
from worker.hypervisor.memory import memory_of, ram_mib

if TYPE_CHECKING:
    from collections.abc import Iterable
    from xml.etree.ElementTree import Element

    from worker.hypervisor.devices import NodeDevice

_MAX_VCPUS: Final = 65_536

_MOST_PINNED: Final = 2**20
"""How many CPUs all different pins of a guest name together, at most: 1,024 vCPUs on 1,024 CPUs, each on others."""

_PCI_SOURCES: Final = (
    "devices/hostdev[@type='pci']/source/address",
    "devices/interface[@type='hostdev']/source/address[@type='pci']",
    "devices/disk//source[@type='pci']/address",
    "devices/disk//mirror[@type='nvme']/source/address",
)
"""Where a PCI device is given to a guest; of an NVMe disk also below an overlay or a copy under way."""

_VDPA_SOURCES: Final = ("devices/interface[@type='vdpa']/source", "devices/disk[@type='vhostvdpa']/source")


@dataclass(frozen=True, slots=True)
class Described:
    """A domain and the devices that its description names by something else than their address.

    ``mdevs`` are UUIDs of mediated devices, ``vdpas`` the paths of vDPA devices.
    """

    domain: Domain
    mdevs: tuple[UUID, ...] = ()
    vdpas: tuple[str, ...] = ()


def read_domain(uuid: str, text: str, *, active: bool) -> Described:
    """Read a domain whose UUID is known from elsewhere; a description that cannot be used is its ``fault``."""
    try:
        return parse_domain(text, active=active)
    except XmlFault as fault:
        return Described(Domain(UUID(uuid), "", active, fault=str(fault)))


def parse_domain(text: str, *, active: bool) -> Described:
    """Read a domain's description; a guest's owner may have written into it.

    Raises:
        XmlFault: malformed, or a number, CPU set or address that cannot be.
    """
    with document(text, root="domain") as domain:
        return _described(domain, active=active)


def _described(domain: Element, *, active: bool) -> Described:
    used = _vcpus_in_use(domain)
    anywhere = _cpus(domain.find("vcpu"))
    emulator = _cpus(domain.find("cputune/emulatorpin"))
    read = Domain(
        uuid=_uuid(text_of(domain, "uuid"), "<uuid>"),
        name=text_of(domain, "name") or "",
        active=active,
        vcpus=len(used),
        memory_mib=ram_mib(domain),
        vcpu_cpus=_confined(domain, used, anywhere),
        emulator_cpus=anywhere if emulator is None else emulator,
        io_cpus=_io_threads(domain, anywhere),
        memory=memory_of(domain),
        devices=tuple(sorted({_address(source) for path in _PCI_SOURCES for source in domain.findall(path)})),
    )
    mdevs = domain.findall("devices/hostdev[@type='mdev']/source/address")
    vdpas = (source.get("dev") for path in _VDPA_SOURCES for source in domain.findall(path))
    return Described(
        read,
        mdevs=tuple(_uuid(address.get("uuid"), "<address> uuid") for address in mdevs),
        vdpas=tuple(sorted({path for path in vdpas if path})),
    )


def with_devices(described: Iterable[Described], nodes: Iterable[NodeDevice]) -> list[Domain]:
    """The domains with their mediated and vDPA devices as the host's node devices tell of them."""
    nodes = list(nodes)
    addresses = {node.name: node.address for node in nodes if node.address}
    mediated = {
        node.mdev_uuid: (addresses[node.parent], node.mdev_type)
        for node in nodes
        if node.mdev_uuid is not None and node.parent in addresses and node.mdev_type is not None
    }
    paths = {node.chardev: addresses[node.parent] for node in nodes if node.chardev and node.parent in addresses}
    return [_resolved(one, mediated, paths) for one in described]


def _resolved(one: Described, mediated: dict[UUID, tuple[str, str]], paths: dict[str, str]) -> Domain:
    if not one.mdevs and not one.vdpas:
        return one.domain
    return replace(
        one.domain,
        devices=tuple(sorted({*one.domain.devices, *(paths[path] for path in one.vdpas if path in paths)})),
        mediated=tuple(sorted(mediated[uuid] for uuid in one.mdevs if uuid in mediated)),
        unknown=(
            *(f"mediated device {uuid}" for uuid in one.mdevs if uuid not in mediated),
            *(f"vDPA device {path[:64]}" for path in one.vdpas if path not in paths),
        ),
    )


def _uuid(text: str | None, where: str) -> UUID:
    try:
        return UUID(text or "")
    except ValueError:
        raise XmlFault(f"{where}: not a UUID") from None


def _vcpus_in_use(domain: Element) -> frozenset[int]:
    """The vCPUs that are plugged in; where they are not listed, the first so many."""
    listed = [vcpu for vcpu in domain.findall("vcpus/vcpu") if vcpu.get("enabled") == "yes"]
    if listed:
        return frozenset(attribute(vcpu, "id", most=_MAX_VCPUS) for vcpu in listed)
    vcpu = domain.find("vcpu")
    if vcpu is None:
        return frozenset({0})
    if vcpu.get("current") is not None:
        return frozenset(range(attribute(vcpu, "current", most=_MAX_VCPUS)))
    return frozenset(range(number(vcpu.text, "<vcpu>", most=_MAX_VCPUS)))


def _cpus(element: Element | None) -> frozenset[int] | None:
    """The host CPUs that an element confines something to; ``None`` where it names none."""
    text = None if element is None else element.get("cpuset")
    return cpu_set(text, f"<{element.tag}> cpuset") if element is not None and text else None


def _confined(domain: Element, used: frozenset[int], anywhere: frozenset[int] | None) -> dict[int, frozenset[int]]:
    sets: dict[str, frozenset[int]] = {}
    pins: dict[int, frozenset[int]] = {}
    named = 0
    for pin in domain.findall("cputune/vcpupin"):
        text = pin.get("cpuset", "")
        if text not in sets:
            sets[text] = _cpus(pin) or frozenset()
            named += len(sets[text])
            if named > _MOST_PINNED:
                raise XmlFault(f"<vcpupin>: more than {_MOST_PINNED} CPUs are named")
        pins[attribute(pin, "vcpu", most=_MAX_VCPUS)] = sets[text]
    found = ((vcpu, pins.get(vcpu) or anywhere) for vcpu in sorted(used))
    return {vcpu: cpus for vcpu, cpus in found if cpus is not None}


def _io_threads(domain: Element, anywhere: frozenset[int] | None) -> frozenset[int] | None:
    """The CPUs of the I/O threads together; ``None`` where there is none, or one that nothing confines."""
    pins = [_cpus(pin) or frozenset() for pin in domain.findall("cputune/iothreadpin")]
    count = number(domain.findtext("iothreads") or "0", "<iothreads>")
    if not pins and not count:
        return None
    if len(pins) < count and anywhere is None:
        return frozenset().union(*pins) or None
    return frozenset().union(*pins, (anywhere or frozenset()) if len(pins) < count else frozenset())


def _address(source: Element) -> str:
    return pci_address(*(_part(source, part) for part in ("domain", "bus", "slot", "function")))


def _part(source: Element, part: str) -> int:
    return 0 if part == "domain" and source.get(part) is None else attribute(source, part)
