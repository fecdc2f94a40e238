"""Requests that are no HTTP are told so, in the words of whoever owns the path, and end the connection."""

import json
from collections.abc import AsyncIterator

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types

from tests.harness import ADMIN_KEY, Json, Lifesign
from tests.telemetry.senders import PROTOBUF, head_of, receiver_of, sender, spans
from tests.telemetry.senders import json_of as otlp
from tests.wire import Wire, connected, listening

# What is looked at comes before any database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

KEY = f"Authorization: Bearer {ADMIN_KEY}"
CHUNKED = "Transfer-Encoding: chunked"
READY = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
WHY = "The request is not valid HTTP"
# A program that expects TLS here, and one whose first line is not finished.
HELLO = bytes.fromhex("16030102000100")


def head(path: str, *lines: str, method: str = "POST") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: h", KEY, *lines, "", ""]).encode()


def without_reason(message: str) -> str:
    """The first half of what is said: the other is in the words of the parser."""
    said, _, reason = message.partition(": ")
    assert reason
    return said


def of_telemetry(body: Json) -> str:
    assert (body["ok"], body["error"]) == (False, "bad_request")
    return without_reason(body["message"])


def of_spans(body: Json) -> str:
    assert body["code"] == 3
    return of_telemetry(body)


def of_heartbeats(body: Json) -> str:
    assert set(body) == {"error", "requestId", "timestamp"}
    assert (body["error"]["code"], body["error"]["statusCode"]) == ("BAD_REQUEST", 400)
    return without_reason(body["error"]["message"])


def of_systems(body: Json) -> str:
    assert (body["code"], body["data"]) == (400, None)
    return without_reason(body["message"])


def of_bots(body: Json) -> str:
    assert (body["error"]["status"], body["error"]["code"]) == (400, "bad_request")
    return without_reason(body["message"])


def of_vitals(body: Json) -> str:
    assert body["success"] is False
    return without_reason(body["message"])


BAD_LINE = "no header"
BROKEN = {
    "spans in bad chunks": (head("/v1/traces", "Content-Type: application/json", CHUNKED) + b"zz\r\n{}\r\n", of_spans),
    "spans under a bad head": (head("/v1/traces", BAD_LINE), of_spans),
    "a chunk that is longer than it says": (head("/v1/provision", CHUNKED) + b"2\r\n{}}\r\n", of_telemetry),
    "two framings": (head("/v1/provision", CHUNKED, "Content-Length: 2"), of_telemetry),
    "a length that is none": (head("/v1/signup", "Content-Length: x"), of_telemetry),
    "two lengths": (head("/v1/signup", "Content-Length: 2", "Content-Length: 3"), of_telemetry),
    "a check-in under a bad head": (head("/v1/heartbeats/a/checkin", BAD_LINE), of_heartbeats),
    "a check-in in bad chunks": (head("/v1/heartbeats/a/checkin", CHUNKED) + b"-1\r\n", of_heartbeats),
    "another version of HTTP": (head("/v1/telemetry").replace(b"HTTP/1.1", b"HTTP/9.9"), of_telemetry),
    "a blank within a path": (head("/v1/sessions/a b", method="GET"), of_telemetry),
    "a machine": (head("/api/systems/heartbeat", BAD_LINE), of_systems),
    "a bot": (head("/v1/bot/list", BAD_LINE), of_bots),
    "a key of vitals": (head("/api/keys", BAD_LINE), of_vitals),
    "a path that is no ASCII": (b"GET /v1/sessions/\xc3\xa9 HTTP/1.1\r\nHost: h\r\n\r\n", of_heartbeats),
    "no method of HTTP": (b"HELLO / HTTP/1.1\r\n\r\n", of_heartbeats),
    "TLS": (HELLO, of_heartbeats),
    "nonsense": (b"\x00" * 100, of_heartbeats),
}


@pytest.fixture
async def wire(lifesign: Lifesign) -> AsyncIterator[Wire]:
    async with listening(lifesign) as port, connected(port) as opened:
        yield opened


async def test_what_is_no_http_is_told_in_the_words_of_the_path(lifesign: Lifesign) -> None:
    told: dict[str, tuple[int, str, str]] = {}
    async with listening(lifesign) as port:
        for name, (request, words_of) in BROKEN.items():
            async with connected(port) as wire:
                await wire.send(request)
                status, headers, body = await wire.answer()
            assert (headers["content-type"], headers["x-request-id"][:4]) == ("application/json", "req_"), name
            told[name] = (status, headers["connection"], words_of(json.loads(body)).lower())

    assert told == dict.fromkeys(BROKEN, (400, "close", WHY.lower()))


async def test_what_our_own_side_says_of_a_request_is_for_nobody_else(wire: Wire) -> None:
    await wire.send(b"CONNECT example.org:443 HTTP/1.1\r\nHost: h\r\n\r\n")

    status, headers, body = await wire.answer()

    assert (status, headers["content-type"]) == (400, "application/json")
    assert json.loads(body)["error"]["message"] == WHY


async def test_whoever_sends_protobuf_is_told_in_protobuf_and_nothing_of_it_is_kept(
    lifesign: Lifesign,
) -> None:
    budget = receiver_of(lifesign).budget
    async with sender(lifesign) as ours, listening(lifesign) as port, connected(port) as wire:
        whole = otlp(*spans(3))
        head = head_of(ours, CHUNKED).replace(b"application/json", PROTOBUF.encode())
        await wire.send(head + b"%x\r\n%b\r\n" % (len(whole), whole) + b"no size\r\n")

        status, headers, body = await wire.answer()

        told = Status.FromString(body)
        assert (status, headers["content-type"], told.code) == (400, PROTOBUF, 3)
        assert without_reason(told.message) == WHY
        assert budget.used == 0
        assert await ours.stored() == []


async def test_what_came_before_is_answered_first_and_nothing_after_it(wire: Wire) -> None:
    check_in = head("/v1/heartbeats/nobody/checkin")
    await wire.send(READY + check_in + b"nonsense\r\n\r\n" + READY)
    answers = [await wire.answer() for _ in range(3)]
    # Whoever goes on sending is not listened to, and reads what is said all the same.
    await wire.send(READY * 10_000)

    assert [status for status, _, _ in answers] == [200, 404, 400]
    assert answers[-1][1]["connection"] == "close"
    assert await wire.is_closed()


async def test_a_body_that_breaks_after_the_answer_ends_the_connection_and_no_more(wire: Wire) -> None:
    await wire.send(b"POST /v1/traces HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    status, _, body = await wire.answer()
    await wire.send(b"no size\r\n")

    assert (status, json.loads(body)["error"]) == (401, "missing_key")
    assert await wire.is_closed()


async def test_who_asks_without_wanting_a_body_gets_none(wire: Wire) -> None:
    await wire.send(head("/v1/telemetry", BAD_LINE, method="HEAD"))
    head_alone = (await wire.reader.readuntil(b"\r\n\r\n")).decode()

    assert head_alone.startswith("HTTP/1.1 400 ")
    # Its end tells that nothing more comes.
    assert await wire.is_closed()


async def test_a_head_that_goes_on_and_on_is_broken_off(wire: Wire) -> None:
    line = b"GET /health HTTP/1.1\r\nHost: h\r\nX-Long: "
    await wire.send(line + b"a" * 60_000 + b"\r\n\r\n")
    assert (await wire.answer())[0] == 200

    # A head that begins behind a large body is short all the same.
    await wire.send(head("/v1/signup", "Content-Length: 60000") + b" " * 60_000 + READY[:30])
    assert (await wire.answer())[0] == 201
    await wire.send(READY[30:])
    assert (await wire.answer())[0] == 200

    await wire.send(line + b"a" * 1_000_000)
    status, headers, body = await wire.answer()

    assert (status, headers["connection"]) == (400, "close")
    assert "The head of the request has more than 65536 bytes" in body.decode()
