"""Carries what was answered from the spool to ClickHouse, in order, every second or sooner."""

import asyncio
import contextlib
from typing import Final

import structlog

from lifesign.clock import EpochMs
from lifesign.db import Database, StorageUnavailable
from lifesign.telemetry.metrics import SPOOL_RECORDS
from lifesign.telemetry.store import StoreUnavailable
from lifesign.telemetry.stores.clickhouse import spool
from lifesign.telemetry.stores.clickhouse.client import ClickHouse

BATCH_RECORDS: Final = 20_000
BATCH_BYTES: Final = 64 * 1024 * 1024
"""What rows may take in memory, about; a single request may take more."""
_EVERY_S: Final = 1.0
_LONGEST_REST_S: Final = 5.0
_LOOKS_EVERY_S: Final = 10.0
_LAST_TRY_S: Final = 5.0

log = structlog.get_logger("lifesign.telemetry")


class Flusher:
    """One task, from the opening of the store until `stop`. `is_failing`: the last attempt did not succeed."""

    def __init__(self, database: Database, clickhouse: ClickHouse) -> None:
        self.is_failing = False
        self._database = database
        self._clickhouse = clickhouse
        self._now = EpochMs(0)
        self._has_work = asyncio.Event()
        self._is_urgent = asyncio.Event()
        self._moved = asyncio.Event()
        self._waiting = 0
        # What an earlier process left goes first.
        self._has_work.set()
        self._task: asyncio.Task[None] | None = None
        with contextlib.suppress(RuntimeError):
            self._start()

    def _start(self) -> None:
        """Begin, unless that has been done. Raises RuntimeError outside of an event loop, which comes later then."""
        if self._task is None:
            loop = asyncio.get_running_loop()
            self._task = loop.create_task(self._run(), name="spool")

    def appended(self, records: int, now: EpochMs) -> None:
        """So many records more wait."""
        self._start()
        self._now = max(self._now, now)
        self._waiting += records
        SPOOL_RECORDS.inc(records)
        self._has_work.set()
        if self._waiting >= BATCH_RECORDS:
            self._is_urgent.set()

    async def drained(self, project_id: str | None, *, within_s: float) -> None:
        """Wait until what a project, or anybody, has in the spool by now is in ClickHouse; not longer, nor in vain."""
        self._start()
        last = (await self._database.read(spool.pending, project_id)).last
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while not self.is_failing:
                    moved = self._moved
                    first = (await self._database.read(spool.pending, project_id)).first
                    if first == 0 or first > last:
                        return
                    self._has_work.set()
                    self._is_urgent.set()
                    await moved.wait()

    async def stop(self) -> None:
        """Try once more, for a bounded time, and end."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        with contextlib.suppress(TimeoutError, StoreUnavailable, StorageUnavailable):
            async with asyncio.timeout(_LAST_TRY_S):
                while await self.flush():
                    pass

    async def flush(self) -> bool:
        """Carry the oldest requests over; False when there are none. Raises StoreUnavailable, StorageUnavailable."""
        batch = await self._database.read(spool.next_batch, BATCH_RECORDS, BATCH_BYTES)
        if batch is not None:
            self._database.failpoints.hit("spool.before_insert")
            # Should this process die here, or not hear the answer, the range goes again: with the same token where
            # it is the same, and as rows that are found to be of records that are there where it is not.
            await self._clickhouse.insert(batch.rows, batch.token)
            self._database.failpoints.hit("spool.after_insert")
            await self._database.write(spool.drop, batch.first, batch.last)
            self._waiting = max(0, self._waiting - len(batch.rows))
        self._moved.set()
        self._moved = asyncio.Event()
        return batch is not None

    async def _run(self) -> None:
        rest_s = _EVERY_S
        while True:
            with contextlib.suppress(TimeoutError):
                # Who hangs up before the answer has a request in the spool that nobody told of.
                async with asyncio.timeout(_LOOKS_EVERY_S):
                    await self._has_work.wait()
            self._has_work.clear()
            await self._rest(rest_s)
            rest_s = min(rest_s * 2, _LONGEST_REST_S) if await self._has_failed() else _EVERY_S
            await self._take_stock()

    async def _rest(self, seconds: float) -> None:
        """Let records gather, unless somebody waits for them."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._is_urgent.wait()
        self._is_urgent.clear()

    async def _has_failed(self) -> bool:
        """Carry over everything that there is; whether that failed."""
        try:
            while await self.flush():
                pass
        except (StoreUnavailable, StorageUnavailable) as error:
            if not self.is_failing:
                log.warning("spool.stuck", reason=str(error))
            self.is_failing = True
            self._has_work.set()
            # Nobody waits for what will not come soon.
            self._moved.set()
            self._moved = asyncio.Event()
            return True
        except Exception:
            log.exception("spool.failed")
            self.is_failing = True
            self._has_work.set()
            return True
        if self.is_failing:
            log.info("spool.drained")
        self.is_failing = False
        return False

    async def _take_stock(self) -> None:
        """Put the count right, and forget ids of which no repetition is expected any more."""
        with contextlib.suppress(StorageUnavailable):
            self._waiting = (await self._database.read(spool.pending, None)).records
            SPOOL_RECORDS.set(self._waiting)
            await self._database.write(spool.forget, self._now)
