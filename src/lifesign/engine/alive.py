"""The alive loop: says that this node lives, and finds out when none did. Spec "Engine", section 11."""

import structlog
from sqlalchemy import Connection

from lifesign import __version__
from lifesign.channels import outbox
from lifesign.clock import Clock, CorrectedClock, EpochMs, rfc3339
from lifesign.db import Database, migrate, offset
from lifesign.engine import metrics, rules, store
from lifesign.engine.loops import Idle
from lifesign.engine.rules import Reading, Span, Watch
from lifesign.heartbeats import sweep
from lifesign.heartbeats.rules import Blindness
from lifesign.incidents import service as incidents

log = structlog.get_logger("lifesign.engine")

_S = 1000
_CORRECT_EVERY_MS = 10 * _S
_WORTH_A_WARNING_MS = 5 * _S
_FREED_AT_ONCE = 1000


last_blind = store.last_blind


class Alive(Idle):
    """Writes down each second that this node lives; watches the machine's clock."""

    name = "alive"
    idle_ms = 1000

    def __init__(self, db: Database, clock: Clock, node_id: str, watch: Watch) -> None:
        self._db = db
        self._clock = clock
        self._node_id = node_id
        self._watch = watch
        self._started_at = clock.now()
        self._seen = Reading(self._started_at, clock.monotonic())
        self._halted_at: Reading | None = None
        self._misled_by: Span | None = None
        self._set_back_ms = 0
        self._unsure_since: float | None = None
        self._revision = migrate.newest()
        self._correct_at = EpochMs(0)

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Measure how long nobody was alive, then say that this node is."""
        if not await self._fits():
            return None
        self._look_at_clocks()
        if await self._correct_clock(now):
            self._look_at_clocks()
            now = self._clock.now()
        set_back_ms = self._set_back_ms
        blind = await self._db.write(self._measure, now, set_back_ms)
        if set_back_ms:
            self._set_back_ms -= set_back_ms
            self._db.wakeups.wake({"escalate", "deliver"})
        if blind is not None:
            if blind.to_at - blind.from_at > rules.FAR_AHEAD_MS:
                self._unsure_since = self._clock.monotonic()
            took_s = (blind.to_at - blind.from_at) / _S
            metrics.BLIND_SECONDS.inc(took_s)
            log.warning("engine.blind", since=rfc3339(blind.from_at), until=rfc3339(blind.to_at), seconds=took_s)
            self._db.wakeups.wake({"sweep"})
        return None

    async def _fits(self) -> bool:
        """Whether the tables are still those of this version: another node may have brought them further."""
        if self._db.is_sqlite:
            return True
        found = await self._db.read(migrate.revision)
        fits = found == self._revision
        if not fits and self._db.refusal is None:
            log.error("schema.moved_on", found=found, known=self._revision)
        self._db.refusal = None if fits else f"the database has schema {found}, this node knows {self._revision}"
        return fits

    async def _correct_clock(self, now: EpochMs) -> bool:
        """Every 10 s, and when this machine's was set, follow the clock that all nodes share; whether it was asked."""
        clock = self._clock
        if not isinstance(clock, CorrectedClock) or rules.is_resting(now, self._correct_at, _CORRECT_EVERY_MS):
            return False
        self._correct_at = EpochMs(now + _CORRECT_EVERY_MS)
        offset_ms = await offset.correct(self._db, clock)
        metrics.CLOCK_OFFSET.set(offset_ms / _S)
        if abs(offset_ms) > _WORTH_A_WARNING_MS:
            log.warning("clock.off", by_ms=offset_ms)
        return True

    def _measure(self, conn: Connection, now: EpochMs, set_back_ms: int = 0) -> Span | None:
        store.lock_state(conn)
        if set_back_ms:
            incidents.follow_clock(conn, set_back_ms, now)
            outbox.follow_clock(conn, set_back_ms, now)
        state = store.state(conn, now)
        before = self._believed(conn, state.blind, now)
        blind = rules.blind_span(state.last_alive, now, self._watch.blind_after_ms)
        if blind is not None:
            store.save_blind(conn, rules.joined(before, blind, self._watch))
        self._say(conn, now)
        return blind

    def _believed(self, conn: Connection, blind: Span | None, now: EpochMs) -> Span | None:
        """The last span, put right if a clock that was ahead saw it end in the future, and what it did undone."""
        believed = blind and rules.believable(blind, now)
        if believed is not None and believed != blind:
            self._misled_by = blind
            store.save_blind(conn, believed)
        if self._misled_by is not None:
            held = Blindness(*self._misled_by, self._watch.min_hold_ms, self._watch.max_hold_ms)
            if sweep.release(conn, held, now, _FREED_AT_ONCE) < _FREED_AT_ONCE:
                self._misled_by = None
        return believed

    def _say(self, conn: Connection, now: EpochMs) -> None:
        store.save_alive(conn, self._node_id, now, started_at=self._started_at, version=__version__)

    async def attest(self, at: EpochMs) -> None:
        """Say that this node lives at `at` without measuring: a clock turned by hand is not time that was missed."""
        if self._db.refusal is None:
            await self._db.write(self._say, at)

    def may_fire(self) -> bool:
        """Whether the clock can be believed: it was not set back, or the old time has come again."""
        self._look_at_clocks()
        return self._halted_at is None

    def may_delete(self) -> bool:
        """Whether the date can be believed when it says that something is old enough to go."""
        return not rules.is_day_unsure(self._unsure_since, self._clock.monotonic())

    def _look_at_clocks(self) -> None:
        before, self._seen = self._seen, Reading(self._clock.now(), self._clock.monotonic())
        jumped = rules.jump_ms(before, self._seen)
        if jumped is not None:
            self._correct_at = EpochMs(0)
            log.warning("clock.jumped", by_ms=jumped)
            if jumped > rules.FAR_AHEAD_MS:
                self._unsure_since = self._seen.monotonic_s
            if jumped < 0:
                # The time of a database that several nodes share is not for one of them to follow.
                self._set_back_ms -= jumped if self._db.is_sqlite else 0
                self._halted_at = self._halted_at or before
        if self._halted_at is not None and rules.is_halt_over(self._halted_at, self._seen):
            self._halted_at = None

    async def stop(self) -> None:
        """Nobody listens from here on, as far as this node is concerned."""
        await self.attest(self._clock.now())
