"""Decoding what exporters send: JSON of many hands, protobuf of the official SDK, and what is neither."""

import base64
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.sdk.resources import Resource as SdkResource
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from lifesign.telemetry.otlp import Batch, InvalidOtlp, Span, decode_json, decode_protobuf

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


def span_of(**fields: object) -> Span:
    batch = batch_of(USUAL | fields)
    assert batch.message == ""
    (span,) = batch.spans
    return span


def attributes_of(*pairs: object) -> Json:
    return span_of(attributes=list(pairs)).attributes


# The body -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"[]", "must be a JSON object"),
        (b"{}", "must have an array resourceSpans"),
        (b'{"resourceSpans":{}}', "must have an array resourceSpans"),
        (b'{"resourceLogs":[]}', "holds logs; only traces"),
        (b'{"resource_metrics":[]}', "holds metrics; only traces"),
        (b'{"resourceSpans":' + b"[" * 100_000, "is not JSON"),
        (b"\xff\xfe", "is not JSON"),
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidOtlp, match=words):
        decode_json(body, arrival_ns=ARRIVAL)


def test_a_body_may_hold_nothing() -> None:
    for decode, body in ((decode_json, b'{"resourceSpans":[]}'), (decode_protobuf, b"")):
        assert decode(body, arrival_ns=ARRIVAL) == Batch()


@pytest.mark.parametrize("body", [b"\x0a", b"\xff" * 20, b'{"resourceSpans":[]}', b"\x0a\x05abc"])
def test_protobuf_that_is_none_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidOtlp):
        decode_protobuf(body, arrival_ns=ARRIVAL)


def test_what_is_no_object_is_skipped_and_a_span_that_is_none_is_rejected() -> None:
    body = {"resourceSpans": [5, {"scopeSpans": ["x", {"spans": [None, 7, USUAL]}]}, {"resource": [], "scopeSpans": 3}]}

    batch = decode_json(json.dumps(body).encode(), arrival_ns=ARRIVAL)

    assert [span.name for span in batch.spans] == ["chat"]
    assert batch.message == "2 spans rejected: not an object (2); first: '#1'"


def test_snake_case_and_the_name_of_scopes_before_2022_are_read() -> None:
    span = {"trace_id": TRACE, "span_id": SPAN, "parent_span_id": "00000000000000ff", "start_time_unix_nano": 5}
    new = {"resource_spans": [{"scope_spans": [{"spans": [span]}]}]}
    old = {
        "resourceSpans": [{"instrumentationLibrarySpans": [{"instrumentationLibrary": {"name": "l"}, "spans": [span]}]}]
    }

    (one,) = decode_json(json.dumps(new).encode(), arrival_ns=ARRIVAL).spans
    (two,) = decode_json(json.dumps(old).encode(), arrival_ns=ARRIVAL).spans

    assert (one.trace_id, one.span_id, one.parent_id, one.start_ns) == (TRACE, SPAN, "00000000000000ff", 5)
    assert two.scope.name == "l"


# Ids ----------------------------------------------------------------------------------------------------------------
def test_ids_are_hex_in_any_case_or_base64() -> None:
    packed = base64.b64encode(bytes.fromhex(TRACE)).decode(), base64.b64encode(bytes.fromhex(SPAN)).decode()

    for trace_id, span_id in ((TRACE.upper(), SPAN.upper()), packed):
        span = span_of(traceId=trace_id, spanId=span_id)
        assert (span.trace_id, span.span_id) == (TRACE, SPAN)


@pytest.mark.parametrize("wrong", [None, "", "0" * 32, TRACE[:-1], TRACE + "0", "x" * 32, 5, "AAAA"])
def test_a_span_with_a_bad_trace_id_is_rejected_and_the_others_are_not(wrong: object) -> None:
    batch = batch_of(USUAL, USUAL | {"traceId": wrong, "name": "broken"}, USUAL)

    assert len(batch.spans) == 2
    assert batch.message == "1 span rejected: invalid traceId (1); first: 'broken'"


def test_a_bad_parent_is_dropped_and_the_span_kept() -> None:
    for wrong in ("x", "0" * 16, SPAN + "0", 5, None):
        assert span_of(parentSpanId=wrong).parent_id == ""


def test_protobuf_ids_of_another_length_are_rejected() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, parent_span_id=b"3" * 7, name="good")
    spans.add(trace_id=b"1" * 15, span_id=b"2" * 8)
    spans.add(trace_id=b"1" * 16, span_id=bytes(8))

    batch = decode_protobuf(request.SerializeToString(), arrival_ns=ARRIVAL)

    assert [(span.name, span.parent_id) for span in batch.spans] == [("good", "")]
    assert dict(batch.rejected) == {"invalid traceId": 1, "invalid spanId": 1}


# Times --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        ("1767614400123456789", 1767614401123456789, (1767614400123456789, 1767614401123456789, False)),
        (0, None, (ARRIVAL, ARRIVAL, False)),
        ("7", "", (7, 7, False)),
        (None, 9, (9, 9, False)),
        # It stays as it came, so that nothing is lost when it is sent on.
        (10, 9, (10, 9, True)),
    ],
)
def test_times_are_exact_and_missing_ones_are_filled_in(
    start: object, end: object, expected: tuple[int, int, bool]
) -> None:
    span = span_of(startTimeUnixNano=start, endTimeUnixNano=end)

    assert (span.start_ns, span.end_ns, span.is_skewed) == expected


@pytest.mark.parametrize("wrong", [-1, "-1", 2**63, str(2**63), "1.5", 1.5, "soon", True, [], "9" * 5000])
def test_a_time_that_is_none_rejects_its_span(wrong: object) -> None:
    assert batch_of(USUAL | {"endTimeUnixNano": wrong}).message.startswith("1 span rejected: invalid time (1)")


# Values -------------------------------------------------------------------------------------------------------------
def test_every_kind_of_value() -> None:
    pairs = {
        "s": {"stringValue": "text"},
        "b": {"boolValue": True},
        "i": {"intValue": "9223372036854775807"},
        "j": {"intValue": -5},
        "d": {"doubleValue": 1.5},
        "whole": {"doubleValue": 2},
        "nan": {"doubleValue": "NaN"},
        "inf": {"doubleValue": "-Infinity"},
        "bytes": {"bytesValue": "AAEC"},
        "list": {"arrayValue": {"values": [{"intValue": 1}, {"stringValue": "x"}, {}]}},
        "map": {"kvlistValue": {"values": [{"key": "k", "value": {"boolValue": False}}]}},
        "empty": {},
        "too big": {"intValue": "9223372036854775808"},
        "snake": {"string_value": "s"},
    }

    found = attributes_of(*({"key": key, "value": value} for key, value in pairs.items()))

    assert found == {
        "s": "text",
        "b": True,
        "i": 2**63 - 1,
        "j": -5,
        "d": 1.5,
        "whole": 2.0,
        "nan": "NaN",
        "inf": "-Infinity",
        "bytes": "AAEC",
        "list": [1, "x", None],
        "map": {"k": False},
        "empty": None,
        "too big": None,
        "snake": "s",
    }
    assert isinstance(found["whole"], float)


def test_attributes_may_be_a_plain_object() -> None:
    plain = {"a": "x", "n": 1, "deep": {"list": [1, {"b": None}]}, "": 3}

    assert span_of(attributes=plain).attributes == {"a": "x", "n": 1, "deep": {"list": [1, {"b": None}]}}


def test_an_attribute_without_a_key_is_skipped_and_the_last_of_equal_ones_wins() -> None:
    one, two = {"key": "a", "value": {"intValue": 1}}, {"key": "a", "value": {"intValue": 2}}

    assert attributes_of(one, {"value": {"intValue": 3}}, {"key": ""}, 7, two) == {"a": 2}


def test_numbers_and_names_of_kinds_and_statuses() -> None:
    for kind in ("SPAN_KIND_CLIENT", 3, "3"):
        assert span_of(kind=kind).kind == 3
    for code in ("STATUS_CODE_ERROR", 2):
        span = span_of(status={"code": code, "message": "no"})
        assert (span.status_code, span.status_message) == (2, "no")
    for wrong in ("SPAN_KIND_MAGIC", 99, True, None, []):
        assert span_of(kind=wrong).kind == 0


def test_nul_and_halves_of_surrogate_pairs_become_replacement_characters() -> None:
    body = body_of(USUAL).replace(b'"chat"', b'"a\\u0000b\\ud800c"')

    (span,) = decode_json(body, arrival_ns=ARRIVAL).spans

    assert span.name == "a\ufffdb\ufffdc"


# Limits -------------------------------------------------------------------------------------------------------------
def test_text_that_is_too_long_is_cut_and_told() -> None:
    span = span_of(name="n" * 1025, attributes={"a": "x" * 32_769}, status={"message": "m" * 40_000})

    assert span.name == "n" * 1021 + "..."
    assert span.attributes["a"] == "x" * 32_765 + "..."
    assert len(span.status_message) == 32_768
    assert span.is_cut
    assert not span_of(name="n" * 1024, attributes={"a": "x" * 32_768}).is_cut


def test_the_first_256_attributes_are_kept_and_the_rest_counted() -> None:
    span = span_of(attributes={f"k{n}": n for n in range(300)}, droppedAttributesCount=5)

    assert (len(span.attributes), span.dropped_attributes, span.is_cut) == (256, 49, True)


def test_128_events_and_links_are_kept_and_the_rest_counted() -> None:
    events = [{"name": f"e{n}", "timeUnixNano": str(n)} for n in range(130)]
    links = [{"traceId": TRACE, "spanId": SPAN}] * 200

    span = span_of(events=events, links=links, droppedEventsCount=1)

    assert (len(span.events), span.dropped_events, len(span.links), span.dropped_links) == (128, 3, 128, 72)
    assert (span.events[7].name, span.events[7].time_ns) == ("e7", 7)


def test_values_are_sixteen_deep_and_no_deeper() -> None:
    value: Json = {"stringValue": "bottom"}
    for _ in range(40):
        value = {"arrayValue": {"values": [value]}}

    span = span_of(attributes=[{"key": "deep", "value": value}])

    depth, inner = 0, span.attributes["deep"]
    while isinstance(inner, list):
        depth, inner = depth + 1, inner[0]
    assert (depth, inner, span.is_cut) == (15, None, True)


def test_the_longest_values_are_shortened_first() -> None:
    large = {f"large{n}": "x" * 32_000 for n in range(12)}

    span = span_of(attributes=large | {"small": "kept whole"})

    size = sum(len(key) + len(value) for key, value in span.attributes.items())
    assert size <= 262_144
    assert span.attributes["small"] == "kept whole"
    assert len(span.attributes) == 13
    assert span.is_cut


# What others made ---------------------------------------------------------------------------------------------------
def sdk_spans() -> list[ReadableSpan]:
    """Spans of the official SDK: nested, with an error, an event, a link and every type of attribute."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(resource=SdkResource.create({"service.name": "shop", "deployment.environment": "prod"}))
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


def test_spans_of_the_official_sdk_are_read_as_they_were_made() -> None:
    made = sdk_spans()
    body = encode_spans(made).SerializeToString()

    chat, root = decode_protobuf(body, arrival_ns=ARRIVAL).spans

    assert (chat.name, root.name) == ("chat", "invoke_agent")
    assert (chat.trace_id, chat.parent_id, root.parent_id) == (root.trace_id, root.span_id, "")
    assert (chat.start_ns, chat.end_ns) == (made[0].start_time, made[0].end_time)
    assert chat.attributes == {"n": 7, "f": 0.5, "ok": True, "list": ["a", "b"], "text": "größe"}
    assert [(event.name, event.attributes) for event in chat.events] == [("retry", {"attempt": 2})]
    assert (chat.status_code, chat.status_message) == (2, "overloaded")
    assert [(link.span_id, link.attributes) for link in root.links] == [(chat.span_id, {"why": "because"})]
    assert chat.resource.attributes["service.name"] == "shop"
    assert (chat.scope.name, chat.scope.version) == ("lib", "1.2")


def test_json_and_protobuf_of_the_same_spans_are_read_alike() -> None:
    request = encode_spans(sdk_spans())

    from_protobuf = decode_protobuf(request.SerializeToString(), arrival_ns=ARRIVAL)
    from_json = decode_json(json.dumps(as_otlp_json(request)).encode(), arrival_ns=ARRIVAL)

    assert from_json == from_protobuf


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


# Anything -----------------------------------------------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*USUAL, "kind", "status", "attributes", "events", "links", "flags", "traceState", "parentSpanId", "trace_id"]
)


@given(st.binary(max_size=200))
@example(b"\x0a\x02\x12\x00")
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    for decode in (decode_json, decode_protobuf):
        try:
            decode(body, arrival_ns=ARRIVAL)
        except InvalidOtlp as refused:
            assert str(refused)  # noqa: PT017 - every refusal says why


@settings(deadline=None)
@given(st.dictionaries(FIELDS, JSON), st.none() | JSON)
def test_any_json_in_any_field_gives_a_whole_span_or_none(fields: Json, resource: object) -> None:
    body = body_of(USUAL | fields, resource=resource)

    batch = decode_json(body, arrival_ns=ARRIVAL)

    assert len(batch.spans) + batch.rejected.total() == 1
    # Whatever was kept can be written as JSON and as UTF-8.
    msgspec.json.encode(batch.spans)


@settings(deadline=None)
@given(st.data())
def test_protobuf_with_bytes_changed_is_decoded_or_refused(data: st.DataObject) -> None:
    body = bytearray(encode_spans(sdk_spans()).SerializeToString())
    for _ in range(data.draw(st.integers(1, 6))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))

    try:
        batch = decode_protobuf(bytes(body), arrival_ns=ARRIVAL)
    except InvalidOtlp:
        return
    msgspec.json.encode(batch.spans)
