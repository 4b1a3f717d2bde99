"""`python -m tests.driver`: a fault run of any size, on servers of its own.

With the numbers of the small criterion (the default) or the large one:

    python -m tests.driver --commands 100000 --nodes 500 --workers 4 --seconds 600 --kills 50 --pauses 10 \
        --broker-restarts 10 --database-restarts 10 --cuts 20 --silences 20 --seed 7
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from pathlib import Path

from deploy.lib.stack import Stack
from tests.driver.faults import Plan
from tests.driver.run import Report, fault_run
from tests.driver.workload import Shape
from tests.servers import new_database, new_vhost, start_stack, temporary_stack


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tests.driver", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    numbers = {
        "seed": (1, "of the workload and of the faults' times"),
        "commands": (20_000, "ids, the registration of the nodes included"),
        "nodes": (100, "over how many nodes"),
        "workers": (2, "processes in the pool"),
        "seconds": (60, "how long messages are sent and things break"),
        "kills": (60, "SIGKILLs, each followed by a restart"),
        "pauses": (0, "SIGSTOPs longer than the heartbeat"),
        "broker-restarts": (0, "every other one a crash"),
        "database-restarts": (0, "every other one a crash"),
        "cuts": (0, "connections to broker or database cut"),
        "silences": (0, "half of the hypervisors go and come back; with any, a third of the nodes have one"),
    }
    for name, (default, text) in numbers.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"{text} (default {default})")
    parser.add_argument("--dir", type=Path, help="a stack to use and leave up; without it one of its own")
    parser.add_argument("--logs", type=Path, help="folder for the workers' logs")
    return parser


async def _run(stack: Stack, arguments: argparse.Namespace, logs: Path) -> Report:
    hosted = 1 / 3 if arguments.silences else 0.0
    shape = Shape(arguments.seed, arguments.commands, arguments.nodes, hosted=hosted)
    plan = Plan(
        arguments.seconds,
        arguments.kills,
        arguments.pauses,
        arguments.broker_restarts,
        arguments.database_restarts,
        arguments.cuts,
        arguments.silences,
    )
    with new_vhost(stack) as vhost:
        async with new_database(stack) as database:
            return await fault_run(stack, vhost, database, logs, shape=shape, plan=plan, workers=arguments.workers)


def main() -> int:
    """Run, print the figures and what is wrong as JSON; exit status 1 if anything is."""
    arguments = _parser().parse_args()
    for library in ("aio_pika", "aiormq"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # a broker that goes away is the point
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the workers are ended with the driver
    logs = arguments.logs or Path(tempfile.mkdtemp(prefix="nodeledger-driver-"))
    logs.mkdir(exist_ok=True)
    if arguments.dir is not None:
        report = asyncio.run(_run(start_stack(arguments.dir), arguments, logs))
    else:
        with temporary_stack() as stack:
            report = asyncio.run(_run(stack, arguments, logs))
    summary = {"wrong": len(report.faults), **report.figures, "first of them": report.faults[:20], "logs": str(logs)}
    sys.stdout.write(f"{json.dumps(summary, indent=2)}\n")
    return 1 if report.faults else 0


if __name__ == "__main__":
    sys.exit(main())
