"""Which requests are counted, and as what: asked of the app as a server would ask it. Spec "Usage", section 4."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import httpx2
import pytest
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from lifesign.auth.vitals.rules import key_hash
from lifesign.clock import EpochMs, ManualClock
from lifesign.http.answers import json_answer
from lifesign.usage.counted import MAX_UNKNOWN_PATHS, Counted, Paths
from lifesign.usage.rules import UsageRecord
from tests.harness import Lifesign
from tests.usage.builders import builder, trial_route

KEY = "beam_" + "0" * 32
DAY_MS = 24 * 3600 * 1000


async def nothing(_: Request) -> Response:
    return Response()


async def no_socket(_: WebSocket) -> None:
    return None


ROUTES = [
    Route("/api/keys", nothing, methods=["POST"]),
    Route("/api/vitals/sessions/{id}", nothing),
    WebSocketRoute("/api/vitals/stream", no_socket),
    Route("/v1/heartbeats", nothing),
]


class Noted(list[UsageRecord]):
    """A log that keeps every record."""

    def note(self, record: UsageRecord) -> None:
        self.append(record)


class Asked:
    """A counted app, asked message by message."""

    def __init__(self, app: ASGIApp) -> None:
        self.clock = ManualClock(EpochMs(1_767_614_400_000))
        self.noted = Noted()
        self.sent: list[Message] = []
        self.noted_at_last: list[int] = []
        self._app = Counted(app, self.noted, self.clock, ROUTES)  # type: ignore[arg-type]  # all of the log that it uses

    async def http(
        self,
        *messages: Message,
        method: str = "GET",
        path: str = "/api/keys",
        headers: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        await self._ask({"type": "http", "method": method, "path": path, "headers": list(headers)}, messages)

    async def socket(self, path: str = "/api/vitals/stream") -> None:
        await self._ask({"type": "websocket", "path": path, "headers": []}, ())

    async def _ask(self, scope: Scope, messages: Sequence[Message]) -> None:
        coming = [*messages] or [{"type": "http.request", "body": b""}]

        async def receive() -> Message:
            if not coming:
                await asyncio.get_running_loop().create_future()
            return coming.pop(0)

        async def send(message: Message) -> None:
            self.sent.append(message)
            self.noted_at_last.append(len(self.noted))

        await self._app(scope, receive, send)

    @property
    def only(self) -> UsageRecord:
        [record] = self.noted
        return record


def answering(status: int = 200, *chunks: bytes) -> ASGIApp:
    """An app that reads the request and answers in these chunks."""

    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": status, "headers": []})
        for chunk in chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    return app


# Answers ------------------------------------------------------------------------------------------------------------
async def test_a_request_is_counted_just_before_the_last_piece_of_its_answer() -> None:
    asked = Asked(answering(201, b"a", b"b"))

    await asked.http(method="POST")

    assert asked.noted_at_last == [0, 0, 0, 1]
    assert asked.only == UsageRecord(EpochMs(1_767_614_400_000), "POST", "/api/keys", 201, 0, None)


async def test_a_request_counts_in_the_minute_in_which_it_came_with_all_the_time_that_it_took() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        asked.clock.set(EpochMs(asked.clock.now() + 90_000))
        await answering(200, b"x")(scope, receive, send)

    asked = Asked(slow)
    await asked.http()

    assert (asked.only.at, asked.only.duration_ms) == (1_767_614_400_000, 90_000)


async def test_other_paths_pass_untouched() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert (receive.__qualname__, send.__qualname__) == ("Asked._ask.<locals>.receive", "Asked._ask.<locals>.send")
        await answering()(scope, receive, send)

    asked = Asked(app)
    for path in ("/v1/heartbeats", "/", "/api/keysmith", "/api/systems/heartbeat", "/ping/x"):
        await asked.http(path=path)

    assert asked.noted == []
    assert len(asked.sent) == 10


async def test_whoever_leaves_before_the_answer_is_499() -> None:
    async def app(_: Scope, receive: Receive, __: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    asked = Asked(app)
    await asked.http({"type": "http.request", "body": b"half", "more_body": True}, {"type": "http.disconnect"})

    assert asked.only.status == 499


async def test_whoever_left_while_the_answer_was_made_is_499() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        asked.clock.set(EpochMs(asked.clock.now() + 10))
        await answering(200, b"report")(scope, receive, send)

    asked = Asked(slow)
    await asked.http({"type": "http.request", "body": b""}, {"type": "http.disconnect"})

    assert asked.only.status == 499


async def test_whoever_waits_for_a_slow_answer_has_not_left() -> None:
    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        asked.clock.set(EpochMs(asked.clock.now() + 10))
        await answering(200, b"report")(scope, receive, send)

    asked = Asked(slow)
    await asked.http({"type": "http.request", "body": b""})

    assert asked.only.status == 200


async def test_a_body_that_nobody_read_is_left_for_those_who_might() -> None:
    async def app(_: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": []})
        assert (await receive())["body"] == b"more"
        await send({"type": "http.response.body", "body": b""})

    asked = Asked(app)
    await asked.http({"type": "http.request", "body": b"more", "more_body": True})

    assert asked.only.status == 413


async def test_an_answer_that_breaks_off_counts_as_it_began() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise ConnectionError

    asked = Asked(app)
    with pytest.raises(ConnectionError):
        await asked.http()

    assert asked.only.status == 200


async def test_a_request_that_is_cancelled_is_counted() -> None:
    began = asyncio.Event()

    async def app(_: Scope, __: Receive, ___: Send) -> None:
        began.set()
        await asyncio.get_running_loop().create_future()

    asked = Asked(app)
    task = asyncio.create_task(asked.http())
    await began.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task

    assert asked.only.status == 499


async def test_an_answer_whose_whole_body_is_out_is_counted_before_the_server_says_so() -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 413, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"much", "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    asked = Asked(app)
    await asked.http({"type": "http.request", "body": b"", "more_body": True})

    assert asked.noted_at_last == [0, 1, 1]


# Keys ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("status", "header", "key"),
    [
        (404, KEY, key_hash(KEY)),
        (404, f" {KEY} ", key_hash(KEY)),
        (401, KEY, None),
        (404, "beam_", None),
        (404, "", None),
        (404, KEY.upper(), None),
    ],
)
async def test_a_key_that_nobody_asked_for_is_kept_as_its_hash(status: int, header: str, key: str | None) -> None:
    asked = Asked(answering(status))

    await asked.http(headers=[(b"x-api-key", header.encode())])

    assert asked.only.key == key


async def test_a_key_that_was_recognized_is_kept_as_its_id() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"] = {"vitals_key_id": 7}
        await answering(400)(scope, receive, send)

    asked = Asked(app)
    await asked.http(headers=[(b"x-api-key", KEY.encode())])

    assert asked.only.key == 7


# Sockets ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("messages", "status"),
    [
        ([{"type": "websocket.accept"}, {"type": "websocket.send", "text": "x"}, {"type": "websocket.close"}], 101),
        ([{"type": "websocket.close"}], 403),
        ([{"type": "websocket.http.response.start", "status": 429}, {"type": "websocket.http.response.body"}], 429),
        ([], 499),
    ],
)
async def test_a_socket_counts_once_by_its_handshake(messages: list[Message], status: int) -> None:
    async def app(_: Scope, __: Receive, send: Send) -> None:
        for message in messages:
            await send(message)

    asked = Asked(app)
    await asked.socket()

    assert asked.only == UsageRecord(EpochMs(1_767_614_400_000), "GET", "/api/vitals/stream", status, None, None)
    assert all(asked.noted_at_last)


async def test_a_socket_whose_handshake_fails_is_a_fault_of_the_server() -> None:
    async def app(_: Scope, __: Receive, ___: Send) -> None:
        raise RuntimeError

    asked = Asked(app)
    with pytest.raises(RuntimeError):
        await asked.socket()

    assert asked.only.status == 500


# Paths --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "counted"),
    [
        ("/api/keys", "/api/keys"),
        ("/api/vitals/stream", "/api/vitals/stream"),
        ("/api/vitals/sessions/vs_0199e6a1b2c37d4e8f00", "/api/vitals/sessions/{id}"),
        ("/api/vitals/sessions/a/b", "/api/vitals/sessions/a/b"),
        ("/api/keys/" + KEY, "/api/keys/:id"),
        ("/api/keys/ä", "/api/keys/*"),
        ("/api/demo/" + "a/" * 60, "/api/demo/*"),
    ],
)
def test_a_path_is_counted_as_its_template_or_as_far_as_it_is_harmless(path: str, counted: str) -> None:
    prefix = "/".join(path.split("/")[:3])

    assert Paths(ROUTES).counted(path, prefix, EpochMs(0)) == counted


def test_a_day_has_two_hundred_unknown_paths() -> None:
    paths = Paths(ROUTES)
    for n in range(MAX_UNKNOWN_PATHS):
        assert paths.counted(f"/api/keys/{n}", "/api/keys", EpochMs(5)) == f"/api/keys/{n}"

    assert paths.counted("/api/keys/more", "/api/keys", EpochMs(5)) == "/api/keys/*"
    assert paths.counted("/api/demo/more", "/api/demo", EpochMs(5)) == "/api/demo/*"
    # Those that were met before, and those that there are, still count as they are.
    assert paths.counted("/api/keys/7", "/api/keys", EpochMs(DAY_MS - 1)) == "/api/keys/7"
    assert paths.counted("/api/keys", "/api/keys", EpochMs(5)) == "/api/keys"
    assert paths.counted("/api/keys/more", "/api/keys", EpochMs(DAY_MS)) == "/api/keys/more"


# The whole app ------------------------------------------------------------------------------------------------------
@asynccontextmanager
async def counting(lifesign: Lifesign) -> AsyncIterator[Callable[[], Awaitable[dict[str, int]]]]:
    async with builder(lifesign) as jane:

        async def errors() -> dict[str, int]:
            return {each["message"]: each["count"] for each in (await jane.errors())["errors"]}

        yield errors


async def test_what_is_refused_is_counted_whatever_refused_it(lifesign: Lifesign) -> None:
    async with counting(lifesign) as errors, lifesign.client(None) as http:
        await http.post("/api/keys", content=b"x" * 20_000)
        await http.post("/api/keys", content=b"[]")
        await http.get("/api/dashboard/overview?range=secret")
        await http.head("/api/keys")
        await http.request("BREW", "/api/keys/me")
        await http.get("/api/vitals/%00")
        await http.get("/api/vitals/a%20b")

        assert await errors() == {
            "POST /api/keys → 413": 1,
            "POST /api/keys → 400": 1,
            "GET /api/dashboard/overview → 401": 1,
            "HEAD /api/keys → 404": 1,
            "OTHER /api/keys/me → 404": 1,
            "GET /api/vitals/* → 404": 2,
        }


async def test_a_streamed_answer_counts_once(lifesign: Lifesign) -> None:
    async def streamed(_: Request) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(3):
                yield b"x"

        return StreamingResponse(pieces(), 418)

    async with counting(lifesign) as errors, trial_route(lifesign, streamed, "/api/rppg/{what}"):
        answer = await lifesign.http.get("/api/rppg/measured")

        assert (answer.status_code, answer.content) == (418, b"xxx")
        # A route that came after the start is not known by its template.
        assert await errors() == {"GET /api/rppg/measured → 418": 1}


async def test_many_requests_at_once_are_all_counted(lifesign: Lifesign) -> None:
    async def answered(request: Request) -> Response:
        await asyncio.sleep(0)
        return json_answer({}, int(request.query_params["status"]))

    async with builder(lifesign) as jane, trial_route(lifesign, answered):

        async def ask(n: int) -> httpx2.Response:
            return await jane.ask("GET", f"/api/vitals/trial?status={[200, 404, 500][n % 3]}")

        answers = await asyncio.gather(*(ask(n) for n in range(300)))

        assert [each.status_code for each in answers] == [200, 404, 500] * 100
        assert await jane.last_24h() == 301
        found = (await jane.errors())["errors"]
        assert {each["message"]: each["count"] for each in found} == {
            "GET /api/vitals/trial → 404": 100,
            "GET /api/vitals/trial → 500": 100,
        }
        assert (await jane.own())["request_count"] == 302
