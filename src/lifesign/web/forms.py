"""What people type about heartbeats, as the bodies of the API would have it, and back. Pure."""

import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from lifesign import schedule
from lifesign.clock import EpochMs
from lifesign.faults import InvalidInput
from lifesign.heartbeats import rules as heartbeats
from lifesign.heartbeats.definition import Definition
from lifesign.heartbeats.rules import Timing

_UNITS = {"w": 604_800, "d": 86_400, "h": 3600, "m": 60, "min": 60, "s": 1, "": 1}
_PART = re.compile(r"(\d{1,10})\s*(w|d|h|min|m|s|)\s*")
_SHOWN = (("w", 604_800), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1))
PREVIEWED = 5
FIELDS = ("name", "mode", "interval", "schedule", "timezone", "grace", "policy", "namespace", "description", "tags")
# What may be taken away from a heartbeat that has it.
_CLEARED = ("policy", "namespace", "description", "tags")


def seconds_of(text: str) -> int | str:
    """`90`, `5m`, `1h 30m`, `2d` in seconds; what is no duration as it was typed, for the fault to be told."""
    parts = list(_PART.finditer(text))
    if not parts or "".join(part[0] for part in parts) != text:
        return text
    return sum(int(part[1]) * _UNITS[part[2]] for part in parts)


def duration_of(ms: int | None) -> str:
    """`1h 30m`: what `seconds_of` reads again."""
    if ms is None:
        return ""
    rest, words = ms // 1000, []
    for name, size in _SHOWN:
        count, rest = divmod(rest, size)
        if count:
            words.append(f"{count}{name}")
    return " ".join(words) or "0s"


def values_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """A body of the API from the fields of the form; what is blank is left out. Any: JSON."""
    values: dict[str, Any] = {name: fields[name] for name in FIELDS if fields.get(name)}
    for name in ("interval", "grace"):
        if name in values:
            values[name] = seconds_of(values[name])
    # What belongs to another mode may have been typed before it was chosen.
    values.pop("interval" if values.get("mode") == "scheduled" else "schedule", None)
    if "tags" in values:
        values["tags"] = values["tags"].replace(",", " ").split()
    return values


def changes_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """As `values_of` for a heartbeat that exists: what is blank is taken away where that is possible. Any: JSON."""
    return dict.fromkeys(_CLEARED) | values_of(fields)


def fields_of(definition: Definition) -> dict[str, str]:
    """The fields of the form from what a heartbeat is."""
    return {
        "name": definition.name,
        "mode": definition.mode,
        "interval": duration_of(definition.interval_ms),
        "schedule": definition.schedule or "",
        "timezone": definition.timezone,
        "grace": duration_of(definition.grace_ms),
        "policy": definition.policy_id or "",
        "namespace": definition.namespace or "",
        "description": definition.description or "",
        "tags": " ".join(definition.tags),
    }


def faults_of(error: InvalidInput) -> dict[str, str]:
    """What is wrong, by the field of the form; what none of them has stands under the empty name."""
    found: dict[str, str] = {}
    for fault in error.faults:
        field = re.split(r"[.\[]", fault.field)[0]
        if field in {"interval", "grace"} and "integer" in fault.message:
            found.setdefault(field, "must be a duration, such as 90s, 15m or 1h 30m")
        elif field in FIELDS:
            found.setdefault(field, fault.message)
        else:
            found.setdefault("", f"{fault.field} {fault.message}")
    return found


def in_words(definition: Definition) -> str | None:
    """When a schedule of cron is due, as people say it; None of anything else."""
    return None if definition.schedule is None else schedule.in_words(definition.schedule)


def next_deadlines(definition: Definition, now: EpochMs) -> list[EpochMs]:
    """When the next check-ins would be expected, if each came at its deadline."""
    timing = Timing(
        definition.mode, definition.interval_ms, definition.schedule, definition.timezone, definition.grace_ms
    )
    return list(islice(_deadlines(timing, now), 1 if definition.mode == "oneshot" else PREVIEWED))


def _deadlines(timing: Timing, now: EpochMs) -> Iterator[EpochMs]:
    at = now
    while True:
        at = heartbeats.next_deadline(timing, at)
        yield at
