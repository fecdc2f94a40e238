"""The prune loop: deletes what is kept no longer, a little at a time. Spec "Engine", section 12, "Retention"."""

from collections.abc import Callable, Sequence

import structlog
from sqlalchemy import Connection

from lifesign.audit import service as audit
from lifesign.clock import EpochMs
from lifesign.db import Database
from lifesign.diagnosis import service as diagnosis
from lifesign.engine import retention
from lifesign.engine.erasure import Eraser
from lifesign.engine.loops import Idle
from lifesign.engine.retention import History, Walk
from lifesign.engine.rules import is_resting
from lifesign.inventory import service as inventory
from lifesign.pings import service as pings
from lifesign.projects import service as projects
from lifesign.runs import service as runs
from lifesign.usage import service as usage
from lifesign.vitals import service as vitals

log = structlog.get_logger("lifesign.engine")

_S = 1000
_DAY = 24 * 3600 * _S
_REST_SHARE = 9

Deletion = Callable[[Connection, EpochMs, int], int]
_SIMPLE: tuple[Deletion, ...] = (
    retention.delete_notifications,
    retention.delete_incidents,
    retention.delete_storms,
    retention.delete_callbacks,
    retention.delete_nodes,
    retention.delete_buckets,
    audit.forget,
    runs.abandon,
    pings.forget_rids,
    projects.forget_calls,
    usage.forget_minutes,
    usage.forget_hours,
    usage.forget_latency,
    usage.forget_latency_days,
    usage.forget_errors,
)


class Prune(Idle):
    """One transaction of at most 1,000 rows at a tick, then a pause in which check-ins have the writer to themselves.

    Goes through everything once in a minute, or for as long as that takes.
    """

    name = "prune"
    idle_ms = 60_000
    # A server that starts has better things to do than to tidy up.
    rests_first = True
    _limit = 1000
    _pause_ms = 200
    _histories_at_once = 200
    _projects_at_once = 100
    _packets_at_once = 100
    _runs_at_once = 200
    # What began before the deletion may still land: nodes remember the quota of a project for 5 s, and its spans then
    # wait up to 10 s for the commit. Landing in what is erased already, they would stay, of a project nobody knows.
    _landing_ms = 20_000

    def __init__(
        self,
        db: Database,
        erasers: Sequence[Eraser],
        *,
        event_days: int,
        packet_days: int,
        bot_run_days: int,
        bot_transcript_days: int,
        measurement_days: int,
        may_delete: Callable[[], bool] = lambda: True,
    ) -> None:
        self._db = db
        self._bot_run_days = bot_run_days
        self._bot_transcript_days = bot_transcript_days
        self._event_days = event_days
        self._packet_days = packet_days
        self._measurement_days = measurement_days
        self._may_delete = may_delete
        self._erasers = erasers
        self._rest_until = EpochMs(0)
        self._old = Walk(0, has_more=False, deleted=0)
        self._old_since: EpochMs | None = None
        self._inventories_after = ""
        self._inventories_rest_until = EpochMs(0)
        self._after = ""
        self._to_do: list[History] = []
        self._round_began_at: EpochMs | None = None
        self._next_round_at = EpochMs(0)
        self._round_rest_ms = 0
        self._deleted = 0

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Delete some; come back soon when there may be more."""
        if is_resting(now, self._rest_until, self.idle_ms) or not self._may_delete():
            return None
        if await self._db.write(self._delete_aged, now) or await self._delete_surplus(now) or await self._erase(now):
            return EpochMs(now + self._pause_ms)
        if self._deleted:
            log.info("rows.pruned", count=self._deleted)
        self._deleted = 0
        self._rest_until = EpochMs(now + self.idle_ms)
        return None

    def _delete_aged(self, conn: Connection, now: EpochMs) -> bool:
        """What is too old, from the first table that has some; whether there may be more."""
        for deletion in _SIMPLE:
            count = deletion(conn, now, self._limit)
            if count:
                self._deleted += count
                return True
        measurements = vitals.delete_older(conn, EpochMs(now - self._measurement_days * _DAY), self._limit)
        self._deleted += measurements
        if measurements:
            return True
        runs_before = EpochMs(now - self._bot_run_days * _DAY)
        words_before = max(runs_before, EpochMs(now - self._bot_transcript_days * _DAY))
        count = retention.delete_bot_transcripts(conn, words_before, self._limit)
        count = count or retention.delete_bot_runs(conn, runs_before, self._runs_at_once)
        if count:
            self._deleted += count
            return True
        # Fewer at once than of anything else: each holds the text of up to a hundred issues.
        packets = diagnosis.delete_packets(conn, EpochMs(now - self._packet_days * _DAY), self._packets_at_once)
        self._deleted += packets
        if packets:
            return True
        if not is_resting(now, self._inventories_rest_until, _DAY):
            # What is worth keeping today may be one too many tomorrow.
            thinned = inventory.thin(conn, now, self._inventories_after)
            self._deleted += thinned.deleted
            self._inventories_after = thinned.after or ""
            if thinned.after is not None:
                return True
            self._inventories_rest_until = EpochMs(now + _DAY)
        # What was left alone once, a day later may be old enough.
        if self._old_since is None or not 0 <= now - self._old_since < _DAY:
            self._old, self._old_since = Walk(0, has_more=False, deleted=0), now
        before = EpochMs(now - self._event_days * _DAY)
        self._old = retention.delete_old_events(conn, before, self._old.seq, self._limit)
        self._deleted += self._old.deleted
        return self._old.has_more

    async def _erase(self, now: EpochMs) -> bool:
        """What deleted projects, and sandboxes that expired long ago, have left; whether there may be more."""
        ended_before = EpochMs(now - self._landing_ms)
        expired, ids = await self._db.read(projects.over, now, ended_before=ended_before, limit=self._projects_at_once)
        if expired:
            await self._db.write(projects.end_expired, expired, now)
            for project_id in expired:
                log.info("project.deleted", project_id=project_id, why="expired")
        if not ids:
            return False
        try:
            for eraser in self._erasers:
                erased = await eraser.erase(ids, self._limit)
                if erased:
                    self._deleted += erased
                    return True
        except Exception:
            # One store that is away must not keep everything else from being pruned; the projects wait for it.
            log.exception("projects.not_erased", count=len(ids))
            return False
        await self._db.write(projects.forget, ids)
        log.info("projects.erased", count=len(ids))
        return True

    async def _delete_surplus(self, now: EpochMs) -> bool:
        """Events of a heartbeat that are too many, or whose heartbeat is gone; whether there may be more.

        A round goes through all heartbeats. With a million it takes a quarter of an hour, so that the next one waits.
        """
        if self._round_began_at is None:
            if is_resting(now, self._next_round_at, self._round_rest_ms):
                return False
            self._round_began_at = now
        has_more = await self._delete_surplus_of_some()
        if not has_more:
            self._round_rest_ms = max(0, _REST_SHARE * (now - self._round_began_at))
            self._next_round_at = EpochMs(now + self._round_rest_ms)
            self._round_began_at = None
        return has_more

    async def _delete_surplus_of_some(self) -> bool:
        if not self._to_do:
            found = await self._db.read(retention.histories, self._after, self._histories_at_once)
            self._to_do = [each for each in found if not each.exists or each.surplus_up_to is not None]
            self._after = found[-1].heartbeat_id if len(found) == self._histories_at_once else ""
        else:
            count = await self._db.write(retention.delete_surplus, self._to_do[0], self._limit)
            self._deleted += count
            if count < self._limit:
                self._to_do.pop(0)
        return bool(self._to_do) or bool(self._after)
