"""The command line: ``nodeledger``. One file a command group; :func:`main` is the way in."""

from __future__ import annotations

__all__ = ["main"]


def main() -> None:
    """Run ``nodeledger`` with the process's arguments, and exit with its status."""
    from worker.cli.app import run

    raise SystemExit(run())
