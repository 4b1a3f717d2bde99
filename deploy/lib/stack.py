"""A private Postgres and a private RabbitMQ under one folder: up, down, and where they are."""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import secrets
import shlex
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from deploy.lib.postgres import LOGINS, SUPERUSER, Postgres, program_folders
from deploy.lib.processes import Account, StackError, free_port, is_free
from deploy.lib.rabbitmq import RabbitMQ

if TYPE_CHECKING:
    from collections.abc import Iterator

# Debian's package of the broker makes this user; it runs both servers when root asks for a stack.
SERVER_USER = "rabbitmq"
PORTS = {"postgres": ("postgres",), "rabbitmq": ("amqp", "distribution", "port_mapper")}
SERVERS = tuple(PORTS)
SECRETS = (SUPERUSER, *LOGINS, "amqp", "cookie")


@dataclass(frozen=True, slots=True)
class Stack:
    """The two servers under one folder."""

    folder: Path
    postgres: Postgres
    rabbitmq: RabbitMQ

    @classmethod
    def at(cls, folder: Path) -> Stack:
        """The stack in `folder`, which `up` has made; raises StackError if there is none."""
        folder = folder.resolve()
        try:
            record = json.loads((folder / "stack.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise StackError(f"there is no stack in {folder}: run `deploy/stack up --dir {folder}`") from None
        except PermissionError:
            raise StackError(f"the stack in {folder} belongs to {folder.owner()}") from None
        account = Account.choose(SERVER_USER, [folder, *program_folders()[:1]])
        ports, words = record["ports"], record["secrets"]
        return cls(
            folder=folder,
            postgres=Postgres(folder / "postgres", account, ports["postgres"], words),
            rabbitmq=RabbitMQ(
                folder / "rabbitmq",
                account,
                port=ports["amqp"],
                distribution_port=ports["distribution"],
                port_mapper_port=ports["port_mapper"],
                password=words["amqp"],
                cookie=words["cookie"],
            ),
        )

    @classmethod
    def up(cls, folder: Path) -> Stack:
        """Make and start what is not there or not running; quick when all is."""
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        with _locked(folder):
            _prepare(folder)
            stack = cls.at(folder)
            stack.postgres.start()
            stack.rabbitmq.start()
        return stack

    def down(self) -> None:
        """Stop both servers and leave no process; the data stays for the next `up`."""
        with _locked(self.folder):
            self.rabbitmq.stop()
            self.postgres.stop()

    def server(self, name: str) -> Postgres | RabbitMQ:
        """One of SERVERS."""
        return self.postgres if name == "postgres" else self.rabbitmq

    def environment(self) -> dict[str, str]:
        """The product's settings for this stack."""
        return {
            "NODELEDGER_AMQP_URL": self.rabbitmq.url(),
            "NODELEDGER_DATABASE_URL": self.postgres.url("nodeledger_worker"),
            "NODELEDGER_DATABASE_OWNER_URL": self.postgres.url("nodeledger_owner"),
            "NODELEDGER_DATABASE_READER_URL": self.postgres.url("nodeledger_reader"),
        }


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """One command at a time changes a stack."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _prepare(folder: Path) -> None:
    """Choose ports and passwords once; a port that a stranger took while the stack was down is chosen anew."""
    file = folder / "stack.json"
    if file.exists():
        record = json.loads(file.read_text(encoding="utf-8"))
        stack = Stack.at(folder)
        stopped = [name for name in SERVERS if not stack.server(name).running()]
        for name in stopped:
            stack.server(name).stop()  # what a crash left would hold on to its ports
    else:
        record = {"ports": {}, "secrets": {name: secrets.token_urlsafe(24) for name in SECRETS}}
        stopped = list(SERVERS)
    ports: dict[str, int] = record["ports"]
    missing = [port for name in stopped for port in PORTS[name] if port not in ports or not is_free(ports[port])]
    for port in missing:
        ports[port] = free_port(set(ports.values()))
    if missing:
        Account(None, ()).write(file, json.dumps(record, indent=2) + "\n")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="deploy/stack", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    helps = {
        "up": "start what does not run yet",
        "down": "stop both servers; the data stays",
        "env": "print the settings as export lines",
        "start": "start one server",
        "stop": "stop one server",
        "restart": "stop and start one server",
        "ctl": "run rabbitmqctl on the private node",
    }
    for name, text in helps.items():
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--dir", type=Path, required=True, help="the stack's folder")
        if name in {"start", "stop", "restart"}:
            command.add_argument("server", choices=SERVERS)
        if name in {"stop", "restart"}:
            command.add_argument("--immediate", action="store_true", help="as if the server crashed")
        if name == "ctl":
            command.add_argument("arguments", nargs=argparse.REMAINDER)
    return parser


def _run(arguments: argparse.Namespace) -> None:
    if arguments.command == "up":
        Stack.up(arguments.dir)
        return
    stack = Stack.at(arguments.dir)
    if arguments.command == "down":
        stack.down()
    elif arguments.command == "env":
        for name, value in stack.environment().items():
            print(f"export {name}={shlex.quote(value)}")
    elif arguments.command == "ctl":
        print(stack.rabbitmq.control(*arguments.arguments), end="")
    else:
        server = stack.server(arguments.server)
        if arguments.command != "start":
            server.stop(immediate=arguments.immediate)
        if arguments.command != "stop":
            server.start()


def main() -> int:
    """Run one command; a reason on standard error and status 1 when it cannot be done."""
    try:
        _run(_parser().parse_args())
    except StackError as error:
        print(f"deploy/stack: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
