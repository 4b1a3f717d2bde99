"""The endpoints under ``/v1``: what the ledger says, as JSON. Nothing here changes anything."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from aiohttp import web
from pydantic_core import to_json

from schemas.base import WRITTEN
from worker.api.parameters import Parameters, read_uuid, wrong
from worker.api.problems import ProblemError
from worker.ledger import dead_letters, readers
from worker.ledger.dead_letters import LetterFilter, LetterState
from worker.ledger.drift import DriftFilter, drift
from worker.ledger.history import HistoryFilter, history, use_over_time

if TYPE_CHECKING:
    import asyncpg

    from worker.ledger.statements import Connection

_AT_ONCE: Final = 2
_WAIT_SECONDS: Final = 5.0
_STATES: Final = ("open", "replayed", "resolved", "discarded")


class Reading:
    """Handlers that share a worker's pool of connections, and never take more than two of them."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._room = asyncio.Semaphore(_AT_ONCE)

    def routes(self) -> list[web.RouteDef]:
        """The endpoints."""
        return [
            web.get("/v1/nodes", self.nodes),
            web.get("/v1/nodes/{name}", self.node),
            web.get("/v1/instances/{id}", self.instance),
            web.get("/v1/usage", self.usage),
            web.get("/v1/history", self.history),
            web.get("/v1/outcomes/{command}", self.outcome),
            web.get("/v1/dead-letters", self.dead_letters),
            web.get("/v1/drift", self.drift),
        ]

    async def nodes(self, request: web.Request) -> web.Response:
        """A page of nodes by name; ``next`` is the ``after`` of the following one."""
        query = Parameters(request, ("after", "limit"))
        limit = query.limit()
        async with self._connection() as connection:
            found = await readers.nodes(connection, after=query.text("after") or "", limit=limit)
        return _page("nodes", found, found[-1].node if len(found) == limit else None)

    async def node(self, request: web.Request) -> web.Response:
        """Everything about one node."""
        Parameters(request, ())
        async with self._connection() as connection:
            found = await readers.node(connection, _name(request))
        return _one(found, "node")

    async def instance(self, request: web.Request) -> web.Response:
        """One instance, deleted or not, and what it holds."""
        Parameters(request, ())
        identity = read_uuid("id", request.match_info["id"])
        async with self._connection() as connection:
            found = await readers.instance(connection, identity)
        return _one(found, "instance")

    async def usage(self, request: web.Request) -> web.Response:
        """Every resource over all nodes, and what projects are charged; over a period with ``since``."""
        query = Parameters(request, ("project", "since", "until"))
        project, since, until = query.text("project"), query.moment("since"), query.moment("until")
        if (since is None) != (until is None) or (since is not None and project is None):
            raise wrong("since", "goes together with until and project")
        async with self._connection() as connection:
            if project is not None and since is not None and until is not None:
                seconds = await use_over_time(connection, project, since, until)
                return _answer({"project": project, "since": since, "until": until, "amount_seconds": seconds})
            charged = await readers.project_usage(connection, project)
            fleet = await readers.fleet_usage(connection)
        resources = [{"resource": name, **asdict(amounts)} for name, amounts in fleet.items()]
        return _answer({"resources": resources, "projects": charged})

    async def history(self, request: web.Request) -> web.Response:
        """A page of the ledger's lines, the newest first; ``next`` is the ``after`` of the following, older one."""
        query = Parameters(request, ("node", "instance", "project", "since", "until", "after", "limit"))
        which = HistoryFilter(
            query.text("node"),
            query.uuid("instance"),
            query.text("project"),
            query.moment("since"),
            query.moment("until"),
        )
        limit = query.limit()
        async with self._connection() as connection:
            found = await history(connection, which, before=query.number("after"), limit=limit)
        return _page("entries", found, found[-1].seq if len(found) == limit else None)

    async def outcome(self, request: web.Request) -> web.Response:
        """The stored outcome of a command."""
        Parameters(request, ())
        command = read_uuid("command", request.match_info["command"])
        async with self._connection() as connection:
            found = await readers.outcome(connection, command)
        return _one(found, "outcome")

    async def dead_letters(self, request: web.Request) -> web.Response:
        """A page of dead letters in the order they came, without their bodies and headers."""
        query = Parameters(request, ("reason", "node", "kind", "state", "after", "limit"))
        which = LetterFilter(
            states=_states(query.text("state")),
            reason=query.text("reason"),
            node=query.text("node"),
            kind=query.text("kind"),
        )
        limit = query.limit()
        async with self._connection() as connection:
            found = await dead_letters.select(connection, which, after=query.number("after") or 0, limit=limit)
        shown = [
            {name: value for name, value in asdict(one).items() if name not in {"body", "headers"}} for one in found
        ]
        return _page("dead_letters", shown, found[-1].id if len(found) == limit else None)

    async def drift(self, request: web.Request) -> web.Response:
        """A page of what differs from the hypervisors, as it was found; with ``resolved`` what is over too."""
        query = Parameters(request, ("node", "kind", "instance", "resolved", "after", "limit"))
        resolved = query.text("resolved")
        if resolved not in {None, "true", "false"}:
            raise wrong("resolved", "should be true or false")
        which = DriftFilter(query.text("node"), query.text("kind"), query.uuid("instance"), resolved == "true")
        limit = query.limit()
        async with self._connection() as connection:
            found = await drift(connection, which, after=query.number("after") or 0, limit=limit)
        return _page("drift", found, found[-1].id if len(found) == limit else None)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, if one is free soon: reading must not hold up the work."""
        async with asyncio.timeout(_WAIT_SECONDS):
            await self._room.acquire()
        try:
            async with self._pool.acquire(timeout=_WAIT_SECONDS) as connection:
                yield connection
        finally:
            self._room.release()


def _states(given: str | None) -> tuple[LetterState, ...]:
    if given is None:
        return dead_letters.UNSETTLED
    if given not in _STATES:
        raise wrong("state", f"should be one of {', '.join(_STATES)}")
    return (cast("LetterState", given),)


def _name(request: web.Request) -> str:
    name = request.match_info["name"]
    if not WRITTEN.allows(name):
        raise ProblemError(HTTPStatus.NOT_FOUND, "there is no such node")
    return name


def _page(name: str, rows: Sequence[object], following: object) -> web.Response:
    return _answer({name: rows, "next": following})


def _one(found: object, what: str) -> web.Response:
    if found is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, f"there is no such {what}")
    return _answer(found)


def _answer(document: object) -> web.Response:
    return web.Response(body=to_json(document), content_type="application/json")
