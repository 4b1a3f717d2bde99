"""Reading XML that may be hostile: bounded, without entities, and every bad number named by its element."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring

from schemas.cpuset import parse_cpu_set
from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

MAX_DOCUMENT_BYTES: Final = 8 * 2**20
"""The longest document read; a host of 4,096 CPUs describes itself in less than a tenth of it."""

MAX_NUMBER: Final = 2**62
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16}")
_UNIT_BYTES: Final = {
    "b": 1, "bytes": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "k": 2**10, "KiB": 2**10, "M": 2**20, "MiB": 2**20, "G": 2**30, "GiB": 2**30, "T": 2**40, "TiB": 2**40,
}  # fmt: skip


class XmlFault(NodeledgerError, ValueError):  # noqa: N818 - the fault lies in the document
    """A document that cannot be used; the message names the element and the fault, and quotes at most 32 characters."""


def parse(text: str, *, root: str) -> Element:
    """Parse a document whose outermost element must be ``root``.

    Raises:
        XmlFault: too long, malformed, with a DTD or entities, or another root.
    """
    if len(text) > MAX_DOCUMENT_BYTES:
        raise XmlFault(f"<{root}>: longer than {MAX_DOCUMENT_BYTES} bytes")
    try:
        element: Element = fromstring(text, forbid_dtd=True)
    except DefusedXmlException as fault:
        raise XmlFault(f"<{root}>: holds a DTD or entities ({type(fault).__name__})") from None
    except (ParseError, ValueError) as fault:
        raise XmlFault(f"<{root}>: not well-formed XML ({fault})") from None
    if element.tag != root:
        raise XmlFault(f"<{root}>: the document is a <{element.tag[:32]}>")
    return element


def number(text: str | None, where: str, *, least: int = 0, most: int = MAX_NUMBER) -> int:
    """Read a whole number, decimal or with ``0x``; ``where`` names the element in the error.

    Raises:
        XmlFault: missing, not a whole number, or outside ``least`` to ``most``.
    """
    if text is None:
        raise XmlFault(f"{where}: missing")
    digits = text.strip()
    if _NUMBER.fullmatch(digits) is None:
        raise XmlFault(f"{where}: {digits[:32]!r} is not a whole number")
    value = int(digits, 16) if digits[:2].lower() == "0x" else int(digits)
    if not least <= value <= most:
        raise XmlFault(f"{where}: {value} is not between {least} and {most}")
    return value


def attribute(element: Element, name: str, *, least: int = 0, most: int = MAX_NUMBER) -> int:
    """Read an attribute that must be a whole number.

    Raises:
        XmlFault: as :func:`number`.
    """
    return number(element.get(name), f"<{element.tag}> {name}", least=least, most=most)


def optional_attribute(element: Element, name: str, *, most: int) -> int | None:
    """Read an attribute that may be missing or negative, libvirt's ways to say that it does not know.

    Raises:
        XmlFault: it is there and no whole number.
    """
    if element.get(name) is None:
        return None
    value = attribute(element, name, least=-MAX_NUMBER)
    return value if 0 <= value <= most else None


def kibibytes(element: Element) -> int:
    """Read an amount of memory with its unit (KiB where none is given), in KiB, rounded down.

    Raises:
        XmlFault: no whole number, or an unknown unit.
    """
    return _bytes(element, default="KiB") // 1024


def storage_bytes(element: Element) -> int:
    """Read an amount of storage with its unit (bytes where none is given), in bytes.

    Raises:
        XmlFault: no whole number, or an unknown unit.
    """
    return _bytes(element, default="bytes")


def _bytes(element: Element, *, default: str) -> int:
    unit = element.get("unit", default)
    if unit not in _UNIT_BYTES:
        raise XmlFault(f"<{element.tag}> unit: {unit[:32]!r} is unknown")
    return number(element.text, f"<{element.tag}>") * _UNIT_BYTES[unit]


def cpu_set(text: str, where: str) -> frozenset[int]:
    """Read a CPU set in Linux list form, as libvirt writes it (exclusions such as ``^3`` included).

    Raises:
        XmlFault: not a CPU set.
    """
    chosen: set[int] = set()
    try:
        for part in text.replace(" ", "").split(","):
            if part.startswith("^"):
                chosen -= parse_cpu_set(part[1:])
            else:
                chosen |= parse_cpu_set(part)
    except ValueError as fault:
        raise XmlFault(f"{where}: {fault}") from None
    return frozenset(chosen)


def text_of(element: Element, path: str) -> str | None:
    """Return the stripped text of a child, or ``None`` where there is none."""
    found = element.findtext(path)
    return found.strip() or None if found else None
