"""What open pages are told, and when: read from the stream of a node in this process, on both databases."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import NamedTuple

import orjson
from sqlalchemy import Connection
from starlette.types import Message, Scope

from lifesign.db.open import postgres_engine
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.heartbeats import service as heartbeats
from lifesign.web import live
from tests.conftest import database_url
from tests.harness import Lifesign, MakeLifesign
from tests.web.browser import Browser, signed_up

__all__ = ["database_url"]

_PATIENCE_S = 20


class Told(NamedTuple):
    """One event of the stream."""

    seq: int
    kind: str
    changes: list[list[str]]


class Stream:
    """An open page's connection."""

    def __init__(self) -> None:
        self.chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.status = 0
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            return
        if message.get("body"):
            self.chunks.put_nowait(message["body"])
        if not message.get("more_body", False):
            self.chunks.put_nowait(None)

    async def next(self) -> Told | None:
        """The next event; None: the stream has ended."""
        async with asyncio.timeout(_PATIENCE_S):
            while (chunk := await self.chunks.get()) is not None:
                lines = dict(line.split(": ", 1) for line in chunk.decode().splitlines() if ": " in line)
                if "event" in lines:
                    return Told(int(lines["id"]), lines["event"], orjson.loads(lines["data"]))
        return None


@asynccontextmanager
async def listening(
    lifesign: Lifesign, page: Browser, query: str = "", last_event_id: int | None = None
) -> AsyncIterator[Stream]:
    stream = Stream()
    headers = [
        (b"host", b"lifesign.test"),
        (b"cookie", f"lifesign_session={page.http.cookies['lifesign_session']}".encode()),
    ]
    if last_event_id is not None:
        headers.append((b"last-event-id", str(last_event_id).encode()))
    scope: Scope = {
        "type": "http",
        "method": "GET",
        "path": "/events/stream",
        "query_string": query.encode(),
        "headers": headers,
        "scheme": "http",
        "http_version": "1.1",
        "client": ("127.0.0.1", 1),
        "server": ("lifesign.test", 80),
        "root_path": "",
        "raw_path": b"/events/stream",
    }
    task = asyncio.ensure_future(lifesign.node.app(scope, stream.receive, stream.send))
    try:
        yield stream
    finally:
        stream.gone.set()
        async with asyncio.timeout(_PATIENCE_S):
            await task


def live_of(lifesign: Lifesign) -> live.Live:
    found: live.Live = lifesign.node.api.state.live
    return found


async def latest(lifesign: Lifesign) -> int:
    return await lifesign.node.db.read(events.latest_seq)


async def test_a_page_is_told_what_is_committed_in_its_project(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job", interval=60, grace=0)
    async with listening(lifesign, owner, f"since={await latest(lifesign)}") as stream:
        first = await stream.next()

        await lifesign.advance(61)

        told = await stream.next()
    assert first is not None
    assert first.kind == "here"
    assert told is not None
    assert told.kind == "changed"
    assert [made["id"], "firing"] in told.changes
    assert told.seq > first.seq


async def test_a_page_that_comes_back_is_told_what_it_missed(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    async with listening(lifesign, owner) as other:
        here = await other.next()
        assert here is not None
        await lifesign.check_in(made["id"])
        assert await other.next() is not None

        async with listening(lifesign, owner, "since=0", last_event_id=here.seq) as stream:
            told = await stream.next()

    assert told is not None
    # On PostgreSQL numbers are not in the order of commits, so that a page looks for itself instead.
    expected = ("changed", [[made["id"], "checkin"]]) if lifesign.node.db.is_sqlite else ("gap", [])
    assert (told.kind, told.changes) == expected


async def test_a_page_that_was_away_for_too_long_is_told_to_look_for_itself(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Job")
    await lifesign.heartbeat("Another")

    async with listening(lifesign, owner, "since=1") as stream:
        told = await stream.next()

    assert told is not None
    assert told.kind == "gap"


async def test_nothing_is_told_of_another_project(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Ours")
    owner = await signed_up(lifesign)
    async with listening(lifesign, owner) as stream:
        await stream.next()
        await lifesign.node.db.write(
            events.record,
            [Event("prj_other", "hb_other", "checkin"), Event("prj_other", "hb_x", "firing")],
            lifesign.now(),
        )
        await lifesign.check_in(made["id"])

        told = await stream.next()

    assert told is not None
    assert told.changes == [[made["id"], "checkin"]]


async def test_nobody_reads_when_no_page_is_open_and_streams_end_with_the_node(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        owner = await signed_up(lifesign)
        async with listening(lifesign, owner) as first, listening(lifesign, owner) as second:
            await first.next()
            await second.next()
            assert live_of(lifesign).watchers == 2

            live_of(lifesign).close()

            assert await first.next() is None
            assert await second.next() is None
        assert live_of(lifesign).watchers == 0


async def test_strangers_are_not_told_anything(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Job")
    await owner.get("/account")
    await owner.post("/signout")
    owner.http.cookies.set("lifesign_session", "guess")

    async with listening(lifesign, owner) as stream:
        assert await stream.next() is None

    assert stream.status == 303


async def test_a_commit_that_overtook_an_earlier_number_does_not_hide_it(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    slow = await lifesign.heartbeat("Slow")
    project_id = await lifesign.node.db.read(_project_of, made["id"])
    late = Event(project_id, slow["id"], "firing")
    async with listening(lifesign, owner, f"since={await latest(lifesign)}") as stream:
        await stream.next()

        await _commit_around(lifesign, late, lambda: lifesign.check_in(made["id"]))

        told: set[tuple[str, ...]] = set()
        while len(told) < 2:
            news = await stream.next()
            assert news is not None
            told |= {tuple(each) for each in news.changes}
    assert told == {(made["id"], "checkin"), (slow["id"], "firing")}


def _project_of(conn: Connection, heartbeat_id: str) -> str:
    return heartbeats.by_ids(conn, [heartbeat_id])[heartbeat_id].project_id


async def _commit_around(lifesign: Lifesign, late: Event, other: Callable[[], Awaitable[object]]) -> None:
    """Commit `other` while the event `late` has its number already; one after the other where there is one writer."""
    if lifesign.node.db.is_sqlite:
        await lifesign.node.db.write(events.record, [late], lifesign.now())
        await other()
        return
    engine = postgres_engine(lifesign.node.settings, size=1)
    with engine.begin() as conn:
        events.record(conn, [late], lifesign.now())
        await other()
    engine.dispose()
