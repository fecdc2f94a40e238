"""SQL of the tables `inventory_snapshots` and `inventory_changes`."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Connection, delete, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import inventory_changes, inventory_snapshots
from lifesign.db.sql import insert_many
from lifesign.inventory.rules import Category, Kept, Op, Severity

S = inventory_snapshots.c
C = inventory_changes.c


class Snapshot(NamedTuple):
    """A snapshot without its document."""

    id: str
    created_at: EpochMs
    last_seen_at: EpochMs
    document_bytes: int
    changes: int


class Latest(NamedTuple):
    """What a new inventory is compared with. `document`: compressed."""

    id: str
    created_at: EpochMs
    hash: bytes
    document: bytes


class StoredChange(NamedTuple):
    """A change as stored. `old`, `new`: JSON text, cut."""

    id: str
    at: EpochMs
    path: str
    op: Op
    old: str | None
    new: str | None
    category: Category
    severity: Severity


_SNAPSHOT = (S.id, S.created_at, S.last_seen_at, S.document_bytes, S.changes)


def snapshots_of(conn: Connection, system_id: str, *, limit: int, before: str | None) -> list[Snapshot]:
    """Snapshots of a system, newest first. Index: ix_inventory_snapshots_system."""
    query = select(*_SNAPSHOT).where(S.system_id == system_id)
    if before is not None:
        query = query.where(S.id < before)
    return [Snapshot(*row) for row in conn.execute(query.order_by(S.id.desc()).limit(limit))]


def latest(conn: Connection, system_id: str) -> Latest | None:
    """The newest snapshot of a system. Index: ix_inventory_snapshots_system."""
    query = (
        select(S.id, S.created_at, S.hash, S.document).where(S.system_id == system_id).order_by(S.id.desc()).limit(1)
    )
    row = conn.execute(query).first()
    return None if row is None else Latest(row[0], row[1], bytes(row[2]), bytes(row[3]))


def latest_id(conn: Connection, system_id: str) -> str | None:
    """Its id alone."""
    query = select(S.id).where(S.system_id == system_id).order_by(S.id.desc()).limit(1)
    return conn.scalar(query)


def document(conn: Connection, snapshot_id: str) -> bytes:
    """The compressed document of a snapshot that exists."""
    return bytes(conn.execute(select(S.document).where(S.id == snapshot_id)).scalar_one())


def insert_snapshot(conn: Connection, row: dict[str, Any]) -> None:
    """A new snapshot."""
    conn.execute(inventory_snapshots.insert().values(**row))


def mark_seen(conn: Connection, snapshot_id: str, now: EpochMs) -> None:
    """The system still is as this snapshot says."""
    conn.execute(update(inventory_snapshots).where(S.id == snapshot_id).values(last_seen_at=now))


def insert_changes(conn: Connection, rows: Sequence[dict[str, Any]]) -> None:
    """What a new snapshot changed."""
    insert_many(conn, inventory_changes, rows)


_CHANGE = (C.id, C.at, C.path, C.op, C.old, C.new, C.category, C.severity)


def changes_of(
    conn: Connection,
    system_id: str,
    *,
    limit: int,
    before: str | None,
    category: Category | None,
    severity: Severity | None,
    since: EpochMs | None,
) -> list[StoredChange]:
    """Changes of a system that match every filter, newest first. Index: ix_inventory_changes_system."""
    query = select(*_CHANGE).where(C.system_id == system_id)
    if before is not None:
        query = query.where(C.id < before)
    if category is not None:
        query = query.where(C.category == category)
    if severity is not None:
        query = query.where(C.severity == severity)
    if since is not None:
        query = query.where(C.at >= since)
    return [StoredChange(*row) for row in conn.execute(query.order_by(C.id.desc()).limit(limit))]


def forget(conn: Connection, system_id: str) -> None:
    """Remove everything of a system."""
    conn.execute(delete(inventory_snapshots).where(S.system_id == system_id))
    conn.execute(delete(inventory_changes).where(C.system_id == system_id))


# Retention ----------------------------------------------------------------------------------------------------------
def systems_after(conn: Connection, after: str, limit: int) -> list[str]:
    """Systems with an inventory, in order. Index: ix_inventory_snapshots_system."""
    query = select(S.system_id).where(S.system_id > after).distinct().order_by(S.system_id).limit(limit)
    return list(conn.scalars(query))


def kept(conn: Connection, systems: Collection[str]) -> dict[str, list[Kept]]:
    """The snapshots of these systems, oldest first. Index: ix_inventory_snapshots_system."""
    found: dict[str, list[Kept]] = {each: [] for each in systems}
    query = select(S.system_id, S.id, S.created_at).where(S.system_id.in_(list(systems))).order_by(S.id)
    for row in conn.execute(query):
        found[row.system_id].append(Kept(row.id, row.created_at))
    return found


def delete_snapshots(conn: Connection, ids: Collection[str]) -> None:
    """Remove snapshots; what changed stays."""
    conn.execute(delete(inventory_snapshots).where(S.id.in_(list(ids))))
