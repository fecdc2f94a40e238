"""What is true of projects: what they are called, which name is whose, and the codes that give them back."""

import hashlib
import hmac
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from lifesign.clock import EpochMs

DEFAULT_PROJECT = "default"
DEFAULT_TENANT = "default"
SANDBOX: Literal["sandbox"] = "sandbox"
"""The tenant of projects that made themselves, and the plan of those among them that expire."""
MAX_NAME = 100
NAME_RULE = f"must be 1 to {MAX_NAME} characters with at least one letter or digit"
_DAY = 24 * 3600 * 1000
KEPT_AFTER_EXPIRY_MS = 30 * _DAY
WINDOW_MS = 3600 * 1000
_MAX_ID_SLUG = 40
# Index entries of PostgreSQL are of bounded size, and normalisation can make 18 characters of one.
_MAX_KEY, _KEPT_OF_KEY = 200, 137
_TENANT = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")

NameField = Literal["project_name", "operator"]
Limiter = Literal["mint", "recover", "vitals_keys", "dashboard"]
LIMITERS: tuple[Limiter, ...] = get_args(Limiter)


_TOO_MANY: dict[Limiter, str] = {
    "mint": "Too many new projects; try again later",
    "recover": "Too many recoveries; try again later",
    "vitals_keys": "Too many key requests from this address",
    "dashboard": "Too many keys were tried; try again later",
}


# Refusals -----------------------------------------------------------------------------------------------------------
class ProjectNotFound(Exception):
    """No project has this id or name."""

    def __init__(self, name: str) -> None:
        super().__init__(f"project {name} does not exist")
        self.name = name


class ProjectAmbiguous(Exception):
    """Several projects have this name."""

    def __init__(self, name: str, project_ids: Sequence[str]) -> None:
        super().__init__(f"several projects are called {name}; name one by its id: {', '.join(project_ids)}")
        self.name = name
        self.project_ids = project_ids


class NameRequired(Exception):
    """A project must have a name."""


class NameInvalid(Exception):
    """A name is too long, or has nothing that could be told apart."""

    def __init__(self, field: NameField) -> None:
        super().__init__(f"{field} {NAME_RULE}")
        self.field = field


class NotProjectKey(Exception):
    """A good key, but of another project, or for another API."""


class NameClaimed(Exception):
    """Somebody else was quicker."""


class RateLimited(Exception):
    """Too many calls within the last hour."""

    def __init__(self, limiter: Limiter, wait_ms: int) -> None:
        super().__init__(_TOO_MANY[limiter])
        self.limiter = limiter
        self.wait_ms = wait_ms


class CodesSwitchedOff(Exception):
    """The server has no secret, so that there are no codes."""

    def __init__(self, what: Literal["upgrade", "recovery"]) -> None:
        super().__init__(f"{what.capitalize()} is switched off on this server")
        self.what = what


class CodeRequired(Exception):
    """An upgrade needs its code."""


class RecoveryFieldsRequired(Exception):
    """A recovery needs a project and its code."""


class NotSandbox(Exception):
    """Only projects that made themselves can be recovered or upgraded by a code."""


class WrongUpgradeCode(Exception):
    """Another code than the upgrade code of the project."""


class WrongRecoveryCode(Exception):
    """Another code than the recovery code of the project, or there is no such project."""


class ProjectProtected(Exception):
    """Not with this project; the message says why."""


# Names --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Identity:
    """What a provisioned project is found by again."""

    operator_key: str
    name_key: str


def checked_name(name: str, field: NameField) -> str:
    """The name, trimmed. Raises NameInvalid."""
    trimmed = name.strip()
    # PostgreSQL cannot store U+0000.
    if not 1 <= len(trimmed) <= MAX_NAME or "\x00" in trimmed:
        raise NameInvalid(field)
    if not any(each.isalnum() for each in normalized(trimmed)):
        raise NameInvalid(field)
    return trimmed


def normalized(name: str) -> str:
    """A name without what people do not see or do not mean: compatibility forms, blanks, case."""
    return " ".join(unicodedata.normalize("NFKC", name).split()).casefold()


def slug_of(name: str) -> str:
    """The ASCII letters and digits of a name, with one `-` for whatever is between them."""
    return re.sub(r"[^a-z0-9]+", "-", normalized(name)).strip("-")


def name_key(name: str) -> str:
    """What two names have in common that mean the same; empty for none.

    The slug, except for a name with letters or digits of which a slug would tell nothing.
    """
    same = normalized(name)
    key = same if any(each.isalnum() and not each.isascii() for each in same) else slug_of(name)
    if len(key) <= _MAX_KEY:
        return key
    return f"{key[:_KEPT_OF_KEY]}~{hashlib.sha256(key.encode()).hexdigest()}"


def identity_of(name: str, operator: str) -> Identity:
    """Which project `name` of `operator` (empty: of none) is."""
    return Identity(name_key(operator), name_key(name))


def project_id(name: str, chance: str) -> str:
    """The id of a new project. chance: 8 random hex characters."""
    return f"{slug_of(name)[:_MAX_ID_SLUG] or 'project'}-{chance}"


def is_tenant(name: str) -> bool:
    """Whether a tenant may be called this; `sandbox` is for those that make themselves."""
    return _TENANT.fullmatch(name) is not None and name != SANDBOX


# Codes --------------------------------------------------------------------------------------------------------------
class Codes:
    """The two codes of a project, made from the server's secret and its id, and never stored."""

    def __init__(self, secret: str) -> None:
        self._secret = secret.encode()

    def recovery(self, project_id: str) -> str:
        """What its owner keeps, to get new keys with."""
        return self._code(f"recover:{project_id}")

    def upgrade(self, project_id: str) -> str:
        """What the operator hands out to let it stay."""
        return self._code(f"signup-upgrade:{SANDBOX}:{project_id}")

    def _code(self, what: str) -> str:
        return hmac.new(self._secret, what.encode(), hashlib.sha256).hexdigest()


def is_same_code(given: str, expected: str) -> bool:
    """Whether a code is the expected one, blanks around it and case aside; takes as long whatever was given."""
    return hmac.compare_digest(given.strip().lower().encode(), expected.encode())


# Limits and life ----------------------------------------------------------------------------------------------------
def wait_ms(oldest_at: EpochMs | None, now: EpochMs) -> int:
    """How long until the next call may pass, when the oldest that takes up the limit was at `oldest_at`; 0: it may."""
    if oldest_at is None:
        return 0
    # A clock that was set back must not shut anybody out for longer than the limit ever does.
    return max(0, min(oldest_at + WINDOW_MS - now, WINDOW_MS))


def retry_after_s(wait: int) -> int:
    """Whole seconds, at least one."""
    return max(1, -(-wait // 1000))


def extended(expires_at: EpochMs, days: int, now: EpochMs) -> EpochMs:
    """The new end of a sandbox: so many days after its old one, or after now when that is over."""
    return EpochMs(max(expires_at, now) + days * _DAY)


def sandbox_ends_at(days: int, now: EpochMs) -> EpochMs:
    """When a sandbox that begins now expires."""
    return EpochMs(now + days * _DAY)
