"""What is fuzzed: each target takes any bytes, and raises only where a promise is broken.

An input is read from its front: what a target needs beside the text itself
stands in its first bytes, so that a fuzzer can change it like everything else.
"""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from itertools import pairwise
from typing import Any, Final, cast
from uuid import UUID

from pamqp.encode import field_table

from schemas import MalformedCommandError, parse_command
from schemas.inventory import Inventory
from tests.property.test_hypervisor_documents import WHOLE, check_soundness
from tests.property.test_hypervisor_documents import read as read_host
from tests.property.test_messages import CHANNEL, GOOD, delivered, frame
from tests.published import published
from worker.accounting.state.view import Facts, Observation, View
from worker.broker.archiver import reduced
from worker.broker.dead_letters import headers_of, letter_from
from worker.broker.tap import Confirms, Deliveries, Tap
from worker.broker.wire import Message, read_content_header
from worker.engine.batch import Decider
from worker.engine.dead_letters import DeadLetters
from worker.engine.intake import Intake, Item, receive
from worker.engine.lanes import Lanes
from worker.engine.letters import letter_of
from worker.engine.ports import DeadLetter, Delivery, ReadSet
from worker.hypervisor.documents import XmlFault
from worker.hypervisor.domains import read_domain
from worker.ledger.letters import headers_json, letter_columns
from worker.telemetry.metrics import Metrics

CONFIRMS: Final = CHANNEL + 1
KINDS: Final = tuple(WHOLE)
_NOW: Final = datetime(2026, 1, 1, tzinfo=UTC)
_TABLE_MAX_BYTES: Final = 65_536
_MOST_CUTS: Final = 8


@cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


@dataclass
class _Taken:
    """A tap, and what came out of it."""

    messages: list[Message] = field(default_factory=list)
    confirms: list[tuple[int, bool, bool]] = field(default_factory=list)

    def __post_init__(self) -> None:
        reader = asyncio.StreamReader(loop=_loop())
        self.tap = Tap(reader, _loop())
        self.tap.sinks[CHANNEL] = Deliveries(self.messages.append, lambda: None)
        self.tap.sinks[CONFIRMS] = Confirms(lambda *told: self.confirms.append(told))

    def feed(self, parts: list[bytes]) -> None:
        """Give the tap a stream in parts, as a socket does."""
        for part in parts:
            self.tap.data_received(part)


def _cut(stream: bytes, cuts: bytes) -> list[bytes]:
    edges = sorted({0, len(stream), *(cut * len(stream) // 256 for cut in cuts)})
    return [stream[start:stop] for start, stop in pairwise(edges)]


def streams(data: bytes) -> None:
    """Any bytes from the socket, cut anywhere: nothing leaves the tap, and cuts make no difference."""
    cuts, stream = data[:_MOST_CUTS], data[_MOST_CUTS:]
    whole, parted = _Taken(), _Taken()
    whole.feed([stream])
    parted.feed(_cut(stream, cuts))
    assert whole.messages == parted.messages
    assert whole.confirms == parted.confirms
    assert whole.tap.blocked == parted.tap.blocked


def frames(data: bytes) -> None:
    """Well-framed nonsense on the tapped channels: what is good behind it is delivered, once and whole."""
    cuts, at, stream = data[:_MOST_CUTS], _MOST_CUTS, b""
    while at + 3 <= len(data):
        kind, channel, size = data[at], data[at + 1], data[at + 2]
        payload = data[at + 3 : at + 3 + size]
        made = frame(1 + kind % 3, payload)
        stream += made[:1] + struct.pack(">H", CHANNEL + channel % 2) + made[3:]
        at += 3 + size
    taken = _Taken()
    taken.feed(_cut(stream + delivered(7, 0, b"", GOOD), cuts))
    assert (taken.messages[-1].tag, taken.messages[-1].body) == (7, GOOD)
    for message in taken.messages:
        assert message.weight >= 0
        message.exchange_and_key()
        dict(message.properties.headers)


def _message(data: bytes) -> Message:
    """A message of given flags, properties and body, as it comes off the wire."""
    flags, size = struct.unpack_from(">HH", data.ljust(4, b"\0"))
    head = struct.pack(">HHQH", 60, 0, 0, flags) + data[4 : 4 + size]
    _, properties = read_content_header(head, 0, len(head))
    return Message(1, redelivered=False, origin=b"\x01e\x01k", properties=properties, body=data[4 + size :])


def _delivery(message: Message, tag: int = 1) -> Delivery:
    said = message.properties
    return Delivery(
        shard=0,
        body=message.body,
        tag=tag,
        source=None,
        redelivered=False,
        received_at=0.0,
        reply_to=said.reply_to,
        correlation_id=said.correlation_id,
        user_id=said.user_id,
        headers=said.headers,
        whole=message.whole,
    )


def deliveries(data: bytes) -> None:
    """Any properties and body: taken or refused, never as ``poison``, and its letter is safe; so is the next one."""
    message = _message(data)

    async def take() -> tuple[int, list[DeadLetter]]:
        lanes, metrics = Lanes(), Metrics()
        dead_letters = DeadLetters(cast("Any", None), lanes, metrics)
        intake = Intake(lanes, 1)
        intake.dead_letter_with(dead_letters)
        intake.receive(_delivery(message))
        intake.receive(Delivery(0, GOOD, 2, None, redelivered=False, received_at=0.0))
        return lanes.depth, dead_letters.waiting

    on_lanes, refused = _loop().run_until_complete(take())
    assert on_lanes + len(refused) == 2
    assert on_lanes >= 1
    assert not any(letter.reason == "poison" for letter in refused), refused
    item = receive(_delivery(message), 1)
    put_away = letter_of(item, "poison", "its code fails") if isinstance(item, Item) else None
    for letter in refused if put_away is None else [put_away]:
        _survives(letter)


def _survives(letter: DeadLetter) -> None:
    """A letter gets into the queue, out of it again as it was, and into the archive."""
    written = field_table(headers_of(letter))
    assert len(written) <= _TABLE_MAX_BYTES
    raw = struct.pack(">HHQH", 60, 0, 0, 1 << 13) + written
    _, properties = read_content_header(raw, 0, len(raw))
    reason = letter.reason.encode()
    origin = b"\x0fnodeledger.dead" + bytes((len(reason),)) + reason
    again = letter_from(Message(1, redelivered=False, origin=origin, properties=properties, body=letter.body))
    assert (again.reason, again.command, again.kind) == (letter.reason, letter.command, letter.kind)
    _is_stored(again)


def _is_stored(letter: DeadLetter) -> None:
    """What goes into the database is what it can hold."""
    kept = headers_json(letter.headers, letter.whole)
    for text in _texts(json.loads(kept, parse_constant=_no_constant)):
        assert "\0" not in text
    columns = letter_columns([letter])
    for texts in (columns.reason, columns.detail, columns.fingerprint, columns.node, columns.kind):
        for label in texts:
            assert "\0" not in (label or "")
            (label or "").encode()


def _texts(document: object) -> Iterator[str]:
    """Every text of a document, names included."""
    if isinstance(document, str):
        yield document
    elif isinstance(document, dict):
        for name, value in document.items():
            yield name
            yield from _texts(value)
    elif isinstance(document, list):
        for value in document:
            yield from _texts(value)


def _no_constant(name: str) -> None:
    raise AssertionError(f"{name} is no JSON")


def letters(data: bytes) -> None:
    """Whatever stands in the dead-letter queue, whoever put it there, is archived; so is what is left of it."""
    message = _message(data)
    cut = data[:1]
    if cut and cut[0] & 1:
        message = replace(message, origin=b"\x00" + bytes((min(255, len(data) - 1),)) + data[1:256])
    _is_stored(letter_from(message))
    _is_stored(reduced(message, ValueError("refused\0\ud800")))


@cache
def _view() -> View:
    """A node and an instance as a first batch leaves them, to decide what the fuzzer has made of a command."""
    loaded = ReadSet(View({}, {}), {}, _NOW)
    facts = Facts()
    facts.observations["cn-1"] = Observation(_NOW, None, None)
    _decide(loaded, facts, [_item(json.dumps(one).encode()) for one in SETTING])
    for number, node in enumerate(loaded.view.nodes.values()):
        node.id = node.id or number + 1
    return loaded.view


def _item(body: bytes) -> Item:
    delivery = Delivery(0, body, 1, None, redelivered=False, received_at=0.0)
    item = receive(delivery, 1)
    assert isinstance(item, Item), item
    return item


def _decide(loaded: ReadSet, facts: Facts, items: list[Item]) -> Any:
    return Decider(loaded, facts, 0.0, timedelta(days=1), lambda _uri: None).run(items)


_SAID: Final[dict[str, Any]] = {"version": 1, "issued_at": "2026-01-01T00:00:00Z"}
_DEVICES: Final = [
    {"address": "0000:5e:00.0", "vendor": "8086", "product": "158b", "type": "pf"},
    {"address": "0000:5e:02.0", "vendor": "8086", "product": "154c", "type": "vf", "parent": "0000:5e:00.0"},
]
SETTING: Final[list[dict[str, Any]]] = [
    {
        **_SAID,
        "id": str(UUID(int=1)),
        "kind": "node.put",
        "node": "cn-1",
        "inventory": {
            "cpus": "0-7",
            "memory_mib": 8704,
            "disk_gib": 60,
            "cells": [
                {"id": 0, "socket": 0, "cpus": "0-3", "memory_mib": 4352},
                {"id": 1, "socket": 1, "cpus": "4-7", "memory_mib": 4352},
            ],
            "devices": _DEVICES,
        },
        "policy": {"shared_cpus": "0,4", "dedicated_cpus": "1-3,5-7"},
    },
    {
        **_SAID,
        "id": str(UUID(int=2)),
        "kind": "claim",
        "node": "cn-1",
        "instance": str(UUID(int=9)),
        "project": "web",
        "resources": {"vcpus": 2, "memory_mib": 512},
        "topology": {"cpu_policy": "dedicated"},
    },
]


def commands(data: bytes) -> None:
    """Any command that can be parsed is decided, by one outcome that keeps the contract, or waits for an answer."""
    try:
        command = parse_command(data)
    except MalformedCommandError:
        return
    body = data
    if command.node != "cn-1":
        document = json.loads(data)
        body = json.dumps({**document, "node": "cn-1"}).encode()
        try:
            parse_command(body)
        except MalformedCommandError:
            return  # its destination or a candidate is that node
    loaded = ReadSet(deepcopy(_view()), {}, _NOW)
    facts = Facts()
    facts.observations["cn-1"] = Observation(_NOW, None, None)
    result = _decide(loaded, facts, [_item(body)])
    told = len(result.outcomes) + len(result.held) + len(result.dead_lettered)
    assert told == 1, result
    assert not result.dead_lettered
    for _, rendered in result.outcomes:
        published(rendered.text)
    for node in loaded.view.nodes.values():
        assert all(amount >= 0 for amount in node.occupancy.used.values())


def hosts(data: bytes) -> None:
    """Any document of a host, in place of one of a sound host's: an inventory comes of it, or a named fault."""
    kind = KINDS[(data or b"\0")[0] % len(KINDS)]
    text = data[1:].decode(errors="replace")
    try:
        made: Inventory = read_host({**WHOLE, kind: [text, *WHOLE[kind][1:]]})
    except XmlFault:
        return
    check_soundness(made)


def domains(data: bytes) -> None:
    """Any description of a domain is read, or is the fault of that domain alone."""
    text = data.decode(errors="replace")
    read = read_domain(str(UUID(int=5)), text, active=True).domain
    assert read.fault is None or (read.uuid, read.vcpus, read.devices) == (UUID(int=5), 0, ())
    assert read.memory_mib >= 0
    assert read.vcpus >= 0


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    target.__name__: target for target in (streams, frames, deliveries, letters, commands, hosts, domains)
}
