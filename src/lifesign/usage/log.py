"""The log of requests: kept in memory for a moment, then added to sums in the database.

Noting a request is one append. A task writes what waits every 250 ms, or as soon as there are 500, in one transaction
among others; the event loop never waits for it, and no check-in does. This is the one buffer of the server that a crash
empties: it costs the counts of a quarter of a second, and nothing that was promised to anybody.
"""

import asyncio
import contextlib
from collections import deque
from itertools import islice
from typing import Final

import structlog

from lifesign.clock import Clock
from lifesign.db import Database, StorageUnavailable
from lifesign.usage import rules, service
from lifesign.usage.metrics import USAGE_DROPPED, USAGE_FLUSH
from lifesign.usage.rules import UsageRecord

MAX_WAITING: Final = 20_000
"""While the database is away so many records wait; those that come then are dropped and counted."""
BATCH: Final = 500
# So many are added up at once, which takes the event loop a few milliseconds.
_MAX_AT_ONCE: Final = 2000
_EVERY_S: Final = 0.25
_AFTER_FAILURE_S: Final = 1.0
_READERS_WAIT_S: Final = 0.2
_LAST_TRY_S: Final = 3.0

log = structlog.get_logger("lifesign.usage")


class UsageLog:
    """What this process counted and has not written yet. `dropped`: how many records there was no room for."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._waiting: deque[UsageRecord] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.Task[None] | None = None
        self._moved = asyncio.Event()
        self._is_failing = False
        # Counted from the beginning: how many were noted, written, and are wanted by somebody who reads.
        self._noted = 0
        self._written = 0
        self._wanted = 0
        self.dropped = 0

    def __len__(self) -> int:
        """How many records wait."""
        return len(self._waiting)

    def note(self, record: UsageRecord) -> None:
        """Count a request. Never waits: a record for which there is no room is dropped."""
        waiting = len(self._waiting)
        if waiting >= MAX_WAITING:
            self.dropped += 1
            USAGE_DROPPED.inc()
            return
        self._waiting.append(record)
        self._noted += 1
        if self._timer is None:
            self._write_in(_EVERY_S)
        elif waiting + 1 == BATCH and not self._is_failing:
            self._write_now()

    async def settle(self) -> None:
        """Let what this process has counted so far be read. Does not wait for long, nor for a database that is away."""
        if not self._waiting:
            return
        self._wanted = self._noted
        self._write_now()
        await self._reached(self._noted, within_s=_READERS_WAIT_S)

    async def close(self) -> None:
        """Write what waits, and end. What cannot be written soon is lost, and told of."""
        if self._waiting:
            self._wanted = self._noted
            self._write_now()
            await self._reached(self._noted, within_s=_LAST_TRY_S)
        if self._timer is not None:
            self._timer.cancel()
        if self._writing is not None and not self._writing.done():
            self._writing.cancel()
            await asyncio.wait([self._writing])
        if self._waiting:
            log.warning("usage.lost", count=len(self._waiting))

    async def _reached(self, target: int, *, within_s: float) -> None:
        """Return when so many were written, or writing failed, or it takes too long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._written < target and self._writing is not None and not self._writing.done():
                    await self._moved.wait()

    # Writing --------------------------------------------------------------------------------------------------------
    def _write_in(self, seconds: float) -> None:
        self._timer = asyncio.get_running_loop().call_later(seconds, self._write_now)

    def _write_now(self) -> None:
        """Begin, unless that is being done."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write(), name="usage")

    async def _write(self) -> None:
        """Write what waits: once, and again while there is a batch of it, or somebody waits to read it."""
        has_failed = False
        while self._waiting and not has_failed:
            has_failed = not await self._write_some()
            self._tell()
            if len(self._waiting) < BATCH and self._written >= self._wanted:
                break
        if self._waiting:
            if self._timer is not None:
                self._timer.cancel()
            self._write_in(_AFTER_FAILURE_S if has_failed else _EVERY_S)

    async def _write_some(self) -> bool:
        """One transaction; False when it failed, and all that it should have written waits on."""
        # They leave the queue once they are on disk: what comes meanwhile is appended behind them.
        records = list(islice(self._waiting, _MAX_AT_ONCE))
        began = self._clock.monotonic()
        try:
            await self._db.write(service.add, rules.sums_of(records))
        except StorageUnavailable as error:
            # A PostgreSQL that is lost in the very moment of a commit may have it: then these are counted twice.
            if not self._is_failing:
                log.warning("usage.stuck", reason=str(error))
            self._is_failing = True
            return False
        except Exception:
            # What cannot be written at all must not keep everything after it from being counted.
            log.exception("usage.failed", count=len(records))
            self._take_off(len(records))
            return True
        USAGE_FLUSH.observe(self._clock.monotonic() - began)
        self._take_off(len(records))
        if self._is_failing:
            log.info("usage.resumed", waiting=len(self._waiting))
        self._is_failing = False
        return True

    def _take_off(self, count: int) -> None:
        for _ in range(count):
            self._waiting.popleft()
        self._written += count

    def _tell(self) -> None:
        self._moved.set()
        self._moved = asyncio.Event()
