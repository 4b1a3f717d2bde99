"""The bare loop: consume, publish an answer with a confirm, acknowledge; ``python -m worker.bench.loop``.

This is what everything else is compared with: aio-pika as its documentation
shows it, a callback for each message, and nothing but the three calls in it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Final

import aio_pika
import uvloop
from aio_pika import DeliveryMode, Message

from worker.servers import broker_options
from worker.settings import load_settings

if TYPE_CHECKING:
    from aio_pika.abc import AbstractConnection, AbstractIncomingMessage

QUEUE: Final = "NODELEDGER_BENCH_QUEUE"
EXCHANGE: Final = "NODELEDGER_BENCH_EXCHANGE"
ANSWER_BYTES: Final = "NODELEDGER_BENCH_ANSWER_BYTES"
_ID_BYTES: Final = 36


async def connect() -> AbstractConnection:
    """A plain connection to the broker that the settings name."""
    options = broker_options(load_settings())
    return await aio_pika.connect(options.urls[0], ssl_context=options.tls)


async def until_stopped() -> None:
    """Say that this process is ready, and wait until it is told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    _say_ready()
    await stop.wait()


def _say_ready() -> None:
    Path(os.environ["NODELEDGER_HTTP_PORT_FILE"]).write_text("0\n")


def answer_around(size_bytes: int) -> tuple[bytes, bytes]:
    """What stands before and after a command's id in an answer of this size; no less than that takes."""
    head, tail = b'{"command":"', b'"}'
    middle = b'","padding":"'
    padding = b"x" * max(0, size_bytes - len(head) - _ID_BYTES - len(middle) - len(tail))
    return head, middle + padding + tail


async def _run() -> None:
    head, tail = answer_around(int(os.environ[ANSWER_BYTES]))
    connection = await connect()
    channel = await connection.channel(publisher_confirms=True)
    await channel.set_qos(load_settings().prefetch)
    exchange = await channel.get_exchange(os.environ[EXCHANGE], ensure=False)
    queue = await channel.get_queue(os.environ[QUEUE], ensure=False)

    async def answer(message: AbstractIncomingMessage) -> None:
        await exchange.publish(
            Message(
                head + str(message.message_id).encode() + tail,
                content_type="application/json",
                delivery_mode=DeliveryMode.PERSISTENT,
                message_id=message.message_id,
            ),
            "bench",
        )
        await message.ack()

    await queue.consume(answer)
    await until_stopped()
    await connection.close()


if __name__ == "__main__":
    uvloop.run(_run())
