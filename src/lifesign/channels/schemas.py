"""Wire models of channels and notifications."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, Literal, cast

import orjson
from pydantic import Field

from lifesign.channels import config as configs
from lifesign.channels import guard
from lifesign.channels.message import Kind
from lifesign.channels.rules import Status
from lifesign.channels.sender import ChannelType
from lifesign.channels.service import Kit
from lifesign.channels.store import Attempt, Channel, Notification
from lifesign.clock import rfc3339
from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, Name, Origin, optional

# How much of what a target answered is shown.
MAX_SHOWN_ERROR = 200

Config = dict[str, Any]
"""Settings of a channel: JSON, whose shape its type decides (`channels.config`)."""

_EMAIL = {"type": "string", "maxLength": configs.MAX_EMAIL_CHARACTERS, "pattern": "^[^@]+@[^@]+$"}
_NUMBER = {"type": "string", "pattern": "^\\+[0-9]{7,15}$"}
_URL = {"type": "string", "maxLength": guard.MAX_URL_CHARACTERS, "examples": ["https://example.org/hook"]}


def _one_or_many(address: dict[str, Any]) -> dict[str, Any]:
    many = {"type": "array", "items": address, "minItems": 1, "maxItems": configs.MAX_ADDRESSES}
    return {"anyOf": [address, many]}


def _settings(title: str, required: list[str], **properties: dict[str, Any]) -> dict[str, Any]:
    members = {"properties": properties, "required": required, "additionalProperties": False}
    return {"title": title, "type": "object", **members}


# For the description only: `channels.config` judges, and tells every fault by its key.
_SHAPES = [
    _settings("email", ["to"], to=_one_or_many(_EMAIL)),
    _settings("slack", ["webhookUrl"], webhookUrl=_URL),
    _settings(
        "webhook",
        ["url"],
        url=_URL,
        secret={"type": "string", "description": "`whsec_` and the base64 of 24 to 64 bytes; made when omitted."},
        headers={"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": configs.MAX_HEADERS},
    ),
    _settings(
        "pagerduty",
        ["routingKey"],
        routingKey={"type": "string", "pattern": "^[A-Za-z0-9]{32}$"},
        severity={"type": "string", "enum": list(configs.SEVERITIES), "default": configs.SEVERITIES[0]},
    ),
    _settings("sms", ["to"], to=_one_or_many(_NUMBER)),
]


def _shapes(schema: dict[str, Any]) -> None:
    schema.pop("default", None)
    schema["anyOf"] = _SHAPES


_HELP = (
    'email: `{"to": "a@example.org"}` or a list; slack: `{"webhookUrl"}`; webhook: `{"url", "secret"?, "headers"?}`; '
    'pagerduty: `{"routingKey", "severity"?}`; sms: `{"to": "+4915112345678"}` or a list.'
)


class NewChannel(Body):
    """What a channel is made of."""

    name: Name = Field(examples=["Ops mail"])
    type: ChannelType
    config: Config = Field(description=_HELP, examples=[{"to": ["ops@example.org"]}], json_schema_extra=_shapes)
    origin: Origin = optional("Who makes it; kept and shown. `lifesign apply` says `apply`.")


# Bodies to paste, by what they show.
NEW_CHANNELS: dict[str, dict[str, Any]] = {
    "e-mail": {"name": "Ops mail", "type": "email", "config": {"to": ["ops@example.org"]}},
    "webhook": {"name": "Ops hook", "type": "webhook", "config": {"url": "https://example.org/hook"}},
    "Slack": {
        "name": "Ops Slack",
        "type": "slack",
        "config": {"webhookUrl": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX"},
    },
    "PagerDuty": {
        "name": "On call",
        "type": "pagerduty",
        "config": {"routingKey": "R0123456789ABCDEFGHIJKLMNOPQRSTU", "severity": "critical"},
    },
    "SMS": {"name": "Night shift", "type": "sms", "config": {"to": "+15550100200"}},
}


class ChannelChanges(Body):
    """Any of the three; `config` is replaced whole, but a masked secret sent back keeps what is stored."""

    name: Name = optional()
    type: ChannelType = optional("A changed type needs its config in the same body.")
    # Any: as `optional`, absent is not null.
    config: Config = Field(default=cast("Any", None), description=_HELP, json_schema_extra=_shapes)


class ComparedChannel(Body):
    """Settings a channel may have; a masked secret, or one left out, is taken for the present one."""

    type: ChannelType = optional("Omitted: the type that the channel has.")
    config: Config = Field(description=_HELP, json_schema_extra=_shapes)


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
