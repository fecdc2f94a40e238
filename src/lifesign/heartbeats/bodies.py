"""What people send about heartbeats, and the rules that span several of their fields."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, ConfigDict, Field, StrictStr, WithJsonSchema, model_validator

from lifesign import schedule
from lifesign.clock import EpochMs
from lifesign.faults import MAX_FAULTS, Fault, InvalidInput
from lifesign.heartbeats import slugs
from lifesign.heartbeats.counted import PingRules
from lifesign.heartbeats.definition import Definition, Flip
from lifesign.http.fields import (
    Body,
    Bool,
    Integer,
    Line,
    LongText,
    Metadata,
    Name,
    Origin,
    Ref,
    Tag,
    Timestamp,
    Timezone,
    optional,
)

_S = 1000
MAX_INTERVAL_S = 315_360_000
MAX_GRACE_S = 31_536_000
DEFAULT_GRACE_S = 60
MAX_TAGS = 50
MAX_TAGS_CHARACTERS = 500
MAX_OWN_CHANNELS = 50
MAX_ACK_MESSAGE = 1000
MAX_DEPENDENCIES = 20
MAX_TOLERANCE = 100
MAX_SNOOZE_S = 2_592_000
MAX_KEYWORDS = 200
MAX_IMPORTED = 1000
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


def _tags(value: list[str]) -> list[str]:
    folded = list(dict.fromkeys(value))
    if len(" ".join(folded)) > MAX_TAGS_CHARACTERS:
        msg = f"must be at most {MAX_TAGS_CHARACTERS} characters together, joined by blanks"
        raise ValueError(msg)
    return folded


def _slug(value: str) -> str:
    if not slugs.is_valid_slug(value):
        msg = "must be 1 to 100 characters of a-z, 0-9, - and _, not beginning with hb_"
        raise ValueError(msg)
    return value


def _ping_id(value: str) -> str:
    if not _UUID.fullmatch(value.lower()):
        msg = "must be a UUID"
        raise ValueError(msg)
    return value.lower()


def _distinct(value: list[str]) -> list[str]:
    return list(dict.fromkeys(value))


Slug = Annotated[
    StrictStr, AfterValidator(_slug), WithJsonSchema({"type": "string", "pattern": "^(?!hb_)[a-z0-9_-]{1,100}$"})
]
Tags = Annotated[list[Tag], Field(max_length=MAX_TAGS), AfterValidator(_tags)]
Dependencies = Annotated[list[Ref], Field(max_length=MAX_DEPENDENCIES), AfterValidator(_distinct)]
OwnChannels = Annotated[list[Ref], Field(max_length=MAX_OWN_CHANNELS), AfterValidator(_distinct)]
Keywords = Annotated[str, LongText(MAX_KEYWORDS)]
PingId = Annotated[
    StrictStr,
    AfterValidator(_ping_id),
    WithJsonSchema({"type": "string", "pattern": "^[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}$"}),
]
ModeWord = Literal["recurring", "oneshot", "scheduled"]

# What each mode cannot do without.
_BY_MODE: list[Any] = [  # Any: a fragment of JSON Schema
    {"properties": {"mode": {"enum": ["recurring", "oneshot"]}}, "required": ["mode", "interval"]},
    {"properties": {"mode": {"enum": ["scheduled"]}}, "required": ["mode", "schedule"]},
]


class Tolerance(Body):
    """Fire only when `failures` of the last `window` results are bad."""

    failures: Annotated[int, Integer(1, MAX_TOLERANCE)] = Field(examples=[2])
    window: Annotated[int, Integer(1, MAX_TOLERANCE)] = Field(examples=[3])

    @model_validator(mode="after")
    def _failures_fit_the_window(self) -> "Tolerance":
        if self.failures > self.window:
            msg = "failures must not be more than window"
            raise ValueError(msg)
        return self


class Pings(Body):
    """Which pings count, and for what. Keywords are separated by commas."""

    methods: Literal["", "POST"] = Field(default="", description="`POST`: a ping by any other method is ignored.")
    filterSubject: Bool = Field(default=False, description="Look for keywords in the subject of an e-mail.")
    filterBody: Bool = Field(default=False, description="Look for keywords in the text of an e-mail.")
    filterHttpBody: Bool = Field(default=False, description="Look for keywords in the body of an HTTP ping.")
    filterDefaultFail: Bool = Field(default=False, description="What holds no keyword is a failure, not ignored.")
    startKeywords: Keywords = Field(default="")
    successKeywords: Keywords = Field(default="")
    failureKeywords: Keywords = Field(default="")

    def rules(self) -> PingRules:
        """As they are kept."""
        return PingRules(**{name: getattr(self, wire) for wire, name in PING_RULES.items()})


# What the wire calls the ping rules.
PING_RULES = {
    "methods": "methods",
    "filterSubject": "filter_subject",
    "filterBody": "filter_body",
    "filterHttpBody": "filter_http_body",
    "filterDefaultFail": "filter_default_fail",
    "startKeywords": "start_kw",
    "successKeywords": "success_kw",
    "failureKeywords": "failure_kw",
}


class NewHeartbeat(Body):
    """What must check in, and when."""

    model_config = ConfigDict(json_schema_extra={"anyOf": _BY_MODE})

    name: Name = Field(examples=["Nightly Export"])
    mode: ModeWord
    interval: Annotated[int, Integer(1, MAX_INTERVAL_S)] = optional(
        "Seconds; for recurring and oneshot, which need it.", [3600]
    )
    schedule: StrictStr = optional(
        "Cron expression of five fields, or systemd's OnCalendar; for scheduled, which needs it.", ["0 2 * * *"]
    )
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
    tolerance: Tolerance = optional("Not for oneshot. Without it, it fires at the first bad result.")
    dependsOn: Dependencies = optional("Ids or slugs: while one of them fires, nobody is told of this one.")
    armed: Bool = Field(default=True, description="false: no deadline until the first check-in.")
    paused: Bool = Field(default=False, description="true: not watched until it is resumed.")
    stickyPause: Bool = Field(default=True, description="false: a check-in un-pauses.")
    pings: Pings = optional("Which pings count; all, as they say, when omitted.")
    pingId: PingId = optional("A UUID that it was pinged by before; made when omitted.")
    origin: Origin = optional("Who makes it; kept and shown. `lifesign apply` says `apply`.")


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
    tolerance: Tolerance | None = optional()
    dependsOn: Dependencies | None = optional()
    stickyPause: Bool = optional()
    pings: Pings | None = optional()


class CheckInBody(Body):
    """Proof of life; every member is optional, and so is the body."""

    healthy: Bool = Field(default=True, description="false: fire at once, without grace.")
    metadata: Metadata = optional("Replaces the heartbeat's metadata.")


class AckBody(Body):
    """What the person who acknowledges has to say."""

    message: Annotated[str, LongText(MAX_ACK_MESSAGE)] = optional(examples=["Looking into it"])


class SnoozeBody(Body):
    """For how long nobody is told: exactly one of `seconds` and `until`."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["seconds"]}, {"required": ["until"]}]})

    seconds: Annotated[int, Integer(1, MAX_SNOOZE_S)] = optional(examples=[3600])
    until: Timestamp = optional("In the future, at most 30 days.")
    reason: Annotated[str, LongText(MAX_ACK_MESSAGE)] = optional()


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


class PastEvent(Body):
    """That a heartbeat began to fire, or recovered, on another server."""

    type: Flip
    createdAt: Timestamp = Field(description="When; not in the future.")


class PastEvents(Body):
    """History that another server kept."""

    events: Annotated[list[PastEvent], Field(max_length=MAX_IMPORTED)]


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
        tolerance_failures=body.tolerance.failures if "tolerance" in body.given() else None,
        tolerance_window=body.tolerance.window if "tolerance" in body.given() else None,
        depends_on=tuple(body.dependsOn or ()),
        ping_rules=_ping_rules(body.pings),
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
        "dependsOn": tuple(body.dependsOn or ()),
        "pings": _ping_rules(body.pings),
    }
    if "tolerance" in given:
        values["tolerance_failures"] = body.tolerance and body.tolerance.failures
        values["tolerance_window"] = body.tolerance and body.tolerance.window
        given = given | {"tolerance_failures", "tolerance_window"}
    columns = {
        "interval": "interval_ms",
        "grace": "grace_ms",
        "policy": "policy_id",
        "channels": "own_channels",
        "stickyPause": "is_sticky_pause",
        "dependsOn": "depends_on",
        "pings": "ping_rules",
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
            normalized = schedule.normalized_either(wanted.schedule, wanted.timezone)
        except schedule.BadSchedule as error:
            faults.append(Fault("schedule", error.reason, wanted.schedule[:200], has_value=True))
    if wanted.mode == "oneshot" and wanted.tolerance_failures is not None:
        faults.append(Fault("tolerance", "is for recurring and scheduled only"))
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


def past_of(body: PastEvents, now: EpochMs) -> list[tuple[Flip, EpochMs]]:
    """What happened, and when. Raises InvalidInput for what is yet to come."""
    faults = [
        Fault(f"events[{position}].createdAt", "must not lie in the future")
        for position, each in enumerate(body.events)
        if each.createdAt > now
    ]
    if faults:
        raise InvalidInput(*faults[:MAX_FAULTS])
    return [(each.type, each.createdAt) for each in body.events]


def snooze_end_of(body: SnoozeBody, now: EpochMs) -> EpochMs:
    """Until when a snooze lasts. Raises InvalidInput."""
    if ("seconds" in body.given()) == ("until" in body.given()):
        raise InvalidInput(Fault("seconds", "or until is required, not both"))
    if "seconds" in body.given():
        return EpochMs(now + body.seconds * _S)
    if not now < body.until <= now + MAX_SNOOZE_S * _S:
        raise InvalidInput(Fault("until", "must be in the future, at most 30 days from now"))
    return body.until


def _ping_rules(pings: Pings | None) -> str | None:
    return None if pings is None else pings.rules().text()
