"""What people see of maintenance windows."""

from datetime import datetime
from typing import Any

from pydantic import Field

from lifesign.clock import EpochMs, rfc3339
from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, example_id, optional
from lifesign.maintenance import rules
from lifesign.maintenance.rules import Window

_S = 1000


class ShownWindow(Body):
    """A maintenance window. Members without a value are omitted."""

    id: str = Field(examples=[example_id("mw")])
    name: str
    active: bool = Field(description="Whether it is open now.")
    createdAt: datetime
    startsAt: datetime = optional()
    endsAt: datetime = optional()
    schedule: str = optional()
    duration: int = optional()
    timezone: str = optional()
    heartbeats: list[str] = optional("Ids.")
    namespaces: list[str] = optional()
    tags: list[str] = optional()
    all: bool = optional()
    updatedAt: datetime = optional("Present once it was changed.")
    origin: str = optional("Who made it, as they said.")


class WindowList(Body):
    """Maintenance windows, oldest first."""

    maintenance: list[ShownWindow]
    nextCursor: str = optional("Present when there are more.")


def shown(window: Window, now: EpochMs) -> dict[str, Any]:  # Any: JSON
    """A window on the wire."""
    target = True if window.target == "all" else list(window.members)
    return without_absent(
        {
            "id": window.id,
            "name": window.name,
            "active": rules.open_until(window, now) is not None,
            "createdAt": rfc3339(window.created_at),
            "startsAt": window.starts_at and rfc3339(window.starts_at),
            "endsAt": window.ends_at and rfc3339(window.ends_at),
            "schedule": window.schedule,
            "duration": window.duration_ms and window.duration_ms // _S,
            "timezone": window.timezone if window.schedule is not None else None,
            window.target: target,
            "updatedAt": window.updated_at and rfc3339(window.updated_at),
            "origin": window.origin,
        }
    )
