"""The way from the parser to the writer answers, byte for byte, as the way through the framework does."""

import asyncio
import re
import socket
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from sqlalchemy import Connection, QueuePool
from starlette.types import Receive, Scope, Send

from lifesign.db.patience import Patience
from lifesign.http.direct import Asked, DirectRoute, Work
from lifesign.http.protocol import protocol_for
from lifesign.server import uvicorn_server
from tests.harness import ADMIN_KEY, Lifesign
from tests.pings import pinging
from tests.systems import machines

KEY = f"Authorization: Bearer {ADMIN_KEY}"
CHECK_IN = f"POST /v1/heartbeats/nightly-export/checkin HTTP/1.1\r\nHost: h\r\n{KEY}\r\n\r\n".encode()
_DATE = re.compile(rb"date: [^\r]+\r\n")
_MADE_ID = re.compile(rb"req_[0-9a-f]{32}")
_ENOUGH_S = 10
# What Java's client says in each request to a server of which it does not know yet whether it speaks HTTP/2.
OFFER = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABk")
IN_CHUNKS = ("Transfer-Encoding: chunked",)


@dataclass
class Door:
    """A listening server, and how many requests its app was asked."""

    lifesign: Lifesign
    port: int = 0
    asked: list[str] = field(default_factory=list)
    stop: Callable[[], None] = lambda: None
    read: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(0))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        await self.lifesign.node.app(scope, receive, send)

    def telling(self, route: DirectRoute) -> DirectRoute:
        """The route, which tells `read` of each request that it looks at."""

        def work(asked: Asked) -> Work | None:
            self.read.release()
            return route.work(asked)

        return replace(route, work=work)

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()

    async def ask(self, *pieces: bytes, answers: int = 1) -> list[bytes]:
        """Send `pieces` over one connection, one after the other; the answers, fewer when the server hangs up."""
        async with self.connection() as (reader, writer):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                if len(pieces) > 1:
                    # Or they would arrive as one.
                    await asyncio.sleep(0.001)
            is_head = pieces[0].startswith(b"HEAD")
            return [told for _ in range(answers) if (told := await answer_of(reader, is_head=is_head))]


async def answer_of(reader: asyncio.StreamReader, *, is_head: bool = False) -> bytes:
    """The next answer without what differs each time; empty when there is none."""
    async with asyncio.timeout(_ENOUGH_S):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return b""
        length = re.search(rb"content-length: (\d+)", head)
        body = b"" if is_head or length is None else await reader.readexactly(int(length[1]))
    return _MADE_ID.sub(b"req_", _DATE.sub(b"", head) + body)


@asynccontextmanager
async def door(lifesign: Lifesign, *, is_direct: bool = True, keep_alive_s: int = 75) -> AsyncIterator[Door]:
    """A server over the node."""
    opened, node = Door(lifesign), lifesign.node
    routes = [opened.telling(route) for route in node.direct]
    server = uvicorn_server(opened, protocol_for(node.db, routes)) if is_direct else uvicorn_server(opened)
    server.config.timeout_keep_alive = keep_alive_s
    with socket.create_server(("127.0.0.1", 0)) as listener:
        opened.port = listener.getsockname()[1]
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        opened.stop = lambda: setattr(server, "should_exit", True)
        try:
            yield opened
        finally:
            server.should_exit = True
            await serving


def post(path: str, body: bytes = b"", *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: h", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


@pytest.fixture
async def paths(lifesign: Lifesign) -> dict[str, str]:
    """What requests of the tables below name."""
    made = await lifesign.heartbeat("Nightly Export")
    await lifesign.check_in("nightly-export")
    check = await pinging.check(lifesign, name="Backup", slug="backup")
    db1 = await machines.machine(lifesign)
    await db1.beat()
    run = await lifesign.ask("POST", "/v1/heartbeats/nightly-export/runs", {"lease": 60}, expect=201)
    return {
        "id": made["id"],
        "uuid": check["uuid"],
        "pingkey": await pinging.ping_key(lifesign, "checkins:write"),
        "weak": await pinging.ping_key(lifesign, "heartbeats:read"),
        "machine": db1.auth,
        "system": db1.id,
        "run": run["runId"],
    }


# Requests, and whether they go the short way. Braces are filled in from `paths`.
REQUESTS: dict[str, tuple[bytes, bool]] = {
    "check-in": (CHECK_IN, True),
    "by id": (post("/v1/heartbeats/{id}/checkin", b"", KEY), True),
    "with a body": (post("/v1/heartbeats/{id}/checkin", b'{"healthy":true,"metadata":{"a":[1]}}', KEY), True),
    "unhealthy": (post("/v1/heartbeats/{id}/checkin", b'{"healthy":false}', KEY), True),
    "own request id": (post("/v1/heartbeats/{id}/checkin", b"", KEY, "X-Request-Id: abc.1"), True),
    "bad request id": (post("/v1/heartbeats/{id}/checkin", b"", KEY, "X-Request-Id: a b"), True),
    "keyed": (post("/v1/heartbeats/{id}/checkin", b"", KEY, "Idempotency-Key: once"), True),
    "query": (post("/v1/heartbeats/{id}/checkin?a=1", b"", KEY), False),
    "escaped": (post("/v1/heartbeats/nightly%2Dexport/checkin", b"", KEY), False),
    "no key": (post("/v1/heartbeats/{id}/checkin"), False),
    "unknown key": (post("/v1/heartbeats/{id}/checkin", b"", "Authorization: Bearer lsk_nobody"), False),
    "key without the scope": (post("/v1/heartbeats/{id}/checkin", b"", "Authorization: Bearer {weak}"), False),
    "no JSON": (post("/v1/heartbeats/{id}/checkin", b"{", KEY), False),
    "wrong type": (post("/v1/heartbeats/{id}/checkin", b'{"healthy":1}', KEY), False),
    "bad idempotency key": (post("/v1/heartbeats/{id}/checkin", b"", KEY, "Idempotency-Key: a\tb"), False),
    "unknown heartbeat": (post("/v1/heartbeats/nobody/checkin", b"", KEY), True),
    "wrong verb": (b"GET /v1/heartbeats/nightly-export/checkin HTTP/1.1\r\nHost: h\r\n\r\n", False),
    "large body": (post("/v1/heartbeats/{id}/checkin", b" " * 20_000, KEY), False),
    "too large a body": (post("/v1/heartbeats/{id}/checkin", b" " * 262_145, KEY), False),
    "chunked": (
        b"POST /v1/heartbeats/nightly-export/checkin HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
        + f"{KEY}\r\n\r\n2\r\n{{}}\r\n0\r\n\r\n".encode(),
        False,
    ),
    "old protocol": (CHECK_IN.replace(b"HTTP/1.1", b"HTTP/1.0"), False),
    "last request": (CHECK_IN.replace(b"Host: h", b"Host: h\r\nConnection: close"), True),
    "upgrade": (CHECK_IN.replace(b"Host: h", b"Host: h\r\nConnection: upgrade\r\nUpgrade: other"), True),
    "ping": (b"GET /ping/{uuid} HTTP/1.1\r\nHost: h\r\n\r\n", True),
    "HEAD": (b"HEAD /ping/{uuid} HTTP/1.1\r\nHost: h\r\n\r\n", True),
    "ping with a body": (post("/ping/{uuid}", b"x" * 20_000), True),
    "exit status": (b"GET /ping/{uuid}/3 HTTP/1.1\r\nHost: h\r\n\r\n", True),
    "ping by slug": (b"GET /ping/{pingkey}/backup/start HTTP/1.1\r\nHost: h\r\n\r\n", True),
    "ping with a key for something else": (b"GET /ping/{weak}/backup HTTP/1.1\r\nHost: h\r\n\r\n", False),
    "unknown check": (b"GET /ping/11111111-2222-4333-8444-555555555555 HTTP/1.1\r\nHost: h\r\n\r\n", True),
    "no ping": (b"GET /ping/{uuid}/no/ping HTTP/1.1\r\nHost: h\r\n\r\n", False),
    "ping with a run id": (b"GET /ping/{uuid}?rid=no HTTP/1.1\r\nHost: h\r\n\r\n", False),
    "allowed verbs": (b"OPTIONS /ping/{uuid} HTTP/1.1\r\nHost: h\r\n\r\n", False),
    "beat": (post("/api/systems/heartbeat", b'{"system_id":"{system}"}', "Authorization: {machine}"), True),
    "beat of another": (post("/api/systems/heartbeat", b'{"system_id":"other"}', "Authorization: {machine}"), False),
    "beat without a body": (post("/api/systems/heartbeat", b"", "Authorization: {machine}"), False),
    "unknown machine": (post("/api/systems/heartbeat", b"{}", "Authorization: Basic YTpi"), False),
    "progress": (post("/v1/heartbeats/{id}/runs/{run}/progress", b'{"message":"half"}', KEY), True),
    "progress of nothing": (post("/v1/heartbeats/{id}/runs/hbr_0/progress", b"", KEY), True),
    "progress of a wrong kind": (post("/v1/heartbeats/{id}/runs/{run}/progress", b'{"message":1}', KEY), False),
}


def filled_in(request: bytes, names: Mapping[str, str]) -> bytes:
    for name, value in names.items():
        request = request.replace(f"{{{name}}}".encode(), value.encode())
    announced = re.search(rb"Content-Length: \d+", request)
    if announced is None:
        return request
    length = len(request.partition(b"\r\n\r\n")[2])
    return request.replace(announced[0], b"Content-Length: %d" % length, 1)


async def test_both_ways_give_the_same_answer(lifesign: Lifesign, paths: dict[str, str]) -> None:
    differing: dict[str, tuple[list[bytes], list[bytes]]] = {}
    went: dict[str, bool] = {}
    async with door(lifesign, is_direct=False) as long, door(lifesign) as short:
        for name, (template, _) in REQUESTS.items():
            request = filled_in(template, paths)
            # Whatever the first one changes is the same for the two that follow.
            await long.ask(request)
            told, told_shortly = await long.ask(request), await short.ask(request)
            went[name] = not short.asked
            short.asked.clear()
            if told != told_shortly or not told[0]:
                differing[name] = (told, told_shortly)

    assert differing == {}
    # A refusal is told by the app, also when only the writer could know of it.
    handed_over = {"unknown heartbeat", "progress of nothing"}
    assert went == {name: is_short and name not in handed_over for name, (_, is_short) in REQUESTS.items()}
    assert len(long.asked) == 2 * len(REQUESTS)


async def test_what_comes_in_pieces_is_one_request(lifesign: Lifesign, paths: dict[str, str]) -> None:
    request = filled_in(REQUESTS["with a body"][0], paths)
    async with door(lifesign) as short:
        (whole,) = await short.ask(request)
        (in_bytes,) = await short.ask(*(request[at : at + 1] for at in range(len(request))))

        assert in_bytes == whole
        assert whole.startswith(b"HTTP/1.1 200 OK")
        assert short.asked == []


@pytest.mark.usefixtures("paths")
async def test_requests_in_a_row_are_answered_in_their_order(lifesign: Lifesign) -> None:
    """Whether the connection waits for each answer or not."""
    ready = b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n"
    unknown = CHECK_IN.replace(b"nightly-export", b"nobody")
    async with door(lifesign) as short:
        answers = await short.ask(CHECK_IN + ready + unknown + CHECK_IN + CHECK_IN, answers=5)

        assert [each[9:12] for each in answers] == [b"200", b"200", b"404", b"200", b"200"]
        assert b"nextDeadline" in answers[0]
        assert b"nextDeadline" not in answers[1]

        async def in_turn() -> list[bytes]:
            told = []
            async with short.connection() as (reader, writer):
                for request in (CHECK_IN, ready, unknown, CHECK_IN, CHECK_IN):
                    writer.write(request)
                    told.append(await answer_of(reader))
            return told

        assert await in_turn() == answers


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/v1/heartbeats/nightly-export/checkin", b'{"healthy":1}', 400),
        ("/v1/heartbeats/nightly-export/checkin", b'{"healthy":true}', 200),
        ("/v1/policies", b'{"name":7}', 400),
    ],
)
async def test_an_offer_of_another_protocol_is_declined_and_the_request_answered(
    lifesign: Lifesign, path: str, body: bytes, status: int
) -> None:
    await lifesign.heartbeat("Nightly Export")
    plain, offering = post(path, body, KEY), post(path, body, KEY, *OFFER)
    head, _, _ = offering.partition(f"Content-Length: {len(body)}\r\n".encode())
    chunked = head + "\r\n".join([KEY, *OFFER, *IN_CHUNKS, "", f"{len(body):x}", ""]).encode() + body + b"\r\n0\r\n\r\n"

    async with door(lifesign) as opened:
        [expected] = await opened.ask(plain)
        assert expected.startswith(b"HTTP/1.1 %d " % status)
        assert await opened.ask(offering) == [expected]
        assert await opened.ask(chunked) == [expected]
        assert await opened.ask(*(offering[n : n + 1] for n in range(len(offering)))) == [expected]
        assert await opened.ask(offering * 300 + plain, answers=301) == [expected] * 301
        for other in ("websocket", "TLS/1.0"):
            assert await opened.ask(post(path, body, KEY, "Connection: upgrade", f"Upgrade: {other}")) == [expected]
        closing = await opened.ask(post(path, body, KEY, "Connection: close, Upgrade", *OFFER[1:]), answers=2)
        assert [each.replace(b"connection: close\r\n", b"") for each in closing] == [expected]


@pytest.mark.usefixtures("paths")
async def test_an_answer_does_not_disturb_the_request_that_is_coming_in(lifesign: Lifesign) -> None:
    """The first is refused by the writer, and told by the app, while half of the second one is here."""
    unknown = CHECK_IN.replace(b"nightly-export", b"nobody")
    async with door(lifesign) as short, short.connection() as (reader, writer):
        async with writers_held(lifesign):
            writer.write(unknown + CHECK_IN[:40])
            await short.read.acquire()
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 404 ")
        writer.write(CHECK_IN[40:])

        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")
        assert short.asked == ["/v1/heartbeats/nobody/checkin"]


async def test_a_connection_that_has_been_idle_for_long_is_closed(lifesign: Lifesign, paths: dict[str, str]) -> None:
    ping = filled_in(REQUESTS["ping"][0], paths)
    async with door(lifesign, keep_alive_s=1) as short:
        loop = asyncio.get_running_loop()
        async with short.connection() as (reader, writer), asyncio.timeout(_ENOUGH_S):
            writer.write(ping)
            await answer_of(reader)
            await asyncio.sleep(0.6)
            writer.write(ping)
            await answer_of(reader)
            answered_at = loop.time()

            assert await reader.read() == b""
            # The second answer counts, not the first.
            assert loop.time() - answered_at >= 0.9


async def test_one_who_waits_to_send_the_body_is_told_to_go_on(lifesign: Lifesign, paths: dict[str, str]) -> None:
    head, _, body = filled_in(REQUESTS["with a body"][0], paths).partition(b"\r\n\r\n")
    async with door(lifesign) as short, short.connection() as (reader, writer):
        writer.write(head + b"\r\nExpect: 100-continue\r\n\r\n")
        async with asyncio.timeout(_ENOUGH_S):
            assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)

        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 OK")


@pytest.mark.usefixtures("paths")
async def test_a_fault_of_the_server_is_told_without_its_cause(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a secret of the server")

    monkeypatch.setattr(lifesign.node.api.state.check_ins, "record", fails)
    async with door(lifesign) as short:
        first, second = await short.ask(CHECK_IN + CHECK_IN, answers=2)

    assert first.startswith(b"HTTP/1.1 500 ")
    assert b"secret" not in first
    assert second == first


@pytest.mark.usefixtures("paths")
async def test_a_database_that_takes_nothing_is_told(lifesign: Lifesign) -> None:
    async with door(lifesign, is_direct=False) as long, door(lifesign) as short:
        lifesign.node.db.refusal = "the disk is full"
        told = await long.ask(CHECK_IN)

        assert told[0].startswith(b"HTTP/1.1 503 ")
        assert await short.ask(CHECK_IN) == told
        lifesign.node.db.refusal = None
        assert (await short.ask(CHECK_IN))[0].startswith(b"HTTP/1.1 200 ")


@asynccontextmanager
async def writers_held(lifesign: Lifesign) -> AsyncIterator[None]:
    """Nothing is written meanwhile."""
    db, loop, opened = lifesign.node.db, asyncio.get_running_loop(), threading.Event()
    # On PostgreSQL each writer has a connection of the pool.
    writers = 1 if db.is_sqlite else cast("QueuePool", db.engine.pool).size()
    held = asyncio.Semaphore(0)

    def hold(_: Connection) -> None:
        loop.call_soon_threadsafe(held.release)
        opened.wait(_ENOUGH_S)

    holding = [asyncio.create_task(db.write(hold)) for _ in range(writers)]
    async with asyncio.timeout(_ENOUGH_S):
        for _ in range(writers):
            await held.acquire()
    try:
        yield
    finally:
        opened.set()
        await asyncio.gather(*holding)


async def test_who_waits_too_long_is_told_once(
    lifesign: Lifesign, paths: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ping = filled_in(REQUESTS["ping"][0], paths)
    monkeypatch.setattr(lifesign.node.api.state.pings, "patience", Patience(0.05))
    async with (
        door(lifesign, is_direct=False) as long,
        door(lifesign) as short,
        short.connection() as (reader, writer),
    ):
        async with writers_held(lifesign):
            told = await long.ask(ping)
            writer.write(ping)

            assert told[0].startswith(b"HTTP/1.1 500 ")
            assert await answer_of(reader) == told[0]
        monkeypatch.undo()
        # What was late is written, and its answer is not the next one's.
        writer.write(ping.replace(b"GET", b"PUT"))
        assert (await answer_of(reader)).startswith(b"HTTP/1.1 200 ")


async def told_of(lifesign: Lifesign) -> int:
    """How many check-ins there were."""
    events = await lifesign.ask("GET", "/v1/heartbeats/nightly-export/events?type=checkin&limit=100")
    return len(events["events"])


@pytest.mark.usefixtures("paths")
async def test_who_hangs_up_before_the_answer_has_checked_in(lifesign: Lifesign) -> None:
    before = await told_of(lifesign)
    async with door(lifesign) as short:
        async with writers_held(lifesign), short.connection() as (_, writer):
            writer.write(CHECK_IN)
            await short.read.acquire()
        assert (await short.ask(CHECK_IN))[0].startswith(b"HTTP/1.1 200 ")

    assert await told_of(lifesign) == before + 2


@pytest.mark.usefixtures("paths")
async def test_who_is_waiting_while_the_server_stops_is_answered_and_then_let_go(lifesign: Lifesign) -> None:
    async with door(lifesign) as short, short.connection() as (reader, writer), short.connection() as (idle, _):
        async with writers_held(lifesign):
            writer.write(CHECK_IN)
            await short.read.acquire()
            short.stop()
            # The one that waits for nothing is let go at once: the server has begun to stop.
            assert await idle.read() == b""
        answer = await answer_of(reader)

        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"connection: close" in answer
        assert await reader.read() == b""


async def test_a_machine_with_a_secret_that_was_replaced_is_refused(lifesign: Lifesign, paths: dict[str, str]) -> None:
    beat = filled_in(REQUESTS["beat"][0], paths)
    async with door(lifesign) as short:
        assert (await short.ask(beat))[0].startswith(b"HTTP/1.1 200 ")
        await machines.asked(lifesign, "POST", f"/{paths['system']}/regenerate-secret")

        assert (await short.ask(beat))[0].startswith(b"HTTP/1.1 401 ")


async def test_a_key_that_was_revoked_is_refused(lifesign: Lifesign) -> None:
    made = await lifesign.ask("POST", "/v1/keys", {"name": "short", "scopes": ["checkins:write"]}, expect=201)
    await lifesign.heartbeat("Nightly Export")
    request = CHECK_IN.replace(ADMIN_KEY.encode(), made["token"].encode())
    async with door(lifesign) as short:
        first, second = await short.ask(request + request, answers=2)
        assert [first[9:12], second[9:12]] == [b"200", b"200"]
        await lifesign.ask("DELETE", f"/v1/keys/{made['id']}", expect=204)

        assert (await short.ask(request))[0].startswith(b"HTTP/1.1 401 ")
