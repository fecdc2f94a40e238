"""What is counted of a request, how requests add up, and what the dashboards make of the sums."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple, TypeVar, get_args

from lifesign.clock import EpochMs

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

# A window of 30 days begins up to a minute earlier than its length says, and whole hours of it are read.
KEPT_MS = 32 * DAY_MS
ERRORS_KEPT_MS = 90 * DAY_MS
MAX_ERRORS = 1000

Range = Literal["24h", "7d", "30d"]
RANGES: tuple[Range, ...] = get_args(Range)
_LENGTH_MS: Mapping[Range, int] = {"24h": DAY_MS, "7d": 7 * DAY_MS, "30d": 30 * DAY_MS}
_BUCKET_MS: Mapping[Range, int] = {"24h": HOUR_MS, "7d": DAY_MS, "30d": DAY_MS}

ErrorType = Literal["client_error", "server_error"]
CLIENT_LEFT = 499
"""The status of a request whose caller was gone before the answer."""
_CLIENT_ERROR, _SERVER_ERROR = 400, 500

_K = TypeVar("_K")

PREFIXES = ("/api/keys", "/api/dashboard", "/api/rppg", "/api/demo", "/api/vitals")
_BEGINNING = "/api/"
_WHOLE = frozenset(PREFIXES)


class InvalidRange(Exception):
    """A dashboard is asked for a range that there is none of."""

    def __init__(self) -> None:
        super().__init__(f"Invalid range. Must be one of: {', '.join(RANGES)}")


class InvalidPage(Exception):
    """A list is asked for a page that there is none of; the message says which parameter is wrong."""


# Requests -----------------------------------------------------------------------------------------------------------
def prefix_of(path: str) -> str | None:
    """Which part of the Vitals API a path belongs to: it is its prefix, or goes on after it with `/`.

    Asked for every request of the server, so that those of other APIs cost a comparison or two.
    """
    if not path.startswith(_BEGINNING):
        return None
    end = path.find("/", len(_BEGINNING))
    prefix = path if end < 0 else path[:end]
    return prefix if prefix in _WHOLE else None


# The registry of methods for HTTP, by IANA.
_REGISTERED = """
ACL BASELINE-CONTROL BIND CHECKIN CHECKOUT CONNECT COPY DELETE GET HEAD LABEL LINK LOCK MERGE MKACTIVITY MKCALENDAR
MKCOL MKREDIRECTREF MKWORKSPACE MOVE OPTIONS ORDERPATCH PATCH POST PRI PROPFIND PROPPATCH PUT REBIND REPORT SEARCH
TRACE UNBIND UNCHECKOUT UNLINK UNLOCK UPDATE UPDATEREDIRECTREF VERSION-CONTROL
"""
_METHODS = frozenset(_REGISTERED.split())


def counted_method(method: str) -> str:
    """A method as it is counted."""
    upper = method.upper()
    return upper if upper in _METHODS else "OTHER"


_PLAIN_PATH = re.compile(r"[A-Za-z0-9/_.-]{1,80}")
# Ids and keys are longer than words are; `beam_` begins a key, however much of it there is.
_LONG_SEGMENT = 16
_KEY_BEGINNING = "beam_"


def shown_path(path: str) -> str | None:
    """A path that no route has as it is counted, without what may be an id or a key; None: not at all."""
    if _PLAIN_PATH.fullmatch(path) is None:
        return None
    return "/".join(":id" if _may_be_secret(segment) else segment for segment in path.split("/"))


def _may_be_secret(segment: str) -> bool:
    return len(segment) >= _LONG_SEGMENT or segment.startswith(_KEY_BEGINNING)


class UsageRecord(NamedTuple):
    """One request, for as long as it waits to be added up.

    duration_ms: None for WebSockets. key: the id of the key that was recognized; a hash, of a key that was sent where
    none is needed; None.
    """

    at: EpochMs
    method: str
    path: str
    status: int
    duration_ms: int | None
    key: int | str | None


def rounded_ms(seconds: float) -> int:
    """Whole milliseconds, half up."""
    return int(seconds * 1000 + 0.5)


# Durations ----------------------------------------------------------------------------------------------------------
_EXACT_MS = 128
_PER_POWER = 64
_EXACT_BITS = _EXACT_MS.bit_length() - 1
_PER_POWER_BITS = _PER_POWER.bit_length() - 1
_LONGEST_MS = 10 * MINUTE_MS


def bin_of(duration_ms: int) -> int:
    """The bin of a duration: one for each millisecond below 128, then 64 for each power of two, up to ten minutes.

    What is longer shares the last bin.
    """
    duration = min(duration_ms, _LONGEST_MS)
    if duration < _EXACT_MS:
        return max(0, duration)
    power = duration.bit_length() - 1
    step = power - _PER_POWER_BITS
    return _EXACT_MS + (power - _EXACT_BITS) * _PER_POWER + (duration >> step) - _PER_POWER


def middle_of(number: int) -> int:
    """The duration in the middle of a bin, half up; off by 1 part in 128 of any in it at most."""
    if number < _EXACT_MS:
        return number
    power, place = divmod(number - _EXACT_MS, _PER_POWER)
    step = power + _EXACT_BITS - _PER_POWER_BITS
    return ((_PER_POWER + place) << step) + (1 << (step - 1))


# Adding up ----------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class Minute:
    """What is known of the requests of a minute, or of several."""

    total: int = 0
    client_errors: int = 0
    server_errors: int = 0
    duration_sum_ms: int = 0
    duration_count: int = 0
    duration_min_ms: int | None = None
    duration_max_ms: int | None = None

    def add(self, status: int, duration_ms: int | None) -> None:
        """Count one request."""
        self.total += 1
        if status >= _SERVER_ERROR:
            self.server_errors += 1
        elif status >= _CLIENT_ERROR:
            self.client_errors += 1
        if duration_ms is None:
            return
        self.duration_sum_ms += duration_ms
        self.duration_count += 1
        low, high = self.duration_min_ms, self.duration_max_ms
        if low is None or duration_ms < low:
            self.duration_min_ms = duration_ms
        if high is None or duration_ms > high:
            self.duration_max_ms = duration_ms


class Happened(NamedTuple):
    """How often something happened, when first and when last."""

    times: int
    first: EpochMs
    last: EpochMs

    def once_more(self, at: EpochMs) -> "Happened":
        """The same, and once at `at`."""
        return Happened(self.times + 1, min(self.first, at), max(self.last, at))


@dataclass(slots=True)
class Sums:
    """Many requests added up: by minute, by hour and bin of duration, by error, and by key or its hash."""

    minutes: dict[EpochMs, Minute] = field(default_factory=dict)
    latency: dict[tuple[EpochMs, int], int] = field(default_factory=dict)
    errors: dict[tuple[ErrorType, str], Happened] = field(default_factory=dict)
    keys: dict[int, Happened] = field(default_factory=dict)
    hashes: dict[str, Happened] = field(default_factory=dict)


def sums_of(records: Iterable[UsageRecord]) -> Sums:
    """All of `records` added up."""
    sums = Sums()
    begin = hour = EpochMs(-MINUTE_MS)
    minute, latency = Minute(), sums.latency
    for at, method, path, status, duration_ms, key in records:
        # Nearly always the minute of the record before: this is done for every request of the API.
        if not begin <= at < begin + MINUTE_MS:
            begin = start_of(at, MINUTE_MS)
            hour, minute = start_of(at, HOUR_MS), sums.minutes.setdefault(begin, Minute())
        minute.add(status, duration_ms)
        if duration_ms is not None:
            place = (hour, duration_ms if 0 <= duration_ms < _EXACT_MS else bin_of(duration_ms))
            latency[place] = latency.get(place, 0) + 1
        if status >= _CLIENT_ERROR:
            _note(sums.errors, (error_type(status), f"{method} {path} → {status}"), at)
        if isinstance(key, int):
            _note(sums.keys, key, at)
        elif key is not None:
            _note(sums.hashes, key, at)
    return sums


def _note(happened: dict[_K, Happened], what: _K, at: EpochMs) -> None:
    known = happened.get(what)
    happened[what] = Happened(1, at, at) if known is None else known.once_more(at)


def error_type(status: int) -> ErrorType:
    """Whose fault an error is."""
    return "server_error" if status >= _SERVER_ERROR else "client_error"


def start_of(at: EpochMs, length_ms: int) -> EpochMs:
    """When the minute, hour or day of UTC begins in which an instant lies."""
    return EpochMs(at - at % length_ms)


def start_after(at: EpochMs, length_ms: int) -> EpochMs:
    """The first minute, hour or day of UTC that begins at an instant or after it."""
    return start_of(EpochMs(at + length_ms - 1), length_ms)


def by_hour(minutes: Mapping[EpochMs, Minute]) -> dict[EpochMs, Minute]:
    """Minutes by the hour in which they lie."""
    hours: dict[EpochMs, Minute] = {}
    for at, each in minutes.items():
        hour = start_of(at, HOUR_MS)
        hours[hour] = added(hours.get(hour, Minute()), each)
    return hours


def by_day(latency: Mapping[tuple[EpochMs, int], int]) -> dict[tuple[EpochMs, int], int]:
    """Counts of bins of hours by the day in which these lie."""
    days: dict[tuple[EpochMs, int], int] = {}
    for (hour, number), count in latency.items():
        place = (start_of(hour, DAY_MS), number)
        days[place] = days.get(place, 0) + count
    return days


def added(one: Minute, other: Minute) -> Minute:
    """What is known of the requests of both."""
    return Minute(
        total=one.total + other.total,
        client_errors=one.client_errors + other.client_errors,
        server_errors=one.server_errors + other.server_errors,
        duration_sum_ms=one.duration_sum_ms + other.duration_sum_ms,
        duration_count=one.duration_count + other.duration_count,
        duration_min_ms=min(_known(one.duration_min_ms, other.duration_min_ms), default=None),
        duration_max_ms=max(_known(one.duration_max_ms, other.duration_max_ms), default=None),
    )


def _known(*durations: int | None) -> list[int]:
    return [each for each in durations if each is not None]


# Dashboards ---------------------------------------------------------------------------------------------------------
def range_of(text: str | None) -> Range:
    """The range that a caller names; the longest when they name none. Raises InvalidRange."""
    if text is None:
        return "30d"
    for known in RANGES:
        if text == known:
            return known
    raise InvalidRange


def first_minute(of: Range, now: EpochMs) -> EpochMs:
    """The first minute of a window; its last is that of `now`."""
    return EpochMs(start_of(now, MINUTE_MS) - _LENGTH_MS[of])


def bucket_length_ms(of: Range) -> int:
    """How long the buckets of a range are."""
    return _BUCKET_MS[of]


def buckets_of(of: Range, now: EpochMs) -> list[EpochMs]:
    """When the buckets of a window begin: each hour or day of UTC that has one of its minutes, ascending.

    The window has the minute of `now` and the one a whole range earlier, and so always as many: 25, 8 and 31.
    """
    length = _BUCKET_MS[of]
    first, last = start_of(first_minute(of, now), length), start_of(now, length)
    return [EpochMs(at) for at in range(first, last + 1, length)]


def share_pct(part: int, whole: int) -> float:
    """`part` of `whole` in per cent, with two decimals, half up; 0 of nothing."""
    if not whole:
        return 0
    return (2 * 10_000 * part + whole) // (2 * whole) / 100


class Latency(NamedTuple):
    """Durations in short; all None when there are none."""

    p50_ms: int | None = None
    p95_ms: int | None = None
    p99_ms: int | None = None
    avg_ms: int | None = None


def latency_of(histogram: Sequence[tuple[int, int]], sums: Minute) -> Latency:
    """What durations were like, by nearest rank. histogram: counts of bins, ascending; sums: of the same requests."""
    low, high = sums.duration_min_ms, sums.duration_max_ms
    total = sum(count for _, count in histogram)
    if not total or low is None or high is None or not sums.duration_count:
        return Latency()
    average = (2 * sums.duration_sum_ms + sums.duration_count) // (2 * sums.duration_count)
    found = [min(max(middle_of(_at_rank(histogram, _rank(each, total))), low), high) for each in (50, 95, 99)]
    return Latency(found[0], found[1], found[2], average)


def _rank(percent: int, total: int) -> int:
    return -(-percent * total // 100)


def _at_rank(histogram: Sequence[tuple[int, int]], rank: int) -> int:
    seen = 0
    for number, count in histogram:
        seen += count
        if seen >= rank:
            return number
    raise ValueError(rank)
