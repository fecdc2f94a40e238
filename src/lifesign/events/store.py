"""SQL of the table `events`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection, func, select

from lifesign.clock import EpochMs
from lifesign.db.schema import events
from lifesign.db.sql import behind_last, each_text, insert_many, json_rows
from lifesign.events.rules import EventType


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as kept; `metadata` is JSON text."""

    seq: int
    id: str
    type: str
    metadata: str
    created_at: EpochMs


class Change(NamedTuple):
    """That something happened to a heartbeat."""

    seq: int
    project_id: str
    heartbeat_id: str
    type: str
    id: str
    """Of the event: a number may be that of another, once the newest was pruned."""


def latest_seq(conn: Connection) -> int:
    """The number of the last event of all; 0: there is none."""
    return conn.scalar(select(func.max(events.c.seq))) or 0


def changes_since(conn: Connection, after: int, *, limit: int) -> list[Change]:
    """What happened after an event, in all projects, in order. Index: the primary key."""
    query = select(events.c.seq, events.c.project_id, events.c.heartbeat_id, events.c.type, events.c.id)
    return [Change(*row) for row in conn.execute(query.where(events.c.seq > after).order_by(events.c.seq).limit(limit))]


def insert_events(conn: Connection, rows: Sequence[dict[str, object]]) -> None:
    """Append rows in order."""
    insert_many(conn, events, rows)


def events_of(
    conn: Connection, heartbeat_id: str, *, limit: int, before_seq: int | None, event_type: str | None
) -> list[StoredEvent]:
    """Events of one heartbeat, newest first. Index: ix_events_heartbeat."""
    query = select(events.c.seq, events.c.id, events.c.type, events.c.metadata, events.c.created_at).where(
        events.c.heartbeat_id == heartbeat_id
    )
    if before_seq is not None:
        query = query.where(events.c.seq < before_seq)
    if event_type is not None:
        query = query.where(events.c.type == event_type)
    rows = conn.execute(query.order_by(events.c.seq.desc()).limit(limit))
    return [StoredEvent(*row) for row in rows]


def last_of(
    conn: Connection, heartbeat_ids: Sequence[str], types: Sequence[str], *, limit: int
) -> dict[str, list[StoredEvent]]:
    """The events of these types among the last `limit` of each heartbeat, oldest first. Index: ix_events_heartbeat.

    What it costs goes with what is asked for, not with the length of the history.
    """
    ids = each_text(conn, "ids")
    floor = behind_last(events.c.heartbeat_id, events.c.seq, ids.c.value, limit)
    query = (
        select(events.c.heartbeat_id, events.c.seq, events.c.id, events.c.type, events.c.metadata, events.c.created_at)
        .select_from(ids.join(events, events.c.heartbeat_id == ids.c.value))
        .where(events.c.seq > func.coalesce(floor, 0), events.c.type.in_(types))
        .order_by(events.c.heartbeat_id, events.c.seq)
    )
    found: dict[str, list[StoredEvent]] = {}
    for row in conn.execute(query, {"ids": json_rows(list(heartbeat_ids))}):
        found.setdefault(row[0], []).append(StoredEvent(*row[1:]))
    return found


def of_types(conn: Connection, heartbeat_id: str, types: Sequence[str]) -> list[StoredEvent]:
    """All events of these types of one heartbeat, oldest first. Index: ix_events_heartbeat."""
    query = select(events.c.seq, events.c.id, events.c.type, events.c.metadata, events.c.created_at).where(
        events.c.heartbeat_id == heartbeat_id, events.c.type.in_(types)
    )
    return [StoredEvent(*row) for row in conn.execute(query.order_by(events.c.seq))]


def moments_of(conn: Connection, heartbeat_id: str, metadata: str) -> set[tuple[EventType, EpochMs]]:
    """Type and moment of the events of one heartbeat with just this metadata. Index: ix_events_heartbeat."""
    query = select(events.c.type, events.c.created_at)
    rows = conn.execute(query.where(events.c.heartbeat_id == heartbeat_id, events.c.metadata == metadata))
    return {(row[0], row[1]) for row in rows}
