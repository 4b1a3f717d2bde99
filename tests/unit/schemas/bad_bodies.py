"""Bodies that are no command, each with the reason and the words that name its fault."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, Final

from schemas import MAX_BODY_BYTES
from schemas.examples import COMMANDS

CANARY: Final = "hunter2"
"""Stands in wrong values, and in no explanation of them."""

CLAIM: Final = COMMANDS["claim"]
NODE_PUT: Final = COMMANDS["node.put"]
PUSHED: Final = {
    **{name: value for name, value in NODE_PUT.items() if name != "hypervisor"},
    "inventory": {
        "cpus": "0-3",
        "memory_mib": 4096,
        "cells": [
            {"id": 0, "cpus": "0-3", "siblings": ["0,1"], "memory_mib": 4096, "pages": [{"size_kib": 4, "total": 9}]}
        ],
        "devices": [{"address": "0000:3b:00.0", "vendor": "10de", "product": "1db6"}],
    },
}
WRONG_TYPES: Final[tuple[object, ...]] = (1.5, True, [CANARY], {CANARY: 1})


@dataclass(frozen=True, slots=True)
class Bad:
    """One body, the dead letter's reason, and what its detail must say."""

    name: str
    body: bytes
    reason: str
    says: str


def bad_bodies() -> list[Bad]:
    """All of them."""
    return [*_not_json(), *_not_ours(), *_wrong_values(), *_missing_and_unknown(), *_contradictions(), *_repeated()]


def changed(command: dict[str, Any], path: str, value: object) -> dict[str, Any]:
    """The command with the field at a dotted path set to another value."""
    copy = deepcopy(command)
    place: Any = copy
    *parents, last = path.split(".")
    for part in parents:
        place = place[int(part)] if isinstance(place, list) else place.setdefault(part, {})
    if isinstance(place, list):
        place[int(last)] = value
    else:
        place[last] = value
    return copy


def encoded(document: object) -> bytes:
    return json.dumps(document).encode()


def _not_json() -> Iterator[Bad]:
    good = encoded(CLAIM)
    bodies = {
        "empty": b"",
        "blank": b" \n",
        "text": CANARY.encode(),
        "cut short": good[:-1],
        "cut in a string": good[:40],
        "trailing characters": good + b"x",
        "two documents": good + good,
        "trailing comma": good[:-1] + b",}",
        "single quotes": good.replace(b'"', b"'"),
        "comment": b"/* hello */" + good,
        "byte order mark": b"\xef\xbb\xbf" + good,
        "UTF-16": good.decode().encode("utf-16"),
        "UTF-32": good.decode().encode("utf-32"),
        "latin-1": '{"node": "é"}'.encode("latin-1"),
        "bare NaN": b"NaN",
        "NaN inside": good.replace(b"8192", b"NaN"),
        "Infinity inside": good.replace(b"8192", b"Infinity"),
        "minus Infinity inside": good.replace(b"8192", b"-Infinity"),
        "leading zero": good.replace(b"8192", b"08192"),
        "hexadecimal": good.replace(b"8192", b"0x2000"),
        "plus sign": good.replace(b"8192", b"+8192"),
        "underscored": good.replace(b"8192", b"8_192"),
        "lone surrogate": good.replace(b"cn-017", b"\\ud800"),
        "swapped surrogates": good.replace(b"cn-017", b"\\udc00\\ud800"),
        "raw surrogate": good.replace(b"cn-017", b"\xed\xa0\x80"),
        "overlong": good.replace(b"cn-017", b"\xc0\xaf"),
        "bad escape": good.replace(b"cn-017", b"\\x41"),
        "raw newline in a string": good.replace(b"cn-017", b"cn\n017"),
        "raw NUL in a string": good.replace(b"cn-017", b"cn\x00017"),
        "NUL bytes": b"\x00" * 64,
        "random bytes": bytes(range(256)),
        "gzip": b"\x1f\x8b\x08\x00" + bytes(32),
        "deep lists": b"[" * 100_000,
        "deep objects": b'{"a":' * 4_000,
        "deep and closed": b"[" * 100_000 + b"]" * 100_000,
        "deep in a field": good[:-1] + b',"x":' + b"[" * 1000 + b"]" * 1000 + b"}",
        "integer of five thousand digits": good.replace(b"8192", b"9" * 5000),
    }
    for name, body in bodies.items():
        yield Bad(name, body, "malformed", "not JSON: ")
    for name, body in {"1 MiB of JSON": b" " * 2**20, "a byte too many": good.ljust(MAX_BODY_BYTES + 1)}.items():
        yield Bad(name, body, "too_large", f"{len(body)} bytes")


def _not_ours() -> Iterator[Bad]:
    for document in (None, True, 1, 1.5, CANARY, [], [CLAIM], ""):
        yield Bad(f"top level {document!r:.20}", encoded(document), "malformed", "not a JSON object")
    for version in (0, 2, -1, 10**30, 2**63):
        yield Bad(
            f"version {version}", encoded(CLAIM | {"version": version}), "unsupported_version", "version: is not 1"
        )
    yield Bad("newer version of another shape", encoded({"version": 2}), "unsupported_version", "version: is not 1")
    for kind in (CANARY, "", "Claim", "claim ", "node_put", "\x00", "claim\x00", "é", "x" * 10_000):
        yield Bad(f"kind {kind!r:.20}", encoded(CLAIM | {"kind": kind}), "unknown_kind", "kind: is none of abort, ")
    for wrong in (*WRONG_TYPES, None):
        yield Bad(f"kind {wrong!r}", encoded(CLAIM | {"kind": wrong}), "malformed", "kind: should be a string")
    for wrong in ("1", 1.0, True, None, [1]):
        yield Bad(f"version {wrong!r}", encoded(CLAIM | {"version": wrong}), "malformed", "version: should be")


_NOT_UUIDS: Final = (CANARY, "", "0199c0de00007000800000000000000a", "urn:uuid:0199c0de-0000-7000-8000-00000000000a",
                     "{0199c0de-0000-7000-8000-00000000000a}", "0199c0de-0000-7000-8000-00000000000g",
                     "0199c0de-0000-7000-8000-00000000000a\x00", "0199c0de-0000-7000-8000-00000000000aa",
                     1)  # fmt: skip
_NOT_TIMES: Final = (CANARY, "", 0, 1_700_000_000, "1700000000", "2026-11-22", "07:00:00Z", "2026-11-22T07:00:00",
                     "2026-11-22 07:00:00Z", "2026-11-22_07:00:00Z", "2026-11-22T07:00Z", "2026-02-30T07:00:00Z",
                     "2026-11-22T25:00:00Z", "2026-11-22T07:00:00+25:00", "0001-01-01T00:00:00+12:00",
                     "9999-12-31T23:59:59-12:00", "٢٠٢٦-11-22T07:00:00Z", "P1D", "now")  # fmt: skip
_NOT_AMOUNTS: Final = (-1, -(2**63), 2**40 + 1, 2**63, 2**64, 10**400, 1.0, 1e3, "1", "", None, True, CANARY)
_NOT_CPU_SETS: Final = (
    CANARY,
    "0-",
    "-1",
    "3-1",
    "0,,1",
    "0,",
    " 0",
    "0-3-5",
    "65536",
    "99999999",
    "0x1",
    "٣",
    "0\x00",
    1,
)
_NOT_RATIOS: Final = (0, "0", "-1", -1, "1001", 1001, 1.5, "1e3", "NaN", "Infinity", "1_0", " 1", "+1", ".5", "5.", "٣",
                      "1.1234567", "9" * 5000, True, None, CANARY)  # fmt: skip
_NOT_NODES: Final = (
    "",
    "-cn",
    ".cn",
    "cn 017",
    "cn/017",
    "cn\n",
    "cn\x00",
    "é",
    "x" * 256,
    "#",
    "*",
    CANARY + "!",
    17,
    None,
)
_NOT_LABELS: Final = ("", "a\x00b", "a\nb", "\ufdd0", "a\u2028b", "\U0001ffff", "\x7f", "x" * 256, 1)

_WRONG: Final[tuple[tuple[dict[str, Any], str, tuple[object, ...]], ...]] = (
    (CLAIM, "id", (*_NOT_UUIDS, None)),
    (CLAIM, "instance", _NOT_UUIDS),
    (CLAIM, "issued_at", (*_NOT_TIMES, None)),
    (CLAIM, "expires_at", _NOT_TIMES),
    (CLAIM, "node", _NOT_NODES),
    (CLAIM, "project", (*_NOT_LABELS, None)),
    (CLAIM, "user", _NOT_LABELS),
    (CLAIM, "dry_run", (1, 0, "true", None, CANARY)),
    (CLAIM, "revision", (-1, 2**62 + 1, 1.0, "1", True)),
    (CLAIM, "resources.vcpus", (*_NOT_AMOUNTS, 0, 65_537)),
    (CLAIM, "resources.memory_mib", (*_NOT_AMOUNTS, 0)),
    (CLAIM, "resources.disk.root_gib", _NOT_AMOUNTS),
    (CLAIM, "resources.disk.swap_mib", _NOT_AMOUNTS),
    (CLAIM, "resources.custom.CUSTOM_LICENSE", (*_NOT_AMOUNTS, 0)),
    (CLAIM, "topology.cpu_policy", (CANARY, "", None, 1, "Dedicated")),
    (CLAIM, "topology.dedicated_vcpus", _NOT_CPU_SETS),
    (CLAIM, "topology.page_size", (0, -1, 2**41, 1.5, CANARY, True)),
    (CLAIM, "topology.cells", (0, -1, 1025, 1.0, [], CANARY, True)),
    (CLAIM, "devices.0.count", (0, -1, 257, 1.0, "1", None)),
    (CLAIM, "devices.0.match.0.vendor", (CANARY, "", "10d", "10deg", "0x10de", 4318)),
    (CLAIM, "devices.0.match", ([], None, {}, CANARY)),
    (CLAIM, "lease_seconds", (0, -1, 31_536_001, 1.5, "60")),
    (NODE_PUT, "hypervisor", ("", "test:///default\x00", "x" * 1025, 1)),
    (NODE_PUT, "policy.ratios.vcpus", _NOT_RATIOS),
    (NODE_PUT, "policy.dedicated_cpus", _NOT_CPU_SETS),
    (NODE_PUT, "policy.max_inventory_age_seconds", (-1, 86_401, 0.5, None)),
    (PUSHED, "inventory.cpus", (*_NOT_CPU_SETS, None)),
    (PUSHED, "inventory.cells.0.id", (-1, 65_536, 1.0, None)),
    (PUSHED, "inventory.devices.0.address", ("", "../../etc/passwd", "a b", "\x00", "x" * 129)),
    (COMMANDS["abort"], "reason", ("a\x00b", "\x1b[2J", "x" * 1025, 1)),
    (COMMANDS["migrate"], "reason", (CANARY, "", None, "LIVE")),
    (COMMANDS["resize"], "mode", (CANARY, "", None)),
)  # fmt: skip


def _wrong_values() -> Iterator[Bad]:
    for command, path, values in _WRONG:
        for value in (*values, [CANARY], {CANARY: 1}):
            if path.endswith(("match", "cells")) and isinstance(value, list | dict) and value:
                continue
            yield Bad(f"{path} {value!r:.30}", encoded(changed(command, path, value)), "malformed", f"{path}: ")


def _missing_and_unknown() -> Iterator[Bad]:
    for kind, command in COMMANDS.items():
        for field in ("version", "id", "node", "issued_at", "kind"):
            rest = {name: value for name, value in command.items() if name != field}
            yield Bad(f"{kind} without {field}", encoded(rest), "malformed", f"{field}: is missing")
        yield Bad(f"{kind} with more", encoded(command | {"vpcus": CANARY}), "malformed", "vpcus: is not known here")
    for path in ("resources.memory_gib", "resources.disk.root_mib", "topology.numa", "devices.0.vendor"):
        yield Bad(f"unknown {path}", encoded(changed(CLAIM, path, CANARY)), "malformed", f"{path}: is not known here")
    for name in ("license", "CUSTOM_", "CUSTOM_licence", "CUSTOM_A\x00", "CUSTOM_" + "A" * 249):
        yield Bad(
            f"custom {name!r:.20}",
            encoded(changed(CLAIM, "resources.custom", {name: 1})),
            "malformed",
            "resources.custom",
        )
    many = {f"CUSTOM_{number}": 1 for number in range(257)}
    yield Bad(
        "too many custom resources",
        encoded(changed(CLAIM, "resources.custom", many)),
        "malformed",
        "resources.custom: ",
    )


def _contradictions() -> Iterator[Bad]:
    cell = PUSHED["inventory"]["cells"][0]
    device = PUSHED["inventory"]["devices"][0]
    member = {"instance": CLAIM["instance"], "node": "cn-017", "resources": {"vcpus": 1, "memory_mib": 1}}
    away = {"mode": "immediate", "destination": "cn-1"}
    backwards = [{"vcpus": "1-0", "memory_mib": 1}]
    several = {name: CLAIM[name] for name in ("version", "id", "kind", "node", "issued_at", "project")}
    cases: dict[str, tuple[dict[str, Any], str]] = {
        "neither hypervisor nor inventory": (NODE_PUT | {"hypervisor": None}, "either hypervisor or inventory"),
        "hypervisor and inventory": (PUSHED | {"hypervisor": "test:///default"}, "either hypervisor or inventory"),
        "claim of nothing": (several, "instance and resources are missing"),
        "claim of one and several": (CLAIM | {"instances": [member]}, "each names its own"),
        "claim of several elsewhere": (several | {"instances": [member | {"node": "cn-1"}]}, "node must be the node"),
        "claim of one twice": (several | {"instances": [member, member]}, "names an instance twice"),
        "claim of none": (several | {"instances": []}, "instances: should have at least 1 item"),
        "immediate resize elsewhere": (COMMANDS["resize"] | away, "stays on its node"),
        "immediate resize on lease": (COMMANDS["resize"] | {"mode": "immediate", "lease_seconds": 9}, "has no lease"),
        "migration to where it is": (COMMANDS["migrate"] | {"destination": "cn-017"}, "destination is the node itself"),
        "CPU shared and dedicated": (changed(NODE_PUT, "policy.shared_cpus", "0-4"), "CPU 4 is in shared_cpus and"),
        "limit upside down": (changed(NODE_PUT, "policy.limits", {"vcpus": {"min": 2, "max": 1}}), "max is below min"),
        "cell twice": (changed(PUSHED, "inventory.cells", [cell, cell]), "cell 0 is listed twice"),
        "CPU in two cells": (changed(PUSHED, "inventory.cells", [cell, cell | {"id": 1}]), "CPU 0 is in two cells"),
        "CPU in two cores": (changed(PUSHED, "inventory.cells.0.siblings", ["0,1", "1,2"]), "CPU 1 is in two sibling"),
        "page size twice": (changed(PUSHED, "inventory.cells.0.pages", cell["pages"] * 2), "lists a page size twice"),
        "device twice": (changed(PUSHED, "inventory.devices", [device, device]), "device address is listed twice"),
        "cell of a guest": (changed(CLAIM, "topology.cells", backwards), "topology.cells.0.vcpus: part 1"),
    }  # fmt: skip
    for name, (document, says) in cases.items():
        yield Bad(name, encoded(document), "malformed", says)


def _repeated() -> Iterator[Bad]:
    good = encoded(CLAIM)
    for separator in (b":", b": ", b" : ", b"\n:\t", b"\r\n:"):
        yield Bad(
            f"node twice with {separator!r}",
            good[:-1] + b',"node"' + separator + b'"cn-018"}',
            "malformed",
            "node: is given",
        )
    yield Bad("node twice, once escaped", good[:-1] + b',"n\\u006fde":"cn-018"}', "malformed", "node: is given twice")
    yield Bad("node twice, the same", good[:-1] + b',"node":"cn-017"}', "malformed", "node: is given twice")
    inner = good.replace(b'"vcpus": 4', b'"vcpus": 4, "vcpus": 400')
    yield Bad("vcpus twice", inner, "malformed", "vcpus: is given twice")
    tags = encoded(changed(CLAIM, "devices.0.match.0.tags", {":a": "1"}))
    yield Bad("tag twice", tags.replace(b'":a": "1"', b'":a": "1", ":a": "2"'), "malformed", ":a: is given twice")
    hidden = encoded(CLAIM | {"project": '":'}).replace(b'"node":', b'"node" :', 1)
    yield Bad("hidden in a string", hidden[:-1] + b',"node" :"cn-018"}', "malformed", "node: is given twice")
