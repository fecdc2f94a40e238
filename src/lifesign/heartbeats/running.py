"""Runs of a heartbeat: what a start, progress and the end of one mean for what is expected of the heartbeat.

Everything here runs in the caller's transaction, the heartbeat locked first. Spec "Heartbeats", section 7.
"""

from dataclasses import dataclass

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.events.rules import EventType
from lifesign.heartbeats import checkins, rules, service, store
from lifesign.heartbeats.checkins import CheckIn
from lifesign.heartbeats.rules import Heartbeat
from lifesign.heartbeats.subjects import record
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Tuning
from lifesign.runs import service as runs
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


def progress(conn: Connection, who: Reporter, run_id: str, report: Report, *, now: EpochMs) -> Run:
    """A run goes on; one that was stalled resolves the incident it caused.

    Raises HeartbeatNotFound, Managed, RunNotFound, RunRefused.
    """
    heartbeat = service.lock_unowned(conn, who.project_id, who.ref)
    before = runs.get(conn, heartbeat.id, run_id)
    after = runs.progress(conn, before, report, is_watched=heartbeat.is_watched, now=now)
    if before.status == "stalled" and incidents.cause_of(conn, heartbeat.incident_id) == after.run_id:
        heartbeat = checkins.recover(conn, heartbeat, rules.recovered(heartbeat, now), who.key_id, now)
        store.save(conn, heartbeat)
    _mind(conn, heartbeat, after.lease_until, now)
    return after


def finish(
    conn: Connection, who: Reporter, run_id: str, report: Report, *, ok: bool, tuning: Tuning, now: EpochMs
) -> Run:
    """A run ends, which is a check-in. Raises HeartbeatNotFound, Managed, RunNotFound, RunRefused."""
    heartbeat = service.lock_unowned(conn, who.project_id, who.ref)
    before = runs.get(conn, heartbeat.id, run_id)
    after = runs.finish(conn, before, report, ok=ok, now=now)
    if after is None:
        return before
    heartbeat = _mind(conn, heartbeat, None, now)
    event: EventType = "run_finished" if ok else "run_failed"
    record(conn, heartbeat, now, event, key=who.key_id, runId=after.run_id, durationMs=after.duration_ms)
    item = CheckIn(
        heartbeat.project_id, who.key_id, heartbeat.id, ok, report.metadata, now, via="run", run_id=after.run_id
    )
    checkins.apply(conn, heartbeat, item, tuning)
    return after


def _mind(conn: Connection, heartbeat: Heartbeat, lease_until: EpochMs | None, now: EpochMs) -> Heartbeat:
    """Let the heartbeat expect what its open runs promise by now."""
    run_due_at = runs.next_due(conn, heartbeat.id) if heartbeat.is_watched else None
    if run_due_at is None and heartbeat.run_due_at is None and lease_until is None:
        return heartbeat
    after = rules.with_runs(heartbeat, run_due_at, lease_until, now)
    if after != heartbeat:
        store.save_waits(conn, [after])
        wake_after_commit(conn, "sweep")
    return after


def get(conn: Connection, project_id: str, ref: str, run_id: str) -> Run:
    """One run. Raises HeartbeatNotFound, RunNotFound."""
    return runs.get(conn, service.get(conn, project_id, ref).id, run_id)
