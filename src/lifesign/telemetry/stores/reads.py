"""Records, looked up. Sync functions of a connection; what texts numbers stand for comes from a Dictionary."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Select, and_, false, func, or_, select, true, tuple_

from lifesign.clock import EpochMs
from lifesign.telemetry.records import Record
from lifesign.telemetry.store import Arrival, Filter, Start, Stored
from lifesign.telemetry.stores import dictionary
from lifesign.telemetry.stores.batches import batches
from lifesign.telemetry.stores.codes import SIGNAL, numbers_of, record_of
from lifesign.telemetry.stores.dictionary import Dictionary
from lifesign.telemetry.stores.listed import listed, one_by_one
from lifesign.telemetry.stores.members import go_by_index, member_ids, not_sought
from lifesign.telemetry.stores.tables import sessions, span_bodies, spans, traces

S = spans.c
_TRACE_DIGITS, _SPAN_DIGITS = 32, 16
_PREFIX = "rec_"
_HEX = frozenset("0123456789abcdef")


def window(
    conn: Connection,
    known: Dictionary,
    project: int,
    arrived: tuple[EpochMs, EpochMs],
    *,
    only: Filter,
    limit: int,
    after: Arrival | None,
) -> list[Stored]:
    """Records that arrived in a window, the newest first; see SpanStore.window.

    Index: ix_spans_arrival; of a trace uq_spans_identity, of a session what leads to its members.
    """
    since, until = arrived
    is_few = only.trace_id is not None or only.session_id is not None
    at = not_sought(S.received_at) if is_few else S.received_at
    its_project = not_sought(S.project) if only.session_id is not None else S.project
    query = select(S.id).where(its_project == project, at >= since, at < until)
    if only.environment is not None:
        number = dictionary.string_number(conn, project, only.environment)
        if number is None:
            return []
        query = query.where(S.environment == number)
    if only.trace_id is not None:
        if not _is_hex(only.trace_id, _TRACE_DIGITS):
            return []
        query = query.where(S.trace_id == bytes.fromhex(only.trace_id))
    if only.signal_type is not None:
        query = query.where(S.signal_type == SIGNAL[only.signal_type])
    if only.session_id is not None:
        session = session_number(conn, project, only.session_id)
        if session is None:
            return []
        query = query.where(S.id.in_(select(member_ids(session).c.id)))
    if after is not None:
        place = _place_of(after.record_id)
        if place is None:
            return []
        is_behind = and_(at == after.received_at, tuple_(S.trace_id, S.span_id) > tuple_(*place))
        query = query.where(at <= after.received_at, or_(at < after.received_at, is_behind))
    # Which ones first, and only those whole: PostgreSQL would otherwise find and join all of a window that it takes for
    # a dozen records.
    page = query.order_by(at.desc(), S.trace_id, S.span_id).limit(limit).subquery("page")
    if not is_few:
        go_by_index(conn)
    found = _stored(conn, known, _whole(not_sought(S.project), project).join(page, page.c.id == S.id))
    return sorted(found, key=lambda each: (-each.record.received_at, each.record.record_id))


def records(conn: Connection, known: Dictionary, project: int, record_ids: Sequence[str]) -> list[Stored]:
    """These records, in this order. Index: uq_spans_identity."""
    places = [place for place in map(_place_of, record_ids) if place is not None]
    found: dict[str, Stored] = {}
    for some in batches(places):
        numbers = [row.id for row in conn.execute(stored(conn, project, some)) if row.id is not None]
        query = _whole(not_sought(S.project), project).where(S.id.in_(numbers))
        found |= {each.record.record_id: each for each in _stored(conn, known, query)}
    return [found[record_id] for record_id in dict.fromkeys(record_ids) if record_id in found]


def stored(conn: Connection, project: int, places: Sequence[tuple[bytes, bytes]]) -> Select[Any]:
    """Trace and span of these, each with its `id` in `spans`: null of what is not stored.

    Index: uq_spans_identity, once for each.
    """
    keys = listed(conn, trace_id=[each for each, _ in places], span_id=[each for _, each in places])
    is_it = and_(S.project == project, S.trace_id == keys.c.trace_id, S.span_id == keys.c.span_id)
    if conn.dialect.name == "sqlite":
        # It finds no place in an index by a list of pairs, and joined with a table of them it may begin at the other
        # end, with all spans of the project. An outer join it has to begin here.
        return select(keys.c.trace_id, keys.c.span_id, S.id).select_from(keys).outerjoin(spans, is_it)
    found = one_by_one(select(S.id).where(is_it))
    return select(keys.c.trace_id, keys.c.span_id, found.c.id).select_from(keys).outerjoin(found, true())


def trace(
    conn: Connection, known: Dictionary, project: int, trace_id: str, *, limit: int, after: Start | None = None
) -> list[Stored]:
    """Records of a trace, by start. Index: uq_spans_identity."""
    whole = _whole(S.project, project).where(S.trace_id == bytes.fromhex(trace_id))
    return _stored(conn, known, _by_start(whole, limit, after))


def of_session(
    conn: Connection, known: Dictionary, project: int, session: int, *, limit: int, after: Start | None
) -> list[Stored]:
    """Records of a session, by start."""
    # Which ones first, and only those whole: joined with all its members PostgreSQL, which knows nothing of a table
    # that grew a moment ago, compares every record with every member. Of 20,000 that takes longer than 15 s.
    members = select(S.id).where(S.id.in_(select(member_ids(session).c.id)))
    page = _by_start(members, limit, after).subquery("page")
    query = _whole(not_sought(S.project), project).join(page, page.c.id == S.id)
    return _stored(conn, known, _in_order(query))


def last_arrival(conn: Connection, project: int) -> EpochMs | None:
    """The newest arrival of a project. Index: ix_spans_arrival."""
    at: EpochMs | None = conn.scalar(select(func.max(S.received_at)).where(S.project == project))
    return at


def session_number(conn: Connection, project: int, session_id: str) -> int | None:
    """The number of a session that has records."""
    is_it = (sessions.c.project == project) & (sessions.c.session_id == session_id) & (sessions.c.turns > 0)
    found: int | None = conn.scalar(select(sessions.c.id).where(is_it))
    return found


def has_arrived(
    conn: Connection, project: int, arrived: tuple[EpochMs, EpochMs], *, session: int | None = None, trace_id: str = ""
) -> bool:
    """Whether some record of a session or of a trace arrived in a window."""
    since, until = arrived
    at = not_sought(S.received_at)
    query = select(S.id).where(at >= since, at < until)
    if session is None:
        query = query.where(S.project == project, S.trace_id == bytes.fromhex(trace_id))
    else:
        members = member_ids(session)
        query = query.join(members, members.c.id == S.id)
    return conn.execute(query.limit(1)).first() is not None


def is_trace_id(text: str) -> bool:
    """Whether a text in lower case is one."""
    return _is_hex(text, _TRACE_DIGITS)


# Below ---------------------------------------------------------------------------------------------------------------
def _whole(its_project: ColumnElement[int], project: int) -> Select[Any]:
    """Spans with their bodies, the name of their session and their own, for as long as they have one.

    its_project: the column, or that which is `not_sought`.
    """
    return (
        select(
            spans,
            span_bodies.c.body,
            sessions.c.session_id.label("session_name"),
        )
        .join(span_bodies, span_bodies.c.id == S.id)
        .join(traces, and_(traces.c.project == S.project, traces.c.trace_id == S.trace_id))
        .join(sessions, sessions.c.id == func.coalesce(S.own_session, traces.c.session))
        .where(its_project == project)
    )


def _by_start(query: Select[Any], limit: int, after: Start | None) -> Select[Any]:
    if after is not None:
        place = _place_of(after.record_id)
        if place is None:
            return query.where(false())
        is_behind = and_(S.start_ns == after.start_ns, tuple_(S.trace_id, S.span_id) > tuple_(*place))
        query = query.where(or_(S.start_ns > after.start_ns, is_behind))
    return _in_order(query).limit(limit)


def _in_order(query: Select[Any]) -> Select[Any]:
    return query.order_by(S.start_ns, S.trace_id, S.span_id)


def _stored(conn: Connection, known: Dictionary, query: Select[Any]) -> list[Stored]:
    rows = conn.execute(query).all()
    texts = known.texts(conn, numbers_of(rows))
    return [_one(row, texts) for row in rows]


def _one(row: Row[Any], texts: dict[int | None, str | None]) -> Stored:
    record: Record = record_of(row, None if row.own_session is None else row.session_name, texts)
    return Stored(record, row.session_name)


def _place_of(record_id: str) -> tuple[bytes, bytes] | None:
    """Trace and span of a record id; None for what is none."""
    digits = record_id.removeprefix(_PREFIX)
    if not record_id.startswith(_PREFIX) or not _is_hex(digits, _TRACE_DIGITS + _SPAN_DIGITS):
        return None
    return bytes.fromhex(digits[:_TRACE_DIGITS]), bytes.fromhex(digits[_TRACE_DIGITS:])


def _is_hex(text: str, digits: int) -> bool:
    return len(text) == digits and _HEX.issuperset(text)
