"""What the rules of diagnosis read of a project, and the details of what fired. Spec "Diagnosis", section 3."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from sqlalchemy import Connection, Row, Select, and_, func, select, tuple_

from lifesign.clock import EpochMs
from lifesign.db.stop import Stop
from lifesign.diagnosis.details import Details, Fetch, Wanted, details_of
from lifesign.diagnosis.facts import Facts, Windows, facts_of
from lifesign.diagnosis.preparation import Key, Placed, key_of
from lifesign.telemetry.stores import dictionary, reads
from lifesign.telemetry.stores.codes import narrow_of, numbers_of
from lifesign.telemetry.stores.dictionary import Dictionary
from lifesign.telemetry.stores.tables import sessions, spans, traces

S = spans.c
T = TypeVar("T")
_AT_ONCE = 1000


def examine(
    conn: Connection,
    known: Dictionary,
    project: int,
    windows: Windows,
    judge: Callable[[Facts, Fetch], T],
    *,
    most_of_a_session: int,
    stop: Stop,
) -> T:
    """What `judge` says; see SpanStore.examine."""
    current, left_out = _read(conn, known, project, windows, windows.current)
    baseline, _ = _read(conn, known, project, windows, windows.baseline)
    stop.look()
    facts = facts_of(current, baseline, known=_parents(conn, project, current), most_of_a_session=most_of_a_session)
    if left_out:
        oldest = min(placed.record.received_at for placed in current)
        notices = {**facts.notices, "window_truncated": left_out}
        facts = Facts(facts.current, facts.baseline, notices, oldest)

    def fetch(wanted: Wanted) -> Details:
        stop.look()
        ids = [f"rec_{trace_id}{span_id}" for trace_id, span_id in wanted.messages]
        stored = (each.record for each in reads.records(conn, known, project, ids))
        messages = {
            (each.trace_id, each.span_id): each.body.message for each in stored if each.body.message is not None
        }
        return details_of(current, wanted, messages)

    return judge(facts, fetch)


def _read(
    conn: Connection, known: Dictionary, project: int, windows: Windows, arrived: tuple[EpochMs, EpochMs]
) -> tuple[list[Placed], int]:
    """The records of a window that are read, and how many are not."""
    since, until = arrived
    chosen = and_(S.project == project, S.received_at >= since, S.received_at < until)
    if windows.environment is not None:
        number = dictionary.string_number(conn, project, windows.environment)
        if number is None:
            return [], 0
        chosen = and_(chosen, S.environment == number)
    query = _placed().where(chosen).order_by(S.received_at.desc(), S.trace_id.desc(), S.span_id.desc())
    rows = conn.execute(query.limit(windows.most_records)).all()
    left_out = 0
    if len(rows) == windows.most_records:
        left_out = (conn.scalar(select(func.count()).select_from(spans).where(chosen)) or 0) - len(rows)
    texts = known.texts(conn, numbers_of(rows, with_origin=False))
    return [_one(row, texts) for row in rows], left_out


def _parents(conn: Connection, project: int, records: Sequence[Placed]) -> set[Key]:
    """Those of the parents of these records that are stored."""
    there = {key_of(placed) for placed in records}
    parents = {(record.trace_id, record.parent_id) for _, record in records if record.parent_id} - there
    wanted = [(bytes.fromhex(trace_id), bytes.fromhex(span_id)) for trace_id, span_id in sorted(parents)]
    found: set[Key] = set()
    for start in range(0, len(wanted), _AT_ONCE):
        among = tuple_(S.trace_id, S.span_id).in_(wanted[start : start + _AT_ONCE])
        rows = conn.execute(select(S.trace_id, S.span_id).where(S.project == project, among))
        found |= {(row.trace_id.hex(), row.span_id.hex()) for row in rows}
    return found


def _placed() -> Select[Any]:
    return (
        select(spans, sessions.c.session_id.label("session_name"))
        .join(traces, and_(traces.c.project == S.project, traces.c.trace_id == S.trace_id))
        .join(sessions, sessions.c.id == func.coalesce(S.own_session, traces.c.session))
    )


def _one(row: Row[Any], texts: dict[int | None, str | None]) -> Placed:
    own_session = None if row.own_session is None else row.session_name
    return Placed(row.session_name, narrow_of(row, own_session, texts))
