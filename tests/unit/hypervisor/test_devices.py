from __future__ import annotations

import re

import pytest

from schemas.inventory import Device
from worker.hypervisor.devices import assignable_devices, parse_node_device
from worker.hypervisor.documents import Oddities, XmlFault


def pci(
    bus: int, function: int = 0, *, inside: str = "", name: str = "", ids: tuple[str, str] = ("10de", "1db6")
) -> str:
    return f"""<device><name>{name or f"pci_0000_{bus:02x}_00_{function}"}</name><parent>computer</parent>
      <capability type='pci'><class>0x030200</class>
        <domain>0</domain><bus>{bus}</bus><slot>0</slot><function>{function}</function>
        <product id='0x{ids[1]}'>Something</product><vendor id='0x{ids[0]}'>Someone</vendor>{inside}
      </capability></device>"""


def devices(*texts: str, cells: frozenset[int] = frozenset({0, 1})) -> dict[str, Device]:
    return {device.address: device for device in assignable_devices(map(parse_node_device, texts), cells)}


FUNCTION_OF = (
    "<capability type='phys_function'><address domain='0x0000' bus='0x3b' slot='0x00' function='0x0'/></capability>"
)
TYPES = """<capability type='mdev_types'>
  <type id='nvidia-35'><name>A</name><availableInstances>{0}</availableInstances></type>
  <type id='nvidia-36'><name>B</name><availableInstances>{1}</availableInstances></type></capability>"""


def mdev(parent: str, kind: str, number: int) -> str:
    return f"""<device><name>mdev_{number}</name><parent>{parent}</parent><capability type='mdev'>
      <type id='{kind}'/><iommuGroup number='{number}'/></capability></device>"""


def test_a_plain_device_has_its_address_identifiers_class_and_cell() -> None:
    (device,) = devices(pci(0x3B, inside="<numa node='1'/>")).values()
    assert (device.address, device.vendor, device.product, device.type) == ("0000:3b:00.0", "10de", "1db6", "pci")
    assert (device.cell, device.parent, device.tags) == (1, None, {"class": "0x030200"})


def test_functions_know_their_kind_and_their_parent() -> None:
    found = devices(
        pci(0x3B, inside="<capability type='virt_functions' maxCount='8'/>"), pci(0x3B, 2, inside=FUNCTION_OF)
    )
    assert [(device.type, device.parent) for device in found.values()] == [("pf", None), ("vf", "0000:3b:00.0")]


def test_a_virtual_function_that_carries_vdpa_is_one_of_its_own_kind() -> None:
    vdpa = "<device><name>vdpa_vdpa0</name><parent>pci_0000_3b_00_2</parent><capability type='vdpa'/></device>"
    found = devices(pci(0x3B, 2, inside=FUNCTION_OF), vdpa)
    assert (found["0000:3b:00.2"].type, found["0000:3b:00.2"].parent) == ("vdpa", "0000:3b:00.0")


def test_bridges_and_devices_of_other_kinds_are_no_guests() -> None:
    usb = "<device><name>usb_1</name><capability type='usb_device'><bus>1</bus></capability></device>"
    assert not devices(pci(0, inside="<capability type='pci-bridge'/>"), usb)


def test_a_mediated_type_counts_what_is_carried_and_what_still_could_be() -> None:
    parent = "pci_0000_3b_00_0"
    found = devices(pci(0x3B, inside=TYPES.format(14, 0)), mdev(parent, "nvidia-35", 1), mdev(parent, "nvidia-35", 2))
    assert found["0000:3b:00.0"].mdev_types == {"nvidia-35": 16, "nvidia-36": 0}


def test_a_mediated_device_of_another_parent_does_not_count() -> None:
    found = devices(pci(0x3B, inside=TYPES.format(16, 8)), mdev("pci_0000_3c_00_0", "nvidia-35", 1))
    assert found["0000:3b:00.0"].mdev_types == {"nvidia-35": 16, "nvidia-36": 8}


def test_a_channel_and_the_crypto_matrix_are_listed_for_what_they_carry() -> None:
    kinds = "<type id='vfio_ccw-io'><availableInstances>1</availableInstances></type>"
    kinds = f"<capability type='mdev_types'>{kinds}</capability>"
    place = "<cssid>0x0</cssid><ssid>0x0</ssid><devno>0xfffe</devno>"
    css = f"<device><name>css_0_0_fffe</name><capability type='css'>{place}{{}}"
    matrix = f"<device><name>ap_matrix</name><capability type='ap_matrix'>{kinds}</capability></device>"
    found = devices(css.format(kinds + "</capability></device>"), css.format("</capability></device>"), matrix)
    assert {address: device.mdev_types for address, device in found.items()} == {
        "0.0.fffe": {"vfio_ccw-io": 1},
        "matrix": {"vfio_ccw-io": 1},
    }
    assert {device.type for device in found.values()} == {"mdev"}


def test_the_serial_number_of_a_card_is_a_tag() -> None:
    fields = (
        "<fields access='readonly'><serial_number>MT2113X00000</serial_number></fields><fields access='readwrite'/>"
    )
    (device,) = devices(pci(0x42, inside=f"<capability type='vpd'><name>x</name>{fields}</capability>")).values()
    assert device.tags["card_serial_number"] == "MT2113X00000"


@pytest.mark.parametrize(("node", "cell"), [("0", 0), ("1", 1), ("7", None), ("-1", None)])
def test_a_cell_the_host_does_not_list_is_unknown(node: str, cell: int | None) -> None:
    (device,) = devices(pci(1, inside=f"<numa node='{node}'/>")).values()
    assert device.cell == cell


def test_domains_of_more_than_four_digits_are_kept() -> None:
    text = pci(1).replace("<domain>0<", "<domain>65536<")
    assert list(devices(text)) == ["10000:01:00.0"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (pci(256, name="pci_bad"), "pci_bad: <address>"),
        (pci(1).replace("<bus>1<", "<bus>one<"), "<bus>: 'one' is not a whole number"),
        (pci(1).replace("<bus>1</bus>", ""), "<bus>: missing"),
        (pci(1, ids=("10g", "1")), "<vendor> id"),
        (pci(1, 32), "<address>: 0:1:0.20 is no PCI address"),
        (pci(1, inside="<capability type='phys_function'/>"), "has no <address>"),
        (pci(1, inside=FUNCTION_OF.replace("0x3b", "0x13b")), "<address>"),
    ],
)
def test_a_device_that_cannot_be_is_refused_by_name(text: str, said: str) -> None:
    with pytest.raises(XmlFault, match=re.escape(said)):
        parse_node_device(text)


def test_what_is_odd_about_a_device_costs_itself_alone() -> None:
    far = parse_node_device(pci(1, inside="<numa node='x'/>"))
    assert (far.address, far.cell) == ("0000:01:00.0", None)
    assert far.oddities == ("<device> pci_0000_01_00_0: <numa> node: 'x' is not a whole number",)
    carrier = parse_node_device(pci(1, inside=TYPES.format(-1, 3)))
    assert carrier.mdev_types == (("nvidia-36", 3),)
    assert "<type id=nvidia-35> availableInstances: -1" in carrier.oddities[0]


def test_of_two_devices_at_one_address_the_first_stays_and_that_is_told() -> None:
    oddities = Oddities()
    nodes = [parse_node_device(pci(1, name=name, ids=("10de", ids))) for name, ids in (("a", "0001"), ("b", "0002"))]
    (device,) = assignable_devices(nodes, frozenset(), oddities)
    assert device.product == "0001"
    assert oddities.told == ("<device> b: another one is at 0000:01:00.0 already",)


def test_a_device_names_the_driver_that_it_is_bound_to() -> None:
    text = pci(1).replace("<parent>", "<driver><name>vfio-pci</name></driver><parent>")
    assert [device.driver for device in devices(text, pci(2)).values()] == ["vfio-pci", None]
