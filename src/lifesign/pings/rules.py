"""What is true of pings: which URL means what, which signal a ping counts as, and when it is a repeat.

Spec "Pings", sections 2 to 4. Everything is decided here and nothing is done here.
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from lifesign.clock import EpochMs
from lifesign.heartbeats.counted import PingRules

Action = Literal["success", "start", "fail", "log"]
"""What the URL says."""
Signal = Literal["success", "start", "fail", "log", "ign"]
"""What the ping counts as."""

_S = 1000
MAX_BODY_BYTES = 10 * 1024 * 1024
MAX_SLUG = 100
MAX_UA = 200
LIMIT_AT_LEAST_MS = 60 * _S
DURATION_KNOWN_MS = 72 * 3600 * _S
_MAX_EXIT_STATUS = 255
_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_SLUG = re.compile(rf"[a-z0-9_-]{{1,{MAX_SLUG}}}")
_NO_SLUG, _BETWEEN = re.compile(r"[^a-z0-9_\s-]"), re.compile(r"[\s-]+")
# Leaves ten characters to the number of one that is taken.
_NUMBERED_SLUG = MAX_SLUG - 10
_ID_PREFIX = "hb_"
_ACTIONS: dict[str, Action] = {"start": "start", "fail": "fail", "log": "log"}


class PingRefused(Exception):
    """A ping that cannot be taken; nothing was recorded. `status`: of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class CheckRefused(Exception):
    """A request of the management API that cannot be done. `status`: of the answer."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


PING_SCOPES = frozenset({"checkins:write"})
"""What a key may do that stands in URLs and addresses: this, and nothing else."""
NOT_FOUND = (404, "not found")


# URLs ---------------------------------------------------------------------------------------------------------------
class Target(NamedTuple):
    """What a ping URL names: a heartbeat by its ping id, or by a key and a slug; and what it says.

    is_bad: it names a heartbeat, and says what cannot be said.
    """

    ping_id: str | None
    key: str | None
    slug: str | None
    action: Action
    exit_status: int | None = None
    is_bad: bool = False


def target_of(rest: str) -> Target | None:
    """What stands behind `/ping/`; None when that is no ping URL.  Source: spec "Pings", section 2."""
    parts = rest.split("/")
    if _UUID.fullmatch(parts[0]):
        if len(parts) == 2 and parts[1] == "":  # noqa: PLR2004 - one slash at the end is fine
            parts.pop()
        if len(parts) > 2:  # noqa: PLR2004 - the UUID and what it says
            return None
        return _said(Target(parts[0], None, None, "success"), parts[1:])
    if not 2 <= len(parts) <= 3 or not all(parts):  # noqa: PLR2004 - key, slug and what it says
        return None
    said = _said(Target(None, parts[0].lower(), parts[1], "success"), parts[2:])
    if said is None:
        return None
    return said if is_slug(parts[1]) else said._replace(is_bad=True)


def is_slug(text: str) -> bool:
    """Whether a ping URL may name a heartbeat so."""
    return _SLUG.fullmatch(text) is not None


def slug_of_name(name: str) -> str | None:
    """The slug that a name has in the older versions of the API, which people put into their ping URLs; None: none."""
    letters = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    slug = _BETWEEN.sub("-", _NO_SLUG.sub("", letters)).strip("-_")
    if slug.startswith(_ID_PREFIX):
        slug = slug.replace("_", "-", 1)  # else it would read as an id
    return slug[:_NUMBERED_SLUG].rstrip("-_") or None


def _said(target: Target, words: list[str]) -> Target | None:
    if not words:
        return target
    word = words[0]
    if word in _ACTIONS:
        return target._replace(action=_ACTIONS[word])
    if not (word.isascii() and word.isdigit()):
        return None
    digits = word.lstrip("0") or "0"
    if len(digits) > len(str(_MAX_EXIT_STATUS)) or int(digits) > _MAX_EXIT_STATUS:
        return target._replace(is_bad=True)
    return target._replace(action="fail" if int(digits) else "success", exit_status=int(digits))


def run_id_of(text: str) -> str | None:
    """A run id of the query as it is kept; None when it is no canonical UUID."""
    lowered = text.lower()
    return lowered if _UUID.fullmatch(lowered) else None


def remote_address(forwarded: str | None, peer: str) -> str:
    """Who sent a ping, for people to read: the first that was forwarded for, if it is an address, else the peer."""
    if forwarded:
        first = forwarded.split(",", 1)[0].strip()
        host = _without_port(first)
        try:
            return str(ipaddress.ip_address(host))
        except ValueError:
            return peer
    return peer


def _without_port(text: str) -> str:
    if text.startswith("["):
        return text[1:].partition("]")[0]
    return text.partition(":")[0] if text.count(":") == 1 else text


# Which signal counts ------------------------------------------------------------------------------------------------
def signal_of(rules: PingRules, action: Action, *, method: str, is_bare: bool, body: bytes) -> Signal:
    """What an HTTP ping counts as. is_bare: its URL says nothing but the heartbeat."""
    if rules.methods == "POST" and method != "POST":
        return "ign"
    if rules.filter_http_body and is_bare:
        return _by_keywords(rules, body.decode(errors="replace"))
    return action


def signal_of_mail(rules: PingRules, *, subject: str, body: str) -> Signal:
    """What an e-mail counts as."""
    if not (rules.filter_subject or rules.filter_body):
        return "success"
    parts = ([subject] if rules.filter_subject else []) + ([body] if rules.filter_body else [])
    return _by_keywords(rules, "\n".join(parts))


def _by_keywords(rules: PingRules, text: str) -> Signal:
    found: tuple[tuple[str, Signal], ...] = (
        (rules.failure_kw, "fail"),
        (rules.success_kw, "success"),
        (rules.start_kw, "start"),
    )
    for keywords, signal in found:
        if any(keyword in text for keyword in _keywords(keywords)):
            return signal
    return "fail" if rules.filter_default_fail else "ign"


def _keywords(text: str) -> Iterable[str]:
    return (word for each in text.split(",") if (word := each.strip()))


# Repeats and durations ----------------------------------------------------------------------------------------------
def repeat_window_ms(configured_ms: int, anchor_at: EpochMs, next_deadline: EpochMs | None) -> int:
    """How soon after a ping the same one is a repeat: never so late that a run id that never changes starves it."""
    if next_deadline is None:
        return configured_ms
    return min(configured_ms, max(0, next_deadline - anchor_at) // 2)


def open_since(came: Mapping[Signal, EpochMs]) -> EpochMs | None:
    """When the run began whose signals came last at these times; None when it has ended since, or never began."""
    started_at = came.get("start")
    ends = [at for signal, at in came.items() if signal in {"success", "fail"}]
    return None if started_at is None or max(ends, default=started_at - 1) >= started_at else started_at


def duration_ms(started_at: EpochMs | None, now: EpochMs) -> int | None:
    """How long it took since a start; None when that is too long ago to belong to it."""
    if started_at is None or not 0 <= now - started_at < DURATION_KNOWN_MS:
        return None
    return now - started_at


# Creating by ping ---------------------------------------------------------------------------------------------------
_DURATION = re.compile(r"([0-9]{1,10})([smhd]?)")
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_LONGEST_S = 365 * 86_400


def seconds_of(text: str, *, shortest: int) -> int | None:
    """Seconds of `90`, `90s`, `5m`, `2h` or `1d`, from `shortest` to 365 days; None for anything else."""
    match = _DURATION.fullmatch(text)
    if match is None:
        return None
    seconds = int(match[1]) * _UNITS[match[2]]
    return seconds if shortest <= seconds <= _LONGEST_S else None
