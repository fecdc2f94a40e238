"""SQL of measurements."""

from typing import NamedTuple

from sqlalchemy import Connection, delete, insert, select

from lifesign.clock import EpochMs
from lifesign.db.schema import measurements

M = measurements.c


class Measurement(NamedTuple):
    """A report that was kept. report: JSON text."""

    id: str
    key_id: int
    created_at: EpochMs
    report: str


NO_KEY = 0
"""What stands for the key where a measurement is a person's own."""
_COLUMNS = (M.id, M.key_id, M.created_at, M.report)


def insert_measurement(conn: Connection, measurement: Measurement, project_id: str, user_id: str | None = None) -> None:
    """Keep a report. user_id: whose it is, when it is no key's."""
    conn.execute(insert(measurements).values(**measurement._asdict(), project_id=project_id, user_id=user_id))


def measurement_of(conn: Connection, key_id: int, measurement_id: str) -> Measurement | None:
    """The measurement with this id, if it is of this key."""
    row = conn.execute(select(*_COLUMNS).where(M.id == measurement_id, M.key_id == key_id)).first()
    return None if row is None else Measurement(*row)


def measurements_of(conn: Connection, key_id: int, *, limit: int, before: str | None) -> list[Measurement]:
    """The measurements of a key, newest first. Index: ix_measurements_key."""
    query = select(*_COLUMNS).where(M.key_id == key_id).order_by(M.id.desc()).limit(limit)
    if before is not None:
        query = query.where(M.id < before)
    return [Measurement(*row) for row in conn.execute(query)]


def delete_measurement(conn: Connection, key_id: int, measurement_id: str) -> bool:
    """Delete one; False when the key has no such measurement."""
    return conn.execute(delete(measurements).where(M.id == measurement_id, M.key_id == key_id)).rowcount == 1


def own_measurements(conn: Connection, project_id: str, user_id: str, limit: int) -> list[Measurement]:
    """What a person kept for themselves, newest first. Index: ix_measurements_user."""
    query = select(*_COLUMNS).where(M.user_id == user_id, M.project_id == project_id).order_by(M.id.desc()).limit(limit)
    return [Measurement(*row) for row in conn.execute(query)]


def delete_own_measurement(conn: Connection, project_id: str, user_id: str, measurement_id: str) -> bool:
    """Delete one of those; False when the person has no such measurement."""
    is_theirs = (M.id == measurement_id, M.user_id == user_id, M.project_id == project_id)
    return conn.execute(delete(measurements).where(*is_theirs)).rowcount == 1


def delete_older(conn: Connection, before: EpochMs, limit: int) -> int:
    """Delete at most `limit` of those kept since before an instant. Index: ix_measurements_created."""
    old = select(M.id).where(M.created_at < before).limit(limit)
    return conn.execute(delete(measurements).where(M.id.in_(old.scalar_subquery()))).rowcount
