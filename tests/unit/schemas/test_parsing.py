from __future__ import annotations

import json
import time
from uuid import UUID

import pytest

from schemas import KINDS, MAX_BODY_BYTES, Claim, MalformedCommandError, NodePut, parse_command
from schemas.examples import COMMANDS
from tests.unit.schemas.bad_bodies import CANARY, CLAIM, NODE_PUT, PUSHED, Bad, bad_bodies, changed, encoded

BAD = bad_bodies()


def refusal(body: bytes) -> MalformedCommandError:
    with pytest.raises(MalformedCommandError) as caught:
        parse_command(body)
    return caught.value


@pytest.mark.parametrize("bad", BAD, ids=lambda bad: bad.name)
def test_a_bad_body_is_refused_with_the_field_and_the_fault_and_without_the_value(bad: Bad) -> None:
    error = refusal(bad.body)
    assert (error.reason, bad.says in error.detail) == (bad.reason, True), error.detail
    assert f"{CANARY}: is not known here" in error.detail or CANARY not in error.detail
    assert error.detail.isprintable()
    assert error.detail.isascii()
    assert len(error.detail) <= 1024


def test_the_bad_bodies_are_many() -> None:
    assert len(BAD) > 500


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_the_example_of_every_kind_is_read(kind: str) -> None:
    command = parse_command(encoded(COMMANDS[kind]))
    assert (command.kind, command.node) == (kind, "cn-017")


def test_what_could_still_be_read_goes_with_the_refusal() -> None:
    error = refusal(encoded(CLAIM | {"user": 1}))
    assert (error.id, error.node, error.kind) == (UUID(CLAIM["id"]), "cn-017", "claim")
    error = refusal(encoded({"id": "x", "node": "a\x00b", "kind": "drop table"}))
    assert (error.id, error.node, error.kind) == (None, None, None)


def test_a_message_with_many_faults_names_the_first_ones_and_counts_the_rest() -> None:
    detail = refusal(encoded(CLAIM | {f"x{number}": 1 for number in range(20)})).detail
    assert detail.startswith("x0: is not known here; x1: is not known here; ")
    assert detail.endswith("; and 12 more")


def test_the_longest_body_that_is_accepted_is_read() -> None:
    body = encoded(CLAIM).ljust(MAX_BODY_BYTES)
    assert parse_command(body) == parse_command(encoded(CLAIM))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("issued_at", "2026-11-22t07:00:00.123456789z"),
        ("issued_at", "2026-11-22T07:00:00-11:30"),
        ("id", CLAIM["id"].upper()),
        ("project", "Müller & Söhne ☂"),
        ("project", '":'),
        ("node", "x" * 255),
        ("resources.memory_mib", 2**40),
        ("topology.page_size", 1_048_576),
        ("topology.cells", [{"vcpus": "0-1", "memory_mib": 1}, {"vcpus": "2", "memory_mib": 2}]),
        ("devices.0.match", [{"vendor": "10DE", "tags": {"a:": "\\", ":b": '"'}}]),
    ],
)
def test_every_form_the_contract_allows_is_read(path: str, value: object) -> None:
    assert isinstance(parse_command(encoded(changed(CLAIM, path, value))), Claim)


@pytest.mark.parametrize("ratio", ["4", "4.0", "0.000001", 4, 1000, "1000.0"])
def test_ratios_are_exact_decimals(ratio: str | int) -> None:
    command = parse_command(encoded(changed(NODE_PUT, "policy.ratios.vcpus", ratio)))
    assert isinstance(command, NodePut)
    assert str(command.policy.ratios.vcpus) == str(ratio)


def test_vendor_and_product_are_compared_without_case() -> None:
    command = parse_command(encoded(changed(PUSHED, "inventory.devices.0.vendor", "10DE")))
    assert isinstance(command, NodePut)
    assert command.inventory is not None
    assert command.inventory.devices[0].vendor == "10de"


def test_a_message_that_is_laid_out_for_people_is_read() -> None:
    body = json.dumps(CLAIM, indent=4, separators=(",", " : ")).encode()
    assert parse_command(body) == parse_command(encoded(CLAIM))


@pytest.mark.parametrize(
    "body",
    [
        encoded(CLAIM)[:-1] + b"".join(b',"%d":1' % number for number in range(20_000)) + b"}",
        encoded(changed(PUSHED, "inventory.cells.0.siblings", ["0-65535"] * 20_000)),
        encoded(changed(PUSHED, "inventory.devices", [1] * 60_000)),
        encoded(changed(CLAIM, "resources.custom", {f"C{number}": 1 for number in range(20_000)})),
        encoded(changed(CLAIM, "topology.cells", [{"vcpus": "0-65535", "memory_mib": 0}] * 1000)),
        encoded(changed(CLAIM, "candidates", ["!"] * 50_000)),
    ],
    ids=["unknown fields", "siblings", "devices", "custom", "guest cells", "candidates"],
)
def test_a_body_made_to_cost_much_is_refused_quickly(body: bytes) -> None:
    assert len(body) <= MAX_BODY_BYTES
    started = time.process_time()
    refusal(body)
    assert time.process_time() - started < 1.0


def test_a_body_of_more_objects_than_a_command_may_have_is_refused_unread() -> None:
    matches = [{"name": f"d{number}", "match": [{}] * 64} for number in range(64)]
    error = refusal(encoded(CLAIM | {"devices": matches}))
    assert (error.reason, "at most 4096" in error.detail) == ("too_large", True)
    assert (error.id, error.node, error.kind) == (UUID(CLAIM["id"]), "cn-017", "claim")
    assert parse_command(encoded(CLAIM | {"devices": matches[:60]})).kind == "claim"
