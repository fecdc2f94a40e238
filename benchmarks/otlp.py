"""Spans as agents send them, for the benchmarks of telemetry: traces of ten, some 300 bytes each."""

import random
from typing import Any, Final

import orjson
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SPANS_PER_TRACE: Final = 10
_STARTED_NS = 1_767_614_400_000_000_000
_TOOLS = ("search_documents", "read_file", "run_query", "send_message")
_MODELS = ("gpt-5-mini", "claude-sonnet-4-5")


def request(seed: int, spans: int = 200) -> ExportTraceServiceRequest:
    """One request of an agent's exporter: a root, four calls of a model, four of tools, and one of HTTP per trace."""
    chance = random.Random(seed)
    told = ExportTraceServiceRequest()
    group = told.resource_spans.add()
    _attribute(group.resource.attributes, "service.name", "shop-agent")
    _attribute(group.resource.attributes, "service.version", "1.42.0")
    _attribute(group.resource.attributes, "deployment.environment.name", "production")
    _attribute(group.resource.attributes, "telemetry.sdk.language", "python")
    part = group.scope_spans.add()
    part.scope.name, part.scope.version = "pydantic-ai", "1.9.0"
    for number in range(spans // SPANS_PER_TRACE):
        _trace(part.spans, chance, _STARTED_NS + number * 1_000_000_000)
    return told


def _trace(spans: Any, chance: random.Random, at: int) -> None:  # Any: the generated classes have no types
    trace_id, root_id = chance.randbytes(16), chance.randbytes(8)
    session = f"conv-{chance.getrandbits(32):08x}"
    for step in range(SPANS_PER_TRACE):
        span = spans.add()
        span.trace_id = trace_id
        span.span_id = chance.randbytes(8) if step else root_id
        span.parent_span_id = root_id if step else b""
        span.start_time_unix_nano = at + step * 50_000_000
        span.end_time_unix_nano = span.start_time_unix_nano + chance.randrange(1_000_000, 400_000_000)
        of = span.attributes
        _attribute(of, "gen_ai.conversation.id", session)
        if not step:
            span.name, span.kind = "invoke_agent shopper", Span.SPAN_KIND_INTERNAL
            _attribute(of, "gen_ai.operation.name", "invoke_agent")
            _attribute(of, "gen_ai.agent.name", "shopper")
        elif step == SPANS_PER_TRACE - 1:
            span.name, span.kind = "POST /v1/orders", Span.SPAN_KIND_CLIENT
            _attribute(of, "http.request.method", "POST")
            _attribute(of, "http.route", "/v1/orders")
            _attribute(of, "http.response.status_code", 201)
            _attribute(of, "server.address", "orders.internal")
        elif step % 2:
            model = _MODELS[chance.randrange(2)]
            span.name, span.kind = f"chat {model}", Span.SPAN_KIND_CLIENT
            _attribute(of, "gen_ai.operation.name", "chat")
            _attribute(of, "gen_ai.provider.name", "openai" if model.startswith("gpt") else "anthropic")
            _attribute(of, "gen_ai.request.model", model)
            _attribute(of, "gen_ai.response.model", model)
            _attribute(of, "gen_ai.usage.input_tokens", chance.randrange(500, 9000))
            _attribute(of, "gen_ai.usage.output_tokens", chance.randrange(20, 900))
            _attribute(of, "gen_ai.response.finish_reasons", ["stop"])
        else:
            tool = _TOOLS[chance.randrange(4)]
            span.name, span.kind = f"execute_tool {tool}", Span.SPAN_KIND_INTERNAL
            _attribute(of, "gen_ai.operation.name", "execute_tool")
            _attribute(of, "gen_ai.tool.name", tool)
            _attribute(of, "gen_ai.tool.call.id", f"call_{chance.getrandbits(48):012x}")
            _attribute(of, "gen_ai.tool.call.arguments", f'{{"query":"order {chance.randrange(10_000)}","limit":10}}')
            _attribute(of, "gen_ai.tool.call.result", f'[{{"id":{chance.randrange(10_000)},"state":"shipped"}}]')


def _attribute(attributes: Any, key: str, value: str | int | list[str]) -> None:  # Any: as above
    pair = attributes.add()
    pair.key = key
    if isinstance(value, str):
        pair.value.string_value = value
    elif isinstance(value, int):
        pair.value.int_value = value
    else:
        for each in value:
            pair.value.array_value.values.add().string_value = each


def as_json(told: ExportTraceServiceRequest) -> bytes:
    """The same request in the JSON of OTLP, where ids are hex and 64-bit integers are text."""
    return orjson.dumps(
        {
            "resourceSpans": [
                {
                    "resource": {"attributes": _pairs(group.resource.attributes)},
                    "scopeSpans": [
                        {
                            "scope": {"name": part.scope.name, "version": part.scope.version},
                            "spans": [_span(each) for each in part.spans],
                        }
                        for part in group.scope_spans
                    ],
                }
                for group in told.resource_spans
            ]
        }
    )


def _span(each: Any) -> dict[str, Any]:  # Any: as above; JSON
    told: dict[str, Any] = {"traceId": each.trace_id.hex(), "spanId": each.span_id.hex()}
    if each.parent_span_id:
        told["parentSpanId"] = each.parent_span_id.hex()
    return told | {
        "name": each.name,
        "kind": each.kind,
        "startTimeUnixNano": str(each.start_time_unix_nano),
        "endTimeUnixNano": str(each.end_time_unix_nano),
        "attributes": _pairs(each.attributes),
        "status": {},
    }


def _pairs(attributes: Any) -> list[dict[str, Any]]:  # Any: as above; JSON
    return [{"key": each.key, "value": _value(each.value)} for each in attributes]


def _value(value: Any) -> dict[str, Any]:  # Any: as above; JSON
    kind = value.WhichOneof("value")
    if kind == "string_value":
        return {"stringValue": value.string_value}
    if kind == "int_value":
        return {"intValue": str(value.int_value)}
    return {"arrayValue": {"values": [_value(each) for each in value.array_value.values]}}
