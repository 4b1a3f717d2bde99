from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from schemas import parse_command
from schemas.asking import uuid7
from worker.operations.producing import RefusedLineError, complete, raw

_INSTANCE = "0199c0de-0000-7000-8000-0000000000aa"


def test_what_is_missing_is_filled_in_and_what_is_given_stays() -> None:
    made = complete(b'{"kind": "delete", "node": "cn-1", "instance": "%s"}' % _INSTANCE.encode())
    command = parse_command(made.body)
    assert (command.version, command.kind, command.id) == (1, "delete", made.id)
    assert abs(command.issued_at - datetime.now(UTC)) < timedelta(minutes=1)

    id_ = str(uuid7())
    given = f'{{"version":1,"id":"{id_}","kind":"node.remove","node":"cn-1","issued_at":"2026-01-01T00:00:00Z"}}'
    again = parse_command(complete(given.encode()).body)
    assert (str(again.id), again.issued_at) == (id_, datetime(2026, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"nonsense", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b'{"kind":"node.remove","node":"cn-1","force":NaN}', "not JSON"),
        (b'{"kind":"conjure","node":"cn-1"}', "unknown_kind"),
        (b'{"kind":"node.remove","node":"a b"}', "node"),
        (b'{"kind":"node.remove","node":"cn-1","forse":true}', "forse"),
        (b'{"kind":"node.remove","node":"cn-1","version":2}', "unsupported_version"),
        (b'{"kind":"node.remove","node":"cn-1","node":"cn-2"}', "node: is given twice"),
        (b'{"kind":"node.remove","node":"cn-1","force":false,"force":true}', "force: is given twice"),
        (b"[" * 5000, "not JSON"),
        (b'\xff{"node":"cn-1"}', "not JSON"),
    ],
)
def test_a_refused_line_names_the_fault(line: bytes, told: str) -> None:
    with pytest.raises(RefusedLineError, match=told):
        complete(line)


def test_a_raw_line_is_sent_byte_for_byte_if_it_names_a_node() -> None:
    line = b'{ "node": "cn-1", "kind": 7, "anything":  true }'
    assert raw(line).body == line
    for unroutable in (b"nonsense", b'{"kind":"claim"}', b'{"node":5}', b'{"node":"\\ud800"}'):
        with pytest.raises(RefusedLineError):
            raw(unroutable)


def test_ids_are_version_7_and_in_the_order_of_their_making() -> None:
    ids = []
    for _ in range(50):
        ids.append(uuid7())
        while uuid7().int >> 64 == ids[-1].int >> 64:
            pass
    assert ids == sorted(ids)
    assert {id_.version for id_ in ids} == {7}
