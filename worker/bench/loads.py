"""What is sent: nodes large enough, and commands for them as a producer would write them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count, islice
from typing import Any, Final
from uuid import uuid4

from schemas import shard_of

VENDOR: Final = "8086"
PRODUCT: Final = "154c"
CELL_CPUS: Final = 64
DEVICES: Final = 64
_CELLS: Final = 2

Fields = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Command:
    """One command, ready to be sent: its id, its node and its body."""

    id: str
    node: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Load:
    """A kind of load.

    ``nodes`` is how many nodes it is spread over, each of which starts with
    ``filled`` instances. ``stream`` yields commands, given as kind, node and
    fields, forever; they must be sent in order. ``fresh`` loads use up their
    nodes, which are therefore made anew for each run.
    """

    nodes: int
    stream: Callable[[list[str]], Iterator[Fields]]
    inventory: Mapping[str, Any] = field(default_factory=lambda: HUGE)
    policy: Mapping[str, Any] = field(default_factory=lambda: GENEROUS)
    filled: int = 0
    fresh: bool = False
    per_node: int | None = None
    """The most commands a node has room for; ``None``: more than anybody sends."""
    shards: int | None = None
    """How many of the shards the nodes are on; ``None``: all."""

    def names(self, prefix: str, shards: int) -> list[str]:
        """The names of the nodes, in an installation with so many shards."""
        used = min(self.shards or shards, shards)
        named = (f"{prefix}-{number:06d}" for number in count())
        return list(islice((name for name in named if shard_of(name, shards) < used), self.nodes))

    def puts(self, names: list[str]) -> list[Command]:
        """What registers the nodes."""
        return [command("node.put", name, inventory=self.inventory, policy=self.policy) for name in names]

    def filling(self, names: list[str]) -> list[Command]:
        """What the nodes hold before the run."""
        return [command(**fields) for fields in islice(claims(names), self.filled * len(names))]

    def commands(self, names: list[str], number: int) -> list[Command]:
        """The commands of one run; fewer than ``number`` where the nodes have no room for more."""
        room = number if self.per_node is None else min(number, self.per_node * len(names))
        return [command(**fields) for fields in islice(self.stream(names), room)]


def command(kind: str, node: str, **fields: Any) -> Command:
    """A command with a new id."""
    id_ = str(uuid4())
    document = {"version": 1, "id": id_, "kind": kind, "node": node, "issued_at": _now(), **fields}
    return Command(id_, node, json.dumps(document, separators=(",", ":")).encode())


def claims(nodes: list[str]) -> Iterator[Fields]:
    """Claims, to one node after the other."""
    while True:
        for node in nodes:
            yield _claim(node)


def mix(nodes: list[str]) -> Iterator[Fields]:
    """On every node a claim, a resize to be confirmed, its confirm, and the delete."""
    while True:
        born = [_claim(node) for node in nodes]
        yield from born
        yield from (_of(claim, "resize", resources=_resources(2), revision=2) for claim in born)
        yield from (_of(claim, "confirm", revision=3) for claim in born)
        yield from (_of(claim, "delete", revision=4) for claim in born)


def pinned(nodes: list[str]) -> Iterator[Fields]:
    """Claims for two CPUs of their own and a device."""
    topology = {"cpu_policy": "dedicated"}
    devices = [{"name": "nic", "match": [{"vendor": VENDOR, "product": PRODUCT}]}]
    for fields in claims(nodes):
        yield {**fields, "resources": _resources(2), "topology": topology, "devices": devices}


def churn(nodes: list[str]) -> Iterator[Fields]:
    """Claims, each deleted at once: a node keeps as many instances as it had."""
    for fields in claims(nodes):
        yield fields
        yield _of(fields, "delete", revision=2)


def _claim(node: str) -> Fields:
    instance = str(uuid4())
    return {
        "kind": "claim",
        "node": node,
        "instance": instance,
        "project": "bench",
        "user": "bench",
        "resources": _resources(1),
        "revision": 1,
    }


def _of(claim: Fields, kind: str, **fields: Any) -> Fields:
    """Another command for the instance of a claim."""
    return {"kind": kind, "node": claim["node"], "instance": claim["instance"], **fields}


def _resources(vcpus: int) -> Fields:
    return {"vcpus": vcpus, "memory_mib": 1024 * vcpus, "disk": {"root_gib": 10}}


def _now() -> str:
    return datetime.now(UTC).isoformat().replace("+00:00", "Z")


def _numa() -> Fields:
    """Two sockets whose CPUs are all for pinning, and a network card with virtual functions on each."""
    cells = [
        {
            "id": cell,
            "socket": cell,
            "cpus": f"{cell * CELL_CPUS}-{(cell + 1) * CELL_CPUS - 1}",
            "siblings": [
                f"{cell * CELL_CPUS + core},{cell * CELL_CPUS + core + CELL_CPUS // 2}"
                for core in range(CELL_CPUS // 2)
            ],
            "memory_mib": 524_288,
            "pages": [{"size_kib": 4, "total": 524_288 * 256}],
        }
        for cell in range(_CELLS)
    ]
    devices = [
        {
            "address": f"0000:{0x3B + number % _CELLS:02x}:{number // 16:02x}.{number // 2 % 8}",
            "vendor": VENDOR,
            "product": PRODUCT,
            "cell": number % _CELLS,
        }
        for number in range(DEVICES)
    ]
    return {
        "cpus": f"0-{_CELLS * CELL_CPUS - 1}",
        "memory_mib": 1_048_576,
        "disk_gib": 1_000_000,
        "cells": cells,
        "devices": devices,
    }


HUGE: Final[Fields] = {"cpus": "0-255", "memory_mib": 2**34, "disk_gib": 2**29}
"""Far more than any machine has, so that a run is never refused for want of room."""
GENEROUS: Final[Fields] = {"ratios": {"vcpus": "1000"}}
NUMA: Final[Fields] = _numa()
DEDICATED: Final[Fields] = {"dedicated_cpus": f"0-{_CELLS * CELL_CPUS - 1}"}
