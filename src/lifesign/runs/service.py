"""Runs as rows: begun, reported on, ended, found silent. The heartbeat's row is locked by the caller."""

from collections.abc import Collection

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.ids import new_id
from lifesign.runs import rules, store
from lifesign.runs.rules import Durations, Report, Run, RunNotFound, RunRefused

__all__ = ["Durations", "Report", "Run"]


def start(
    conn: Connection,
    project_id: str,
    heartbeat_id: str,
    run_id: str | None,
    report: Report,
    *,
    max_ms: int | None,
    is_watched: bool,
    now: EpochMs,
) -> tuple[Run, bool]:
    """A new run, and whether it is one: an open run with this id goes on. Raises RunRefused for one that is closed."""
    key = new_id("hbr", now)
    run = Run(
        id=key,
        project_id=project_id,
        heartbeat_id=heartbeat_id,
        run_id=run_id or key,
        status="running",
        started_at=now,
        progress_at=None,
        lease_ms=report.lease_ms,
        lease_until=None if report.lease_ms is None else EpochMs(now + report.lease_ms),
        limit_at=None if max_ms is None else EpochMs(now + max_ms),
        finished_at=None,
        is_watched=is_watched,
        message=report.message,
        metadata=report.metadata,
    )
    if run_id is not None and (found := store.by_run_id(conn, heartbeat_id, run_id)) is not None:
        if not found.is_open:
            raise RunRefused(found.status)
        return found, False
    store.insert_if_new(conn, run)
    store.delete_beyond(conn, heartbeat_id)
    return run, True


def get(conn: Connection, heartbeat_id: str, run_id: str) -> Run:
    """One run. Raises RunNotFound."""
    found = store.by_run_id(conn, heartbeat_id, run_id)
    if found is None:
        raise RunNotFound
    return found


def is_known(conn: Connection, heartbeat_id: str, run_id: str) -> bool:
    """Whether the heartbeat has a run with this id, open or not."""
    return store.by_run_id(conn, heartbeat_id, run_id) is not None


def finish(conn: Connection, run: Run, report: Report, *, ok: bool, now: EpochMs) -> Run | None:
    """The run ends; None when it had ended just so before. Raises RunRefused."""
    after = rules.finished(run, report, now, ok=ok)
    if after is not None:
        store.save(conn, [after])
    return after


def next_due(conn: Connection, heartbeat_id: str) -> EpochMs | None:
    """When the first watched run of a heartbeat has been silent or busy for too long."""
    return rules.earliest_due(store.open_of(conn, [heartbeat_id]))


def pass_due(
    conn: Connection, heartbeat_ids: Collection[str], now: EpochMs
) -> dict[str, tuple[list[Run], EpochMs | None]]:
    """Mark the runs of these heartbeats whose time is over; those, and when the next one's is, by heartbeat."""
    found: dict[str, list[Run]] = {key: [] for key in heartbeat_ids}
    for run in store.open_of(conn, heartbeat_ids):
        found[run.heartbeat_id].append(run)
    told: dict[str, tuple[list[Run], EpochMs | None]] = {}
    for key, runs in found.items():
        after = [rules.passed(run, now) or run for run in runs]
        told[key] = [new for new, old in zip(after, runs, strict=True) if new is not old], rules.earliest_due(after)
    store.save(conn, [run for passed, _ in told.values() for run in passed])
    return told


def extend(conn: Connection, until: dict[str, EpochMs]) -> None:
    """Nobody could listen: the watched runs of these heartbeats may be silent until then at least."""
    watched = [run for run in store.open_of(conn, until) if run.due_at is not None]
    store.save(conn, [rules.extended(run, until[run.heartbeat_id]) for run in watched])


def durations(conn: Connection, heartbeat_id: str) -> Durations | None:
    """How long the kept runs took that ended well; None when none did."""
    return rules.durations(store.durations_of(conn, heartbeat_id))


unwatch = store.unwatch
open_of = store.open_of
save = store.save
progressed = store.progressed
list_runs = store.runs_of
forget = store.delete_of
abandon = store.abandon
