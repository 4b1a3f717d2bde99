"""Node devices: which can be handed to a guest, and how they hang together."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from schemas.base import MAX_AMOUNT
from schemas.inventory import MAX_DEVICES, MAX_MDEV_TYPES, Device
from schemas.requests import DeviceType
from worker.hypervisor.documents import Oddities, XmlFault, attribute, document, known_attribute, number, text_of

if TYPE_CHECKING:
    from collections.abc import Iterable
    from xml.etree.ElementTree import Element

Kind = Literal["pci", "css", "ap_matrix", "mdev", "vdpa", "other"]

_HEX_ID: Final = re.compile(r"0x([0-9a-f]{4})", re.IGNORECASE | re.ASCII)
_MDEV_NAME: Final = re.compile("mdev_([0-9a-fA-F]{8}(?:_[0-9a-fA-F]{4}){3}_[0-9a-fA-F]{12})")
_LABEL: Final = 255
_MAX_CELL: Final = 65_535
_PCI_PARTS: Final = ("domain", "bus", "slot", "function")
_BRIDGES: Final = frozenset({"pci-bridge", "cardbus-bridge"})


@dataclass(frozen=True, slots=True)
class NodeDevice:
    """One libvirt node device.

    ``parent`` is the name of the node device above it; ``address`` and
    ``function_of`` (the physical function of a virtual one) are PCI addresses,
    or on s390x a channel's address or ``matrix``. ``mdev_types`` maps the types it can carry
    to how many more of them it could carry now; ``mdev_type`` and ``mdev_uuid`` are
    those of a mediated device. ``chardev`` is the path by which a guest is given a
    vDPA device. ``driver`` is the host's driver that the device is bound to.
    """

    name: str
    parent: str | None
    kind: Kind
    address: str = ""
    vendor: str = "0000"
    product: str = "0000"
    cell: int | None = None
    device_class: str | None = None
    serial: str | None = None
    physical: bool = False
    function_of: str | None = None
    bridge: bool = False
    mdev_types: tuple[tuple[str, int], ...] = ()
    mdev_type: str | None = None
    mdev_uuid: UUID | None = None
    chardev: str | None = None
    driver: str | None = None
    oddities: tuple[str, ...] = ()


def parse_node_device(text: str) -> NodeDevice:
    """Read one node device; what is odd about a device that can be used all the same is among its ``oddities``.

    Raises:
        XmlFault: malformed, or what tells the device from others cannot be
            read: its address, that of the function above it, its identifiers.
    """
    with document(text, root="device") as element:
        return _node_device(element)


def _node_device(element: Element) -> NodeDevice:
    name = text_of(element, "name") or ""
    oddities = Oddities()
    try:
        device = _device_of(element, name, oddities)
    except XmlFault as fault:
        raise XmlFault(f"<device> {name[:64]}: {fault}") from None
    told = tuple(f"<device> {name[:64]}: {oddity}" for oddity in oddities.told)
    return replace(device, driver=_label(text_of(element, "driver/name")), oddities=told)


def _device_of(element: Element, name: str, oddities: Oddities) -> NodeDevice:
    parent = text_of(element, "parent")
    for capability in element.findall("capability"):
        kind = capability.get("type")
        if kind == "pci":
            return _pci(name, parent, capability, oddities)
        if kind == "css":
            types = _mdev_types(capability, oddities)
            return NodeDevice(name, parent, "css", address=_channel_address(capability), mdev_types=types)
        if kind == "ap_matrix":
            return NodeDevice(name, parent, "ap_matrix", address="matrix", mdev_types=_mdev_types(capability, oddities))
        if kind == "mdev":
            return _mediated(name, parent, capability)
        if kind == "vdpa":
            return NodeDevice(name, parent, "vdpa", chardev=text_of(capability, "chardev"))
    return NodeDevice(name, parent, "other")


def _mediated(name: str, parent: str | None, mdev: Element) -> NodeDevice:
    """A mediated device; older libvirts tell its UUID only in its name: ``mdev_``, and it with underscores."""
    chosen = mdev.find("type")
    named = _MDEV_NAME.match(name)
    text = text_of(mdev, "uuid") or ("" if named is None else named[1].replace("_", "-"))
    try:
        uuid = UUID(text)
    except ValueError:
        uuid = None
    return NodeDevice(name, parent, "mdev", mdev_type=None if chosen is None else chosen.get("id"), mdev_uuid=uuid)


def _pci(name: str, parent: str | None, pci: Element, oddities: Oddities) -> NodeDevice:
    numa = pci.find("numa")
    nested = {kind: capability for capability in pci.findall("capability") if (kind := capability.get("type"))}
    function = nested.get("phys_function")
    above = None if function is None else function.find("address")
    if function is not None and above is None:
        raise XmlFault("<capability type='phys_function'>: has no <address>")
    return NodeDevice(
        name,
        parent,
        "pci",
        address=pci_address(*(number(pci.findtext(part), f"<{part}>") for part in _PCI_PARTS)),
        vendor=_hex_id(pci, "vendor"),
        product=_hex_id(pci, "product"),
        cell=None if numa is None else known_attribute(numa, "node", most=_MAX_CELL, oddities=oddities),
        device_class=_label(text_of(pci, "class")),
        serial=_label(text_of(nested["vpd"], "fields/serial_number")) if "vpd" in nested else None,
        physical="virt_functions" in nested,
        function_of=None if above is None else pci_address(*(attribute(above, part) for part in _PCI_PARTS)),
        bridge=not _BRIDGES.isdisjoint(nested),
        mdev_types=_mdev_types(pci, oddities),
    )


def pci_address(domain: int, bus: int, slot: int, function: int) -> str:
    """Write a PCI address as Linux does.

    Raises:
        XmlFault: a part is out of its range.
    """
    if any(part >= 2**bits for part, bits in zip((domain, bus, slot, function), (32, 8, 5, 3), strict=True)):
        raise XmlFault(f"<address>: {domain:x}:{bus:x}:{slot:x}.{function:x} is no PCI address")
    return f"{domain:04x}:{bus:02x}:{slot:02x}.{function:x}"


def _channel_address(css: Element) -> str:
    cssid, ssid, devno = (number(css.findtext(part), f"<{part}>", most=0xFFFF) for part in ("cssid", "ssid", "devno"))
    return f"{cssid:x}.{ssid:x}.{devno:04x}"


def _hex_id(pci: Element, name: str) -> str:
    element = pci.find(name)
    match = _HEX_ID.fullmatch("" if element is None else element.get("id", ""))
    if match is None:
        raise XmlFault(f"<{name}> id: not four hexadecimal digits after 0x")
    return match[1].lower()


def _label(text: str | None) -> str | None:
    return text if text and len(text) <= _LABEL and text.isprintable() else None


def _mdev_types(device: Element, oddities: Oddities) -> tuple[tuple[str, int], ...]:
    types: dict[str, int] = {}
    for element in device.findall("capability[@type='mdev_types']/type"):
        with oddities.alone():
            name = _label(element.get("id"))
            if name is None:
                raise XmlFault("<type> id: missing, too long or not printable")
            if len(types) == MAX_MDEV_TYPES:
                raise XmlFault(f"<capability type='mdev_types'>: more than {MAX_MDEV_TYPES} types")
            where = f"<type id={name}> availableInstances"
            types[name] = number(element.findtext("availableInstances"), where, most=2**32)
    return tuple(sorted(types.items()))


def assignable_devices(
    nodes: Iterable[NodeDevice], cells: frozenset[int], oddities: Oddities | None = None
) -> list[Device]:
    """Return the devices that can be handed out, by address; of two of one address the first.

    Bridges are left out: no guest can have them. Devices outside PCI (a
    channel, a matrix of crypto queues) are listed for the mediated ones they
    carry, as ``mdev`` with identifiers of zeros, so that none is handed out
    whole. A cell that the host does not list is unknown. What a device can
    carry of a mediated type when it carries no other is what it carries plus
    what it still could.
    """
    nodes = list(nodes)
    oddities = Oddities() if oddities is None else oddities
    carried: dict[tuple[str | None, str | None], int] = {}
    for node in nodes:
        if node.kind == "mdev":
            carried[node.parent, node.mdev_type] = carried.get((node.parent, node.mdev_type), 0) + 1
    vdpa = {node.parent for node in nodes if node.kind == "vdpa"}
    devices: dict[str, Device] = {}
    for node in nodes:
        oddities.tell(*node.oddities)
        if (node.kind == "pci" and not node.bridge) or (node.kind in {"css", "ap_matrix"} and node.mdev_types):
            if node.address in devices:
                oddities.tell(f"<device> {node.name[:64]}: another one is at {node.address} already")
                continue
            with oddities.alone(f"<device> {node.name[:64]}"):
                devices[node.address] = _device(node, cells, carried, vdpa=node.name in vdpa)
    return [devices[address] for address in sorted(devices)[:MAX_DEVICES]]


def _device(
    node: NodeDevice,
    cells: frozenset[int],
    carried: dict[tuple[str | None, str | None], int],
    *,
    vdpa: bool,
) -> Device:
    tags = {"class": node.device_class, "card_serial_number": node.serial}
    return Device(
        address=node.address,
        vendor=node.vendor,
        product=node.product,
        type=_type(node, vdpa=vdpa),
        parent=node.function_of,
        cell=node.cell if node.cell in cells or not cells else None,
        driver=node.driver,
        tags={name: value for name, value in tags.items() if value is not None},
        mdev_types={
            name: min(available + carried.get((node.name, name), 0), MAX_AMOUNT) for name, available in node.mdev_types
        },
    )


def _type(node: NodeDevice, *, vdpa: bool) -> DeviceType:
    if node.kind != "pci":
        return "mdev"
    return "vdpa" if vdpa else "vf" if node.function_of else "pf" if node.physical else "pci"
