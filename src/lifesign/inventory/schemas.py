"""Wire models of inventories."""

from datetime import datetime
from typing import Any

from pydantic import BaseModel, Field

from lifesign.clock import rfc3339
from lifesign.http.fields import optional
from lifesign.inventory.rules import Category, Op, Severity
from lifesign.inventory.store import Snapshot, StoredChange


class ShownSnapshot(BaseModel):
    """One inventory, without its document."""

    id: str
    timestamp: datetime
    last_seen: datetime = Field(description="When the system last sent the same.")
    data_size: int = Field(description="Bytes of the document as compact JSON.")
    changes: int = Field(description="Differences from the one before.")


class ShownDocument(ShownSnapshot):
    """The newest inventory, with its document."""

    inventory: dict[str, Any]


class SnapshotPage(BaseModel):
    """Inventories, newest first."""

    snapshots: list[ShownSnapshot]
    next_cursor: str = optional("Present when there are more.")


class ShownChange(BaseModel):
    """One difference between two inventories."""

    id: str
    timestamp: datetime
    path: str = Field(description="JSON Pointer; objects in arrays are named by their `id`, `name` and the like.")
    op: Op
    old: str | None = Field(description="JSON text, at most 2,000 characters.")
    new: str | None = Field(description="JSON text, at most 2,000 characters.")
    category: Category
    severity: Severity


class ChangePage(BaseModel):
    """Changes, newest first."""

    changes: list[ShownChange]
    next_cursor: str = optional("Present when there are more.")


class ReceivedInventory(BaseModel):
    """What became of an inventory."""

    system_id: str
    snapshot_id: str
    timestamp: datetime
    data_size: int
    changed: bool = Field(description="False: it says the same as the one before.")
    changes: int


def shown_snapshot(snapshot: Snapshot) -> dict[str, Any]:  # Any: JSON
    """A snapshot on the wire."""
    return {
        "id": snapshot.id,
        "timestamp": rfc3339(snapshot.created_at),
        "last_seen": rfc3339(snapshot.last_seen_at),
        "data_size": snapshot.document_bytes,
        "changes": snapshot.changes,
    }


def shown_change(change: StoredChange) -> dict[str, Any]:  # Any: JSON
    """A change on the wire."""
    return {
        "id": change.id,
        "timestamp": rfc3339(change.at),
        "path": change.path,
        "op": change.op,
        "old": change.old,
        "new": change.new,
        "category": change.category,
        "severity": change.severity,
    }
