"""SQL of the table `runs`."""

from collections.abc import Iterable, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, delete, func, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import runs
from lifesign.db.sql import Rows, among, insert_new, json_each, json_rows, update_many
from lifesign.runs.rules import ABANDONED_AFTER_MS, KEPT, Run

R = runs.c
_COLUMNS = tuple(R[name] for name in Run._fields)
_WATCHED = Run._fields.index("is_watched")
_IS_OPEN = R.finished_at.is_(None)
_OPEN = select(*_COLUMNS).where(among(R.heartbeat_id, "ids"), _IS_OPEN).order_by(R.id)
_OPEN_AS_JSON = select(func.json_group_array(func.json_array(*_COLUMNS))).where(
    R.heartbeat_id.in_(select(json_each("ids").c.value)), _IS_OPEN
)
_CHANGING = ("status", "progress_at", "lease_ms", "lease_until", "limit_at", "finished_at", "message", "metadata")


def _run(row: Sequence[Any]) -> Run:  # Any: a row of a table whose columns mypy does not know
    return Run._make((*row[:_WATCHED], bool(row[_WATCHED]), *row[_WATCHED + 1 :]))


def insert_if_new(conn: Connection, run: Run) -> None:
    """A new run, unless the heartbeat has one with this run id."""
    row = run._asdict() | {"is_watched": int(run.is_watched)}
    insert_new(conn, runs, [row], unique=["heartbeat_id", "run_id"])


def save(conn: Connection, changed: Iterable[Run]) -> None:
    """Write what may change of runs, in id order."""
    rows = [{"id": run.id} | _changes(run) for run in sorted(changed, key=lambda run: run.id)]
    update_many(conn, runs, rows)


def progressed(changed: Iterable[tuple[Run, Run]]) -> list[Rows]:
    """What reports changed of runs, each before and after, to be written. Mostly nothing but times, which are short."""
    told: dict[bool, list[dict[str, Any]]] = {True: [], False: []}
    for before, after in changed:
        times = {"progress_at": after.progress_at, "lease_until": after.lease_until}
        is_short = before._replace(progress_at=after.progress_at, lease_until=after.lease_until) == after
        told[is_short].append({"id": after.id} | (times if is_short else _changes(after)))
    return [Rows(runs, rows) for rows in told.values()]


def _changes(run: Run) -> dict[str, Any]:
    return {"is_watched": int(run.is_watched)} | {name: getattr(run, name) for name in _CHANGING}


def by_run_id(conn: Connection, heartbeat_id: str, run_id: str) -> Run | None:
    """One run of a heartbeat. Index: uq_runs_run_id."""
    row = conn.execute(select(*_COLUMNS).where(R.heartbeat_id == heartbeat_id, R.run_id == run_id)).first()
    return None if row is None else _run(row)


def open_of(conn: Connection, heartbeat_ids: Iterable[str]) -> list[Run]:
    """Open runs of heartbeats, oldest first. Index: ix_runs_open."""
    ids = sorted(set(heartbeat_ids))
    if conn.dialect.name == "sqlite":
        # In one step, because its driver takes Python's lock back after each.
        rows = orjson.loads(conn.scalar(_OPEN_AS_JSON, {"ids": json_rows(ids)}) or "[]")
        return sorted(map(_run, rows), key=lambda run: run.id)
    return [_run(row) for row in conn.execute(_OPEN, {"ids": ids})]


def unwatch(conn: Connection, heartbeat_id: str) -> None:
    """Nothing is expected of the open runs of a heartbeat. Index: ix_runs_open."""
    conn.execute(update(runs).where(R.heartbeat_id == heartbeat_id, _IS_OPEN).values(is_watched=0))


def runs_of(conn: Connection, heartbeat_id: str, *, limit: int, before: str | None, status: str | None) -> list[Run]:
    """Runs of a heartbeat, newest first. Index: ix_runs_heartbeat."""
    query = select(*_COLUMNS).where(R.heartbeat_id == heartbeat_id)
    if before is not None:
        query = query.where(R.id < before)
    if status is not None:
        query = query.where(R.status == status)
    return [_run(row) for row in conn.execute(query.order_by(R.id.desc()).limit(limit))]


def durations_of(conn: Connection, heartbeat_id: str) -> list[int]:
    """How long the newest runs of a heartbeat took that ended well, in ms. Index: ix_runs_heartbeat."""
    query = select(R.finished_at - R.started_at).where(R.heartbeat_id == heartbeat_id, R.status == "finished")
    return list(conn.scalars(query.order_by(R.id.desc()).limit(KEPT)))


def delete_of(conn: Connection, heartbeat_id: str) -> None:
    """Remove every run of a heartbeat."""
    conn.execute(delete(runs).where(R.heartbeat_id == heartbeat_id))


def delete_beyond(conn: Connection, heartbeat_id: str) -> None:
    """Remove closed runs of a heartbeat but for the newest. Index: ix_runs_heartbeat."""
    oldest_kept = (
        select(R.id).where(R.heartbeat_id == heartbeat_id).order_by(R.id.desc()).offset(KEPT - 1).limit(1)
    ).scalar_subquery()
    conn.execute(delete(runs).where(R.heartbeat_id == heartbeat_id, R.id < oldest_kept, ~_IS_OPEN))


def abandon(conn: Connection, now: EpochMs, limit: int) -> int:
    """End runs from which nothing is heard and of which nothing is expected. Index: ix_runs_untouched."""
    before = now - ABANDONED_AFTER_MS
    silent = (
        select(R.id)
        .where(_IS_OPEN, R.lease_ms.is_(None), R.limit_at.is_(None), R.started_at < before)
        .where(R.progress_at.is_(None) | (R.progress_at < before))
        .limit(limit)
    )
    ids = list(conn.scalars(silent))
    if ids:
        conn.execute(update(runs).where(R.id.in_(ids), _IS_OPEN).values(status="abandoned", finished_at=now))
    return len(ids)
