"""What a read asks for, and whom: the store, the window, filters, and the place where a page goes on."""

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, Final, TypeVar, cast, get_args

import orjson
from starlette.requests import Request

from lifesign.clock import EpochMs, rfc3339
from lifesign.http.context import context_of
from lifesign.http.ok import Json, MalformedParameter, query_integer
from lifesign.telemetry.mapping import session_id_of
from lifesign.telemetry.records import SignalType
from lifesign.telemetry.rules import InvalidCursor
from lifesign.telemetry.store import Filter, SpanStore

MAX_MINUTES: Final = 43_200
MAX_IDS: Final = 100
_MINUTE_MS: Final = 60_000
_LONGEST_CURSOR: Final = 4000
"""As long as one may be of an environment of 256 characters, each of which JSON writes as six."""
_SIGNALS: Final[tuple[SignalType, ...]] = get_args(SignalType)

Place = TypeVar("Place")


def store_of(request: Request) -> SpanStore:
    """The store of this node."""
    return cast("SpanStore", request.app.state.store)


def window_of(request: Request, *, default_minutes: int) -> tuple[EpochMs, EpochMs]:
    """Since when and until when arrivals count. Raises InvalidParameter."""
    minutes = query_integer(request, "since_minutes", 1, MAX_MINUTES, default=default_minutes)
    now = context_of(request).now()
    # The end does not count, and what arrived in this very millisecond shall: whoever was answered may read.
    return EpochMs(now - minutes * _MINUTE_MS), EpochMs(now + 1)


def shown_window(window: tuple[EpochMs, EpochMs]) -> Json:
    """A window as every answer shows it."""
    since, until = window
    return {"since": rfc3339(since), "until": rfc3339(until), "basis": "received_at"}


def filter_of(request: Request) -> Filter:
    """Which records. Raises InvalidParameter."""
    signal_type = request.query_params.get("signal_type")
    chosen = next((each for each in _SIGNALS if each == signal_type), None)
    if signal_type is not None and chosen is None:
        raise MalformedParameter("signal_type", f"must be one of {', '.join(_SIGNALS)}")
    session_id, trace_id = text_of(request, "session_id"), text_of(request, "trace_id")
    return Filter(
        environment=text_of(request, "environment"),
        session_id=None if session_id is None else session_of(session_id),
        trace_id=None if trace_id is None else trace_id.lower(),
        signal_type=chosen,
    )


def text_of(request: Request, name: str) -> str | None:
    """A text to compare with. U+0000, of which PostgreSQL cannot be asked, is kept as U+FFFD, as it is stored."""
    value = request.query_params.get(name)
    return None if value is None else storable(value)


def session_of(asked: str) -> str:
    """The session id that is asked for, as it is stored: whoever sent a long one knows no other than what they sent."""
    return session_id_of(storable(asked)) or ""


def storable(text: str) -> str:
    """A text as it is stored, so that it may be compared."""
    return text.replace("\x00", "\ufffd")


def ids_of(request: Request) -> list[str] | None:
    """The records asked for by id; None when they are not. Raises InvalidParameter."""
    value = request.query_params.get("ids")
    if value is None:
        return None
    ids = [each.strip() for each in value.split(",") if each.strip()]
    if not 1 <= len(ids) <= MAX_IDS:
        raise MalformedParameter("ids", f"must be 1 to {MAX_IDS} record ids, separated by commas")
    return ids


# Cursors ------------------------------------------------------------------------------------------------------------
def cursor_of(route: str, project_id: str, place: Sequence[int | str]) -> str:
    """Where the next page begins: good for one route of one project."""
    return base64.urlsafe_b64encode(orjson.dumps([route, project_id, *place])).decode().rstrip("=")


def place_of(request: Request, route: str, project_id: str, read: Callable[[int, str], Place]) -> Place | None:
    """The place that `cursor_of` was given; None without a cursor. Raises InvalidCursor."""
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return None
    match _told(cursor):
        # `true` is a number to Python, and none to any database.
        case [str(its_route), str(its_project), int(number), str(text)] if (
            (its_route, its_project) == (route, project_id)
            and not isinstance(number, bool)
            and abs(number) < 2**63
            and "\x00" not in text
        ):
            return read(number, text)
    raise InvalidCursor


def _told(cursor: str) -> Any:  # Any: JSON of whoever made it
    if len(cursor) > _LONGEST_CURSOR:
        return None
    try:
        raw = base64.b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        return orjson.loads(raw)
    except (binascii.Error, UnicodeError, orjson.JSONDecodeError):
        return None
