"""The settings of a channel as a form has them, one form per type, and back. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from lifesign.channels.config import SEVERITIES
from lifesign.channels.rules import ChannelType
from lifesign.faults import InvalidInput


class Asked(NamedTuple):
    """One field: what it is called on the wire, and in the words of the provider. kind: `line`, `lines`, `choice`."""

    name: str
    label: str
    hint: str
    kind: str = "line"
    choices: Sequence[str] = ()
    is_required: bool = True


class Described(NamedTuple):
    """A type of channel. about: what it does, in a sentence."""

    title: str
    about: str
    fields: tuple[Asked, ...]


TYPES: Mapping[ChannelType, Described] = {
    "email": Described(
        "E-mail",
        "A mail to each address, with a link to acknowledge.",
        (Asked("to", "Addresses", "One on each line, at most ten.", "lines"),),
    ),
    "slack": Described(
        "Slack",
        "A message in a Slack channel.",
        (
            Asked(
                "webhookUrl",
                "Webhook URL",
                "In Slack: your app, Incoming Webhooks, Add New Webhook to Workspace. It begins with "
                "https://hooks.slack.com/services/.",
            ),
        ),
    ),
    "webhook": Described(
        "Webhook",
        "A signed POST with JSON to an address of yours.",
        (
            Asked("url", "URL", "Where the POST goes, such as https://example.org/hook."),
            Asked(
                "secret",
                "Signing secret",
                "whsec_ and base64, as Standard Webhooks have it. Left empty: one is made, or stays.",
                is_required=False,
            ),
            Asked("headers", "Headers", "One on each line, such as X-Team: ops.", "lines", is_required=False),
        ),
    ),
    "pagerduty": Described(
        "PagerDuty",
        "An alert of a PagerDuty service, resolved by itself.",
        (
            Asked(
                "routingKey",
                "Integration Key",
                "In PagerDuty: the service, Integrations, Events API V2. 32 letters and digits.",
            ),
            Asked(
                "severity",
                "Severity",
                "What the alert has there.",
                "choice",
                SEVERITIES,
                is_required=False,
            ),
        ),
    ),
    "sms": Described(
        "SMS",
        "A text message to each number, through Twilio, answered with a code to acknowledge.",
        (Asked("to", "Phone numbers", "One on each line in E.164 format, such as +15550100200.", "lines"),),
    ),
}


def config_of(channel_type: ChannelType, fields: Mapping[str, str]) -> dict[str, Any]:
    """The settings as the API would be sent them; what is blank is left out. Any: JSON."""
    config: dict[str, Any] = {}
    for asked in TYPES[channel_type].fields:
        text = fields.get(asked.name, "").strip()
        if not text:
            continue
        if asked.kind != "lines":
            config[asked.name] = text
        elif asked.name == "headers":
            config["headers"] = dict(_header(line) for line in _lines(text))
        else:
            config[asked.name] = _lines(text)
    return config


def _lines(text: str) -> list[str]:
    return [line for each in text.split("\n") if (line := each.strip())]


def _header(line: str) -> tuple[str, str]:
    name, _, value = line.partition(":")
    return name.strip(), value.strip()


def fields_of(channel_type: ChannelType, masked: Mapping[str, Any]) -> dict[str, str]:
    """The fields of the form from settings whose secrets are masked; sent back, a mask keeps what it stands for."""
    return {asked.name: _field(masked.get(asked.name)) for asked in TYPES[channel_type].fields}


def _field(value: Any) -> str:  # Any: JSON
    if isinstance(value, Mapping):
        return "\n".join(f"{name}: {text}" for name, text in value.items())
    if isinstance(value, list):
        return "\n".join(map(str, value))
    return "" if value is None else str(value)


def faults_of(error: InvalidInput, channel_type: ChannelType) -> dict[str, str]:
    """What is wrong, by the field of the form; what none of them has stands under the empty name."""
    known = {f"config.{asked.name}": asked.name for asked in TYPES[channel_type].fields} | {"name": "name"}
    found: dict[str, str] = {}
    for fault in error.faults:
        if fault.field in known:
            found.setdefault(known[fault.field], fault.message)
        else:
            found.setdefault("", f"{fault.field} {fault.message}")
    return found


def target_of(channel_type: str, masked: Mapping[str, Any]) -> str:
    """Where messages go, in a line."""
    match channel_type:
        case "email" | "sms":
            to = masked.get("to", "")
            return ", ".join(to) if isinstance(to, list) else str(to)
        case "slack":
            return str(masked.get("webhookUrl", ""))
        case "webhook":
            return str(masked.get("url", ""))
        case _:
            return f"integration key {masked.get('routingKey', '')}"
