"""What is true of keys of the Vitals API: how they look, who may have one, and how many."""

import hashlib
import re
import secrets
import unicodedata
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

KEYS_PER_EMAIL = 3
MAX_TEXT = 200
MAX_EMAIL = 254
_MAX_LOCAL, _MAX_LABEL = 64, 63
_KEY_PREFIX = "beam_"
_KEY_BYTES = 16
_SHOWN = 9
_KEY = re.compile(rb"beam_[0-9a-f]{32}")
_BLANKS = b" \t"

UseCase = Literal["telehealth", "wellness", "fitness", "research", "other"]
USE_CASES: tuple[UseCase, ...] = get_args(UseCase)


# Refusals -----------------------------------------------------------------------------------------------------------
class ApiKeyMissing(Exception):
    """There is no `X-API-Key` header, or nothing in it."""

    def __init__(self) -> None:
        super().__init__("API key is required")


class ApiKeyInvalid(Exception):
    """Not a key, or one that is unknown, revoked or replaced."""

    def __init__(self) -> None:
        super().__init__("Invalid API key")


class WishRefused(Exception):
    """Somebody wants a key and says something about themselves that cannot be; the message is for them."""


class KeyLimitReached(Exception):
    """An address has all the keys that it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"Maximum {limit} API keys per email. Contact support for additional keys.")
        self.limit = limit


class VitalsKeyNotFound(Exception):
    """There is no such key, or it is revoked."""


# Keys ---------------------------------------------------------------------------------------------------------------
def new_key() -> str:
    """A fresh key: `beam_` and 16 random bytes in lower-case hexadecimal."""
    return _KEY_PREFIX + secrets.token_hex(_KEY_BYTES)


def key_hash(key: str | bytes) -> str:
    """What is stored of a key. It carries 128 bits of randomness, so a plain SHA-256 cannot be guessed back."""
    return hashlib.sha256(key.encode() if isinstance(key, str) else key).hexdigest()


def shown_prefix(key: str) -> str:
    """The part of a key that may be shown."""
    return key[:_SHOWN]


def key_in(header: bytes | None) -> bytes:
    """The key in an `X-API-Key` header, blanks around it aside. Raises ApiKeyMissing, ApiKeyInvalid."""
    key = (header or b"").strip(_BLANKS)
    if not key:
        raise ApiKeyMissing
    if _KEY.fullmatch(key) is None:
        raise ApiKeyInvalid
    return key


# Who wants one ------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Wish:
    """A key that somebody wants; what they say of themselves is checked."""

    name: str
    email: str
    company: str | None = None
    use_case: UseCase | None = None


def wish_in(body: Mapping[str, Any]) -> Wish:  # Any: JSON
    """The wish that a JSON object holds. Raises WishRefused for the first field that is wrong, in the given order."""
    return Wish(
        name=_name(body.get("name")),
        email=checked_email(body.get("email")),
        company=_company(body.get("company")),
        use_case=_use_case(body.get("use_case")),
    )


def _name(value: object) -> str:
    name = value.strip() if isinstance(value, str) else ""
    if not name:
        raise WishRefused("Name is required")
    if len(name) > MAX_TEXT or _has_control(name):
        raise WishRefused(f"Name must be at most {MAX_TEXT} characters")
    return name


def checked_email(value: object) -> str:
    """An e-mail address without the blanks around it. Raises WishRefused."""
    email = value.strip() if isinstance(value, str) else ""
    if not _is_email(email):
        raise WishRefused("Valid email is required")
    return email


def _company(value: object) -> str | None:
    if value is None:
        return None
    company = value.strip() if isinstance(value, str) else None
    # PostgreSQL has no text with U+0000.
    if company is None or len(company) > MAX_TEXT or "\x00" in company:
        raise WishRefused(f"Company must be a string of at most {MAX_TEXT} characters")
    return company or None


def _use_case(value: object) -> UseCase | None:
    if value is None:
        return None
    for known in USE_CASES:
        if value == known:
            return known
    raise WishRefused(f"Invalid use_case. Must be one of: {', '.join(USE_CASES)}")


def email_identity(email: str) -> str:
    """Whose address it is: case aside, every character counts."""
    return email.strip().lower()


def _is_email(text: str) -> bool:
    if len(text) > MAX_EMAIL or text.count("@") != 1 or _has_control(text) or any(map(str.isspace, text)):
        return False
    local, _, domain = text.partition("@")
    labels = domain.split(".")
    return _is_local_part(local) and len(labels) > 1 and all(map(_is_label, labels)) and not labels[-1].isdecimal()


def _is_local_part(text: str) -> bool:
    return 1 <= len(text) <= _MAX_LOCAL and not text.startswith(".") and not text.endswith(".") and ".." not in text


def _is_label(text: str) -> bool:
    is_spelled = all(each.isalpha() or each.isdecimal() or each == "-" for each in text)
    return 1 <= len(text) <= _MAX_LABEL and is_spelled and not text.startswith("-") and not text.endswith("-")


def _has_control(text: str) -> bool:
    return any(unicodedata.category(each) == "Cc" for each in text)


def free_slots(taken: Collection[int], limit: int) -> list[int]:
    """Those of an address's places for keys that nobody has taken, the first one first."""
    return [slot for slot in range(1, limit + 1) if slot not in taken]
