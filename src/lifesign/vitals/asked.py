"""What requests ask for, read out of fields, queries and bodies; every mistake in the words of spec "Vitals"."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import orjson
from starlette.requests import Request

from lifesign.http.paging import is_id, key_in
from lifesign.vitals import rules, service
from lifesign.vitals.rules import FieldRefused
from lifesign.vitals.schemas import (
    DURATION_MS,
    LISTED,
    MAX_DURATION_MS,
    MAX_LISTED,
    MAX_STREAM_S,
    MIN_DURATION_MS,
    MIN_STREAM_S,
    STREAM_S,
)
from lifesign.vitals.sessions import Wish
from lifesign.vitals.uploads import Upload

Json = dict[str, Any]  # Any: JSON


# Fields -------------------------------------------------------------------------------------------------------------
def duration_ms(fields: Mapping[str, str]) -> int:
    """From the first frame to the last. Raises FieldRefused."""
    text = fields.get("duration_ms")
    if text is None:
        return DURATION_MS
    is_number = text.isascii() and text.isdigit() and len(text) <= len(str(MAX_DURATION_MS))
    if not is_number or not MIN_DURATION_MS <= int(text) <= MAX_DURATION_MS:
        raise FieldRefused(f"duration_ms must be an integer between {MIN_DURATION_MS} and {MAX_DURATION_MS}")
    return int(text)


def flag(fields: Mapping[str, str], name: str) -> bool:
    """A field that says yes or no; no when it is missing. Raises FieldRefused."""
    text = fields.get(name, "false")
    if text not in {"true", "false"}:
        raise FieldRefused(f"{name} must be true or false")
    return text == "true"


def frame_times(upload: Upload, lasts_ms: int) -> list[float]:
    """The instant of each frame: as sent, or evenly from the first to the last. Raises FieldRefused."""
    count = len(upload.frames)
    text = upload.fields.get("timestamps_ms")
    if text is None or upload.video is not None:
        return [index * lasts_ms / max(1, count - 1) for index in range(count)]
    bad = FieldRefused("timestamps_ms must be an increasing array with one number per frame")
    try:
        times = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise bad from None
    if not isinstance(times, list) or len(times) != count:
        raise bad
    if any(isinstance(each, bool) or not isinstance(each, int | float) for each in times):
        raise bad
    if any(not later - earlier >= rules.LEAST_STEP_MS for earlier, later in pairwise(map(float, times))):
        raise bad
    return [float(each) for each in times]


def calibration(fields: Mapping[str, str]) -> object:
    """JSON of a calibration, unchecked; None for none. Raises FieldRefused."""
    text = fields.get("calibration")
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        raise FieldRefused("calibration must be JSON") from None


def watch_in_form(fields: Mapping[str, str]) -> object:
    """JSON of a watch, unchecked; None for none. Raises WatchInvalid."""
    text = fields.get("watch")
    try:
        return None if text is None else orjson.loads(text)
    except orjson.JSONDecodeError:
        raise rules.WatchInvalid from None


# Bodies -------------------------------------------------------------------------------------------------------------
def stream_wish(document: Json) -> Wish:
    """What a stream is to be, but for what it watches. Raises FieldRefused, InvalidTraces."""
    from lifesign.vitals.analyze import require_method, require_mode  # noqa: PLC0415 - needs the extra

    max_s, is_kept = document.get("max_s", STREAM_S), document.get("store", False)
    if isinstance(max_s, float) and max_s.is_integer():
        max_s = int(max_s)
    is_whole = isinstance(max_s, int) and not isinstance(max_s, bool)
    if not is_whole or not MIN_STREAM_S <= max_s <= MAX_STREAM_S:
        raise FieldRefused(f"max_s must be an integer between {MIN_STREAM_S} and {MAX_STREAM_S}")
    if not isinstance(is_kept, bool):
        raise FieldRefused("store must be true or false")
    mode, method = document.get("mode", "rest"), document.get("method", "pos")
    return Wish(require_mode(str(mode)), require_method(str(method)), max_s, is_kept)


# Queries ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Page:
    """At most `limit` of what was kept before the measurement `before`; None: from the newest on."""

    limit: int
    before: str | None


def page_of(request: Request) -> Page:
    """The page of measurements that a query names. Raises FieldRefused."""
    limit = request.query_params.get("limit", str(LISTED))
    is_number = limit.isascii() and limit.isdigit() and len(limit) <= len(str(MAX_LISTED))
    if not is_number or not 1 <= int(limit) <= MAX_LISTED:
        raise FieldRefused(f"limit must be an integer between 1 and {MAX_LISTED}")
    cursor = request.query_params.get("cursor")
    before = None if cursor is None else key_in(cursor)
    if cursor is not None and not is_id(service.PREFIX)(before or ""):
        raise FieldRefused("cursor is not a cursor of this list")
    return Page(int(limit), before)
