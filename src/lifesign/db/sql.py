"""The few statements that SQLite and PostgreSQL spell differently."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Table, bindparam, case, func, literal_column, or_
from sqlalchemy.dialects import postgresql, sqlite


def insert_new(conn: Connection, table: Table, rows: Sequence[dict[str, Any]], *, unique: Sequence[str]) -> None:
    """Insert `rows`, leaving out those whose `unique` columns are already taken."""
    if not rows:
        return
    dialect = sqlite if conn.dialect.name == "sqlite" else postgresql
    conn.execute(dialect.insert(table).on_conflict_do_nothing(index_elements=list(unique)), list(rows))


def earlier(column: "Column[int]", parameter: str) -> ColumnElement[int]:
    """The earlier of a nullable instant and a bound one."""
    at: ColumnElement[int] = bindparam(parameter, type_=column.type)
    return case((or_(column.is_(None), column > at), at), else_=column)


def word(text: str) -> ColumnElement[str]:
    """A constant written into the statement: SQLite uses a partial index only when it sees the index's own constant."""
    return literal_column(f"'{text}'")


def contains(conn: Connection, column: "Column[Any]", text: str) -> ColumnElement[bool]:
    """Rows whose `column` contains `text`, to the letter: LIKE ignores case on SQLite and needs escapes on both."""
    find = func.instr if conn.dialect.name == "sqlite" else func.strpos
    return find(column, text) > 0
