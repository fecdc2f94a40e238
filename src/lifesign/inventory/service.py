"""Inventories: compared, stored, read, thinned out."""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.ids import new_id
from lifesign.inventory import rules, store
from lifesign.inventory.rules import Change, Overtaken, Volatile
from lifesign.inventory.store import Latest, Snapshot, StoredChange

_MAX_SHOWN = 2000
_MAX_PATH = 2000
_THINNED_AT_ONCE = 50
_SORTED = orjson.OPT_SORT_KEYS

__all__ = [
    "Latest",
    "Prepared",
    "Received",
    "Snapshot",
    "StoredChange",
    "Thinned",
    "changes_of",
    "differences",
    "forget",
    "latest",
    "latest_document",
    "prepared",
    "receive",
    "snapshots_of",
    "stored_steady",
    "thin",
]


# Before the transaction: pure work, long enough for a thread of its own ---------------------------------------------
@dataclass(frozen=True, slots=True)
class Prepared:
    """An inventory that came: its canonical form, and what of it is compared."""

    canonical: bytes
    compressed: bytes
    steady: Any  # JSON
    hash: bytes


def prepared(document: Any, volatile: Volatile) -> Prepared:  # Any: JSON
    """A document within its limits, ready to be compared and stored."""
    canonical = orjson.dumps(document, option=_SORTED)
    steady = rules.steady(document, volatile)
    digest = hashlib.sha256(orjson.dumps(steady, option=_SORTED)).digest()
    return Prepared(canonical, zlib.compress(canonical), steady, digest)


def stored_steady(old: Latest, volatile: Volatile) -> Any:  # Any: JSON
    """What is compared of a stored inventory."""
    return rules.steady(orjson.loads(zlib.decompress(old.document)), volatile)


differences = rules.differences


# In the transaction -------------------------------------------------------------------------------------------------
class Received(NamedTuple):
    """What became of an inventory."""

    snapshot: Snapshot
    changed: bool
    changes: int


def receive(
    conn: Connection,
    project_id: str,
    system_id: str,
    new: Prepared,
    changes: list[Change],
    *,
    old: Latest | None,
    now: EpochMs,
) -> Received:
    """Store an inventory that was compared with `old`. The system is locked. Raises Overtaken."""
    if store.latest_id(conn, system_id) != (old and old.id):
        raise Overtaken
    if old is not None and old.hash == new.hash:
        store.mark_seen(conn, old.id, now)
        return Received(store.snapshots_of(conn, system_id, limit=1, before=None)[0], changed=False, changes=0)
    if old is not None:
        # The newest is told by its id, which a clock that steps back must not put before the others.
        now = EpochMs(max(now, old.created_at + 1))
    snapshot = Snapshot(new_id("snp", now), now, now, len(new.canonical), len(changes))
    owned = {"project_id": project_id, "system_id": system_id}
    store.insert_snapshot(conn, snapshot._asdict() | owned | {"hash": new.hash, "document": new.compressed})
    store.insert_changes(conn, [_row(change, now) | owned for change in changes])
    return Received(snapshot, changed=True, changes=len(changes))


def _row(change: Change, now: EpochMs) -> dict[str, Any]:
    about = rules.category(change.path)
    return {
        "id": new_id("chg", now),
        "at": now,
        # PostgreSQL cannot store U+0000, and a key of a megabyte helps nobody.
        "path": change.path.replace("\x00", "\ufffd")[:_MAX_PATH],
        "op": change.op,
        "old": None if change.op == "added" else _shown(change.old),
        "new": None if change.op == "removed" else _shown(change.new),
        "category": about,
        "severity": rules.severity(change, about),
    }


def _shown(value: Any) -> str:  # Any: JSON
    return orjson.dumps(value, option=_SORTED).decode()[:_MAX_SHOWN]


latest = store.latest
snapshots_of = store.snapshots_of
changes_of = store.changes_of
forget = store.forget


def latest_document(conn: Connection, system_id: str) -> tuple[Snapshot, bytes] | None:
    """The newest snapshot of a system and its compressed document; None when there is none."""
    found = store.snapshots_of(conn, system_id, limit=1, before=None)
    return (found[0], store.document(conn, found[0].id)) if found else None


class Thinned(NamedTuple):
    """How far retention came: the system to go on after, None at the end; and how much it removed."""

    after: str | None
    deleted: int


def thin(conn: Connection, now: EpochMs, after: str) -> Thinned:
    """Remove snapshots of some systems that are not worth keeping."""
    systems = store.systems_after(conn, after, _THINNED_AT_ONCE)
    found = store.kept(conn, systems)
    surplus = [each for snapshots in found.values() for each in rules.surplus(snapshots, now)]
    if surplus:
        store.delete_snapshots(conn, surplus)
    return Thinned(systems[-1] if len(systems) == _THINNED_AT_ONCE else None, len(surplus))
