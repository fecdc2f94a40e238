"""Who people are and what they may do, what a password must be, and how wrong ones slow things down."""

import hashlib
import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from lifesign.auth.rules import ALL, KNOWN_SCOPES, Caller
from lifesign.clock import EpochMs

Role = Literal["owner", "editor", "viewer"]
ROLES: tuple[Role, ...] = get_args(Role)

MIN_PASSWORD = 12
MAX_PASSWORD = 256
_MIN_SCORE = 3
MAX_EMAIL = 254
_EMAIL = re.compile(r"[^@\s\x00-\x1f\x7f]{1,64}@[^@\s\x00-\x1f\x7f]{1,253}")

SESSION_MS = 30 * 86_400_000
INVITATION_MS = 7 * 86_400_000
RESET_MS = 86_400_000

FREE_FAILURES = 5
FAILURES_COUNT_MS = 3_600_000
_FIRST_WAIT_MS = 30_000
_LONGEST_WAIT_MS = 900_000


class NotSignedIn(Exception):
    """The page is for people who are signed in; `place` is where to go on afterwards."""

    def __init__(self, place: str) -> None:
        super().__init__("Sign in first")
        self.place = place


class FormForged(Exception):
    """The form does not come from a page of ours, or from one of another session."""

    def __init__(self) -> None:
        super().__init__("This form is too old, or did not come from this server; go back, reload the page, try again")


class RoleRefused(Exception):
    """The person may look, but not do this."""

    def __init__(self, role: Role) -> None:
        super().__init__(f"Your role in this project is {role}, which does not allow this")
        self.role = role


class NoProject(Exception):
    """The person belongs to no project any more."""

    def __init__(self) -> None:
        super().__init__("You belong to no project; ask whoever runs this server for: lifesign users add")


class NotAMember(Exception):
    """The person does not belong to the project they asked for."""

    def __init__(self) -> None:
        super().__init__("You do not belong to this project")


class LinkUnknown(Exception):
    """Nobody made such a link, or its time is over."""


class LinkUsed(Exception):
    """The link has done what it was made for."""


class TooManyPasswords(Exception):
    """Too many wrong passwords of late, for this account or from this network."""

    def __init__(self, wait_ms: int) -> None:
        self.retry_after_s = -(-wait_ms // 1000)
        super().__init__(f"Too many wrong passwords; try again in {self.retry_after_s} s")


class UserNotFound(Exception):
    """Nobody has an account with this address."""

    def __init__(self, email: str) -> None:
        super().__init__(f"no account has the address {email}")


@dataclass(frozen=True, slots=True)
class Membership:
    """What a person may do in one project."""

    project_id: str
    project_name: str
    role: Role


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody who is signed in, and the project their pages show."""

    user_id: str
    email: str
    session_id: str
    csrf: str
    shown: Membership
    memberships: tuple[Membership, ...]

    @property
    def caller(self) -> Caller:
        """The person as the services of the other slices know callers."""
        return Caller(self.user_id, self.email, self.shown.project_id, SCOPES[self.shown.role])

    @property
    def may_change(self) -> bool:
        """Whether the person may do more than look."""
        return self.shown.role != "viewer"

    @property
    def actor(self) -> str:
        """The name under which what the person does is remembered."""
        return f"user:{self.email}"


_READS = frozenset(scope for scope in KNOWN_SCOPES if scope.endswith(":read"))
SCOPES: Mapping[Role, frozenset[str]] = {
    "owner": frozenset({ALL}),
    "editor": frozenset(KNOWN_SCOPES) - {ALL, "keys:write"},
    "viewer": _READS,
}


def shown_membership(memberships: tuple[Membership, ...], wanted: str | None) -> Membership:
    """The one of the project that was chosen last, or the first. Raises NoProject."""
    for each in memberships:
        if each.project_id == wanted:
            return each
    if not memberships:
        raise NoProject
    return memberships[0]


def checked_email(text: str) -> str | None:
    """The address as it is kept, case folded; None when it is none."""
    email = text.strip().casefold()
    return email if len(email) <= MAX_EMAIL and _EMAIL.fullmatch(email) else None


def length_fault(password: str) -> str | None:
    """What is wrong with the length of a new password."""
    if len(password) < MIN_PASSWORD:
        return f"must have at least {MIN_PASSWORD} characters"
    if len(password) > MAX_PASSWORD:
        return f"must have at most {MAX_PASSWORD} characters"
    return None


def strength_fault(score: int, warning: str) -> str | None:
    """What is wrong with a password of this zxcvbn score; `warning`: what zxcvbn says of it."""
    if score >= _MIN_SCORE:
        return None
    return f"is too easy to guess. {warning}".rstrip(". ") + ". Four or more unrelated words are hard to guess"


def wait_ms(failures: int, last_at: EpochMs | None, now: EpochMs) -> int:
    """How long the next try has to wait; 0: it may come.

    failures: within `FAILURES_COUNT_MS`; last_at: the latest of them. Five are free; then the wait doubles from 30 s to
    15 min. Source: spec "Web interface", signing in.
    """
    if failures < FREE_FAILURES or last_at is None:
        return 0
    doublings = min(failures - FREE_FAILURES, _LONGEST_WAIT_MS.bit_length())
    wait = min(_FIRST_WAIT_MS << doublings, _LONGEST_WAIT_MS)
    return max(0, last_at + wait - now)


def csrf_of(token: str) -> str:
    """What the forms of a session carry: known to whoever has its cookie, which no other page can read."""
    return hmac.digest(token.encode(), b"lifesign forms", hashlib.sha256).hex()


def is_same(given: str, wanted: str) -> bool:
    """Whether two secrets are the same, without telling by the time it takes how much of them is."""
    return hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode())


def safe_place(wanted: str) -> str:
    """Where to go on after signing in: a path of this server, whatever was asked for."""
    is_path = wanted.startswith("/") and not wanted.startswith(("//", "/\\")) and wanted.isprintable()
    return wanted if is_path else "/"
