"""OTLP in protobuf, through the generated classes of OpenTelemetry."""

import base64
from collections.abc import Callable
from typing import Any

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lifesign.telemetry.otlp.pieces import pieces_of_protobuf, without_pause
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
    InvalidOtlp,
    Resource,
    Scope,
    Span,
    SpanEvent,
    SpanLink,
    finite,
    times,
)


def decode_protobuf(body: bytes, *, arrival_ns: int, give_way: Callable[[], None] = without_pause) -> Batch:
    """The spans of an ExportTraceServiceRequest. arrival_ns: stands in for times that are missing.

    give_way: called again and again, by whoever lets others work in between. Raises InvalidOtlp.
    """
    batch = Batch()
    for piece in pieces_of_protobuf(body):
        request = ExportTraceServiceRequest()
        try:
            request.ParseFromString(piece)
        except (DecodeError, RecursionError) as error:
            raise InvalidOtlp(f"The body is not an ExportTraceServiceRequest: {error}") from None
        _add_spans(batch, request, arrival_ns)
        give_way()
    return batch


# Any, throughout: the generated classes have no types.
def _add_spans(batch: Batch, request: Any, arrival_ns: int) -> None:
    cutter = Cutter()
    for group in request.resource_spans:
        cutter.is_cut = False
        resource = cutter.fit_resource(_resource(group, cutter))
        is_resource_cut = cutter.is_cut
        for part in group.scope_spans:
            cutter.is_cut = is_resource_cut
            scope = cutter.fit_scope(_scope(part, cutter))
            is_origin_cut = cutter.is_cut
            for each in part.spans:
                cutter.is_cut, cutter.size = is_origin_cut, 0
                span = _span(each, resource, scope, cutter, arrival_ns)
                if isinstance(span, Span):
                    batch.spans.append(cutter.fit_span(span))
                else:
                    batch.reject(span, each.name)


def _resource(group: Any, cutter: Cutter) -> Resource:
    told = group.resource
    attributes, left_out = _attributes(told.attributes, cutter)
    return Resource(attributes, told.dropped_attributes_count + left_out, cutter.text(group.schema_url, MAX_NAME))


def _scope(part: Any, cutter: Cutter) -> Scope:
    told = part.scope
    attributes, left_out = _attributes(told.attributes, cutter)
    return Scope(
        cutter.text(told.name, MAX_NAME),
        cutter.text(told.version, MAX_NAME),
        attributes,
        told.dropped_attributes_count + left_out,
        cutter.text(part.schema_url, MAX_NAME),
    )


def _span(each: Any, resource: Resource, scope: Scope, cutter: Cutter, arrival_ns: int) -> Span | str:
    """The span, or why it is rejected."""
    trace_id, span_id, parent_id = each.trace_id.hex(), each.span_id.hex(), each.parent_span_id.hex()
    if len(trace_id) != 2 * TRACE_BYTES or trace_id == NO_TRACE:
        return "invalid traceId"
    if len(span_id) != 2 * SPAN_BYTES or span_id == NO_SPAN:
        return "invalid spanId"
    start, end = each.start_time_unix_nano, each.end_time_unix_nano
    if start > LATEST_NS or end > LATEST_NS:
        return "invalid time"
    start_ns, end_ns = times(start, end, arrival_ns)
    attributes, left_out = _attributes(each.attributes, cutter)
    events: tuple[SpanEvent, ...] = ()
    links: tuple[SpanLink, ...] = ()
    lost_events = lost_links = status_code = 0
    status_message = ""
    # To touch a message makes an object of it, even where there is none.
    if all_events := each.events:
        events = tuple(_event(event, cutter) for event in all_events[:MAX_EVENTS])
        lost_events = len(all_events) - len(events)
    if all_links := each.links:
        links = tuple(_link(link, cutter) for link in all_links[:MAX_LINKS])
        lost_links = len(all_links) - len(links)
    if each.HasField("status"):
        status_code = each.status.code
        status_message = cutter.text(each.status.message)
    return Span(
        trace_id,
        span_id,
        "" if len(parent_id) != 2 * SPAN_BYTES or parent_id == NO_SPAN else parent_id,
        cutter.text(trace_state, MAX_NAME) if (trace_state := each.trace_state) else "",
        each.flags,
        cutter.text(each.name, MAX_NAME),
        kind if 0 <= (kind := each.kind) <= LAST_KIND else 0,
        start_ns,
        end_ns,
        attributes,
        each.dropped_attributes_count + left_out,
        events,
        each.dropped_events_count + lost_events,
        links,
        each.dropped_links_count + lost_links,
        status_code if 0 <= status_code <= LAST_STATUS else 0,
        status_message,
        resource,
        scope,
        cutter.is_cut or lost_events > 0 or lost_links > 0,
        end_ns < start_ns,
    )


def _event(each: Any, cutter: Cutter) -> SpanEvent:
    attributes, left_out = _attributes(each.attributes, cutter)
    at = each.time_unix_nano
    return SpanEvent(
        at if at <= LATEST_NS else 0,
        cutter.text(each.name, MAX_NAME),
        attributes,
        each.dropped_attributes_count + left_out,
    )


def _link(each: Any, cutter: Cutter) -> SpanLink:
    attributes, left_out = _attributes(each.attributes, cutter)
    return SpanLink(
        each.trace_id.hex() if len(each.trace_id) == TRACE_BYTES else "",
        each.span_id.hex() if len(each.span_id) == SPAN_BYTES else "",
        cutter.text(each.trace_state, MAX_NAME),
        attributes,
        each.dropped_attributes_count + left_out,
        each.flags,
    )


# Values --------------------------------------------------------------------------------------------------------------
def _attributes(pairs: Any, cutter: Cutter) -> tuple[Attributes, int]:
    """At most 256 attributes, of repeated ones the last; and how many are left out."""
    found: Attributes = {}
    size = 0
    for pair in pairs:
        key, value = pair.key, pair.value
        if not key:
            continue
        # Nearly all attributes are short texts; and only a text has text.
        if text := value.string_value:
            length = len(key) + len(text)
            if length <= PLAINLY_SHORT and "\x00" not in text and "\x00" not in key:
                found[key] = text
                size += length + 1
                continue
        found[cutter.text(key, MAX_NAME)] = _value(value, cutter, 1)
    cutter.size += size
    return cutter.few(found) if len(found) > MAX_ATTRIBUTES else (found, 0)


def _value(value: Any, cutter: Cutter, depth: int) -> Any:
    """What an AnyValue says, as plain JSON; None when it says nothing."""
    cutter.size += NUMBER_SIZE
    kind = value.WhichOneof("value")
    match kind:
        case "string_value":
            return cutter.text(value.string_value)
        case "int_value" | "bool_value":
            return getattr(value, kind)
        case "double_value":
            return finite(value.double_value)
        case "bytes_value":
            return cutter.text(base64.b64encode(value.bytes_value).decode())
        case None:
            return None
    if depth >= MAX_DEPTH:
        cutter.is_cut = True
        return None
    if kind == "array_value":
        return [_value(each, cutter, depth + 1) for each in value.array_value.values]
    if kind == "kvlist_value":
        return {
            cutter.text(each.key, MAX_NAME): _value(each.value, cutter, depth + 1)
            for each in value.kvlist_value.values
            if each.key
        }
    # A kind of value that came after this version of the protocol.
    return None
