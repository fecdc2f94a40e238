"""What is as bad as it can be is answered as documented, and whatever was stored can be read everywhere.

Spec "Telemetry", sections 3, 3.1 and 6.
"""

import gzip
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote

from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types
from pydantic import SecretStr

from lifesign.settings import Settings
from tests.diagnosis.shapes import assert_packet_fits
from tests.harness import Json, Lifesign
from tests.telemetry.requests import USUAL
from tests.telemetry.senders import JSON, PROTOBUF, Sender, json_of, protobuf_of, sender
from tests.telemetry.test_reads import asked

MOST = 2**63 - 1
TRACE = "f" * 32


def numbered(number: int, **fields: object) -> Json:
    return USUAL | {"traceId": TRACE, "spanId": f"{number:016x}"} | fields


def told(**values: object) -> list[Json]:
    return [{"key": name.replace("__", "."), "value": value} for name, value in values.items()]


def call(**values: object) -> list[Json]:
    return told(
        gen_ai__operation__name={"stringValue": "chat"}, gen_ai__request__model={"stringValue": "gpt-5-mini"}, **values
    )


TOKENS = {"intValue": str(MOST)}
EXTREME = [
    numbered(1, startTimeUnixNano="0", endTimeUnixNano="0"),
    numbered(2, startTimeUnixNano=str(MOST), endTimeUnixNano=str(MOST)),
    numbered(3, startTimeUnixNano="1", endTimeUnixNano=str(MOST)),
    numbered(4, startTimeUnixNano=str(MOST), endTimeUnixNano="1"),
    numbered(5, attributes=call(gen_ai__usage__input_tokens=TOKENS, gen_ai__usage__output_tokens=TOKENS)),
    numbered(6, attributes=call(gen_ai__usage__input_tokens=TOKENS, gen_ai__usage__cost={"doubleValue": 1e308})),
    numbered(7, attributes=call(gen_ai__usage__input_tokens=TOKENS, gen_ai__usage__cost={"doubleValue": "NaN"})),
    numbered(8, attributes=call(gen_ai__usage__cost={"doubleValue": "Infinity"})),
    numbered(9, attributes=call(gen_ai__usage__cost={"doubleValue": -5})),
    numbered(10, attributes=call(gen_ai__usage__input_tokens={"intValue": "-1"}, cost_usd={"stringValue": "9e99"})),
    numbered(11, name="\ud800\x00", attributes=told(text={"stringValue": "\udfff a \x00"})),
    numbered(12, name="", attributes=told(session__id={"stringValue": "\ud800/../%2e?#\r\n\x00"})),
    numbered(13, name="x" * 100_000, status={"code": 2, "message": "y" * 100_000}),
    numbered(14, parentSpanId=f"{14:016x}", attributes=[{"key": f"k{each}"} for each in range(10_000)]),
    numbered(15, parentSpanId=f"{16:016x}", kind=99, flags=-1, droppedAttributesCount=2**40),
    numbered(16, parentSpanId=f"{15:016x}", traceState="a=" + "b" * 5000),
    numbered(17, attributes=told(attempt={"intValue": str(MOST)}, http__request__resend_count={"intValue": str(MOST)})),
    numbered(18, attributes=told(http__response__status_code={"intValue": str(MOST)}, level={"stringValue": "ERROR"})),
    numbered(
        19, attributes=told(**{"user.feedback": {"stringValue": "bad"}, "feedback.score": {"doubleValue": "NaN"}})
    ),
    numbered(
        20, events=[{"timeUnixNano": str(2**64), "name": "exception", "attributes": None}] * 500, links=[{}] * 500
    ),
]
REJECTED = [
    USUAL | {"traceId": "0" * 32},
    USUAL | {"spanId": "0" * 16},
    numbered(30, startTimeUnixNano="-1"),
    numbered(31, startTimeUnixNano=str(2**63)),
    numbered(32, endTimeUnixNano="1e9"),
    numbered(33, endTimeUnixNano=1.5),
    "no span",
]


def nested(levels: int) -> Json:
    value: Json = {"stringValue": "deep"}
    for _ in range(levels):
        value = {"arrayValue": {"values": [value]}}
    return value


@asynccontextmanager
async def on_chdb(url: str, directory: Path) -> AsyncIterator[Lifesign]:
    settings = Settings(data_dir=directory, telemetry_url=SecretStr(url), telemetry_retention_days=3650)
    async with Lifesign.started(settings, at="2026-01-05T12:00:00.000Z") as lifesign:
        yield lifesign


PATHS = (
    "/v1/telemetry?limit=1000",
    "/v1/telemetry?signal_type=slow_operation",
    f"/v1/telemetry?trace_id={TRACE}",
    "/v1/sessions?limit=500",
    f"/v1/sessions/{TRACE}",
    "/v1/dashboard",
    "/v1/reports/latest.md",
)


async def test_whatever_was_stored_of_the_worst_spans_is_told_by_every_route(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        await assert_told_everywhere(ours)


async def test_and_so_it_is_on_clickhouse(chdb_url: str, tmp_path: Path) -> None:
    async with on_chdb(chdb_url, tmp_path) as lifesign, sender(lifesign) as ours:
        await assert_told_everywhere(ours)


async def assert_told_everywhere(ours: Sender) -> None:
    answer = await ours.post(json_of(*EXTREME, *REJECTED, numbered(40, attributes=told(deep=nested(200)))))

    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert (body["accepted"], body["rejected"]) == (len(EXTREME) + 1, len(REJECTED))
    for path in PATHS:
        assert (await asked(ours, path)).status_code == 200, path
    records = (await asked(ours, "/v1/telemetry?limit=1000")).json()["records"]
    assert sorted(int(each["span_id"], 16) for each in records) == [*range(1, 21), 40]
    assert {each["cost_usd"] for each in records} == {None}
    listed = (await asked(ours, "/v1/sessions")).json()["sessions"]
    assert sum(each["turns"] for each in listed) == len(records)
    for each in listed:
        found = await asked(ours, f"/v1/sessions/{quote(each['session_id'], safe='')}")
        assert found.status_code == 200, found.text
    key = {"Authorization": f"Bearer {ours.agent_key}"}
    diagnosed = await ours.http.post("/v1/runs/diagnose", headers=key, json={})
    assert diagnosed.status_code == 200, diagnosed.text
    packet = diagnosed.json()["packet"]
    assert_packet_fits(packet)
    assert (packet["telemetry_read"], len(packet["issues"]) > 0) == (21, True)
    assert "rule_failed" not in {each["code"] for each in packet["notices"]}
    for path in PATHS:
        assert (await asked(ours, path)).status_code == 200, path


ONE = json_of(USUAL)
BOMB = gzip.compress(b" " * 30_000_000, mtime=0)
DEEP = b'{"resourceSpans":' + b"[" * 200_000 + b"]" * 200_000 + b"}"
UTF_16 = ONE.decode().encode("utf-16")
PB = protobuf_of(USUAL)
# Longer than what follows.
BEYOND = b"\x0a\xff\xff\xff\xff\x0f"


# Body, content type, encoding; what is answered.
BROKEN: list[tuple[bytes, str, str, tuple[int, str]]] = [
    (DEEP, JSON, "", (400, "invalid_otlp")),
    (UTF_16, JSON, "", (400, "invalid_otlp")),
    (ONE + b"}", JSON, "", (400, "invalid_otlp")),
    (ONE[:-1], JSON, "", (400, "invalid_otlp")),
    (PB, JSON, "", (400, "invalid_otlp")),
    (ONE, JSON, "gzip", (400, "invalid_encoding")),
    (gzip.compress(ONE)[:-4], JSON, "gzip", (400, "invalid_encoding")),
    (gzip.compress(ONE) + b"more", JSON, "gzip", (400, "invalid_encoding")),
    (gzip.compress(gzip.compress(ONE)), JSON, "gzip", (400, "invalid_otlp")),
    (zlib.compress(ONE) + b"\x00", JSON, "deflate", (400, "invalid_encoding")),
    (b"", JSON, "gzip", (400, "invalid_encoding")),
    (BOMB, JSON, "gzip", (413, "body_too_large")),
    (ONE, JSON, "gzip, gzip", (415, "unsupported_encoding")),
    (ONE, JSON, "x-gzip", (415, "unsupported_encoding")),
    (ONE, f"{JSON}, {PROTOBUF}", "", (415, "unsupported_media_type")),
    (ONE, f"multipart/form-data; boundary={JSON}", "", (415, "unsupported_media_type")),
    (ONE, "application/grpc", "", (415, "unsupported_media_type")),
]


async def test_what_is_broken_is_refused_by_its_name_and_nothing_of_it_is_stored(lifesign: Lifesign) -> None:
    async with sender(lifesign) as ours:
        answers = [await ours.post(body, kind, Content_Encoding=encoding) for body, kind, encoding, _ in BROKEN]
        encoded = [await ours.post(body, PROTOBUF) for body in (ONE, BEYOND, PB[:-1])]

        assert [(each.status_code, each.json()["error"]) for each in answers] == [expected for *_, expected in BROKEN]
        assert {each.headers["content-type"] for each in answers} == {JSON}
        assert [(each.status_code, Status.FromString(each.content).code) for each in encoded] == [(400, 3)] * 3
        assert {each.headers["content-type"] for each in encoded} == {PROTOBUF}
        assert await ours.stored() == []
        assert await ours.used() == 0
