"""What was answered and is not yet in ClickHouse, on the disk of this node; and what each project has used.

One row for each request. A request waits here for about a second, or for as long as ClickHouse is away.
"""

import hashlib
import uuid
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    and_,
    delete,
    func,
    insert,
    select,
    tuple_,
    update,
)
from sqlalchemy.dialects import sqlite

from lifesign.clock import EpochMs
from lifesign.db import Database, StorageUnavailable
from lifesign.db.failpoints import Failpoints
from lifesign.db.open import sqlite_engine
from lifesign.telemetry.records import Record
from lifesign.telemetry.rules import month_of
from lifesign.telemetry.store import Appended
from lifesign.telemetry.stores.batches import batches
from lifesign.telemetry.stores.clickhouse.rows import rows_of

SPOOL_FILE: Final = "spool.db"
LOCK_FILE: Final = "spool.lock"
_READERS: Final = 2
_HOUR_MS: Final = 3_600_000
_DIGEST_BYTES: Final = 16
_FORGOTTEN_AT_ONCE: Final = 20_000
_LOOKED_AT: Final = 1000

metadata = MetaData()
requests = Table(
    "requests",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("project_id", Text, nullable=False),
    Column("records", Integer, nullable=False),
    Column("raw_bytes", Integer, nullable=False),
    Column("left_out", LargeBinary, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Index("ix_requests_project", "project_id", "id", "records"),
    # Numbers name ranges for good: that of a deleted row is never given to another.
    sqlite_autoincrement=True,
)
"""left_out: places, in the payload, of records that are not to be stored."""
seen = Table(
    "seen",
    metadata,
    Column("hour", Integer, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),
    Column("seen_at", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
"""Records that were taken in an hour since 1970."""
usage = Table(
    "usage",
    metadata,
    Column("project_id", Text, primary_key=True),
    Column("month", Integer, primary_key=True),
    Column("used", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)
state = Table(
    "state",
    metadata,
    Column("node_id", Text, primary_key=True),
    Column("payload_bytes", BigInteger, nullable=False),
)
"""One row: who this node is for ClickHouse, and the size of all payloads."""


@dataclass(frozen=True, slots=True)
class Parcel:
    """Records of one request, ready to be stored. digests: one for each, of project, trace and span."""

    project_id: str
    digests: list[bytes]
    payload: bytes
    raw_bytes: int


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows for ClickHouse: those of the requests from `first` to `last`. token: the same for the same range."""

    first: int
    last: int
    token: str
    # Any: values of columns.
    rows: list[list[Any]]


class Pending(NamedTuple):
    """How many records wait, in the requests from `first` to `last`; zeros for none."""

    records: int
    first: int
    last: int


# Pure ----------------------------------------------------------------------------------------------------------------
def parcel_of(project_id: str, records: Sequence[Record]) -> Parcel:
    """What is written down of a request."""
    digests = [
        hashlib.blake2b(f"{record.trace_id}{record.span_id}{project_id}".encode(), digest_size=_DIGEST_BYTES).digest()
        for record in records
    ]
    raw = msgspec.msgpack.encode(rows_of(project_id, records))
    # The quickest level: a request says the same names again and again, and shrinks to a fifth.
    return Parcel(project_id, digests, zlib.compress(raw, level=1), len(raw))


def rows_in(payload: bytes, left_out: bytes) -> list[list[Any]]:
    """The rows of a request that are to be stored."""
    without = set(msgspec.msgpack.decode(left_out)) if left_out else set()
    rows: list[list[Any]] = msgspec.msgpack.decode(zlib.decompress(payload), type=list[list[Any]])
    return [row for place, row in enumerate(rows) if place not in without] if without else rows


# Statements. All but the last four: within the transaction of the writer. ---------------------------------------------
def take(conn: Connection, parcel: Parcel, *, quota: int, now: EpochMs, max_bytes: int) -> Appended:
    """Write a request down, without what was taken within the last hour and what is over the quota.

    Raises StorageUnavailable when the spool is full.
    """
    hour = now // _HOUR_MS
    known = _known(conn, hour, parcel.digests)
    room = len(parcel.digests) if quota == 0 else max(0, quota - used(conn, parcel.project_id, now))
    kept: dict[bytes, int] = {}
    over_quota = 0
    for place, digest in enumerate(parcel.digests):
        if digest in known or digest in kept:
            continue
        if len(kept) < room:
            kept[digest] = place
        else:
            over_quota += 1
    duplicate = len(parcel.digests) - len(kept) - over_quota
    outcome = Appended(new=len(kept), duplicate=duplicate, over_quota=over_quota)
    if not kept:
        return outcome
    _grow(conn, len(parcel.payload), max_bytes)
    left_out = sorted(set(range(len(parcel.digests))) - set(kept.values()))
    conn.execute(
        insert(requests).values(
            project_id=parcel.project_id,
            records=len(kept),
            raw_bytes=parcel.raw_bytes,
            left_out=msgspec.msgpack.encode(left_out) if left_out else b"",
            payload=parcel.payload,
        )
    )
    conn.execute(insert(seen), [{"hour": hour, "digest": digest, "seen_at": now} for digest in kept])
    _charge(conn, parcel.project_id, month_of(now), len(kept))
    return outcome


def _known(conn: Connection, hour: int, digests: Sequence[bytes]) -> set[bytes]:
    """Which were taken in this hour or the last; or in the next, by a clock that was ahead."""
    known: set[bytes] = set()
    for some in batches(digests):
        query = select(seen.c.digest).where(seen.c.hour.in_([hour - 1, hour, hour + 1]), seen.c.digest.in_(some))
        known.update(conn.scalars(query))
    return known


def _grow(conn: Connection, payload_bytes: int, max_bytes: int) -> None:
    grown = (
        update(state)
        .where(state.c.payload_bytes + payload_bytes <= max_bytes)
        .values(payload_bytes=state.c.payload_bytes + payload_bytes)
    )
    if conn.execute(grown).rowcount == 0:
        raise StorageUnavailable("The spool is full")


def _charge(conn: Connection, project_id: str, month: int, number: int) -> None:
    row = sqlite.insert(usage).values(project_id=project_id, month=month, used=number)
    conn.execute(
        row.on_conflict_do_update(
            index_elements=[usage.c.project_id, usage.c.month], set_={"used": usage.c.used + row.excluded.used}
        )
    )


def drop(conn: Connection, first: int, last: int) -> None:
    """Forget requests that are in ClickHouse by now."""
    _drop(conn, and_(requests.c.id >= first, requests.c.id <= last))


def _drop(conn: Connection, which: Any) -> int:  # Any: conditions have no common public type
    sizes = select(func.count(), func.coalesce(func.sum(func.length(requests.c.payload)), 0)).where(which)
    number, payload_bytes = conn.execute(sizes).one()
    conn.execute(delete(requests).where(which))
    conn.execute(update(state).values(payload_bytes=state.c.payload_bytes - payload_bytes))
    return int(number)


def erase(conn: Connection, project_ids: Sequence[str], limit: int) -> int:
    """Delete about `limit` requests of these projects, and then what they used; how many things went."""
    some = select(requests.c.id).where(requests.c.project_id.in_(project_ids)).limit(limit)
    gone = _drop(conn, requests.c.id.in_(some))
    return gone or conn.execute(delete(usage).where(usage.c.project_id.in_(project_ids))).rowcount


def forget(conn: Connection, now: EpochMs) -> int:
    """Delete some of the ids that were seen more than an hour ago; how many went."""
    old = select(seen.c.hour, seen.c.digest).where(seen.c.hour < now // _HOUR_MS - 1).limit(_FORGOTTEN_AT_ONCE)
    return conn.execute(delete(seen).where(tuple_(seen.c.hour, seen.c.digest).in_(old))).rowcount


def forget_before(conn: Connection, before: EpochMs) -> None:
    """Forget ids that were seen before an instant, because their records are deleted now."""
    conn.execute(delete(seen).where(seen.c.hour <= before // _HOUR_MS, seen.c.seen_at < before))


def used(conn: Connection, project_id: str, now: EpochMs) -> int:
    """What a project was charged in the month."""
    query = select(usage.c.used).where(usage.c.project_id == project_id, usage.c.month == month_of(now))
    return conn.scalar(query) or 0


def pending(conn: Connection, project_id: str | None) -> Pending:
    """What of a project waits, or of all."""
    query = select(
        func.coalesce(func.sum(requests.c.records), 0),
        func.coalesce(func.min(requests.c.id), 0),
        func.coalesce(func.max(requests.c.id), 0),
    )
    if project_id is not None:
        query = query.where(requests.c.project_id == project_id)
    return Pending(*conn.execute(query).one())


def next_batch(conn: Connection, max_records: int, max_bytes: int) -> Batch | None:
    """The oldest requests, one at least, with so many records and bytes together; None when nothing waits."""
    sizes = select(requests.c.id, requests.c.records, requests.c.raw_bytes).order_by(requests.c.id).limit(_LOOKED_AT)
    chosen = _fitting(conn.execute(sizes), max_records, max_bytes)
    if not chosen:
        return None
    first, last = chosen[0], chosen[-1]
    query = select(requests.c.payload, requests.c.left_out).where(requests.c.id.between(first, last))
    rows: list[list[Any]] = []
    for payload, left_out in conn.execute(query.order_by(requests.c.id)):
        rows.extend(rows_in(payload, left_out))
    return Batch(first, last, f"{conn.scalar(select(state.c.node_id))}-{first}-{last}", rows)


def _fitting(sizes: Iterable[Any], max_records: int, max_bytes: int) -> list[int]:
    chosen: list[int] = []
    for number, records, raw_bytes in sizes:
        max_records -= records
        max_bytes -= raw_bytes
        if chosen and (max_records < 0 or max_bytes < 0):
            break
        chosen.append(number)
    return chosen


# Opening -------------------------------------------------------------------------------------------------------------
def open_spool(directory: Path, failpoints: Failpoints) -> Database:
    """Open the spool of a data directory. The caller holds `LOCK_FILE` in it."""
    path = directory / SPOOL_FILE
    writer = sqlite_engine(path)
    metadata.create_all(writer)
    with writer.begin() as conn:
        if conn.scalar(select(state.c.node_id)) is None:
            conn.execute(insert(state).values(node_id=f"node_{uuid.uuid4().hex}", payload_bytes=0))
    reader = sqlite_engine(path, read_only=True)
    return Database(writer=writer, reader=reader, writers=1, readers=_READERS, failpoints=failpoints)
