"""The message model: built once when a notification is enqueued, stored with it, never read again from live rows."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec

from lifesign.clock import EpochMs

Kind = Literal["page", "resolve", "fallback", "reminder", "storm", "digest", "flap", "notice", "test"]
Resolution = Literal["checkin", "ack", "pause", "delete"]
Mode = Literal["recurring", "oneshot", "scheduled"]


class HeartbeatPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """The heartbeat as it was when the message was made."""

    id: str
    name: str
    slug: str
    mode: Mode
    status: str
    timezone: str = "UTC"
    namespace: str | None = None
    metadata: Mapping[str, Any] | None = None  # Any: the user's own JSON


class IncidentPart(msgspec.Struct, frozen=True, omit_defaults=True):
    """The incident as it was when the message was made. Instants are epoch ms."""

    id: str
    reason: str
    opened_at: EpochMs
    deadline_at: EpochMs | None = None
    resolved_at: EpochMs | None = None
    resolution: Resolution | None = None
    ack_message: str | None = None
    acked_by: str | None = None
    ack_code: str | None = None
    """Texted back, it acknowledges."""


class BlindPart(msgspec.Struct, frozen=True):
    """The span in which Lifesign itself did not run. Instants are epoch ms."""

    from_at: EpochMs
    to_at: EpochMs


class BrokenPart(msgspec.Struct, frozen=True):
    """A channel that refuses for good, of which the fallback channel is told."""

    channel_id: str
    name: str
    reason: str


class FlapPart(msgspec.Struct, frozen=True):
    """A spell of flapping, told of by `flap` and ended by a `resolve`: the incident that opened it."""

    incident_id: str


class NoticePart(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a bot has to tell. key: what notices of the same thing share."""

    severity: Literal["info", "warning", "critical"]
    bot_id: str
    bot_name: str
    schedule_id: str
    key: str
    run_id: str | None = None
    is_resolved: bool = False


class ItemPart(msgspec.Struct, frozen=True):
    """One heartbeat in a digest. `at`: when it went down, or came back."""

    name: str
    incident_id: str
    at: EpochMs


class Message(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one notification says; each channel type decides how it looks.

    `title`: one line (`DOWN: Nightly Export`). `text`: the step's message, already rendered. `happened_at`: when the
    thing told happened. `step`: 1..steps, 0 = the heartbeat's own channels. `repeat`: 0 for the first run of a step.
    `items`, `total`: the first of a digest, and how many there are.
    `is_first`: the first page of this incident to this channel. A test message has neither heartbeat nor incident; a
    reminder that a channel is broken has `broken` instead, the word of a bot `notice`. `url`: of the page where it is
    looked at; until it is sent only the path, since where people reach this server is known to whoever sends.
    """

    kind: Kind
    title: str
    text: str
    project: str
    happened_at: EpochMs
    heartbeat: HeartbeatPart | None = None
    incident: IncidentPart | None = None
    step: int = 0
    steps: int = 0
    repeat: int = 0
    is_first: bool = True
    blind: BlindPart | None = None
    broken: BrokenPart | None = None
    flap: FlapPart | None = None
    notice: NoticePart | None = None
    items: tuple[ItemPart, ...] = ()
    total: int = 0
    url: str | None = None
    ack_url: str | None = None


_decoder = msgspec.json.Decoder(Message)


def encode(message: Message) -> str:
    """The payload of a notification: JSON."""
    return msgspec.json.encode(message).decode()


def decode(payload: str) -> Message:
    """The message of a payload made by `encode`."""
    return _decoder.decode(payload)
