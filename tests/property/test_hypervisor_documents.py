from __future__ import annotations

import re
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from xml.etree import ElementTree as ET

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.cpuset import parse_cpu_set
from schemas.inventory import Inventory
from worker.hypervisor.addresses import DEFAULT_PATTERNS, Allowed
from worker.hypervisor.capabilities import parse_capabilities
from worker.hypervisor.documents import XmlFault
from worker.hypervisor.inventory import Observation, inventory_of
from worker.hypervisor.observe import HostReader, Shared

if TYPE_CHECKING:
    from collections.abc import Mapping

    from worker.hypervisor.connection import Connection

HOSTS = [path.read_text() for path in sorted((Path(__file__).parents[1] / "data" / "hosts").glob("*.xml"))]
ODD_VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["", "-1", "0x10", "1e3", "0-", "3-1", "0-99999999", "^1", "1,,2", "\u0663", "&lt;", " 7 ", "+1"]),
    st.text("0123456789-,^x ", max_size=12),
)
ODD_TEXTS = ODD_VALUES.map(lambda text: "".join(letter for letter in text if letter.isprintable()))
VALUE = re.compile(r"(?<=')[^'<>]*(?=')|(?<=>)[^'<>\s]+(?=<)")


@st.composite
def damaged_host(draw: st.DrawFn) -> str:
    """A host's description in which a few values are odd."""
    text = draw(st.sampled_from(HOSTS))
    for _ in range(draw(st.integers(1, 4))):
        match = draw(st.sampled_from([*VALUE.finditer(text)] or [*re.finditer("^", text)]))
        text = text[: match.start()] + draw(ODD_VALUES) + text[match.end() :]
    return text


@given(damaged_host(), st.none() | st.frozensets(st.integers(0, 40)))
def test_a_damaged_host_is_either_read_soundly_or_refused_by_name(text: str, online: frozenset[int] | None) -> None:
    try:
        made = inventory_of(Observation(parse_capabilities(text), memory_mib=1, cpu_count=4, online=online))
    except XmlFault:
        return
    check_soundness(made)


def check_soundness(made: Inventory) -> None:
    for cell in made.cells:
        cpus = parse_cpu_set(cell.cpus)
        cores = [parse_cpu_set(core) for core in cell.siblings]
        assert cpus == frozenset[int]().union(*cores)
        assert len(cpus) == sum(map(len, cores))
        assert cpus <= parse_cpu_set(made.cpus)
    assert Inventory.model_validate_json(made.model_dump_json()) == made


TOPOLOGY = """<capabilities><host><uuid>11111111-2222-4333-8444-555555555555</uuid>
  <cpu><arch>x86_64</arch><model>m</model><feature name='vaes'/></cpu><iommu support='yes'/>
  <topology><cells num='2'>{}</cells></topology>
  <cache><bank id='0' level='3' type='both' cpus='0-3'/><bank id='1' level='3' type='both' cpus='4-7'/></cache>
  </host></capabilities>"""
CELL = """<cell id='{0}'><memory unit='KiB'>4194304</memory><pages unit='KiB' size='4'>1048576</pages>
  <pages unit='KiB' size='2048'>64</pages>
  <distances><sibling id='0' value='10'/><sibling id='1' value='20'/></distances>
  <cpus num='4'>{1}</cpus></cell>"""
CPU = "<cpu id='{0}' socket_id='0' die_id='{1}' cluster_id='{0}' core_id='{0}' siblings='{0}'/>"
PCI = """<device><name>pci_{0}</name><driver><name>vfio-pci</name></driver><capability type='pci'>
  <class>0x030200</class><domain>0</domain><bus>{0}</bus><slot>0</slot><function>0</function>
  <product id='0x1db6'/><vendor id='0x10de'/>
  <numa node='1'/>{1}</capability></device>"""
VF = "<capability type='phys_function'><address domain='0' bus='1' slot='0' function='0'/></capability>"
TYPES = """<capability type='mdev_types'><type id='a-1'><availableInstances>4</availableInstances></type>
  <type id='a-2'><availableInstances>2</availableInstances></type></capability>"""
DEVICES = (
    PCI.format(1, "<capability type='virt_functions'/>"),
    PCI.format(2, VF),
    PCI.format(3, TYPES),
    PCI.format(4, ""),
)
POOL = """<pool type='{0}'><name>{0}</name><capacity unit='bytes'>{1}</capacity><available unit='bytes'>4096</available>
  <source><device path='/dev/sd{2}'/><name>{2}</name></source></pool>"""
POOLS = (POOL.format("fs", 2**33, "a1"), POOL.format("logical", 2**32, "b"), POOL.format("netfs", 2**35, "c"))
SEV = """<domainCapabilities><features><sev supported='yes'><maxGuests>5</maxGuests></sev>
  <launchSecurity supported='yes'><enum name='sectype'><value>sev</value></enum></launchSecurity></features>
  </domainCapabilities>"""
WHOLE = {
    "host": [TOPOLOGY.format("".join(
        CELL.format(cell, "".join(CPU.format(cpu, cell) for cpu in range(4 * cell, 4 * cell + 4))) for cell in (0, 1)
    ))],
    "device": list(DEVICES), "pool": list(POOLS), "sev": [SEV],
    "cpu": ["<cpu><arch>x86_64</arch><feature name='aes'/></cpu>"],
}  # fmt: skip


@dataclass
class Handle:
    name: str
    text: str

    def description(self) -> str:
        return self.text


@dataclass
class Told:
    """A hypervisor that answers with given documents."""

    texts: Mapping[str, list[str]]

    def capabilities(self) -> str:
        return self.texts["host"][0]

    def memory_and_cpus(self) -> tuple[int, int]:
        return 8192, 8

    def online_cpus(self) -> frozenset[int]:
        return frozenset(range(8))

    def expanded_cpu(self, _xml: str) -> str:
        return self.texts["cpu"][0]

    def domain_capabilities(self) -> str:
        return self.texts["sev"][0]

    def node_devices(self) -> list[Handle]:
        return [Handle(f"device-{number}", text) for number, text in enumerate(self.texts["device"])]

    def storage_pools(self) -> list[str]:
        return self.texts["pool"]


def read(texts: Mapping[str, list[str]]) -> Inventory:
    return HostReader(Shared()).read(cast("Connection", Told(texts)))


SOUND = read(WHOLE)


@st.composite
def odd_documents(draw: st.DrawFn) -> tuple[str, int, str]:
    """One document of a host in which one element is dropped, doubled, or has an odd value, or which is no XML."""
    kind = draw(st.sampled_from(sorted(WHOLE)))
    number = draw(st.integers(0, len(WHOLE[kind]) - 1))
    if kind != "host" and draw(st.integers(0, 9)) == 0:
        return kind, number, draw(st.sampled_from(["", "<", "<other/>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a>&b;</a>"]))
    tree = ET.fromstring(WHOLE[kind][number])
    top = tree.find("host") if kind == "host" else tree
    assert top is not None
    parents = {child: parent for parent in top.iter() for child in parent}
    target = draw(st.sampled_from(list(parents)))
    change = draw(st.sampled_from(["drop", "double", "text", "attribute"]))
    if change == "drop":
        parents[target].remove(target)
    elif change == "double":
        parents[target].append(deepcopy(target))
    elif change == "attribute" and target.keys():
        target.set(draw(st.sampled_from(sorted(target.keys()))), draw(ODD_TEXTS))
    else:
        target.text = draw(ODD_TEXTS)
    return kind, number, ET.tostring(tree, encoding="unicode")


@settings(max_examples=400)
@given(odd_documents())
def test_what_is_odd_in_any_document_costs_itself_alone(odd: tuple[str, int, str]) -> None:
    kind, number, text = odd
    texts = {**WHOLE, kind: [*WHOLE[kind][:number], text, *WHOLE[kind][number + 1 :]]}
    made = read(texts)
    check_soundness(made)
    assert read(texts) == made
    assert (made.cpus, made.memory_mib) == (SOUND.cpus, SOUND.memory_mib)
    if kind != "host":
        assert made.cells == SOUND.cells
        assert made.iommu is True
    if kind != "pool":
        assert made.disk_gib == SOUND.disk_gib
    elif number == 0:
        assert made.disk_gib >= 4
    if kind not in {"device", "host"}:
        assert made.devices == SOUND.devices
    if kind == "device" and not any("another one" in oddity for oddity in made.oddities):
        others = [device for position, device in enumerate(SOUND.devices) if position != number]
        assert [device for device in made.devices if device in others] == others
    if kind == "host":
        check_other_cells(made)


def check_other_cells(made: Inventory) -> None:
    """One element was odd: of two cells one at least is as it was, unless what is odd names the other's."""
    if not any("listed twice" in oddity or "already" in oddity for oddity in made.oddities):
        plain = [cell.model_copy(update={"distances": {}, "caches": []}) for cell in SOUND.cells]
        kept = [cell.model_copy(update={"distances": {}, "caches": []}) for cell in made.cells]
        assert not made.cells or any(cell in kept for cell in plain)


ALLOWED = Allowed((*DEFAULT_PATTERNS, "qemu+tls://*/system"))
SAFE = re.compile(
    r"qemu\+tls://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._][A-Za-z0-9._-]*)(:16514)?/system(\?(no_tty=[^&=?]*)?)?"
)


@given(st.text("qemutls+:/@?&=#%;.-[]\\sydfa1 no_tycm\n", max_size=40) | st.text("@/?#:=&;%.-[]aZ0_", max_size=20).map(
    lambda host: f"qemu+tls://{host}/system"
) | st.text("@/?#:=&;%.-[]aZ0_", max_size=20).map(lambda query: f"qemu+tls://cn-017/system?{query}"))  # fmt: skip
def test_whatever_is_allowed_is_of_the_plainest_form(uri: str) -> None:
    if ALLOWED.refusal(uri) is None:
        assert uri.rstrip("?") in {"qemu:///system", "test:///default"} or SAFE.fullmatch(uri)
