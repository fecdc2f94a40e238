"""Structured logging: one event per thing that happened, as JSON, or readable on a terminal.

Never logged: keys, passwords, `Authorization`, channel settings, full webhook URLs, bodies, addresses.
"""

import contextlib
import logging
import sys
from dataclasses import dataclass
from typing import Literal, TextIO, cast

import structlog
from structlog.typing import EventDict, WrappedLogger

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_HIDDEN_KEYS = frozenset({"authorization", "token", "password", "secret", "config", "body", "admin_key"})


def configure(log_format: Literal["auto", "json", "text"], level: Literal["debug", "info", "warning", "error"]) -> None:
    """Set up logging for this process; everything goes to stderr."""
    is_text = log_format == "text" or (log_format == "auto" and sys.stderr.isatty())
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        _hide,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    ending: list[structlog.typing.Processor] = (
        # Plain tracebacks: the colourful ones print local variables, and those may hold a secret.
        [_escape, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
        if is_text
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    structlog.configure(
        processors=[*shared, *ending],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lossy(sys.stderr))),
        cache_logger_on_first_use=False,
    )
    # What libraries log: warnings and worse only, and nothing about single requests.
    logging.basicConfig(
        stream=sys.stderr, level=logging.WARNING, format="%(levelname)s %(name)s %(message)s", force=True
    )


@dataclass(frozen=True, eq=False)
class _Lossy:
    """A stream that may lose what it is given: a full disk, or a reader that died, must end no request and no loop."""

    stream: TextIO

    def write(self, text: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.write(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stream.flush()


def _escape(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Text of others, such as the path of a request, cannot steer a terminal. JSON has escapes of its own."""
    for key, value in event.items():
        if isinstance(value, str) and not value.isprintable():
            event[key] = "".join(
                each if each.isprintable() else each.encode("unicode_escape").decode() for each in value
            )
    return event


def _hide(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """A field with a telling name never leaves, whoever put it there."""
    for key in _HIDDEN_KEYS.intersection(event):
        event[key] = "****"
    return event
