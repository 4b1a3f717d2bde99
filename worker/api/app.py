"""Putting the read API and the dashboard on a web application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from aiohttp import web

from worker.api import dashboard
from worker.api.problems import told
from worker.api.reading import Reading

if TYPE_CHECKING:
    import asyncpg

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def add_read_api(app: web.Application, pool: asyncpg.Pool) -> None:
    """Add the dashboard at ``/`` and the endpoints under ``/v1`` to an application that has not started."""
    app.add_routes([*dashboard.routes(), *Reading(pool).routes()])
    app.middlewares.append(told)
    app.on_response_prepare.append(_guard)


async def _guard(_request: web.BaseRequest, response: web.StreamResponse) -> None:
    for name, value in _HEADERS.items():
        response.headers.setdefault(name, value)
