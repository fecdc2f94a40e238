"""What people send about maintenance windows, and the rules that span several of their fields."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, StrictStr

from lifesign import schedule
from lifesign.faults import Fault, InvalidInput
from lifesign.http.fields import Body, Integer, Line, Name, Origin, Ref, Tag, Timestamp, Timezone, optional
from lifesign.maintenance.rules import Definition, TargetKind

_S = 1000
_LONGEST_MS = 366 * 86_400 * _S
MIN_DURATION_S, MAX_DURATION_S = 60, 604_800
_TARGETS: tuple[TargetKind, ...] = ("heartbeats", "namespaces", "tags", "all")

Members = Annotated[list[Ref], Field(min_length=1, max_length=1000)]
Namespaces = Annotated[list[Annotated[str, Line(100)]], Field(min_length=1, max_length=100)]
WindowTags = Annotated[list[Tag], Field(min_length=1, max_length=50)]
Duration = Annotated[int, Integer(MIN_DURATION_S, MAX_DURATION_S)]

# Any: fragments of JSON Schema.
_WHEN: list[Any] = [{"required": ["startsAt", "endsAt"]}, {"required": ["schedule", "duration"]}]
_WHOM: list[Any] = [{"required": [target]} for target in _TARGETS]


class _Fields(Body):
    """What a window may say, all of it optional."""

    startsAt: Timestamp = optional("Once: from when, inclusive.")
    endsAt: Timestamp = optional("Once: until when, exclusive; at most 366 days later.")
    schedule: StrictStr = optional("Again and again: cron expression of the starts.", ["0 3 * * SUN"])
    duration: Duration = optional("Again and again: seconds from each start.")
    timezone: Timezone = optional("IANA name, for `schedule`; UTC when omitted.")
    heartbeats: Members = optional("Ids or slugs.", [["nightly-export"]])
    namespaces: Namespaces = optional()
    tags: WindowTags = optional("Heartbeats with one of them.")
    all: Literal[True] = optional("Every heartbeat of the project.")


class NewWindow(_Fields):
    """When silence is expected, and of which heartbeats: once or by schedule, and exactly one kind of target."""

    model_config = ConfigDict(json_schema_extra={"allOf": [{"oneOf": _WHEN}, {"oneOf": _WHOM}]})

    name: Name = Field(examples=["Weekly reboot"])
    origin: Origin = optional("Who makes it; kept and shown. `lifesign apply` says `apply`.")


class WindowChanges(_Fields):
    """Any field of a window. Times take the place of a schedule and the other way round; so do targets."""

    name: Name = optional()


# Bodies to paste, by what they show.
NEW_WINDOWS: dict[str, dict[str, Any]] = {
    "every Sunday night": {
        "name": "Weekly reboot",
        "schedule": "0 3 * * SUN",
        "duration": 3600,
        "timezone": "Europe/Berlin",
        "tags": ["db"],
    },
    "once, everything": {
        "name": "Move to the new rack",
        "startsAt": "2030-03-08T20:00:00Z",
        "endsAt": "2030-03-08T23:00:00Z",
        "all": True,
    },
}


def definition_of(body: NewWindow) -> Definition:
    """The definition a new window asks for. Raises InvalidInput for what only the whole can tell."""
    target, members = _target_of(body) or ("all", ())
    values = {"timezone": "UTC", "starts_at": None, "ends_at": None, "schedule": None, "duration_ms": None}
    wanted = Definition(name=body.name, target=target, members=members, **(values | _timing_of(body)))
    faults = [] if _targets_of(body) else [Fault("heartbeats", f"or one of {', '.join(_TARGETS[1:])} is required")]
    return _checked(wanted, faults)


def _timing_of(body: _Fields) -> dict[str, Any]:
    given = body.given()
    values: dict[str, Any] = {
        "startsAt": ("starts_at", body.startsAt),
        "endsAt": ("ends_at", body.endsAt),
        "schedule": ("schedule", body.schedule),
        "duration": ("duration_ms", body.duration * _S if "duration" in given else None),
        "timezone": ("timezone", body.timezone),
    }
    return {column: value for name, (column, value) in values.items() if name in given}


def _targets_of(body: _Fields) -> list[TargetKind]:
    return [target for target in _TARGETS if target in body.given()]


def _target_of(body: _Fields) -> tuple[TargetKind, tuple[str, ...]] | None:
    """Whom a body names; None when nobody. Raises InvalidInput for more than one kind."""
    named = _targets_of(body)
    if len(named) > 1:
        raise InvalidInput(*(Fault(each, f"cannot stand beside {named[0]}") for each in named[1:]))
    if not named:
        return None
    members = () if named[0] == "all" else tuple(dict.fromkeys(getattr(body, named[0])))
    return named[0], members


def changes_of(body: WindowChanges) -> dict[str, Any]:
    """The fields of a definition that a PATCH names, with their new values. Raises InvalidInput."""
    changes = _timing_of(body)
    if "name" in body.given():
        changes["name"] = body.name
    target = _target_of(body)
    return changes if target is None else changes | {"target": target[0], "members": target[1]}


def edited(present: Definition, changes: Mapping[str, Any]) -> Definition:
    """`present` with `changes`, checked as a new window would be. Raises InvalidInput.

    Times drop the schedule by themselves, and a schedule the times.
    """
    kept = present
    is_once, is_again = {"starts_at", "ends_at"} & set(changes), {"schedule", "duration_ms"} & set(changes)
    if is_once and not is_again and present.schedule is not None:
        kept = replace(present, schedule=None, duration_ms=None)
    elif "schedule" in changes and not is_once and present.schedule is None:
        kept = replace(present, starts_at=None, ends_at=None)
    return _checked(replace(kept, **changes), [])


def _checked(wanted: Definition, faults: list[Fault]) -> Definition:
    faults = [*_timing_faults(wanted), *faults]
    normalized = wanted.schedule
    if wanted.schedule is not None:
        try:
            normalized = schedule.normalized(wanted.schedule, wanted.timezone)
        except schedule.BadSchedule as error:
            faults.append(Fault("schedule", error.reason, wanted.schedule[:200], has_value=True))
    if faults:
        raise InvalidInput(*faults)
    return replace(wanted, schedule=normalized)


def _timing_faults(wanted: Definition) -> list[Fault]:
    once = {"startsAt": wanted.starts_at, "endsAt": wanted.ends_at}
    again = {"schedule": wanted.schedule, "duration": wanted.duration_ms}
    is_once = any(value is not None for value in once.values())
    is_again = any(value is not None for value in again.values())
    if is_once and is_again:
        return [Fault(name, "cannot stand beside startsAt and endsAt") for name, value in again.items() if value]
    if not is_once and not is_again:
        return [Fault("startsAt", "and endsAt, or schedule and duration, are required")]
    missing = [Fault(name, "is required") for name, value in (once if is_once else again).items() if value is None]
    if missing or not is_once or wanted.starts_at is None or wanted.ends_at is None:
        return missing
    if wanted.ends_at <= wanted.starts_at:
        return [Fault("endsAt", "must be after startsAt")]
    is_too_long = wanted.ends_at - wanted.starts_at > _LONGEST_MS
    return [Fault("endsAt", "must be at most 366 days after startsAt")] if is_too_long else []
