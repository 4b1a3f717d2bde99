from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from yarl import URL

from deploy.lib.processes import free_port
from deploy.lib.stack import Stack
from tests.certificates import Authority
from tests.integration.broker_harness import DEADLINE_SECONDS, Taker, commands, refusal
from tests.servers import Vhost
from worker.broker.rabbit import RabbitBroker
from worker.broker.session import BrokerOptions, tls_context

pytestmark = pytest.mark.faults

CONFIGURATION = """[{{rabbit, [
  {{ssl_listeners, [{{"127.0.0.1", {port}}}]}},
  {{ssl_options, [
    {{cacertfile, "{folder}/ca.pem"}}, {{certfile, "{folder}/broker.pem"}}, {{keyfile, "{folder}/broker.key"}},
    {{verify, verify_peer}}, {{fail_if_no_peer_cert, true}}
  ]}}
]}}].
"""


@pytest.fixture
def certificates(tmp_path: Path) -> Authority:
    return Authority(tmp_path).create()


@pytest.fixture
def tls_port(stack: Stack, certificates: Authority) -> Iterator[int]:
    """The port on which the stack's broker asks for certificates while the test runs."""
    broker = stack.rabbitmq
    certificates.issue("broker", "-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=CA:FALSE")
    for name in ("ca.pem", "broker.pem", "broker.key"):
        broker.account.write(broker.folder / name, (certificates.folder / name).read_text())
    port = free_port({broker.port, broker.distribution_port, broker.port_mapper_port})
    advanced = broker.folder / "advanced.config"
    broker.account.write(advanced, CONFIGURATION.format(port=port, folder=broker.folder))
    broker.stop()
    broker.start()
    yield port
    advanced.unlink()
    broker.stop()


async def failure(url: str, options: BrokerOptions) -> str:
    """Why no connection comes about."""
    broker = RabbitBroker(options, 1, lambda _delivery: None)
    broker.start()
    try:
        said = await refusal(broker)
    finally:
        await broker.close()
    assert str(URL(url).password) not in said
    return said


async def test_both_sides_prove_who_they_are_before_a_message_passes(
    certificates: Authority, tls_port: int, vhost: Vhost
) -> None:
    ca = certificates.folder / "ca.pem"
    own = certificates.issue("worker")
    url = str(URL(vhost.url).with_scheme("amqps").with_port(tls_port))
    worker = Taker(url, settling=True, tls=tls_context(ca, *own))
    worker.broker.start()
    try:
        await worker.broker.ready(DEADLINE_SECONDS)
        await worker.broker.publish(commands(range(1000)))
        await worker.until(lambda: len(worker.taken) == 1000)
        assert worker.bodies() == list(range(1000))
    finally:
        await worker.broker.close()

    without = await failure(url, BrokerOptions((url,), tls=tls_context(ca)))
    assert "certificate" in without.lower() or "lost" in without or "reset" in without.lower()
    stranger = Authority(certificates.folder, "stranger").create()
    other_ca = tls_context(certificates.folder / "stranger.pem", *stranger.issue("intruder"))
    assert "CERTIFICATE_VERIFY_FAILED" in await failure(url, BrokerOptions((url,), tls=other_ca))
    misnamed = str(URL(url).with_host("localhost"))
    assert "CERTIFICATE_VERIFY_FAILED" in await failure(url, BrokerOptions((misnamed,), tls=tls_context(ca, *own)))


async def test_a_certificate_that_cannot_be_read_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No such file|missing"):
        await asyncio.to_thread(tls_context, tmp_path / "missing.pem")
