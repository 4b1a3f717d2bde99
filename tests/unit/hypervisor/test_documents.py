from __future__ import annotations

from uuid import UUID

import pytest

from worker.hypervisor.documents import XmlFault
from worker.hypervisor.domains import parse_domain, read_domain
from worker.hypervisor.encryption import parse_encryption
from worker.hypervisor.storage import local_disk_gib, parse_pool

GIB = 2**30


def pool(kind: str, capacity: int, available: int, source: str = "") -> str:
    return f"""<pool type='{kind}'><name>p</name><capacity unit='bytes'>{capacity}</capacity>
      <available unit='bytes'>{available}</available><source>{source}</source></pool>"""


def disk(*texts: str) -> int:
    return local_disk_gib(map(parse_pool, texts))


def test_local_pools_add_up_and_shared_storage_does_not_count() -> None:
    volumes = pool("logical", 200 * GIB, GIB, "<name>vg0</name>")
    assert (
        disk(pool("dir", 100 * GIB, 50 * GIB), volumes, pool("netfs", 900 * GIB, GIB), pool("rbd", 900 * GIB, GIB))
        == 300
    )


def test_directories_on_one_filesystem_are_counted_once() -> None:
    one, other = pool("dir", 100 * GIB, 50 * GIB), pool("dir", 100 * GIB, 50 * GIB - 4096)
    assert disk(one, other) == 100
    assert disk(one, pool("fs", 100 * GIB, 50 * GIB, "<device path='/dev/sda3'/>")) == 100


def test_filesystems_of_one_size_are_two_if_they_hold_different_amounts_or_lie_on_different_devices() -> None:
    assert disk(pool("dir", 100 * GIB, 50 * GIB), pool("dir", 100 * GIB, 20 * GIB)) == 200
    devices = [pool("fs", 100 * GIB, GIB, f"<device path='/dev/{name}'/>") for name in ("sda1", "sdb1")]
    assert disk(*devices) == 200


def test_a_pool_whose_size_is_no_number_is_refused_by_name() -> None:
    with pytest.raises(XmlFault, match="<capacity>: 'lots' is not a whole number"):
        parse_pool("<pool type='dir'><capacity unit='bytes'>lots</capacity></pool>")


def test_slots_for_encrypted_guests_are_custom_resources() -> None:
    found = parse_encryption(
        "<domainCapabilities><features>"
        "<sev supported='yes'><maxGuests>502</maxGuests><maxESGuests>7</maxESGuests></sev>"
        "<launchSecurity supported='yes'><enum name='sectype'><value>sev</value><value>sev-snp</value></enum>"
        "</launchSecurity></features></domainCapabilities>"
    )
    assert dict(found.slots) == {"CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV": 502, "CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV_ES": 7}
    assert found.traits == {"HW_CPU_X86_AMD_SEV", "HW_CPU_X86_AMD_SEV_ES", "HW_CPU_X86_AMD_SEV_SNP"}


@pytest.mark.parametrize("features", ["", "<features><sev supported='no'/></features>", "<features/>"])
def test_a_host_that_cannot_encrypt_has_no_slots(features: str) -> None:
    assert parse_encryption(f"<domainCapabilities>{features}</domainCapabilities>").slots == ()


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


def test_a_domain_tells_what_it_uses_of_its_host() -> None:
    domain = parse_domain(DOMAIN, active=True)
    assert (domain.uuid, domain.name) == (UUID("11111111-2222-4333-8444-555555555555"), "g<1>")
    assert (domain.active, domain.vcpus, domain.memory_mib, domain.page_size_kib) == (True, 2, 8192, 2048)
    assert domain.pinned_cpus == {4, 20}
    assert domain.emulator_cpus == {5}
    assert domain.host_cells == {1, 2}
    assert domain.devices == ("0000:3b:00.0", "0000:3c:00.2")
    assert domain.mdevs == (UUID("99999999-2222-4333-8444-555555555555"),)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("cpuset='4'", "cpuset='4;5'"),
        ("current='2'", "current='two'"),
        ("bus='0x3b'", "bus='0x1ff'"),
        ("uuid='9", "uuid='z"),
        ("<uuid>1", "<uuid>z"),
        ("unit='GiB'>8<", "unit='GiB'>8 and more<"),
        ("<domain ", "<!DOCTYPE domain [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain "),
    ],
)
def test_what_a_guests_owner_writes_cannot_do_more_than_be_refused(old: str, new: str) -> None:
    assert old in DOMAIN
    read = read_domain("11111111-2222-4333-8444-555555555555", DOMAIN.replace(old, new), active=True)
    assert read.fault is not None
    assert (str(read.uuid), read.active, read.vcpus) == ("11111111-2222-4333-8444-555555555555", True, 0)
