"""What people see of channels and notifications."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal

import orjson
from pydantic import Field

from lifesign.channels import config as configs
from lifesign.channels.bodies import Config
from lifesign.channels.message import Kind
from lifesign.channels.rules import ChannelType, Status
from lifesign.channels.service import Kit
from lifesign.channels.store import Attempt, Channel, Notification
from lifesign.clock import rfc3339
from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, optional

# How much of what a target answered is shown.
MAX_SHOWN_ERROR = 200


class Comparison(Body):
    """Whether they are what the channel has."""

    equal: bool


class Broken(Body):
    """Why the provider refuses the channel for good."""

    reason: str
    since: datetime


class ShownChannel(Body):
    """A channel; its secrets are masked."""

    id: str = Field(examples=["ch_0199e6a1b2c37d4e8f00112233445566"])
    name: str
    type: ChannelType
    config: Config
    broken: Broken = optional("Present while the provider refuses the channel; an edit or a good test clears it.")
    createdAt: datetime
    updatedAt: datetime = optional()
    origin: str = optional("Who made it, as they said.")


class ChannelList(Body):
    """Channels, oldest first."""

    channels: list[ShownChannel]
    nextCursor: str = optional("Present when there are more.")


class TestAnswer(Body):
    """What became of a test message."""

    __test__ = False  # not a test class, whatever its name says to pytest

    ok: bool
    message: str = optional("`<code>: <why>` after a failure.")


class ShownAttempt(Body):
    """One try to deliver."""

    n: int
    startedAt: datetime
    finishedAt: datetime = optional()
    outcome: Literal["sent", "retry", "permanent", "unknown", "stale"] = optional()
    httpStatus: int = optional()
    error: str = optional("What the target answered is shown to keys with channels:write only.")


class ShownNotification(Body):
    """One message to one address of one channel."""

    id: str
    incident: str = optional()
    heartbeat: str = optional()
    kind: Kind
    step: int
    channel: str
    status: Status
    attempts: list[ShownAttempt]
    createdAt: datetime


class NotificationList(Body):
    """Notifications, newest first."""

    notifications: list[ShownNotification]
    nextCursor: str = optional("Present when there are more.")


def shown(channel: Channel, kit: Kit, made_secret: str | None = None) -> dict[str, Any]:  # Any: JSON
    """A channel on the wire; `made_secret` is shown in clear, this once."""
    config = configs.masked_sealed(kit.box, channel.id, channel.type, orjson.loads(channel.config))
    if made_secret is not None:
        config["secret"] = made_secret
    broken = (
        channel.broken_reason
        and channel.broken_at is not None
        and {"reason": channel.broken_reason, "since": rfc3339(channel.broken_at)}
    )
    return without_absent(
        {
            "id": channel.id,
            "name": channel.name,
            "type": channel.type,
            "config": config,
            "broken": broken or None,
            "createdAt": rfc3339(channel.created_at),
            "updatedAt": channel.updated_at and rfc3339(channel.updated_at),
            "origin": channel.origin,
        }
    )


def shown_notification(
    row: Notification, attempts: Iterable[Attempt], *, with_errors: bool
) -> dict[str, Any]:  # Any: JSON
    """A notification on the wire; `with_errors`: including what the target answered."""
    return without_absent(
        {
            "id": row.id,
            "incident": row.incident_id,
            "heartbeat": row.heartbeat_id,
            "kind": row.kind,
            "step": row.step,
            "channel": row.channel_id,
            "status": row.status,
            "attempts": [_shown_attempt(attempt, with_errors=with_errors) for attempt in attempts],
            "createdAt": rfc3339(row.created_at),
        }
    )


def _shown_attempt(attempt: Attempt, *, with_errors: bool) -> dict[str, Any]:
    error = None
    if attempt.code is not None:
        error = f"{attempt.code}: {attempt.error}"[:MAX_SHOWN_ERROR] if with_errors else attempt.code
    return without_absent(
        {
            "n": attempt.n,
            "startedAt": rfc3339(attempt.started_at),
            "finishedAt": attempt.finished_at and rfc3339(attempt.finished_at),
            "outcome": attempt.outcome,
            "httpStatus": attempt.http_status,
            "error": error,
        }
    )
