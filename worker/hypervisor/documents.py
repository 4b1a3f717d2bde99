"""Reading XML that may be hostile: bounded, without entities, and every bad number named by its element.

What is odd costs itself alone: whoever reads a host collects in
:class:`Oddities` what could not be used, and goes on without it.
"""

from __future__ import annotations

import re
from contextlib import contextmanager, nullcontext
from threading import Lock
from typing import TYPE_CHECKING, Final

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import ParseError, fromstring
from pydantic import ValidationError

from schemas.cpuset import parse_cpu_mask
from schemas.inventory import MAX_ODDITIES
from worker.errors import NodeledgerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from xml.etree.ElementTree import Element

MAX_DOCUMENT_BYTES: Final = 8 * 2**20
"""The longest document read; a host of 4,096 CPUs describes itself in less than a tenth of it."""

_LARGE: Final = 64 * 1024
"""A tree takes up to forty times its text. Those beyond this length are read one at a time, whatever asks for them."""

_one_large: Final = Lock()

MAX_NUMBER: Final = 2**62
_ODDITY_LENGTH: Final = 255
_NUMBER: Final = re.compile(r"-?[0-9]{1,20}|0[xX][0-9a-fA-F]{1,16}")
_UNIT_BYTES: Final = {
    "b": 1, "bytes": 1,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "k": 2**10, "KiB": 2**10, "M": 2**20, "MiB": 2**20, "G": 2**30, "GiB": 2**30, "T": 2**40, "TiB": 2**40,
}  # fmt: skip


class XmlFault(NodeledgerError, ValueError):  # noqa: N818 - the fault lies in the document
    """A document that cannot be used; the message names the element and the fault, and quotes at most 32 characters."""


class Oddities:
    """What of a host's documents could not be used, in sentences, each once."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told: dict[str, None] = {}

    @property
    def told(self) -> tuple[str, ...]:
        """All of them, in the order in which they were met."""
        return tuple(self._told)

    def tell(self, *texts: str) -> None:
        """Note what could not be used. What changes from reading to reading is no part of the sentence."""
        for text in texts:
            if len(self._told) < MAX_ODDITIES:
                printable = "".join(letter if letter.isprintable() else " " for letter in text)
                self._told[printable[:_ODDITY_LENGTH]] = None

    def alone(self, where: str = "") -> _Alone:
        """Do without what turns out to be unusable inside, and note it; ``where`` names what has no name of its own."""
        return _Alone(self, where)


class _Alone:
    __slots__ = ("_oddities", "_where")

    def __init__(self, oddities: Oddities, where: str) -> None:
        self._oddities = oddities
        self._where = where

    def __enter__(self) -> None:
        pass

    def __exit__(self, _kind: object, fault: BaseException | None, _trace: object) -> bool:
        if isinstance(fault, XmlFault):
            self._oddities.tell(f"{self._where}: {fault}" if self._where else str(fault))
            return True
        if isinstance(fault, ValidationError):
            self._oddities.tell(": ".join(filter(None, (self._where, first_fault(fault)))))
            return True
        return False


def first_fault(error: ValidationError) -> str:
    """The first of the faults that the contract finds, in short."""
    first = error.errors()[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


@contextmanager
def document(text: str, *, root: str) -> Iterator[Element]:
    """A document as :func:`parse` reads it, within which all that is wanted of it is read.

    Raises:
        XmlFault: as :func:`parse`.
    """
    with _one_large if len(text) > _LARGE else nullcontext():
        yield parse(text, root=root)


def parse(text: str, *, root: str) -> Element:
    """Parse a document whose outermost element must be ``root``.

    Raises:
        XmlFault: too long, malformed, with a DTD or entities, or another root.
    """
    if not text:
        raise XmlFault(f"<{root}>: there is no description")
    if len(text) > MAX_DOCUMENT_BYTES or len(text.encode(errors="replace")) > MAX_DOCUMENT_BYTES:
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


def known_attribute(element: Element, name: str, *, most: int, oddities: Oddities) -> int | None:
    """Read as :func:`optional_attribute`; what is no whole number is not known either, and is noted."""
    with oddities.alone():
        return optional_attribute(element, name, most=most)
    return None


def optional_attribute(element: Element, name: str, *, most: int) -> int | None:
    """Read an attribute that may be missing or negative, libvirt's ways to say that it does not know.

    Raises:
        XmlFault: it is there and no whole number.
    """
    if element.get(name) is None:
        return None
    value = attribute(element, name, least=-MAX_NUMBER)
    return value if 0 <= value <= most else None


def kibibytes(element: Element, *, most: int = MAX_NUMBER) -> int:
    """Read an amount of memory with its unit (KiB where none is given), in KiB, rounded down.

    Raises:
        XmlFault: no whole number, an unknown unit, or more than ``most``.
    """
    return _bytes(element, "KiB", most * 1024) // 1024


def attribute_kib(element: Element, name: str) -> int:
    """Read an attribute that is an amount of memory in the element's unit (KiB where none is given), in KiB.

    Raises:
        XmlFault: as :func:`kibibytes`.
    """
    return attribute(element, name) * _unit_bytes(element, "KiB") // 1024


def storage_bytes(element: Element, *, most: int = MAX_NUMBER) -> int:
    """Read an amount of storage with its unit (bytes where none is given), in bytes.

    Raises:
        XmlFault: no whole number, an unknown unit, or more than ``most``.
    """
    return _bytes(element, "bytes", most)


def _bytes(element: Element, default: str, most: int) -> int:
    amount = number(element.text, f"<{element.tag}>") * _unit_bytes(element, default)
    if amount > most:
        raise XmlFault(f"<{element.tag}>: {amount} bytes are more than {most}")
    return amount


def _unit_bytes(element: Element, default: str) -> int:
    unit = element.get("unit", default)
    if unit not in _UNIT_BYTES:
        raise XmlFault(f"<{element.tag}> unit: {unit[:32]!r} is unknown")
    return _UNIT_BYTES[unit]


def cpu_set(text: str, where: str) -> frozenset[int]:
    """Read a CPU set in Linux list form, as libvirt writes it (exclusions such as ``^3`` included).

    Raises:
        XmlFault: not a CPU set.
    """
    chosen = 0
    try:
        for part in text.replace(" ", "").split(","):
            if part.startswith("^"):
                chosen &= ~parse_cpu_mask(part[1:])
            else:
                chosen |= parse_cpu_mask(part)
    except ValueError as fault:
        raise XmlFault(f"{where}: {fault}") from None
    return frozenset(cpu for cpu, bit in enumerate(reversed(f"{chosen:b}")) if bit == "1")


def text_of(element: Element, path: str) -> str | None:
    """Return the stripped text of a child, or ``None`` where there is none."""
    found = element.findtext(path)
    return found.strip() or None if found else None
