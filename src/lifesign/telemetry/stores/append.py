"""Storing the records of one request, in one transaction.

Every change of a project's sessions happens while its row of `span_projects` is locked (SQLite has one writer anyway),
so that whatever is read here stays true until the commit.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from sqlalchemy import Connection, case, func, insert, literal_column, select, text, true, update
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
from lifesign.telemetry.stores.listed import listed, one_by_one
from lifesign.telemetry.stores.members import members_arrival
from lifesign.telemetry.stores.shares import Share, drop_empty, grow, take_away
from lifesign.telemetry.stores.tables import (
    sessions,
    span_bodies,
    span_moves,
    span_projects,
    spans,
    traces,
    usage,
)

Key = tuple[str, str]
"""Trace and span, in hex."""

RUN: Final = 2000
"""Records that are made into rows at a time."""


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
    """Those of these traces that have spans here. Index: the primary key of `traces`, once for each of them."""
    t = traces.c
    query = select(t.trace_id, t.session, t.rank, sessions.c.session_id).join(sessions, sessions.c.id == t.session)
    query = query.where(t.project == project)
    found = {}
    for some in batches(sorted(trace_ids)):
        keys = [bytes.fromhex(each) for each in some]
        if conn.dialect.name == "sqlite":
            of_some = query.where(t.trace_id.in_(keys))
        else:
            wanted = listed(conn, trace_id=keys)
            of_one = one_by_one(query.where(t.trace_id == wanted.c.trace_id))
            of_some = select(*of_one.c).select_from(wanted).join(of_one, true())
        for row in conn.execute(of_some):
            named = None if row.rank is None else TraceSession(row.session_id, Rank.from_key(row.rank))
            found[row.trace_id.hex()] = _Trace(row.session, named)
    return found


def _stored(conn: Connection, project: int, keys: Sequence[Key]) -> set[Key]:
    """Those of these spans that are stored. Index: uq_spans_identity, once for each of them, however long the trace."""
    found = set()
    for some in batches(keys):
        pairs = [(bytes.fromhex(trace_id), bytes.fromhex(span_id)) for trace_id, span_id in some]
        rows = conn.execute(reads.stored(conn, project, pairs))
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


class _Inherited(NamedTuple):
    """Records of a trace without a session of their own, of one arrival, environment and agent.

    metered: how many of llm and embedding have tokens, the sum of which is told in two parts.
    """

    received_at: int
    environment: int | None
    agent: int | None
    records: int
    metered: int
    tokens_high: int
    tokens_low: int


@dataclass(frozen=True, slots=True)
class _Move:
    """Records that leave a session for another. *_unnamed: whether that is called like their trace."""

    left: int
    session_id: str
    records: _Inherited
    was_unnamed: bool
    is_unnamed: bool


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
        lost, moves = self._moved(before, named, gains)
        its_sessions = [session_of(record, named[record.trace_id]) for record in kept]
        for record, session_id in zip(kept, its_sessions, strict=True):
            gain = gains[session_id]
            gain.add(1, record.received_at, numbers[record.environment] if record.environment is not None else None)
            gain.aliases.update(record.body.aliases)
        ids = grow(self.conn, self.project, gains)
        self._name_traces(named, before, ids)
        self._note_moves(moves, ids)
        placed = list(zip(kept, its_sessions, strict=True))
        self._insert(placed, ids, numbers, {key: numbers[each] for key, each in origin_texts.items()})
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
    ) -> tuple[dict[int, Share], list[_Move]]:
        """What sessions lose, since traces now have a better name; `gains` get it."""
        lost: dict[int, Share] = defaultdict(Share)
        moves: list[_Move] = []
        for trace_id, trace in before.items():
            after = named.get(trace_id)
            if after is None or (trace.named is not None and trace.named.session_id == after.session_id):
                continue
            if trace.named is None and after.session_id == trace_id:
                continue
            # Even where nothing moves: the old session may have been there for its name alone.
            share = lost[trace.session]
            was_unnamed = trace.named is None or trace.named.session_id == trace_id
            for some in _inherited(self.conn, self.project, trace_id):
                share.add(some.records, some.received_at, some.environment)
                gains[after.session_id].add(some.records, some.received_at, some.environment)
                moves.append(
                    _Move(
                        trace.session,
                        after.session_id,
                        some,
                        was_unnamed=was_unnamed,
                        is_unnamed=after.session_id == trace_id,
                    )
                )
        return lost, moves

    def _note_moves(self, moves: Iterable[_Move], ids: dict[str, int]) -> None:
        """Tell whoever reads digests of these."""
        rows = [
            {
                "project": self.project,
                "session": session,
                "received_at": some.received_at,
                "environment": some.environment,
                "agent": some.agent,
                "records": sign * some.records,
                "unnamed": sign * some.records * is_unnamed,
                "metered": sign * some.metered,
                "tokens_high": sign * some.tokens_high,
                "tokens_low": sign * some.tokens_low,
            }
            for each in moves
            for some in [each.records]
            for sign, session, is_unnamed in (
                (-1, each.left, each.was_unnamed),
                (1, ids[each.session_id], each.is_unnamed),
            )
        ]
        if rows:
            self.conn.execute(insert(span_moves), rows)

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
        self,
        placed: Sequence[tuple[Record, str]],
        ids: dict[str, int],
        numbers: dict[str, int],
        origins: dict[int, int],
    ) -> None:
        """Write records, each with the id of its session."""
        strings: dict[str | None, int | None] = {None: None}
        strings.update(numbers)
        first = _next_numbers(self.conn, len(placed))
        rows: list[tuple[Any, ...]] = []
        # In runs, of which each is forgotten once it is written: a request may have a hundred thousand records.
        for start in range(0, len(placed), RUN):
            run = placed[start : start + RUN]
            of_run = [
                row_of(
                    record,
                    strings,
                    number=number,
                    project=self.project,
                    own_session=None if record.own_session is None else ids[record.own_session],
                    origin=origins[id(record.origin)],
                )
                for number, (record, _) in zip(first[start : start + RUN], run, strict=True)
            ]
            bodies = [(row[0], body_bytes(record)) for row, (record, _) in zip(of_run, run, strict=True)]
            if self.conn.dialect.name == "sqlite":
                self.conn.exec_driver_sql(_INSERT_SPANS, of_run)
                self.conn.exec_driver_sql(_INSERT_BODIES, bodies)
            else:
                _copy(self.conn, f"COPY spans ({', '.join(COLUMNS)}) FROM STDIN", of_run)
                _copy(self.conn, "COPY span_bodies (id, body) FROM STDIN", bodies)
            rows += [(*row, ids[session_id]) for row, (_, session_id) in zip(of_run, run, strict=True)]
        finish_reasons = {record.finish_reason for record, _ in placed if record.finish_reason is not None}
        digests.insert(
            self.conn,
            rows,
            digests.abnormal((each, numbers[each]) for each in finish_reasons),
            digests.like_traces((number, session_id) for session_id, number in ids.items()),
        )

    def _shrink(self, lost: dict[int, Share]) -> None:
        """Count what sessions lost, and look at those that go on for their last arrival."""
        if not lost:
            return
        take_away(self.conn, lost)
        for session in drop_empty(self.conn, lost):
            at = self.conn.scalar(members_arrival(session))
            self.conn.execute(update(sessions).where(sessions.c.id == session).values(last_received_at=at))


def _inherited(conn: Connection, project: int, trace_id: str) -> list[_Inherited]:
    """Records of a trace that are in its session, by arrival, environment and agent."""
    s = spans.c
    is_it = (s.project == project) & (s.trace_id == bytes.fromhex(trace_id)) & s.own_session.is_(None)
    groups = (s.received_at, s.environment, s.agent)
    tokens = case((s.kind.in_(digests.METERED), s.total_tokens))
    # In two parts: the sum of numbers this large need not be one that SQLite has.
    sums = (
        func.coalesce(func.sum(part), 0) for part in (tokens.op(">>")(literal_column("32")), tokens.op("&")(2**32 - 1))
    )
    query = select(*groups, func.count(), func.count(tokens), *sums).where(is_it).group_by(*groups)
    return [_Inherited(*row[:-2], *map(int, row[-2:])) for row in conn.execute(query)]


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
