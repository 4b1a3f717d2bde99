"""Encrypted guests: how many the host can run at once, from the domain capabilities.

Older libvirt tells of each kind by an element of its own, newer by
``<launchSecurity>`` too; either will do.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from worker.hypervisor.documents import Oddities, document, number

if TYPE_CHECKING:
    from xml.etree.ElementTree import Element

_TRAITS: Final = {
    "sev": "HW_CPU_X86_AMD_SEV",
    "sev-es": "HW_CPU_X86_AMD_SEV_ES",
    "sev-snp": "HW_CPU_X86_AMD_SEV_SNP",
    "tdx": "HW_CPU_X86_INTEL_TDX",
    "s390-pv": "HW_CPU_S390X_PV",
}
_SLOTS: Final = {"sev": "SEV", "sev-es": "SEV_ES", "sev-snp": "SEV_SNP"}


@dataclass(frozen=True, slots=True)
class Encryption:
    """Slots by resource class (``CUSTOM_MEM_ENCRYPTION_CONTEXT_SEV``), and the traits that go with them."""

    slots: tuple[tuple[str, int], ...] = ()
    traits: frozenset[str] = field(default_factory=frozenset)
    oddities: tuple[str, ...] = ()


def parse_encryption(text: str) -> Encryption:
    """Read the memory-encryption part of a domain capabilities document.

    With SEV-SNP on, what were the slots of SEV-ES are those of SEV-SNP. A host
    that can and does not say how many has the trait and no slots.

    Raises:
        XmlFault: malformed.
    """
    with document(text, root="domainCapabilities") as element:
        return _encryption(element.find("features"))


def _encryption(features: Element | None) -> Encryption:
    if features is None:
        return Encryption()
    oddities = Oddities()
    kinds = {kind for kind in ("sev", "tdx", "s390-pv") if _supported(features.find(kind))}
    security = features.find("launchSecurity")
    if security is not None and _supported(security):
        named = {(value.text or "").strip() for value in security.findall("enum[@name='sectype']/value")}
        kinds |= named & _TRAITS.keys()
    counts: dict[str, int] = {}
    sev = features.find("sev")
    if sev is not None and _supported(sev):
        encrypted_state = "sev-snp" if "sev-snp" in kinds else "sev-es"
        for name, kind in (("maxGuests", "sev"), ("maxESGuests", encrypted_state)):
            count = _count(sev, name, oddities)
            if count:
                counts[kind] = count
            elif count == 0:
                kinds.discard(kind)
    slots = {f"CUSTOM_MEM_ENCRYPTION_CONTEXT_{_SLOTS[kind]}": count for kind, count in counts.items()}
    traits = frozenset(_TRAITS[kind] for kind in kinds | counts.keys())
    return Encryption(tuple(sorted(slots.items())), traits, oddities.told)


def _supported(element: Element | None) -> bool:
    return element is not None and element.get("supported") == "yes"


def _count(sev: Element, name: str, oddities: Oddities) -> int | None:
    element = sev.find(name)
    if element is not None:
        with oddities.alone("<sev>"):
            return number(element.text, f"<{name}>", most=2**32)
    return None
