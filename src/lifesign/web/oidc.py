"""Signing in by OpenID Connect, as far as it is pure: attempts, what ends them, and who may come in.

An attempt begins in a browser, goes to the provider and comes back. Its browser keeps a cookie; state, nonce and PKCE
verifier are derived from that and a secret of the server, so that nothing is stored before somebody comes back.
"""

import base64
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from lifesign.clock import EpochMs

ATTEMPTS_INFO: Final = "lifesign/oidc/v1"
ATTEMPT_MS: Final = 600_000
_MAX_PLACE: Final = 1000
_COOKIE: Final = re.compile(r"([A-Za-z0-9_-]{43})\.([0-9]{1,15})\.([A-Za-z0-9_-]{1,1400})")


class SignInFailed(Exception):
    """Nobody is signed in. The message is for the person; `kind` is for the log.

    why: what was found, for whoever runs this server.
    """

    def __init__(self, kind: str, status: int, message: str, why: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.status = status
        self.why = why


def denied(name: str, why: str) -> SignInFailed:
    return SignInFailed("denied", 403, f"{name} did not let you in: you cancelled, or may not use this there", why)


def stale() -> SignInFailed:
    return SignInFailed(
        "stale",
        400,
        "This sign-in began in another browser, more than ten minutes ago, or not here at all; begin again",
    )


def spent() -> SignInFailed:
    return SignInFailed("spent", 400, "This way back was taken already; begin again")


def away(name: str, why: str) -> SignInFailed:
    return SignInFailed("away", 503, f"{name} does not answer as it should; try again in a moment", why)


def odd(name: str, why: str) -> SignInFailed:
    return SignInFailed(
        "odd", 502, f"What {name} says of you is not accepted ({why}); tell whoever runs this server", why
    )


def unverified(name: str) -> SignInFailed:
    return SignInFailed("unverified", 403, f"{name} does not vouch for your e-mail address; verify it there first")


def elsewhere(email: str) -> SignInFailed:
    return SignInFailed("domain", 403, f"{email} is of a domain that may not sign in here")


def without_account(email: str) -> SignInFailed:
    return SignInFailed(
        "unknown", 403, f"Nobody has an account with {email}; ask whoever runs this server for: lifesign users add"
    )


def taken(email: str) -> SignInFailed:
    return SignInFailed(
        "taken", 403, f"{email} belongs to somebody else here; ask whoever runs this server for: lifesign users reset"
    )


def too_early() -> SignInFailed:
    return SignInFailed("too_early", 403, "Nobody has an account yet: the owner's comes first")


@dataclass(frozen=True, slots=True)
class Identity:
    """Who somebody is at the provider, which vouches for the address."""

    subject: str
    email: str


@dataclass(frozen=True, slots=True)
class Attempt:
    """What goes to the provider, and where to go on afterwards. verifier: goes there last, and tells that it is us."""

    place: str
    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True)
class Attempts:
    """Begins attempts with the first of `keys`, knows those that were begun with any."""

    keys: Sequence[bytes]

    def begin(self, token: str, place: str, now: EpochMs) -> tuple[str, Attempt]:
        """The cookie of a new attempt, and the attempt. token: 43 random characters."""
        place = place if len(place) <= _MAX_PLACE else "/"
        kept = base64.urlsafe_b64encode(place.encode()).decode().rstrip("=")
        cookie = f"{token}.{now + ATTEMPT_MS}.{kept}"
        return cookie, _attempt(self.keys[0], cookie, place)

    def resume(self, cookie: str, state: str, now: EpochMs) -> Attempt:
        """The attempt of this cookie that comes back with `state`. Raises SignInFailed."""
        found = _COOKIE.fullmatch(cookie)
        if found is None or int(found[2]) <= now:
            raise stale()
        for key in self.keys:
            attempt = _attempt(key, cookie, "")
            # The state covers the whole cookie: with the right one nothing of it was made elsewhere.
            if hmac.compare_digest(attempt.state.encode(), state.encode("utf-8", "replace")):
                return _attempt(key, cookie, base64.urlsafe_b64decode(found[3] + "==").decode())
        raise stale()


def _attempt(key: bytes, cookie: str, place: str) -> Attempt:
    state, nonce, verifier = (_derived(key, use, cookie) for use in ("state", "nonce", "verifier"))
    return Attempt(place, state, nonce, verifier)


def _derived(key: bytes, use: str, cookie: str) -> str:
    digest = hmac.digest(key, f"{use}|{cookie}".encode(), hashlib.sha256)
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def domains_of(setting: str) -> frozenset[str]:
    """Domains that may sign in, as the setting lists them."""
    return frozenset(part.strip().casefold() for part in setting.split(",") if part.strip())


def is_let_in(email: str, domains: frozenset[str]) -> bool:
    """Whether the domain of an address, case folded, is one of them; a domain of a domain is another one."""
    return not domains or "*" in domains or email.rpartition("@")[2] in domains
