"""Lists: `limit` and an opaque `cursor`, by key, so that rows added or removed meanwhile never shift a page."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from starlette.requests import Request

from lifesign.faults import Fault, InvalidInput

T = TypeVar("T")

DEFAULT_LIMIT = 100
MAX_LIMIT = 1000


@dataclass(frozen=True, slots=True)
class Page:
    """What was asked for: at most `limit` rows, after the row whose key is `after`."""

    limit: int
    after: str | None


def page_of(request: Request, is_key: Callable[[str], bool]) -> Page:
    """The page a request asks for; `is_key` tells a key of this list. Raises InvalidInput on `limit` or `cursor`."""
    limit = request.query_params.get("limit", str(DEFAULT_LIMIT))
    if not (limit.isascii() and limit.isdigit() and len(limit) <= len(str(MAX_LIMIT)) and 1 <= int(limit) <= MAX_LIMIT):
        raise InvalidInput(Fault("limit", f"must be between 1 and {MAX_LIMIT}", limit[:100], has_value=True))
    cursor = request.query_params.get("cursor")
    if cursor is None:
        return Page(int(limit), None)
    try:
        after = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4)).decode("ascii")
    except (binascii.Error, UnicodeError, ValueError):
        after = ""
    if not is_key(after):
        raise InvalidInput(Fault("cursor", "is not a cursor of this list"))
    return Page(int(limit), after)


def page_body(
    name: str, rows: Sequence[T], page: Page, *, key: Callable[[T], str], show: Callable[[T], Any]
) -> dict[str, Any]:
    """`{name: [...], "nextCursor"?}` of `rows`, of which the caller fetched one more than `page.limit`."""
    shown = rows[: page.limit]
    body: dict[str, Any] = {name: [show(row) for row in shown]}  # Any: JSON
    if len(rows) > page.limit:
        body["nextCursor"] = cursor_of(key(shown[-1])).rstrip("=")
    return body


def cursor_of(key: str) -> str:
    """The cursor of a page that ends with the row of this key."""
    return base64.urlsafe_b64encode(key.encode()).decode()


def key_in(cursor: str) -> str | None:
    """The key that `cursor_of` was given; None when it writes no such thing."""
    try:
        return base64.b64decode(cursor.encode("ascii"), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeError):
        return None


def is_id(prefix: str) -> Callable[[str], bool]:
    """Tells ids of one kind: the prefix and 32 lower-case hex digits."""
    length = len(prefix) + 33

    def check(value: str) -> bool:
        return len(value) == length and value.startswith(f"{prefix}_") and set(value[len(prefix) + 1 :]) <= _HEX

    return check


_HEX = frozenset("0123456789abcdef")


def query_text(request: Request, name: str) -> str | None:
    """A query parameter that is compared with what is stored. Raises InvalidInput for U+0000."""
    value = request.query_params.get(name)
    if value is not None and "\x00" in value:
        raise InvalidInput(Fault(name, "must not contain U+0000"))
    return value


def query_flag(request: Request, name: str) -> bool:
    """A query parameter that is `true` or `false` (absent: false). Raises InvalidInput."""
    value = request.query_params.get(name, "false")
    if value not in {"true", "false"}:
        raise InvalidInput(Fault(name, "must be true or false", value[:100], has_value=True))
    return value == "true"
