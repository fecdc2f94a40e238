"""Decoding what exporters send: JSON of many hands, protobuf of the official SDK, and what is neither."""

import base64
import json
import time

import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lifesign.telemetry.otlp import Batch, InvalidOtlp, Span, decode_json, decode_protobuf
from tests.telemetry.requests import ARRIVAL, SPAN, TRACE, USUAL, Json, as_otlp_json, batch_of, body_of, sdk_spans


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
        (b'{"resourceSpans":[]} x', "is not JSON"),
        (b'{"resourceSpans":[' + b'{"scopeSpans":[' * 100_000, "is not JSON"),
    ],
)
def test_a_body_that_is_none_is_refused(body: bytes, words: str) -> None:
    with pytest.raises(InvalidOtlp, match=words):
        decode_json(body, arrival_ns=ARRIVAL)


def test_a_body_may_hold_nothing() -> None:
    for decode, body in ((decode_json, b'{"resourceSpans":[]}'), (decode_protobuf, b"")):
        assert decode(body, arrival_ns=ARRIVAL) == Batch()


@pytest.mark.parametrize(
    "body",
    [
        b"\x0a",
        b"\xff" * 20,
        b'{"resourceSpans":[]}',
        b"\x0a\x05abc",
        # A name that is not UTF-8.
        b"\x0a\x0a\x12\x08\x12\x06\x2a\x04a\xff\xfeb",
        # Groups within groups, without end.
        b"\x0a\xff\xff\xff\x07" * 50_000,
    ],
)
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


@pytest.mark.parametrize("wrong", [None, "", "0" * 16, SPAN[:-1], SPAN + "0", "x" * 16, 5, "AAAA"])
def test_a_span_with_a_bad_id_of_its_own_is_rejected_too(wrong: object) -> None:
    assert batch_of(USUAL | {"spanId": wrong}).message == "1 span rejected: invalid spanId (1); first: 'chat'"


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


def test_a_time_of_protobuf_beyond_63_bits_rejects_its_span() -> None:
    request = ExportTraceServiceRequest()
    spans = request.resource_spans.add().scope_spans.add().spans
    for start, end in ((2**63, 0), (0, 2**63), (2**63 - 1, 2**63 - 1)):
        spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, start_time_unix_nano=start, end_time_unix_nano=end)

    batch = decode_protobuf(request.SerializeToString(), arrival_ns=ARRIVAL)

    assert dict(batch.rejected) == {"invalid time": 2}
    assert [span.end_ns for span in batch.spans] == [2**63 - 1]


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
    wrong: object
    for wrong in ("SPAN_KIND_MAGIC", 99, -1, True, None, []):
        assert span_of(kind=wrong).kind == 0


def test_kinds_and_statuses_of_protobuf_that_do_not_exist_are_none() -> None:
    # The enums are open: any number is legal on the wire.
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"1" * 16, span_id=b"2" * 8)
    body = request.SerializeToString()
    assert span.kind == 0
    span.kind, span.status.code = 3, 2
    known = request.SerializeToString()

    (found,) = decode_protobuf(
        known.replace(b"\x30\x03", b"\x30\x63").replace(b"\x18\x02", b"\x18\x63"), arrival_ns=1
    ).spans

    assert len(known) > len(body)
    assert (found.kind, found.status_code) == (0, 0)


@pytest.mark.parametrize(
    "written", [b"a\\u0000b\\ud800c", b"a\\u0000b\xed\xa0\x80c", b"a\x00b\\udfffc"], ids=["escaped", "encoded", "bare"]
)
def test_nul_and_halves_of_surrogate_pairs_become_replacement_characters(written: bytes) -> None:
    body = body_of(USUAL | {"attributes": {"chat": "chat"}}).replace(b'"chat"', b'"' + written + b'"')

    (span,) = decode_json(body, arrival_ns=ARRIVAL).spans

    assert (span.name, span.attributes) == ("a\ufffdb\ufffdc", {"a\ufffdb\ufffdc": "a\ufffdb\ufffdc"})


def test_nul_alone_becomes_one_too() -> None:
    body = body_of(USUAL | {"attributes": [{"key": "a\0", "value": {"stringValue": "\0"}}], "name": "\0"})

    (span,) = decode_json(body, arrival_ns=ARRIVAL).spans

    assert (span.name, span.attributes) == ("\ufffd", {"a\ufffd": "\ufffd"})


def test_nul_in_protobuf_becomes_a_replacement_character() -> None:
    request = ExportTraceServiceRequest()
    span = request.resource_spans.add().scope_spans.add().spans.add(trace_id=b"1" * 16, span_id=b"2" * 8, name="a\0b")
    pair = span.attributes.add(key="k\0")
    pair.value.string_value = "v\0"
    pair = span.attributes.add(key="key\0alone")
    pair.value.string_value = "v"

    (found,) = decode_protobuf(request.SerializeToString(), arrival_ns=ARRIVAL).spans

    assert (found.name, found.attributes) == ("a\ufffdb", {"k\ufffd": "v\ufffd", "key\ufffdalone": "v"})


def test_numbers_that_are_not_finite_are_told_by_name_even_where_json_has_none() -> None:
    body = (
        body_of(USUAL | {"attributes": {"a": 1, "b": 2}}).replace(b'"a": 1', b'"a": NaN').replace(b"2}", b"-Infinity}")
    )

    (span,) = decode_json(body, arrival_ns=ARRIVAL).spans

    assert span.attributes == {"a": "NaN", "b": "-Infinity"}


@pytest.mark.parametrize("kind", ["stringValue", "boolValue", "doubleValue", "intValue", "bytesValue", "kvlistValue"])
def test_a_value_of_another_kind_than_it_says_is_nothing_however_deep_it_is(kind: str) -> None:
    nested = "[" * 400 + "]" * 400
    body = body_of(USUAL | {"attributes": [{"key": "a", "value": {kind: 0}}]}).replace(b'": 0', f'": {nested}'.encode())

    (span,) = decode_json(body, arrival_ns=ARRIVAL).spans

    assert not span.attributes["a"]


def test_scalars_are_read_where_text_was_promised() -> None:
    pairs = {"i": 5, "f": 1.5, "b": True, "huge": 10**400}

    found = attributes_of(*({"key": key, "value": {"stringValue": value}} for key, value in pairs.items()))

    assert found == {"i": "5", "f": "1.5", "b": "true", "huge": None}


# Limits -------------------------------------------------------------------------------------------------------------
def test_text_that_is_too_long_is_cut_and_told() -> None:
    span = span_of(name="n" * 1025, attributes={"a": "x" * 32_769}, status={"message": "m" * 40_000})

    assert span.name == "n" * 1021 + "..."
    assert span.attributes["a"] == "x" * 32_765 + "..."
    assert len(span.status_message) == 32_768
    assert span.is_cut
    assert not span_of(name="n" * 1024, attributes={"a": "x" * 32_768}).is_cut


def test_a_span_that_is_cut_says_nothing_about_the_next_one() -> None:
    batch = batch_of(USUAL | {"name": "n" * 2000}, USUAL)

    assert [span.is_cut for span in batch.spans] == [True, False]


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
    assert 262_000 < size <= 262_144
    assert span.attributes["small"] == "kept whole"
    assert {len(span.attributes[key]) for key in large} == {21_833}
    assert all(span.attributes[key].endswith("x...") for key in large)
    assert span.is_cut


def test_a_long_list_is_shortened_as_the_text_of_its_json() -> None:
    values = [{"stringValue": "größe" * 100}] * 2000

    span = span_of(attributes=[{"key": "a", "value": {"arrayValue": {"values": values}}}])

    assert 262_000 < len(span.attributes["a"].encode()) <= 262_144
    assert span.attributes["a"].startswith('["größe')
    assert span.attributes["a"].endswith("...")


def test_attributes_of_a_span_its_events_and_its_links_share_the_bytes_of_a_record() -> None:
    mine = {f"k{n}": "x" * 1000 for n in range(256)}
    events = [{"name": "e", "attributes": mine}] * 3
    links = [{"traceId": TRACE, "spanId": SPAN, "attributes": mine}]

    span = span_of(attributes=mine | {"id": "kept"}, events=events, links=links)

    groups = [span.attributes, *(each.attributes for each in span.events), *(each.attributes for each in span.links)]
    assert sum(len(key) + len(value) for group in groups for key, value in group.items()) <= 262_144
    assert [len(group) for group in groups] == [256] * 5
    assert span.is_cut


def test_keys_that_take_all_bytes_leave_out_the_last_attributes_and_count_them() -> None:
    span = span_of(attributes={f"{n:03}" + "ü" * 1000: "v" for n in range(256)}, droppedAttributesCount=1)

    size = sum(len(key.encode()) + len(value) for key, value in span.attributes.items())
    assert size <= 262_144
    assert len(span.attributes) + span.dropped_attributes == 257
    assert next(iter(span.attributes)).startswith("000")


def test_a_resource_and_a_scope_leave_half_of_the_bytes_to_the_span() -> None:
    large = {f"{n:02}": "x" * 30_000 for n in range(20)}
    part = {"scope": {"attributes": large}, "spans": [USUAL | {"attributes": large}]}
    body = {"resourceSpans": [{"resource": {"attributes": large}, "scopeSpans": [part]}]}

    (span,) = decode_json(json.dumps(body).encode(), arrival_ns=ARRIVAL).spans

    of_resource, of_scope, of_span = (
        sum(len(key) + len(value) + 4 for key, value in attributes.items())
        for attributes in (span.resource.attributes, span.scope.attributes, span.attributes)
    )
    assert 98_200 < of_resource <= 98_304
    assert 32_700 < of_scope <= 32_768
    assert 262_100 < of_resource + of_scope + of_span <= 262_144
    assert span.is_cut


def test_a_scope_that_is_cut_says_nothing_about_the_spans_of_another() -> None:
    body = {
        "resourceSpans": [
            {
                "scopeSpans": [
                    {"scope": {"name": "n" * 2000}, "spans": [USUAL]},
                    {"scope": {"name": "n"}, "spans": [USUAL]},
                ]
            }
        ]
    }

    first, second = decode_json(json.dumps(body).encode(), arrival_ns=ARRIVAL).spans

    assert (first.is_cut, second.is_cut) == (True, False)


def test_a_resource_is_read_once_however_many_scopes_it_has() -> None:
    resource = {"attributes": {f"k{n}": "v" for n in range(256)}}
    body = json.dumps({"resourceSpans": [{"resource": resource, "scopeSpans": [{}] * 20_000}]}).encode()
    began = time.process_time()

    decode_json(body, arrival_ns=ARRIVAL)

    # 0.1 s here; when it was read anew for each it took 3 s.
    assert time.process_time() - began < 0.7


def test_to_cut_many_long_values_takes_one_look_at_each() -> None:
    body = body_of(USUAL | {"attributes": {f"k{n}": "x" * 32_000 for n in range(256)}})
    began = time.process_time()

    decode_json(body, arrival_ns=ARRIVAL)

    # 30 ms here; when the longest was looked for anew for each it took 1.5 s.
    assert time.process_time() - began < 0.5


# What others made -------------------------------------------------------------------------------------------------
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
