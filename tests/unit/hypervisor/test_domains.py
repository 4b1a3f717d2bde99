"""What a domain's description tells of what it uses of its host, kind by kind."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import pytest

from worker.accounting.state.domains import Domain, DomainMemory
from worker.hypervisor.devices import NodeDevice, parse_node_device
from worker.hypervisor.domains import parse_domain, read_domain, with_devices

MDEV = UUID("99999999-2222-4333-8444-555555555555")

DOMAIN = """<domain type='kvm'><name>g&lt;1&gt;</name><uuid>11111111-2222-4333-8444-555555555555</uuid>
  <memory unit='GiB'>8</memory><vcpu placement='static' current='2'>4</vcpu>
  <memoryBacking><hugepages><page size='2' unit='MiB' nodeset='0'/></hugepages></memoryBacking>
  <cputune><vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='20'/><vcpupin vcpu='2' cpuset='0-3,^2'/>
    <emulatorpin cpuset='5'/></cputune>
  <numatune><memory mode='strict' nodeset='1'/><memnode cellid='0' mode='strict' nodeset='1-2'/></numatune>
  <devices>
    <hostdev mode='subsystem' type='pci'>
      <source><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></source></hostdev>
    <interface type='hostdev'>
      <source><address type='pci' domain='0' bus='60' slot='0' function='2'/></source></interface>
    <hostdev mode='subsystem' type='mdev'>
      <source><address uuid='99999999-2222-4333-8444-555555555555'/></source></hostdev>
  </devices></domain>"""


def domain(body: str, nodes: tuple[NodeDevice, ...] = ()) -> Domain:
    text = f"<domain><uuid>11111111-2222-4333-8444-555555555555</uuid>{body}</domain>"
    (read,) = with_devices([parse_domain(text, active=True)], nodes)
    return read


def test_a_domain_tells_what_it_uses_of_its_host() -> None:
    described = parse_domain(DOMAIN, active=True)
    read = described.domain
    assert (read.uuid, read.name) == (UUID("11111111-2222-4333-8444-555555555555"), "g<1>")
    assert (read.active, read.vcpus, read.memory_mib) == (True, 2, 8192)
    assert dict(read.vcpu_cpus) == {0: {4}, 1: {20}}, "a vCPU that is not plugged in uses nothing"
    assert (read.emulator_cpus, read.io_cpus) == (frozenset({5}), None)
    assert read.memory == (DomainMemory(0, 8192, 2048, frozenset({1, 2})),)
    assert read.devices == ("0000:3b:00.0", "0000:3c:00.2")
    assert described.mdevs == (MDEV,)


@pytest.mark.parametrize(
    ("body", "vcpus", "emulator", "io"),
    [
        ("<vcpu>2</vcpu>", {}, None, None),
        ("<vcpu cpuset='2'>1</vcpu>", {0: {2}}, {2}, None),
        (
            "<vcpu cpuset='2-3'>2</vcpu><cputune><vcpupin vcpu='1' cpuset='3'/></cputune>",
            {0: {2, 3}, 1: {3}},
            {2, 3},
            None,
        ),
        ("<vcpu>1</vcpu><cputune><emulatorpin cpuset='3'/></cputune>", {}, {3}, None),
        ("<vcpu>1</vcpu><iothreads>2</iothreads>", {}, None, None),
        ("<vcpu cpuset='1'>1</vcpu><iothreads>1</iothreads>", {0: {1}}, {1}, {1}),
        (
            (
                "<vcpu>1</vcpu><iothreads>2</iothreads><cputune><iothreadpin iothread='1' cpuset='6'/>"
                "<iothreadpin iothread='2' cpuset='7'/></cputune>"
            ),
            {},
            None,
            {6, 7},
        ),
        (
            (
                "<vcpu current='1'>2</vcpu><vcpus><vcpu id='0' enabled='no'/><vcpu id='1' enabled='yes'/></vcpus>"
                "<cputune><vcpupin vcpu='0' cpuset='4'/><vcpupin vcpu='1' cpuset='5'/></cputune>"
            ),
            {1: {5}},
            None,
            None,
        ),
    ],
)
def test_threads_are_where_their_pin_says_or_else_where_the_guests_cpus_are(
    body: str, vcpus: dict[int, set[int]], emulator: set[int] | None, io: set[int] | None
) -> None:
    read = domain(body)
    assert dict(read.vcpu_cpus) == vcpus
    assert (read.emulator_cpus, read.io_cpus) == (emulator, io)


CELLS = "<cpu><numa><cell id='0' cpus='0' memory='1' unit='GiB'/><cell id='1' cpus='1' memory='1048576'/></numa></cpu>"
HUGE = "<memoryBacking><hugepages>{}</hugepages></memoryBacking>"


def device(model: str, size: int, source: str = "", node: int = 0) -> str:
    return (
        f"<devices><memory model='{model}'><source>{source}</source>"
        f"<target><size unit='MiB'>{size}</size><node>{node}</node></target></memory></devices>"
    )


@pytest.mark.parametrize(
    ("body", "memory"),
    [
        ("<memory unit='GiB'>1</memory>", [(0, 1024, None, ())]),
        ("<memory unit='GiB'>1</memory>" + HUGE.format(""), [(0, 1024, 0, ())]),
        (
            "<memory unit='GiB'>1</memory><numatune><memory mode='strict' nodeset='1'/></numatune>"
            + HUGE.format("<page size='2048' unit='KiB'/>"),
            [(0, 1024, 2048, (1,))],
        ),
        (
            "<memory unit='GiB'>2</memory><numatune><memory nodeset='0'/><memnode cellid='1' nodeset='3'/></numatune>"
            + CELLS
            + HUGE.format("<page size='2' unit='MiB'/><page size='1' unit='GiB' nodeset='1'/>"),
            [(0, 1024, 2048, (0,)), (1, 1024, 1048576, (3,))],
        ),
        (
            "<memory unit='GiB'>3</memory>" + CELLS
            + device("dimm", 1024, "<pagesize unit='KiB'>2048</pagesize><nodemask>2</nodemask>", 1),
            [(0, 1024, None, ()), (1, 1024, None, ()), (1, 1024, 2048, (2,))],
        ),
        ("<memory unit='MiB'>1536</memory>" + device("virtio-mem", 512), [(0, 1024, None, ()), (0, 512, None, ())]),
    ],
)  # fmt: skip
def test_memory_is_told_with_its_pages_and_cells(body: str, memory: list[tuple[int, int, int | None, Any]]) -> None:
    read = domain(body)
    assert read.memory == tuple(DomainMemory(cell, mib, page, frozenset(on)) for cell, mib, page, on in memory)
    assert read.memory_mib == sum(mib for _, mib, _, _ in memory)


@pytest.mark.parametrize("model", ["nvdimm", "virtio-pmem", "sgx-epc"])
def test_persistent_memory_is_no_ram_of_the_host(model: str) -> None:
    read = domain("<memory unit='MiB'>1536</memory>" + device(model, 512))
    assert (read.memory_mib, read.memory) == (1024, (DomainMemory(0, 1024),))


NVME = "<source type='pci' namespace='1'><address domain='0x0000' bus='0x0{}' slot='0x00' function='0x0'/></source>"


def test_an_nvme_device_is_used_also_below_an_overlay_or_as_the_goal_of_a_copy() -> None:
    disks = (
        f"<disk type='nvme'>{NVME.format(1)}</disk>"
        f"<disk type='file'><source file='/x'/><backingStore type='nvme'>{NVME.format(2)}</backingStore></disk>"
        f"<disk type='file'><source file='/y'/><mirror type='nvme'>{NVME.format(3)}</mirror></disk>"
    )
    assert domain(f"<devices>{disks}</devices>").devices == ("0000:01:00.0", "0000:02:00.0", "0000:03:00.0")


PCI = """<device><name>pci_0000_07_00_0</name><capability type='pci'><domain>0</domain><bus>7</bus><slot>0</slot>
  <function>0</function><product id='0x0001'/><vendor id='0x10de'/></capability></device>"""
VDPA = """<device><name>vdpa_vdpa0</name><parent>pci_0000_07_00_0</parent><capability type='vdpa'>
  <chardev>/dev/vhost-vdpa-0</chardev></capability></device>"""
MEDIATED = """<device><name>{}</name><parent>pci_0000_07_00_0</parent><capability type='mdev'>
  <type id='nvidia-11'/>{}</capability></device>"""


def test_a_vdpa_device_is_the_pci_device_whose_path_it_is() -> None:
    nodes = (parse_node_device(PCI), parse_node_device(VDPA))
    body = "<devices><interface type='vdpa'><source dev='/dev/vhost-vdpa-{}'/></interface></devices>"
    assert domain(body.format(0), nodes).devices == ("0000:07:00.0",)
    disk = "<devices><disk type='vhostvdpa'><source dev='/dev/vhost-vdpa-0'/></disk></devices>"
    assert domain(disk, nodes).devices == ("0000:07:00.0",)
    elsewhere = domain(body.format(1), nodes)
    assert (elsewhere.devices, elsewhere.unknown) == ((), ("vDPA device /dev/vhost-vdpa-1",))


@pytest.mark.parametrize(
    ("name", "uuid"),
    [("mdev_99999999_2222_4333_8444_555555555555", ""), ("mdev_x", f"<uuid>{MDEV}</uuid>"),
     ("mdev_99999999_2222_4333_8444_555555555555_0000_07_00_0", "")],
)  # fmt: skip
def test_a_mediated_device_is_one_of_a_type_on_its_parent(name: str, uuid: str) -> None:
    body = f"<devices><hostdev type='mdev'><source><address uuid='{MDEV}'/></source></hostdev></devices>"
    nodes = (parse_node_device(PCI), parse_node_device(MEDIATED.format(name, uuid)))
    assert domain(body, nodes).mediated == (("0000:07:00.0", "nvidia-11"),)
    assert domain(body, nodes[:1]).unknown == (f"mediated device {MDEV}",)


def test_pins_that_name_more_cpus_than_any_host_has_are_refused() -> None:
    pins = "".join(f"<vcpupin vcpu='{vcpu}' cpuset='0-60000,{vcpu}'/>" for vcpu in range(20))
    with pytest.raises(ValueError, match="more than"):
        domain(f"<vcpu>20</vcpu><cputune>{pins}</cputune>")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cpuset='4'", "cpuset='4;5'"),
        ("current='2'", "current='two'"),
        ("bus='0x3b'", "bus='0x1ff'"),
        ("uuid='9", "uuid='z"),
        ("<uuid>1", "<uuid>z"),
        ("unit='GiB'>8<", "unit='GiB'>8 and more<"),
        ("<vcpupin vcpu='1'", "<vcpupin vcpu='99999'"),
        ("cellid='0'", "cellid='5000'"),
        ("nodeset='1-2'", "nodeset='1-2000'"),
        ("unit='MiB' nodeset", "unit='pages' nodeset"),
        ("<domain ", "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain "),
    ],
)
def test_what_a_guests_owner_writes_cannot_do_more_than_be_refused(old: str, new: str) -> None:
    assert old in DOMAIN
    read = read_domain("11111111-2222-4333-8444-555555555555", DOMAIN.replace(old, new), active=True)
    assert read.domain.fault is not None
    assert (str(read.domain.uuid), read.domain.active, read.domain.vcpus) == (
        "11111111-2222-4333-8444-555555555555",
        True,
        0,
    )
