"""What a key is and what its scopes allow."""

import base64
import hashlib
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from lifesign.clock import EpochMs, rfc3339

TOKEN_PREFIX = "lsk_"  # noqa: S105 - how a token begins, not one
_TOKEN_BYTES = 32
_SHOWN = 12
# Of a key the operator chose, less is shown: it may be short.
_SHOWN_OF_CHOSEN = 4
Kind = Literal["producer", "agent"]
KIND_PREFIXES: Mapping[Kind, str] = {"producer": "lk_ingest_", "agent": "lk_agent_"}
_BEARER = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([\x21-\x7e]{1,256}) *")

ALL = "*"
_NOUNS = ("policies", "channels", "keys", "systems")
# Scope -> what it includes besides itself.
INCLUDES: dict[str, frozenset[str]] = {
    "heartbeats:read": frozenset(),
    "heartbeats:write": frozenset({"heartbeats:read", "checkins:write"}),
    "checkins:write": frozenset(),
    **{f"{noun}:read": frozenset() for noun in _NOUNS},
    **{f"{noun}:write": frozenset({f"{noun}:read"}) for noun in _NOUNS},
    # Of the Telemetry API, in which whoever writes does not read.
    "telemetry:write": frozenset(),
    "telemetry:read": frozenset(),
    "runs:write": frozenset(),
    "dashboard:read": frozenset(),
    "reports:read": frozenset(),
    "bots:read": frozenset(),
    **{f"bots:{verb}": frozenset({"bots:read"}) for verb in ("write", "run", "admin")},
    ALL: frozenset(),
}
KNOWN_SCOPES = tuple(sorted(INCLUDES))
PRODUCER_SCOPE = "telemetry:write"
KIND_SCOPES: Mapping[Kind, tuple[str, ...]] = {
    "producer": (PRODUCER_SCOPE,),
    "agent": ("runs:write", "telemetry:read", "dashboard:read", "reports:read"),
}


class Unauthorized(Exception):
    """No key, or one that does not count; its kinds tell which."""


class KeyMissing(Unauthorized):
    """There is no `Authorization` header."""


class KeyUnknown(Unauthorized):
    """Another scheme, nothing after it, or a key that nobody knows."""


class KeyRevoked(Unauthorized):
    """Somebody took this key back."""


class KeyExpired(Unauthorized):
    """The time of this key is over."""

    def __init__(self, expires_at: EpochMs) -> None:
        super().__init__(f"expired at {rfc3339(expires_at)}")
        self.expires_at = expires_at


class WrongKeyKind(Exception):
    """The key is good, but a route of the Telemetry API is for keys of the other kind."""

    def __init__(self, kind: Kind) -> None:
        super().__init__(f"needs {'an agent' if kind == 'agent' else 'a producer'} key")
        self.kind = kind


class MissingScope(Exception):
    """The key is good but does not allow this."""

    def __init__(self, scopes: Iterable[str]) -> None:
        self.scopes = sorted(scopes)
        super().__init__(f"Missing scope: {', '.join(self.scopes)}")


class KeyNotFound(Exception):
    """The project has no key with this id."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who is calling: a key (or the operator), its project and what it may do."""

    key_id: str
    key_name: str
    project_id: str
    scopes: frozenset[str]
    kind: Kind | None = None
    """Of a self-service project's key."""
    key_prefix: str = ""

    def allows(self, scope: str) -> bool:
        """True when the key has `scope`, directly or by inclusion."""
        return allows(self.scopes, scope)


def new_token() -> str:
    """A fresh token: `lsk_` and 32 random bytes in lower-case base32 without padding."""
    return TOKEN_PREFIX + base64.b32encode(secrets.token_bytes(_TOKEN_BYTES)).decode().rstrip("=").lower()


def new_token_of(kind: Kind) -> str:
    """A fresh token of a self-service project: its prefix and 32 random bytes in base64url, 43 characters."""
    return KIND_PREFIXES[kind] + secrets.token_urlsafe(_TOKEN_BYTES)


def token_hash(token: str | bytes) -> bytes:
    """What is stored of a token. Tokens carry 256 bits of randomness, so a plain SHA-256 cannot be guessed back."""
    return hashlib.sha256(token.encode() if isinstance(token, str) else token).digest()


def shown_prefix(token: str, *, chosen: bool = False) -> str:
    """The part of a token that may be shown."""
    return token[: _SHOWN_OF_CHOSEN if chosen else _SHOWN]


def bearer_token(header: bytes | None) -> bytes:
    """The token of an `Authorization` header; the scheme word in any case. Raises KeyMissing, KeyUnknown."""
    if header is None:
        raise KeyMissing
    match = _BEARER.fullmatch(header)
    if match is None:
        raise KeyUnknown
    return match[1]


def is_expired(expires_at: EpochMs | None, now: EpochMs) -> bool:
    """True from the very moment of expiry."""
    return expires_at is not None and now >= expires_at


def allows(scopes: frozenset[str], wanted: str) -> bool:
    """True when `scopes` hold `wanted`, directly, by inclusion or by `*`."""
    return ALL in scopes or wanted in scopes or any(wanted in INCLUDES.get(scope, ()) for scope in scopes)


def not_covered(scopes: frozenset[str], wanted: Iterable[str]) -> list[str]:
    """Those of `wanted` that a key with `scopes` may not hand on."""
    return sorted(scope for scope in wanted if not allows(scopes, scope))
