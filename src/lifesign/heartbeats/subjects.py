"""Heartbeats as incidents see them, and lines of their history."""

from collections.abc import Iterable
from typing import Any

import orjson
from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.events.rules import Event, EventType
from lifesign.heartbeats import store
from lifesign.heartbeats.rules import Heartbeat
from lifesign.incidents.rules import Subject


def subject_of(heartbeat: Heartbeat) -> Subject:
    """The heartbeat as an incident sees it."""
    return Subject(
        id=heartbeat.id,
        project_id=heartbeat.project_id,
        name=heartbeat.line or heartbeat.ping_id or heartbeat.id,
        slug=heartbeat.slug or heartbeat.id,
        mode=heartbeat.mode,
        timezone=heartbeat.timezone,
        namespace=heartbeat.namespace,
        metadata=None if heartbeat.metadata is None else orjson.loads(heartbeat.metadata),
        policy_id=heartbeat.policy_id,
        own_channels=heartbeat.own_channels,
    )


def subjects(conn: Connection, ids: Iterable[str]) -> dict[str, Subject]:
    """Several heartbeats as incidents see them, by id."""
    return {key: subject_of(heartbeat) for key, heartbeat in store.by_ids(conn, ids).items()}


def record(
    conn: Connection, heartbeat: Heartbeat, now: EpochMs, event_type: EventType, **metadata: Any
) -> None:  # Any: JSON
    """Append one line to the history of a heartbeat."""
    events.record(conn, [Event(heartbeat.project_id, heartbeat.id, event_type, metadata)], now)
