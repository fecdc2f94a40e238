"""What an event is."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

EventType = Literal[
    "created",
    "updated",
    "checkin",
    "checkin_unhealthy",
    "missed",
    "firing",
    "step_notified",
    "escalation_finished",
    "notify_sent",
    "notify_failed",
    "failover",
    "unattended",
    "blind",
    "repaired",
    "flapping",
    "flapping_ended",
    "resolved",
    "acked",
    "paused",
    "resumed",
    "snoozed",
    "snooze_ended",
    "run_started",
    "run_finished",
    "run_failed",
    "run_stalled",
    "run_overdue",
    "policy_detached",
    "channel_detached",
    "dependency_removed",
    "log",
    "ignored",
]


ActivityType = Literal["bot_run", "bot_progress"]
"""Of what moves beside heartbeats, for pages that are open (`bots/activity.py`). Not told by the API."""

EVENT_TYPES: tuple[str, ...] = get_args(EventType)


class Event(NamedTuple):
    """One line of a heartbeat's history. `metadata`: JSON, whose members without a value are left out; or its text."""

    project_id: str
    heartbeat_id: str
    type: EventType | ActivityType
    metadata: Mapping[str, Any] | str = "{}"  # Any: JSON
