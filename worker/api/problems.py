"""What the API answers when it cannot answer: a JSON document after RFC 9457."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

import asyncpg
from aiohttp import web
from aiohttp.typedefs import Handler
from pydantic_core import to_json

from worker.errors import NodeledgerError
from worker.telemetry.logs import get_logger

_log = get_logger(__name__)

_AWAY: Final = (
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.InterfaceError,
    asyncpg.QueryCanceledError,
    OSError,
    TimeoutError,
)


class ProblemError(NodeledgerError):
    """A request that cannot be answered as asked: a status, and a sentence for whoever asked."""

    def __init__(self, status: HTTPStatus, detail: str) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail


@web.middleware
async def told(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn what a handler raises into a problem document; nothing of the inside is told."""
    try:
        return await handler(request)
    except ProblemError as error:
        return _document(error.status, error.detail)
    except web.HTTPException as error:
        if error.status < HTTPStatus.BAD_REQUEST:
            raise
        answer = _document(HTTPStatus(error.status), error.reason)
        if "Allow" in error.headers:
            answer.headers["Allow"] = error.headers["Allow"]
        return answer
    except _AWAY as error:
        _log.warning("a reader was turned away", path=request.path, error=type(error).__name__)
        answer = _document(HTTPStatus.SERVICE_UNAVAILABLE, "the database is away or too slow: try again")
        answer.headers["Retry-After"] = "2"
        return answer
    except Exception:  # noqa: BLE001 - one reader's fault must not reach the worker's loop
        _log.exception("a read failed", path=request.path)
        return _document(HTTPStatus.INTERNAL_SERVER_ERROR, "a fault of the server; its log says more")


def _document(status: HTTPStatus, detail: str) -> web.Response:
    body = to_json({"title": status.phrase, "status": int(status), "detail": detail})
    return web.Response(body=body, status=status, content_type="application/problem+json")
