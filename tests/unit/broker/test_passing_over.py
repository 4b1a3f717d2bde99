from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from worker.broker.publisher import _Batch, _concluded, _ConfirmChannel
from worker.engine.ports import Outgoing

STUCK, HEARD = Outgoing("", "reply", b"{}"), Outgoing("nodeledger.outcomes", "claim.applied.cn-1", b"{}")


def sent(*messages: Outgoing) -> tuple[_ConfirmChannel, _Batch]:
    link = SimpleNamespace(write=lambda _frames: True, frame_max=4096)
    channel = _ConfirmChannel(cast(Any, link))
    return channel, channel.send(messages)


async def test_what_a_reply_queue_never_confirms_counts_as_refused_once_later_ones_are_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("worker.broker.publisher.PASSED_OVER_SECONDS", 0.001)
    channel, batch = sent(STUCK, HEARD)
    channel._on_confirm(2, False, True)
    async with asyncio.timeout(30):
        await _concluded(batch)
    assert (batch.refused, batch.unanswered, channel.under_way) == ([STUCK], [], 0)
    channel._on_confirm(1, False, True)


async def test_while_the_broker_answers_nothing_later_nothing_is_passed_over() -> None:
    channel, batch = sent(HEARD, STUCK)
    channel._on_confirm(1, False, True)
    channel.pass_over(batch)
    assert (batch.done.done(), batch.refused, channel.under_way) == (False, [], 1)
    later = channel.send([HEARD])
    channel._on_confirm(3, False, True)
    channel.pass_over(batch)
    assert (batch.done.done(), batch.refused, later.done.done()) == (True, [STUCK], True)
