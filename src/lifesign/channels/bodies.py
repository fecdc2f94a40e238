"""What people send about channels."""

from typing import Any, cast

from pydantic import Field

from lifesign.channels import config as configs
from lifesign.channels import targets
from lifesign.channels.rules import ChannelType
from lifesign.http.fields import Body, Name, Origin, optional

Config = dict[str, Any]
"""Settings of a channel: JSON, whose shape its type decides (`channels.config`)."""

_EMAIL = {"type": "string", "maxLength": configs.MAX_EMAIL_CHARACTERS, "pattern": "^[^@]+@[^@]+$"}
_NUMBER = {"type": "string", "pattern": "^\\+[0-9]{7,15}$"}
_URL = {"type": "string", "maxLength": targets.MAX_URL_CHARACTERS, "examples": ["https://example.org/hook"]}


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
