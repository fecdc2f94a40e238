"""OTLP in JSON from the many exporters that were made by hand, put into the form that the specification has."""

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from lifesign.telemetry.otlp import strict
from lifesign.telemetry.otlp.spans import MAX_DEPTH, InvalidOtlp, finite

# Any, throughout: JSON.
Json = Mapping[str, Any]

_NOTHING: Final[Json] = {}
_NO_NUMBER: Final = "?"
_TRUE: Final = frozenset({True, "true", "True", "TRUE"})
_OTHER_SIGNALS: Final = {
    "resourceLogs": "logs",
    "resource_logs": "logs",
    "resourceMetrics": "metrics",
    "resource_metrics": "metrics",
}


def request_of(body: bytes) -> strict.Request:
    """The request, however it is written. Raises InvalidOtlp."""
    told = _parsed(body)
    if not isinstance(told, dict):
        raise InvalidOtlp("The body must be a JSON object with resourceSpans")
    groups = _get(told, "resourceSpans", "resource_spans")
    if not isinstance(groups, list):
        other = next((signal for name, signal in _OTHER_SIGNALS.items() if name in told), None)
        if other is not None:
            raise InvalidOtlp(f"The body holds {other}; only traces are accepted here")
        raise InvalidOtlp("The body must have an array resourceSpans")
    return strict.Request([_group(each) for each in groups if isinstance(each, dict)])


def _parsed(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        reason = str(error)
    # The standard library takes what Python's own exporters write: NaN, halves of surrogate pairs, bare control
    # characters; and what is left of those halves after an encoder that did not care.
    try:
        return json.loads(body.decode(errors="surrogatepass"), strict=False)
    except (ValueError, RecursionError):
        raise InvalidOtlp(f"The body is not JSON: {reason}") from None


def _group(each: Json) -> strict.ResourceSpans:
    resource = _object(each.get("resource"))
    # The name before 2022 is still sent by some.
    parts = _list(each, "scopeSpans", "scope_spans") or _list(
        each, "instrumentationLibrarySpans", "instrumentation_library_spans"
    )
    return strict.ResourceSpans(
        strict.ResourceOfSpans(_attributes(resource), _dropped(resource)),
        [_part(part) for part in parts if isinstance(part, dict)],
        _text(each, "schemaUrl", "schema_url"),
    )


def _part(each: Json) -> strict.ScopeSpans:
    scope = _object(_get(each, "scope", "instrumentationLibrary", "instrumentation_library"))
    return strict.ScopeSpans(
        strict.ScopeOfSpans(_text(scope, "name"), _text(scope, "version"), _attributes(scope), _dropped(scope)),
        [_span(span) if isinstance(span, dict) else None for span in _list(each, "spans")],
        _text(each, "schemaUrl", "schema_url"),
    )


def _span(each: Json) -> strict.OneSpan:
    status = _object(each.get("status"))
    return strict.OneSpan(
        _text(each, "traceId", "trace_id"),
        _text(each, "spanId", "span_id"),
        _text(each, "parentSpanId", "parent_span_id"),
        _text(each, "traceState", "trace_state"),
        _count(each, "flags"),
        _text(each, "name"),
        _number(each, "kind"),
        _number(each, "startTimeUnixNano", "start_time_unix_nano"),
        _number(each, "endTimeUnixNano", "end_time_unix_nano"),
        _attributes(each),
        _dropped(each),
        [_event(event) for event in _list(each, "events") if isinstance(event, dict)],
        _count(each, "droppedEventsCount", "dropped_events_count"),
        [_link(link) for link in _list(each, "links") if isinstance(link, dict)],
        _count(each, "droppedLinksCount", "dropped_links_count"),
        strict.StatusOfSpan(_text(status, "message"), _number(status, "code")),
    )


def _event(each: Json) -> strict.EventOfSpan:
    return strict.EventOfSpan(
        _number(each, "timeUnixNano", "time_unix_nano"), _text(each, "name"), _attributes(each), _dropped(each)
    )


def _link(each: Json) -> strict.LinkOfSpan:
    return strict.LinkOfSpan(
        _text(each, "traceId", "trace_id"),
        _text(each, "spanId", "span_id"),
        _text(each, "traceState", "trace_state"),
        _attributes(each),
        _dropped(each),
        _count(each, "flags"),
    )


# Values --------------------------------------------------------------------------------------------------------------
def _attributes(each: Json) -> list[strict.KeyValue]:
    """Keys and values; a plain object is read as well."""
    attributes = each.get("attributes")
    if isinstance(attributes, dict):
        return [strict.KeyValue(key, _plain(value, 1)) for key, value in attributes.items()]
    return list(_pairs(attributes, 1))


def _pairs(pairs: Any, depth: int) -> Iterator[strict.KeyValue]:
    for each in pairs if isinstance(pairs, list) else ():
        if isinstance(each, dict) and isinstance(key := each.get("key"), str):
            yield strict.KeyValue(key, _value(each.get("value"), depth))


def _value(value: Any, depth: int) -> strict.AnyValue | None:
    """An AnyValue, or a value that is written as JSON would write it."""
    if not isinstance(value, dict):
        return _plain(value, depth)
    if (text := _get(value, "stringValue", "string_value")) is not None:
        return strict.AnyValue(string_value=text if isinstance(text, str) else _scalar_text(text))
    if (boolean := _get(value, "boolValue", "bool_value")) is not None:
        return strict.AnyValue(bool_value=boolean in _TRUE if isinstance(boolean, str | int) else None)
    if (number := _number(value, "intValue", "int_value")) is not None:
        return strict.AnyValue(int_value=number)
    if (double := _get(value, "doubleValue", "double_value")) is not None:
        is_one = isinstance(double, str | float | int) and not isinstance(double, bool)
        return strict.AnyValue(double_value=double if is_one else None)
    if (encoded := _get(value, "bytesValue", "bytes_value")) is not None:
        return strict.AnyValue(bytes_value=encoded if isinstance(encoded, str) else None)
    is_too_deep = depth >= MAX_DEPTH
    if (array := _get(value, "arrayValue", "array_value")) is not None:
        members = () if is_too_deep else _list(_object(array), "values")
        return strict.AnyValue(array_value=strict.ArrayValue([_value(each, depth + 1) for each in members]))
    if (pairs := _get(value, "kvlistValue", "kvlist_value")) is not None:
        members = () if is_too_deep else _list(_object(pairs), "values")
        return strict.AnyValue(kvlist_value=strict.KeyValueList(list(_pairs(members, depth + 1))))
    return None


def _plain(value: Any, depth: int) -> strict.AnyValue | None:
    """A value that is written as JSON would write it."""
    if isinstance(value, str):
        return strict.AnyValue(string_value=value)
    if isinstance(value, bool):
        return strict.AnyValue(bool_value=value)
    if isinstance(value, int):
        return strict.AnyValue(int_value=value)
    if isinstance(value, float):
        return strict.AnyValue(double_value=value)
    is_too_deep = depth >= MAX_DEPTH
    if isinstance(value, list):
        members = () if is_too_deep else value
        return strict.AnyValue(array_value=strict.ArrayValue([_plain(each, depth + 1) for each in members]))
    if isinstance(value, dict):
        pairs = () if is_too_deep else value.items()
        inner = [strict.KeyValue(key, _plain(each, depth + 1)) for key, each in pairs]
        return strict.AnyValue(kvlist_value=strict.KeyValueList(inner))
    return None


def _scalar_text(value: Any) -> str | None:
    """The text of a number or a boolean where text was promised."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return str(finite(value))
    # Python refuses to write numbers of thousands of digits.
    return str(value) if isinstance(value, int) and strict.int64(value) is not None else None


def _number(each: Json, *names: str) -> int | str | None:
    """A number or its text; what is neither is text that is no number."""
    value = _get(each, *names)
    return value if value is None or (isinstance(value, int | str) and not isinstance(value, bool)) else _NO_NUMBER


def _get(each: Json, *names: str) -> Any:
    return next((each[name] for name in names if each.get(name) is not None), None)


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else _NOTHING


def _list(each: Json, *names: str) -> list[Any]:
    value = _get(each, *names)
    return value if isinstance(value, list) else []


def _text(each: Json, *names: str) -> str | None:
    value = _get(each, *names)
    return value if isinstance(value, str) else None


def _count(each: Json, *names: str) -> int | None:
    value = _get(each, *names)
    return strict.whole(value) if isinstance(value, int | str) and not isinstance(value, bool) else None


def _dropped(each: Json) -> int | None:
    return _count(each, "droppedAttributesCount", "dropped_attributes_count")
