"""Three broker nodes joined into one cluster, of which one can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from deploy.lib.processes import Account, end, free_port, marked, wait_until
from deploy.lib.rabbitmq import NODE, RabbitMQ
from deploy.lib.stack import Stack


@dataclass(frozen=True, slots=True)
class Member(RabbitMQ):
    """One node of the cluster; all of them share the port mapper and the cookie."""

    node: str = NODE

    def kill(self) -> None:
        """As a power cut does; the port mapper, another machine's in earnest, stays."""
        for pid in marked(f"{self.folder}:node"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not marked(f"{self.folder}:node"), seconds=10, what="the node to die")

    def join(self, other: Member) -> None:
        """Become a member of the other's cluster."""
        for command in (["stop_app"], ["join_cluster", other.node], ["start_app"]):
            self.control(*command)

    def _environment(self) -> dict[str, str]:
        return {**RabbitMQ._environment(self), "RABBITMQ_NODENAME": self.node}

    def _evaluate(self, expression: str) -> None:
        self.control("eval", f"{expression}.")


@asynccontextmanager
async def three_nodes(stack: Stack, folder: Path) -> AsyncIterator[list[Member]]:
    """A cluster of its own under a folder, with the account and the secrets of a stack."""
    account, model = stack.rabbitmq.account, stack.rabbitmq
    taken: set[int] = set()
    ports = []
    for _ in range(7):
        ports.append(free_port(taken))
        taken.add(ports[-1])
    members = [
        Member(
            folder / f"node-{number}",
            account,
            port=ports[2 * number],
            distribution_port=ports[2 * number + 1],
            port_mapper_port=ports[6],
            password=model.password,
            cookie=model.cookie,
            node=f"member{number}@localhost",
        )
        for number in range(3)
    ]
    mapper = f"{folder}:mapper"
    _start_port_mapper(account, folder, ports[6], mapper)
    try:
        await asyncio.gather(*(asyncio.to_thread(member.start) for member in members))
        for member in members[1:]:
            await asyncio.to_thread(member.join, members[0])
        yield members
    finally:
        for member in members:
            member.kill()
            member.stop(immediate=True)
        end(mapper, how=signal.SIGTERM, seconds=10)


def _start_port_mapper(account: Account, folder: Path, port: int, mark: str) -> None:
    """One for all: the members' own find its port taken, and end."""
    command = ["epmd", "-address", "127.0.0.1", "-port", str(port)]
    account.start(command, {"PATH": os.defpath}, cwd=Path("/"), log=folder / "epmd.log", mark=mark)
