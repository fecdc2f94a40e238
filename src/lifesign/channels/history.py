"""What a heartbeat's history hears of its messages."""

from collections.abc import Iterable

from sqlalchemy import Connection

from lifesign.channels.store import Notification
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.events.rules import Event, EventType


def record(conn: Connection, kind: EventType, rows: Iterable[Notification], now: EpochMs, **metadata: object) -> None:
    """Write the same event for each message that is about a heartbeat."""
    happened = [
        Event(
            row.project_id,
            row.heartbeat_id,
            kind,
            {"incident": row.incident_id, "kind": row.kind, "channel": row.channel_id, "step": row.step} | metadata,
        )
        for row in rows
        if row.heartbeat_id is not None
    ]
    events.record(conn, happened, now)
