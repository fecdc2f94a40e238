"""SQL of the table `maintenance`."""

from collections.abc import Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, delete, or_, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import maintenance
from lifesign.maintenance.rules import Window

M = maintenance.c
_COLUMNS = tuple(M[name] for name in Window.__dataclass_fields__)
_MEMBERS = list(Window.__dataclass_fields__).index("members")


def _window(row: Sequence[Any]) -> Window:  # Any: a row of a table whose columns mypy does not know
    values = list(row)
    values[_MEMBERS] = tuple(orjson.loads(values[_MEMBERS]))
    return Window(*values)


def _row(window: Window) -> dict[str, Any]:
    row = {name: getattr(window, name) for name in Window.__dataclass_fields__}
    return row | {"members": orjson.dumps(window.members).decode()}


def insert(conn: Connection, window: Window) -> None:
    """A new window."""
    conn.execute(maintenance.insert().values(_row(window)))


def save(conn: Connection, window: Window) -> None:
    """Write every column of a window."""
    conn.execute(update(maintenance).where(M.id == window.id).values(_row(window)))


def delete_window(conn: Connection, window_id: str) -> None:
    """Remove a window."""
    conn.execute(delete(maintenance).where(M.id == window_id))


def by_id(conn: Connection, project_id: str, window_id: str, *, lock: bool = False) -> Window | None:
    """One window of a project."""
    query = select(*_COLUMNS).where(M.id == window_id, M.project_id == project_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _window(row)


def by_ids(conn: Connection, ids: Sequence[str]) -> list[Window]:
    """Windows by id."""
    return [_window(row) for row in conn.execute(select(*_COLUMNS).where(M.id.in_(ids)).order_by(M.id))]


def windows_of(conn: Connection, project_id: str, *, limit: int, after: str | None) -> list[Window]:
    """Windows of a project, oldest first. Index: ix_maintenance_project."""
    query = select(*_COLUMNS).where(M.project_id == project_id)
    if after is not None:
        query = query.where(M.id > after)
    return [_window(row) for row in conn.execute(query.order_by(M.id).limit(limit))]


def current_of(conn: Connection, project_ids: Sequence[str], first: EpochMs, last: EpochMs) -> list[Window]:
    """Windows of projects that may be open at some moment between these, both included. Index: ix_maintenance_project.

    Once and not over by the first nor to come after the last, or recurring.
    """
    is_current = or_(M.schedule.is_not(None), (M.starts_at <= last) & (M.ends_at > first))
    return [_window(row) for row in conn.execute(select(*_COLUMNS).where(M.project_id.in_(project_ids), is_current))]
