"""The dashboard: one page that reads ``/v1`` and needs nothing from anywhere else."""

from __future__ import annotations

from importlib.resources import files
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Handler

_FOLDER: Final = files("worker.api") / "page"
_FILES: Final = {
    "/": ("index.html", "text/html"),
    "/page.css": ("page.css", "text/css"),
    "/page.js": ("page.js", "text/javascript"),
}


def routes() -> list[web.RouteDef]:
    """The page and its two companions, read once."""
    return [web.get(path, _serving((_FOLDER / name).read_text("utf-8"), kind)) for path, (name, kind) in _FILES.items()]


def _serving(text: str, kind: str) -> Handler:
    async def serve(_request: web.Request) -> web.Response:
        return web.Response(text=text, content_type=kind)

    return serve
