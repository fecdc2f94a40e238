"""Wire models of heartbeats, and the rules that span several of their fields."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, StrictStr, WithJsonSchema

from lifesign.clock import EpochMs, rfc3339
from lifesign.events.service import StoredEvent
from lifesign.faults import MAX_FAULTS, Fault, InvalidInput
from lifesign.heartbeats import schedule, slugs
from lifesign.heartbeats.rules import Heartbeat
from lifesign.heartbeats.service import Definition
from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, Bool, Integer, Line, LongText, Name, Ref, optional

_S = 1000
MAX_INTERVAL_S = 315_360_000
MAX_GRACE_S = 31_536_000
DEFAULT_GRACE_S = 60
MAX_METADATA_BYTES = 16_384
MAX_METADATA_DEPTH = 16
MAX_TAGS = 50
MAX_TAGS_CHARACTERS = 500
MAX_OWN_CHANNELS = 50
MAX_ACK_MESSAGE = 1000


def _metadata(value: dict[str, Any]) -> dict[str, Any]:
    if _depth(value) > MAX_METADATA_DEPTH:
        msg = f"must be at most {MAX_METADATA_DEPTH} levels deep"
        raise ValueError(msg)
    if len(orjson.dumps(value)) > MAX_METADATA_BYTES:
        msg = f"must be at most {MAX_METADATA_BYTES} bytes as compact JSON"
        raise ValueError(msg)
    if _has_nul(value):
        msg = "must not contain U+0000"
        raise ValueError(msg)
    return value


def _depth(value: Any) -> int:  # Any: JSON
    """Levels of nesting; level by level, because hostile JSON is nested deeper than Python recurses."""
    depth, level = 0, [value]
    while nested := [each for each in level if isinstance(each, dict | list)]:
        depth += 1
        level = [member for each in nested for member in (each.values() if isinstance(each, dict) else each)]
    return depth


def _has_nul(value: Any) -> bool:  # Any: JSON, of bounded depth
    if isinstance(value, str):
        return "\x00" in value
    if isinstance(value, dict):
        return any("\x00" in key or _has_nul(each) for key, each in value.items())
    return isinstance(value, list) and any(_has_nul(each) for each in value)


def _tags(value: list[str]) -> list[str]:
    folded = list(dict.fromkeys(value))
    if len(" ".join(folded)) > MAX_TAGS_CHARACTERS:
        msg = f"must be at most {MAX_TAGS_CHARACTERS} characters together, joined by blanks"
        raise ValueError(msg)
    return folded


def _tag(value: str) -> str:
    if not 1 <= len(value) <= 100 or any(each.isspace() or each < " " or each == "\x7f" for each in value):  # noqa: PLR2004 - the rule itself
        msg = "must be 1 to 100 characters without whitespace"
        raise ValueError(msg)
    return value


def _slug(value: str) -> str:
    if not slugs.is_valid_slug(value):
        msg = "must be 1 to 100 characters of a-z, 0-9, - and _, not beginning with hb_"
        raise ValueError(msg)
    return value


def _timezone(value: str) -> str:
    if not schedule.is_timezone(value):
        msg = "is not an IANA time zone"
        raise ValueError(msg)
    return value


def _distinct(value: list[str]) -> list[str]:
    return list(dict.fromkeys(value))


Metadata = Annotated[dict[str, Any], AfterValidator(_metadata)]
Slug = Annotated[
    StrictStr, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": "^(?!hb_)[a-z0-9_-]{1,100}$"})
]
Timezone = Annotated[
    StrictStr, AfterValidator(_timezone), WithJsonSchema({"type": "string", "examples": ["Europe/Berlin"]})
]
Tag = Annotated[
    StrictStr, AfterValidator(_tag), WithJsonSchema({"type": "string", "pattern": r"^[^\s\x00-\x20\x7f\x85]{1,100}$"})
]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_tags)]
OwnChannels = Annotated[list[Ref], Field(max_length=MAX_OWN_CHANNELS), AfterValidator(_distinct)]
ModeWord = Literal["recurring", "oneshot", "scheduled"]
StatusWord = Literal["active", "firing", "paused", "resolved"]


# What each mode cannot do without.
_BY_MODE: list[Any] = [  # Any: a fragment of JSON Schema
    {"properties": {"mode": {"enum": ["recurring", "oneshot"]}}, "required": ["mode", "interval"]},
    {"properties": {"mode": {"enum": ["scheduled"]}}, "required": ["mode", "schedule"]},
]


class NewHeartbeat(Body):
    """What must check in, and when."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _BY_MODE})

    name: Name = Field(examples=["Nightly Export"])
    mode: ModeWord
    interval: Annotated[int, Integer(1, MAX_INTERVAL_S)] = optional(
        "Seconds; for recurring and oneshot, which need it.", [3600]
    )
    schedule: StrictStr = optional("Cron expression of five fields; for scheduled, which needs it.", ["0 2 * * *"])
    grace: Annotated[int, Integer(0, MAX_GRACE_S)] = Field(
        default=DEFAULT_GRACE_S, description="Seconds past the deadline before it fires."
    )
    timezone: Timezone = Field(default="UTC", description="IANA name; used by scheduled.")
    slug: Slug = optional("Made from the name when omitted.")
    policy: Ref = optional("Id of the policy that says whom to tell.")
    namespace: Annotated[str, Line(100)] = optional("Groups heartbeats.")
    metadata: Metadata = optional("At most 16 KiB; a check-in may replace it.")
    description: Annotated[str, LongText(10_000)] = optional()
    tags: Tags = optional()
    channels: OwnChannels = optional("Told at once on firing and on recovery, beside the policy.")
    armed: Bool = Field(default=True, description="false: no deadline until the first check-in.")
    stickyPause: Bool = Field(default=True, description="false: a check-in un-pauses.")


class HeartbeatChanges(Body):
    """Any field of a heartbeat but `armed`; null clears where it is allowed."""

    name: Name = optional()
    mode: ModeWord = optional()
    interval: Annotated[int, Integer(1, MAX_INTERVAL_S)] = optional()
    schedule: StrictStr = optional()
    grace: Annotated[int, Integer(0, MAX_GRACE_S)] = optional()
    timezone: Timezone = optional()
    slug: Slug | None = optional()
    policy: Ref | None = optional()
    namespace: Annotated[str, Line(100)] | None = optional()
    metadata: Metadata | None = optional()
    description: Annotated[str, LongText(10_000)] | None = optional()
    tags: Tags | None = optional()
    channels: OwnChannels | None = optional()
    stickyPause: Bool = optional()


class CheckInBody(Body):
    """Proof of life; every member is optional, and so is the body."""

    healthy: Bool = Field(default=True, description="false: fire at once, without grace.")
    metadata: Metadata = optional("Replaces the heartbeat's metadata.")


class AckBody(Body):
    """What the person who acknowledges has to say."""

    message: Annotated[str, LongText(MAX_ACK_MESSAGE)] = optional(examples=["Looking into it"])


# Bodies to paste, by what they show.
NEW_HEARTBEATS: dict[str, dict[str, Any]] = {
    "every hour": {"name": "Nightly Export", "mode": "recurring", "interval": 3600, "grace": 300},
    "by cron expression": {
        "name": "Backup",
        "mode": "scheduled",
        "schedule": "0 2 * * *",
        "timezone": "Europe/Berlin",
        "grace": 1800,
        "tags": ["db"],
    },
    "once": {"name": "Migration to the new disk", "mode": "oneshot", "interval": 7200},
}
HEARTBEAT_CHANGES: dict[str, dict[str, Any]] = {
    "more time": {"grace": 900},
    "no policy any more": {"policy": None},
}
CHECK_INS: dict[str, dict[str, Any]] = {
    "alive": {},
    "alive, with figures": {"metadata": {"rows": 1200, "host": "db1"}},
    "unhealthy: fires at once": {"healthy": False, "metadata": {"error": "disk full"}},
}


class ShownHeartbeat(Body):
    """A heartbeat. Members without a value are omitted."""

    id: str = Field(examples=["hb_0199e6a1b2c37d4e8f00112233445566"])
    name: str
    mode: ModeWord
    status: StatusWord
    grace: int
    timezone: str
    createdAt: datetime
    slug: str = optional()
    interval: int = optional()
    schedule: str = optional()
    policy: str = optional()
    namespace: str = optional()
    nextDeadline: datetime = optional("When the next check-in is expected, without grace.")
    metadata: dict[str, Any] = optional()
    updatedAt: datetime = optional()
    lastCheckin: datetime = optional()
    firesAt: datetime = optional("When it fires if nothing comes.")
    armed: bool = optional("Only while false.")
    incident: str = optional("The open incident, while firing.")
    pausedAt: datetime = optional()
    description: str = optional()
    tags: list[str] = optional()
    channels: list[str] = optional()
    stickyPause: bool = optional()


class HeartbeatList(Body):
    """Heartbeats, oldest first."""

    heartbeats: list[ShownHeartbeat]
    nextCursor: str = optional("Present when there are more.")


class CheckInAnswer(Body):
    """What the heartbeat is after the check-in; `healthy` repeats what was sent."""

    status: StatusWord
    healthy: bool
    nextDeadline: datetime = optional()


class AckAnswer(Body):
    """The incident that was closed."""

    status: Literal["resolved"]
    resolvedAt: datetime
    escalationStep: int = Field(description="Steps of the policy that had run; repeats do not count.")
    message: str = optional()


class PauseAnswer(Body):
    """A paused heartbeat."""

    id: str
    status: Literal["paused"]
    pausedAt: datetime


class ResumeAnswer(Body):
    """A resumed heartbeat."""

    id: str
    status: Literal["active"]
    nextDeadline: datetime


class ShownEvent(Body):
    """One line of a heartbeat's history."""

    id: str
    type: str
    metadata: dict[str, Any]
    createdAt: datetime


class EventList(Body):
    """Events, newest first."""

    events: list[ShownEvent]
    nextCursor: str = optional("Present when there are more.")


# In -----------------------------------------------------------------------------------------------------------------
def definition_of(body: NewHeartbeat) -> Definition:
    """The definition a new heartbeat asks for. Raises InvalidInput for what only the whole can tell."""
    wanted = Definition(
        name=body.name,
        mode=body.mode,
        slug=body.slug or slugs.slug_from_name(body.name),
        interval_ms=body.interval * _S if "interval" in body.given() else None,
        schedule=body.schedule,
        timezone=body.timezone,
        grace_ms=body.grace * _S,
        policy_id=body.policy,
        own_channels=tuple(body.channels or ()),
        namespace=body.namespace,
        description=body.description,
        tags=tuple(body.tags or ()),
        metadata=json_text(body.metadata),
        is_sticky_pause=body.stickyPause,
    )
    return _checked(wanted)


def changes_of(body: HeartbeatChanges) -> dict[str, Any]:
    """The fields of a definition that a PATCH names, with their new values."""
    given = body.given()
    values: dict[str, Any] = {
        "name": body.name,
        "mode": body.mode,
        "interval": body.interval * _S if "interval" in given else None,
        "schedule": body.schedule,
        "grace": body.grace * _S if "grace" in given else None,
        "timezone": body.timezone,
        "slug": body.slug,
        "policy": body.policy,
        "namespace": body.namespace,
        "metadata": json_text(body.metadata),
        "description": body.description,
        "tags": tuple(body.tags or ()),
        "channels": tuple(body.channels or ()),
        "stickyPause": body.stickyPause,
    }
    columns = {
        "interval": "interval_ms",
        "grace": "grace_ms",
        "policy": "policy_id",
        "channels": "own_channels",
        "stickyPause": "is_sticky_pause",
    }
    return {columns.get(name, name): value for name, value in values.items() if name in given}


def edited(present: Definition, changes: Mapping[str, Any]) -> Definition:
    """`present` with `changes`, checked as a new heartbeat would be. Raises InvalidInput.

    A changed mode drops the other mode's field by itself; an interval is kept between recurring and oneshot.
    """
    kept = present
    mode = changes.get("mode", present.mode)
    if mode == "scheduled" and present.mode != "scheduled":
        kept = replace(present, interval_ms=None)
    elif mode != "scheduled" and present.mode == "scheduled":
        kept = replace(present, schedule=None)
    return _checked(replace(kept, **changes))


def _checked(wanted: Definition) -> Definition:
    faults = list(_timing_faults(wanted))
    normalized = wanted.schedule
    if not faults and wanted.schedule is not None:
        try:
            normalized = schedule.normalized(wanted.schedule, wanted.timezone)
        except schedule.BadSchedule as error:
            faults.append(Fault("schedule", error.reason, wanted.schedule[:200], has_value=True))
    if faults:
        raise InvalidInput(*faults[:MAX_FAULTS])
    return replace(wanted, schedule=normalized)


def _timing_faults(wanted: Definition) -> list[Fault]:
    if wanted.mode == "scheduled":
        faults = [] if wanted.interval_ms is None else [Fault("interval", "is for recurring and oneshot only")]
        return faults if wanted.schedule is not None else [*faults, Fault("schedule", "is required for scheduled")]
    faults = [] if wanted.schedule is None else [Fault("schedule", "is for scheduled only")]
    return faults if wanted.interval_ms is not None else [*faults, Fault("interval", f"is required for {wanted.mode}")]


def json_text(value: Mapping[str, Any] | None) -> str | None:
    """JSON text of an object, or None."""
    return None if value is None else orjson.dumps(value).decode()


# Out ----------------------------------------------------------------------------------------------------------------
def shown(heartbeat: Heartbeat) -> dict[str, Any]:  # Any: JSON
    """A heartbeat on the wire."""
    return without_absent(
        {
            "id": heartbeat.id,
            "name": heartbeat.name,
            "mode": heartbeat.mode,
            "status": heartbeat.status,
            "grace": heartbeat.grace_ms // _S,
            "timezone": heartbeat.timezone,
            "createdAt": rfc3339(heartbeat.created_at),
            "slug": heartbeat.slug,
            "interval": None if heartbeat.interval_ms is None else heartbeat.interval_ms // _S,
            "schedule": heartbeat.schedule,
            "policy": heartbeat.policy_id,
            "namespace": heartbeat.namespace,
            "nextDeadline": _time(heartbeat.next_deadline),
            "metadata": None if heartbeat.metadata is None else orjson.Fragment(heartbeat.metadata),
            "updatedAt": _time(heartbeat.updated_at),
            "lastCheckin": _time(heartbeat.last_checkin_at),
            "firesAt": _time(heartbeat.fires_at),
            "armed": None if heartbeat.is_armed else False,
            "incident": heartbeat.incident_id,
            "pausedAt": _time(heartbeat.paused_at),
            "description": heartbeat.description,
            "tags": list(heartbeat.tags) or None,
            "channels": list(heartbeat.own_channels) or None,
            "stickyPause": heartbeat.is_sticky_pause,
        }
    )


def shown_event(event: StoredEvent) -> dict[str, Any]:  # Any: JSON
    """One line of history on the wire."""
    return {
        "id": event.id,
        "type": event.type,
        "metadata": orjson.Fragment(event.metadata),
        "createdAt": rfc3339(event.created_at),
    }


def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)
