"""Keeping the pages from those who come by a stranger's name, and their connections from taking every descriptor."""

from __future__ import annotations

import socket
from http import HTTPStatus
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from aiohttp import web

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aiohttp.typedefs import Handler, Middleware

MAX_CONNECTIONS: Final = 128
"""Far more than those who read a worker need, far fewer than the descriptors it has."""
_REFUSAL: Final = "this worker is not called by that name: list it in NODELEDGER_HTTP_NAMES to be answered"


def only_for(names: Collection[str]) -> Middleware:
    """Answer a request only if its ``Host`` is an address, ``localhost``, this machine's name or among ``names``.

    A page in a browser can give its own name this machine's address, and would
    be let read what is answered. It cannot choose the name that the browser
    sends. A request without a ``Host`` comes from no browser.
    """
    known = {name.lower() for name in (*names, "localhost", socket.gethostname())}

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        hosts = request.headers.getall("Host", ())
        if all(_is_address(name) or name in known for name in map(_name, hosts)):
            return await handler(request)
        status = HTTPStatus.MISDIRECTED_REQUEST
        problem = {"title": status.phrase, "status": int(status), "detail": _REFUSAL}
        return web.json_response(problem, status=status, content_type="application/problem+json")

    return check


def with_room(server: web.Server | None, connections: int) -> Callable[[], web.RequestHandler]:
    """Accept a further connection, at the expense of the oldest where there are ``connections`` already.

    So who holds many of them loses them, and nobody is kept waiting.
    """
    if server is None:
        raise RuntimeError("the runner is not set up")

    def accept() -> web.RequestHandler:
        held = [connection for connection in server.connections if connection.connected]
        for oldest in held[: max(len(held) - connections + 1, 0)]:
            if oldest.transport is not None:
                oldest.transport.abort()  # closing would first wait for whoever does not read
            oldest.force_close()
        return server()

    return accept


def _name(host: str) -> str:
    """A host without its port."""
    name, colon, port = host.strip().lower().rpartition(":")
    bare = name if colon and (port.isdecimal() or not port) and not port.endswith("]") else host.strip().lower()
    return bare.removeprefix("[").removesuffix("]").removesuffix(".")


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True
