"""What is written of many requests at once, what the dashboards show, and what is forgotten."""

import functools
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import Connection

from lifesign.auth.vitals import service as keys
from lifesign.auth.vitals.rules import Wish
from lifesign.auth.vitals.service import VitalsKey
from lifesign.clock import EpochMs
from lifesign.projects import service as projects
from lifesign.projects.rules import DEFAULT_PROJECT
from lifesign.usage import rules, store
from lifesign.usage.rules import (
    DAY_MS,
    ERRORS_KEPT_MS,
    HOUR_MS,
    KEPT_MS,
    MAX_ERRORS,
    Happened,
    Latency,
    Minute,
    Range,
    Sums,
)
from lifesign.usage.store import Position as Position  # noqa: PLC0414 - what is asked for here has this type
from lifesign.usage.store import UsageError as UsageError  # noqa: PLC0414 - what is answered here has this type

_ACTIVE_MS = 30 * DAY_MS


# Keys ---------------------------------------------------------------------------------------------------------------
def take_key(conn: Connection, wish: Wish, network: str, *, limit: int, now: EpochMs) -> tuple[VitalsKey, str]:
    """A new key, and itself. What is refused for a limit counts for none. Raises RateLimited, KeyLimitReached."""
    projects.pass_limited(conn, "vitals_keys", network, limit=limit, now=now)
    return keys.take(conn, wish, project_id=projects.id_of(conn, DEFAULT_PROJECT), now=now)


# Adding -------------------------------------------------------------------------------------------------------------
def add(conn: Connection, sums: Sums) -> None:
    """Add what was counted to what is known: all of it in this transaction, or nothing."""
    store.add_minutes(conn, sums.minutes)
    store.add_hours(conn, rules.by_hour(sums.minutes))
    store.add_latency(conn, sums.latency)
    store.add_latency_days(conn, rules.by_day(sums.latency))
    if sums.errors:
        store.add_errors(conn, sums.errors)
        store.delete_errors_beyond(conn, MAX_ERRORS)
    uses = dict(sums.keys)
    for key_hash, key_id in keys.ids_by_hash(conn, sums.hashes.keys()).items():
        uses[key_id] = _both(uses.get(key_id), sums.hashes[key_hash])
    keys.add_uses(conn, {key_id: (each.times, each.last) for key_id, each in uses.items()})


def _both(one: Happened | None, other: Happened) -> Happened:
    if one is None:
        return other
    return Happened(one.times + other.times, min(one.first, other.first), max(one.last, other.last))


# Dashboards ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Overview:
    """The server in a few numbers."""

    total_keys: int
    active_keys: int
    last_24h: int
    last_7d: int
    last_30d: int
    error_rate_pct: float


def overview(conn: Connection, now: EpochMs) -> Overview:
    """The numbers at `now`."""
    total_keys, active_keys = keys.count_keys(conn, EpochMs(now - _ACTIVE_MS))
    day, week, month = (store.sums_since(conn, rules.first_minute(of, now)) for of in rules.RANGES)
    return Overview(total_keys, active_keys, day.total, week.total, month.total, _error_rate(month))


class Bucket(NamedTuple):
    """The requests of an hour or a day."""

    at: EpochMs
    total: int
    errors: int
    server_errors: int
    error_rate_pct: float


@dataclass(frozen=True, slots=True)
class Metrics:
    """A window of time, bucket by bucket."""

    range: Range
    series: list[Bucket]
    latency: Latency


def metrics(conn: Connection, of: Range, now: EpochMs) -> Metrics:
    """The window that ends at `now`. Of what a node counted whose clock is ahead, the last bucket has it."""
    first = rules.first_minute(of, now)
    found = store.buckets_since(conn, first, rules.bucket_length_ms(of))
    begins = rules.buckets_of(of, now)
    for ahead in sorted(at for at in found if at > begins[-1]):
        found[begins[-1]] = rules.added(found.get(begins[-1], Minute()), found.pop(ahead))
    hour = rules.start_of(first, HOUR_MS)
    latency = Latency()
    if found:
        # Durations are kept by the hour: the rest of the first one is all that the buckets lack.
        sums = functools.reduce(rules.added, found.values(), store.sums_between(conn, hour, first))
        latency = rules.latency_of(store.histogram_since(conn, hour), sums)
    return Metrics(of, [_bucket(at, found.get(at, Minute())) for at in begins], latency)


def _bucket(at: EpochMs, sums: Minute) -> Bucket:
    return Bucket(at, sums.total, _errors(sums), sums.server_errors, _error_rate(sums))


def _errors(sums: Minute) -> int:
    return sums.client_errors + sums.server_errors


def _error_rate(sums: Minute) -> float:
    return rules.share_pct(_errors(sums), sums.total)


class Errors(NamedTuple):
    """A page of errors, one more than was asked for where there are more, and how many there are in all."""

    page: list[UsageError]
    total: int


def recent_errors(conn: Connection, *, limit: int, after: Position | None) -> Errors:
    """Errors, the one that was seen last first."""
    return Errors(store.recent_errors(conn, limit=limit + 1, after=after), store.count_errors(conn))


# Forgetting ---------------------------------------------------------------------------------------------------------
def forget_minutes(conn: Connection, now: EpochMs, limit: int) -> int:
    """Minutes that no window has any more; how many went."""
    return store.delete_minutes(conn, EpochMs(now - KEPT_MS), limit)


def forget_hours(conn: Connection, now: EpochMs, limit: int) -> int:
    """The same of hours."""
    return store.delete_hours(conn, EpochMs(now - KEPT_MS), limit)


def forget_latency(conn: Connection, now: EpochMs, limit: int) -> int:
    """The same of durations."""
    return store.delete_latency(conn, EpochMs(now - KEPT_MS), limit)


def forget_latency_days(conn: Connection, now: EpochMs, limit: int) -> int:
    """The same of durations by the day."""
    return store.delete_latency_days(conn, EpochMs(now - KEPT_MS), limit)


def forget_errors(conn: Connection, now: EpochMs, limit: int) -> int:
    """Errors that were last seen long ago; how many went."""
    return store.delete_errors(conn, EpochMs(now - ERRORS_KEPT_MS), limit)
