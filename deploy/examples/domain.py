"""From an assignment to libvirt's domain XML: all that a guest is to use of its host, as the ledger gave it.

An example to begin from; take it over into your own code. What it leaves out
(firmware, disks, graphics) takes nothing that the ledger counts. A guest started so
shows no difference to ``nodeledger audit``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from uuid import UUID
from xml.etree.ElementTree import Element, SubElement, tostring

Assignment = Mapping[str, Any]


def domain_xml(
    instance: UUID,
    vcpus: int,
    memory_mib: int,
    assignment: Assignment,
    *,
    mediated: Iterable[UUID] = (),
    vdpa_paths: Mapping[str, str] | None = None,
    nvme: frozenset[str] = frozenset(),
) -> str:
    """Write the domain of an instance with ``vcpus`` and ``memory_mib`` and its ``assignment``.

    ``mediated`` are UUIDs of the mediated devices that were made for it, one for each
    that the assignment names, in its order; ``vdpa_paths`` gives for the address of
    each vDPA device the path below ``/dev`` that its node device tells as
    ``<chardev>``. Devices at addresses in ``nvme`` become disks, others are passed through.
    """
    domain = Element("domain", type="kvm")
    SubElement(domain, "name").text = f"instance-{instance}"
    SubElement(domain, "uuid").text = str(instance)
    SubElement(domain, "memory", unit="MiB").text = str(memory_mib)
    floating = {"cpuset": assignment["shared_cpus"]} if assignment["shared_cpus"] else {}
    SubElement(domain, "vcpu", placement="static", **floating).text = str(vcpus)
    if assignment["cells"]:
        _add_cells(domain, assignment["cells"])
        _add_pins(domain, assignment)
    os = SubElement(domain, "os")
    SubElement(os, "type", arch="x86_64").text = "hvm"
    devices = SubElement(domain, "devices")
    uuids = iter(mediated)
    for given in assignment["devices"]:
        _add_device(devices, given, uuids, vdpa_paths or {}, nvme)
    return tostring(domain, encoding="unicode")


def _add_cells(domain: Element, cells: list[Assignment]) -> None:
    """Give the guest its cells, each with its memory from one host cell and in one size of pages."""
    numa = SubElement(SubElement(domain, "cpu"), "numa")
    tune = SubElement(domain, "numatune")
    hosts = ",".join(sorted({str(cell["host_cell"]) for cell in cells}))
    SubElement(tune, "memory", mode="strict", nodeset=hosts)
    pages = [cell for cell in cells if cell["page_size_kib"] is not None]
    backing = SubElement(SubElement(domain, "memoryBacking"), "hugepages") if pages else None
    for cell in cells:
        number = str(cell["guest_cell"])
        cpus = ",".join(filter(None, [*cell["pins"], cell["shared_vcpus"]]))
        SubElement(numa, "cell", id=number, cpus=cpus, memory=str(cell["memory_mib"]), unit="MiB")
        SubElement(tune, "memnode", cellid=number, mode="strict", nodeset=str(cell["host_cell"]))
        if backing is not None and cell["page_size_kib"] is not None:
            SubElement(backing, "page", size=str(cell["page_size_kib"]), unit="KiB", nodeset=number)


def _add_pins(domain: Element, assignment: Assignment) -> None:
    """Confine each vCPU to what it was given, and the emulator to its CPUs, the shared ones or the guest's own."""
    tune = SubElement(domain, "cputune")
    for cell in assignment["cells"]:
        for vcpu, cpu in cell["pins"].items():
            SubElement(tune, "vcpupin", vcpu=vcpu, cpuset=str(cpu))
        for vcpu in _numbers(cell["shared_vcpus"]):
            SubElement(tune, "vcpupin", vcpu=str(vcpu), cpuset=cell["shared_cpus"])
    own = [str(cpu) for cell in assignment["cells"] for cpu in cell["pins"].values()]
    emulator = ",".join(cell["emulator_cpus"] for cell in assignment["cells"] if cell["emulator_cpus"])
    where = emulator or assignment["shared_cpus"] or ",".join(own)
    if where:
        SubElement(tune, "emulatorpin", cpuset=where)


def _add_device(
    devices: Element, given: Assignment, uuids: Iterator[UUID], paths: Mapping[str, str], nvme: frozenset[str]
) -> None:
    address = given["address"]
    if given["type"] == "mdev":
        hostdev = SubElement(devices, "hostdev", mode="subsystem", type="mdev", model="vfio-pci")
        SubElement(SubElement(hostdev, "source"), "address", uuid=str(next(uuids)))
    elif given["type"] == "vdpa":
        SubElement(SubElement(devices, "interface", type="vdpa"), "source", dev=paths[address])
    elif given["type"] == "vf":
        source = SubElement(SubElement(devices, "interface", type="hostdev", managed="yes"), "source")
        SubElement(source, "address", {"type": "pci", **_pci(address)})
    elif address in nvme:
        disk = SubElement(devices, "disk", type="nvme", device="disk")
        source = SubElement(disk, "source", type="pci", managed="yes", namespace="1")
        SubElement(source, "address", _pci(address))
        SubElement(disk, "target", dev=f"vd{chr(97 + len(devices.findall('disk')))}", bus="virtio")
    else:
        hostdev = SubElement(devices, "hostdev", mode="subsystem", type="pci", managed="yes")
        SubElement(SubElement(hostdev, "source"), "address", _pci(address))


def _pci(address: str) -> dict[str, str]:
    domain, bus, rest = address.split(":")
    slot, function = rest.split(".")
    return {"domain": f"0x{domain}", "bus": f"0x{bus}", "slot": f"0x{slot}", "function": f"0x{function}"}


def _numbers(cpus: str) -> Iterator[int]:
    for part in filter(None, cpus.split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)
