"""OTLP in protobuf, through the generated classes of OpenTelemetry."""

import base64
import math
from collections.abc import Iterable
from typing import Any

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it comes without types
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

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

_TRACE_BYTES, _SPAN_BYTES = 16, 8


def decode_protobuf(body: bytes, *, arrival_ns: int) -> Batch:
    """The spans of an ExportTraceServiceRequest. arrival_ns: stands in for times that are missing.

    Raises InvalidOtlp.
    """
    request = ExportTraceServiceRequest()
    try:
        request.ParseFromString(body)
    except (DecodeError, RecursionError) as error:
        raise InvalidOtlp(f"The body is not an ExportTraceServiceRequest: {error}") from None
    batch = Batch()
    for resource_spans in request.resource_spans:
        cutter = Cutter()
        of_resource = resource_spans.resource
        attributes, left_out = cutter.attributes(_pairs(of_resource.attributes, cutter))
        resource = Resource(
            cutter.fitted(attributes),
            of_resource.dropped_attributes_count + left_out,
            cutter.text(resource_spans.schema_url, MAX_NAME),
        )
        for scope_spans in resource_spans.scope_spans:
            of_scope = scope_spans.scope
            attributes, left_out = cutter.attributes(_pairs(of_scope.attributes, cutter))
            scope = Scope(
                cutter.text(of_scope.name, MAX_NAME),
                cutter.text(of_scope.version, MAX_NAME),
                cutter.fitted(attributes),
                of_scope.dropped_attributes_count + left_out,
                cutter.text(scope_spans.schema_url, MAX_NAME),
            )
            for each in scope_spans.spans:
                try:
                    span = _span(each, resource, scope, arrival_ns, is_cut=cutter.is_cut)
                except Rejected as refused:
                    batch.reject(str(refused), each.name)
                else:
                    batch.spans.append(span)
    return batch


# Any: the generated classes have no types.
def _span(each: Any, resource: Resource, scope: Scope, arrival_ns: int, *, is_cut: bool) -> Span:
    trace_id, span_id = each.trace_id.hex(), each.span_id.hex()
    if len(each.trace_id) != _TRACE_BYTES or trace_id == NO_TRACE:
        raise Rejected("invalid traceId")
    if len(each.span_id) != _SPAN_BYTES or span_id == NO_SPAN:
        raise Rejected("invalid spanId")
    if each.start_time_unix_nano > LATEST_NS or each.end_time_unix_nano > LATEST_NS:
        raise Rejected("invalid time")
    parent = each.parent_span_id
    parent_id = parent.hex() if len(parent) == _SPAN_BYTES else ""
    cutter = Cutter(is_cut)
    attributes, left_out = cutter.attributes(_pairs(each.attributes, cutter))
    start_ns, end_ns, is_skewed = times(each.start_time_unix_nano, each.end_time_unix_nano, arrival_ns)
    events = tuple(_event(event, cutter) for event in each.events[:MAX_EVENTS]) if each.events else ()
    links = tuple(_link(link, cutter) for link in each.links[:MAX_LINKS]) if each.links else ()
    lost_events, lost_links = len(each.events) - len(events), len(each.links) - len(links)
    cutter.is_cut = cutter.is_cut or lost_events > 0 or lost_links > 0
    return Span(
        trace_id,
        span_id,
        "" if parent_id == NO_SPAN else parent_id,
        cutter.text(each.trace_state, MAX_NAME),
        each.flags,
        cutter.text(each.name, MAX_NAME),
        each.kind,
        start_ns,
        end_ns,
        cutter.fitted(attributes),
        each.dropped_attributes_count + left_out,
        events,
        each.dropped_events_count + lost_events,
        links,
        each.dropped_links_count + lost_links,
        each.status.code,
        cutter.text(each.status.message),
        resource,
        scope,
        cutter.is_cut,
        is_skewed,
    )


def _event(each: Any, cutter: Cutter) -> SpanEvent:
    attributes, left_out = cutter.attributes(_pairs(each.attributes, cutter))
    return SpanEvent(
        min(each.time_unix_nano, LATEST_NS),
        cutter.text(each.name, MAX_NAME),
        cutter.fitted(attributes),
        each.dropped_attributes_count + left_out,
    )


def _link(each: Any, cutter: Cutter) -> SpanLink:
    attributes, left_out = cutter.attributes(_pairs(each.attributes, cutter))
    return SpanLink(
        each.trace_id.hex() if len(each.trace_id) == _TRACE_BYTES else "",
        each.span_id.hex() if len(each.span_id) == _SPAN_BYTES else "",
        cutter.text(each.trace_state, MAX_NAME),
        cutter.fitted(attributes),
        each.dropped_attributes_count + left_out,
        each.flags,
    )


def _pairs(attributes: Any, cutter: Cutter) -> Iterable[tuple[str, Any]]:
    for each in attributes:
        if each.key:
            yield cutter.text(each.key, MAX_NAME), _value(each.value, cutter, 1)


def _value(value: Any, cutter: Cutter, depth: int) -> Any:
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
    return None


def finite(number: float) -> float | str:
    """A number that JSON can say, or its name."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
