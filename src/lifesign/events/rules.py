"""What an event is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

EventType = Literal[
    "created",
    "updated",
    "checkin",
    "checkin_unhealthy",
    "firing",
    "step_notified",
    "escalation_finished",
    "notify_sent",
    "notify_failed",
    "unattended",
    "resolved",
    "acked",
    "paused",
    "resumed",
    "policy_detached",
    "channel_detached",
]


EVENT_TYPES: tuple[str, ...] = get_args(EventType)


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a heartbeat's history. `metadata` is JSON; members without a value are left out."""

    project_id: str
    heartbeat_id: str
    type: EventType
    metadata: Mapping[str, Any] = field(default_factory=dict)  # Any: JSON
