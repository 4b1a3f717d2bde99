"""Where each target's inputs begin: what is valid, and what has gone wrong once."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from schemas.examples import COMMANDS
from tests.fuzz.targets import KINDS, SETTING
from tests.property.test_hypervisor_documents import HOSTS, WHOLE
from tests.property.test_messages import GOOD, delivered, frame, nested, sized, table

FOUND: Final = Path(__file__).parent / "corpus"
"""Beside the seeds, the inputs that a fuzzer found: a folder for each target, a file for each input."""

_CUTS: Final = bytes((1, 40, 90, 128, 140, 200, 230, 255))
_HEADERS: Final = (
    table([]),
    table([(b"traceparent", b"S" + sized(b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01"))]),
    table([(b"x-nodeledger-senders", b"S" + sized(b"ann\nbob")), (b"x-nodeledger-reply-to", b"S" + sized(b"here"))]),
    table([(b"x-nodeledger-reason", b"S" + sized(b"poison")), (b"x-nodeledger-size", b"l" + b"\0" * 8)]),
    table([(b"x-nodeledger-digest", b"S" + sized(b"0" * 32)), (b"x-nodeledger-size", b"I" + b"\0" * 4)]),
    table([(bytes((mark,)), bytes((mark,)) + b"\xff" * 8) for mark in b"tbBsuIilLfdDTV"]),
    nested(20),
    nested(20, b"A"),
    table([
        (b"x-death", b"A" + sized(b"F" + table([
            (b"queue", b"S" + sized(b"nodeledger.commands.00")), (b"reason", b"S" + sized(b"expired")),
        ]))),
    ]),
)  # fmt: skip
_DOMAIN: Final = b"""<domain><uuid>00000000-0000-0000-0000-000000000005</uuid><name>a</name>
<vcpu current='1'>2</vcpu><memory unit='KiB'>65536</memory>
<memoryBacking><hugepages><page size='2' unit='MiB'/></hugepages></memoryBacking>
<cputune><vcpupin vcpu='0' cpuset='3'/><emulatorpin cpuset='0-1,^1'/></cputune>
<numatune><memory nodeset='0'/><memnode cellid='0' nodeset='1'/></numatune><devices>
<hostdev type='pci'><source><address domain='0' bus='0x5e' slot='2' function='1'/></source></hostdev>
<hostdev type='mdev'><source><address uuid='00000000-0000-0000-0000-000000000006'/></source></hostdev>
<interface type='hostdev'><source><address type='pci' domain='0' bus='1' slot='2' function='1'/></source></interface>
</devices></domain>"""


def _message(flags: int, properties: bytes, body: bytes) -> bytes:
    return struct.pack(">HH", flags, len(properties)) + properties + body


def _bodies() -> Iterator[bytes]:
    yield from (json.dumps(one).encode() for one in (*COMMANDS.values(), *SETTING))
    yield from (GOOD, b"{", b"[" * 400, GOOD.replace(b"cn-1", b"cn-1\\u0000"), GOOD[:-1] + b',"node":"b"}')
    yield b'{"version":1,"id":"00000000-0000-0000-0000-00000000000a","kind":"claim","node":"cn-1"}'


def _tapped() -> Iterator[bytes]:
    for raw in _HEADERS:
        yield delivered(1, 1 << 13, raw, GOOD)
    yield delivered(1, 0, b"", GOOD, 3) + delivered(2, 0, b"", b"", 0) + delivered(3, 0, b"", GOOD, 2**63)
    yield frame(1, b"\x00\x3c\x00\x50" + b"\0" * 9)
    yield b"\x01\0\0\0\0\0\x08\x00\x0a\x00\x3c\x03abc\xce" + b"\x01\0\0\0\0\0\x04\x00\x0a\x00\x3d\xce"


def _framed(stream: bytes) -> bytes:
    """The same frames in the short form that one target reads."""
    made, at = b"", 0
    while at + 8 <= len(stream):
        kind, _, size = struct.unpack_from(">BHI", stream, at)
        payload = stream[at + 7 : at + 7 + size]
        made += bytes((kind - 1, 0, min(255, size))) + payload[:255]
        at += size + 8
    return made


def seeds(target: str) -> Iterator[bytes]:
    """The seeds of one target, and then what was found."""
    match target:
        case "streams":
            yield from (_CUTS + stream for stream in _tapped())
        case "frames":
            yield from (_CUTS + _framed(stream) for stream in _tapped())
        case "deliveries" | "letters":
            yield from (_message(1 << 13, raw, body) for raw in _HEADERS for body in (GOOD, b"{"))
            yield from (_message(0, b"", body) for body in _bodies())
            yield _message(1 << 10 | 1 << 9 | 1 << 4, b"\x02a\0\x03\xff\xfe\xfd\x05guest", GOOD)
        case "commands":
            yield from _bodies()
        case "hosts":
            for number, kind in enumerate(KINDS):
                yield from (bytes((number,)) + text.encode() for text in WHOLE[kind])
            yield from (b"\0" + text.encode() for text in HOSTS)
        case "domains":
            yield _DOMAIN
    yield from (path.read_bytes() for path in sorted((FOUND / target).glob("*")))
