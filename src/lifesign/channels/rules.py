"""What is true of delivery: when a failed attempt is tried again, what a finished one means, who is in the way."""

import hashlib
import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lifesign.clock import EpochMs

_S = 1000
_MIN = 60 * _S
_H = 60 * _MIN

# Longer than the longest send (20 s): were it shorter, another node would claim a slow but successful send again.
LEASE_MS = 60 * _S
LADDER_MS = (5 * _S, 15 * _S, 30 * _S, 1 * _MIN, 2 * _MIN, 5 * _MIN, 10 * _MIN, 15 * _MIN, 30 * _MIN)
LAST_RUNG_MS = _H
MAX_RETRY_AFTER_MS = 15 * _MIN
# A channel that was asked too much of pauses at least so long, unless the message itself is tried sooner.
SHORTEST_PAUSE_MS = 30 * _S
JITTER = 0.2
EXPIRES_AFTER_MS = {
    "page": 24 * _H,
    "fallback": 24 * _H,
    "reminder": 24 * _H,
    "storm": 24 * _H,
    "digest": 24 * _H,
    "flap": 24 * _H,
    "notice": 24 * _H,
    "resolve": 72 * _H,
    "test": _MIN,
}
# What a person has sent again is tried as long as a new page.
RETRIED_FOR_MS = 24 * _H
# A changed webhook secret signs along for a day, so that the receiver can be changed after it.
SECRET_OVERLAP_MS = 24 * _H
MAX_TESTS_PER_MINUTE = 10
ADDRESS_DIGEST_LENGTH = 12
# The first two steps are the loudest; lower goes first.
PRIORITY_URGENT, PRIORITY_LATER, PRIORITY_REMINDER, PRIORITY_RESOLVE, PRIORITY_TEST = 10, 20, 25, 30, 40

# Kinds that tell of an incident while it is open: an end cancels them, and those who were sent one hear of the end.
ALARMS = ("page", "fallback", "reminder")

# A channel that fails this often in a row is left alone for a while, twice as long each time.
BREAKER_LIMIT = 5
BREAKER_FIRST_MS, BREAKER_LONGEST_MS = 30 * _S, 5 * _MIN
# A channel that its provider refuses for good is tried with one message in this time.
PROBE_EVERY_MS = 10 * _MIN
# What leaves later than this says so.
DELAY_WORTH_TELLING_MS = 10 * _MIN

# More due messages of one kind to one address than this become one.
CROWD = 10
MAX_FOLDED, MAX_ITEMS = 1000, 20

ChannelType = Literal["email", "slack", "webhook", "pagerduty", "sms"]
Status = Literal["pending", "held", "sending", "sent", "delivered", "dead", "canceled", "bundled"]


class SecretUnreadable(Exception):
    """A sealed value cannot be opened: sealed under a lost key, copied from elsewhere, or damaged."""

    def __init__(self, channel_id: str, path: str) -> None:
        super().__init__(f"the setting {path} of channel {channel_id} cannot be decrypted")
        self.channel_id = channel_id
        self.path = path


class ChannelNotFound(Exception):
    """The project has no channel with this id."""


class NotificationNotFound(Exception):
    """The project has no notification with this id."""


class NotRetryable(Exception):
    """The message is not one that a person can have sent again."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class User:
    """Something that uses an object which somebody wants to delete."""

    type: Literal["policy", "heartbeat", "settings"]
    id: str
    name: str


class ChannelInUse(Exception):
    """The channel is named by policies or heartbeats. `users`: the first hundred of `total`."""

    def __init__(self, users: list[User], total: int) -> None:
        super().__init__("Channel is in use")
        self.users = users
        self.total = total


class TooManyTests(Exception):
    """More than ten tests of one channel within a minute."""

    def __init__(self, retry_after_ms: int) -> None:
        super().__init__("Too many requests")
        self.retry_after_ms = retry_after_ms


@dataclass(frozen=True, slots=True)
class Verdict:
    """What becomes of a notification after an attempt."""

    status: Status
    outcome: Literal["sent", "retry", "permanent", "unknown"]
    not_before: EpochMs | None = None
    lane_held_until: EpochMs | None = None


class PageState(NamedTuple):
    """That an incident has pages of one run of a step in this status."""

    incident_id: str
    step: int
    loop: int
    status: Status


def retry_delay_ms(attempt: int, *, after_ms: int | None, luck: float) -> int:
    """How long to wait after the `attempt`th failure (1 = the first).

    luck: 0..1, spreads the delay over 80 % to 120 % of the rung. after_ms: what the provider asked for; it raises the
    delay, to at most 15 min, and never lowers it.  Source: spec "Engine", section 7, "Ladder".
    """
    rung = LADDER_MS[attempt - 1] if attempt <= len(LADDER_MS) else LAST_RUNG_MS
    delay = round(rung * (1 - JITTER + 2 * JITTER * luck))
    return max(delay, min(after_ms or 0, MAX_RETRY_AFTER_MS))


def after_failure(
    outcome: Literal["retry", "unknown"],
    *,
    attempt: int,
    now: EpochMs,
    expires_at: EpochMs,
    after_ms: int | None,
    holds_lane: bool,
    is_withdrawn: bool,
    luck: float,
) -> Verdict:
    """What follows an attempt that did not succeed but may at another time.

    is_withdrawn: the incident was closed meanwhile, nobody wants the message any more. holds_lane: the provider said
    "too many requests", which is meant for the whole channel: for as long as it asked for, or half a minute, but
    not for the hour that a message waits by itself which has failed for long.
    """
    delay_ms = retry_delay_ms(attempt, after_ms=after_ms, luck=luck)
    not_before = EpochMs(now + delay_ms)
    asked_ms = max(min(after_ms or 0, MAX_RETRY_AFTER_MS), SHORTEST_PAUSE_MS)
    held_until = EpochMs(now + min(delay_ms, asked_ms)) if holds_lane else None
    if is_withdrawn:
        return Verdict("canceled", outcome, lane_held_until=held_until)
    if not_before > expires_at:
        return Verdict("dead", outcome, lane_held_until=held_until)
    return Verdict("pending", outcome, not_before, held_until)


def page_priority(step: int) -> int:
    """The heartbeat's own channels (step 0) and the first two steps go before later ones."""
    return PRIORITY_URGENT if step <= 2 else PRIORITY_LATER  # noqa: PLR2004 - the rule itself


def minutes_late(created_at: EpochMs, now: EpochMs) -> int | None:
    """How many minutes after it was made a message leaves; None when that is not worth telling."""
    late_ms = now - created_at
    return late_ms // _MIN if late_ms > DELAY_WORTH_TELLING_MS else None


def target_key(channel_id: str, address: str | None) -> str:
    """Where a message goes, in one word: a channel, or one address of a channel that has several kinds of them."""
    if address is None:
        return f"channel:{channel_id}"
    return f"channel:{channel_id}/{hashlib.sha256(address.encode()).hexdigest()[:ADDRESS_DIGEST_LENGTH]}"


# Breaker ------------------------------------------------------------------------------------------------------------
BreakerState = Literal["closed", "open", "half"]


class Breaker(NamedTuple):
    """How a channel has done lately. `fails`: failures in a row. Open: nothing is sent until `open_until`."""

    state: BreakerState = "closed"
    fails: int = 0
    open_until: EpochMs | None = None


def breaker_after_failure(breaker: Breaker, now: EpochMs) -> Breaker:
    """The breaker after a failure that may go away by itself.

    5 in a row open it for 30 s; each probe that fails doubles that, to 5 min.  Source: spec "Engine", section 7.
    """
    if breaker.state == "open":
        return breaker  # the attempt began before it opened and tells nothing new
    fails = breaker.fails + 1
    if fails < BREAKER_LIMIT:
        return Breaker("closed", fails)
    pause_ms = min(BREAKER_FIRST_MS << min(fails - BREAKER_LIMIT, 10), BREAKER_LONGEST_MS)
    return Breaker("open", fails, EpochMs(now + pause_ms))


# Rates --------------------------------------------------------------------------------------------------------------
_SET_BACK_MS = 2 * _S


class Rate(NamedTuple):
    """At most `per_second` messages on average, and `burst` at once."""

    per_second: float
    burst: int


class Bucket(NamedTuple):
    """The messages that may leave at once, as of `at`."""

    tokens: float
    at: EpochMs


def refilled(bucket: Bucket | None, rate: Rate, now: EpochMs) -> Bucket:
    """The bucket at `now`; a new one is full. A clock that was set back takes nothing away, and fills it from now on.

    Nodes agree on the time to within a moment: what another one has just written down stays as it is.
    """
    if bucket is None:
        return Bucket(rate.burst, now)
    if bucket.at - now > _SET_BACK_MS:
        # Otherwise nothing would be gained until the old time comes again, hours from now.
        return Bucket(min(float(rate.burst), bucket.tokens), now)
    gained = max(0, now - bucket.at) / _S * rate.per_second
    return Bucket(min(float(rate.burst), bucket.tokens + gained), max(now, bucket.at))


def token_wait_ms(bucket: Bucket, rate: Rate, wanted: int = 1) -> int:
    """How long after `bucket.at` it holds `wanted` tokens."""
    return max(0, math.ceil((wanted - bucket.tokens) / rate.per_second * _S))
