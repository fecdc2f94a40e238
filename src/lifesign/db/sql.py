"""The few statements that SQLite and PostgreSQL spell differently."""

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import itemgetter
from typing import Any, NamedTuple

import orjson
from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    TableValuedAlias,
    Text,
    Update,
    any_,
    bindparam,
    case,
    cast,
    column,
    func,
    literal_column,
    or_,
    select,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.sql.compiler import SQLCompiler

# Fewer rows are not worth a second spelling.
_MANY = 4


def insert_new(conn: Connection, table: Table, rows: Sequence[dict[str, Any]], *, unique: Sequence[str]) -> None:
    """Insert `rows`, leaving out those whose `unique` columns are already taken."""
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        conn.execute(sqlite.insert(table).on_conflict_do_nothing(index_elements=list(unique)), list(rows))
    elif len(rows) < _MANY:
        conn.execute(postgresql.insert(table).on_conflict_do_nothing(index_elements=list(unique)), list(rows))
    else:
        statement = _insert_from_records(table, tuple(rows[0]))
        conn.execute(
            statement.on_conflict_do_nothing(index_elements=list(unique)), {"rows": orjson.dumps(list(rows)).decode()}
        )


def insert_if_new(conn: Connection, table: Table, row: dict[str, Any], *, unique: Sequence[str]) -> bool:
    """Insert `row`; False, and nothing happens, when its `unique` columns are taken, if need be after waiting."""
    insert = sqlite.insert if conn.dialect.name == "sqlite" else postgresql.insert
    statement = insert(table).values(row).on_conflict_do_nothing(index_elements=list(unique))
    return conn.execute(statement.returning(table.c[unique[0]])).first() is not None


def add_up(
    conn: Connection,
    table: Table,
    rows: Sequence[dict[str, Any]],
    *,
    unique: Sequence[str],
    added: Sequence[str],
    lowest: Sequence[str] = (),
    highest: Sequence[str] = (),
) -> None:
    """Insert `rows`, in the order given; where `unique` columns are taken, add to the row that is there.

    lowest, highest: columns of which the smaller, or larger, of both values stays; null is neither. Others stay as they
    are.
    """
    if not rows:
        return
    wanted = _Addition(table, tuple(unique), tuple(added), tuple(lowest), tuple(highest))
    if conn.dialect.name == "sqlite":
        _add_up_by_driver(wanted, tuple(rows[0])).execute(conn, rows)
    else:
        conn.execute(_add_up(wanted, is_sqlite=False), list(rows))


@dataclass(frozen=True, slots=True)
class _Addition:
    """What `add_up` is asked for, but for the rows."""

    table: Table
    unique: tuple[str, ...]
    added: tuple[str, ...]
    lowest: tuple[str, ...]
    highest: tuple[str, ...]


# Building such a statement takes longer than SQLite takes for a hundred rows of it.
@lru_cache
def _add_up_by_driver(wanted: _Addition, names: tuple[str, ...]) -> "_ByDriver":
    statement = _add_up(wanted, is_sqlite=True)
    return _ByDriver.of(statement.compile(dialect=_QMARK, column_keys=list(names)))


@lru_cache
def _add_up(wanted: _Addition, *, is_sqlite: bool) -> sqlite.Insert | postgresql.Insert:
    table = wanted.table
    statement = sqlite.insert(table) if is_sqlite else postgresql.insert(table)
    least, greatest = (func.min, func.max) if is_sqlite else (func.least, func.greatest)
    new = statement.excluded
    values: dict[str, Any] = {name: table.c[name] + new[name] for name in wanted.added}
    for names, choose in ((wanted.lowest, least), (wanted.highest, greatest)):
        # Of two arguments SQLite's functions are null when one is.
        values |= {
            name: choose(func.coalesce(table.c[name], new[name]), func.coalesce(new[name], table.c[name]))
            for name in names
        }
    return statement.on_conflict_do_update(index_elements=list(wanted.unique), set_=values)


def one_at_a_time(conn: Connection, name: str) -> None:
    """Nobody else gets past here with this name until the transaction ends. SQLite has one writer anyway."""
    if conn.dialect.name != "sqlite":
        key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], signed=True)
        conn.execute(select(func.pg_advisory_xact_lock(key)))


def insert_many(conn: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Insert `rows`, which all have the same members, in the order given.

    PostgreSQL gets many of them as one JSON text, and is spared a message and a plan for each row. SQLite's driver
    takes row by row: measured, a third of the time that unpacking JSON takes there.
    """
    if not rows:
        return
    if conn.dialect.name == "sqlite":
        _insert_by_driver(table, tuple(rows[0])).execute(conn, rows)
    elif len(rows) < _MANY:
        conn.execute(table.insert(), list(rows))
    else:
        conn.execute(_insert_from_records(table, tuple(rows[0])), {"rows": orjson.dumps(list(rows)).decode()})


@lru_cache
def _insert_from_records(table: Table, names: tuple[str, ...]) -> postgresql.Insert:
    rows = _records(table, names)
    return postgresql.insert(table).from_select(names, select(*(rows.c[name] for name in names)))


def update_many(conn: Connection, table: Table, rows: Sequence[dict[str, Any]]) -> None:
    """Set the members of each row, the same in all, where `id` is the row's own. The caller has locked them all."""
    if not rows:
        return
    names = tuple(rows[0])
    if conn.dialect.name == "sqlite":
        _update_by_driver(table, names).execute(conn, rows)
    else:
        conn.execute(_update_from_records(table, names), {"rows": orjson.dumps(list(rows)).decode()})


class Rows(NamedTuple):
    """Rows of a table, to be changed as `update_many` does."""

    table: Table
    rows: Sequence[dict[str, Any]]


def update_together(conn: Connection, changes: Iterable[Rows]) -> None:
    """`update_many` of each. PostgreSQL gets all of them in one statement, and is spared the messages of the others.

    No row may be in two of them.
    """
    told = [each for each in changes if each.rows]
    if conn.dialect.name == "sqlite" or len(told) == 1:
        for each in told:
            update_many(conn, each.table, each.rows)
    elif told:
        statement = _update_together(tuple((each.table, tuple(each.rows[0])) for each in told))
        conn.execute(statement, {f"rows_{n}": orjson.dumps(list(each.rows)).decode() for n, each in enumerate(told)})


@lru_cache
def _update_together(parts: tuple[tuple[Table, tuple[str, ...]], ...]) -> Update:
    *others, last = (_update_from_records(table, names, f"rows_{n}") for n, (table, names) in enumerate(parts))
    return last.add_cte(*(each.cte(f"part_{n}") for n, each in enumerate(others)))


@dataclass(frozen=True, slots=True)
class _ByDriver:
    """A statement run by the driver for many rows; what SQLAlchemy does for each costs more than SQLite itself."""

    text: str
    values_of: Callable[[Mapping[str, Any]], tuple[Any, ...]]

    @classmethod
    def of(cls, compiled: SQLCompiler, prefix: str = "") -> "_ByDriver":
        names = [name.removeprefix(prefix) for name in compiled.positiontup or ()]
        # With one name only this would not be a tuple.
        return cls(compiled.string, itemgetter(*names) if len(names) > 1 else lambda row: (row[names[0]],))

    def execute(self, conn: Connection, rows: Iterable[Mapping[str, Any]]) -> None:
        conn.exec_driver_sql(self.text, list(map(self.values_of, rows)))


_QMARK = sqlite.dialect(paramstyle="qmark")


@lru_cache
def _insert_by_driver(table: Table, names: tuple[str, ...]) -> _ByDriver:
    return _ByDriver.of(table.insert().compile(dialect=_QMARK, column_keys=list(names)))


@lru_cache
def _update_by_driver(table: Table, names: tuple[str, ...]) -> _ByDriver:
    return _ByDriver.of(_update_by_id(table, names).compile(dialect=_QMARK), "new_")


def _update_by_id(table: Table, names: tuple[str, ...]) -> Update:
    # Named apart from the columns: SQLAlchemy takes a parameter with a column's name for a value to set.
    values: dict[str, Any] = {name: bindparam(f"new_{name}") for name in names if name != "id"}
    return update(table).where(table.c.id == bindparam("new_id")).values(values)


@lru_cache
def _update_from_records(table: Table, names: tuple[str, ...], parameter: str = "rows") -> Update:
    rows = _records(table, names, parameter)
    return update(table).where(table.c.id == rows.c.id).values({name: rows.c[name] for name in names if name != "id"})


def _records(table: Table, names: Sequence[str], parameter: str = "rows") -> TableValuedAlias:
    """PostgreSQL's table of the members of the JSON array bound to a parameter, typed like columns of `table`."""
    records = func.json_to_recordset(cast(bindparam(parameter, type_=Text), postgresql.JSON))
    typed = (column(name, table.c[name].type) for name in names)
    return records.table_valued(*typed, name="records").render_derived(with_types=True)


def json_rows(rows: Sequence[Any]) -> str:
    """Values as the JSON text that `json_each` reads. Strings and integers only."""
    return orjson.dumps(rows).decode()


def json_each(parameter: str) -> TableValuedAlias:
    """SQLite's table of the members of the JSON array that is bound to `parameter`."""
    return func.json_each(bindparam(parameter)).table_valued("value", name=f"each_{parameter}")


def each_text(conn: Connection, parameter: str) -> TableValuedAlias:
    """The same of texts, on either database."""
    if conn.dialect.name == "sqlite":
        return json_each(parameter)
    array = cast(bindparam(parameter, type_=Text), postgresql.JSON)
    return func.json_array_elements_text(array).table_valued("value", name=f"each_{parameter}").render_derived()


def among(texts: "Column[str]", parameter: str) -> ColumnElement[bool]:
    """On PostgreSQL: whether a column is one of the texts that are bound to `parameter`.

    As one array: with a parameter for each, as IN has them, the statement would be written, parsed and planned anew for
    every number of them.
    """
    return texts == any_(bindparam(parameter, type_=postgresql.ARRAY(Text)))


def behind_last(owner: "Column[str]", order: "Column[Any]", each: ColumnElement[str], limit: int) -> ColumnElement[Any]:
    """Of each owner, `order` of the row behind its last `limit` ones; null where there are no more.

    What lies above it is found by an index on both columns, whatever the length of the history.
    """
    other = owner.table.alias("other")
    query = select(other.c[order.name]).where(other.c[owner.name] == each).order_by(other.c[order.name].desc())
    return query.offset(limit).limit(1).correlate(each.table).scalar_subquery()


def earlier(instant: "Column[int]", parameter: str) -> ColumnElement[int]:
    """The earlier of a nullable instant and a bound one."""
    at: ColumnElement[int] = bindparam(parameter, type_=instant.type)
    return case((or_(instant.is_(None), instant > at), at), else_=instant)


def word(text: str) -> ColumnElement[str]:
    """A constant written into the statement: SQLite uses a partial index only when it sees the index's own constant."""
    return literal_column(f"'{text}'")


def contains(conn: Connection, within: ColumnElement[Any], text: str) -> ColumnElement[bool]:
    """Rows that contain `text`, to the letter: LIKE ignores case on SQLite and needs escapes on both."""
    find = func.instr if conn.dialect.name == "sqlite" else func.strpos
    return find(within, text) > 0


def let_go_of_pages(conn: Connection) -> None:
    """Free the pages of the file that this connection keeps, 32 MB of them after much was written. On SQLite."""
    conn.exec_driver_sql("PRAGMA shrink_memory").close()
