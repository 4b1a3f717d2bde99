from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from worker.engine.envelope import Envelope
from worker.engine.ports import CORRELATION_HEADER, NO_REPLY, NOBODY, REPLY_TO_HEADER, SENDERS_HEADER, Reply
from worker.telemetry.tracing import TRACEPARENT

TRACES = st.just("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
PROPERTIES = st.text(st.characters(codec="utf-8"), max_size=63)
REPLIES = st.builds(Reply, st.none() | PROPERTIES, st.none() | PROPERTIES, st.none() | TRACES)
NAMES = st.sampled_from([SENDERS_HEADER, REPLY_TO_HEADER, CORRELATION_HEADER, "x-other"])
HEADERS = st.dictionaries(NAMES, st.text() | st.integers() | st.none())


@given(st.builds(Envelope, st.text(), REPLIES), HEADERS)
def test_a_letter_tells_its_messages_envelope_whatever_its_headers_claimed(
    envelope: Envelope, headers: dict[str, object]
) -> None:
    letter = envelope.on_letter(headers)
    assert Envelope.of_letter(letter) == envelope
    assert letter.get("x-other") == headers.get("x-other")


def test_a_replay_carries_its_senders_and_goes_on_with_its_trace() -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    assert Envelope("ann", Reply("answers", "7", trace)).on_replay() == {SENDERS_HEADER: "ann", TRACEPARENT: trace}


def test_what_no_property_can_carry_is_left_out_of_the_replay() -> None:
    forged = {REPLY_TO_HEADER: "é" * 128, CORRELATION_HEADER: ["a"], TRACEPARENT: "none", SENDERS_HEADER: 1}
    assert Envelope.of_letter(forged) == Envelope(NOBODY, NO_REPLY)
    assert Envelope.of_letter(None) == Envelope(NOBODY, NO_REPLY)
