"""Whatever is sent is decoded or refused, and read the same in the quick and in the lenient way."""

import json
import math
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from lifesign.telemetry.otlp import Batch, InvalidOtlp, decode_json, decode_protobuf, lenient, strict
from tests.telemetry.requests import ARRIVAL, SPAN, TRACE, USUAL, Json, as_otlp_json, body_of, sdk_spans

# Anything -----------------------------------------------------------------------------------------------------------
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from(
    [*USUAL, "kind", "status", "attributes", "events", "links", "flags", "traceState", "parentSpanId", "trace_id"]
)


def assert_storable(batch: Batch) -> None:
    """Whatever was kept can be written as JSON, without NUL, and as UTF-8."""
    written = msgspec.json.encode(batch.spans)
    assert b"\\u0000" not in written
    assert all(math.isfinite(number) for number in floats(msgspec.to_builtins(batch.spans)))


def floats(value: Any) -> list[float]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return [number for each in value for number in floats(each)]
    return [value] if isinstance(value, float) else []


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
    assert_storable(batch)


@settings(deadline=None)
@given(st.data())
def test_protobuf_with_bytes_changed_is_decoded_or_refused(data: st.DataObject) -> None:
    body = changed(encode_spans(sdk_spans()).SerializeToString(), data)

    try:
        batch = decode_protobuf(body, arrival_ns=ARRIVAL)
    except InvalidOtlp:
        return
    assert_storable(batch)


@settings(deadline=None)
@given(st.data())
def test_json_with_bytes_changed_is_decoded_or_refused(data: st.DataObject) -> None:
    body = changed(json.dumps(as_otlp_json(encode_spans(sdk_spans()))).encode(), data)

    try:
        batch = decode_json(body, arrival_ns=ARRIVAL)
    except InvalidOtlp:
        return
    assert_storable(batch)


def changed(body: bytes, data: st.DataObject) -> bytes:
    """The same with a few bytes replaced, and perhaps with a piece left out."""
    found = bytearray(body)
    for _ in range(data.draw(st.integers(1, 6))):
        found[data.draw(st.integers(0, len(found) - 1))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        start = data.draw(st.integers(0, len(found) - 1))
        del found[start : start + data.draw(st.integers(0, 20))]
    return bytes(found)


# The quick way and the lenient way ------------------------------------------------------------------------------------
def pair_of(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Json]:
    keys = st.none() | st.sampled_from(["", "a", "b"]) | st.just(1100).map("k".__mul__)
    return st.fixed_dictionaries({}, optional={"key": keys, "value": values})


NUMBERS = (
    st.integers(-(2**70), 2**70) | st.integers(0, 9) | st.sampled_from(["0", "17", "-4", " 5 ", "x", "", "1" * 25])
)
COUNTS = st.none() | st.integers(-5, 2**40)
TEXTS = st.none() | st.text(max_size=5) | st.sampled_from([1030, 33_000]).map("t".__mul__)
IDS = st.none() | st.sampled_from([TRACE, SPAN, TRACE.upper(), "0" * 32, "0" * 16, "", "7rGbfsPBsXQ=", "zz"])
ANY_VALUES = st.recursive(
    st.none()
    | st.just({})
    | st.fixed_dictionaries({}, optional={"stringValue": TEXTS, "boolValue": st.none() | st.booleans()})
    | st.fixed_dictionaries({}, optional={"intValue": NUMBERS, "bytesValue": TEXTS})
    | st.builds(lambda value: {"doubleValue": value}, st.floats(allow_nan=False, allow_infinity=False) | TEXTS),
    lambda inner: (
        st.builds(lambda values: {"arrayValue": {"values": values}}, st.none() | st.lists(inner, max_size=3))
        | st.builds(lambda values: {"kvlistValue": {"values": values}}, st.lists(pair_of(inner), max_size=3))
    ),
    max_leaves=20,
)


PAIRS = st.none() | st.lists(pair_of(ANY_VALUES), max_size=4)
EVENT = st.fixed_dictionaries(
    {}, optional={"timeUnixNano": NUMBERS, "name": TEXTS, "attributes": PAIRS, "droppedAttributesCount": COUNTS}
)
LINK = st.fixed_dictionaries(
    {},
    optional={
        "traceId": IDS,
        "spanId": IDS,
        "traceState": TEXTS,
        "attributes": PAIRS,
        "droppedAttributesCount": COUNTS,
        "flags": COUNTS,
    },
)
ENUMS = st.none() | st.integers(-2, 9) | st.sampled_from(["SPAN_KIND_SERVER", "STATUS_CODE_OK", "2", "x"])
WELL_FORMED = st.fixed_dictionaries(
    {"traceId": st.just(TRACE) | IDS, "spanId": st.just(SPAN) | IDS},
    optional={
        "parentSpanId": IDS,
        "traceState": TEXTS,
        "flags": COUNTS,
        "name": TEXTS,
        "kind": ENUMS,
        "startTimeUnixNano": NUMBERS,
        "endTimeUnixNano": NUMBERS,
        "attributes": PAIRS,
        "droppedAttributesCount": COUNTS,
        "events": st.lists(EVENT, max_size=2),
        "droppedEventsCount": COUNTS,
        "links": st.lists(LINK, max_size=2),
        "droppedLinksCount": COUNTS,
        "status": st.none() | st.fixed_dictionaries({}, optional={"code": ENUMS, "message": TEXTS}),
    },
)


@settings(deadline=None, max_examples=300)
@given(st.lists(WELL_FORMED, max_size=3), PAIRS, TEXTS)
def test_the_quick_way_and_the_lenient_way_read_the_same(spans: list[Json], pairs: object, text: str | None) -> None:
    scope = {"name": text, "version": text, "attributes": pairs, "droppedAttributesCount": 3}
    part = {"scope": scope, "spans": [*spans, None], "schemaUrl": text}
    group = {"resource": {"attributes": pairs, "droppedAttributesCount": 2}, "scopeSpans": [part], "schemaUrl": text}
    # json.dumps escapes everything beyond ASCII, so that the body holds no surrogates; NUL is left to the lenient way.
    body = json.dumps({"resourceSpans": [group]}).replace("\\u0000", "0").encode()

    request = strict.well_formed(body)

    assert request is not None
    quick, slow = Batch(), Batch()
    strict.add_spans(quick, request, arrival_ns=ARRIVAL, is_clean=True)
    strict.add_spans(slow, lenient.request_of(body), arrival_ns=ARRIVAL, is_clean=False)
    assert slow == quick
    assert quick == decode_json(body, arrival_ns=ARRIVAL)


def test_what_exporters_send_is_read_the_quick_way() -> None:
    body = json.dumps(as_otlp_json(encode_spans(sdk_spans()))).encode()

    assert strict.well_formed(body) is not None
    assert strict.well_formed(body.replace(b"traceId", b"trace_id")) is None
