"""Runs of a heartbeat: what a start, progress and the end of one mean for what is expected of the heartbeat.

Everything here runs in the caller's transaction, the heartbeat locked first. Spec "Heartbeats", section 7.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.db.sql import update_together
from lifesign.db.wakeups import wake_after_commit
from lifesign.events.rules import EventType
from lifesign.heartbeats import checkins, rules, service, store
from lifesign.heartbeats.checkins import CheckIn
from lifesign.heartbeats.rules import Heartbeat, HeartbeatNotFound, Managed, Minded
from lifesign.heartbeats.store import Running
from lifesign.heartbeats.subjects import record
from lifesign.ids import new_id
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Tuning
from lifesign.runs import service as runs
from lifesign.runs.rules import RunNotFound, RunRefused, RunStatus, earliest_due, progressed
from lifesign.runs.service import Report, Run


@dataclass(frozen=True, slots=True)
class Reporter:
    """Who reports on a run, of which heartbeat."""

    project_id: str
    key_id: str
    ref: str


def start(
    conn: Connection, who: Reporter, run_id: str | None, report: Report, *, max_ms: int | None, now: EpochMs
) -> tuple[Run, bool]:
    """Begin a run; the run, and whether it is new. Raises HeartbeatNotFound, Managed, RunRefused."""
    heartbeat = service.lock_unowned(conn, who.project_id, who.ref)
    run, is_new = runs.start(
        conn,
        heartbeat.project_id,
        heartbeat.id,
        run_id,
        report,
        max_ms=max_ms,
        is_watched=heartbeat.is_watched,
        now=now,
    )
    if is_new:
        _mind(conn, heartbeat, run.lease_until, now)
        record(conn, heartbeat, now, "run_started", key=who.key_id, runId=run.run_id)
    return run, is_new


class Progress(NamedTuple):
    """One report of progress as it arrived. `stamp`: when its body had been read."""

    who: Reporter
    run_id: str
    report: Report
    stamp: EpochMs


def progress(conn: Connection, items: Sequence[Progress]) -> list[Run | Exception]:
    """Runs go on; many at once: `await db.write_batched(running.progress, item)`. The run after each, in order.

    Among them HeartbeatNotFound, Managed, RunNotFound and RunRefused for those that nothing came of.
    """
    batch = _Batch(conn, items)
    answers = [batch.take(item) for item in items]
    batch.flush()
    return answers


class _Batch:
    """The heartbeats of one transaction with their open runs, and what is still to be written about them."""

    def __init__(self, conn: Connection, items: Sequence[Progress]) -> None:
        self._conn = conn
        slugs: dict[str, set[str]] = {}
        self._ids: dict[tuple[str, str], str] = {}
        for who, *_ in items:
            if who.ref.startswith("hb_"):
                self._ids[who.project_id, who.ref] = who.ref
            else:
                slugs.setdefault(who.project_id, set()).add(who.ref)
        for project_id, wanted in slugs.items():
            for ref, key in store.ids_of_refs(conn, project_id, wanted).items():
                self._ids[project_id, ref] = key
        self._heartbeats = store.lock_running(conn, set(self._ids.values()))
        self._runs: dict[str, dict[str, Run]] = {key: {} for key in self._heartbeats}
        for run in runs.open_of(conn, self._heartbeats):
            self._runs[run.heartbeat_id][run.run_id] = run
        # Before and after.
        self._changed_runs: dict[str, tuple[Run, Run]] = {}
        self._changed: dict[str, tuple[Minded, Minded]] = {}

    def take(self, item: Progress) -> Run | Exception:
        """Apply one report; what it writes may wait until `flush`."""
        heartbeat = self._heartbeats.get(self._ids.get((item.who.project_id, item.who.ref), ""))
        if heartbeat is None or heartbeat.project_id != item.who.project_id:
            return HeartbeatNotFound()
        if heartbeat.managed_by is not None:
            return Managed(heartbeat.minded.status, heartbeat.managed_by)
        known = self._runs[heartbeat.id]
        is_watched = heartbeat.minded.is_watched
        try:
            before = known.get(item.run_id) or runs.get(self._conn, heartbeat.id, item.run_id)
            after = progressed(before, item.report, item.stamp, is_watched=is_watched)
        except (RunNotFound, RunRefused) as refusal:
            return refusal
        known[after.run_id] = after
        self._changed_runs[after.id] = (self._changed_runs.get(after.id, (before, after))[0], after)
        if before.status == "stalled" and incidents.cause_of(self._conn, heartbeat.incident_id) == after.run_id:
            heartbeat = self._recovered(heartbeat, item)
        lease_until = after.lease_until if after.status == "running" else None
        minding = rules.minded(heartbeat.minded, earliest_due(known.values()), lease_until, item.stamp)
        if minding != heartbeat.minded:
            first, _ = self._changed.get(heartbeat.id, (heartbeat.minded, minding))
            self._changed[heartbeat.id] = (first, minding)
        if minding.check_at != heartbeat.minded.check_at:
            wake_after_commit(self._conn, "sweep")
        self._heartbeats[heartbeat.id] = heartbeat._replace(minded=minding)
        return after

    def _recovered(self, heartbeat: Running, item: Progress) -> Running:
        """The heartbeat whose stalled run goes on: its incident is over."""
        self.flush()
        whole = store.by_ids(self._conn, [heartbeat.id])[heartbeat.id]
        after = checkins.recover(self._conn, whole, rules.recovered(whole, item.stamp), item.who.key_id, item.stamp)
        store.save(self._conn, after)
        return store.lock_running(self._conn, [heartbeat.id])[heartbeat.id]

    def flush(self) -> None:
        """Write what is waiting."""
        changes = [*runs.progressed(self._changed_runs.values()), *store.minded(self._changed)]
        update_together(self._conn, changes)
        self._changed_runs, self._changed = {}, {}


def finish(
    conn: Connection, who: Reporter, run_id: str, report: Report, *, ok: bool, tuning: Tuning, now: EpochMs
) -> Run:
    """A run ends, which is a check-in. Raises HeartbeatNotFound, Managed, RunNotFound, RunRefused."""
    heartbeat = service.lock_unowned(conn, who.project_id, who.ref)
    before = runs.get(conn, heartbeat.id, run_id)
    after = runs.finish(conn, before, report, ok=ok, now=now)
    if after is None:
        return before
    if heartbeat.ping_run_id == after.run_id:  # a ping began what ends here
        heartbeat = replace(heartbeat, ping_run_id=None, ping_started_at=None, last_duration_ms=after.duration_ms)
    heartbeat = _mind(conn, heartbeat, None, now)
    event: EventType = "run_finished" if ok else "run_failed"
    record(conn, heartbeat, now, event, key=who.key_id, runId=after.run_id, durationMs=after.duration_ms)
    item = CheckIn(
        heartbeat.project_id, who.key_id, heartbeat.id, ok, report.metadata, now, via="run", run_id=after.run_id
    )
    checkins.apply(conn, heartbeat, item, tuning)
    return after


# Runs that pings begin and end --------------------------------------------------------------------------------------
def begin_by_ping(conn: Connection, heartbeat: Heartbeat, rid: str | None, *, limit_ms: int, now: EpochMs) -> Heartbeat:
    """A ping begins a run of a locked heartbeat; at most one such is open. The caller saves the heartbeat.

    rid: how the sender calls it, which it may do again and again.
    """
    heartbeat = _closed_by_ping(conn, heartbeat, "superseded", now)
    run_id = rid
    if rid is not None and runs.is_known(conn, heartbeat.id, rid):
        run_id = f"{rid}.{new_id('hbr', now).rpartition('_')[2][-16:]}"
    run, _ = runs.start(
        conn,
        heartbeat.project_id,
        heartbeat.id,
        run_id,
        Report(),
        max_ms=limit_ms,
        is_watched=heartbeat.is_watched,
        now=now,
    )
    return replace(_mind(conn, heartbeat, None, now), ping_run_id=run.run_id, ping_started_at=now)


def end_by_ping(conn: Connection, heartbeat: Heartbeat, rid: str | None, *, ok: bool, now: EpochMs) -> Heartbeat:
    """A ping ends what it ends: the run that a ping began, or one of the sender's own with this id. The caller saves.

    A success with the id of another run leaves the one that is open alone.
    """
    own = heartbeat.ping_run_id
    if own is not None and (rid is None or not ok or own == rid or own.startswith(f"{rid}.")):
        return _closed_by_ping(conn, heartbeat, "finished" if ok else "failed", now)
    if rid is not None and runs.is_known(conn, heartbeat.id, rid):
        run = runs.get(conn, heartbeat.id, rid)
        if run.is_open:
            runs.finish(conn, run, Report(), ok=ok, now=now)
            return _mind(conn, heartbeat, None, now)
    return heartbeat


def _closed_by_ping(conn: Connection, heartbeat: Heartbeat, status: RunStatus, now: EpochMs) -> Heartbeat:
    if heartbeat.ping_run_id is None:
        return heartbeat
    run = runs.get(conn, heartbeat.id, heartbeat.ping_run_id)
    if run.is_open:
        runs.save(conn, [run._replace(status=status, finished_at=now)])
    started_at = heartbeat.ping_started_at if status == "superseded" else None
    return replace(_mind(conn, heartbeat, None, now), ping_run_id=None, ping_started_at=started_at)


def drop_ping_run(conn: Connection, heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """Nothing is expected any more of the run that a ping began. The caller saves the heartbeat."""
    return _closed_by_ping(conn, heartbeat, "superseded", now)


def _mind(conn: Connection, heartbeat: Heartbeat, lease_until: EpochMs | None, now: EpochMs) -> Heartbeat:
    """Let the heartbeat expect what its open runs promise by now."""
    after = rules.with_runs(heartbeat, runs.next_due(conn, heartbeat.id), lease_until, now)
    if after != heartbeat:
        store.save_waits(conn, [after])
        wake_after_commit(conn, "sweep")
    return after


def get(conn: Connection, project_id: str, ref: str, run_id: str) -> Run:
    """One run. Raises HeartbeatNotFound, RunNotFound."""
    return runs.get(conn, service.get(conn, project_id, ref).id, run_id)
