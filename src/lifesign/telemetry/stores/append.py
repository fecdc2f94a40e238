"""Storing the records of one request, in one transaction.

Every change of a project's sessions happens while its row of `span_projects` is locked (SQLite has one writer anyway),
so that whatever is read here stays true until the commit.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from sqlalchemy import Connection, func, insert, select, text, update
from sqlalchemy.dialects import sqlite

from lifesign.clock import EpochMs
from lifesign.telemetry.records import Record
from lifesign.telemetry.rules import month_of
from lifesign.telemetry.sessions import Rank, TraceSession, session_of, trace_session
from lifesign.telemetry.store import Appended
from lifesign.telemetry.stores import dictionary, digests, reads
from lifesign.telemetry.stores.batches import batches
from lifesign.telemetry.stores.codes import COLUMNS, TEXTS, body_bytes, origin_text, row_of
from lifesign.telemetry.stores.dictionary import Dictionary, Learned, day_of
from lifesign.telemetry.stores.members import members_arrival
from lifesign.telemetry.stores.shares import Share, drop_empty, grow, take_away
from lifesign.telemetry.stores.tables import (
    sessions,
    span_bodies,
    span_projects,
    spans,
    traces,
    usage,
)

Key = tuple[str, str]
"""Trace and span, in hex."""


def lock(conn: Connection, project: int) -> bool:
    """Nobody else changes the records of a project until the transaction ends. False: it was erased."""
    return conn.scalar(select(span_projects.c.id).where(span_projects.c.id == project).with_for_update()) is not None


def append(
    conn: Connection, known: Dictionary, project_id: str, records: Sequence[Record], *, quota: int, now: EpochMs
) -> tuple[Appended, Learned]:
    """Store what is new and fits; see SpanStore.append. And what to learn once that has committed."""
    project = known.project(project_id) or dictionary.number_of_project(conn, project_id)
    if not lock(conn, project):
        # Another node erased the project. Under its old number records would stay for ever: nothing looks there.
        project = dictionary.number_of_project(conn, project_id)
        lock(conn, project)
    month = month_of(now)
    by_key: dict[Key, Record] = {}
    for record in records:
        by_key.setdefault((record.trace_id, record.span_id), record)
    before = _traces(conn, project, {trace_id for trace_id, _ in by_key})
    stored = _stored(conn, project, [key for key in by_key if key[0] in before])
    fresh = [key for key in by_key if key not in stored]
    room = len(fresh) if not quota else max(0, quota - used(conn, project, month))
    left_out = set(fresh[room:])
    kept = [by_key[key] for key in fresh[:room]]
    over = sum((each.trace_id, each.span_id) in left_out for each in records) if left_out else 0
    numbers: dict[str, int] = {}
    if kept:
        numbers = _Writing(conn, project, day_of(now), known).write(kept, before)
        _charge(conn, project, month, len(kept))
    appended = Appended(new=len(kept), duplicate=len(records) - len(kept) - over, over_quota=over)
    return appended, Learned((project_id, project), day_of(now), numbers)


# What is there already -----------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Trace:
    """A trace that has spans here."""

    session: int
    named: TraceSession | None


def _traces(conn: Connection, project: int, trace_ids: Iterable[str]) -> dict[str, _Trace]:
    t = traces.c
    query = select(t.trace_id, t.session, t.rank, sessions.c.session_id).join(sessions, sessions.c.id == t.session)
    found = {}
    for some in batches(sorted(trace_ids)):
        of_some = query.where(t.project == project, t.trace_id.in_([bytes.fromhex(each) for each in some]))
        for row in conn.execute(of_some):
            named = None if row.rank is None else TraceSession(row.session_id, Rank.from_key(row.rank))
            found[row.trace_id.hex()] = _Trace(row.session, named)
    return found


def _stored(conn: Connection, project: int, keys: Sequence[Key]) -> set[Key]:
    """Those of these spans that are stored. Index: uq_spans_identity, once for each of them, however long the trace."""
    s = spans.c
    found = set()
    for some in batches(keys):
        pairs = [(bytes.fromhex(trace_id), bytes.fromhex(span_id)) for trace_id, span_id in some]
        rows = conn.execute(reads.stored(conn, project, pairs, s.id))
        found |= {(row.trace_id.hex(), row.span_id.hex()) for row in rows if row.id is not None}
    return found


def used(conn: Connection, project: int, month: int) -> int:
    """Records charged in a month."""
    query = select(usage.c.used).where(usage.c.project == project, usage.c.month == month)
    return conn.scalar(query) or 0


def _charge(conn: Connection, project: int, month: int, count: int) -> None:
    conn.execute(
        text(
            "INSERT INTO usage (project, month, used) VALUES (:project, :month, :count) "
            "ON CONFLICT (project, month) DO UPDATE SET used = usage.used + excluded.used"
        ),
        {"project": project, "month": month, "count": count},
    )


# Writing -------------------------------------------------------------------------------------------------------------
@dataclass(slots=True)
class _Writing:
    """New records on their way into the tables."""

    conn: Connection
    project: int
    day: int
    known: Dictionary

    def write(self, kept: Sequence[Record], before: dict[str, _Trace]) -> dict[str, int]:
        """Write them; the numbers of their texts."""
        origins = {id(record.origin): record.origin for record in kept}
        origin_texts = {key: origin_text(origin) for key, origin in origins.items()}
        numbers = self._numbers(kept, origin_texts.values())
        by_trace: dict[str, list[Record]] = defaultdict(list)
        for record in kept:
            by_trace[record.trace_id].append(record)
        named = {
            trace_id: trace_session(some, before[trace_id].named if trace_id in before else None)
            for trace_id, some in by_trace.items()
        }
        gains: dict[str, Share] = defaultdict(Share)
        lost = self._moved(before, named, gains)
        for record in kept:
            gain = gains[session_of(record, named[record.trace_id])]
            gain.add(1, record.received_at, numbers[record.environment] if record.environment is not None else None)
            gain.aliases.update(record.body.aliases)
        ids = grow(self.conn, self.project, gains)
        self._name_traces(named, before, ids)
        self._insert(kept, ids, numbers, {key: numbers[each] for key, each in origin_texts.items()})
        self._shrink(lost)
        return numbers

    def _numbers(self, kept: Sequence[Record], origins: Iterable[str]) -> dict[str, int]:
        wanted = {getattr(record, name) for record in kept for name in TEXTS} | set(origins)
        wanted.discard(None)
        found = self.known.known(self.project, self.day, wanted)
        missing = [each for each in wanted if each not in found]
        return {**found, **dictionary.use_strings(self.conn, self.project, self.day, missing)}

    def _moved(
        self, before: dict[str, _Trace], named: dict[str, TraceSession | None], gains: dict[str, Share]
    ) -> dict[int, Share]:
        """What sessions lose, since traces now have a better name; `gains` get it."""
        lost: dict[int, Share] = defaultdict(Share)
        for trace_id, trace in before.items():
            after = named.get(trace_id)
            if after is None or (trace.named is not None and trace.named.session_id == after.session_id):
                continue
            if trace.named is None and after.session_id == trace_id:
                continue
            # Even where nothing moves: the old session may have been there for its name alone.
            share = lost[trace.session]
            for environment, turns, received_at in _inherited(self.conn, self.project, trace_id):
                share.add(turns, received_at, environment)
                gains[after.session_id].add(turns, received_at, environment)
        return lost

    def _name_traces(
        self, named: dict[str, TraceSession | None], before: dict[str, _Trace], ids: dict[str, int]
    ) -> None:
        """Note every new trace, and those that have a better name."""
        rows = [
            {
                "project": self.project,
                "trace_id": bytes.fromhex(trace_id),
                "session": ids[name.session_id if name else trace_id],
                "rank": name.rank.key if name else None,
            }
            for trace_id, name in named.items()
            if trace_id not in before or before[trace_id].named != name
        ]
        if rows:
            self.conn.execute(
                text(
                    "INSERT INTO traces (project, trace_id, session, rank) "
                    "VALUES (:project, :trace_id, :session, :rank) "
                    "ON CONFLICT (project, trace_id) DO UPDATE SET session = excluded.session, rank = excluded.rank"
                ),
                rows,
            )

    def _insert(
        self, kept: Sequence[Record], ids: dict[str, int], numbers: dict[str, int], origins: dict[int, int]
    ) -> None:
        strings: dict[str | None, int | None] = {None: None}
        strings.update(numbers)
        first = _next_numbers(self.conn, len(kept))
        rows = [
            row_of(
                record,
                strings,
                number=number,
                project=self.project,
                own_session=None if record.own_session is None else ids[record.own_session],
                origin=origins[id(record.origin)],
            )
            for number, record in zip(first, kept, strict=True)
        ]
        bodies = [(row[0], body_bytes(record)) for row, record in zip(rows, kept, strict=True)]
        if self.conn.dialect.name == "sqlite":
            self.conn.exec_driver_sql(_INSERT_SPANS, rows)
            self.conn.exec_driver_sql(_INSERT_BODIES, bodies)
        else:
            _copy(self.conn, f"COPY spans ({', '.join(COLUMNS)}) FROM STDIN", rows)
            _copy(self.conn, "COPY span_bodies (id, body) FROM STDIN", bodies)
        finish_reasons = {each.finish_reason for each in kept if each.finish_reason is not None}
        digests.insert(self.conn, rows, digests.abnormal((each, numbers[each]) for each in finish_reasons))

    def _shrink(self, lost: dict[int, Share]) -> None:
        """Count what sessions lost, and look at those that go on for their last arrival."""
        if not lost:
            return
        take_away(self.conn, lost)
        for session in drop_empty(self.conn, lost):
            at = self.conn.scalar(members_arrival(session))
            self.conn.execute(update(sessions).where(sessions.c.id == session).values(last_received_at=at))


def _inherited(conn: Connection, project: int, trace_id: str) -> list[tuple[int | None, int, int]]:
    """Records of a trace that are in its session: of each environment how many, and the last arrival."""
    s = spans.c
    is_it = (s.project == project) & (s.trace_id == bytes.fromhex(trace_id)) & s.own_session.is_(None)
    query = select(s.environment, func.count(), func.max(s.received_at)).where(is_it).group_by(s.environment)
    return [(environment, turns, at) for environment, turns, at in conn.execute(query)]


# By the driver: what SQLAlchemy does for each row costs more than SQLite itself. -------------------------------------
_INSERT_SPANS: Final = str(insert(spans).compile(dialect=sqlite.dialect(paramstyle="qmark"), column_keys=list(COLUMNS)))
_INSERT_BODIES: Final = str(
    insert(span_bodies).compile(dialect=sqlite.dialect(paramstyle="qmark"), column_keys=["id", "body"])
)


def _copy(conn: Connection, statement: str, rows: Iterable[tuple[Any, ...]]) -> None:
    """Many rows into PostgreSQL the quickest way there is. None of them is there yet."""
    cursor = conn.connection.cursor()
    # Any: psycopg's own cursor, of which the interface of all drivers does not know `copy`.
    psycopg_cursor: Any = cursor
    with psycopg_cursor.copy(statement) as copy:
        for row in rows:
            copy.write_row(row)
    cursor.close()


def _next_numbers(conn: Connection, count: int) -> Sequence[int]:
    """Numbers for new spans, in the order of arrival."""
    if conn.dialect.name == "sqlite":
        last = conn.scalar(select(func.max(spans.c.id))) or 0
        return range(last + 1, last + 1 + count)
    return list(conn.scalars(text("SELECT nextval('span_ids') FROM generate_series(1, :count)"), {"count": count}))
