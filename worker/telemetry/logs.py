"""Structured logs on standard error: JSON lines for programs, coloured ones for people, and never a password."""

from __future__ import annotations

import logging
import re
import sys
from contextlib import contextmanager, suppress
from textwrap import indent
from typing import TYPE_CHECKING, Any, Final, Literal, TextIO, cast

import structlog
from structlog.contextvars import bound_contextvars

from worker.printable import escaped, escaped_json, escaped_lines

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from structlog.typing import FilteringBoundLogger, Processor

# Behind a colon anything may be a password, also one that was not written as an address demands.
_CREDENTIALS: Final = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/?#\"'<>:@]*:[^\s\"'<>]*|[^\s/?#\"'<>]*)@")
_NAMED_SECRET: Final = re.compile(
    r"(?i)\b(\w*(?:password|passwd|passphrase|secret|token))(\\?[\"']?\s*[=:]\s*)"
    r"(?:(\\\")(?:(?!\\\")[^\"])+|(\")(?:\\.|[^\"\\])+|(')[^'\"]+|[^\s\"'&,;\\]+)"
)
_CHATTY: Final = ("aio_pika", "aiormq", "aiohttp.access", "asyncio", "asyncpg")


def redact(text: str) -> str:
    """The text without the user and password of any address in it, and without named secrets."""
    return _NAMED_SECRET.sub(r"\1\2\3\4\5***", _CREDENTIALS.sub(r"\1***@", text))


def configure_logging(
    level: str = "info", style: Literal["json", "console"] = "json", stream: TextIO | None = None
) -> None:
    """Send the logs of this program and of its libraries to ``stream`` (standard error), one form for all.

    Every line carries its time in UTC, its level, its logger, and what
    :func:`log_context` holds. Libraries are heard from ``warning`` on, or from
    ``debug`` on where that is the level.
    """
    output = stream or sys.stderr
    lowest = logging.getLevelNamesMapping()[level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        _named,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    last = _rendering(style, colors=output.isatty())
    structlog.configure(
        processors=[*shared, *last],
        wrapper_class=structlog.make_filtering_bound_logger(lowest),
        logger_factory=lambda name="": _Lines(output, name),
        cache_logger_on_first_use=False,
    )
    _bridge(output, lowest, [*shared, structlog.stdlib.ExtraAdder()], last)


@contextmanager
def silenced() -> Iterator[None]:
    """Write no log meanwhile, neither the program's nor its libraries': a command tells its errors itself."""
    before = structlog.get_config()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        yield
    finally:
        structlog.configure(**before)


def get_logger(name: str) -> FilteringBoundLogger:
    """A logger whose lines carry its name."""
    return cast("FilteringBoundLogger", structlog.get_logger(name))


def log_context(**fields: object) -> AbstractContextManager[Any]:
    """Within it, every line of this task carries these fields: ``command``, ``node``, ``instance`` and the like."""
    return bound_contextvars(**{name: str(value) for name, value in fields.items() if value is not None})


class _Lines:
    """Writes finished lines. A log that cannot be written must not stop the work."""

    def __init__(self, output: TextIO, name: str) -> None:
        self._output = output
        self.name = name

    def msg(self, line: str) -> None:
        with suppress(OSError, ValueError):
            self._output.write(line + "\n")
            self._output.flush()

    log = debug = info = warning = error = critical = exception = fatal = msg


def _rendering(style: str, *, colors: bool) -> list[Processor]:
    trace = structlog.processors.format_exc_info
    if style == "console":
        return [trace, _plain, structlog.dev.ConsoleRenderer(colors=colors), _redacted]
    return [trace, structlog.processors.JSONRenderer(ensure_ascii=False, default=str), _json_plain, _redacted]


def _redacted(_logger: object, _method: str, line: Any) -> str:
    return redact(line)


def _json_plain(_logger: object, _method: str, line: Any) -> str:
    return escaped_json(line)


def _plain(_logger: object, _method: str, event: Any) -> Any:
    """Names and values without control characters, and a traceback's lines such as no log line begins."""
    plain = {escaped(str(name)): _plain_value(value) for name, value in event.items()}
    if trace := event.get("exception"):
        plain["exception"] = indent(escaped_lines(str(trace)), "  ")
    return plain


def _plain_value(value: object) -> object:
    return value if isinstance(value, (bool, int, float)) or value is None else escaped(str(value))


def _named(logger: Any, _method: str, event: Any) -> Any:
    record = event.get("_record")
    event["logger"] = logger.name if record is None else record.name
    return event


def _bridge(output: TextIO, lowest: int, before: list[Processor], last: list[Processor]) -> None:
    """Let the libraries' lines go the same way."""
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    handler = logging.StreamHandler(output)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=before, processors=[remove, *last]))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(lowest)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(logging.DEBUG if lowest <= logging.DEBUG else logging.WARNING)
    logging.captureWarnings(capture=True)
    logging.raiseExceptions = False
