"""Many keys in a statement, as few parameters: thousands of placeholders cost more than what they find.

On PostgreSQL they are arrays. On SQLite numbers are JSON, and ids of one length are one long value that is cut up.
"""

from collections.abc import Sequence
from typing import Any, cast

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    LargeBinary,
    Select,
    Subquery,
    any_,
    func,
    literal,
    select,
)
from sqlalchemy.dialects.postgresql import ARRAY
from sqlalchemy.sql.selectable import LateralFromClause

Keys = Sequence[int] | Sequence[bytes]


# Any: a column of whichever type.
def is_one_of(conn: Connection, column: ColumnElement[Any], keys: Keys) -> ColumnElement[bool]:
    """Whether a column is one of these numbers, or of these bytes, all of one length."""
    if conn.dialect.name == "sqlite":
        return column.in_(select(listed(conn, key=keys).c.key))
    return column == any_(_array(keys))


def listed(conn: Connection, **columns: Keys) -> Subquery:
    """A table of keys to join with: of columns of bytes, all of one length, and one of numbers at most."""
    if conn.dialect.name != "sqlite":
        return select(*(func.unnest(_array(keys)).label(name) for name, keys in columns.items())).subquery("listed")
    count = len(next(iter(columns.values())))
    numbers = next((keys for keys in columns.values() if keys and isinstance(keys[0], int)), range(count))
    each = func.json_each(orjson.dumps(list(numbers)).decode()).table_valued("key", "value")
    chosen = [
        (_cut(cast("Sequence[bytes]", keys), each.c.key) if _are_bytes(keys) else each.c.value).label(name)
        for name, keys in columns.items()
    ]
    return select(*chosen).subquery("listed")


def one_by_one(looked_up: Select[Any]) -> LateralFromClause:
    """What is looked up of each row of a table of keys that is joined with it. On PostgreSQL.

    Joined with a table that grew a moment ago, of which it knows nothing, it takes all that a project has for a few
    rows, and reads them in place of the keys: with 50,000 traces, half a second for each request with spans. The offset
    keeps it from that.
    """
    return looked_up.offset(0).lateral("found")


def _cut(keys: Sequence[bytes], place: ColumnElement[Any]) -> ColumnElement[Any]:
    whole = b"".join(keys)
    length = len(whole) // len(keys)
    return func.substr(literal(whole, LargeBinary), place * length + 1, length)


def _array(keys: Keys) -> ColumnElement[Any]:
    return literal(list(keys), ARRAY(LargeBinary if _are_bytes(keys) else BigInteger))


def _are_bytes(keys: Keys) -> bool:
    # One look is enough: they are all of one kind.
    return bool(keys) and isinstance(keys[0], bytes)
