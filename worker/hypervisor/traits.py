"""A host's qualities by the names of OpenStack's ``os-traits``: ``HW_CPU_X86_AVX2``, ``HW_ARCH_AARCH64``.

A feature becomes ``HW_CPU_<family>_<feature>``, in capitals, anything that is
no letter or digit as an underscore. Where ``os-traits`` has another name for
it, the node has both.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_TRAITS: Final = 4096
_MAX_LENGTH: Final = 255
_FAMILIES: Final = {"x86_64": "X86", "i686": "X86", "armv7l": "ARM", "armv6l": "ARM"}
_STANDARD_X86: Final = {
    "aes": "AESNI", "amx-bf16": "AMXBF16", "amx-int8": "AMXINT8", "amx-tile": "AMXTILE",
    "avx512-vpopcntdq": "AVX512VPOPCNTDQ", "bmi1": "BMI", "fma": "FMA3", "gfni": "AVX512GFNI", "hle": "TSX",
    "ibpb": "AMD_IBPB", "md-clear": "INTEL_MD_CLEAR", "pcid": "INTEL_PCID", "pclmuldq": "CLMUL", "pni": "SSE3",
    "rtm": "TSX", "sha-ni": "SHA", "spec-ctrl": "INTEL_SPEC_CTRL", "ssbd": "INTEL_SSBD", "sse4.1": "SSE41",
    "sse4.2": "SSE42", "svm": "AMD_SVM", "vaes": "AVX512VAES", "virt-ssbd": "AMD_VIRT_SSBD", "vmx": "INTEL_VMX",
    "vpclmulqdq": "AVX512VPCLMULQDQ",
}  # fmt: skip
"""Those of the names of ``os_traits.hw.cpu.x86`` that are not the feature's own in capitals."""


def trait_name(text: str) -> str:
    """Write a name as a trait: capitals, digits and underscores."""
    return re.sub(r"[^A-Z0-9]", "_", text.upper(), flags=re.ASCII)


def cpu_traits(arch: str, features: Iterable[str], *, threaded: bool) -> list[str]:
    """Return the traits of a CPU, sorted; ``threaded`` says that its cores have several threads."""
    family = _FAMILIES.get(arch, trait_name(arch))
    traits = {f"HW_ARCH_{trait_name(arch)}"} if arch else set()
    if threaded:
        traits.add("HW_CPU_HYPERTHREADING")
    for feature in features if family else ():
        traits.add(f"HW_CPU_{family}_{trait_name(feature)}")
        if family == "X86" and feature in _STANDARD_X86:
            traits.add(f"HW_CPU_X86_{_STANDARD_X86[feature]}")
    return sorted(trait for trait in traits if len(trait) <= _MAX_LENGTH)[:MAX_TRAITS]
