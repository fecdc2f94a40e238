"""SQL of the table `events`."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from lifesign.clock import EpochMs
from lifesign.db.schema import events
from lifesign.db.sql import insert_many
from lifesign.events.rules import EventType


@dataclass(frozen=True, slots=True)
class StoredEvent:
    """An event as kept; `metadata` is JSON text."""

    seq: int
    id: str
    type: str
    metadata: str
    created_at: EpochMs


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


def moments_of(conn: Connection, heartbeat_id: str, metadata: str) -> set[tuple[EventType, EpochMs]]:
    """Type and moment of the events of one heartbeat with just this metadata. Index: ix_events_heartbeat."""
    query = select(events.c.type, events.c.created_at)
    rows = conn.execute(query.where(events.c.heartbeat_id == heartbeat_id, events.c.metadata == metadata))
    return {(row[0], row[1]) for row in rows}
