"""A check of Healthchecks, as its management API tells it, in the words of the Heartbeats API."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from lifesign.http.fields import has_control_characters, one_line

# Any, throughout: JSON.
Check = Mapping[str, Any]

ORIGIN = "import"
"""What an import says of the heartbeats it makes."""
MAX_EVENTS = 1000
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SLUG = re.compile(r"(?!hb_)[a-z0-9_-]{1,100}")
# By our name, theirs.
_PINGS = {
    "methods": "methods",
    "filterSubject": "filter_subject",
    "filterBody": "filter_body",
    "filterHttpBody": "filter_http_body",
    "filterDefaultFail": "filter_default_fail",
    "startKeywords": "start_kw",
    "successKeywords": "success_kw",
    "failureKeywords": "failure_kw",
}


class NotACheck(Exception):
    """The answer holds something that no Healthchecks server sends."""


class ReadOnlyKey(Exception):
    """The key may only read, so that the checks hide their UUIDs."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A check, translated. body: of the request that makes the heartbeat, without its channels and its policy.

    channels: ids of its channels there. remarks: what could not be taken over as it was.
    """

    uuid: str
    name: str
    body: dict[str, Any]
    channels: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()


def translated(check: Check) -> Translated:
    """One check. Raises NotACheck, ReadOnlyKey."""
    if not isinstance(check, Mapping):
        raise NotACheck("a check is not an object")
    uuid = uuid_of(check)
    told, slug = _text(check, "name").strip(), _text(check, "slug")
    name = one_line(told)
    remarks = []
    if has_control_characters(told):
        remarks.append("its name has line breaks or the like; here it stands on one line")
    shown = name or slug or f"check {uuid[:8]}"
    body: dict[str, Any] = {"name": shown, "grace": _number(check, "grace"), "pingId": uuid, "origin": ORIGIN}
    if _SLUG.fullmatch(slug):
        body["slug"] = slug
    elif slug:
        remarks.append(f"the slug {slug!r} is none here; another is made from the name")
    body |= _timing(check)
    if tags := list(dict.fromkeys(_text(check, "tags").split())):
        body["tags"] = tags
    if description := _text(check, "desc"):
        body["description"] = description
    if pings := _pings(check):
        body["pings"] = pings
    body["stickyPause"] = check.get("manual_resume") is True
    if check.get("status") == "paused":
        body["paused"] = True
    elif check.get("last_ping") is None:
        # Nothing was expected of it yet, and nothing is until it is pinged.
        body["armed"] = False
    channels = tuple(each for each in _text(check, "channels").split(",") if each)
    return Translated(uuid, shown, body, channels, tuple(remarks))


def uuid_of(check: Check) -> str:
    """The UUID that a check is pinged by; version 1 of the API tells it in an address only. Raises ReadOnlyKey."""
    told = check.get("uuid")
    if not isinstance(told, str):
        address = check.get("ping_url")
        told = address.rstrip("/").rpartition("/")[2] if isinstance(address, str) else ""
    if not _UUID.fullmatch(told.lower()):
        raise ReadOnlyKey
    return told.lower()


def _timing(check: Check) -> dict[str, Any]:
    if "schedule" in check:
        timezone = _text(check, "tz")
        return {"mode": "scheduled", "schedule": _text(check, "schedule"), "timezone": timezone or "UTC"}
    return {"mode": "recurring", "interval": _number(check, "timeout")}


def _pings(check: Check) -> dict[str, Any]:
    told = {ours: check[theirs] for ours, theirs in _PINGS.items() if check.get(theirs) not in (None, "", False)}
    if "success_kw" not in check and "failure_kw" not in check:
        # The older names, which say by being there that subjects are looked at.
        success, failure = _text(check, "subject"), _text(check, "subject_fail")
        if success or failure:
            told |= {"filterSubject": True, "successKeywords": success, "failureKeywords": failure}
    return told


def _text(check: Check, name: str) -> str:
    value = check.get(name, "")
    if value is None:
        return ""
    if not isinstance(value, str):
        raise NotACheck(f"{name} is not a text")
    return value


def _number(check: Check, name: str) -> int:
    value = check.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise NotACheck(f"{name} is not a number")
    return value


def checks_in(answer: object) -> list[Check]:
    """The checks of a list. Raises NotACheck."""
    found = answer.get("checks") if isinstance(answer, Mapping) else None
    if not isinstance(found, list):
        raise NotACheck("there is no list of checks")
    return found


def channels_in(answer: object) -> dict[str, str]:
    """The names of channels, by id. Raises NotACheck."""
    found = answer.get("channels") if isinstance(answer, Mapping) else None
    if not isinstance(found, list):
        raise NotACheck("there is no list of channels")
    return {
        str(each["id"]): str(each.get("name") or each.get("kind") or each["id"])
        for each in found
        if isinstance(each, Mapping) and "id" in each
    }


def flips_in(answer: object) -> list[dict[str, str]]:
    """The flips of a check, as events of ours, oldest first; they stand in a member or alone. Raises NotACheck."""
    found = answer.get("flips") if isinstance(answer, Mapping) else answer
    if not isinstance(found, list):
        raise NotACheck("there is no list of flips")
    told = []
    for each in found:
        if not isinstance(each, Mapping) or str(each.get("up")) not in {"0", "1"}:
            raise NotACheck("a flip is none")
        if not _is_instant(each.get("timestamp")):
            raise NotACheck("a flip has no time")
        told.append({"type": "resolved" if each["up"] else "firing", "createdAt": each["timestamp"]})
    return sorted(told, key=lambda each: datetime.fromisoformat(each["createdAt"]))


def _is_instant(value: object) -> bool:
    """Whether it is a time with its offset: the others cannot be put in order."""
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Known:
    """A heartbeat that is here already. ping_id: None where it is pinged by nobody."""

    id: str
    slug: str | None
    ping_id: str | None
    origin: str | None


class Present:
    """The heartbeats that are here, found by what a check would take."""

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """From their list, as a key sees them that may write."""
        self._by_ping_id: dict[str, Known] = {}
        self._by_slug: dict[str, Known] = {}
        for row in rows:
            ping_id = str(row.get("pingUrl", "")).rpartition("/")[2] or None
            self.add(Known(row["id"], row.get("slug"), ping_id, row.get("origin")))

    def add(self, heartbeat: Known) -> None:
        """One more."""
        if heartbeat.ping_id is not None:
            self._by_ping_id[heartbeat.ping_id] = heartbeat
        if heartbeat.slug is not None:
            self._by_slug[heartbeat.slug] = heartbeat

    def of(self, check: Translated) -> Known | str | None:
        """The heartbeat that a check became before; or what stands in its way; None when nothing does."""
        found = self._by_ping_id.get(check.uuid)
        if found is not None:
            return found if found.origin == ORIGIN else f"its UUID is that of the heartbeat {found.slug or found.id}"
        slug = check.body.get("slug")
        return f"its slug {slug} is taken" if slug in self._by_slug else None
