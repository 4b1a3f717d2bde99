from __future__ import annotations

from threading import Thread

import pytest

from worker.hypervisor.documents import MAX_DOCUMENT_BYTES, Oddities, XmlFault, document, parse
from worker.hypervisor.encryption import Encryption, parse_encryption
from worker.hypervisor.storage import local_disk_gib, parse_pool
from worker.hypervisor.traits import cpu_traits

GIB = 2**30


def pool(kind: str, capacity: int, available: int, source: str = "") -> str:
    return f"""<pool type='{kind}'><name>p</name><capacity unit='bytes'>{capacity}</capacity>
      <available unit='bytes'>{available}</available><source>{source}</source></pool>"""


def disk(*texts: str) -> int:
    return local_disk_gib(map(parse_pool, texts))


def test_local_pools_add_up_and_shared_storage_does_not_count() -> None:
    volumes = pool("logical", 200 * GIB, GIB, "<name>vg0</name>")
    assert (
        disk(pool("dir", 300 * GIB, 50 * GIB), volumes, pool("netfs", 900 * GIB, GIB), pool("rbd", 900 * GIB, GIB))
        == 500
    )


VOLUMES = pool("logical", 1000 * GIB, 400 * GIB, "<name>vg-0</name><device path='/dev/sdb1'/>")


def filesystem(device: str, gib: int = 490) -> str:
    return pool("fs", gib * GIB, GIB, f"<device path='{device}'/>")


@pytest.mark.parametrize(
    ("pools", "gib"),
    [
        ([pool("dir", 490 * GIB, 9 * GIB)], 1000),  # nothing tells where it lies: on a volume, for all that is known
        ([filesystem("/dev/vg-0/images")], 1000),
        ([filesystem("/dev/mapper/vg--0-images")], 1000),
        ([filesystem("/dev/disk/by-uuid/4711")], 1000),
        ([filesystem("/dev/sdc1")], 1490),
        ([filesystem("/dev/nvme0n1p2")], 1490),
        ([pool("dir", 1490 * GIB, 9 * GIB)], 2490),  # larger than the group
        ([pool("dir", 600 * GIB, 9 * GIB), pool("dir", 500 * GIB, 8 * GIB)], 1500),  # larger together
        ([pool("logical", 1000 * GIB, 300 * GIB, "<name>vg-0</name>")], 1000),
        ([pool("disk", 1200 * GIB, GIB, "<device path='/dev/sdb'/>")], 1200),
        ([pool("disk", 1200 * GIB, GIB, "<device path='/dev/sdc'/>"), filesystem("/dev/sdc1")], 2200),
        ([pool("zfs", 800 * GIB, GIB, "<name>tank</name>"), pool("zfs", 700 * GIB, 1, "<name>tank/vms</name>")], 1800),
    ],
)
def test_what_lies_on_a_volume_or_may_lie_there_is_counted_with_the_pool_of_volumes(pools: list[str], gib: int) -> None:
    assert disk(VOLUMES, *pools) == disk(*pools, VOLUMES) == gib


def test_a_partition_is_part_of_its_disk_whatever_the_disks_name() -> None:
    for whole, part in (("/dev/nvme0n1", "/dev/nvme0n1p1"), ("/dev/disk/by-id/x1", "/dev/disk/by-id/x1-part2")):
        whole_disk = pool("disk", 1200 * GIB, GIB, f"<device path='{whole}'/>")
        assert disk(whole_disk, pool("logical", 1000 * GIB, GIB, f"<name>vg</name><device path='{part}'/>")) == 1200
    other = pool("disk", 1200 * GIB, GIB, "<device path='/dev/nvme0n1'/>")
    assert disk(other, pool("logical", 1000 * GIB, GIB, "<name>vg</name><device path='/dev/nvme0n11p1'/>")) == 2200


def test_a_directory_that_is_counted_with_a_pool_of_volumes_is_told_and_how_to_have_it_counted() -> None:
    oddities = Oddities()
    assert local_disk_gib(map(parse_pool, (VOLUMES, pool("dir", 490 * GIB, GIB))), oddities) == 1000
    (told,) = oddities.told
    assert "may lie in the pool" in told
    assert "type fs" in told


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
    with pytest.raises(XmlFault, match=r"<capacity>: .* are more than"):
        parse_pool("<pool type='dir'><capacity unit='TiB'>4000000000000</capacity></pool>")


@pytest.mark.parametrize("available", [2**64 - 1, 2**64 - 4096, 101 * GIB, -1])
def test_a_pool_with_more_left_than_it_has_counts_and_what_is_left_is_not_known(available: int) -> None:
    odd = parse_pool(pool("dir", 100 * GIB, available))
    assert (odd.capacity_bytes, odd.available_bytes) == (100 * GIB, None)
    assert odd.oddities == ("<pool> p <available>: is no part of its capacity, and so not known",)
    assert local_disk_gib([odd, parse_pool(pool("dir", 100 * GIB, GIB))]) == 100  # perhaps one filesystem


def test_of_a_pool_that_is_never_counted_nothing_is_read() -> None:
    odd = "<pool type='iscsi-direct'><name>x</name><capacity>lots</capacity><available unit='?'/></pool>"
    assert disk(odd, pool("dir", 100 * GIB, GIB)) == 100


def encryption(features: str) -> Encryption:
    return parse_encryption(f"<domainCapabilities><features>{features}</features></domainCapabilities>")


SEV = "<sev supported='yes'><maxGuests>502</maxGuests><maxESGuests>7</maxESGuests></sev>"


def test_slots_for_encrypted_guests_are_custom_resources() -> None:
    found = encryption(SEV)
    assert dict(found.slots) == {"CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV": 502, "CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV_ES": 7}
    assert found.traits == {"HW_CPU_X86_AMD_SEV", "HW_CPU_X86_AMD_SEV_ES"}


def test_with_nested_paging_on_the_slots_of_encrypted_state_are_those_of_nested_paging() -> None:
    security = "<launchSecurity supported='yes'><enum name='sectype'><value>sev</value><value>sev-snp</value></enum>"
    found = encryption(f"{SEV}{security}</launchSecurity>")
    assert dict(found.slots) == {"CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV": 502, "CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV_SNP": 7}
    assert found.traits == {"HW_CPU_X86_AMD_SEV", "HW_CPU_X86_AMD_SEV_SNP"}


@pytest.mark.parametrize(
    ("features", "traits"),
    [
        ("<s390-pv supported='yes'/>", {"HW_CPU_S390X_PV"}),
        ("<tdx supported='yes'/>", {"HW_CPU_X86_INTEL_TDX"}),
        ("<sev supported='yes'/>", {"HW_CPU_X86_AMD_SEV"}),
        ("<sev supported='yes'><maxGuests>many</maxGuests></sev>", {"HW_CPU_X86_AMD_SEV"}),
        ("<sev supported='yes'><maxGuests>0</maxGuests></sev>", set()),
        ("<s390-pv supported='no'/><tdx/><sev supported='no'><maxGuests>5</maxGuests></sev>", set()),
    ],
)
def test_older_hosts_tell_of_encryption_by_an_element_of_each_kind(features: str, traits: set[str]) -> None:
    found = encryption(features)
    assert found.slots == ()
    assert found.traits == traits
    assert bool(found.oddities) == ("many" in features)


@pytest.mark.parametrize("features", ["", "<features><sev supported='no'/></features>", "<features/>"])
def test_a_host_that_cannot_encrypt_has_no_slots(features: str) -> None:
    assert parse_encryption(f"<domainCapabilities>{features}</domainCapabilities>").slots == ()


@pytest.mark.parametrize(
    ("feature", "name"),
    [
        ("amx-bf16", "AMXBF16"),
        ("amx-int8", "AMXINT8"),
        ("amx-tile", "AMXTILE"),
        ("vaes", "AVX512VAES"),
        ("gfni", "AVX512GFNI"),
        ("vpclmulqdq", "AVX512VPCLMULQDQ"),
        ("avx512-vpopcntdq", "AVX512VPOPCNTDQ"),
        ("md-clear", "INTEL_MD_CLEAR"),
        ("virt-ssbd", "AMD_VIRT_SSBD"),
        ("amd-no-ssb", "AMD_NO_SSB"),
    ],
)
def test_a_feature_has_the_name_that_openstacks_library_gives_it(feature: str, name: str) -> None:
    assert f"HW_CPU_X86_{name}" in cpu_traits("x86_64", [feature], threaded=False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<!DOCTYPE host><host/>", "holds a DTD"),
        ("<!DOCTYPE host [<!ENTITY a 'b'>]><host>&a;</host>", "holds a DTD"),
        ("<!DOCTYPE host SYSTEM 'http://192.0.2.1/x'><host/>", "holds a DTD"),
        ("<!DOCTYPE host [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><host>&a;</host>", "holds a DTD"),
        (f"<host>{' ' * MAX_DOCUMENT_BYTES}</host>", "longer than"),
        ("<host>" + "\u3042" * (MAX_DOCUMENT_BYTES // 3) + "</host>", "longer than"),
    ],
)
def test_a_document_with_a_dtd_or_entities_or_of_boundless_length_is_refused(text: str, said: str) -> None:
    with pytest.raises(XmlFault, match=said):
        parse(text, root="host")


def test_large_documents_are_read_one_at_a_time_and_small_ones_beside_them() -> None:
    large = f"<host>{'<a/>' * 20_000}</host>"
    began: list[int] = []
    with document(large, root="host"):
        other = Thread(target=lambda: began.append(_count(large)), daemon=True)
        other.start()
        other.join(0.2)
        assert not began
        assert _count("<host><a/></host>") == 1
    other.join(60)
    assert began == [20_000]


def _count(text: str) -> int:
    with document(text, root="host") as element:
        return len(element)
