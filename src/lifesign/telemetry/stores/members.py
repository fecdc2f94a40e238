"""Which records are in a session: those that say so, and those of its traces that say nothing."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, UnaryExpression, func, select, union_all
from sqlalchemy.sql.operators import custom_op
from sqlalchemy.sql.selectable import CompoundSelect, Subquery

from lifesign.telemetry.stores.tables import spans, traces


def not_sought(column: ColumnElement[int]) -> ColumnElement[int]:
    """A number to compare with, by which no index is looked through: `+column`.

    SQLite, which has no statistics here, otherwise takes the index of arrivals for a condition on project or arrival,
    and with it all spans of a project or a window, where a few are found by trace or number: seconds of five million.
    """
    plus: custom_op[int] = custom_op("+")
    return UnaryExpression(column, operator=plus, type_=column.type)


def go_by_index(conn: Connection) -> None:
    """Until the transaction ends, what an index has in order is not sorted: a page ends once it is full.

    PostgreSQL, which knows nothing of a table that grew a moment ago, takes a window of 500,000 records for a dozen,
    and finds and sorts all of them for the newest hundred, which takes seconds. SQLite goes by the index untold.
    """
    if conn.dialect.name == "postgresql":
        conn.execute(select(func.set_config("enable_sort", "off", True)))  # noqa: FBT003 - what it is called with there


def members_of(session_numbers: Sequence[int], *columns: ColumnElement[Any]) -> CompoundSelect[Any]:
    """These columns of `spans` of every record in these sessions, and its session as `session`.

    Indexes: ix_spans_own_session; ix_traces_session, and from there uq_spans_identity.
    """
    own = select(*columns, spans.c.own_session.label("session")).where(spans.c.own_session.in_(session_numbers))
    inherited = (
        select(*columns, traces.c.session.label("session"))
        .select_from(traces)
        .join(spans, (spans.c.project == traces.c.project) & (spans.c.trace_id == traces.c.trace_id))
        .where(traces.c.session.in_(session_numbers), spans.c.own_session.is_(None))
    )
    return union_all(own, inherited)


def member_ids(session_number: int) -> Subquery:
    """The numbers of a session's records, as `id`."""
    return members_of([session_number], spans.c.id).subquery("members")


def members_arrival(session_number: int) -> Select[Any]:
    """The last arrival of a session's records."""
    arrivals = members_of([session_number], spans.c.received_at).subquery("members")
    return select(func.max(arrivals.c.received_at))
