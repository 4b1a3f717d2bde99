"""A fault run on the RabbitMQ of another Debian's folder: `tests/faults/rabbitmq4` prepares it and calls this."""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Final

from deploy.lib.processes import Account
from deploy.lib.rabbitmq import RabbitMQ
from deploy.lib.stack import Stack
from tests.driver.faults import Plan
from tests.driver.run import Report, fault_run
from tests.driver.workload import Shape
from tests.servers import new_database, new_vhost, stack_folder, start_stack

PLAN: Final = {"seconds": 20, "kills": 4, "pauses": 1, "broker_restarts": 1, "database_restarts": 1, "cuts": 3}
DEFAULTS: Final = {"seed": 5, "commands": 3000, "nodes": 40, "workers": 3} | PLAN


@dataclass(frozen=True, slots=True)
class Elsewhere(RabbitMQ):
    """A broker that runs with another root; its folder has the same name there."""

    def _evaluate(self, expression: str) -> None:
        self.control("eval", f"{expression}.")


def elsewhere(stack: Stack, root: Path) -> Stack:
    """The stack with its broker replaced by the one below ``root``."""
    owner = stack.rabbitmq.folder.stat()
    # Whoever may run chroot is root, so the broker has a user of its own, by number: names differ over there.
    prefix = ("/usr/sbin/chroot", f"--userspec={owner.st_uid}:{owner.st_gid}", "--groups=", str(root))
    same = {field.name: getattr(stack.rabbitmq, field.name) for field in fields(RabbitMQ)}
    account = Account(stack.rabbitmq.account.name, prefix)
    broker = Elsewhere(**{**same, "folder": stack.folder / "rabbitmq-elsewhere", "account": account})
    return replace(stack, rabbitmq=broker)


async def _run(stack: Stack, logs: Path, shape: Shape, plan: Plan, workers: int) -> Report:
    with new_vhost(stack) as vhost:
        async with new_database(stack) as database:
            report = await fault_run(stack, vhost, database, logs, shape=shape, plan=plan, workers=workers)
    report.figures["broker"] = stack.rabbitmq.control("version").strip()
    return report


def main() -> int:
    """Run, print the figures and what is wrong as JSON; exit status 1 if anything is."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    for name, default in DEFAULTS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    given = parser.parse_args()
    shape = Shape(seed=given.seed, commands=given.commands, nodes=given.nodes, phases=2)
    plan = Plan(*(getattr(given, name) for name in PLAN))
    logs = Path(tempfile.mkdtemp(prefix="nodeledger-driver-"))
    with stack_folder() as folder:
        usual = start_stack(folder)
        usual.rabbitmq.stop()
        stack = elsewhere(usual, given.root)
        try:
            stack.rabbitmq.start()
            report = asyncio.run(_run(stack, logs, shape, plan, given.workers))
        finally:
            stack.rabbitmq.stop()
    summary = {"wrong": len(report.faults), **report.figures, "first of them": report.faults[:20], "logs": str(logs)}
    sys.stdout.write(f"{json.dumps(summary, indent=2)}\n")
    if not report.faults:
        shutil.rmtree(logs)
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
