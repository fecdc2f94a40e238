"""Maintenance windows as a form has them, and back. Pure."""

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from lifesign import schedule
from lifesign.clock import rfc3339
from lifesign.faults import InvalidInput
from lifesign.maintenance.rules import Window
from lifesign.web.forms import duration_of, seconds_of

FIELDS = ("name", "when", "startsAt", "endsAt", "schedule", "duration", "timezone", "whom", "members")
BLANK: Mapping[str, str] = dict.fromkeys(FIELDS, "") | {
    "when": "once",
    "whom": "all",
    "timezone": "UTC",
    "duration": "1h",
}
_TARGETS = ("heartbeats", "namespaces", "tags")
# As a browser's field for a date and a time has it.
_LOCAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?")


def values_of(fields: Mapping[str, str]) -> dict[str, Any]:
    """A body of the API; instants are read in the zone that was typed. Any: JSON."""
    zone = fields["timezone"] or "UTC"
    values: dict[str, Any] = {"name": fields["name"], "timezone": zone}
    if fields["when"] == "again":
        values["schedule"] = fields["schedule"]
        values["duration"] = seconds_of(fields["duration"])
    else:
        values |= {name: _instant(fields[name], zone) for name in ("startsAt", "endsAt") if fields[name]}
    if fields["whom"] in _TARGETS:
        values[fields["whom"]] = [line for each in fields["members"].split("\n") if (line := each.strip())]
    else:
        values["all"] = True
    return values


def _instant(text: str, zone: str) -> str:
    if not _LOCAL.fullmatch(text) or not schedule.is_timezone(zone):
        return text
    try:
        return rfc3339(schedule.instant_of(datetime.fromisoformat(text), zone))
    except (ValueError, OverflowError):
        return text


def fields_of(window: Window) -> dict[str, str]:
    """What the form of a window begins with."""
    is_again = window.schedule is not None
    at = {"startsAt": window.starts_at, "endsAt": window.ends_at}
    return {
        "name": window.name,
        "when": "again" if is_again else "once",
        **{name: "" if each is None else _local(rfc3339(each)) for name, each in at.items()},
        "schedule": window.schedule or "",
        "duration": duration_of(window.duration_ms) if is_again else "",
        # Instants are kept, not the zone in which they were typed.
        "timezone": window.timezone if is_again else "UTC",
        "whom": window.target,
        "members": "\n".join(window.members),
    }


def _local(instant: str) -> str:
    return instant[:16]


def faults_of(error: InvalidInput) -> dict[str, str]:
    """What is wrong, by the field of the form; what none of them has stands under the empty name."""
    found: dict[str, str] = {}
    for fault in error.faults:
        field = re.split(r"[.\[]", fault.field)[0]
        if field in _TARGETS:
            about = "must have at least one" if "at least 1" in fault.message else fault.message
            found.setdefault("members", f"{about}: {fault.value}" if isinstance(fault.value, str) else about)
        elif field == "duration" and "integer" in fault.message:
            found.setdefault(field, "must be a duration, such as 30m or 2h")
        elif field in FIELDS:
            found.setdefault(field, fault.message)
        else:
            found.setdefault("", f"{fault.field} {fault.message}")
    return found
