"""Writing and reading history."""

from collections.abc import Iterable, Mapping
from typing import Any

import orjson
from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.events import store
from lifesign.events.rules import Event, EventType
from lifesign.events.store import Change, StoredEvent
from lifesign.ids import new_id

__all__ = [
    "IMPORTED",
    "Change",
    "StoredEvent",
    "changes_since",
    "history",
    "last_of",
    "latest_seq",
    "of_types",
    "record",
    "record_each",
    "record_imported",
]

changes_since = store.changes_since
history = store.events_of
latest_seq = store.latest_seq
last_of = store.last_of
of_types = store.of_types
IMPORTED = '{"imported":true}'
"""The metadata of what happened elsewhere."""


def record(conn: Connection, events: Iterable[Event], now: EpochMs) -> None:
    """Append `events`, which happened at `now`, in the order given."""
    record_each(conn, ((event, now) for event in events))


def record_each(conn: Connection, events: Iterable[tuple[Event, EpochMs]]) -> None:
    """Append events, each with its own moment, in the order given."""
    store.insert_events(conn, [_row(event, at) for event, at in events])


def record_imported(
    conn: Connection, project_id: str, heartbeat_id: str, happened: Iterable[tuple[EventType, EpochMs]]
) -> int:
    """Append what happened elsewhere, each with its own moment, oldest first; how many were new.

    The caller holds the heartbeat: what two say at once is kept once.
    """
    known = store.moments_of(conn, heartbeat_id, IMPORTED)
    new = sorted(set(happened) - known, key=lambda each: each[1])
    record_each(conn, ((Event(project_id, heartbeat_id, kind, IMPORTED), at) for kind, at in new))
    return len(new)


def _row(event: Event, at: EpochMs) -> dict[str, object]:
    return {
        "id": new_id("evt", at),
        "project_id": event.project_id,
        "heartbeat_id": event.heartbeat_id,
        "type": event.type,
        "metadata": event.metadata if isinstance(event.metadata, str) else _text(event.metadata),
        "created_at": at,
    }


def _text(metadata: Mapping[str, Any]) -> str:  # Any: JSON
    return orjson.dumps({key: value for key, value in metadata.items() if value is not None}).decode()
