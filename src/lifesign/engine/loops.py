"""The loops that only work on the database: sweep, escalate, reap, housekeeping."""

from collections.abc import Callable, Collection, Sequence

from sqlalchemy import Connection

from lifesign.auth.service import Keyring
from lifesign.channels import attempts, broken
from lifesign.clock import EpochMs
from lifesign.db import Database, StorageUnavailable
from lifesign.db.wakeups import Loop as Wakeable
from lifesign.engine import metrics, rules, store
from lifesign.engine.quarantine import Quarantine
from lifesign.engine.rules import Watch
from lifesign.heartbeats import holds, sweep
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.checkins import KEEP_ANSWERS_MS
from lifesign.heartbeats.rules import Blindness
from lifesign.heartbeats.subjects import subjects as subjects_of
from lifesign.heartbeats.sweep import ArmedCounts
from lifesign.incidents import attention, storms
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import TimerKind, Tuning

_S = 1000
# On PostgreSQL check-ins that arrived in time may still be committing: let them land before the deadline is judged.
_POSTGRES_LANDING_MS = 250


# What incidents wait for to tell people, and what they wait for to end.
_TIMERS: tuple[TimerKind, ...] = ("escalate", "failover", "remind")
_ENDS: tuple[TimerKind, ...] = (
    "storm_release",
    "flap_settle",
    "snooze_end",
    "maintenance_edge",
    "dependency_release",
)


class Idle:
    """What loops share that leave nothing running behind a tick."""

    rests_first = False
    wakes_on: Wakeable | None = None

    async def settle(self) -> bool:
        """Nothing is in flight."""
        return False

    async def stop(self) -> None:
        """Nothing to give back."""


class Batch:
    """How many rows a tick takes: as many as do not hold up the check-ins that queue behind it."""

    _slow_s, _quick_s = 0.150, 0.050

    def __init__(self, largest: int) -> None:
        self._largest = largest
        self._smallest = largest // 10
        self.size = largest

    def resize(self, took_s: float) -> None:
        """Half as many after a slow tick, twice as many after a quick one."""
        if took_s > self._slow_s:
            self.size = max(self._smallest, self.size // 2)
        elif took_s < self._quick_s:
            self.size = min(self._largest, self.size * 2)


class Sweep(Idle):
    """Missed deadlines become incidents. Spec "Engine", section 4."""

    name = "sweep"
    idle_ms = 1000
    wakes_on: Wakeable | None = "sweep"
    # Deadlines that fall close together share a batch.
    _gather_ms = 200
    # The loop `alive` measures the gap at its next tick, which is due already.
    _unmeasured_ms = 50

    def __init__(
        self,
        db: Database,
        tuning: Tuning,
        watch: Watch,
        *,
        may_fire: Callable[[], bool],
        is_manual: bool,
        monotonic: Callable[[], float],
    ) -> None:
        self._db = db
        self._tuning = tuning
        self._watch = watch
        self._may_fire = may_fire
        self._monotonic = monotonic
        self._gather = 0 if is_manual else self._gather_ms
        self._landing_ms = 0 if is_manual or db.is_sqlite else _POSTGRES_LANDING_MS
        self._batch = Batch(1000)
        self._quarantine = Quarantine(self.name)
        self._armed = ArmedCounts()

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Fire what is overdue."""
        if not self._may_fire():
            return None
        judged = EpochMs(now - self._landing_ms)
        bound = await self._db.read(sweep.next_bound)
        if bound is None or bound > judged:
            return self._look_again(bound, now)
        without = self._quarantine.skipped(now)
        if self._quarantine.is_wary:
            ids = await self._db.read(sweep.due_ids, judged, self._batch.size, without)
            await self._quarantine.one_by_one(ids, lambda row: self._db.write(self._sweep, judged, now, only=row), now)
            return now
        began, batch = self._monotonic(), self._batch.size
        try:
            swept = await self._db.write(self._sweep, judged, now, without=without)
        except StorageUnavailable:
            raise
        except Exception:
            self._quarantine.is_wary = True
            raise
        if swept is None:
            return EpochMs(now + self._unmeasured_ms)
        if swept.looked_at:
            self._db.failpoints.hit("sweep.after_commit")
        self._batch.resize(self._monotonic() - began)
        for late_ms in swept.late_ms:
            metrics.LATENESS.observe(late_ms / _S)
        if swept.looked_at >= batch:
            return now
        return self._look_again(await self._db.read(sweep.next_bound), now, is_skipping=bool(without))

    def _look_again(self, bound: EpochMs | None, now: EpochMs, *, is_skipping: bool = False) -> EpochMs | None:
        wait_ms = _S if is_skipping else self._gather
        return None if bound is None else EpochMs(max(bound + self._landing_ms, now + wait_ms))

    def _sweep(
        self,
        conn: Connection,
        judged: EpochMs,
        now: EpochMs,
        *,
        without: Collection[str] = (),
        only: str | None = None,
    ) -> sweep.Swept | None:
        # In this transaction: a process that was suspended must not fire before anybody saw for how long.
        state = store.state(conn, now)
        if rules.blind_span(state.last_alive, now, self._watch.blind_after_ms) is not None:
            return None
        swept = sweep.sweep(
            conn,
            judged,
            self._batch.size,
            tuning=self._tuning,
            armed=self._armed,
            blind=state.blind and Blindness(*state.blind, self._watch.min_hold_ms, self._watch.max_hold_ms),
            without=without,
            only=only,
        )
        if swept.looked_at:
            self._db.failpoints.hit("sweep.before_commit")
        return swept


class Escalate(Idle):
    """Due timers become steps, steps become messages. Spec "Engine", section 6."""

    name = "escalate"
    idle_ms = 1000
    wakes_on: Wakeable | None = "escalate"

    def __init__(self, db: Database, tuning: Tuning, *, monotonic: Callable[[], float]) -> None:
        self._db = db
        self._tuning = tuning
        self._monotonic = monotonic
        self._batch = Batch(500)
        self._quarantine = Quarantine(self.name)
        self._armed = ArmedCounts()

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Run the steps that are due."""
        first = await self._db.read(incidents.next_timer)
        if first is None or first > now:
            return first
        without = self._quarantine.skipped(now)
        if self._quarantine.is_wary:
            ids = await self._db.read(
                incidents.due_timers, now, self._batch.size, kind=None, without=without, lock=False
            )
            await self._quarantine.one_by_one(ids, lambda row: self._db.write(self._escalate, now, only=row), now)
            return now
        began, batch = self._monotonic(), self._batch.size
        try:
            looked_at = await self._db.write(self._escalate, now, without=without)
        except StorageUnavailable:
            raise
        except Exception:
            self._quarantine.is_wary = True
            raise
        if looked_at:
            self._db.failpoints.hit("escalate.after_commit")
        self._batch.resize(self._monotonic() - began)
        if looked_at >= batch:
            return now
        due = await self._db.read(incidents.next_timer)
        return max(due, EpochMs(now + _S)) if due is not None and without else due

    def _escalate(
        self, conn: Connection, now: EpochMs, *, without: Collection[str] = (), only: str | None = None
    ) -> int:
        looked_at = 0
        kinds = incidents.due_kinds(conn, now)
        for kind in filter(kinds.__contains__, _TIMERS):
            due, count = incidents.lock_due(conn, now, self._batch.size, kind=kind, without=without, only=only)
            looked_at = max(looked_at, count)
            if not due:
                continue
            due = incidents.set_aside(conn, due, kind)
            if kind == "escalate":
                due = holds.without_held_by_dependencies(conn, due)
            subjects = subjects_of(conn, {incident.heartbeat_id for incident in due})
            match kind:
                case "escalate":
                    incidents.run_due(conn, due, subjects, now=now, tuning=self._tuning)
                case "failover":
                    attention.fail_over(conn, due, subjects, now)
                case "remind":
                    attention.remind(conn, due, subjects, now)
        for kind in filter(kinds.__contains__, _ENDS):
            ids = incidents.due_timers(conn, now, self._batch.size, kind=kind, without=without, only=only, lock=True)
            looked_at = max(looked_at, len(ids))
            if ids:
                self._end(conn, kind, ids, now)
        if looked_at:
            self._db.failpoints.hit("escalate.before_commit")
        return looked_at

    def _end(self, conn: Connection, kind: TimerKind, ids: Sequence[str], now: EpochMs) -> None:
        """What kept people from being told is over, for these storms, heartbeats, windows or incidents."""
        match kind:
            case "storm_release":
                storms.release(conn, ids, now, tuning=self._tuning, armed=self._armed)
                self._db.failpoints.hit("release.before_commit")
            case "flap_settle":
                sweep.settle(conn, ids, now, self._tuning)
            case "snooze_end":
                holds.end_snoozes(conn, ids, now, self._tuning)
            case "maintenance_edge":
                holds.pass_edges(conn, ids, now, self._tuning)
            case "dependency_release":
                holds.release(conn, ids, now, self._tuning)


class Reap(Idle):
    """Messages whose sender died go back into the queue."""

    name = "reap"
    idle_ms = 5000
    _limit = 500

    def __init__(self, db: Database) -> None:
        self._db = db

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Take back expired leases."""
        ends = await self._db.read(attempts.next_lease_end)
        if ends is not None and ends < now:
            reaped = await self._db.write(self._reap, now)
            metrics.LEASES_EXPIRED.inc(reaped)
            if reaped >= self._limit:
                return now
            ends = await self._db.read(attempts.next_lease_end)
        return None if ends is None else max(EpochMs(ends + 1), EpochMs(now + 1))

    def _reap(self, conn: Connection, now: EpochMs) -> int:
        reaped = len(attempts.reap(conn, now, self._limit))
        if reaped:
            self._db.failpoints.hit("reap.before_commit")
        return reaped


class Housekeeping(Idle):
    """Writes down when keys were used, forgets what was kept for repeated requests, tells of broken channels."""

    name = "housekeeping"
    idle_ms = 30_000
    _limit = 1000

    def __init__(self, db: Database, keyring: Keyring) -> None:
        self._db = db
        self._keyring = keyring

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Do all of it, a bounded amount."""
        await self._keyring.save_last_used()
        await self._db.write(heartbeats.forget_answers, EpochMs(now - KEEP_ANSWERS_MS), self._limit)
        await self._db.write(broken.tell_of_all, now)
        return None

    async def stop(self) -> None:
        """The last uses of keys are written down."""
        await self._keyring.save_last_used()
