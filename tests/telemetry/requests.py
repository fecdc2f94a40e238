"""Requests of OTLP for tests: written by hand, and made by the official SDK."""

import json
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from lifesign.telemetry.otlp import Batch, decode_json

Json = dict[str, Any]
ARRIVAL = 1_767_614_400_000_000_000
TRACE, SPAN = "5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174"
USUAL: Json = {"traceId": TRACE, "spanId": SPAN, "name": "chat", "startTimeUnixNano": "1000", "endTimeUnixNano": "2000"}


def body_of(*spans: object, resource: object = None) -> bytes:
    group: Json = {"scopeSpans": [{"scope": {"name": "lib", "version": "1"}, "spans": list(spans)}]}
    if resource is not None:
        group["resource"] = resource
    return json.dumps({"resourceSpans": [group]}).encode()


def batch_of(*spans: object) -> Batch:
    return decode_json(body_of(*spans), arrival_ns=ARRIVAL)


def sdk_spans() -> list[ReadableSpan]:
    """Spans of the official SDK: nested, with an error, an event, a link and every type of attribute."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=Resource.create({"service.name": "shop", "deployment.environment": "prod"}))
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("lib", "1.2")
    with tracer.start_as_current_span("invoke_agent", attributes={"session.id": "s-1"}) as root:
        with tracer.start_as_current_span("chat", links=[]) as inner:
            inner.set_attributes({"n": 7, "f": 0.5, "ok": True, "list": ["a", "b"], "text": "größe"})
            inner.add_event("retry", {"attempt": 2})
            inner.set_status(Status(StatusCode.ERROR, "overloaded"))
        root.add_link(inner.get_span_context(), {"why": "because"})
    provider.shutdown()
    return list(exporter.get_finished_spans())


def as_otlp_json(request: ExportTraceServiceRequest) -> Json:
    """A request in the JSON of OTLP, written by hand: ids are hex there, unlike in protobuf's own JSON."""

    def value(each: Any) -> Json:
        kind = each.WhichOneof("value")
        match kind:
            case "string_value":
                return {"stringValue": each.string_value}
            case "int_value":
                return {"intValue": str(each.int_value)}
            case "double_value":
                return {"doubleValue": each.double_value}
            case "bool_value":
                return {"boolValue": each.bool_value}
        return {"arrayValue": {"values": [value(inner) for inner in each.array_value.values]}}

    def pairs(attributes: Any) -> list[Json]:
        return [{"key": each.key, "value": value(each.value)} for each in attributes]

    def span(each: Any) -> Json:
        return {
            "traceId": each.trace_id.hex(),
            "spanId": each.span_id.hex(),
            "parentSpanId": each.parent_span_id.hex(),
            "flags": each.flags,
            "name": each.name,
            "kind": each.kind,
            "startTimeUnixNano": str(each.start_time_unix_nano),
            "endTimeUnixNano": str(each.end_time_unix_nano),
            "attributes": pairs(each.attributes),
            "events": [
                {"name": e.name, "timeUnixNano": str(e.time_unix_nano), "attributes": pairs(e.attributes)}
                for e in each.events
            ],
            "links": [
                {
                    "traceId": link.trace_id.hex(),
                    "spanId": link.span_id.hex(),
                    "attributes": pairs(link.attributes),
                    "flags": link.flags,
                }
                for link in each.links
            ],
            "status": {"code": each.status.code, "message": each.status.message},
        }

    return {
        "resourceSpans": [
            {
                "resource": {"attributes": pairs(group.resource.attributes)},
                "schemaUrl": group.schema_url,
                "scopeSpans": [
                    {
                        "scope": {"name": part.scope.name, "version": part.scope.version},
                        "schemaUrl": part.schema_url,
                        "spans": [span(each) for each in part.spans],
                    }
                    for part in group.scope_spans
                ],
            }
            for group in request.resource_spans
        ]
    }
