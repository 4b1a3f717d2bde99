"""`python -m tests.driver.client`: the client through a bad network, with brokers, workers and itself coming and going.

python -m tests.driver.client --commands 50000 --seconds 240 --cuts 30 --broker-restarts 5 --kills 10 --deaths 5
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Final
from uuid import UUID, uuid5

from yarl import URL

from deploy.lib.stack import Stack
from schemas.client import Client
from tests.client_contract import INVENTORY
from tests.driver.faults import Faults, Plan
from tests.driver.hosts import Hosts
from tests.driver.producer import IDS, answered, command, resident
from tests.driver.proxy import Proxy
from tests.driver.run import PAUSE_SECONDS, Report, Run, pool
from tests.servers import Database, Vhost, new_database, new_vhost, temporary_stack

_ANSWER_SECONDS: Final = 600.0


async def client_run(
    stack: Stack,
    vhost: Vhost,
    database: Database,
    folder: Path,
    *,
    plan: Plan,
    commands: int,
    nodes: int = 40,
    deaths: int = 0,
) -> Report:
    """Have a producer send it all while a plan is carried out and the producer dies now and then, and judge."""
    journal = folder / "journal"
    async with Proxy(stack.rabbitmq.port) as proxy, pool(stack, vhost, database, folder, 2) as run:
        async with Client(vhost.url, attempts=None) as client:
            for node in range(nodes):
                await client.node_put(f"cn-{node}", inventory=INVENTORY)
        faults = Faults(plan, Random(commands), stack, run.workers, [proxy], Hosts([]), PAUSE_SECONDS)
        url = str(URL(vhost.url).with_port(proxy.port))
        having = asyncio.ensure_future(faults.run())
        try:
            pace = str(commands / plan.seconds)
            await _produce((url, str(journal), str(commands), str(nodes), pace), plan.seconds, deaths)
            await having
        finally:
            having.cancel()
        report = Report()
        await _judge(report, run, journal, commands, nodes)
    report.figures |= {"commands": commands, "producer deaths": deaths, "happened": dict(faults.done)}
    return report


async def _produce(arguments: tuple[str, ...], seconds: float, deaths: int) -> None:
    """A producer that is killed so many times within so many seconds, and started again with its journal."""
    for life in range(deaths + 1):
        process = await asyncio.create_subprocess_exec(sys.executable, "-m", "tests.driver.producer", *arguments)
        try:
            limit = seconds / (deaths + 1) if life < deaths else _ANSWER_SECONDS
            with suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    assert await process.wait() == 0
                    return
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    raise AssertionError("the producer did not come to its end")


async def _judge(report: Report, run: Run, journal: Path, commands: int, nodes: int) -> None:
    """Each id has one outcome, each answer was delivered, and the order of each node was kept."""
    ids = [uuid5(IDS, str(number)) for number in range(commands)]
    told = answered(journal)
    report.faults += [f"{id_} was never answered" for id_ in ids if id_ not in told][:5]
    await run.listener.until(lambda: all(str(id_) in run.listener.finals for id_ in ids), _ANSWER_SECONDS)
    heard = run.listener.finals
    report.faults += [f"{id_} has {len(heard[str(id_)])} outcomes" for id_ in ids if len(heard[str(id_)]) != 1][:5]
    report.faults += [f"{id_} is {told[id_][0]}" for id_ in ids if told.get(id_, ("applied", 0))[0] != "applied"][:5]
    report.faults += _out_of_order(told, ids, nodes)
    verified = await run.operator.run("verify")
    if verified.status != 0:
        report.faults.append(f"verify: {verified.out}{verified.err}")
    memory = resident(journal)
    report.figures["producer's memory in KiB"] = memory[:1] + memory[-1:]


def _out_of_order(told: dict[UUID, tuple[str, int]], ids: list[UUID], nodes: int) -> list[str]:
    found = []
    for at in range(nodes):
        generations = [told[id_][1] for id_ in ids[at::nodes] if id_ in told]
        if generations != sorted(generations):
            found.append(f"the commands for {command(at, nodes).node} were not applied in their order")
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.driver.client", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = {"commands": 50_000, "seconds": 240, "cuts": 30, "broker-restarts": 5, "kills": 10, "deaths": 5}
    for name, default in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"(default {default})")
    return parser.parse_args()


async def _run(given: argparse.Namespace, stack: Stack, folder: Path) -> Report:
    plan = Plan(given.seconds, kills=given.kills, broker_restarts=given.broker_restarts, cuts=given.cuts)
    with new_vhost(stack) as vhost:
        async with new_database(stack) as database:
            return await client_run(
                stack, vhost, database, folder, plan=plan, commands=given.commands, deaths=given.deaths
            )


def main() -> int:
    """Run, print the figures and what is wrong as JSON; exit status 1 if anything is."""
    given = _arguments()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the workers are ended with the driver
    folder = Path(tempfile.mkdtemp(prefix="nodeledger-client-"))
    with temporary_stack() as stack:
        report = asyncio.run(_run(given, stack, folder))
    summary = {"wrong": len(report.faults), **report.figures, "first of them": report.faults[:20], "logs": str(folder)}
    sys.stdout.write(f"{json.dumps(summary, indent=2)}\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
