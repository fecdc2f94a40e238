"""SQL of the tables `usage_minutes`, `usage_latency` and `usage_errors`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, and_, case, delete, func, or_, select

from lifesign.clock import EpochMs
from lifesign.db.schema import usage_errors, usage_latency, usage_minutes
from lifesign.db.sql import add_up
from lifesign.usage.rules import ErrorType, Happened, Minute

M = usage_minutes.c
L = usage_latency.c
E = usage_errors.c
_ADDED = ("total", "client_errors", "server_errors", "duration_sum_ms", "duration_count")


# Adding -------------------------------------------------------------------------------------------------------------
# Rows are always written in the order of their keys, so that two nodes never wait for each other.
def add_minutes(conn: Connection, minutes: Mapping[EpochMs, Minute]) -> None:
    """Add to what is known of minutes."""
    rows: list[dict[str, Any]] = [  # Any: values of columns
        {
            "minute": at,
            "total": each.total,
            "client_errors": each.client_errors,
            "server_errors": each.server_errors,
            "duration_sum_ms": each.duration_sum_ms,
            "duration_count": each.duration_count,
            "duration_min_ms": each.duration_min_ms,
            "duration_max_ms": each.duration_max_ms,
        }
        for at, each in sorted(minutes.items())
    ]
    add_up(
        conn,
        usage_minutes,
        rows,
        unique=["minute"],
        added=_ADDED,
        lowest=["duration_min_ms"],
        highest=["duration_max_ms"],
    )


def add_latency(conn: Connection, latency: Mapping[tuple[EpochMs, int], int]) -> None:
    """Add to the histograms of hours."""
    rows = [{"hour": hour, "bin": number, "count": count} for (hour, number), count in sorted(latency.items())]
    add_up(conn, usage_latency, rows, unique=["hour", "bin"], added=["count"])


def add_errors(conn: Connection, errors: Mapping[tuple[ErrorType, str], Happened]) -> None:
    """Add to errors; when one was first seen is said once."""
    rows = [
        {"error_type": kind, "message": message, "count": each.times, "first_seen": each.first, "last_seen": each.last}
        for (kind, message), each in sorted(errors.items())
    ]
    add_up(conn, usage_errors, rows, unique=["error_type", "message"], added=["count"], highest=["last_seen"])


def delete_errors_beyond(conn: Connection, kept: int) -> int:
    """Forget all errors but the `kept` that were seen last; how many. Index: ix_usage_errors_last_seen."""
    ids = list(conn.scalars(select(E.id).order_by(E.last_seen.desc(), E.id.desc()).offset(kept)))
    if ids:
        conn.execute(delete(usage_errors).where(E.id.in_(ids)))
    return len(ids)


# Reading ------------------------------------------------------------------------------------------------------------
def sums_since(conn: Connection, first: EpochMs, *, before: EpochMs | None = None) -> Minute:
    """All minutes from one on, together; not those from `before` on. Index: the primary key."""
    query = select(*_sums()).where(M.minute >= first)
    return _minute(conn.execute(query if before is None else query.where(M.minute < before)).one())


def totals_since(conn: Connection, *firsts: EpochMs) -> list[int]:
    """How many requests there were from each of these minutes on. Index: the primary key."""
    counted = [func.coalesce(func.sum(case((M.minute >= first, M.total), else_=0)), 0) for first in firsts]
    return [int(each) for each in conn.execute(select(*counted).where(M.minute >= min(firsts))).one()]


def buckets_since(conn: Connection, first: EpochMs, length_ms: int) -> dict[EpochMs, Minute]:
    """Minutes from one on by the hour or day in which they lie; those without any are left out.

    Index: the primary key.
    """
    bucket = (M.minute // length_ms).label("bucket")
    rows = conn.execute(select(bucket, *_sums()).where(M.minute >= first).group_by(bucket))
    return {EpochMs(int(row[0]) * length_ms): _minute(row[1:]) for row in rows}


def _sums() -> Iterable[ColumnElement[Any]]:  # Any: of several types
    for name in _ADDED:
        yield func.coalesce(func.sum(M[name]), 0)
    yield func.min(M.duration_min_ms)
    yield func.max(M.duration_max_ms)


def _minute(row: Sequence[Any]) -> Minute:  # Any: a row
    # PostgreSQL's sums of large integers are decimals.
    total, client_errors, server_errors, duration_sum, duration_count = (int(each) for each in row[:5])
    return Minute(total, client_errors, server_errors, duration_sum, duration_count, row[5], row[6])


def histogram_since(conn: Connection, hour: EpochMs) -> list[tuple[int, int]]:
    """The histograms of the hours from one on, together: bins and their counts, ascending. Index: the primary key."""
    query = select(L.bin, func.sum(L["count"])).where(L.hour >= hour).group_by(L.bin).order_by(L.bin)
    return [(row[0], int(row[1])) for row in conn.execute(query)]


@dataclass(frozen=True, slots=True)
class UsageError:
    """One kind of error, and how often it was seen."""

    id: int
    error_type: ErrorType
    message: str
    count: int
    first_seen: EpochMs
    last_seen: EpochMs


class Position(NamedTuple):
    """Where a page of errors ends."""

    last_seen: EpochMs
    id: int


def recent_errors(conn: Connection, *, limit: int, after: Position | None) -> list[UsageError]:
    """Errors, the one that was seen last first. Index: ix_usage_errors_last_seen."""
    query = select(E.id, E.error_type, E.message, E["count"], E.first_seen, E.last_seen)
    if after is not None:
        is_older = or_(E.last_seen < after.last_seen, and_(E.last_seen == after.last_seen, E.id < after.id))
        query = query.where(E.last_seen <= after.last_seen, is_older)
    return [UsageError(*row) for row in conn.execute(query.order_by(E.last_seen.desc(), E.id.desc()).limit(limit))]


def count_errors(conn: Connection) -> int:
    """How many kinds of errors are kept."""
    return conn.scalar(select(func.count()).select_from(usage_errors)) or 0


# Forgetting ---------------------------------------------------------------------------------------------------------
def delete_minutes(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget minutes before an instant, oldest first; how many. Index: the primary key."""
    old = list(conn.scalars(select(M.minute).where(M.minute < before).order_by(M.minute).limit(limit)))
    if old:
        conn.execute(delete(usage_minutes).where(M.minute <= old[-1]))
    return len(old)


def delete_latency(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget histograms of hours before an instant, oldest first; how many rows. Index: the primary key."""
    old = list(conn.execute(select(L.hour, L.bin).where(L.hour < before).order_by(L.hour, L.bin).limit(limit)))
    if old:
        hour, number = old[-1]
        conn.execute(delete(usage_latency).where(or_(L.hour < hour, and_(L.hour == hour, L.bin <= number))))
    return len(old)


def delete_errors(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget errors not seen since an instant; how many. Index: ix_usage_errors_last_seen."""
    ids = list(conn.scalars(select(E.id).where(E.last_seen < before).order_by(E.last_seen, E.id).limit(limit)))
    if ids:
        conn.execute(delete(usage_errors).where(E.id.in_(ids)))
    return len(ids)
