"""The schema's way forward: numbered files, each applied once, and a check that database and code agree."""

from __future__ import annotations

from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import asyncpg

from worker.errors import OperationError
from worker.ledger import roles
from worker.ledger.statements import Connection, statement

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

_FOLDER: Final = files("worker.ledger") / "migrations"
_LOCK_SECONDS: Final = 10
"""Longer than a worker's batch holds what a step may need; who holds it longer is named instead of waited for."""
_MAX_CONFLICTS: Final = 20
_BUILT_FOR: Final = 150000


class SchemaError(OperationError):
    """The database cannot be brought to this version's schema; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema: ``name`` orders it, ``checksum`` shows that it did not change since."""

    name: str
    text: str
    checksum: str


@cache
def migrations() -> tuple[Migration, ...]:
    """Every step this version knows, in order."""
    found = sorted(entry.name for entry in _FOLDER.iterdir() if entry.name.endswith(".sql"))
    texts = {name.removesuffix(".sql"): (_FOLDER / name).read_text("utf-8") for name in found}
    return tuple(Migration(name, text, sha256(text.encode()).hexdigest()) for name, text in texts.items())


async def upgrade(connection: Connection) -> list[str]:
    """Bring the database to this version's schema, as its owner; returns the names of the steps applied.

    Safe to run again, and by several at once: each step is one transaction
    under a lock. Roles, their timeouts and their privileges are put right too,
    as far as the owner may; what it may not, :func:`check` names.

    Raises:
        SchemaError: a role is missing and may not be created, or the database
            has steps that this version does not know or knows otherwise, or
            another session holds what has to be changed; it is named.
    """
    if refused := await roles.create_roles(connection):
        raise SchemaError(f"run this as a superuser first: {'; '.join(refused)}")
    await roles.apply_settings(connection)
    await _prepare(connection)
    try:
        applied = [step.name for step in migrations() if await _apply(connection, step)]
        async with _alone(connection):
            for command in await roles.grant_differences(connection):
                await connection.execute(command)
    except asyncpg.LockNotAvailableError:
        holders = await connection.fetch(statement("lock_holders"))
        named = ", ".join("pid {} ({}, application {!r})".format(*holder) for holder in holders)
        raise SchemaError(
            f"the schema is in use: end what holds it and run this again; sessions there now: {named or 'none'}"
        ) from None
    return applied


async def _prepare(connection: Connection) -> None:
    """Make the record of steps, which is also what is locked; others may be doing the same."""
    for _ in range(_MAX_CONFLICTS):
        with suppress(asyncpg.UniqueViolationError, asyncpg.DuplicateSchemaError, asyncpg.DuplicateTableError):
            async with connection.transaction():
                await connection.execute(statement("migration_prepare"))
            return


@asynccontextmanager
async def _alone(connection: Connection) -> AsyncIterator[None]:
    """A transaction beside which nobody else changes the schema, and which does not wait without end."""
    async with connection.transaction():
        await connection.execute(f"SET LOCAL lock_timeout = {round(_LOCK_SECONDS * 1000)}")
        await connection.execute(statement("migration_lock"))
        yield


async def _apply(connection: Connection, step: Migration) -> bool:
    """Apply a step unless it is there; whether it was not.

    Raises:
        SchemaError: the database has steps that this version does not know or knows otherwise.
    """
    async with _alone(connection):
        done = await _applied(connection)
        if faults := _faults(done):
            raise SchemaError("; ".join(faults))
        if step.name in done:
            return False
        await connection.execute(step.text)
        await connection.execute(statement("migration_record"), step.name, step.checksum)
    return True


async def check(connection: Connection) -> list[str]:
    """What is wrong with the schema, the roles and their privileges, each with what fixes it; empty if nothing is.

    The worker's settings are not looked at: every worker puts them right when it connects.
    """
    problems = []
    if connection.get_server_version().major * 10_000 < _BUILT_FOR:
        problems.append("the server is older than PostgreSQL 15: upgrade it")
    if await connection.fetchval("SELECT to_regclass('nodeledger.migration')") is None:
        return [*problems, "the schema is not there: run `nodeledger db upgrade`"]
    done = await _applied(connection)
    problems += _faults(done)
    problems += [
        f"migration {step.name} is not applied: run `nodeledger db upgrade`"
        for step in migrations()
        if step.name not in done
    ]
    if missing := await roles.missing_roles(connection):
        return problems + [f"role {role} is missing: run `CREATE ROLE {role} LOGIN` as a superuser" for role in missing]
    problems += [
        f"privileges differ: run `nodeledger db upgrade`, or `{command}`"
        for command in await roles.grant_differences(connection)
    ]
    return problems + await roles.excess(connection)


async def _applied(connection: Connection) -> dict[str, str]:
    return {row["name"]: row["checksum"] for row in await connection.fetch(statement("migrations_applied"))}


def _faults(done: dict[str, str]) -> list[str]:
    """Steps in the database that this version does not know, or knows with another text."""
    known = {step.name: step.checksum for step in migrations()}
    return [
        f"migration {name} was applied by a newer version: run that version"
        if name not in known
        else f"migration {name} was applied with another text: restore the version that applied it"
        for name, checksum in done.items()
        if known.get(name) != checksum
    ]
