"""Checks: heartbeats as the management API makes, changes and reads them, in the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import orjson
from sqlalchemy import Connection

from lifesign.auth.rules import Caller
from lifesign.channels import service as channels
from lifesign.clock import EpochMs
from lifesign.events import service as events
from lifesign.faults import InvalidInput
from lifesign.heartbeats import running
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.counted import PingRules
from lifesign.heartbeats.definition import Definition
from lifesign.heartbeats.rules import Heartbeat, HeartbeatLimitReached, Managed, StateRefused
from lifesign.incidents import policies
from lifesign.incidents.rules import Tuning
from lifesign.pings import rules, schemas, store
from lifesign.pings.rules import CheckRefused
from lifesign.pings.schemas import Version, Wanted
from lifesign.projects import service as projects

_S = 1000
_MAX_CHANNELS = 1000
# Events that count as pings, in the order of their numbers.
_PINGS = ("checkin", "checkin_unhealthy", "run_started", "log", "ignored")
_CHECKINS = {"checkin", "checkin_unhealthy"}
_FLIPS = {"firing": 0, "resolved": 1, "acked": 1, "paused": 0}
_CHUNK = 500


def _not_found() -> CheckRefused:
    return CheckRefused(404, "not found")


# One ----------------------------------------------------------------------------------------------------------------
def by_uuid(conn: Connection, caller: Caller, ping_id: str) -> Heartbeat:
    """The check with this UUID. Raises CheckRefused: 404 for none, 403 for one of another project."""
    found = heartbeats.id_of_ping(conn, ping_id)
    if found is None:
        raise _not_found()
    heartbeat_id, project_id = found
    if project_id != caller.project_id:
        raise CheckRefused(403, "forbidden")
    return heartbeats.get(conn, project_id, heartbeat_id)


def by_unique_key(conn: Connection, caller: Caller, key: str) -> Heartbeat:
    """The check that is named so to those who may only read. Raises CheckRefused."""
    found = heartbeats.by_unique_key(conn, caller.project_id, key)
    if found is None:
        raise _not_found()
    return found


def all_of(conn: Connection, project_id: str, *, tags: Sequence[str] = (), slug: str | None = None) -> list[Heartbeat]:
    """The checks of a project that have all of `tags` and this slug, oldest first."""
    if any("\x00" in each for each in (*tags, slug or "")):
        return []  # nothing has it, and PostgreSQL refuses to look
    return [each for each in heartbeats.all_of(conn, project_id, tags=tags, slug=slug) if each.ping_id is not None]


@dataclass(frozen=True, slots=True)
class Editing:
    """Who edits, by which version of the API, and under which limits."""

    caller: Caller
    version: Version
    tuning: Tuning
    max_heartbeats: int
    now: EpochMs


def create(conn: Connection, editing: Editing, wanted: Wanted) -> tuple[Heartbeat, bool]:
    """A new check, or the oldest that `unique` tells to be the same, changed; and whether it is new.

    Raises CheckRefused.
    """
    caller = editing.caller
    if wanted.unique:
        # Look-up and creation at once, or two equal requests would make two checks.
        projects.lock(conn, caller.project_id)
        found = _same(conn, caller.project_id, wanted)
        if found is not None:
            return edit(conn, editing, found, wanted), False
    definition = replace(schemas.new_definition(wanted), **_references(conn, caller.project_id, wanted))
    chosen = wanted.values.get("slug") or None
    if editing.version < 3:  # noqa: PLR2004 - the version that knows slugs
        chosen = None
        definition = replace(definition, slug=rules.slug_of_name(definition.name))
    else:
        definition = replace(definition, slug=chosen)
    try:
        made = heartbeats.create(
            conn,
            caller,
            definition,
            is_armed=False,
            has_slug=chosen is not None,
            max_heartbeats=editing.max_heartbeats,
            now=editing.now,
        )
    except HeartbeatLimitReached:
        raise CheckRefused(403, "too many checks") from None
    except InvalidInput:
        raise _slug_in_use() from None
    return made, True


def _slug_in_use() -> CheckRefused:
    return CheckRefused(400, "json validation error: slug is already in use")


def _same(conn: Connection, project_id: str, wanted: Wanted) -> Heartbeat | None:
    values = wanted.values
    if any(name not in values for name in wanted.unique):
        return None
    columns = {
        "name": ("name", values.get("name")),
        "slug": ("slug", values.get("slug") or None),
        "tags": ("tags", f" {' '.join(values['tags'])} " if values.get("tags") else None),
        "timeout": ("interval_ms", values.get("timeout", 0) * _S),
        "grace": ("grace_ms", values.get("grace", 0) * _S),
    }
    return heartbeats.oldest_matching(conn, project_id, dict(columns[name] for name in wanted.unique))


def _references(conn: Connection, project_id: str, wanted: Wanted) -> dict[str, Any]:
    """The channels and the policy that a request names, as ids. Raises CheckRefused."""
    told: dict[str, Any] = {}
    if "channels" in wanted.values:
        told["own_channels"] = _channels(conn, project_id, wanted.values["channels"])
    if "policy" in wanted.values:
        policy = wanted.values["policy"] or None
        if policy is not None and not policies.is_policy(conn, project_id, policy):
            raise CheckRefused(400, "json validation error: policy is not a known policy")
        told["policy_id"] = policy
    return told


def _channels(conn: Connection, project_id: str, text: str) -> tuple[str, ...]:
    if text == "":
        return ()
    known = list_channels(conn, project_id)
    if text == "*":
        return tuple(each.id for each in known)
    found: list[str] = []
    for word in (each.strip() for each in text.split(",")):
        if not word:
            raise CheckRefused(400, "empty channel identifier")
        matching = [each.id for each in known if each.id == word] or [each.id for each in known if each.name == word]
        if not matching:
            raise CheckRefused(400, f"invalid channel identifier: {word}")
        if len(matching) > 1:
            raise CheckRefused(400, f"non-unique channel identifier: {word}")
        found.append(matching[0])
    return tuple(dict.fromkeys(found))


class NamedChannel(NamedTuple):
    """A channel without its settings."""

    id: str
    name: str
    type: str


def list_channels(conn: Connection, project_id: str) -> list[NamedChannel]:
    """Every channel of a project."""
    rows = channels.list_channels(conn, project_id, limit=_MAX_CHANNELS, after=None)
    return [NamedChannel(row.id, row.name, row.type) for row in rows]


def edit(conn: Connection, editing: Editing, before: Heartbeat, wanted: Wanted) -> Heartbeat:
    """A check, changed. Raises CheckRefused."""
    changes = schemas.changes_of(wanted, PingRules.of(before.ping_rules))
    changes |= _references(conn, editing.caller.project_id, wanted)
    if editing.version < 3:  # noqa: PLR2004 - the version that knows slugs
        if changes.get("name", before.name) != before.name:
            base = rules.slug_of_name(changes["name"])
            changes["slug"] = base and heartbeats.free_slug(conn, before.project_id, base)
    elif "slug" in wanted.values:
        changes["slug"] = wanted.values["slug"] or None
    try:
        return heartbeats.edit(
            conn,
            editing.caller,
            before.id,
            changes,
            check=_edited,
            tuning=editing.tuning,
            now=editing.now,
        )
    except InvalidInput:
        raise _slug_in_use() from None
    except Managed:
        raise CheckRefused(403, "forbidden") from None


def _edited(present: Definition, changes: Mapping[str, Any]) -> Definition:
    return replace(present, **changes)


def update(conn: Connection, editing: Editing, ping_id: str, wanted: Wanted) -> Heartbeat:
    """The check with this UUID, changed. Raises CheckRefused."""
    return edit(conn, editing, by_uuid(conn, editing.caller, ping_id), wanted)


def delete(conn: Connection, editing: Editing, ping_id: str) -> Heartbeat:
    """Remove a check; what it was. Raises CheckRefused."""
    before = by_uuid(conn, editing.caller, ping_id)
    heartbeats.delete(conn, editing.caller, before.id, editing.now, tuning=editing.tuning)
    return before


def pause(conn: Connection, editing: Editing, ping_id: str) -> Heartbeat:
    """Stop watching a check and the run that a ping began. Raises CheckRefused."""
    before = by_uuid(conn, editing.caller, ping_id)
    try:
        after = heartbeats.pause(conn, editing.caller, before.id, editing.now)
    except StateRefused:  # paused already, or over for good
        after = heartbeats.lock_unowned(conn, before.project_id, before.id)
    if after.ping_run_id is None:
        return after
    after = running.drop_ping_run(conn, after, editing.now)
    heartbeats.save(conn, after)
    return after


def resume(conn: Connection, editing: Editing, ping_id: str) -> Heartbeat:
    """Take a check out of its pause, as if it were new. Raises CheckRefused."""
    before = by_uuid(conn, editing.caller, ping_id)
    try:
        after = heartbeats.resume_unarmed(conn, editing.caller, before.id, editing.now)
    except StateRefused:
        raise CheckRefused(409, "check is not paused") from None
    after = running.drop_ping_run(conn, after, editing.now)
    heartbeats.save(conn, after)
    return after


# Pings --------------------------------------------------------------------------------------------------------------
class ShownPing(NamedTuple):
    """One ping of a check. `told`: what was kept of it beside its time."""

    n: int
    at: EpochMs
    kind: str
    told: Mapping[str, Any]
    has_body: bool


def list_pings(
    conn: Connection, heartbeat: Heartbeat, *, limit: int, before: int | None, bodies_kept: int
) -> list[ShownPing]:
    """Pings of a check, newest first: their numbers count down from the newest."""
    newest = heartbeat.checkin_count + heartbeat.ping_extras
    with_body = store.numbers_with_body(conn, heartbeat.id)
    found: list[ShownPing] = []
    n, seq = newest, None
    while n > 0 and len(found) < limit:
        rows = events.history(conn, heartbeat.id, limit=_CHUNK, before_seq=seq, event_type=None)
        for row in rows:
            metadata = orjson.loads(row.metadata)
            if row.type not in _PINGS or (row.type == "run_started" and "ping" not in metadata):
                continue
            if (before is None or n < before) and len(found) < limit:
                told = metadata.get("ping", {})
                kind = told.get("kind") or ("fail" if row.type == "checkin_unhealthy" else "success")
                scheme = {} if told.get("scheme") else {"scheme": metadata.get("via", "")}
                is_kept = n in with_body and n > newest - bodies_kept
                found.append(ShownPing(n, row.created_at, kind, told | scheme, is_kept))
            n -= 1
        if len(rows) < _CHUNK:
            break
        seq = rows[-1].seq
    return found


def ping_body(conn: Connection, heartbeat: Heartbeat, n: int, *, bodies_kept: int) -> bytes:
    """What a ping carried. Raises CheckRefused."""
    newest = heartbeat.checkin_count + heartbeat.ping_extras
    body = store.body(conn, heartbeat.id, n) if n > newest - bodies_kept else None
    if body is None:
        raise _not_found()
    return body


# Flips --------------------------------------------------------------------------------------------------------------
def list_flips(conn: Connection, heartbeat: Heartbeat, *, start: EpochMs, end: EpochMs) -> list[tuple[EpochMs, int]]:
    """When a check went up and down, newest first.  Source: spec "Pings", section 5."""
    rows = _whole_history(conn, heartbeat.id)
    flips: list[tuple[EpochMs, int]] = []
    # Only the newest check-ins are kept: the oldest of those is no arming, which would wander along with it.
    is_armed = heartbeat.checkin_count > sum(row.type in _CHECKINS for row in rows)
    for row in rows:
        if row.type in _FLIPS:
            flips.append((row.created_at, _FLIPS[row.type]))
        elif row.type == "resumed":
            # By hand it is new then. By a ping it is what the ping says, which is told next.
            if "via" not in orjson.loads(row.metadata):
                flips.append((row.created_at, 0))
            is_armed = False
        elif row.type == "checkin" and not is_armed:
            flips.append((row.created_at, 1))
            is_armed = True
        if row.type in {"firing", "acked", "resolved"}:
            is_armed = True
    # What was imported stands where it was written, which is not when it happened.
    flips.sort(key=lambda flip: flip[0])
    return [flip for flip in reversed(flips) if start <= flip[0] < end]


def _whole_history(conn: Connection, heartbeat_id: str) -> Sequence[events.StoredEvent]:
    """The history that is kept, oldest first: what came before a moment tells what was so at it."""
    found: list[events.StoredEvent] = []
    seq = None
    while True:
        rows = events.history(conn, heartbeat_id, limit=_CHUNK, before_seq=seq, event_type=None)
        found += rows
        if len(rows) < _CHUNK:
            return found[::-1]
        seq = rows[-1].seq
