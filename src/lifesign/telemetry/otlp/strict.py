"""OTLP in JSON as its specification has it: the types of a request, and the spans in one.

`lenient` puts everything else into these types, so that the limits and the meaning of every field stand once.
"""

import base64
import binascii
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec import Struct

from lifesign.telemetry.otlp.spans import (
    LAST_KIND,
    LAST_STATUS,
    LATEST_NS,
    MAX_ATTRIBUTES,
    MAX_DEPTH,
    MAX_EVENTS,
    MAX_LINKS,
    MAX_NAME,
    NO_SPAN,
    NO_TRACE,
    NUMBER_SIZE,
    PLAINLY_SHORT,
    SPAN_BYTES,
    TRACE_BYTES,
    Attributes,
    Batch,
    Cutter,
    Resource,
    Scope,
    Span,
    SpanEvent,
    SpanLink,
    finite,
    times,
)

_LAST_UINT32: Final = 2**32 - 1
_DIGITS_OF_64_BITS: Final = 20
_KINDS: Final = {
    "SPAN_KIND_UNSPECIFIED": 0,
    "SPAN_KIND_INTERNAL": 1,
    "SPAN_KIND_SERVER": 2,
    "SPAN_KIND_CLIENT": 3,
    "SPAN_KIND_PRODUCER": 4,
    "SPAN_KIND_CONSUMER": 5,
}
_STATUSES: Final = {"STATUS_CODE_UNSET": 0, "STATUS_CODE_OK": 1, "STATUS_CODE_ERROR": 2}


# The request, as the specification has it ----------------------------------------------------------------------------
class Strict(Struct, rename="camel", forbid_unknown_fields=True, gc=False):
    """What has a field more than these is read leniently: it may be a known one in another spelling.

    None everywhere: `null` is as good as absent.
    """


class AnyValue(Strict):
    string_value: str | None = None
    bool_value: bool | None = None
    int_value: int | str | None = None
    double_value: float | str | None = None
    array_value: "ArrayValue | None" = None
    kvlist_value: "KeyValueList | None" = None
    bytes_value: str | None = None


class ArrayValue(Strict):
    values: list[AnyValue | None] | None = None


class KeyValue(Strict):
    key: str | None = None
    value: AnyValue | None = None


class KeyValueList(Strict):
    values: list[KeyValue] | None = None


class EventOfSpan(Strict):
    time_unix_nano: int | str | None = None
    name: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int | None = None


class LinkOfSpan(Strict):
    trace_id: str | None = None
    span_id: str | None = None
    trace_state: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int | None = None
    flags: int | None = None


class StatusOfSpan(Strict):
    message: str | None = None
    code: int | str | None = None


class OneSpan(Strict):
    trace_id: str | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    trace_state: str | None = None
    flags: int | None = None
    name: str | None = None
    kind: int | str | None = None
    start_time_unix_nano: int | str | None = None
    end_time_unix_nano: int | str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int | None = None
    events: list[EventOfSpan] | None = None
    dropped_events_count: int | None = None
    links: list[LinkOfSpan] | None = None
    dropped_links_count: int | None = None
    status: StatusOfSpan | None = None


class ScopeOfSpans(Strict):
    name: str | None = None
    version: str | None = None
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int | None = None


class ScopeSpans(Strict):
    """None among the spans: something that is no object."""

    scope: ScopeOfSpans | None = None
    spans: list[OneSpan | None] | None = None
    schema_url: str | None = None


class ResourceOfSpans(Strict):
    attributes: list[KeyValue] | None = None
    dropped_attributes_count: int | None = None


class ResourceSpans(Strict):
    resource: ResourceOfSpans | None = None
    scope_spans: list[ScopeSpans] | None = None
    schema_url: str | None = None


class Request(Strict):
    resource_spans: list[ResourceSpans]


_request = msgspec.json.Decoder(Request)


def well_formed(body: bytes) -> Request | None:
    """The request, or None when it is not written as the specification says, or is none at all."""
    # NUL is legal in JSON. It is rare, and to look for it once costs less than to look in every text.
    if b"\\u0000" in body:
        return None
    try:
        return _request.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


# From the request to spans -------------------------------------------------------------------------------------------
def add_spans(batch: Batch, request: Request, *, arrival_ns: int, is_clean: bool) -> None:
    """Add its spans within the limits to a batch. is_clean: no text in it has NUL or lone surrogates."""
    cutter = Cutter(is_clean)
    for group in request.resource_spans:
        cutter.is_cut = False
        resource = cutter.fit_resource(_resource(group, cutter))
        is_resource_cut = cutter.is_cut
        for part in group.scope_spans or ():
            cutter.is_cut = is_resource_cut
            scope = cutter.fit_scope(_scope(part, cutter))
            is_origin_cut = cutter.is_cut
            for each in part.spans or ():
                cutter.is_cut, cutter.size = is_origin_cut, 0
                span = _span(each, resource, scope, cutter, arrival_ns) if each is not None else "not an object"
                if isinstance(span, Span):
                    batch.spans.append(cutter.fit_span(span))
                else:
                    batch.reject(span, (each is not None and each.name) or "")


def _resource(group: ResourceSpans, cutter: Cutter) -> Resource:
    told = group.resource or ResourceOfSpans()
    attributes, left_out = _attributes(told.attributes, cutter)
    return Resource(
        attributes, _count(told.dropped_attributes_count) + left_out, cutter.text(group.schema_url or "", MAX_NAME)
    )


def _scope(part: ScopeSpans, cutter: Cutter) -> Scope:
    told = part.scope or ScopeOfSpans()
    attributes, left_out = _attributes(told.attributes, cutter)
    return Scope(
        cutter.text(told.name or "", MAX_NAME),
        cutter.text(told.version or "", MAX_NAME),
        attributes,
        _count(told.dropped_attributes_count) + left_out,
        cutter.text(part.schema_url or "", MAX_NAME),
    )


def _span(each: OneSpan, resource: Resource, scope: Scope, cutter: Cutter, arrival_ns: int) -> Span | str:
    """The span, or why it is rejected."""
    trace_id = _id(each.trace_id, TRACE_BYTES)
    if not trace_id or trace_id == NO_TRACE:
        return "invalid traceId"
    span_id = _id(each.span_id, SPAN_BYTES)
    if not span_id or span_id == NO_SPAN:
        return "invalid spanId"
    start, end = _time(each.start_time_unix_nano), _time(each.end_time_unix_nano)
    if start is None or end is None:
        return "invalid time"
    parent_id = _id(each.parent_span_id, SPAN_BYTES) if each.parent_span_id else ""
    start_ns, end_ns = times(start, end, arrival_ns)
    attributes, left_out = _attributes(each.attributes, cutter)
    status = each.status
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()
    lost_events = lost_links = 0
    if each.events:
        events = tuple(_event(event, cutter) for event in each.events[:MAX_EVENTS])
        lost_events = len(each.events) - len(events)
    if each.links:
        links = tuple(_link(link, cutter) for link in each.links[:MAX_LINKS])
        lost_links = len(each.links) - len(links)
    return Span(
        trace_id,
        span_id,
        "" if parent_id == NO_SPAN else parent_id,
        cutter.text(each.trace_state, MAX_NAME) if each.trace_state else "",
        _count(each.flags),
        cutter.text(each.name, MAX_NAME) if each.name else "",
        _enum(each.kind, _KINDS, LAST_KIND),
        start_ns,
        end_ns,
        attributes,
        _count(each.dropped_attributes_count) + left_out,
        events,
        _count(each.dropped_events_count) + lost_events,
        links,
        _count(each.dropped_links_count) + lost_links,
        _enum(status.code, _STATUSES, LAST_STATUS) if status is not None else 0,
        cutter.text(status.message) if status is not None and status.message else "",
        resource,
        scope,
        cutter.is_cut or lost_events > 0 or lost_links > 0,
        end_ns < start_ns,
    )


def _event(each: EventOfSpan, cutter: Cutter) -> SpanEvent:
    attributes, left_out = _attributes(each.attributes, cutter)
    return SpanEvent(
        _time(each.time_unix_nano) or 0,
        cutter.text(each.name or "", MAX_NAME),
        attributes,
        _count(each.dropped_attributes_count) + left_out,
    )


def _link(each: LinkOfSpan, cutter: Cutter) -> SpanLink:
    attributes, left_out = _attributes(each.attributes, cutter)
    return SpanLink(
        _id(each.trace_id, TRACE_BYTES),
        _id(each.span_id, SPAN_BYTES),
        cutter.text(each.trace_state or "", MAX_NAME),
        attributes,
        _count(each.dropped_attributes_count) + left_out,
        _count(each.flags),
    )


# Values --------------------------------------------------------------------------------------------------------------
def _attributes(pairs: list[KeyValue] | None, cutter: Cutter) -> tuple[Attributes, int]:
    """At most 256 attributes, of repeated ones the last; and how many are left out."""
    if not pairs:
        return {}, 0
    found: Attributes = {}
    is_clean, size = cutter.is_clean, 0
    for pair in pairs:
        key, value = pair.key, pair.value
        if not key:
            continue
        # Nearly all attributes are short texts.
        if is_clean and value is not None and (text := value.string_value) is not None:
            length = len(key) + len(text)
            if length <= PLAINLY_SHORT:
                found[key] = text
                size += length + 1
                continue
        found[cutter.text(key, MAX_NAME)] = _value(value, cutter, 1)
    cutter.size += size
    return cutter.few(found) if len(found) > MAX_ATTRIBUTES else (found, 0)


def _value(value: AnyValue | None, cutter: Cutter, depth: int) -> Any:  # Any: JSON
    """What an AnyValue says, as plain JSON; None when it says nothing."""
    cutter.size += NUMBER_SIZE
    if value is None:
        return None
    if value.string_value is not None:
        return cutter.text(value.string_value)
    if value.bool_value is not None:
        return value.bool_value
    if value.int_value is not None:
        return int64(value.int_value)
    if value.double_value is not None:
        return _double(value.double_value)
    if value.bytes_value is not None:
        return cutter.text(value.bytes_value)
    if value.array_value is None and value.kvlist_value is None:
        return None
    if depth >= MAX_DEPTH:
        cutter.is_cut = True
        return None
    if value.array_value is not None:
        return [_value(each, cutter, depth + 1) for each in value.array_value.values or ()]
    members = value.kvlist_value.values if value.kvlist_value is not None else None
    return {
        cutter.text(each.key, MAX_NAME): _value(each.value, cutter, depth + 1) for each in members or () if each.key
    }


def _double(value: float | str) -> float | str | None:
    try:
        return finite(float(value))
    except (ValueError, OverflowError):
        return None


def int64(value: int | str) -> int | None:
    """A number of 64 bits with its sign, from itself or its digits."""
    number = whole(value)
    return number if number is not None and -LATEST_NS - 1 <= number <= LATEST_NS else None


def whole(value: int | str) -> int | None:
    """A number of at most 20 digits, from itself or its digits; never through a float."""
    if isinstance(value, int):
        return value
    digits = value.strip()
    bare = digits.removeprefix("-")
    return int(digits) if bare.isascii() and bare.isdigit() and len(bare) <= _DIGITS_OF_64_BITS else None


def _time(value: int | str | None) -> int | None:
    """Nanoseconds; 0 when it is not said, None when it is no time."""
    if value is None or value == "":
        return 0
    number = whole(value)
    return number if number is not None and 0 <= number <= LATEST_NS else None


def _id(value: str | None, size: int) -> str:
    """Lower-case hex of an id in hex or base64; empty for anything else."""
    if not value:
        return ""
    try:
        raw = bytes.fromhex(value) if len(value) == 2 * size else base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return ""
    return raw.hex() if len(raw) == size else ""


def _enum(value: int | str | None, names: Mapping[str, int], last: int) -> int:
    """A number, or the name of one; 0 for what is neither."""
    if isinstance(value, str):
        value = names.get(value) or whole(value)
    return value if value is not None and 0 <= value <= last else 0


def _count(value: int | None) -> int:
    return value if value is not None and 0 <= value <= _LAST_UINT32 else 0
