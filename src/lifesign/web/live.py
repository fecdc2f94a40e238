"""What open pages are told: that something was committed about a heartbeat, by whatever node.

One task per node reads what is new in the table of events, for as long as a page is open here; pages wait for it and
keep nothing of their own but how far they are.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass

import structlog

from lifesign.db import Database, StorageUnavailable
from lifesign.events import service as events
from lifesign.events.service import Change

log = structlog.get_logger("lifesign.web")

_POLL_S = 0.5
_KEPT = 5000
# On PostgreSQL a row may become visible after one that got a later number: so far back is looked again.
_OVERLAP = 500


@dataclass(frozen=True, slots=True)
class News:
    """What is new for a page. is_gap: it was away for too long to say; it has to look for itself."""

    seq: int
    changes: tuple[Change, ...] = ()
    is_gap: bool = False


class Live:
    """One per node."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._overlap = 0 if db.is_sqlite else _OVERLAP
        # The last one is always read again: SQLite gives its number to another when it was pruned.
        self._back = max(self._overlap, 1)
        self._kept: deque[Change] = deque(maxlen=_KEPT)
        # How many were ever appended: a page's place is among these, since numbers of rows may come out of order.
        self._count = 0
        self._seen: set[Change] = set()
        # Those that became visible after one with a later number: a page that begins at that one has not seen them.
        self._late: deque[Change] = deque(maxlen=_OVERLAP)
        self._head = self._floor = 0
        self._watchers = 0
        self._started: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._more = asyncio.Event()
        self._is_closed = False

    @property
    def watchers(self) -> int:
        """How many pages are listening."""
        return self._watchers

    async def news(self, project_id: str, since: int | None, *, quiet_s: float) -> AsyncGenerator[News | None, None]:
        """What happens in a project after the event `since`; None: nothing for `quiet_s`. Ends when the node stops."""
        self._watchers += 1
        try:
            await self._start()
            # Before anything is sent: what is appended meanwhile comes after.
            place = self._count
            yield self._first(project_id, since)
            while not self._is_closed:
                more = self._more
                if place == self._count:
                    try:
                        async with asyncio.timeout(quiet_s):
                            await more.wait()
                    except TimeoutError:
                        yield None
                    continue
                new = self._count - place
                place = self._count
                if new > len(self._kept):
                    yield News(self._head, is_gap=True)
                    continue
                ours = tuple(each for each in list(self._kept)[-new:] if each.project_id == project_id)
                if ours:
                    yield News(self._head, ours)
        finally:
            self._watchers -= 1
            if self._watchers == 0:
                self._stop()

    def close(self) -> None:
        """End every page's stream: the node stops."""
        self._is_closed = True
        self._more.set()
        self._stop()

    def _first(self, project_id: str, since: int | None) -> News:
        if since is None:
            return News(self._head)
        # A page that was made a moment ago may be ahead of what was read here.
        is_ahead = since >= self._head
        if not is_ahead and since - self._overlap < self._floor:
            return News(self._head, is_gap=True)
        missed = (each for each in (self._late if is_ahead else self._kept) if each.seq > since - self._overlap)
        return News(self._head, tuple(each for each in missed if each.project_id == project_id))

    async def _start(self) -> None:
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_forever())
            self._started = asyncio.create_task(self._look_where_the_end_is())
        if self._started is not None:
            # Shielded: the page that began it may be closed while others wait.
            try:
                await asyncio.shield(self._started)
            except StorageUnavailable:
                self._stop()
                raise

    async def _look_where_the_end_is(self) -> None:
        self._kept.clear()
        self._late.clear()
        self._head = self._floor = head = await self._db.read(events.latest_seq)
        known = await self._db.read(events.changes_since, head - self._back, limit=_KEPT)
        self._seen = {each for each in known if each.seq <= head}

    def _stop(self) -> None:
        for task in (self._reading, self._started):
            if task is not None:
                task.cancel()
        self._reading = self._started = None

    async def _read_forever(self) -> None:
        while True:
            await asyncio.sleep(_POLL_S)
            try:
                await self._read()
            except StorageUnavailable:
                # What cannot be read now is found by the next look.
                continue
            except Exception:  # the edge of a loop: pages would stay as they are, and say nothing of it
                log.exception("live.failed")

    async def _read(self) -> None:
        found = await self._db.read(events.changes_since, self._head - self._back, limit=_KEPT)
        if self._head and not found:
            await self._look_where_the_end_is()
            return
        new = [each for each in found if each not in self._seen]
        if not new:
            return
        self._late.extend(each for each in new if each.seq < self._head)
        self._head = max(self._head, *(each.seq for each in new))
        self._seen = {each for each in found if each.seq > self._head - self._back}
        self._kept.extend(new)
        self._count += len(new)
        oldest = min(each.seq for each in self._kept)
        if len(self._kept) == _KEPT:
            self._floor = max(self._floor, oldest)
        self._more, told = asyncio.Event(), self._more
        told.set()
