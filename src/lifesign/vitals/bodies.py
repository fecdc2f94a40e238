"""Traces as JSON and CSV have them: strictly what spec "Vitals", section 5.3 names, every mistake in its words."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import msgspec
import numpy as np
import orjson

from lifesign.vitals.analyze import require_method, require_mode
from lifesign.vitals.rules import DEMO_S, InvalidTraces, TooManySamples
from lifesign.vitals.signal.params import Method, Mode
from lifesign.vitals.signal.slow import Calibration, calibration_of
from lifesign.vitals.signal.traces import MAX_ROIS, MAX_SAMPLES, NOT_INCREASING, Samples, samples_of

NO_OBJECT = "Request body must be a JSON object"
BAD_CALIBRATION = (
    "calibration must be 2 to 50 pairs of ratio and spo2, with ratio from 0 to 100, "
    "and spo2 from 70 to 100 and at least 3 points apart"
)
_BAD_RGB = "rgb values must be finite numbers between 0 and 255"
_OFF = np.full(3, 0.0)
_MAX_WATCH_BYTES = 16_384
_MS = 1000
_MIN_PAIRS, _MAX_PAIRS = 2, 50
_MIN_SPO2, _MAX_SPO2, _MIN_SPAN = 70, 100, 3
# Of skin it is about one. Beyond these, or closer to each other, there is no line through them that arithmetic knows.
_MAX_RATIO, _LEAST_APART = 100, 1e-6


@dataclass(frozen=True, slots=True)
class Wanted:
    """One recording, and what is wanted of it."""

    samples: Samples
    mode: Mode
    method: Method
    fps: float | None
    calibration: Calibration | None
    debug: bool
    store: bool


# Any, below: JSON before it was looked at.
def document_in(raw: bytes) -> dict[str, Any]:
    """The JSON object in a body. Raises InvalidTraces."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError:
        try:
            # Knows NaN and Infinity, which senders are told about where they stand.
            document = json.loads(raw)
        except (ValueError, RecursionError):
            raise InvalidTraces(NO_OBJECT) from None
    if not isinstance(document, dict):
        raise InvalidTraces(NO_OBJECT)
    return document


class _Glance(msgspec.Struct):
    """What is looked at of a body before the rest, of which nothing is built: a twentieth of the time."""

    watch: msgspec.Raw = msgspec.Raw()


NOT_GLANCED_AT = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


def glanced_at_watch(raw: bytes) -> object:
    """The member `watch` of a body, unchecked; None where there is none.

    One of an unlikely size is no watch: an empty text stands for it. Raises NOT_GLANCED_AT for a body of which only
    `watch_in_body` can tell.
    """
    found = bytes(msgspec.json.decode(raw, type=_Glance).watch)
    if len(found) > _MAX_WATCH_BYTES:
        return ""
    return msgspec.json.decode(found) if found else None


def watch_in_body(raw: bytes) -> object:
    """The same of whatever `document_in` takes; None where the body is no JSON object."""
    try:
        return glanced_at_watch(raw)
    except NOT_GLANCED_AT:
        pass
    try:
        return document_in(raw).get("watch")
    except InvalidTraces:
        return None


def require_short(document: Mapping[str, Any]) -> None:
    """The demo takes one recording of a minute at most. Raises InvalidTraces."""
    if "recordings" in document:
        raise InvalidTraces("The demo takes one recording")
    times, rgb, fps = document.get("t_ms"), document.get("rgb"), _number(document.get("fps"))
    span_s = 0.0
    if isinstance(times, list) and len(times) > 1:
        first, last = _number(times[0]), _number(times[-1])
        if first is not None and last is not None:
            span_s = (last - first) / _MS
    elif isinstance(rgb, list) and fps is not None and fps > 0:
        span_s = len(rgb) / fps
    if span_s > DEMO_S + 1:
        raise InvalidTraces(f"The demo takes at most {DEMO_S} s")


def recording_in(document: object) -> Wanted:
    """The recording that a JSON object holds. Raises InvalidTraces, TooManySamples."""
    if not isinstance(document, dict):
        raise InvalidTraces(NO_OBJECT)
    mode, method = require_mode(_word(document, "mode", "rest")), require_method(_word(document, "method", "pos"))
    fps = document.get("fps")
    times = _numbers(document.get("t_ms"), NOT_INCREASING)
    rgb, off = colours_in(document.get("rgb"))
    samples = samples_of(
        rgb,
        times,
        fps=fps,
        off=off,
        face=_numbers(document.get("face"), "face must hold finite numbers from 0 to 1"),
        box=_rows(document.get("box"), "box must have 3 numbers for every sample"),
        clipped=_rows(document.get("clipped"), "clipped must hold finite numbers from 0 to 1"),
    )
    return Wanted(
        samples,
        mode,
        method,
        None if fps is None else float(fps),
        calibration_in(document.get("calibration")),
        _flag(document, "debug"),
        _flag(document, "store"),
    )


def colours_in(value: object) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any] | None]:
    """`rgb` as (n, regions, 3), and which regions are off. Raises InvalidTraces, TooManySamples."""
    if not isinstance(value, list):
        raise InvalidTraces("rgb must be an array with one entry for every sample")
    if len(value) > MAX_SAMPLES:
        raise TooManySamples("Too many samples")
    if not value:
        raise InvalidTraces("Too few samples")
    try:
        return np.array(msgspec.convert(value, list[list[float]])), None
    except (msgspec.ValidationError, ValueError):
        pass
    try:
        rows = msgspec.convert(value, list[list[list[float] | None] | None])
    except (msgspec.ValidationError, ValueError):
        raise InvalidTraces(_BAD_RGB) from None
    width = max((len(row) for row in rows if row is not None), default=1)
    if not 1 <= width <= MAX_ROIS:
        raise InvalidTraces(f"rgb must hold one [r, g, b], or 1 to {MAX_ROIS} of them, for every sample")
    off = np.zeros((len(rows), width), np.bool_)
    rgb = np.zeros((len(rows), width, 3))
    for index, row in enumerate(rows):
        regions = [None] * width if row is None else row
        if len(regions) != width:
            raise InvalidTraces("rgb must have the same regions in every sample")
        for column, colour in enumerate(regions):
            if colour is None:
                off[index, column] = True
            elif len(colour) != 3:  # noqa: PLR2004 - RGB
                raise InvalidTraces(f"rgb must hold one [r, g, b], or 1 to {MAX_ROIS} of them, for every sample")
            else:
                rgb[index, column] = colour
    return rgb, off if off.any() else None


def calibration_in(value: object) -> Calibration | None:
    """The calibration that a member holds; None for none. Raises InvalidTraces."""
    if value is None:
        return None
    pairs = value if isinstance(value, list) else []
    if not _MIN_PAIRS <= len(pairs) <= _MAX_PAIRS:
        raise InvalidTraces(BAD_CALIBRATION)
    known: list[tuple[float, float]] = []
    for pair in pairs:
        ratio, percent = (pair.get("ratio"), pair.get("spo2")) if isinstance(pair, dict) else (None, None)
        known.append((_finite(ratio), _finite(percent)))
    ratios, percents = [ratio for ratio, _ in known], [percent for _, percent in known]
    spans = max(percents) - min(percents) >= _MIN_SPAN and max(ratios) - min(ratios) >= _LEAST_APART
    is_within = (
        min(percents) >= _MIN_SPO2 and max(percents) <= _MAX_SPO2 and 0 <= min(ratios) <= max(ratios) <= _MAX_RATIO
    )
    if not spans or not is_within:
        raise InvalidTraces(BAD_CALIBRATION)
    return calibration_of(known)


def _finite(value: object) -> float:
    number = _number(value)
    if number is None:
        raise InvalidTraces(BAD_CALIBRATION)
    return number


def _number(value: object) -> float | None:
    """A finite number; None for anything else. Whole numbers in JSON may be larger than any float."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if isfinite(number) else None


def _word(document: Mapping[str, Any], name: str, default: str) -> str:
    value = document.get(name)
    return default if value is None else str(value)


def _flag(document: Mapping[str, Any], name: str) -> bool:
    value = document.get(name)
    if value is not None and not isinstance(value, bool):
        raise InvalidTraces(f"{name} must be true or false")
    return bool(value)


def _numbers(value: object, bad: str) -> Sequence[float] | None:
    try:
        return None if value is None else msgspec.convert(value, list[float])
    except (msgspec.ValidationError, ValueError):
        raise InvalidTraces(bad) from None


def _rows(value: object, bad: str) -> Sequence[Sequence[float]] | None:
    try:
        rows = None if value is None else msgspec.convert(value, list[list[float]])
    except (msgspec.ValidationError, ValueError):
        raise InvalidTraces(bad) from None
    if rows is not None and len({len(row) for row in rows}) > 1:
        raise InvalidTraces(bad)
    return rows


# CSV ----------------------------------------------------------------------------------------------------------------
def recording_in_csv(text: str) -> Wanted:
    """The recording in a table. Raises InvalidTraces.

    Its heading names `t_ms`; then `r`, `g`, `b`, or `NAME_r`, `NAME_g`, `NAME_b` for each region; `face` may be there.
    An empty cell: the region is off. Other columns, such as that of a contact sensor, are left alone.
    """
    rows = list(csv.reader(io.StringIO(text)))
    heading = [each.strip() for each in rows[0]] if rows else []
    regions = [each.removesuffix("r") for each in heading if each == "r" or each.endswith("_r")]
    wanted = [f"{region}{channel}" for region in regions for channel in "rgb"]
    if "t_ms" not in heading or not regions or not set(wanted) <= set(heading):
        raise InvalidTraces("a CSV file needs the columns t_ms, r, g, b, or NAME_r, NAME_g, NAME_b for each region")
    table = [row for row in rows[1:] if row]

    def column(name: str) -> list[float | None]:
        index = heading.index(name)
        return [_cell(row[index] if index < len(row) else "", name, number) for number, row in enumerate(table, 2)]

    columns = np.array([column(name) for name in wanted], np.float64)
    rgb = columns.reshape(len(regions), 3, len(table)).transpose(2, 0, 1)
    off = np.asarray(np.isnan(rgb).any(axis=2), np.bool_)
    samples = samples_of(
        np.where(off[:, :, None], _OFF, rgb),
        np.array(column("t_ms"), np.float64),
        off=off,
        face=np.array(column("face"), np.float64) if "face" in heading else None,
    )
    return Wanted(samples, "rest", "pos", None, None, debug=False, store=False)


def _cell(text: str, name: str, line: int) -> float | None:
    if not text.strip():
        return None
    try:
        return float(text)
    except ValueError:
        raise InvalidTraces(f"line {line}: {name} is no number") from None
