"""Encrypted guests: how many the host can run at once, from the domain capabilities."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from worker.hypervisor.documents import number, parse

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element


@dataclass(frozen=True, slots=True)
class Encryption:
    """Slots by resource class (``CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV``), and the traits that go with them."""

    slots: tuple[tuple[str, int], ...] = ()
    traits: frozenset[str] = field(default_factory=frozenset)


def parse_encryption(text: str) -> Encryption:
    """Read the memory-encryption part of a domain capabilities document.

    Raises:
        XmlFault: malformed, or a number of guests that is none.
    """
    features = parse(text, root="domainCapabilities").find("features")
    if features is None:
        return Encryption()
    slots: dict[str, int] = {}
    traits: set[str] = set()
    sev = features.find("sev")
    if sev is not None and sev.get("supported") == "yes":
        for element, kind in (("maxGuests", "SEV"), ("maxESGuests", "SEV_ES")):
            count = _count(sev, element)
            if count:
                slots[f"CUSTOM_MEM_ENCRYPTION_CONTEXT_{kind}"] = count
                traits.add(f"HW_CPU_X86_AMD_{kind}")
    security = features.find("launchSecurity")
    if security is not None and security.get("supported") == "yes":
        kinds = {value.text for value in security.findall("enum[@name='sectype']/value")}
        named = {"sev-snp": "HW_CPU_X86_AMD_SEV_SNP", "tdx": "HW_CPU_X86_INTEL_TDX", "s390-pv": "HW_CPU_S390X_PV"}
        traits |= {trait for kind, trait in named.items() if kind in kinds}
    return Encryption(tuple(sorted(slots.items())), frozenset(traits))


def _count(sev: Element, name: str) -> int:
    element = sev.find(name)
    return 0 if element is None else number(element.text, f"<{name}>", most=2**32)
