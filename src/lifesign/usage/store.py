"""SQL of the tables `usage_minutes`, `usage_latency`, their sums by hours and days, and `usage_errors`.

What is added to a minute is added to its hour, and what is added to the histogram of an hour to that of its day, in one
transaction: whole hours and days are read from there, and only the beginning of a window minute by minute.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from sqlalchemy import Column, ColumnElement, Connection, Select, Subquery, Table, and_, delete, func, or_, select

from lifesign.clock import EpochMs
from lifesign.db.schema import usage_errors, usage_hours, usage_latency, usage_latency_days, usage_minutes
from lifesign.db.sql import add_up
from lifesign.usage.rules import DAY_MS, HOUR_MS, ErrorType, Happened, Minute, start_after

M = usage_minutes.c
H = usage_hours.c
L = usage_latency.c
D = usage_latency_days.c
E = usage_errors.c
_ADDED = ("total", "client_errors", "server_errors", "duration_sum_ms", "duration_count")


# Adding -------------------------------------------------------------------------------------------------------------
# Rows are always written in the order of their keys, so that two nodes never wait for each other.
def add_minutes(conn: Connection, minutes: Mapping[EpochMs, Minute]) -> None:
    """Add to what is known of minutes."""
    _add_sums(conn, usage_minutes, "minute", minutes)


def add_hours(conn: Connection, hours: Mapping[EpochMs, Minute]) -> None:
    """Add to what is known of hours."""
    _add_sums(conn, usage_hours, "hour", hours)


def _add_sums(conn: Connection, table: Table, at_name: str, sums: Mapping[EpochMs, Minute]) -> None:
    rows: list[dict[str, Any]] = [  # Any: values of columns
        {
            at_name: at,
            "total": each.total,
            "client_errors": each.client_errors,
            "server_errors": each.server_errors,
            "duration_sum_ms": each.duration_sum_ms,
            "duration_count": each.duration_count,
            "duration_min_ms": each.duration_min_ms,
            "duration_max_ms": each.duration_max_ms,
        }
        for at, each in sorted(sums.items())
    ]
    add_up(
        conn,
        table,
        rows,
        unique=[at_name],
        added=_ADDED,
        lowest=["duration_min_ms"],
        highest=["duration_max_ms"],
    )


def add_latency(conn: Connection, latency: Mapping[tuple[EpochMs, int], int]) -> None:
    """Add to the histograms of hours."""
    rows = [{"hour": hour, "bin": number, "count": count} for (hour, number), count in sorted(latency.items())]
    add_up(conn, usage_latency, rows, unique=["hour", "bin"], added=["count"])


def add_latency_days(conn: Connection, latency: Mapping[tuple[EpochMs, int], int]) -> None:
    """Add to the histograms of days."""
    rows = [{"day": day, "bin": number, "count": count} for (day, number), count in sorted(latency.items())]
    add_up(conn, usage_latency_days, rows, unique=["day", "bin"], added=["count"])


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
def sums_since(conn: Connection, first: EpochMs) -> Minute:
    """All minutes from one on, together. Indexes: the primary keys."""
    return _minute(conn.execute(select(*_sums(_pieces_since(first)))).one())


def sums_between(conn: Connection, first: EpochMs, before: EpochMs) -> Minute:
    """The minutes from one on, together, without those from another on. Index: the primary key."""
    return _minute(conn.execute(select(*_sums(usage_minutes)).where(M.minute >= first, M.minute < before)).one())


def buckets_since(conn: Connection, first: EpochMs, length_ms: int) -> dict[EpochMs, Minute]:
    """Minutes from one on by the hour or day in which they lie; those without any are left out.

    Indexes: the primary keys.
    """
    pieces = _pieces_since(first)
    bucket = (pieces.c.at // length_ms).label("bucket")
    rows = conn.execute(select(bucket, *_sums(pieces)).group_by(bucket))
    return {EpochMs(int(row[0]) * length_ms): _minute(row[1:]) for row in rows}


def _pieces_since(first: EpochMs) -> Subquery:
    """Minutes up to the end of the hour in which the first lies, unless it begins one, and hours from there on."""
    whole = start_after(first, HOUR_MS)
    minutes = _piece(M.minute, usage_minutes).where(M.minute >= first, M.minute < whole)
    return minutes.union_all(_piece(H.hour, usage_hours).where(H.hour >= whole)).subquery()


def _piece(at: ColumnElement[int], table: Table) -> Select[Any]:  # Any: of several types
    return select(at.label("at"), *(table.c[name] for name in (*_ADDED, "duration_min_ms", "duration_max_ms")))


def _sums(of: Table | Subquery) -> Iterable[ColumnElement[Any]]:  # Any: of several types
    for name in _ADDED:
        yield func.coalesce(func.sum(of.c[name]), 0)
    yield func.min(of.c.duration_min_ms)
    yield func.max(of.c.duration_max_ms)


def _minute(row: Sequence[Any]) -> Minute:  # Any: a row
    # PostgreSQL's sums of large integers are decimals.
    total, client_errors, server_errors, duration_sum, duration_count = (int(each) for each in row[:5])
    return Minute(total, client_errors, server_errors, duration_sum, duration_count, row[5], row[6])


def histogram_since(conn: Connection, hour: EpochMs) -> list[tuple[int, int]]:
    """The histograms of the hours from one on, together: bins and counts, ascending. Indexes: the primary keys."""
    whole = start_after(hour, DAY_MS)
    hours = select(L.bin, L["count"]).where(L.hour >= hour, L.hour < whole)
    pieces = hours.union_all(select(D.bin, D["count"]).where(D.day >= whole)).subquery()
    number = pieces.c.bin
    rows = conn.execute(select(number, func.sum(pieces.c["count"])).group_by(number).order_by(number))
    return [(row[0], int(row[1])) for row in rows]


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
    return _delete_sums(conn, M.minute, before, limit)


def delete_hours(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget hours that begin before an instant, oldest first; how many. Index: the primary key."""
    return _delete_sums(conn, H.hour, before, limit)


def _delete_sums(conn: Connection, at: Column[int], before: EpochMs, limit: int) -> int:
    old = list(conn.scalars(select(at).where(at < before).order_by(at).limit(limit)))
    if old:
        conn.execute(delete(at.table).where(at <= old[-1]))
    return len(old)


def delete_latency(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget histograms of hours before an instant, oldest first; how many rows. Index: the primary key."""
    return _delete_bins(conn, L.hour, L.bin, before, limit)


def delete_latency_days(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget histograms of days that begin before an instant, oldest first; how many rows. Index: the primary key."""
    return _delete_bins(conn, D.day, D.bin, before, limit)


def _delete_bins(conn: Connection, at: Column[int], number: Column[int], before: EpochMs, limit: int) -> int:
    old = list(conn.execute(select(at, number).where(at < before).order_by(at, number).limit(limit)))
    if old:
        last, last_number = old[-1]
        conn.execute(delete(at.table).where(or_(at < last, and_(at == last, number <= last_number))))
    return len(old)


def delete_errors(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget errors not seen since an instant; how many. Index: ix_usage_errors_last_seen."""
    ids = list(conn.scalars(select(E.id).where(E.last_seen < before).order_by(E.last_seen, E.id).limit(limit)))
    if ids:
        conn.execute(delete(usage_errors).where(E.id.in_(ids)))
    return len(ids)
