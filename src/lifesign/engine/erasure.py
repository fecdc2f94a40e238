"""What is left of a project that was deleted goes, from every table and from whatever else keeps something of it."""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, Table, and_, bindparam, delete, select

from lifesign.db import Database
from lifesign.db.schema import metadata

# What makes things happen goes first. The rows of a project with few of them go in one transaction anyway.
_FIRST = ("timers", "heartbeats", "incidents", "notifications", "lanes", "channels")


class Eraser(Protocol):
    """Something that keeps data of projects elsewhere than in the tables of `db.schema`: registered in `app`."""

    async def erase(self, project_ids: Sequence[str], limit: int) -> int:
        """Erase about `limit` things of these projects, which are deleted; how many went, 0 when nothing is left."""
        ...


class Doomed(NamedTuple):
    """Rows of a table by their primary keys."""

    table: Table
    keys: list[dict[str, Any]]  # Any: values of columns


def tables_of_projects() -> list[Table]:
    """Every table whose rows belong to projects, in the order in which they are emptied."""
    theirs = [table for table in metadata.tables.values() if "project_id" in table.c]
    return sorted(theirs, key=lambda table: _FIRST.index(table.name) if table.name in _FIRST else len(_FIRST))


class RowsOfTables:
    """The eraser of all tables, those that later versions add as well."""

    def __init__(self, db: Database) -> None:
        self._db = db

    async def erase(self, project_ids: Sequence[str], limit: int) -> int:
        """Delete at most `limit` rows of these projects."""
        # Found by a reader: not every table has an index by project, and the writer must not wait for a scan.
        doomed = await self._db.read(_doomed, project_ids, limit)
        if doomed:
            await self._db.write(_delete, doomed)
        return sum(len(each.keys) for each in doomed)


def _doomed(conn: Connection, project_ids: Sequence[str], limit: int) -> list[Doomed]:
    found: list[Doomed] = []
    for table in tables_of_projects():
        query = select(*table.primary_key.columns).where(table.c.project_id.in_(project_ids)).limit(limit)
        keys = [dict(row._mapping) for row in conn.execute(query)]  # noqa: SLF001 - the public name of a row as a dict
        if keys:
            found.append(Doomed(table, keys))
            limit -= len(keys)
        if limit <= 0:
            break
    return found


def _delete(conn: Connection, doomed: Sequence[Doomed]) -> None:
    for table, keys in doomed:
        # Named apart from the columns, as SQLAlchemy wants it.
        is_it = and_(*(column == bindparam(f"its_{column.name}") for column in table.primary_key.columns))
        conn.execute(delete(table).where(is_it), [{f"its_{name}": key[name] for name in key} for key in keys])
