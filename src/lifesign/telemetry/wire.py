"""Records as the API shows them, and the way back: from there to the OTLP that they came from.

Spec "Telemetry", sections 4 and 7.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from lifesign.clock import EpochMs, rfc3339
from lifesign.telemetry.otlp.spans import Attributes, Resource, Scope, SpanEvent, SpanLink
from lifesign.telemetry.records import CLOCK_SKEW, NANO_USD, SOFT_ERROR, TRUNCATED, Record

# Any, throughout: JSON.
Json = dict[str, Any]

_NS_PER_MS: Final = 1_000_000


def wire(record: Record, *, project_id: str, session_id: str) -> Json:
    """A record as JSON, always with every field. session_id: that of its session, see `sessions.session_of`."""
    body = record.body
    return {
        "record_id": record.record_id,
        "project_id": project_id,
        "trace_id": record.trace_id,
        "span_id": record.span_id,
        "parent_span_id": record.parent_id or None,
        "session_id": session_id,
        "agent": record.agent,
        "service": record.service,
        "environment": record.environment,
        "version": record.version,
        "kind": record.kind,
        "operation": record.operation,
        "name": body.name,
        "tool": record.tool,
        "provider": body.provider,
        "model": record.model,
        "signal_type": record.signal_type,
        "severity": record.severity,
        "status": record.status,
        "error_type": record.error_type,
        "message": body.message,
        "soft_error": record.flags & SOFT_ERROR != 0,
        "finish_reason": record.finish_reason,
        "attempt": record.attempt,
        "duration_ms": milliseconds(record.duration_ns),
        "started_at": time_of(record.start_ns),
        "ended_at": time_of(record.end_ns),
        "received_at": rfc3339(record.received_at),
        "start_ns": str(record.start_ns),
        "end_ns": str(record.end_ns),
        "tokens": {
            "input": record.input_tokens,
            "output": record.output_tokens,
            "cache_read": record.cache_read_tokens,
            "cache_write": record.cache_write_tokens,
            "reasoning": record.reasoning_tokens,
            "total": record.total_tokens,
        },
        "cost_usd": usd(record.cost_nano),
        "cost_source": body.cost_source,
        "clock_skew": record.flags & CLOCK_SKEW != 0,
        "truncated": record.flags & TRUNCATED != 0,
        "otlp": {
            "kind": body.otlp_kind,
            "trace_state": body.trace_state,
            "flags": body.otlp_flags,
            "status_code": body.status_code,
            "status_message": body.status_message,
            "dropped_attributes": body.dropped_attributes,
            "dropped_events": body.dropped_events,
            "dropped_links": body.dropped_links,
        },
        "convention": body.convention,
        "attributes": body.attributes,
        "resource": _resource(record.origin.resource),
        "scope": _scope(record.origin.scope),
        "events": [_event(event) for event in body.events],
        "links": [_link(link) for link in body.links],
    }


def milliseconds(duration_ns: int) -> float:
    """With three digits, which are microseconds."""
    return round(duration_ns / _NS_PER_MS, 3)


def time_of(at_ns: int) -> str:
    """An instant in ns since 1970, as the API writes it."""
    return rfc3339(EpochMs(at_ns // _NS_PER_MS))


def usd(nano: int | None) -> float | None:
    """A cost as the API writes it."""
    return None if nano is None else nano / NANO_USD


def _resource(resource: Resource) -> Json:
    return {
        "attributes": resource.attributes,
        "dropped_attributes": resource.dropped,
        "schema_url": resource.schema_url,
    }


def _scope(scope: Scope) -> Json:
    return {
        "name": scope.name,
        "version": scope.version,
        "attributes": scope.attributes,
        "dropped_attributes": scope.dropped,
        "schema_url": scope.schema_url,
    }


def _event(event: SpanEvent) -> Json:
    return {
        "name": event.name,
        "time": time_of(event.time_ns),
        "time_ns": str(event.time_ns),
        "attributes": event.attributes,
        "dropped_attributes": event.dropped,
    }


def _link(link: SpanLink) -> Json:
    return {
        "trace_id": link.trace_id,
        "span_id": link.span_id,
        "trace_state": link.trace_state,
        "flags": link.flags,
        "attributes": link.attributes,
        "dropped_attributes": link.dropped,
    }


# Back to OTLP --------------------------------------------------------------------------------------------------------
def to_otlp(records: Iterable[Mapping[str, Any]]) -> Json:
    """One ExportTraceServiceRequest in JSON with the spans of these records, which are as `wire` made them.

    Whole, but for what was cut when they came; bytes and numbers that are not finite come out as text.
    """
    groups: dict[bytes, Json] = {}
    parts: dict[bytes, list[Json]] = {}
    for record in records:
        resource, scope = record["resource"], record["scope"]
        of_resource = msgspec.json.encode(resource)
        of_scope = of_resource + msgspec.json.encode(scope)
        if of_resource not in groups:
            groups[of_resource] = {
                "resource": _with_attributes({}, resource),
                "scopeSpans": [],
                **_if_any("schemaUrl", resource["schema_url"]),
            }
        if of_scope not in parts:
            parts[of_scope] = []
            told = {"name": scope["name"], "version": scope["version"]}
            groups[of_resource]["scopeSpans"].append(
                {
                    "scope": _with_attributes(told, scope),
                    "spans": parts[of_scope],
                    **_if_any("schemaUrl", scope["schema_url"]),
                }
            )
        parts[of_scope].append(_span(record))
    return {"resourceSpans": list(groups.values())}


def _span(record: Mapping[str, Any]) -> Json:
    otlp = record["otlp"]
    return {
        "traceId": record["trace_id"],
        "spanId": record["span_id"],
        **_if_any("parentSpanId", record["parent_span_id"]),
        **_if_any("traceState", otlp["trace_state"]),
        **_if_any("flags", otlp["flags"]),
        "name": record["name"],
        "kind": otlp["kind"],
        "startTimeUnixNano": record["start_ns"],
        "endTimeUnixNano": record["end_ns"],
        "attributes": _pairs(record["attributes"]),
        **_if_any("droppedAttributesCount", otlp["dropped_attributes"]),
        **_if_any("events", [_otlp_event(event) for event in record["events"]]),
        **_if_any("droppedEventsCount", otlp["dropped_events"]),
        **_if_any("links", [_otlp_link(link) for link in record["links"]]),
        **_if_any("droppedLinksCount", otlp["dropped_links"]),
        "status": {**_if_any("code", otlp["status_code"]), **_if_any("message", otlp["status_message"])},
    }


def _otlp_event(event: Mapping[str, Any]) -> Json:
    return _with_attributes({"timeUnixNano": event["time_ns"], "name": event["name"]}, event)


def _otlp_link(link: Mapping[str, Any]) -> Json:
    told = {"traceId": link["trace_id"], "spanId": link["span_id"]}
    told |= {**_if_any("traceState", link["trace_state"]), **_if_any("flags", link["flags"])}
    return _with_attributes(told, link)


def _with_attributes(told: Json, each: Mapping[str, Any]) -> Json:
    dropped = _if_any("droppedAttributesCount", each["dropped_attributes"])
    return {**told, "attributes": _pairs(each["attributes"]), **dropped}


def _if_any(name: str, value: Any) -> Json:
    """The field, unless it says nothing."""
    return {name: value} if value else {}


def _pairs(attributes: Attributes) -> list[Json]:
    return [{"key": key, "value": _value(value)} for key, value in attributes.items()]


def _value(value: Any) -> Json:
    """An AnyValue. Integers are text, as the JSON of protobuf has them, so that nobody rounds them."""
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, Sequence):
        return {"arrayValue": {"values": [_value(each) for each in value]}}
    if isinstance(value, Mapping):
        return {"kvlistValue": {"values": _pairs(dict(value))}}
    return {}
