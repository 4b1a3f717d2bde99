"""The tree of commands, and how any of them ends."""

from __future__ import annotations

import os
import sys
from dataclasses import asdict
from typing import Annotated, Any, Final

import typer
from typer.main import get_command

from worker.cli import (
    audit,
    bench,
    database,
    dead,
    doctor,
    drift,
    fit,
    history,
    instance,
    node,
    parked,
    send,
    topology,
    usage,
    verify,
)
from worker.cli.common import console, errors

_DESCRIPTION: Final = (
    "The resource ledger of a fleet of hypervisors. Every setting is an environment variable NODELEDGER_…, and so is "
    "every flag: NODELEDGER_<COMMAND>_<FLAG>."
)

_PREFIX: Final = "NODELEDGER_"
_WITHOUT_VARIABLE: Final = ("--help", "--version", "--install-completion", "--show-completion")


def build() -> typer.Typer:
    """Put the commands together. Help has boxes and colours only on a terminal."""
    app = typer.Typer(
        name="nodeledger",
        help=_DESCRIPTION,
        epilog=errors.STATUSES,
        rich_markup_mode="rich" if sys.stdout.isatty() else None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command("worker")(_worker)
    app.add_typer(database.app, name="db")
    app.add_typer(topology.app, name="topology")
    app.command("send")(send.send)
    app.add_typer(node.app, name="node")
    app.add_typer(instance.app, name="instance")
    app.command("usage")(usage.usage)
    app.command("history")(history.history)
    app.add_typer(parked.app, name="parked")
    app.command("fit")(fit.fit)
    app.command("audit")(audit.audit)
    app.command("drift")(drift.drift)
    app.command("verify")(verify.verify)
    app.add_typer(dead.app, name="dead")
    app.command("bench")(bench.bench)
    app.command("doctor")(doctor.doctor)
    return app


def tree() -> Any:
    """The commands as they are run: every flag also has a variable, named after the command and the flag."""
    root = get_command(build())
    _name_variables(root, _PREFIX)
    return root


def _name_variables(command: Any, prefix: str) -> None:
    for parameter in command.params:
        flag = max(parameter.opts, key=len)
        if flag.startswith("--") and flag not in _WITHOUT_VARIABLE:
            parameter.envvar = prefix + flag.removeprefix("--").replace("-", "_").upper()
    for name, below in getattr(command, "commands", {}).items():
        _name_variables(below, f"{prefix}{name.upper()}_")


def run(arguments: list[str] | None = None) -> int:
    """Run one command; the exit status. Errors become one line on standard error."""
    try:
        given = sys.argv[1:] if arguments is None else arguments
        status = tree()(given or ["--help"], prog_name="nodeledger", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the reader left: nothing more to say to it
        return errors.OK
    except (KeyboardInterrupt, typer.Abort):
        return errors.INTERRUPTED
    except Exception as error:  # whatever it is, it is told in one line
        if _debugging():
            raise
        told = errors.explain(error)
        console.note(f"nodeledger: {told.text}")
        return told.status
    return status if isinstance(status, int) else errors.OK


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        console.print_line(f"nodeledger {version('nodeledger')}")
        raise typer.Exit


def _root(
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    _version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    if debug:
        os.environ["NODELEDGER_DEBUG"] = "1"


def _worker(
    settings: Annotated[bool, typer.Option("--settings", help="Print every setting, and exit.")] = False,
    as_json: console.JsonFlag = False,
) -> None:
    """Run one worker until SIGTERM. It is set by environment variables: --settings lists them."""
    if settings:
        from worker.settings import describe_settings

        rows = map(asdict, describe_settings())
        console.print_rows(rows, "variable default description", as_json=as_json)
        return
    from worker.main import run as run_worker

    raise typer.Exit(run_worker())


def _debugging() -> bool:
    return os.environ.get("NODELEDGER_DEBUG", "").lower() in {"1", "true", "yes", "on"}
