"""What a run reports, whom that is worth telling, and what must never be stored of it. Pure.

Source: spec/bots.md, section 12a.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Literal

from lifesign.clock import EpochMs

Severity = Literal["info", "warning", "critical"]
Mode = Literal["always", "noteworthy", "errors", "never"]

NOTHING: Final = "HEARTBEAT_OK"
MAX_TITLE: Final = 200
MAX_BODY: Final = 4000
MAX_KEY: Final = 200
MAX_RESPONSE_BYTES: Final = 65_536
USUAL_COOLDOWN_S: Final = 21_600
_SEVERITIES: Final = ("info", "warning", "critical")
_SHORTEST_SECRET: Final = 6
_REDACTED: Final = "[redacted]"
_CREDENTIALS = (
    re.compile(
        r"(?i)\b((?:proxy-)?authorization|x-api-key|api[-_]key)(\"?\s*[:=]\s*\"?)(?:(?:bearer|basic)\s+)?[^\s\",;]+"
    ),
    re.compile(r"(?i)\b(bearer)(\s+)[A-Za-z0-9._~+/=-]{8,}"),
    re.compile(r"\b(sk|lsk|whsec)([-_])[A-Za-z0-9+/=_-]{16,}"),
)


@dataclass(frozen=True, slots=True)
class Report:
    """What a run has to tell. key: what repeats of it share."""

    is_noteworthy: bool
    severity: Severity
    title: str
    body: str
    key: str


@dataclass(frozen=True, slots=True)
class Telling:
    """Whether people are told of a run. reports: what, in order; suppressed: what they were told of not long ago."""

    reports: tuple[tuple[Report, bool], ...] = ()
    """Each with whether it says that something is over."""
    is_suppressed: bool = False
    error_key: str | None = None
    """Of the error that people know of, from now on."""


def report_of(told: Any, response: str | None) -> Report | None:  # Any: JSON of a model or of a runner
    """What a run reports: what it says in the form of a report, else what its answer says by itself.

    None when a report has not the form of one.
    """
    if told is None:
        return plain_report(response or "")
    if not isinstance(told, Mapping):
        return None
    title, body = told.get("title"), told.get("body", "")
    severity, key = told.get("severity", "info"), told.get("dedupe_key")
    is_text = isinstance(title, str) and isinstance(body, str) and (key is None or isinstance(key, str))
    if not is_text or severity not in _SEVERITIES or not isinstance(told.get("noteworthy", True), bool):
        return None
    line = _line(str(title))
    return Report(
        told.get("noteworthy", True), severity, line, str(body)[:MAX_BODY], (key or "")[:MAX_KEY] or key_of(line)
    )


def plain_report(text: str) -> Report:
    """What a plain answer reports: nothing, when it is nothing but `HEARTBEAT_OK`."""
    trimmed = text.strip()
    title = _line(trimmed.partition("\n")[0])
    is_noteworthy = bool(trimmed) and trimmed != NOTHING
    return Report(is_noteworthy, "info", title, trimmed[:MAX_BODY], key_of(title))


def _line(text: str) -> str:
    return " ".join(text.split())[:MAX_TITLE]


def key_of(title: str) -> str:
    """The key of a report that names none."""
    return hashlib.sha256(title.encode()).hexdigest()


def telling(
    mode: Mode,
    *,
    report: Report | None,
    error: Report | None,
    known_error: str | None,
    told_at: EpochMs | None,
    cooldown_s: int,
    now: EpochMs,
) -> Telling:
    """Whether people are told of a run that ended.

    report: of a success; error: of an error. known_error: the key of the error that people know of. told_at: when they
    were last told of what this run says.
    """
    subject = error or report
    is_repeated = told_at is not None and 0 <= now - told_at < cooldown_s * 1000
    if mode == "never" or subject is None:
        return Telling(error_key=known_error)
    if error is not None:
        if is_repeated:
            return Telling(is_suppressed=True, error_key=known_error)
        return Telling(((error, False),), error_key=error.key)
    told: list[tuple[Report, bool]] = []
    if known_error is not None:
        told.append((Report(True, "info", "Runs succeed again", "", known_error), True))  # noqa: FBT003 - a field
    is_wanted = mode == "always" or (mode == "noteworthy" and subject.is_noteworthy)
    if is_wanted and not is_repeated:
        told.append((subject, False))
    return Telling(tuple(told), is_suppressed=is_wanted and is_repeated)


def redacted(text: str, secrets: Iterable[str] = ()) -> str:
    """A text without these secrets, and without what looks like credentials."""
    for secret in sorted((each for each in secrets if len(each) >= _SHORTEST_SECRET), key=len, reverse=True):
        text = text.replace(secret, _REDACTED)
    for pattern in _CREDENTIALS:
        text = pattern.sub(rf"\1\2{_REDACTED}", text)
    return text.replace("\x00", "�")


def cut(text: str, most_bytes: int) -> str:
    """A text of at most so many bytes, never inside a character."""
    raw = text.encode("utf-8", "replace")
    return text if len(raw) <= most_bytes else raw[:most_bytes].decode("utf-8", "ignore")
