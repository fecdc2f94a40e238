"""OTLP in JSON, as the many exporters write it that were made by hand: lenient in form, strict in meaning."""

import base64
import binascii
import json
from collections.abc import Iterable, Mapping
from typing import Any

import orjson

from lifesign.telemetry.otlp.encoded_protobuf import finite
from lifesign.telemetry.otlp.spans import (
    LATEST_NS,
    MAX_DEPTH,
    MAX_EVENTS,
    MAX_LINKS,
    MAX_NAME,
    NO_SPAN,
    NO_TRACE,
    Batch,
    Cutter,
    InvalidOtlp,
    Rejected,
    Resource,
    Scope,
    Span,
    SpanEvent,
    SpanLink,
    times,
)

# Any, throughout: JSON.
Json = Mapping[str, Any]

_EMPTY: Json = {}
_TRACE_BYTES, _SPAN_BYTES = 16, 8
_MAX_UINT32 = 2**32 - 1
_HEX = frozenset("0123456789abcdef")
_KINDS = {
    "SPAN_KIND_UNSPECIFIED": 0,
    "SPAN_KIND_INTERNAL": 1,
    "SPAN_KIND_SERVER": 2,
    "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4,
    "SPAN_KIND_CONSUMER": 5,
}
_STATUSES = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}
_OTHER_SIGNALS = {
    "resourceLogs": "logs",
    "resource_logs": "logs",
    "resourceMetrics": "metrics",
    "resource_metrics": "metrics",
}


def decode_json(body: bytes, *, arrival_ns: int) -> Batch:
    """The spans of a request. arrival_ns: stands in for times that are missing. Raises InvalidOtlp."""
    request = _parsed(body)
    if not isinstance(request, dict):
        raise InvalidOtlp("The body must be a JSON object with resourceSpans")
    groups = _get(request, "resourceSpans", "resource_spans")
    if not isinstance(groups, list):
        other = next((signal for name, signal in _OTHER_SIGNALS.items() if name in request), None)
        if other is not None:
            raise InvalidOtlp(f"The body holds {other}; only traces are accepted here")
        raise InvalidOtlp("The body must have an array resourceSpans")
    batch = Batch()
    for group in groups:
        if isinstance(group, dict):
            _take_group(group, batch, arrival_ns)
    return batch


def _parsed(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError as error:
        reason = str(error)
    # The standard library takes what Python's own exporters write: NaN, and halves of surrogate pairs.
    try:
        return json.loads(body.decode())
    except (ValueError, RecursionError):
        raise InvalidOtlp(f"The body is not JSON: {reason}") from None


def _take_group(group: Json, batch: Batch, arrival_ns: int) -> None:
    cutter = Cutter()
    told = _object(group.get("resource"))
    attributes, left_out = cutter.attributes(_pairs(told.get("attributes"), cutter))
    resource = Resource(
        cutter.fitted(attributes),
        _count(told, "droppedAttributesCount", "dropped_attributes_count") + left_out,
        cutter.text(_text(group, "schemaUrl", "schema_url"), MAX_NAME),
    )
    # The name before 2022 is still sent by some.
    for part in _list(group, "scopeSpans", "scope_spans") or _list(group, "instrumentationLibrarySpans"):
        if not isinstance(part, dict):
            continue
        of_scope = _object(_get(part, "scope", "instrumentationLibrary"))
        attributes, left_out = cutter.attributes(_pairs(of_scope.get("attributes"), cutter))
        scope = Scope(
            cutter.text(_text(of_scope, "name"), MAX_NAME),
            cutter.text(_text(of_scope, "version"), MAX_NAME),
            cutter.fitted(attributes),
            _count(of_scope, "droppedAttributesCount", "dropped_attributes_count") + left_out,
            cutter.text(_text(part, "schemaUrl", "schema_url"), MAX_NAME),
        )
        for each in _list(part, "spans"):
            if not isinstance(each, dict):
                batch.reject("not an object", "")
                continue
            try:
                span = _span(each, resource, scope, arrival_ns, is_cut=cutter.is_cut)
            except Rejected as refused:
                batch.reject(str(refused), _text(each, "name"))
            else:
                batch.spans.append(span)


def _span(each: Json, resource: Resource, scope: Scope, arrival_ns: int, *, is_cut: bool) -> Span:
    trace_id = _id(_get(each, "traceId", "trace_id"), _TRACE_BYTES)
    if trace_id is None or trace_id == NO_TRACE:
        raise Rejected("invalid traceId")
    span_id = _id(_get(each, "spanId", "span_id"), _SPAN_BYTES)
    if span_id is None or span_id == NO_SPAN:
        raise Rejected("invalid spanId")
    parent_id = _id(_get(each, "parentSpanId", "parent_span_id"), _SPAN_BYTES)
    start = _time(_get(each, "startTimeUnixNano", "start_time_unix_nano"))
    end = _time(_get(each, "endTimeUnixNano", "end_time_unix_nano"))
    start_ns, end_ns, is_skewed = times(start, end, arrival_ns)
    cutter = Cutter(is_cut)
    attributes, left_out = cutter.attributes(_pairs(each.get("attributes"), cutter))
    all_events, all_links = _list(each, "events"), _list(each, "links")
    events = tuple(_event(event, cutter) for event in all_events[:MAX_EVENTS] if isinstance(event, dict))
    links = tuple(_link(link, cutter) for link in all_links[:MAX_LINKS] if isinstance(link, dict))
    lost_events, lost_links = len(all_events) - len(events), len(all_links) - len(links)
    cutter.is_cut = cutter.is_cut or lost_events > 0 or lost_links > 0
    status = _object(each.get("status"))
    return Span(
        trace_id,
        span_id,
        "" if parent_id is None or parent_id == NO_SPAN else parent_id,
        cutter.text(_text(each, "traceState", "trace_state"), MAX_NAME),
        _count(each, "flags"),
        cutter.text(_text(each, "name"), MAX_NAME),
        _enum(each.get("kind"), _KINDS),
        start_ns,
        end_ns,
        cutter.fitted(attributes),
        _count(each, "droppedAttributesCount", "dropped_attributes_count") + left_out,
        events,
        _count(each, "droppedEventsCount", "dropped_events_count") + lost_events,
        links,
        _count(each, "droppedLinksCount", "dropped_links_count") + lost_links,
        _enum(status.get("code"), _STATUSES),
        cutter.text(_text(status, "message")),
        resource,
        scope,
        cutter.is_cut,
        is_skewed,
    )


def _event(each: Json, cutter: Cutter) -> SpanEvent:
    attributes, left_out = cutter.attributes(_pairs(each.get("attributes"), cutter))
    at = _integer(_get(each, "timeUnixNano", "time_unix_nano"))
    return SpanEvent(
        at if at is not None and 0 <= at <= LATEST_NS else 0,
        cutter.text(_text(each, "name"), MAX_NAME),
        cutter.fitted(attributes),
        _count(each, "droppedAttributesCount", "dropped_attributes_count") + left_out,
    )


def _link(each: Json, cutter: Cutter) -> SpanLink:
    attributes, left_out = cutter.attributes(_pairs(each.get("attributes"), cutter))
    return SpanLink(
        _id(_get(each, "traceId", "trace_id"), _TRACE_BYTES) or "",
        _id(_get(each, "spanId", "span_id"), _SPAN_BYTES) or "",
        cutter.text(_text(each, "traceState", "trace_state"), MAX_NAME),
        cutter.fitted(attributes),
        _count(each, "droppedAttributesCount", "dropped_attributes_count") + left_out,
        _count(each, "flags"),
    )


# Values -------------------------------------------------------------------------------------------------------------
def _pairs(attributes: Any, cutter: Cutter) -> Iterable[tuple[str, Any]]:
    """Keys and values; a plain object is read as well. What has no key is left out."""
    if isinstance(attributes, dict):
        for key, value in attributes.items():
            if key:
                yield cutter.text(key, MAX_NAME), _plain(value, cutter, 1)
    elif isinstance(attributes, list):
        for each in attributes:
            if isinstance(each, dict) and isinstance(key := each.get("key"), str) and key:
                yield cutter.text(key, MAX_NAME), _value(each.get("value"), cutter, 1)


def _value(value: Any, cutter: Cutter, depth: int) -> Any:
    """An AnyValue; what is none of its kinds is nothing."""
    if not isinstance(value, dict):
        return None if value is None else _plain(value, cutter, depth)
    for name, content in value.items():
        if content is None:
            continue
        match name:
            case "stringValue" | "string_value":
                return cutter.text(content if isinstance(content, str) else json.dumps(content))
            case "boolValue" | "bool_value":
                return content if isinstance(content, bool) else str(content).lower() == "true"
            case "intValue" | "int_value":
                number = _integer(content)
                return number if number is not None and -(2**63) <= number < 2**63 else None
            case "doubleValue" | "double_value":
                return _double(content)
            case "bytesValue" | "bytes_value":
                return cutter.text(content) if isinstance(content, str) else None
            case "arrayValue" | "array_value" | "kvlistValue" | "kvlist_value":
                return _nested(name, _object(content).get("values"), cutter, depth)
    return None


def _nested(name: str, values: Any, cutter: Cutter, depth: int) -> Any:
    if depth >= MAX_DEPTH:
        cutter.is_cut = True
        return None
    members = values if isinstance(values, list) else []
    if name.startswith("array"):
        return [_value(each, cutter, depth + 1) for each in members]
    return {
        cutter.text(each["key"], MAX_NAME): _value(each.get("value"), cutter, depth + 1)
        for each in members
        if isinstance(each, dict) and isinstance(each.get("key"), str) and each["key"]
    }


def _plain(value: Any, cutter: Cutter, depth: int) -> Any:
    """A value that is written as JSON would write it."""
    if isinstance(value, str):
        return cutter.text(value)
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, int):
        return value if isinstance(value, bool) or -(2**63) <= value < 2**63 else None
    if not isinstance(value, dict | list):
        return None
    if depth >= MAX_DEPTH:
        cutter.is_cut = True
        return None
    if isinstance(value, list):
        return [_plain(each, cutter, depth + 1) for each in value]
    return {cutter.text(key, MAX_NAME): _plain(each, cutter, depth + 1) for key, each in value.items()}


def _double(content: Any) -> float | str | None:
    if isinstance(content, str):
        try:
            return finite(float(content))
        except ValueError:
            return None
    return finite(float(content)) if isinstance(content, int | float) and not isinstance(content, bool) else None


def _integer(value: Any) -> int | None:
    """A whole number, from a number or its digits; never through a float."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value
    if isinstance(value, str):
        digits = value.strip()
        bare = digits.removeprefix("-")
        return int(digits) if bare.isascii() and bare.isdigit() and len(bare) <= 20 else None  # noqa: PLR2004 - 64 bits
    return None


def _time(value: Any) -> int:
    """Nanoseconds; 0 for none. Raises Rejected."""
    if value is None or value == "":
        return 0
    found = _integer(value)
    if found is None or not 0 <= found <= LATEST_NS:
        raise Rejected("invalid time")
    return found


def _id(value: Any, size: int) -> str | None:
    """Lower-case hex of an id in hex or base64; None for anything else."""
    if not isinstance(value, str):
        return None
    if len(value) == 2 * size:
        lowered = value.lower()
        if _HEX.issuperset(lowered):
            return lowered
    try:
        raw = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return None
    return raw.hex() if len(raw) == size else None


def _enum(value: Any, names: Mapping[str, int]) -> int:
    """A number, or the name of one; 0 for what is neither."""
    if isinstance(value, str):
        return names.get(value, 0) if not value.isdigit() else _enum(int(value[:3]), names)
    is_one = isinstance(value, int) and not isinstance(value, bool) and value in names.values()
    return value if is_one else 0


def _get(each: Json, *names: str) -> Any:
    return next((each[name] for name in names if each.get(name) is not None), None)


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else _EMPTY


def _list(each: Json, *names: str) -> list[Any]:
    value = _get(each, *names)
    return value if isinstance(value, list) else []


def _text(each: Json, *names: str) -> str:
    value = _get(each, *names)
    return value if isinstance(value, str) else ""


def _count(each: Json, *names: str) -> int:
    found = _integer(_get(each, *names))
    return found if found is not None and 0 <= found <= _MAX_UINT32 else 0
