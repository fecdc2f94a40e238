"""What is true of one record: whether it fails, what kind of signal it is, what its duration and its result mean.

And why spans are not taken. Spec "Telemetry", sections 3 and 4.
"""

import json
import math
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from lifesign.clock import EpochMs, from_datetime, to_datetime

_MS: Final = 1_000_000
_BUCKET_LOG: Final = math.log(1.05)
_ERROR_STARTS: Final = ("Error:", "ERROR:", "Traceback (most recent call last)")
_ERROR_FLAGS: Final = ("isError", "is_error")
_EMPTY: Final = frozenset({"", '""', "[]", "{}", "null"})
_FAILED: Final = frozenset({"error", "failed", "failure"})
_NEGATIVE: Final = frozenset({"negative", "bad", "down", "thumbs_down", "dislike", "-1"})

MOST_TOKENS: Final = 10**12
"""More than a model has ever read; two million records of as many still sum up in 63 bits."""
MOST_NANO_USD: Final = 4 * 10**12
"""4,000 USD for one call; the same is true of their sum."""
LARGEST_ATTEMPT: Final = 2**16 - 1
_LONGEST_RETRY_S: Final = 3600


# Refusals -----------------------------------------------------------------------------------------------------------
class UnsupportedMediaType(Exception):
    """Spans come as JSON or as protobuf, and the request does not say which, or says something else."""


class UnsupportedEncoding(Exception):
    """The body is compressed in a way that is not read here, or several times over."""


class Overloaded(Exception):
    """So much is in hand that there is no room for this request, and none came free in time."""


class TooSlow(Exception):
    """The body comes so slowly that its room is given to others."""


class InflatesTooFar(Exception):
    """The body was read to its end, and inflates to more than a body may have."""


class InvalidEncoding(Exception):
    """The body does not inflate: it is broken, truncated, or followed by something else."""


class QuotaExceeded(Exception):
    """The month's records of the project are used up; none of the new ones was stored."""

    def __init__(self, now: EpochMs) -> None:
        super().__init__("The quota of this project is used up for this month; nothing was stored")
        self.retry_after_s = quota_retry_s(now)


class SessionNotFound(Exception):
    """There is no such session, nothing of it arrived in the window, or it is another project's."""


class InvalidCursor(Exception):
    """Not a cursor of this list."""


def quota_retry_s(now: EpochMs) -> int:
    """Seconds until the calendar month (UTC) is over and quotas begin anew; at least 1, at most an hour."""
    return min(max(1, -(-(next_month(now) - now) // 1000)), _LONGEST_RETRY_S)


# Durations ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class SlowAfter:
    """From how many milliseconds on an operation is slow (`LIFESIGN_SLOW_MS_*`).

    http_ms: also retrieval, embedding and memory. agent_ms: also workflow.
    """

    tool_ms: int = 30_000
    llm_ms: int = 60_000
    http_ms: int = 10_000
    agent_ms: int = 600_000
    other_ms: int = 60_000

    def limit_ns(self, kind: str) -> int:
        """The same for one kind, in nanoseconds."""
        match kind:
            case "tool":
                limit_ms = self.tool_ms
            case "llm":
                limit_ms = self.llm_ms
            case "http" | "retrieval" | "embedding" | "memory":
                limit_ms = self.http_ms
            case "agent" | "workflow":
                limit_ms = self.agent_ms
            case _:
                limit_ms = self.other_ms
        return limit_ms * _MS


def duration_bucket(duration_ns: int) -> int:
    """The step of a histogram whose steps grow by 5 %: floor(ln(max(us, 1)) / ln 1.05)."""
    return math.floor(math.log(max(duration_ns // 1000, 1)) / _BUCKET_LOG)


# Values. Any, throughout: JSON of whoever sent the span. -------------------------------------------------------------
def count_of(value: Any) -> int | None:
    """A whole number that is not negative; a float without a fraction is taken. None for anything else."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def tokens_of(value: Any) -> int | None:
    """A number of tokens that can be true."""
    number = count_of(value)
    return number if number is not None and number <= MOST_TOKENS else None


def nano_usd_of(value: Any) -> int | None:
    """10^-9 USD of an amount in USD that can be true."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST_NANO_USD:
        return None
    nano = round(value * 1_000_000_000)
    return nano if nano <= MOST_NANO_USD else None


def code_of(value: Any) -> int | None:
    """A status or exit code: a whole number, or its digits."""
    if isinstance(value, str) and value.isascii() and value.removeprefix("-").isdigit() and len(value) <= _CODE_DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


_CODE_DIGITS: Final = 11


def is_true(value: Any) -> bool:
    """Whether a flag is set, as a boolean or as its name."""
    return value is True or (isinstance(value, str) and value.lower() == "true")


def is_false(value: Any) -> bool:
    """Whether a flag is there and not set."""
    return value is False or (isinstance(value, str) and value.lower() == "false")


# Judgements ----------------------------------------------------------------------------------------------------------
def says_it_failed(name: str, value: Any) -> bool:
    """Whether an attribute of a tool's span tells of failure (rule 3): `success`, a status or an exit code."""
    match name:
        case "success":
            return is_false(value)
        case "gen_ai.tool.status":
            return isinstance(value, str) and value.strip().lower() in _FAILED
    return code_of(value) not in {None, 0}


def is_error_result(result: Any) -> bool:
    """Whether what a tool returned is an error in its own words (rule 4)."""
    if isinstance(result, str):
        text = result.strip()
        if text.startswith(_ERROR_STARTS):
            return True
        if not text.startswith("{") or not any(flag in text for flag in _ERROR_FLAGS):
            return False
        try:
            result = json.loads(text)
        except (ValueError, RecursionError):
            return False
    return isinstance(result, dict) and any(result.get(flag) is True for flag in _ERROR_FLAGS)


def is_empty_result(result: Any) -> bool:
    """Whether a tool returned nothing: `""`, `[]`, `{}`, `null` or blank."""
    if isinstance(result, str):
        text = result.strip()
        return text in _EMPTY or (len(text) <= _SHORT and "".join(text.split()) in _EMPTY)
    return result is None or result in ([], {})


_SHORT: Final = 16


def is_negative_feedback(value: Any) -> bool:
    """Whether a person was displeased."""
    return str(value).strip().lower() in _NEGATIVE if isinstance(value, str | int) else value == -1


def is_negative_score(value: Any) -> bool:
    """Whether a score of feedback is below zero."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value < 0


# Months --------------------------------------------------------------------------------------------------------------
def month_of(now: EpochMs) -> int:
    """The calendar month (UTC) of an instant, such as 202611."""
    at = to_datetime(now)
    return at.year * 100 + at.month


def next_month(now: EpochMs) -> EpochMs:
    """When the calendar month (UTC) of an instant is over."""
    at = to_datetime(now)
    first = at.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return from_datetime((first + timedelta(days=32)).replace(day=1))
