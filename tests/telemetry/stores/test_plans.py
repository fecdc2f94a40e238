"""Hot statements on records find their rows by an index, on both databases, in tables that are full."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, event, text

from lifesign.clock import EpochMs
from lifesign.db.stop import Stop
from lifesign.diagnosis.details import Details, Fetch, Wanted
from lifesign.diagnosis.facts import Facts, Windows
from lifesign.diagnosis.findings import Selector
from lifesign.diagnosis.preparation import key_of
from lifesign.telemetry.records import Body
from lifesign.telemetry.store import Arrival, Filter
from lifesign.telemetry.stores import append, facts, reads, removal, summaries
from lifesign.telemetry.stores.arrivals import Scene
from lifesign.telemetry.stores.dictionary import Dictionary
from lifesign.telemetry.stores.sql import SqlStore
from tests.telemetry.stores.builder import NOW, record
from tests.telemetry.stores.conftest import SQL_STORES, Opened

_PROJECTS, _TRACES, _SPANS = 40, 30, 6
_HOUR = 3_600_000
# The newest of the arrivals; each trace comes an hour after the one before.
_RECENT = (EpochMs(NOW + (_TRACES - 2) * _HOUR), EpochMs(NOW + _TRACES * _HOUR))
_PAST = (EpochMs(NOW), EpochMs(NOW + 2 * _HOUR))


_FAILING: dict[str, Any] = {
    "kind": "tool",
    "status": "error",
    "signal_type": "tool_call_failed",
    "parent_id": "f" * 16,
    "body": Body(message="it broke"),
}


@pytest.fixture(scope="module")
def full(a_store: Opened) -> Engine:
    """7,200 spans of 40 projects; every second trace is in a session of another name."""
    store = a_store.store
    assert isinstance(store, SqlStore)
    for project in range(_PROJECTS):
        for trace in range(_TRACES):
            at = EpochMs(NOW + trace * _HOUR)
            some = [
                record(
                    trace_id=f"{trace:032x}",
                    span_id=f"{span:016x}",
                    received_at=at,
                    own_session=f"s{trace}" if trace % 2 and span == 1 else None,
                    **(_FAILING if span == 2 else {}),
                )
                for span in range(1, _SPANS + 1)
            ]
            a_store.runner.run(store.append(f"p{project}", some, quota=0, now=at))
    # As where it serves: PostgreSQL looks at its tables by itself, and SQLite knows nothing of how full they are.
    if store.kind == "postgresql":
        a_store.runner.run(store.db.write(lambda conn: conn.execute(text("ANALYZE"))))
    return store.db.engine


def _window(conn: Connection) -> object:
    return reads.window(conn, Dictionary(), 3, _RECENT, only=Filter(), limit=50, after=None)


def _repeats(conn: Connection) -> object:
    records = [record(trace_id=f"{7:032x}", span_id=f"{span:016x}") for span in (1, 2)]
    return append.append(conn, Dictionary(), "p3", records, quota=10, now=NOW)


def _recent_sessions(conn: Connection) -> object:
    return summaries.listed(conn, Dictionary(), 3, _RECENT, environment=None, limit=50, after=None)


def _past_sessions(conn: Connection) -> object:
    return summaries.listed(conn, Dictionary(), 3, _PAST, environment=None, limit=50, after=None)


def _session(conn: Connection) -> object:
    number = reads.session_number(conn, 3, "s7")
    assert number is not None
    return reads.of_session(conn, Dictionary(), 3, number, limit=50, after=None)


def _trace(conn: Connection) -> object:
    return reads.trace(conn, Dictionary(), 3, f"{7:032x}", limit=50)


def _purge(conn: Connection) -> object:
    return removal.delete_old(conn, 3, EpochMs(NOW + 1), 100)


def _examine(conn: Connection) -> object:
    """Each question of an examination, details too: two of 30 traces, of each of which a record fails."""
    scene = Scene(conn, Dictionary(), 3, Stop())
    return facts.examine(scene, Windows(_RECENT, _PAST), _judge, most_of_a_session=3)


def _judge(found: Facts, fetch: Fetch) -> Details:
    assert [len(list(window.traces)) for window in (found.current, found.baseline)] == [2, 2]
    assert found.notices["orphan_parents"] == 2
    failed = [key_of(placed) for placed in found.current.rows]
    selectors = Selector("duration", op_hash=7, above_bucket=-1), Selector("input_tokens", sessions=("s29",))
    fetched = fetch(Wanted(selectors, frozenset({7}), frozenset(failed)))
    assert len(fetched.messages) == 2
    return fetched


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
@pytest.mark.parametrize(
    ("run", "index"),
    [
        (_window, "ix_spans_arrival"),
        (_repeats, "uq_spans_identity"),
        (_recent_sessions, "ix_sessions_activity"),
        (_past_sessions, "ix_traces_session"),
        (_session, "ix_traces_session"),
        (_trace, "uq_spans_identity"),
        (_purge, "ix_spans_arrival"),
        (_examine, "ix_span_digests_arrival"),
        (_examine, "uq_spans_identity"),
        (_examine, "ix_spans_own_session"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_statement_on_records_is_planned_by_index(
    full: Engine, run: Callable[[Connection], object], index: str
) -> None:
    plans = _plans(full, run)

    assert any(index in plan for plan in plans), "\n".join(plans)
    assert not any(_reads_all_spans(plan) for plan in plans), "\n".join(plans)


# What is found by trace, by session or by id ------------------------------------------------------------------------
_EVER = (EpochMs(0), EpochMs(2 * NOW))


def _window_of_session(conn: Connection) -> object:
    return reads.window(conn, Dictionary(), 3, _EVER, only=Filter(session_id="s7"), limit=50, after=_BEHIND)


def _window_of_trace(conn: Connection) -> object:
    return reads.window(conn, Dictionary(), 3, _EVER, only=Filter(trace_id=f"{7:032x}"), limit=50, after=_BEHIND)


_BEHIND = Arrival(NOW, f"rec_{7:032x}{1:016x}")


def _records(conn: Connection) -> object:
    return reads.records(conn, Dictionary(), 3, [f"rec_{7:032x}{span:016x}" for span in range(1, _SPANS)])


def _whether_it_arrived(conn: Connection) -> object:
    number = reads.session_number(conn, 3, "s7")
    assert number is not None
    return reads.has_arrived(conn, 3, _EVER, session=number), reads.has_arrived(conn, 3, _EVER, trace_id=f"{7:032x}")


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
@pytest.mark.parametrize(
    "run",
    [_window_of_session, _window_of_trace, _records, _whether_it_arrived, _session, _trace, _past_sessions],
    ids=lambda run: run.__name__.strip("_"),
)
def test_what_is_found_by_trace_session_or_id_is_not_looked_for_among_all_arrivals(
    full: Engine, run: Callable[[Connection], object]
) -> None:
    plans = _plans(full, run)

    assert plans
    assert not any("ix_spans_arrival" in plan or _reads_all_spans(plan) for plan in plans), "\n".join(plans)


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
def test_summaries_of_many_sessions_take_no_more_statements_than_one_and_read_no_more_than_they_tell(
    full: Engine,
) -> None:
    made: list[list[str]] = []
    with full.connect() as conn:
        known = Dictionary()
        for limit in (1, _TRACES):
            with _caught(conn) as statements:
                told, worked = summaries.listed(conn, known, 3, _EVER, environment=None, limit=limit, after=None)
            made.append([statement for statement, _ in statements])
            assert len(told) == len(worked) == limit
        conn.rollback()

    one, many = made
    # What one session names is known by now.
    assert len(many) <= len(one)
    assert [each for each in many if "op_hash" in each or "span_bodies" in each] == []


# Nothing is known of tables that grew a moment ago -------------------------------------------------------------------
def _failures(conn: Connection) -> object:
    return reads.window(conn, Dictionary(), 3, _EVER, only=Filter(signal_type="error"), limit=50, after=_BEHIND)


@pytest.mark.parametrize("a_store", SQL_STORES, indirect=True)
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("run", [_window, _failures, _recent_sessions], ids=lambda run: run.__name__.strip("_"))
def test_the_newest_are_read_from_the_end_of_an_index_and_not_sorted_out_of_all(
    full: Engine, run: Callable[[Connection], object], is_known: bool
) -> None:
    plans = _plans(full, run, is_known=is_known)

    assert plans
    told = [line.strip().removeprefix("->  ") for plan in plans for line in plan.splitlines()]
    # Of what arrived at once the order is made, and of that alone.
    assert not any(line.startswith(("Sort  (", "USE TEMP B-TREE FOR ORDER BY")) for line in told), "\n".join(plans)


def _plans(engine: Engine, run: Callable[[Connection], object], *, is_known: bool = True) -> list[str]:
    """How the database goes about each statement of `run`, which leaves nothing behind.

    is_known: whether PostgreSQL has looked at its tables.
    """
    with engine.connect() as conn:
        if not is_known and engine.dialect.name == "postgresql":
            ours = "SELECT oid FROM pg_class WHERE relnamespace = 'telemetry'::regnamespace"
            conn.execute(text(f"DELETE FROM pg_statistic WHERE starelid IN ({ours})"))
        with _caught(conn) as statements:
            run(conn)
        found = [_plan(conn, statement, parameters) for statement, parameters in statements]
        conn.rollback()
    return found


@contextmanager
def _caught(conn: Connection) -> Iterator[list[tuple[str, Any]]]:  # Any, here and below: parameters of a driver
    statements: list[tuple[str, Any]] = []

    def catch(_conn: Connection, _cursor: object, statement: str, parameters: Any, _context: object, many: Any) -> None:
        if not many:
            statements.append((statement, parameters))

    event.listen(conn, "before_cursor_execute", catch)
    yield statements
    event.remove(conn, "before_cursor_execute", catch)


def _plan(conn: Connection, statement: str, parameters: Any) -> str:
    is_sqlite = conn.dialect.name == "sqlite"
    rows = conn.exec_driver_sql(f"EXPLAIN {'QUERY PLAN ' if is_sqlite else ''}{statement}", parameters)
    return "\n".join(str(row[3 if is_sqlite else 0]) for row in rows)


def _reads_all_spans(plan: str) -> bool:
    lines = [line.strip().removeprefix("->  ") for line in plan.splitlines()]
    return any(
        line.startswith(("SCAN spans", "SCAN span_", "Seq Scan on spans", "Seq Scan on span_bodies")) for line in lines
    )
