"""SQL of the table `events`."""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection, select

from lifesign.clock import EpochMs
from lifesign.db.schema import events
from lifesign.db.sql import insert_many


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
