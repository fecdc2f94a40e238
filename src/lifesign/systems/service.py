"""Systems: made, changed, given new secrets, suspended, deleted; each together with the heartbeat underneath.

Everything here runs in the caller's transaction. What machines themselves do is in `beats`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from lifesign.auth.rules import Caller
from lifesign.clock import EpochMs
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.definition import Definition as HeartbeatDefinition
from lifesign.heartbeats.rules import Heartbeat
from lifesign.ids import new_uuid
from lifesign.incidents import policies
from lifesign.incidents.rules import Tuning
from lifesign.inventory import service as inventory
from lifesign.inventory.rules import Change
from lifesign.inventory.service import Latest, Prepared, Received, Snapshot, StoredChange
from lifesign.settings import Settings
from lifesign.systems import rules, store
from lifesign.systems.rules import (
    Definition,
    Flaw,
    InventoryNotFound,
    Period,
    StaleCredential,
    System,
    SystemExists,
    SystemNotFound,
    Trend,
    ValidationFailed,
    Windows,
)
from lifesign.systems.store import Filters, Known, Position, Totals

__all__ = ["Filters", "Position", "Totals"]

_S = 1000
_NAMESPACE = "systems"
_ADOPTED_AT_ONCE = 200
_SERVER = Caller("server", "server", "", frozenset())


class Watched(NamedTuple):
    """A system and the heartbeat underneath."""

    system: System
    heartbeat: Heartbeat


def windows_of(settings: Settings) -> Windows:
    """How often systems report, and when they read dead and alert, by the settings."""
    return Windows(
        settings.system_interval_seconds * _S, settings.system_alive_seconds * _S, settings.system_alert_seconds * _S
    )


# Making and editing -------------------------------------------------------------------------------------------------
def create(
    conn: Connection,
    caller: Caller,
    definition: Definition,
    *,
    chosen_id: str | None,
    secret: str,
    windows: Windows,
    max_heartbeats: int,
    now: EpochMs,
    origin: str | None = None,
) -> Watched:
    """A new system, which nobody waits for until it reports for the first time.

    chosen_id: lower case, when one is brought along. Raises SystemExists, ValidationFailed, HeartbeatLimitReached.
    """
    _require_policy(conn, caller.project_id, definition.policy_id)
    system_id = chosen_id or new_uuid(now)
    if store.is_taken(conn, system_id):
        raise SystemExists
    system = System(
        id=system_id,
        project_id=caller.project_id,
        key=rules.new_key(),
        heartbeat_id="",
        secret_hint=rules.secret_hint(secret),
        credential_version=1,
        suspended_at=None,
        first_heartbeat=None,
        last_heartbeat=None,
        created_at=now,
        updated_at=now,
        origin=origin,
        **_own_values(definition),
    )
    heartbeat = heartbeats.create(
        conn,
        caller,
        _underneath(system, definition, windows),
        is_armed=False,
        has_slug=True,
        max_heartbeats=max_heartbeats,
        now=now,
        managed_by=system.owner,
    )
    system = replace(system, heartbeat_id=heartbeat.id)
    # The id was free a moment ago: another node was quicker, or the key of 64 random bits is taken.
    if not store.insert_if_free(conn, system, rules.secret_hash(secret)):
        raise SystemExists
    return Watched(system, heartbeat)


def _own_values(definition: Definition) -> dict[str, Any]:
    return {field.name: getattr(definition, field.name) for field in fields(definition) if field.name != "policy_id"}


def _require_policy(conn: Connection, project_id: str, policy_id: str | None) -> None:
    if policy_id is not None and not policies.is_policy(conn, project_id, policy_id):
        raise ValidationFailed(Flaw("policy", "not_found", policy_id))


def _underneath(system: System, definition: Definition, windows: Windows) -> HeartbeatDefinition:
    metadata = orjson.dumps({"system_id": system.id, "system_key": system.key}).decode()
    return HeartbeatDefinition(
        name=definition.name,
        mode="recurring",
        slug=f"system-{system.key.lower()}",
        policy_id=definition.policy_id,
        namespace=_NAMESPACE,
        metadata=metadata,
        # Or a beat of a machine that somebody paused would un-pause it.
        is_sticky_pause=True,
        **_timing(system.interval_s, windows),
    )


def _timing(interval_s: int | None, windows: Windows) -> dict[str, Any]:  # Any: fields of a definition
    own = windows.of(interval_s)
    return {"interval_ms": own.interval_ms, "grace_ms": own.alert_ms - own.interval_ms}


def edit(
    conn: Connection,
    caller: Caller,
    ref: str,
    changes: Mapping[str, Any],
    *,
    windows: Windows,
    tuning: Tuning,
    now: EpochMs,
) -> Watched:
    """Change fields of a `Definition`. Raises SystemNotFound, ValidationFailed."""
    before = _locked(conn, caller.project_id, ref)
    if changes.get("policy_id") is not None:
        _require_policy(conn, caller.project_id, changes["policy_id"])
    own = {name: value for name, value in changes.items() if name != "policy_id"}
    after = replace(before, **own)
    below = {name: value for name, value in changes.items() if name in {"name", "policy_id"}}
    if after.interval_s != before.interval_s:
        below |= _timing(after.interval_s, windows)
    heartbeat = heartbeats.by_ids(conn, [before.heartbeat_id])[before.heartbeat_id]
    if after == before and all(getattr(heartbeat, name) == value for name, value in below.items()):
        return Watched(before, heartbeat)
    after = replace(after, updated_at=now)
    store.save(conn, after)
    return Watched(after, _edit_underneath(conn, caller, after, below, tuning=tuning, now=now))


def _edit_underneath(
    conn: Connection, caller: Caller, system: System, changes: Mapping[str, Any], *, tuning: Tuning, now: EpochMs
) -> Heartbeat:
    return heartbeats.edit(
        conn,
        caller,
        system.heartbeat_id,
        changes,
        check=lambda present, wanted: replace(present, **wanted),
        tuning=tuning,
        now=now,
        owner=system.owner,
    )


def regenerate_secret(conn: Connection, project_id: str, ref: str, secret: str, now: EpochMs) -> System:
    """Another secret; the one before counts no more, from the next request on. Raises SystemNotFound."""
    before = _locked(conn, project_id, ref)
    after = replace(
        before,
        secret_hint=rules.secret_hint(secret),
        credential_version=before.credential_version + 1,
        updated_at=now,
    )
    store.save_secret(conn, after, rules.secret_hash(secret))
    return after


def suspend(conn: Connection, caller: Caller, ref: str, now: EpochMs) -> Watched:
    """Refuse a system's reports and stop waiting for them; an open incident closes. Raises SystemNotFound."""
    before = _watched(conn, caller.project_id, ref)
    if before.system.suspended_at is not None:
        return before
    after = replace(before.system, suspended_at=now, updated_at=now)
    store.save(conn, after)
    return Watched(after, heartbeats.suspend(conn, caller, after.heartbeat_id, now))


def reactivate(conn: Connection, caller: Caller, ref: str, now: EpochMs) -> Watched:
    """Take a system's reports again; one that ever reported is expected to, from now on. Raises SystemNotFound."""
    before = _watched(conn, caller.project_id, ref)
    if before.system.suspended_at is None:
        return before
    after = replace(before.system, suspended_at=None, updated_at=now)
    store.save(conn, after)
    if before.heartbeat.status != "paused":
        return Watched(after, before.heartbeat)
    return Watched(after, heartbeats.resume(conn, caller, after.heartbeat_id, now, by_owner=True))


def delete(conn: Connection, caller: Caller, ref: str, *, tuning: Tuning, now: EpochMs) -> None:
    """Remove a system, its heartbeat and its inventory; that it existed is still counted. Raises SystemNotFound."""
    system = _locked(conn, caller.project_id, ref)
    store.mark_deleted(conn, system.id, now)
    inventory.forget(conn, system.id)
    heartbeats.delete(conn, caller, system.heartbeat_id, now, tuning=tuning, owner=system.owner)


def _locked(conn: Connection, project_id: str, ref: str) -> System:
    return get(conn, project_id, ref, lock=True)


def _watched(conn: Connection, project_id: str, ref: str) -> Watched:
    system = _locked(conn, project_id, ref)
    return Watched(system, heartbeats.by_ids(conn, [system.heartbeat_id])[system.heartbeat_id])


def adopt_windows(conn: Connection, windows: Windows, *, after: str, tuning: Tuning, now: EpochMs) -> str | None:
    """Let some systems be waited for as the settings now say; the id to go on after, None at the end."""
    found = store.without_interval(conn, after, _ADOPTED_AT_ONCE)
    if not found:
        return None
    timing = _timing(None, windows)
    watching = heartbeats.by_ids(conn, [each.heartbeat_id for each in found])
    for system in found:
        heartbeat = watching[system.heartbeat_id]
        if any(getattr(heartbeat, name) != value for name, value in timing.items()):
            server = replace(_SERVER, project_id=system.project_id)
            _edit_underneath(conn, server, system, timing, tuning=tuning, now=now)
    return found[-1].id if len(found) == _ADOPTED_AT_ONCE else None


# Reading ------------------------------------------------------------------------------------------------------------
def get(conn: Connection, project_id: str, ref: str, *, lock: bool = False) -> System:
    """The system with this id or key, in any case. Raises SystemNotFound."""
    normalized = rules.normalized_ref(ref)
    found = None if normalized is None else store.by_ref(conn, project_id, normalized, lock=lock)
    if found is None:
        raise SystemNotFound
    return found


def watched(conn: Connection, project_id: str, ref: str) -> Watched:
    """A system and its heartbeat. Raises SystemNotFound."""
    system = get(conn, project_id, ref)
    return _with_heartbeats(conn, [system])[0]


def list_watched(
    conn: Connection,
    project_id: str,
    filters: Filters,
    *,
    windows: Windows,
    limit: int,
    after: Position | None,
    now: EpochMs,
) -> list[Watched]:
    """Systems that match every filter, newest first, each with its heartbeat."""
    found = store.systems_of(conn, project_id, filters, alive_ms=windows.alive_ms, now=now, limit=limit, after=after)
    return _with_heartbeats(conn, found)


def _with_heartbeats(conn: Connection, systems: Sequence[System]) -> list[Watched]:
    found = heartbeats.by_ids(conn, [each.heartbeat_id for each in systems])
    return [Watched(each, found[each.heartbeat_id]) for each in systems]


totals = store.totals


def trend(conn: Connection, project_id: str, period: Period, now: EpochMs) -> Trend:
    """How many systems there were over a period that ends today."""
    created, deleted = store.lifetimes(conn, project_id)
    return rules.trend(created, deleted, period, now)


def known_watched(conn: Connection, known: Known) -> Watched:
    """The system of a machine that was recognized a moment ago. Raises StaleCredential."""
    return _with_heartbeats(conn, [_still_known(conn, known)])[0]


def receive_inventory(
    conn: Connection, known: Known, new: Prepared, changes: list[Change], *, old: Latest | None, now: EpochMs
) -> Received:
    """Store what a machine consists of. Raises StaleCredential, Overtaken."""
    system = _still_known(conn, known, lock=True)
    return inventory.receive(conn, system.project_id, system.id, new, changes, old=old, now=now)


def snapshots(conn: Connection, project_id: str, ref: str, *, limit: int, before: str | None) -> list[Snapshot]:
    """The inventories of a system, newest first, without their documents. Raises SystemNotFound."""
    return inventory.snapshots_of(conn, get(conn, project_id, ref).id, limit=limit, before=before)


def latest_inventory(conn: Connection, project_id: str, ref: str) -> tuple[Snapshot, bytes]:
    """The newest inventory of a system and its compressed document. Raises SystemNotFound, InventoryNotFound."""
    found = inventory.latest_document(conn, get(conn, project_id, ref).id)
    if found is None:
        raise InventoryNotFound
    return found


def inventory_changes(conn: Connection, /, project_id: str, ref: str, **filters: Any) -> list[StoredChange]:
    """What changed in a system, newest first; filters as `inventory.changes_of`. Raises SystemNotFound."""
    return inventory.changes_of(conn, get(conn, project_id, ref).id, **filters)


def _still_known(conn: Connection, known: Known, *, lock: bool = False) -> System:
    found = store.still_known(conn, known, lock=lock)
    if found is None:
        raise StaleCredential
    return found
