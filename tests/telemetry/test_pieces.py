"""A request that is decoded in pieces says what it says as a whole. Spec "Telemetry", section 3.3."""

import json
from collections.abc import Callable, Iterable

import pytest
from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from lifesign.telemetry.otlp import Batch, InvalidOtlp, decode_json, decode_protobuf
from lifesign.telemetry.otlp.pieces import PIECE_BYTES, pieces_of_json, pieces_of_protobuf
from tests.telemetry.requests import ARRIVAL, USUAL, Json, as_otlp_json, body_of, sdk_spans


def decoded(decode: Callable[..., Batch], pieces: Iterable[bytes]) -> Batch | None:
    """What pieces say together; None when one of them is refused."""
    whole = Batch()
    for piece in pieces:
        try:
            batch = decode(piece, arrival_ns=ARRIVAL)
        except InvalidOtlp:
            return None
        whole.spans += batch.spans
        whole.rejected += batch.rejected
        whole.first_rejected = whole.first_rejected or batch.first_rejected
    return whole


def spans(count: int) -> list[Json]:
    return [USUAL | {"spanId": f"{number:016x}", "name": f"work {number}"} for number in range(1, count + 1)]


TEXTS = st.text(max_size=4)
GROUPS = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "resource": st.none() | st.just({"attributes": [{"key": "a", "value": {"intValue": "1"}}]}) | st.just(7),
            "schemaUrl": st.none() | TEXTS,
            "extra": TEXTS,
            "scopeSpans": st.none()
            | st.lists(
                st.fixed_dictionaries(
                    {},
                    optional={
                        "scope": st.none() | st.fixed_dictionaries({"name": TEXTS}),
                        "schemaUrl": TEXTS,
                        "spans": st.none()
                        | st.lists(
                            st.sampled_from([*spans(5), None, 5, {"name": "no id"}, {"trace_id": "snake"}]), max_size=8
                        ),
                    },
                ),
                max_size=3,
            ),
        },
    ),
    max_size=3,
)


@given(GROUPS, st.integers(1, 2000))
def test_json_in_pieces_of_any_size_says_the_same(groups: list[Json], size: int) -> None:
    body = json.dumps({"resourceSpans": groups}).encode()

    assert decoded(decode_json, pieces_of_json(body, size)) == decoded(decode_json, [body])


def test_a_name_with_half_a_character_leaves_a_request_whole() -> None:
    body = json.dumps({"resourceSpans": [{"scopeSpans": [{"spans": [USUAL]}], "half": 1}]}).encode()
    body = body.replace(b"half", b"\xed\xa0\x80")

    assert list(pieces_of_json(body, 10)) == [body]
    assert [span.name for span in decode_json(body, arrival_ns=ARRIVAL).spans] == ["chat"]


SNAKE = {
    "trace_id": USUAL["traceId"],
    "name": "chat",
    "start_time_unix_nano": "1000",
    "end_time_unix_nano": "2000",
    "attributes": {"a": "b"},
}
LOOSE_LISTS: st.SearchStrategy[object] = st.none() | st.just(7) | st.just({})
LOOSE_SPANS = LOOSE_LISTS | st.lists(
    st.sampled_from([SNAKE | {"span_id": "eee19b7ec3c1b174"}, SNAKE | {"span_id": "1" * 16}, None, 5, {}]), max_size=4
)
LOOSE_PARTS = LOOSE_LISTS | st.lists(
    st.just(5)
    | st.fixed_dictionaries(
        {},
        optional={
            "scope": st.none() | st.just({"name": "scope"}),
            "instrumentation_library": st.just({"name": "library"}),
            "instrumentationLibrary": st.none() | st.just({"name": "Library"}),
            "schema_url": TEXTS,
            "schemaUrl": st.none() | TEXTS,
            "spans": LOOSE_SPANS,
            "more": TEXTS,
        },
    ),
    max_size=2,
)
LOOSE_GROUPS = LOOSE_LISTS | st.lists(
    st.just("none")
    | st.fixed_dictionaries(
        {},
        optional={
            "resource": st.just(7) | st.just({"attributes": {"a": 1}}),
            "schema_url": TEXTS,
            "scopeSpans": LOOSE_PARTS,
            "scope_spans": LOOSE_PARTS,
            "instrumentationLibrarySpans": LOOSE_PARTS,
            "instrumentation_library_spans": LOOSE_PARTS,
        },
    ),
    max_size=2,
)


@given(
    st.fixed_dictionaries({}, optional={"resourceSpans": LOOSE_GROUPS, "resource_spans": LOOSE_GROUPS, "more": TEXTS}),
    st.integers(1, 2000),
)
def test_json_that_is_read_leniently_says_the_same_in_pieces_of_any_size(body: Json, size: int) -> None:
    told = json.dumps(body).encode()

    assert decoded(decode_json, pieces_of_json(told, size)) == decoded(decode_json, [told])


@pytest.mark.parametrize("names", [("resource_spans", "scope_spans"), ("resourceSpans", "instrumentationLibrarySpans")])
def test_a_large_request_that_is_read_leniently_comes_in_pieces_too(names: tuple[str, str]) -> None:
    groups, parts = names
    body = json.dumps({groups: [{parts: [{"spans": [SNAKE] * 2000}]}], "more": 1}).encode()

    pieces = [*pieces_of_json(body)]

    assert len(pieces) > 1
    assert max(map(len, pieces)) < PIECE_BYTES * 1.1


def test_groups_and_scopes_without_spans_are_not_repeated() -> None:
    body = json.dumps({"resourceSpans": [{}, {"scopeSpans": [{}, {"spans": []}]}] * 2000}).encode()

    assert [*pieces_of_json(body)] == [b'{"resourceSpans":[]}']


def encoded_size(size: int) -> bytes:
    return bytes([*(size >> shift & 127 | 128 for shift in (0, 7, 14)), size >> 21])


def protobuf_of(count: int) -> bytes:
    request = encode_spans(sdk_spans() * count)
    for number, span in enumerate(each for each in request.resource_spans[0].scope_spans[0].spans):
        span.span_id = (number + 1).to_bytes(8, "big")
    return bytes(request.SerializeToString())


@given(st.integers(1, 5), st.integers(1, 3000))
def test_protobuf_in_pieces_of_any_size_says_the_same(count: int, size: int) -> None:
    body = protobuf_of(count)

    assert decoded(decode_protobuf, pieces_of_protobuf(body, size)) == decoded(decode_protobuf, [body])


@given(st.data())
def test_broken_protobuf_is_refused_in_pieces_exactly_when_it_is_refused_as_a_whole(data: st.DataObject) -> None:
    body = bytearray(protobuf_of(1))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    broken = bytes(body[: data.draw(st.integers(0, len(body)))])

    assert decoded(decode_protobuf, pieces_of_protobuf(broken, 1)) == decoded(decode_protobuf, [broken])


@given(st.binary(max_size=60))
def test_any_bytes_are_divided_or_left_whole(body: bytes) -> None:
    for decode, pieces in ((decode_protobuf, pieces_of_protobuf), (decode_json, pieces_of_json)):
        assert decoded(decode, pieces(body, 1)) == decoded(decode, [body])


@pytest.mark.parametrize(
    ("decode", "body"),
    [
        (decode_protobuf, b"\x0a\x00" * 200_000),
        (decode_protobuf, b"\x78\x01" * 200_000),
        (decode_json, b'{"resourceSpans":[%b{}]}' % (b"{}," * 200_000)),
        (decode_json, b'{"resource_spans":[%b{}]}' % (b"{}," * 200_000)),
        (decode_json, b'{"resourceSpans":[{"scopeSpans":[{"spans":[%b0]}]}]}' % (b"0," * 200_000)),
    ],
    ids=["groups of protobuf", "unknown fields of protobuf", "groups", "groups in snake_case", "no objects"],
)
def test_a_request_of_very_many_parts_that_can_hold_no_span_is_refused(
    decode: Callable[..., Batch], body: bytes
) -> None:
    with pytest.raises(InvalidOtlp, match="too short to hold spans"):
        decode(body, arrival_ns=ARRIVAL)


def test_as_many_of_the_shortest_spans_as_fit_are_taken() -> None:
    spans = [b"\x12\x1c\x0a\x10%b\x12\x08%b" % (b"t" * 16, number.to_bytes(8)) for number in range(1, 110_001)]
    part = b"".join(spans)
    scope = b"\x12" + encoded_size(len(part)) + part
    body = b"\x0a" + encoded_size(len(scope)) + scope

    assert len(decode_protobuf(body, arrival_ns=ARRIVAL).spans) == 110_000


def test_a_large_request_of_the_official_sdk_comes_in_pieces_that_are_no_larger_than_they_should_be() -> None:
    body = protobuf_of(500)
    told = json.dumps(as_otlp_json(ExportTraceServiceRequest.FromString(body))).encode()

    for pieces in ([*pieces_of_protobuf(body)], [*pieces_of_json(told)]):
        assert len(pieces) > 1
        assert max(map(len, pieces)) < PIECE_BYTES * 1.1


def test_a_resource_as_large_as_a_piece_is_not_repeated() -> None:
    large = {"attributes": [{"key": "k", "value": {"stringValue": "v" * PIECE_BYTES}}]}
    body = body_of(*spans(2000), resource=large)

    assert [*pieces_of_json(body)] == [body]


@pytest.mark.parametrize("body", [b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x0b", b"\x00\x01"])
def test_what_is_no_message_is_left_to_the_parser(body: bytes) -> None:
    assert [*pieces_of_protobuf(body, 1)] == [body]
    with pytest.raises(DecodeError):
        ExportTraceServiceRequest.FromString(body)


# A field of a number beyond the last there is: it can be stepped over, and is refused by the parser.
BEYOND = b"\x80\x80\x80\x80\x10\x01"


@pytest.mark.parametrize(
    "body",
    [
        BEYOND,
        protobuf_of(1) + BEYOND,
        b"\x0a" + bytes([len(BEYOND)]) + BEYOND,
        b"\x0a" + bytes([len(BEYOND) + 2]) + b"\x12" + bytes([len(BEYOND)]) + BEYOND,
    ],
)
def test_a_fault_beside_the_spans_is_found_as_well(body: bytes) -> None:
    with pytest.raises(InvalidOtlp):
        decode_protobuf(body, arrival_ns=ARRIVAL)

    assert decoded(decode_protobuf, pieces_of_protobuf(body, 5)) is None


def test_a_span_without_a_name_is_named_by_its_place_in_the_whole_request() -> None:
    body = body_of(*(span | {"name": "n" * 500} for span in spans(1000)), {"traceId": "none"})

    assert len(body) > 2 * PIECE_BYTES
    assert decode_json(body, arrival_ns=ARRIVAL).message == "1 span rejected: invalid traceId (1); first: '#1001'"
