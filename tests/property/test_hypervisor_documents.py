from __future__ import annotations

import re
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from schemas.cpuset import parse_cpu_set
from worker.hypervisor.addresses import DEFAULT_PATTERNS, Allowed
from worker.hypervisor.capabilities import parse_capabilities
from worker.hypervisor.documents import XmlFault
from worker.hypervisor.inventory import Observation, inventory_of

HOSTS = [path.read_text() for path in sorted((Path(__file__).parents[1] / "data" / "hosts").glob("*.xml"))]
ODD_VALUES = st.one_of(
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(["", "-1", "0x10", "1e3", "0-", "3-1", "0-99999999", "^1", "1,,2", "\u0663", "&lt;", " 7 ", "+1"]),
    st.text("0123456789-,^x ", max_size=12),
)
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
    for cell in made.cells:
        cpus = parse_cpu_set(cell.cpus)
        cores = [parse_cpu_set(core) for core in cell.siblings]
        assert cpus == frozenset[int]().union(*cores)
        assert len(cpus) == sum(map(len, cores))
        assert cpus <= parse_cpu_set(made.cpus)


ALLOWED = Allowed(DEFAULT_PATTERNS)
SAFE = re.compile(
    r"qemu\+tls://(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._][A-Za-z0-9._-]*)(:[0-9]{1,5})?/system(\?(no_tty=[^&=?]*)?)?"
)


@given(st.text("qemutls+:/@?&=#%;.-[]\\sydfa1 no_tycm\n", max_size=40) | st.text("@/?#:=&;%.-[]aZ0_", max_size=20).map(
    lambda host: f"qemu+tls://{host}/system"
) | st.text("@/?#:=&;%.-[]aZ0_", max_size=20).map(lambda query: f"qemu+tls://cn-017/system?{query}"))  # fmt: skip
def test_whatever_is_allowed_is_of_the_plainest_form(uri: str) -> None:
    if ALLOWED.refusal(uri) is None:
        assert uri.rstrip("?") in {"qemu:///system", "test:///default"} or SAFE.fullmatch(uri)
