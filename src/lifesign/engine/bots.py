"""The loops of bots: slots become runs, runs are started, and those whose owner is gone are ended. Spec "Bots", 8."""

from sqlalchemy.exc import IntegrityError

from lifesign.bots import claiming, ending, run_store, starting
from lifesign.bots.execution import Executor
from lifesign.clock import EpochMs
from lifesign.db import Database
from lifesign.db.wakeups import Loop as Wakeable
from lifesign.engine import metrics
from lifesign.engine.loops import Idle

_BATCH = 200
_AT_ONCE = 32
"""Runs that go on in one process; a project's own limit is mostly lower."""


class BotsClaim(Idle):
    """Slots that are due become runs, or rows that say why not."""

    name = "bots_claim"
    idle_ms = 1000
    wakes_on: Wakeable | None = "bots_claim"

    def __init__(self, db: Database, *, is_halted: bool = False) -> None:
        """is_halted: all bots are stopped on this server."""
        self._db = db
        self._is_halted = is_halted
        self._passed_over = 0

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Claim what is due."""
        first = await self._db.read(run_store.next_due)
        if first is None or first > now:
            self._passed_over = 0
            return first
        planned = await self._db.read(claiming.plan, now, _BATCH, skip=self._passed_over)
        claimed = 0
        if planned:
            claimed = await self._claimed(planned, now)
            self._db.failpoints.hit("bots_claim.after_commit")
        is_full = len(planned) >= _BATCH
        # What another node is busy with is left to it: both would go on to plan the same, and one of them in vain.
        self._passed_over = self._passed_over + _BATCH if is_full and not claimed else 0
        if is_full:
            return now
        due = await self._db.read(run_store.next_due)
        return None if due is None else max(due, EpochMs(now + 1))

    async def _claimed(self, planned: list[claiming.Planned], now: EpochMs) -> int:
        try:
            return await self._db.write(claiming.claim, planned, now, is_halted=self._is_halted)
        except IntegrityError:
            # A slot of one of them was started already, by a node that lost its database right then: one by one, so
            # that the others are not held up.
            count = 0
            for each in planned:
                count += await self._db.write(claiming.claim_or_pass, each, now, is_halted=self._is_halted)
            return count


class BotsRun:
    """Queued runs are started as places become free."""

    name = "bots_run"
    idle_ms = 1000
    rests_first = False
    wakes_on: Wakeable | None = "bots_run"

    def __init__(self, db: Database, executor: Executor, node_id: str, *, is_halted: bool = False) -> None:
        """is_halted: all bots are stopped on this server."""
        self._db = db
        self._executor = executor
        self._node_id = node_id
        self._is_halted = is_halted
        self._is_stopping = False

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Start what may start, and end what waited for too long."""
        if self._is_stopping:
            return None
        if not await self._db.read(run_store.is_any_waiting):
            return None
        for run_id in await self._db.read(run_store.waited_enough, now, _BATCH):
            if await self._db.write(ending.end_waiting, run_id, now):
                self._executor.ends.tell(run_id)
        metrics.BOT_RUNS_STARTED.inc(await self._start_some(now))
        dues = [await self._db.read(run_store.next_queued, now), await self._db.read(run_store.next_wait_end)]
        known = [max(due, EpochMs(now + 1)) for due in dues if due is not None]
        return min(known, default=None)

    async def _start_some(self, now: EpochMs) -> int:
        started = 0
        full = await self._db.read(starting.full_projects, now)
        for waiting in await self._db.read(run_store.startable, now, _BATCH, except_projects=full):
            if len(self._executor) >= _AT_ONCE:
                break
            started += await self._start(waiting, now)
        return started

    async def _start(self, waiting: run_store.Waiting, now: EpochMs) -> bool:
        started = await self._db.write(
            starting.start, waiting.id, owner=self._node_id, now=now, has_token=True, is_halted=self._is_halted
        )
        if started is None:
            self._executor.ends.tell(waiting.id)
            return False
        self._db.failpoints.hit("bots_run.after_commit")
        self._executor.begin(started)
        return True

    async def settle(self) -> bool:
        """Wait until a run that goes on here ends, or causes work: others must begin meanwhile."""
        return await self._executor.settle(self._db.wakeups.any)

    async def stop(self) -> None:
        """Start nothing more, and end what goes on."""
        self._is_stopping = True
        await self._executor.stop()


class BotsReap(Idle):
    """Runs whose owner did not come back are ended."""

    name = "bots_reap"
    idle_ms = 5000

    def __init__(self, db: Database, executor: Executor) -> None:
        self._db = db
        self._executor = executor

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """End what was lost."""
        first = await self._db.read(run_store.next_lease_end)
        if first is None or first > now:
            return None if first is None else EpochMs(first + 1)
        for run_id in await self._db.read(run_store.expired_leases, now, _BATCH):
            ended = await self._db.write(ending.reap, run_id, now)
            if ended is not None:
                metrics.BOT_RUNS_LOST.inc()
                await self._executor.has_ended(ended)
        ends = await self._db.read(run_store.next_lease_end)
        return None if ends is None else max(EpochMs(ends + 1), EpochMs(now + 1))
