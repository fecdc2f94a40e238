"""Answers made comparable: what differs from server to server and from run to run gets a name."""

import ipaddress
import json
import re
from dataclasses import dataclass, field
from typing import Any

import httpx2
from prometheus_client.parser import text_string_to_metric_families

# Any, throughout: JSON.
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SHA = re.compile(r"\b[0-9a-f]{40}\b")
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00")
_PRECISE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}\+00:00")
_BADGE = re.compile(r"/badge/[^/]+/[A-Za-z0-9_-]{8}(-2)?")
_KIND = "kind"
SAID_ADDRESSES = ("1.1.1.1", "2001::1")
"""Where requests say that they come from; any other address is that of who asks."""


@dataclass(slots=True)
class Names:
    """What a server calls the things of the script: `{job.uuid}` in a path, `<job>` in what is expected."""

    base: str
    said: dict[str, str]
    known: dict[str, str] = field(default_factory=dict)
    kept: dict[str, Any] = field(default_factory=dict)

    def keep(self, name: str, body: Any) -> None:
        """Remember an answer, and call its check by this name from now on."""
        self.kept[name] = body
        if isinstance(body, dict) and "uuid" in body:
            self.known[body["uuid"]] = f"<{name}>"

    def filled(self, text: str) -> str:
        """A path or a body with the server's own words in it."""
        for match in reversed(list(re.finditer(r"\{([a-z0-9_]+(?:\.[a-zA-Z0-9_*]+)*)\}", text))):
            text = text[: match.start()] + self._word(match[1]) + text[match.end() :]
        return text

    def _word(self, path: str) -> str:
        first, *rest = path.split(".")
        if not rest:
            return self.said[first]
        value = self.kept[first]
        for part in rest:
            value = value[int(part)] if isinstance(value, list) else value[part]
        return str(value)

    def named(self, value: Any, key: str = "") -> Any:
        """A body with names in the place of what nobody can foresee."""
        if isinstance(value, dict):
            return {self._text(name): self.named(each, name) for name, each in value.items()}
        if isinstance(value, list):
            return [self.named(each) for each in value]
        if key in {"duration", "last_duration"}:
            return "<seconds>"
        if key == "ts":
            return "<now>"
        if isinstance(value, str):
            return self._string(value, key)
        return value

    def _string(self, text: str, key: str) -> str:
        if key == "remote_addr":
            return _peer(text)
        if key == "id":
            return "<channel>"
        if key == "channels":
            return ",".join(["<channel>"] * len(text.split(","))) if text else ""
        return self._text(text)

    def _text(self, text: str) -> str:
        text = text.replace(self.base, "<host>")
        for secret, name in self.known.items():
            text = text.replace(secret, name)
        text = _PRECISE.sub("<precise time>", _TIME.sub("<time>", text))
        text = _BADGE.sub(r"/badge/<signed>\1", text)
        return _SHA.sub("<unique key>", _UUID.sub("<uuid>", text))


def _peer(address: str) -> str:
    if address in SAID_ADDRESSES:
        return address
    try:
        ipaddress.ip_address(address)
    except ValueError:
        return address
    return "<peer>"


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered, by its names. body: JSON, or text."""

    status: int
    body: Any
    headers: dict[str, str]

    @classmethod
    def of(cls, got: httpx2.Response, names: Names) -> "Answer":
        """The answer of a server."""
        kind = got.headers.get("content-type", "").partition(";")[0]
        body: Any = got.content.decode("utf-8", "backslashreplace")
        if kind == "application/json":
            body = json.loads(body)
        elif body.startswith("# HELP "):
            body = _samples(body)
        body = names.named(body)
        headers = {name.lower(): value for name, value in got.headers.items()} | {_KIND: kind}
        if "access-control-allow-methods" in headers:
            methods = headers["access-control-allow-methods"].split(", ")
            headers["access-control-allow-methods"] = ", ".join(sorted(methods))
        return cls(got.status_code, body, headers)


def _samples(text: str) -> dict[str, float]:
    """What Prometheus reads in a page of metrics: values by name and labels."""
    return {
        " ".join([sample.name, *(f"{name}={value!r}" for name, value in sorted(sample.labels.items()))]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


# What is expected -----------------------------------------------------------------------------------------------------
class Anything:
    """Matches every body."""


class NoJson:
    """Matches a body that is no JSON: a page, or nothing."""


@dataclass(frozen=True, slots=True)
class Having:
    """Matches an object with these members, and others."""

    members: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Containing:
    """Matches text with these parts."""

    parts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Expected:
    """What an answer should be. status: one, or those that its versions give."""

    status: int | tuple[int, ...]
    body: Any = field(default_factory=Anything)
    headers: dict[str, str] = field(default_factory=dict)

    def why_not(self, got: Answer) -> str | None:
        """What is otherwise; None when the answer is as expected."""
        statuses = (self.status,) if isinstance(self.status, int) else self.status
        if got.status not in statuses:
            return f"status {got.status}, not {self.status}: {got.body}"
        if not _matches(self.body, got.body):
            return f"body {_difference(self.body, got.body)}"
        for name, value in self.headers.items():
            if got.headers.get(name, "") != value:
                return f"header {name}: {got.headers.get(name)!r}, not {value!r}"
        return None


def _matches(wanted: Any, got: Any) -> bool:
    if isinstance(wanted, Anything):
        return True
    if isinstance(wanted, NoJson):
        return isinstance(got, str)
    if isinstance(wanted, Having):
        return isinstance(got, dict) and all(
            name in got and _matches(each, got[name]) for name, each in wanted.members.items()
        )
    if isinstance(wanted, Containing):
        return isinstance(got, str) and all(part in got for part in wanted.parts)
    if isinstance(wanted, dict):
        return (
            isinstance(got, dict)
            and wanted.keys() == got.keys()
            and all(_matches(each, got[name]) for name, each in wanted.items())
        )
    if isinstance(wanted, list):
        return isinstance(got, list) and len(got) == len(wanted) and all(map(_matches, wanted, got))
    # 1 is not True.
    return type(wanted) is type(got) and bool(wanted == got)


def _difference(wanted: Any, got: Any) -> str:
    if isinstance(wanted, Having) and isinstance(got, dict):
        wanted = wanted.members
        got = {name: got.get(name) for name in wanted}
    if isinstance(wanted, dict) and isinstance(got, dict):
        names = sorted(wanted.keys() | got.keys())
        return "; ".join(
            f"{name}: {got.get(name, '(absent)')!r}, not {wanted.get(name, '(absent)')!r}"
            for name in names
            if name not in wanted or name not in got or not _matches(wanted[name], got[name])
        )
    return f"{got!r}, not {wanted!r}"
