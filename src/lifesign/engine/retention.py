"""What is kept for how long, as SQL over the tables of all slices: what may go depends on what others still need.

Each function deletes at most `limit` rows, oldest first, through an index, and returns how many rows went. An open
incident and its messages are never touched. Spec "Engine", section 12, "Retention".
"""

from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Table, delete, func, literal, select, tuple_

from lifesign.clock import EpochMs
from lifesign.db.schema import (
    attempts,
    bot_ledger,
    bot_runs,
    bot_transcripts,
    callbacks_seen,
    events,
    heartbeats,
    incidents,
    nodes,
    notifications,
    rate_buckets,
    storms,
)
from lifesign.db.sql import word

_S = 1000
_DAY = 24 * 3600 * _S

NOTIFICATIONS_MS = 30 * _DAY
DEAD_NOTIFICATIONS_MS = 90 * _DAY
INCIDENTS_MS = 365 * _DAY
STORMS_MS = 90 * _DAY
SHORT_LIVED_MS = _DAY
CHECKINS_KEPT = 1000
# Types of which each heartbeat keeps the newest, however old they are.
CHECKIN_TYPES = (
    "checkin",
    "checkin_unhealthy",
    "run_started",
    "run_finished",
    "run_failed",
    "run_stalled",
    "run_overdue",
    "log",
    "ignored",
)

E, H, I, N = events.c, heartbeats.c, incidents.c, notifications.c  # noqa: E741 - the columns of four tables
_IS_CHECKIN = E.type.in_(CHECKIN_TYPES)


# Events -------------------------------------------------------------------------------------------------------------
class History(NamedTuple):
    """A heartbeat id that events name, and the newest of its check-ins that are too many, if there are too many."""

    heartbeat_id: str
    exists: bool
    surplus_up_to: int | None


def histories(conn: Connection, after: str, limit: int) -> list[History]:
    """The next `limit` heartbeats that have events, in id order. Index: ix_events_heartbeat, one step for each."""
    first = select(func.min(E.heartbeat_id).label("id")).where(E.heartbeat_id > after)
    found = first.cte("found", recursive=True)
    following = select(func.min(E.heartbeat_id)).where(E.heartbeat_id > found.c.id).correlate(found).scalar_subquery()
    found = found.union_all(select(following).where(found.c.id.is_not(None)))
    ids = list(conn.scalars(select(found.c.id).where(found.c.id.is_not(None)).limit(limit)))
    counts = {row.id: row.checkin_count for row in conn.execute(select(H.id, H.checkin_count).where(H.id.in_(ids)))}
    # A check-in that ends a run has two or three events beside its own.
    surplus = _surplus(conn, [each for each in ids if counts.get(each, 0) > CHECKINS_KEPT // 4])
    return [History(each, each in counts, surplus.get(each)) for each in ids]


def _surplus(conn: Connection, ids: list[str]) -> dict[str, int]:
    own = events.alias()
    last = (
        select(own.c.seq)
        .where(own.c.heartbeat_id == H.id, own.c.type.in_(CHECKIN_TYPES))
        .order_by(own.c.seq.desc())
        .offset(CHECKINS_KEPT)
        .limit(1)
        .scalar_subquery()
    )
    rows = conn.execute(select(H.id, last).where(H.id.in_(ids)))
    return {row[0]: row[1] for row in rows if row[1] is not None}


def delete_surplus(conn: Connection, history: History, limit: int) -> int:
    """Check-ins beyond the newest thousand; of a heartbeat that is gone everything. Index: ix_events_heartbeat."""
    mine: ColumnElement[bool] = E.heartbeat_id == history.heartbeat_id
    if history.exists:
        mine &= _IS_CHECKIN & (E.seq <= (history.surplus_up_to or 0))
    return _delete_some(conn, events, E.seq, mine, limit, order=E.seq)


class Walk(NamedTuple):
    """How far old events were looked at: the last `seq`, and whether there are more that are old."""

    seq: int
    has_more: bool
    deleted: int


def delete_old_events(conn: Connection, before: EpochMs, after_seq: int, limit: int) -> Walk:
    """Events other than check-ins from before `before`, among the next `limit` events. Index: the primary key."""
    looked_at = conn.execute(
        select(E.seq, E.type, E.created_at).where(E.seq > after_seq).order_by(E.seq).limit(limit)
    ).all()
    old = [row for row in looked_at if row.created_at < before]
    gone = [row.seq for row in old if row.type not in CHECKIN_TYPES]
    if gone:
        conn.execute(delete(events).where(E.seq.in_(gone)))
    last = old[-1].seq if old else after_seq
    return Walk(last, len(old) == limit, len(gone))


# Messages and incidents ---------------------------------------------------------------------------------------------
def delete_notifications(conn: Connection, now: EpochMs, limit: int) -> int:
    """Messages that ended long ago, with their attempts. Index: ix_notifications_finished."""
    is_open = select(literal(1)).where(I.id == N.incident_id, I.status != word("resolved")).exists()
    is_due = (N.status != "dead") | (N.finished_at < now - DEAD_NOTIFICATIONS_MS)
    query = select(N.id).where(N.finished_at.is_not(None), N.finished_at < now - NOTIFICATIONS_MS, is_due, ~is_open)
    ids = list(conn.scalars(query.order_by(N.finished_at).limit(limit)))
    if ids:
        conn.execute(delete(attempts).where(attempts.c.notification_id.in_(ids)))
        conn.execute(delete(notifications).where(N.id.in_(ids)))
    return len(ids)


def delete_incidents(conn: Connection, now: EpochMs, limit: int) -> int:
    """Incidents that ended a year ago and of which no message is left. Index: the primary key."""
    before = now - INCIDENTS_MS
    is_told_of = select(literal(1)).where(N.incident_id == I.id).exists()
    is_over = (I.status == word("resolved")) & (I.resolved_at < before) & ~is_told_of
    # An incident is never older than its id: what opened later cannot have ended by then.
    return _delete_some(conn, incidents, I.id, (I.id < f"inc_{before:012x}") & is_over, limit, order=I.id)


# Bots ---------------------------------------------------------------------------------------------------------------
def delete_bot_runs(conn: Connection, before: EpochMs, limit: int) -> int:
    """Runs of bots that are older and have ended, with what was said in them. Index: ix_bot_runs_created."""
    r = bot_runs.c
    is_over = r.status.in_(("success", "error", "skipped", "cancelled"))
    ids = list(conn.scalars(select(r.id).where(r.created_at < before, is_over).order_by(r.created_at).limit(limit)))
    if ids:
        conn.execute(delete(bot_transcripts).where(bot_transcripts.c.run_id.in_(ids)))
        conn.execute(delete(bot_ledger).where(bot_ledger.c.run_id.in_(ids)))
        conn.execute(delete(bot_runs).where(r.id.in_(ids)))
    return len(ids)


def delete_bot_transcripts(conn: Connection, before: EpochMs, limit: int) -> int:
    """What was said in runs of bots before an instant. Index: ix_bot_transcripts_at."""
    t = bot_transcripts.c
    keys = conn.execute(select(t.run_id, t.n).where(t.at < before).order_by(t.at).limit(limit)).all()
    if keys:
        conn.execute(delete(bot_transcripts).where(tuple_(t.run_id, t.n).in_([tuple(each) for each in keys])))
    return len(keys)


# The rest -----------------------------------------------------------------------------------------------------------
def delete_storms(conn: Connection, now: EpochMs, limit: int) -> int:
    """Storms that closed long ago. Index: ix_storms_closed."""
    is_old = storms.c.closed_at.is_not(None) & (storms.c.closed_at < now - STORMS_MS)
    return _delete_some(conn, storms, storms.c.id, is_old, limit, order=storms.c.closed_at)


def delete_callbacks(conn: Connection, now: EpochMs, limit: int) -> int:
    """What providers called back about a day ago. Index: ix_callbacks_seen_at."""
    c = callbacks_seen.c
    return _delete_some(conn, callbacks_seen, c.id, c.at < now - SHORT_LIVED_MS, limit, order=c.at)


def delete_nodes(conn: Connection, now: EpochMs, limit: int) -> int:
    """Nodes that were not alive for a day: a table with a row per start. What was last alive of all is kept."""
    latest = select(func.max(nodes.c.alive_at)).scalar_subquery()
    is_gone = (nodes.c.alive_at < now - SHORT_LIVED_MS) & (nodes.c.alive_at < latest)
    return _delete_some(conn, nodes, nodes.c.id, is_gone, limit, order=nodes.c.id)


def delete_buckets(conn: Connection, now: EpochMs, limit: int) -> int:
    """Limits that nobody used for a day, and which are full again: a table with a row per limit."""
    c = rate_buckets.c
    return _delete_some(conn, rate_buckets, c.key, c.at < now - SHORT_LIVED_MS, limit, order=c.key)


def _delete_some(
    conn: Connection,
    table: Table,
    key: ColumnElement[str] | ColumnElement[int],
    where: ColumnElement[bool],
    limit: int,
    *,
    order: ColumnElement[object] | ColumnElement[str] | ColumnElement[int],
) -> int:
    keys = list(conn.scalars(select(key).where(where).order_by(order).limit(limit)))
    if keys:
        conn.execute(delete(table).where(key.in_(keys)))
    return len(keys)
