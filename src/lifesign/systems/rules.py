"""What is true of systems: who a machine is, whether it is alive, and how many there were.

Spec "Systems", sections 2 to 5. Everything is decided here and nothing is done here.
"""

import binascii
import hashlib
import hmac
import re
import secrets
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, NamedTuple

from lifesign.clock import EpochMs, from_datetime, to_datetime

Liveness = Literal["alive", "dead", "zombie"]
Word = Literal[
    "required", "invalid_type", "invalid_format", "invalid_value", "out_of_range", "unknown_field", "not_found"
]

_S = 1000
_MINUTE_MS = 60 * _S
MAX_SHOWN_VALUE = 200
SECRET_PREFIX = "lss_"  # noqa: S105 - how a secret begins, not one
_HINT = 4
_BASE64 = re.compile(rb"(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_KEY = re.compile(r"SYS(-[0-9A-F]{4}){4}")
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
RESERVED = ("heartbeat", "info", "inventory", "totals", "trend")
"""What stands after `/api/systems/` and is not a system."""


class SystemNotFound(Exception):
    """The project has no system with this id or key."""


class SystemExists(Exception):
    """The id belongs to a system already, here or in another project."""


class InventoryNotFound(Exception):
    """The system has not sent an inventory yet."""


class SystemIdMismatch(Exception):
    """A machine reported for another system than the one whose credentials it has."""


class StaleCredential(Exception):
    """What was remembered of a system's credentials is not so any more."""


class NotAuthenticated(Exception):
    """The request does not say who sends it, or does not prove it. `scheme`: the one that the route expects."""

    def __init__(self, message: str, scheme: Literal["Basic", "Bearer"] = "Basic") -> None:
        super().__init__(message)
        self.scheme = scheme


class Flaw(NamedTuple):
    """One thing wrong with one field. `value`: what came, as text."""

    key: str
    message: Word
    value: str = ""


class ValidationFailed(Exception):
    """The request cannot be accepted; nothing was stored."""

    def __init__(self, *flaws: Flaw) -> None:
        super().__init__("validation failed")
        self.flaws = flaws


@dataclass(frozen=True, slots=True)
class System:
    """A system, without its secret. Instants are epoch ms, `interval_s` seconds."""

    id: str
    project_id: str
    key: str
    name: str
    type: str
    fqdn: str
    notes: str
    tags: tuple[str, ...]
    interval_s: int | None
    heartbeat_id: str
    secret_hint: str
    credential_version: int
    suspended_at: EpochMs | None
    first_heartbeat: EpochMs | None
    last_heartbeat: EpochMs | None
    created_at: EpochMs
    updated_at: EpochMs
    origin: str | None = None

    @property
    def owner(self) -> str:
        """What the heartbeat underneath belongs to."""
        return owner(self.id)


def owner(system_id: str) -> str:
    """What the heartbeat underneath a system belongs to."""
    return f"system {system_id}"


# Names and secrets --------------------------------------------------------------------------------------------------
def new_key() -> str:
    """`SYS-XXXX-XXXX-XXXX-XXXX` of 64 random bits."""
    text = secrets.token_hex(8).upper()
    return "-".join(["SYS", *(text[at : at + 4] for at in range(0, len(text), 4))])


def new_secret() -> str:
    """`lss_` and 32 random bytes in lower-case hex."""
    return SECRET_PREFIX + secrets.token_hex(32)


def secret_hash(secret: str | bytes) -> str:
    """What is stored of a secret: SHA-256, in hex. Secrets are random, so a plain hash cannot be guessed back."""
    return hashlib.sha256(secret.encode() if isinstance(secret, str) else secret).hexdigest()


def secret_hint(secret: str) -> str:
    """The part of a secret that may be shown."""
    return secret[-_HINT:]


def normalized_ref(ref: str) -> str | None:
    """An id or a key as it is stored, from any case; None when it is of neither form."""
    if not ref.isascii():
        return None
    if _UUID.fullmatch(lower := ref.lower()):
        return lower
    return upper if _KEY.fullmatch(upper := ref.upper()) else None


# Who reports --------------------------------------------------------------------------------------------------------
INVALID_CREDENTIALS = "invalid system credentials"
# What the secret of an unknown system is compared with, so that looking takes as long as it does for a known one.
NOBODYS_HASH = secret_hash(b"nobody")


class Credentials(NamedTuple):
    """What a machine says: its id or key as stored (None: no system can be called so), and its secret."""

    username: str
    ref: str | None
    secret: bytes


def basic_credentials(header: bytes | None) -> Credentials:
    """The credentials of an `Authorization` header. Raises NotAuthenticated.  Source: spec "Systems", section 2.1."""
    if header is None or not header.strip():
        raise NotAuthenticated("authentication required")
    if header[:6].lower() != b"basic ":
        raise NotAuthenticated("invalid authentication format")
    # Python's own strict mode takes too much padding.
    if not _BASE64.fullmatch(header, 6):
        raise NotAuthenticated("invalid authentication encoding")
    decoded = binascii.a2b_base64(header[6:])
    username, colon, secret = decoded.partition(b":")
    if not colon:
        raise NotAuthenticated("invalid credentials format")
    try:
        name = username.decode()
        secret.decode()
    except UnicodeDecodeError:
        return Credentials("", None, secret)
    return Credentials(name, normalized_ref(name), secret)


def is_secret(secret: bytes, wanted: str) -> bool:
    """Whether `secret` has the hash `wanted`; takes as long for any secret of its length."""
    return hmac.compare_digest(secret_hash(secret), wanted)


# Liveness -----------------------------------------------------------------------------------------------------------
class Windows(NamedTuple):
    """How often systems without an interval of their own report, until when they read alive, when they alert; ms."""

    interval_ms: int
    alive_ms: int
    alert_ms: int

    def of(self, interval_s: int | None) -> "Windows":
        """Those of a system: with its own interval n, alive for n and a half, alert after two."""
        if interval_s is None:
            return self
        return Windows(interval_s * _S, -(-interval_s * 3 // 2) * _S, 2 * interval_s * _S)


def liveness(last_heartbeat: EpochMs | None, alive_ms: int, now: EpochMs) -> Liveness:
    """Whether a system lives. Exactly at the end of its window it is dead."""
    if last_heartbeat is None:
        return "zombie"
    return "alive" if now - last_heartbeat < alive_ms else "dead"


def minutes_since(at: EpochMs, now: EpochMs) -> int:
    """Whole minutes, rounded down; none before `at`."""
    return max(0, now - at) // _MINUTE_MS


# How many there were ------------------------------------------------------------------------------------------------
Period = Literal[7, 30, 180, 365]
_WEEK = 7
_WEEKS, _MONTHS = 26, 12


class Trend(NamedTuple):
    """How many systems existed at the end of each of `days`, ascending, and a period before the last of them."""

    days: tuple[date, ...]
    counts: tuple[int, ...]
    previous: int

    @property
    def delta(self) -> int:
        """How many more there are than a period ago."""
        return self.counts[-1] - self.previous

    @property
    def delta_percentage(self) -> float:
        """The same in percent; 100 when there were none before, 0 when there are none now either."""
        if self.previous == 0:
            return 100.0 if self.counts[-1] else 0.0
        return round(self.delta * 100 / self.previous, 2)

    @property
    def direction(self) -> Literal["up", "down", "stable"]:
        """Which way it goes."""
        return "stable" if self.delta == 0 else "up" if self.delta > 0 else "down"


def trend(created: Iterable[EpochMs], deleted: Iterable[EpochMs], period: Period, now: EpochMs) -> Trend:
    """The trend of systems that were created and deleted at these instants.  Source: spec "Systems", section 5.2."""
    began, ended = sorted(created), sorted(deleted)
    today = to_datetime(now).date()

    def count_on(day: date) -> int:
        end = _end_of(day)
        return bisect_right(began, end) - bisect_right(ended, end)

    days = _points(period, today)
    return Trend(days, tuple(map(count_on, days)), count_on(today - timedelta(days=period)))


def _points(period: Period, today: date) -> tuple[date, ...]:
    if period == 365:  # noqa: PLR2004 - the period that counts calendar months
        return (*_month_ends(today, _MONTHS - 1), today)
    step, count = (_WEEK, _WEEKS) if period == 180 else (1, period)  # noqa: PLR2004 - the period that counts weeks
    return tuple(today - timedelta(days=step * back) for back in range(count - 1, -1, -1))


def _month_ends(today: date, count: int) -> Sequence[date]:
    """The last days of the `count` months before this one, ascending."""
    ends: list[date] = []
    first = today.replace(day=1)
    for _ in range(count):
        last = first - timedelta(days=1)
        ends.insert(0, last)
        first = last.replace(day=1)
    return ends


def _end_of(day: date) -> EpochMs:
    midnight = to_datetime(EpochMs(0)).replace(year=day.year, month=day.month, day=day.day) + timedelta(days=1)
    return EpochMs(from_datetime(midnight) - 1)


@dataclass(frozen=True, slots=True)
class Definition:
    """What a person says of a system."""

    name: str
    type: str = ""
    fqdn: str = ""
    notes: str = ""
    tags: tuple[str, ...] = ()
    interval_s: int | None = None
    policy_id: str | None = None
