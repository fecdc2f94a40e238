"""What open pages are told, and when: read from the stream of a node in this process, on both databases."""

import asyncio
import re
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
from tests.bots.asking import switched
from tests.bots.asking_runs import beaten, claimed, finished, scheduled, triggered
from tests.conftest import database_url
from tests.harness import Json, Lifesign, MakeLifesign
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


async def test_the_pages_of_a_bot_are_told_when_a_run_is_made_begins_goes_on_and_ends(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await scheduled(lifesign)
    bot_id = made["lifesign"]["bot_uuid"]
    page = await owner.get(f"/bots/{bot_id}")
    came = re.search(r'data-seq="(\d+)" data-watched="([^"]+)"', page)
    assert came is not None
    assert came[2] == bot_id
    async with listening(lifesign, owner, f"since={came[1]}") as stream:
        assert (await stream.next() or Told(0, "", [])).kind in {"here", "changed"}

        heard = [await _heard(stream, triggered(lifesign, made))]
        run = await claimed(lifesign)
        assert run is not None
        heard.append(await _heard(stream))
        heard.append(await _heard(stream, beaten(lifesign, run, log="Half way.")))
        heard.append(await _heard(stream, finished(lifesign, run)))

    assert f'data-watched="{bot_id}"' in await owner.get(f"/runs/{run['run_id']}")
    assert f'<tr id="{bot_id}">' in await owner.get("/bots")
    assert heard == [[[bot_id, kind]] for kind in ("bot_run", "bot_run", "bot_progress", "bot_run")]


async def _heard(stream: Stream, doing: Awaitable[Json] | None = None) -> list[list[str]]:
    """What the stream tells next, after something was done."""
    if doing is not None:
        await doing
    told = await stream.next()
    assert told is not None
    assert told.kind == "changed"
    return told.changes


async def test_a_page_hears_what_comes_after_the_newest_history_was_pruned(
    start_lifesign: MakeLifesign, database_url: str
) -> None:
    async with start_lifesign(at="2026-01-05T12:00:00.000Z") as lifesign:
        owner = await signed_up(lifesign)
        made = await scheduled(lifesign)
        bot_id = made["lifesign"]["bot_uuid"]
        before = await latest(lifesign)
        async with listening(lifesign, owner, f"since={before}") as stream:
            assert await stream.next() is not None

            await lifesign.advance(2 * 60)
            await lifesign.advance(2 * 60)
            left = await latest(lifesign)
            told = await _heard(stream, switched(lifesign, made, "disable"))

        assert left < before
        assert told == [[bot_id, "bot_run"]]


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
