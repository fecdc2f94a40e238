"""Sessions in short. What somebody reads is worked out once after a change, and kept.

The list is read from `sessions` alone; records are read only of those sessions that changed since they were last read.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, Row, Select, and_, case, exists, func, or_, select, text
from sqlalchemy.sql.selectable import Subquery

from lifesign.clock import EpochMs
from lifesign.telemetry.records import Narrow
from lifesign.telemetry.sessions import MOST_RECORDS, Counts, Summary, summary_of
from lifesign.telemetry.store import Activity
from lifesign.telemetry.stores import dictionary
from lifesign.telemetry.stores.batches import batches
from lifesign.telemetry.stores.codes import FAILING, KINDS, SIGNALS, STATUSES, aliases_in
from lifesign.telemetry.stores.dictionary import Dictionary
from lifesign.telemetry.stores.members import go_by_index, members_of, not_sought
from lifesign.telemetry.stores.tables import session_aliases, session_environments, sessions, span_bodies, spans, traces

_AT_ONCE: Final = 50_000

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Summary).decode
C = sessions.c


@dataclass(frozen=True, slots=True)
class Worked:
    """A summary that was worked out. version: of the session that it is true of."""

    number: int
    version: int
    summary: Summary


def listed(
    conn: Connection,
    known: Dictionary,
    project: int,
    arrived: tuple[EpochMs, EpochMs],
    *,
    environment: str | None,
    limit: int,
    after: Activity | None,
) -> tuple[list[Summary], list[Worked]]:
    """Sessions of a window, see SpanStore.sessions; and what is to be kept of them. Index: ix_sessions_activity."""
    query = _in_window(project, arrived)
    if environment is not None:
        number = dictionary.string_number(conn, project, environment)
        if number is None:
            return [], []
        is_from = (session_environments.c.session == C.id) & (session_environments.c.environment == number)
        query = query.where(exists().where(is_from))
    if after is not None:
        is_behind = and_(C.last_received_at == after.last_received_at, C.session_id > after.session_id)
        query = query.where(
            C.last_received_at <= after.last_received_at, or_(C.last_received_at < after.last_received_at, is_behind)
        )
    go_by_index(conn)
    rows = conn.execute(query.order_by(C.last_received_at.desc(), C.session_id).limit(limit)).all()
    return _summaries(conn, known, rows)


def one(conn: Connection, known: Dictionary, number: int) -> tuple[Summary, list[Worked]]:
    """The summary of a session that has records; and what is to be kept of it."""
    rows = conn.execute(select(*_COLUMNS).where(C.id == number)).all()
    [summary], worked = _summaries(conn, known, rows)
    return summary, worked


def of_trace(conn: Connection, known: Dictionary, project: int, trace_id: str) -> Summary:
    """The summary of one trace by itself, under the id of its session, with the aliases of its own records."""
    is_it = (spans.c.project == project) & (spans.c.trace_id == bytes.fromhex(trace_id))
    is_its = (traces.c.project == project) & (traces.c.trace_id == bytes.fromhex(trace_id))
    named_after = select(C.session_id).join(traces, traces.c.session == C.id).where(is_its)
    session_id: str = conn.execute(named_after).scalar_one()
    # Bodies are read only of those whose session has any.
    has_some = exists().where(session_aliases.c.session == func.coalesce(spans.c.own_session, traces.c.session))
    is_of_trace = and_(traces.c.project == spans.c.project, traces.c.trace_id == spans.c.trace_id)
    with_some = list(conn.scalars(select(spans.c.id).join(traces, is_of_trace).where(is_it, has_some)))
    aliases: set[str] = set()
    for some in batches(with_some):
        for body in conn.scalars(select(span_bodies.c.body).where(span_bodies.c.id.in_(some))):
            aliases.update(aliases_in(body))
    return _told(conn, known, session_id, select(*_LOOKED_AT).where(is_it).subquery("members"), aliases)


def by_alias(conn: Connection, project: int, alias: str) -> int | None:
    """The number of the last active session with this alias."""
    a = session_aliases.c
    query = select(C.id).join(session_aliases, a.session == C.id).where(a.project == project, a.alias == alias)
    newest = query.where(C.turns > 0).order_by(C.last_received_at.desc(), C.session_id).limit(1)
    found: int | None = conn.scalar(newest)
    return found


def count_in_window(conn: Connection, project: int, arrived: tuple[EpochMs, EpochMs]) -> int:
    """How many sessions something of arrived in a window."""
    return conn.scalar(select(func.count()).select_from(_in_window(project, arrived).subquery())) or 0


def keep(conn: Connection, worked: Sequence[Worked]) -> None:
    """Keep summaries of sessions that did not change meanwhile."""
    rows = [
        {"its_id": each.number, "its_version": each.version, "summary": _encode(each.summary).decode()}
        for each in worked
    ]
    conn.execute(text("UPDATE sessions SET summary = :summary WHERE id = :its_id AND version = :its_version"), rows)


# Below ---------------------------------------------------------------------------------------------------------------
_TEXTS: Final = ("operation", "agent", "model", "environment")
_NAMES: Final = (
    *("trace_id", "span_id", "parent_id", "received_at", "start_ns", "end_ns", "kind", "status", "signal_type"),
    *_TEXTS,
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_tokens"),
    "cost_nano",
)
"""Of what a record tells, all that `summary_of` looks at."""
_LOOKED_AT: Final = tuple(spans.c[name] for name in _NAMES)
_UNSAID: Final = {"op_hash": 0, "bucket": 0, "flags": 0}
_COLUMNS: Final = (C.id, C.session_id, C.turns, C.last_received_at, C.version, C.summary)


def _in_window(project: int, arrived: tuple[EpochMs, EpochMs]) -> Select[Any]:
    since, until = arrived
    at = not_sought(spans.c.received_at)
    in_window = and_(at >= since, at < until)
    own = select(spans.c.id).where(spans.c.own_session == C.id, in_window)
    is_of_trace = and_(spans.c.project == traces.c.project, spans.c.trace_id == traces.c.trace_id)
    inherited = select(spans.c.id).join(traces, is_of_trace)
    inherited = inherited.where(traces.c.session == C.id, spans.c.own_session.is_(None), in_window)
    # Of what arrived last after the window, something may have arrived in it; mostly the window ends now.
    # The offset keeps PostgreSQL from working both out for all sessions at once, of all projects, by reading all spans.
    is_in = or_(C.last_received_at < until, exists(own.offset(0)), exists(inherited.offset(0)))
    return select(*_COLUMNS).where(C.project == project, C.turns > 0, C.last_received_at >= since, is_in)


def _summaries(
    conn: Connection, known: Dictionary, rows: Sequence[Any]
) -> tuple[list[Summary], list[Worked]]:  # Any: rows of _COLUMNS
    stale = [row for row in rows if row.summary is None]
    worked = {row.id: _worked_large(conn, known, row) for row in stale if row.turns > MOST_RECORDS}
    for some in _in_parts(row for row in stale if row.turns <= MOST_RECORDS):
        worked |= _worked(conn, known, some)
    summaries = [worked[row.id].summary if row.id in worked else _decode(row.summary) for row in rows]
    return summaries, list(worked.values())


def _in_parts(rows: Iterable[Row[Any]]) -> Iterable[list[Row[Any]]]:
    """So few sessions at once that their records fit into memory."""
    part: list[Row[Any]] = []
    turns = 0
    for row in rows:
        if part and turns + row.turns > _AT_ONCE:
            yield part
            part, turns = [], 0
        part.append(row)
        turns += row.turns
    if part:
        yield part


def _worked(conn: Connection, known: Dictionary, rows: Sequence[Row[Any]]) -> dict[int, Worked]:
    """Summaries of sessions from all their records, by number."""
    numbers = [row.id for row in rows]
    members: dict[int, list[Narrow]] = {number: [] for number in numbers}
    found = conn.execute(members_of(numbers, *_LOOKED_AT)).all()
    for member, record in zip(found, _narrow(conn, known, found), strict=True):
        members[member[-1]].append(record)
    aliases = _aliases(conn, numbers)
    return {
        row.id: Worked(row.id, row.version, summary_of(row.session_id, members[row.id], aliases.get(row.id, ())))
        for row in rows
        # On one snapshot there are as many as are counted.
        if members[row.id]
    }


def _worked_large(conn: Connection, known: Dictionary, row: Row[Any]) -> Worked:
    """The summary of a session of many records."""
    members = members_of([row.id], *_LOOKED_AT).subquery("members")
    aliases = _aliases(conn, [row.id]).get(row.id, ())
    return Worked(row.id, row.version, _told(conn, known, row.session_id, members, aliases))


def _told(conn: Connection, known: Dictionary, session_id: str, members: Subquery, aliases: Collection[str]) -> Summary:
    """The summary of these records: the first by start tell of them, and the others are counted."""
    m = members.c
    by_start = select(members).order_by(m.start_ns, m.trace_id, m.span_id).limit(MOST_RECORDS)
    summary = summary_of(session_id, _narrow(conn, known, conn.execute(by_start).all()), aliases)
    if summary.turns < MOST_RECORDS:
        return summary
    ended = func.max(case((m.end_ns > m.start_ns, m.end_ns), else_=m.start_ns))
    whole = conn.execute(
        select(
            func.count().label("turns"),
            func.count(m.trace_id.distinct()).label("traces"),
            func.sum(case((m.status == FAILING, 1), else_=0)).label("failures"),
            func.min(m.start_ns).label("started_ns"),
            ended.label("ended_ns"),
            func.max(m.received_at).label("last_received_at"),
        )
    ).one()
    signals = {
        SIGNALS[code]: count
        for code, count in conn.execute(select(m.signal_type, func.count()).group_by(m.signal_type))
    }
    return summary.of_all(
        Counts(
            turns=whole.turns,
            traces=whole.traces,
            failures=int(whole.failures),
            signals=signals,
            started_ns=whole.started_ns,
            ended_ns=whole.ended_ns,
            last_received_at=EpochMs(whole.last_received_at),
            aliases=aliases,
        )
    )


def _narrow(conn: Connection, known: Dictionary, rows: Sequence[Sequence[Any]]) -> list[Narrow]:
    """What a summary is made of, and no more, of rows of _LOOKED_AT, in their order.

    Column by column: a row of all that a record has costs five times as much, and there may be a million.
    """
    if not rows:
        return []
    told: dict[str, Iterable[Any]] = dict(zip(_NAMES, zip(*rows, strict=True), strict=False))
    texts = known.texts(conn, {number for name in _TEXTS for number in set(told[name])} - {None})
    for name in _TEXTS:
        told[name] = map(texts.get, told[name])
    told["operation"] = [each or "" for each in told["operation"]]
    told["trace_id"], told["span_id"] = map(bytes.hex, told["trace_id"]), map(bytes.hex, told["span_id"])
    told["parent_id"] = ["" if each is None else each.hex() for each in told["parent_id"]]
    for name, words in (("kind", KINDS), ("status", STATUSES), ("signal_type", SIGNALS)):
        told[name] = map(words.__getitem__, told[name])
    return list(map(Narrow, *(told.get(name, repeat(_UNSAID.get(name))) for name in Narrow.__struct_fields__)))


def _aliases(conn: Connection, numbers: Sequence[int]) -> dict[int, list[str]]:
    found: dict[int, list[str]] = {}
    a = session_aliases.c
    for number, alias in conn.execute(select(a.session, a.alias).where(a.session.in_(numbers))):
        found.setdefault(number, []).append(alias)
    return found
