"""What the management API reads and writes: checks in the words of Healthchecks, strict types, one fault at a time."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, NamedTuple

from lifesign import schedule
from lifesign.clock import EpochMs, rfc3339, to_datetime
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.bodies import MAX_TAGS_CHARACTERS
from lifesign.heartbeats.counted import PingRules
from lifesign.heartbeats.definition import Definition
from lifesign.heartbeats.rules import Heartbeat
from lifesign.http.fields import MAX_TAG, is_tag
from lifesign.pings.rules import CheckRefused

Version = Literal[1, 2, 3]

_S = 1000
_DAY_S, _HOUR_S = 86_400, 3600
_MIN_S, _MAX_S = 60, 31_536_000
MAX_NAME, MAX_DESC, MAX_SCHEDULE, MAX_KEYWORDS = 100, 10_000, 100, 200
_SLUG = re.compile(r"[a-z0-9_-]*")
_UNIQUE = ("name", "slug", "tags", "timeout", "grace")
_KEYWORDS = ("subject", "subject_fail", "start_kw", "success_kw", "failure_kw")
_FLAGS = ("manual_resume", "filter_subject", "filter_body", "filter_http_body", "filter_default_fail")

# Any, throughout: JSON.
Check = Callable[[str, Any], Any]


# In -----------------------------------------------------------------------------------------------------------------
class Wanted(NamedTuple):
    """What a request says of a check: values by field as they were sent, checked; only those that were sent."""

    values: Mapping[str, Any]
    unique: tuple[str, ...] = ()


def _refused(field: str, text: str) -> CheckRefused:
    return CheckRefused(400, f"json validation error: {field} {text}")


def _text(longest: int) -> Check:
    def check(field: str, value: Any) -> str:
        if not isinstance(value, str):
            raise _refused(field, "is not a string")
        if len(value) > longest:
            raise _refused(field, "is too long")
        # PostgreSQL cannot store it.
        return value.replace("\x00", "")

    return check


def _slug(field: str, value: Any) -> str:
    slug: str = _text(MAX_NAME)(field, value)
    if not _SLUG.fullmatch(slug) or slug.startswith("hb_"):
        raise _refused(field, "does not match pattern")
    return slug


def _tags(field: str, value: Any) -> tuple[str, ...]:
    text: str = _text(MAX_TAGS_CHARACTERS)(field, value)
    tags = tuple(dict.fromkeys(text.split()))
    if not all(len(tag) <= MAX_TAG and is_tag(tag) for tag in tags):
        raise _refused(field, "is too long")
    return tags


def _seconds(field: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise _refused(field, "is not a number")
    if value < _MIN_S:
        raise _refused(field, "is too small")
    if value > _MAX_S:
        raise _refused(field, "is too large")
    return value


def _schedule(field: str, value: Any) -> str:
    text: str = _text(MAX_SCHEDULE)(field, value)
    try:
        return schedule.normalized_any(text)
    except schedule.BadSchedule:
        raise _refused(field, "is not a valid cron or OnCalendar expression") from None


def _timezone(field: str, value: Any) -> str:
    text: str = _text(MAX_NAME)(field, value)
    if not schedule.is_timezone(text):
        raise _refused(field, "is not a valid timezone")
    return schedule.todays_timezone(text)


def _flag(field: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise _refused(field, "is not a boolean")
    return value


def _methods(field: str, value: Any) -> str:
    text: str = _text(MAX_NAME)(field, value)
    if text not in {"", "POST"}:
        raise _refused(field, "has unexpected value")
    return text


# In the order in which faults are told.
_FIELDS: tuple[tuple[str, Check], ...] = (
    ("name", _text(MAX_NAME)),
    ("slug", _slug),
    ("tags", _tags),
    ("desc", _text(MAX_DESC)),
    ("timeout", _seconds),
    ("grace", _seconds),
    ("schedule", _schedule),
    ("tz", _timezone),
    *((flag, _flag) for flag in _FLAGS),
    ("methods", _methods),
    *((name, _text(MAX_KEYWORDS)) for name in _KEYWORDS),
)


def wanted_of(body: Mapping[str, Any], version: Version) -> Wanted:
    """What a body says of a check. Raises CheckRefused for the first fault."""
    values: dict[str, Any] = {}
    for name, check in _FIELDS:
        if name in body and not (name == "slug" and version < 3):  # noqa: PLR2004 - the version that knows slugs
            values[name] = check(name, body[name])
    unique = body.get("unique", [])
    if not isinstance(unique, list):
        raise _refused("unique", "is not an array")
    if any(each not in _UNIQUE for each in unique):
        raise CheckRefused(400, "json validation error: an item in 'unique' has unexpected value")
    for name in ("channels", "policy"):
        if name in body:
            values[name] = _text(MAX_DESC)(name, body[name])
    if "schedule" in values and not schedule.is_due_ever(values["schedule"], values.get("tz", "UTC")):
        raise _refused("schedule", "is not a valid cron or OnCalendar expression")
    return Wanted(values, tuple(unique))


def new_definition(wanted: Wanted) -> Definition:
    """The definition of a new check, without its slug, its channels and its policy."""
    blank = Definition(name="", mode="recurring", interval_ms=_DAY_S * _S, grace_ms=_HOUR_S * _S)
    return replace(blank, **changes_of(wanted, PingRules()))


def changes_of(wanted: Wanted, present: PingRules) -> dict[str, Any]:
    """The fields of a definition that a request changes; a schedule beats a period."""
    values = wanted.values
    told: dict[str, tuple[str, Any]] = {
        "name": ("name", values.get("name")),
        "tags": ("tags", values.get("tags")),
        "desc": ("description", values.get("desc") or None),
        "grace": ("grace_ms", values.get("grace", 0) * _S),
        "tz": ("timezone", values.get("tz")),
        "manual_resume": ("is_sticky_pause", values.get("manual_resume")),
    }
    changes = {column: value for name, (column, value) in told.items() if name in values}
    if "schedule" in values:
        changes |= {"mode": "scheduled", "schedule": values["schedule"], "interval_ms": None}
    elif "timeout" in values:
        changes |= {"mode": "recurring", "schedule": None, "interval_ms": values["timeout"] * _S}
    rules = _rules(values, present)
    return changes if rules == present else changes | {"ping_rules": rules.text()}


def _rules(values: Mapping[str, Any], present: PingRules) -> PingRules:
    given = {field.name: values[field.name] for field in fields(PingRules) if field.name in values}
    if "subject" in values or "subject_fail" in values:
        # The older names: they say the keywords and, by being there, that subjects are looked at.
        success = values.get("subject", present.success_kw)
        failure = values.get("subject_fail", present.failure_kw)
        given.setdefault("success_kw", success)
        given.setdefault("failure_kw", failure)
        given.setdefault("filter_subject", bool(success or failure))
    return replace(present, **given)


# Out ----------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class View:
    """How a check is shown: to whom, by which version of the API, and where its addresses begin."""

    version: Version
    is_full: bool
    base_url: str
    now: EpochMs

    def shown(self, heartbeat: Heartbeat) -> dict[str, Any]:
        """A check on the wire."""
        rules = PingRules.of(heartbeat.ping_rules)
        ping_id = heartbeat.ping_id or ""
        is_started = heartbeat.ping_run_id is not None
        status = status_of(heartbeat, self.now)
        told: dict[str, Any] = {
            "name": heartbeat.name,
            "slug": heartbeat.slug or "",
            "tags": " ".join(heartbeat.tags),
            "desc": heartbeat.description or "",
            "grace": heartbeat.grace_ms // _S,
            "n_pings": heartbeat.checkin_count + heartbeat.ping_extras,
            "status": "started" if is_started and self.version == 1 else status,
            "started": is_started,
            "last_ping": _time(heartbeat.last_checkin_at),
            "next_ping": _time(heartbeat.next_deadline),
            "manual_resume": heartbeat.is_sticky_pause,
            "methods": rules.methods,
            "subject": rules.success_kw if rules.filter_subject else "",
            "subject_fail": rules.failure_kw if rules.filter_subject else "",
            "start_kw": rules.start_kw,
            "success_kw": rules.success_kw,
            "failure_kw": rules.failure_kw,
            "filter_subject": rules.filter_subject,
            "filter_body": rules.filter_body,
            "filter_http_body": rules.filter_http_body,
            "filter_default_fail": rules.filter_default_fail,
            "badge_url": f"{self.base_url}/b/2/{heartbeat.badge_id}.svg",
        }
        if heartbeat.last_duration_ms is not None:
            told["last_duration"] = heartbeat.last_duration_ms // _S
        if self.is_full:
            update_url = f"{self.base_url}/api/v{self.version}/checks/{ping_id}"
            told |= {
                "uuid": ping_id,
                "ping_url": f"{self.base_url}/ping/{ping_id}",
                "update_url": update_url,
                "pause_url": f"{update_url}/pause",
                "resume_url": f"{update_url}/resume",
                "channels": ",".join(heartbeat.own_channels),
            }
            if heartbeat.policy_id is not None:
                told["policy"] = heartbeat.policy_id
        else:
            told["unique_key"] = heartbeats.unique_key(ping_id)
        if heartbeat.mode == "scheduled":
            return told | {"schedule": heartbeat.schedule, "tz": heartbeat.timezone}
        return told | {"timeout": (heartbeat.interval_ms or 0) // _S}


CheckStatus = Literal["new", "up", "grace", "down", "paused"]


def status_of(heartbeat: Heartbeat, now: EpochMs) -> CheckStatus:
    """The status of a check.  Source: spec "Pings", section 1."""
    if heartbeat.status == "paused":
        return "paused"
    if heartbeat.status == "firing":
        return "down"
    if not heartbeat.is_armed:
        return "new"
    is_late = heartbeat.next_deadline is not None and now >= heartbeat.next_deadline
    return "grace" if is_late else "up"


def _time(at: EpochMs | None) -> str | None:
    """RFC 3339 without a fraction, with the offset spelled out."""
    return None if at is None else f"{rfc3339(EpochMs(at - at % _S))[:19]}+00:00"


def precise_time(at: EpochMs) -> str:
    """The same with six decimals."""
    return to_datetime(at).isoformat(timespec="microseconds")
