"""Settings of a project, read and changed together."""

from typing import Any, NamedTuple

from sqlalchemy import Connection

from lifesign.auth.rules import Caller
from lifesign.clock import EpochMs
from lifesign.diagnosis import alerts
from lifesign.diagnosis.alerts import Alert
from lifesign.incidents import fallback
from lifesign.incidents.rules import Tuning


class Preferences(NamedTuple):
    """What is set; None: it is not."""

    fallback_channel: str | None
    alert: Alert | None


def of_project(conn: Connection, project_id: str) -> Preferences:
    """The settings of a project."""
    return Preferences(fallback.fallback_channel(conn, project_id), alerts.alert_of(conn, project_id))


def change(
    conn: Connection,
    caller: Caller,
    changes: dict[str, Any],  # Any: each is of the type that its slice takes
    *,
    tuning: Tuning,
    max_heartbeats: int,
    now: EpochMs,
) -> Preferences:
    """Change those that are named, all or none. Raises InvalidInput, HeartbeatLimitReached."""
    if "fallback_channel" in changes:
        fallback.change_fallback_channel(conn, caller.project_id, changes["fallback_channel"], now)
    if "alert" in changes:
        alerts.set_alert(conn, caller, changes["alert"], tuning=tuning, max_heartbeats=max_heartbeats, now=now)
    return of_project(conn, caller.project_id)
