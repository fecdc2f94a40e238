"""What the API shows of a record, and that the OTLP it came from can be made of it again."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from lifesign.clock import EpochMs
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import Span, decode_json, decode_protobuf
from lifesign.telemetry.otlp.spans import Resource, Scope, SpanEvent, SpanLink
from lifesign.telemetry.records import Body, Origin
from lifesign.telemetry.rules import SlowAfter
from lifesign.telemetry.wire import to_otlp, wire
from tests.telemetry.requests import ARRIVAL, body_of, sdk_spans
from tests.telemetry.spans import MS, RECEIVED_AT, SPAN, START_NS, TRACE, a_span, exception, record_of

LINK = SpanLink("ab" * 16, "cd" * 8, "k=v", {"why": "because"}, 1, 1)


def test_a_record_on_the_wire_has_every_field() -> None:
    span = replace(
        a_span(
            {
                "gen_ai.operation.name": "execute_tool",
                "gen_ai.tool.name": "search",
                "gen_ai.provider.name": "openai",
                "gen_ai.request.model": "gpt-5",
                "gen_ai.usage.input_tokens": 10,
                "gen_ai.usage.output_tokens": 5,
                "gen_ai.usage.cache_read.input_tokens": 4,
                "gen_ai.usage.cost": 0.0000125,
                "gen_ai.response.finish_reasons": ["stop"],
                "success": False,
                "attempt": 2,
            },
            name="execute_tool search",
            resource={"service.name": "shop", "service.version": "1.2", "deployment.environment": "prod"},
            status=2,
            status_message="boom",
            events=(exception(type="TimeoutError"),),
            is_cut=True,
        ),
        parent_id="11" * 8,
        trace_state="a=b",
        flags=257,
        kind=3,
        end_ns=START_NS + 1_234_567,
        dropped_attributes=1,
        dropped_events=2,
        dropped_links=3,
        links=(LINK,),
        scope=Scope("lib", "2", {"x": 1}, 4, "https://schema/1"),
    )

    assert wire(record_of(span), project_id="shop-0a1b2c3d", session_id="s-1") == {
        "record_id": f"rec_{TRACE}{SPAN}",
        "project_id": "shop-0a1b2c3d",
        "trace_id": TRACE,
        "span_id": SPAN,
        "parent_span_id": "1111111111111111",
        "session_id": "s-1",
        "agent": "shop",
        "service": "shop",
        "environment": "prod",
        "version": "1.2",
        "kind": "tool",
        "operation": "search",
        "name": "execute_tool search",
        "tool": "search",
        "provider": "openai",
        "model": "gpt-5",
        "signal_type": "tool_call_failed",
        "severity": "error",
        "status": "error",
        "error_type": "TimeoutError",
        "message": "boom",
        "soft_error": True,
        "finish_reason": "stop",
        "attempt": 2,
        "duration_ms": 1.235,
        "started_at": "2026-01-05T12:00:00.000Z",
        "ended_at": "2026-01-05T12:00:00.001Z",
        "received_at": "2026-01-05T12:00:01.000Z",
        "start_ns": "1767614400000000000",
        "end_ns": "1767614400001234567",
        "tokens": {"input": 10, "output": 5, "cache_read": 4, "cache_write": None, "reasoning": None, "total": 15},
        "cost_usd": 0.0000125,
        "cost_source": "reported",
        "clock_skew": False,
        "truncated": True,
        "otlp": {
            "kind": 3,
            "trace_state": "a=b",
            "flags": 257,
            "status_code": 2,
            "status_message": "boom",
            "dropped_attributes": 1,
            "dropped_events": 2,
            "dropped_links": 3,
        },
        "convention": "gen_ai",
        "attributes": span.attributes,
        "resource": {
            "attributes": {"service.name": "shop", "service.version": "1.2", "deployment.environment": "prod"},
            "dropped_attributes": 0,
            "schema_url": "",
        },
        "scope": {
            "name": "lib",
            "version": "2",
            "attributes": {"x": 1},
            "dropped_attributes": 4,
            "schema_url": "https://schema/1",
        },
        "events": [
            {
                "name": "exception",
                "time": "2026-01-05T12:00:00.000Z",
                "time_ns": "1767614400000000000",
                "attributes": {"exception.type": "TimeoutError"},
                "dropped_attributes": 0,
            }
        ],
        "links": [
            {
                "trace_id": "ab" * 16,
                "span_id": "cd" * 8,
                "trace_state": "k=v",
                "flags": 1,
                "attributes": {"why": "because"},
                "dropped_attributes": 1,
            }
        ],
    }


def test_what_is_unknown_is_null_on_the_wire() -> None:
    told = wire(record_of(a_span()), project_id="p", session_id=TRACE)

    nothing = {name for name, value in told.items() if value is None}
    assert nothing == {
        *("parent_span_id", "agent", "service", "environment", "version", "tool", "provider", "model", "error_type"),
        *("message", "finish_reason", "attempt", "cost_usd", "cost_source"),
    }
    assert set(told["tokens"].values()) == {None}
    assert (told["status"], told["severity"], told["soft_error"]) == ("unset", "info", False)


def test_an_end_before_the_start_is_told_as_it_came_and_took_no_time() -> None:
    body = body_of({"traceId": TRACE, "spanId": SPAN, "startTimeUnixNano": START_NS, "endTimeUnixNano": START_NS - MS})
    (span,) = decode_json(body, arrival_ns=ARRIVAL).spans

    told = wire(record_of(span), project_id="p", session_id="s")

    assert (told["duration_ms"], told["clock_skew"], told["end_ns"]) == (0.0, True, str(START_NS - MS))


def test_times_as_text_and_as_numbers_agree_to_the_nanosecond() -> None:
    start, end = 1_767_614_400_123_456_789, 1_767_614_401_123_456_791

    for write in (int, str):
        times = {"startTimeUnixNano": write(start), "endTimeUnixNano": write(end)}
        (span,) = decode_json(body_of({"traceId": TRACE, "spanId": SPAN} | times), arrival_ns=ARRIVAL).spans
        told = wire(record_of(span), project_id="p", session_id="s")
        assert (told["start_ns"], told["end_ns"]) == ("1767614400123456789", "1767614401123456791")


def test_a_body_and_its_origin_can_be_kept_as_json() -> None:
    record = record_of(replace(a_span({"n": 2.0, "i": 2**62}, events=(exception(type="T"),)), links=(LINK,)))

    body, origin = msgspec.json.encode(record.body), msgspec.json.encode(record.origin)

    assert msgspec.json.decode(body, type=Body) == record.body
    assert isinstance(msgspec.json.decode(body, type=Body).attributes["n"], float)
    assert msgspec.json.decode(origin, type=Origin) == record.origin


# Back to OTLP --------------------------------------------------------------------------------------------------------
def sent_on(spans: list[Span]) -> list[Span]:
    """The same spans after they were stored, shown, exported and sent again."""
    shown = [
        json.loads(msgspec.json.encode(wire(record, project_id="p", session_id="s")))
        for record in records_of(spans, RECEIVED_AT, slow_after=SlowAfter())
    ]
    return decode_json(msgspec.json.encode(to_otlp(shown)), arrival_ns=ARRIVAL + 1).spans


def test_spans_of_the_official_sdk_are_sent_on_as_they_came() -> None:
    spans = decode_protobuf(encode_spans(sdk_spans()).SerializeToString(), arrival_ns=ARRIVAL).spans

    assert sent_on(spans) == spans


def test_spans_are_grouped_by_resource_and_scope_when_they_are_sent_on() -> None:
    one, two = Resource({"service.name": "a"}, 0, ""), Resource({"service.name": "b"}, 0, "")
    x, y = Scope("x", "", {}, 0, ""), Scope("y", "", {}, 0, "")
    places = [(one, x), (two, x), (one, y), (one, x)]
    spans = [replace(a_span(name=str(n)), resource=r, scope=s) for n, (r, s) in enumerate(places)]

    told = to_otlp(wire(record_of(span), project_id="p", session_id="s") for span in spans)

    assert [
        [(part["scope"]["name"], [span["name"] for span in part["spans"]]) for part in group["scopeSpans"]]
        for group in told["resourceSpans"]
    ] == [[("x", ["0", "3"]), ("y", ["2"])], [("x", ["1"])]]


def test_bytes_and_numbers_that_are_not_finite_are_sent_on_as_text() -> None:
    values = {"b": {"bytesValue": "AAEC"}, "n": {"doubleValue": "NaN"}}
    pairs = [{"key": key, "value": value} for key, value in values.items()]
    (span,) = decode_json(body_of({"traceId": TRACE, "spanId": SPAN, "attributes": pairs}), arrival_ns=ARRIVAL).spans

    (again,) = sent_on([span])

    assert again.attributes == {"b": "AAEC", "n": "NaN"}


KEYS = st.text(min_size=1, max_size=6).map(lambda text: text.replace("\0", "0"))
TEXTS = st.text(max_size=8).map(lambda text: text.replace("\0", "0"))
INT64 = st.integers(-(2**63), 2**63 - 1)
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | INT64 | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=6,
)
ATTRIBUTES = st.dictionaries(KEYS, VALUES, max_size=4)
COUNTS = st.integers(0, 2**32 - 1)
TIMES = st.integers(1, 2**63 - 1)
SPAN_IDS, TRACE_IDS = (st.binary(min_size=size, max_size=size).map(bytes.hex) for size in (8, 16))
SPANS = st.builds(
    Span,
    trace_id=TRACE_IDS.filter(lambda each: each.strip("0")),
    span_id=SPAN_IDS.filter(lambda each: each.strip("0")),
    parent_id=st.just("") | SPAN_IDS.filter(lambda each: each.strip("0")),
    trace_state=TEXTS,
    flags=COUNTS,
    name=TEXTS,
    kind=st.integers(0, 5),
    start_ns=TIMES,
    end_ns=TIMES,
    attributes=ATTRIBUTES,
    dropped_attributes=COUNTS,
    events=st.lists(
        st.builds(SpanEvent, time_ns=st.integers(0, 2**63 - 1), name=TEXTS, attributes=ATTRIBUTES, dropped=COUNTS),
        max_size=2,
    ).map(tuple),
    dropped_events=COUNTS,
    links=st.lists(
        st.builds(
            SpanLink,
            trace_id=st.just("") | TRACE_IDS,
            span_id=st.just("") | SPAN_IDS,
            trace_state=TEXTS,
            attributes=ATTRIBUTES,
            dropped=COUNTS,
            flags=COUNTS,
        ),
        max_size=2,
    ).map(tuple),
    dropped_links=COUNTS,
    status_code=st.integers(0, 2),
    status_message=TEXTS,
    resource=st.builds(Resource, attributes=ATTRIBUTES, dropped=COUNTS, schema_url=TEXTS),
    scope=st.builds(Scope, name=TEXTS, version=TEXTS, attributes=ATTRIBUTES, dropped=COUNTS, schema_url=TEXTS),
    is_cut=st.just(False),
    is_skewed=st.just(False),
).map(lambda span: replace(span, is_skewed=span.end_ns < span.start_ns))


@settings(deadline=None)
@given(SPANS)
def test_any_span_is_sent_on_as_it_came(span: Span) -> None:
    assert sent_on([span]) == [span]


@pytest.mark.parametrize("at", [0, 2**63 - 1])
def test_the_ends_of_time_can_be_shown(at: int) -> None:
    span = replace(a_span(), start_ns=at, end_ns=at)

    told = wire(record_of(span), project_id="p", session_id="s")

    assert told["started_at"] in {"1970-01-01T00:00:00.000Z", "2262-04-11T23:47:16.854Z"}
    assert EpochMs(0) == 0
