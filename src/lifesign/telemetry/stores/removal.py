"""Deleting: what is too old, and what belonged to projects that are gone. A little at a time, each in a transaction."""

from collections import defaultdict
from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, Table, delete, exists, func, select, tuple_

from lifesign.clock import EpochMs
from lifesign.telemetry.stores.append import lock
from lifesign.telemetry.stores.batches import batches
from lifesign.telemetry.stores.codes import aliases_in
from lifesign.telemetry.stores.dictionary import day_of
from lifesign.telemetry.stores.shares import Share, drop_empty, take_away
from lifesign.telemetry.stores.tables import (
    session_aliases,
    session_environments,
    sessions,
    span_bodies,
    span_digests,
    span_moves,
    span_projects,
    spans,
    strings,
    traces,
    usage,
)

S = spans.c
_FREE_PAGES_AT_ONCE = 2000


def project_with_old(conn: Connection, before: EpochMs) -> int | None:
    """A project with records that arrived before an instant. Index: ix_spans_arrival, once for each project."""
    is_old = exists().where(S.project == span_projects.c.id, S.received_at < before)
    found: int | None = conn.scalar(select(span_projects.c.id).where(is_old).limit(1))
    return found


def delete_old(conn: Connection, project: int, before: EpochMs, limit: int) -> int:
    """Delete records of a project that arrived before an instant, the oldest first; how many."""
    lock(conn, project)
    old = select(S.id, S.trace_id, S.environment, func.coalesce(S.own_session, traces.c.session).label("session"))
    # The trace is there for as long as it has records.
    old = old.join(traces, (traces.c.project == S.project) & (traces.c.trace_id == S.trace_id))
    rows = conn.execute(
        old.where(S.project == project, S.received_at < before).order_by(S.received_at).limit(limit)
    ).all()
    lost: dict[int, Share] = defaultdict(Share)
    for row in rows:
        lost[row.session].add(1, 0, row.environment)
    if lost:
        _delete_digests(conn, project, before, limit)
        _count_aliases(conn, {row.id: row.session for row in rows}, lost)
        _delete_spans(conn, [row.id for row in rows])
        named = _delete_bare_traces(conn, project, {row.trace_id for row in rows})
        take_away(conn, lost)
        # What only gave a trace its name goes with that trace.
        drop_empty(conn, named | lost.keys())
    return len(rows)


def delete_unused_strings(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget texts that no record names: those that arrived with them are gone. Index: ix_strings_used_on."""
    old = select(strings.c.id).where(strings.c.used_on < day_of(before)).limit(limit)
    return conn.execute(delete(strings).where(strings.c.id.in_(old.scalar_subquery()))).rowcount


def erase(conn: Connection, project: int, limit: int) -> int:
    """Delete about `limit` rows of a project, records first; how many, 0 when nothing is left."""
    lock(conn, project)
    # First: what a digest tells of is there, and what has none is read by its rows.
    count = _delete_some(conn, span_digests, span_digests.c.project == project, limit)
    if count:
        return count
    ids = list(conn.scalars(select(S.id).where(S.project == project).limit(limit)))
    if ids:
        _delete_spans(conn, ids)
        return len(ids)
    for table in (span_moves, traces, session_aliases):
        count = _delete_some(conn, table, table.c.project == project, limit)
        if count:
            return count
    numbers = list(conn.scalars(select(sessions.c.id).where(sessions.c.project == project).limit(limit)))
    for some in batches(numbers):
        conn.execute(delete(session_environments).where(session_environments.c.session.in_(some)))
        conn.execute(delete(sessions).where(sessions.c.id.in_(some)))
    if numbers:
        return len(numbers)
    for table in (strings, usage):
        count = _delete_some(conn, table, table.c.project == project, limit)
        if count:
            return count
    return conn.execute(delete(span_projects).where(span_projects.c.id == project)).rowcount


def give_back(conn: Connection) -> None:
    """Give some free pages of a SQLite file back to the disk."""
    if conn.dialect.name != "sqlite":
        return
    free: int = conn.exec_driver_sql("PRAGMA freelist_count").scalar_one()
    # By the driver, one page at a time: as no rows are announced it takes the first step of this and no other, so that
    # asked for many pages it gives back one. And `executescript` would commit.
    cursor = conn.connection.cursor()
    for _ in range(min(free, _FREE_PAGES_AT_ONCE)):
        cursor.execute("PRAGMA incremental_vacuum(1)")
    cursor.close()


# Below ---------------------------------------------------------------------------------------------------------------
def _count_aliases(conn: Connection, sessions_of: dict[int, int], lost: dict[int, Share]) -> None:
    """Note in `lost` which aliases these spans have, where their sessions have any: bodies are read only then."""
    has_some = set()
    for some in batches(list(lost)):
        has_some |= set(conn.scalars(select(session_aliases.c.session).where(session_aliases.c.session.in_(some))))
    wanted = [number for number, session in sessions_of.items() if session in has_some]
    for some in batches(wanted):
        query = select(span_bodies.c.id, span_bodies.c.body).where(span_bodies.c.id.in_(some))
        for number, body in conn.execute(query):
            lost[sessions_of[number]].aliases.update(aliases_in(body))


def _delete_spans(conn: Connection, ids: Sequence[int]) -> None:
    for some in batches(ids):
        conn.execute(delete(spans).where(S.id.in_(some)))
        conn.execute(delete(span_bodies).where(span_bodies.c.id.in_(some)))


def _delete_digests(conn: Connection, project: int, before: EpochMs, limit: int) -> None:
    """Delete the digests of at least the so many oldest records, and what moved of them.

    What has none is read by its rows.
    """
    d = span_digests.c
    old = (d.project == project) & (d.received_at < before)
    some = select(d.received_at).where(old).order_by(d.received_at).limit(limit).subquery()
    # Of one arrival all: where the digests of a project begin is where its rows need not be read any more.
    last = conn.scalar(select(func.max(some.c.received_at)))
    if last is not None:
        conn.execute(delete(span_digests).where(d.project == project, d.received_at <= last))
    # They put digests right, and rows are right without them.
    m = span_moves.c
    is_over = m.received_at < before if last is None else m.received_at <= last
    conn.execute(delete(span_moves).where(m.project == project, is_over))


def _delete_bare_traces(conn: Connection, project: int, trace_ids: set[bytes]) -> set[int]:
    """Delete those of these traces that have no span any more; the sessions that they were named after."""
    named: set[int] = set()
    has_span = exists().where(S.project == traces.c.project, S.trace_id == traces.c.trace_id)
    for some in batches(sorted(trace_ids)):
        bare = delete(traces).where(traces.c.project == project, traces.c.trace_id.in_(some), ~has_span)
        named |= set(conn.scalars(bare.returning(traces.c.session)))
    return named


def _delete_some(conn: Connection, table: Table, is_its: ColumnElement[bool], limit: int) -> int:
    key = table.primary_key.columns
    some = select(*key).where(is_its).limit(limit)
    return conn.execute(delete(table).where(tuple_(*key).in_(some))).rowcount
