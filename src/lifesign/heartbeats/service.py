"""Heartbeats: made, edited, acknowledged, paused, snoozed, deleted.

Everything here runs in the caller's transaction and goes through `rules` for its decisions. What time does to them is
in `sweep`, what they report in `checkins` and `running`.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any

import orjson
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lifesign.auth.rules import Caller
from lifesign.channels import service as channels
from lifesign.channels.rules import User
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats import holds, past, rules, slugs, store
from lifesign.heartbeats.definition import Definition, Flip
from lifesign.heartbeats.past import Day, Happened, Period, Span
from lifesign.heartbeats.rules import Heartbeat, HeartbeatLimitReached, HeartbeatNotFound, Managed
from lifesign.heartbeats.subjects import record, subject_of
from lifesign.ids import new_id
from lifesign.incidents import flapping, policies
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Incident, Tuning
from lifesign.incidents.service import Ack
from lifesign.maintenance import service as maintenance
from lifesign.projects import service as projects
from lifesign.runs import service as runs

_DAY_MS = 86_400_000
_SLUG_WINDOW = 64
_MAX_SLUG_WINDOW = 4096


# Making and editing -------------------------------------------------------------------------------------------------


Check = Callable[[Definition, Mapping[str, Any]], Definition]

# What a person calls the fields of a definition.
WIRE_NAMES = {
    "interval_ms": "interval",
    "grace_ms": "grace",
    "policy_id": "policy",
    "own_channels": "channels",
    "is_sticky_pause": "stickyPause",
    "tolerance_failures": "tolerance",
    "tolerance_window": "tolerance",
    "depends_on": "dependsOn",
    "ping_rules": "pings",
}


def create(
    conn: Connection,
    caller: Caller,
    definition: Definition,
    *,
    is_armed: bool,
    is_paused: bool = False,
    has_slug: bool,
    max_heartbeats: int,
    now: EpochMs,
    managed_by: str | None = None,
    origin: str | None = None,
    ping_id: str | None = None,
) -> Heartbeat:
    """A new heartbeat, waiting from now on. Raises InvalidInput, HeartbeatLimitReached.

    has_slug: the slug was chosen, so it is refused when taken; otherwise the lowest free one is made from the name.
    managed_by: what it belongs to, which alone may check it in and change it.
    ping_id: a UUID it had elsewhere; another one is made when None.
    """
    # Or two creations at once would both see room for the last one, and what it depends on could be deleted meanwhile.
    projects.lock(conn, caller.project_id)
    definition = _with_references(conn, caller.project_id, definition, itself=None)
    if store.count_of(conn, caller.project_id) >= max_heartbeats:
        raise HeartbeatLimitReached(max_heartbeats)
    blank = Heartbeat(
        id=new_id("hb", now),
        project_id=caller.project_id,
        status="active",
        is_armed=is_armed,
        anchor_at=now,
        last_checkin_at=None,
        checkin_count=0,
        next_deadline=None,
        fires_at=None,
        armed_at=None,
        check_at=None,
        incident_id=None,
        paused_at=None,
        created_at=now,
        updated_at=None,
        managed_by=managed_by,
        origin=origin,
        ping_id=None if managed_by else ping_id or str(uuid.uuid4()),
        badge_id=None if managed_by else str(uuid.uuid4()),
        **_values(definition),
    )
    heartbeat = rules.armed(blank, now, now) if is_armed else blank
    heartbeat = rules.paused(heartbeat, now) if is_paused else heartbeat
    if ping_id is not None and store.id_of_ping(conn, ping_id) is not None:
        raise _ping_id_taken(ping_id)
    while not _is_inserted(conn, heartbeat, ping_id):
        if has_slug:
            raise _slug_taken(definition.slug)
        base = definition.slug or slugs.slug_from_name(definition.name)
        heartbeat = replace(heartbeat, slug=free_slug(conn, caller.project_id, base))
    store.set_dependencies(conn, heartbeat)
    record(conn, heartbeat, now, "created", key=caller.key_id)
    if is_paused:
        record(conn, heartbeat, now, "paused", key=caller.key_id)
    wake_after_commit(conn, "sweep")
    return heartbeat


def _is_inserted(conn: Connection, heartbeat: Heartbeat, chosen_ping_id: str | None) -> bool:
    """False: its slug is taken."""
    try:
        return store.insert_if_free(conn, heartbeat)
    except IntegrityError:
        if chosen_ping_id is None:
            raise
        # Another node was quicker by a moment; what this transaction did is undone with it.
        raise _ping_id_taken(chosen_ping_id) from None


def _values(definition: Definition) -> dict[str, Any]:
    return {field.name: getattr(definition, field.name) for field in fields(definition)}


def free_slug(conn: Connection, project_id: str, base: str) -> str:
    """`base`, or the lowest free of `base-2`, `base-3`, ...; looked for in windows that double."""
    taken = store.taken_slugs(conn, project_id, [base])
    start, size = 2, _SLUG_WINDOW
    while base in taken:
        candidates = {f"{base}-{number}" for number in range(start, start + size)}
        found = store.taken_slugs(conn, project_id, candidates)
        taken |= found
        if len(found) < len(candidates):
            break
        start, size = start + size, min(size * 2, _MAX_SLUG_WINDOW)
    return slugs.lowest_free(base, taken)


def _slug_taken(slug: str | None) -> InvalidInput:
    return InvalidInput(Fault("slug", "is taken by another heartbeat", slug, has_value=True))


def _ping_id_taken(ping_id: str) -> InvalidInput:
    return InvalidInput(Fault("pingId", "is taken by another heartbeat", ping_id, has_value=True))


def _with_references(conn: Connection, project_id: str, definition: Definition, *, itself: str | None) -> Definition:
    """The definition, whose references exist, with ids in the place of slugs. Raises InvalidInput."""
    faults = []
    if definition.policy_id is not None and not policies.is_policy(conn, project_id, definition.policy_id):
        faults.append(Fault("policy", "unknown policy", definition.policy_id, has_value=True))
    known = channels.known_channels(conn, project_id, definition.own_channels) if definition.own_channels else set()
    for position, channel in enumerate(definition.own_channels):
        if channel not in known:
            faults.append(Fault(f"channels[{position}]", "unknown channel", channel, has_value=True))
    ids = store.ids_of_refs(conn, project_id, definition.depends_on) if definition.depends_on else {}
    for position, ref in enumerate(definition.depends_on):
        fault = _dependency_fault(conn, ids.get(ref), itself)
        if fault is not None:
            faults.append(Fault(f"dependsOn[{position}]", fault, ref, has_value=True))
    if faults:
        raise InvalidInput(*faults)
    return replace(definition, depends_on=tuple(dict.fromkeys(ids[ref] for ref in definition.depends_on)))


def _dependency_fault(conn: Connection, dependency: str | None, itself: str | None) -> str | None:
    if dependency is None:
        return "unknown heartbeat"
    if dependency == itself:
        return "is the heartbeat itself"
    is_cycle = itself is not None and holds.reaches(conn, [dependency], itself)
    return "depends on this heartbeat already" if is_cycle else None


def edit(
    conn: Connection,
    caller: Caller,
    ref: str,
    changes: Mapping[str, Any],
    *,
    check: Check,
    tuning: Tuning,
    now: EpochMs,
    owner: str | None = None,
) -> Heartbeat:
    """Change fields of a definition. Raises HeartbeatNotFound, InvalidInput, Managed.

    changes: fields of `Definition`. check: raises InvalidInput when the whole would not pass as a new heartbeat.
    owner: what the heartbeat belongs to, if that is what changes it.
    """
    if changes.get("depends_on"):
        projects.lock(conn, caller.project_id)  # or two edits at once could close a circle
    before = _owned(_locked(conn, caller.project_id, ref), owner)
    present = Definition(**{field.name: getattr(before, field.name) for field in fields(Definition)})
    wanted = check(present, changes)
    if wanted == present:
        return before
    wanted = _with_references(conn, caller.project_id, wanted, itself=before.id)
    if wanted == present:
        return before
    after = rules.after_edit(before, replace(before, **_values(wanted), updated_at=now), now)
    if not store.save_if_free(conn, after):
        raise _slug_taken(wanted.slug)
    if wanted.depends_on != present.depends_on:
        store.set_dependencies(conn, after)
        holds.look_again(conn, [after.id], now)
    changed = sorted(
        {WIRE_NAMES.get(name, name) for name, value in _values(wanted).items() if value != getattr(present, name)}
    )
    record(conn, after, now, "updated", key=caller.key_id, fields=changed)
    if after.incident_id is not None and after.policy_id != before.policy_id:
        policies.change_policy(conn, after.incident_id, subject_of(after), tuning=tuning, now=now)
    if after.incident_id is not None and (after.namespace, after.tags) != (before.namespace, before.tags):
        holds.judge(conn, [after], now, tuning)
    wake_after_commit(conn, "sweep")
    return after


def delete(
    conn: Connection, caller: Caller, ref: str, now: EpochMs, *, tuning: Tuning, owner: str | None = None
) -> None:
    """Remove a heartbeat; its incident closes and its unsent messages are canceled.

    Raises HeartbeatNotFound, Managed.
    """
    projects.lock(conn, caller.project_id)  # or somebody could come to depend on it meanwhile
    heartbeat = _locked(conn, caller.project_id, ref)
    if not (heartbeat.managed_by or "").startswith(rules.BOT_OWNER):
        _owned(heartbeat, owner)
    holds.close(conn, heartbeat, replace(heartbeat, status="resolved"), "delete", now)
    if heartbeat.is_flapping and heartbeat.flap_incident_id is not None:
        subject, spell = subject_of(heartbeat), heartbeat.flap_incident_id
        flapping.end(conn, subject, spell, status="deleted", incident_id=None, now=now, tuning=tuning)
    dependents = store.by_ids(conn, store.dependents_of(conn, [heartbeat.id]), lock=True)
    for dependent in dependents.values():
        alone = replace(dependent, depends_on=tuple(each for each in dependent.depends_on if each != heartbeat.id))
        store.save(conn, alone)
        store.set_dependencies(conn, alone)
        record(conn, alone, now, "dependency_removed", key=caller.key_id, dependsOn=heartbeat.id)
    holds.look_again(conn, dependents, now)
    incidents.clear_timers(conn, [heartbeat.id], "snooze_end")
    runs.forget(conn, heartbeat.id)
    store.delete_heartbeat(conn, heartbeat.id)


expect = store.expect


def rearm(conn: Connection, heartbeat_id: str, now: EpochMs) -> None:
    """Let a heartbeat wait anew for what its owner expects, unless it fires or is paused."""
    before = store.by_ids(conn, [heartbeat_id], lock=True).get(heartbeat_id)
    if before is not None and before.status in {"active", "resolved"}:
        store.save(conn, rules.armed(before, before.anchor_at, now))
        wake_after_commit(conn, "sweep")


def lock_unowned(conn: Connection, project_id: str, ref: str) -> Heartbeat:
    """A heartbeat that belongs to nobody else, locked. Raises HeartbeatNotFound, Managed."""
    return _owned(_locked(conn, project_id, ref))


def _owned(heartbeat: Heartbeat, owner: str | None = None) -> Heartbeat:
    """The heartbeat, which belongs to `owner`, or to nobody. Raises Managed."""
    if heartbeat.managed_by not in {None, owner}:
        raise Managed(heartbeat.status, heartbeat.managed_by or "")
    return heartbeat


def get(conn: Connection, project_id: str, ref: str) -> Heartbeat:
    """The heartbeat with this id or slug. Raises HeartbeatNotFound."""
    found = store.by_ref(conn, project_id, ref)
    if found is None:
        raise HeartbeatNotFound
    return found


def firing(conn: Connection, project_id: str, limit: int) -> list[Heartbeat]:
    """Heartbeats of a project that are down, oldest first."""
    return store.heartbeats_of(
        conn, project_id, limit=limit, after=None, status="firing", namespace=None, tags=(), search=None
    )


def by_ids(conn: Connection, ids: Iterable[str]) -> dict[str, Heartbeat]:
    """Heartbeats by id, of whatever project: for those that keep the ids of their own."""
    return store.by_ids(conn, ids)


by_unique_key = store.by_unique_key
by_badge_id = store.by_badge_id
id_of_ping = store.id_of_ping
save = store.save
unique_key = store.unique_key
oldest_matching = store.oldest_matching
all_of = store.all_of
list_heartbeats = store.heartbeats_of
names_using_policy = store.names_using_policy
names_using_channel = store.names_using_channel
count_by_policy = store.count_by_policy
covered_until = maintenance.covered_until
ids_of_refs = store.ids_of_refs
forget_answers = store.forget_answers


def history(
    conn: Connection, project_id: str, ref: str, *, limit: int, before_seq: int | None, event_type: str | None
) -> list[events.StoredEvent]:
    """Events of a heartbeat, newest first. Raises HeartbeatNotFound."""
    return events.history(
        conn, get(conn, project_id, ref).id, limit=limit, before_seq=before_seq, event_type=event_type
    )


def _locked(conn: Connection, project_id: str, ref: str) -> Heartbeat:
    found = store.by_ref(conn, project_id, ref, lock=True)
    if found is None:
        raise HeartbeatNotFound
    return found


# People -------------------------------------------------------------------------------------------------------------
def ack(conn: Connection, caller: Caller, ref: str, message: str | None, now: EpochMs) -> Incident:
    """Acknowledge a firing heartbeat; its closed incident. Raises HeartbeatNotFound, StateRefused."""
    before = _locked(conn, caller.project_id, ref)
    return _ack(conn, before, Ack(f"key:{caller.key_name}", message), now, key_id=caller.key_id)


def ack_incident(conn: Connection, incident: Incident, who: Ack, now: EpochMs) -> bool:
    """Acknowledge an incident for somebody who needs no key; False when it is over already."""
    before = store.by_ref(conn, incident.project_id, incident.heartbeat_id, lock=True)
    if before is None or before.incident_id != incident.id:
        return False
    _ack(conn, before, who, now, key_id=None)
    return True


def _ack(conn: Connection, before: Heartbeat, who: Ack, now: EpochMs, *, key_id: str | None) -> Incident:
    after, closed = holds.close(conn, before, rules.acked(before, now), "ack", now, ack=who)
    store.save(conn, after)
    if closed is None:
        msg = f"firing heartbeat {before.id} has no open incident"
        raise RuntimeError(msg)
    record(
        conn,
        after,
        now,
        "acked",
        key=key_id,
        incident=closed.id,
        escalationStep=closed.steps_run,
        actor=who.actor,
        message=who.message,
    )
    wake_after_commit(conn, "sweep")
    return closed


def pause(conn: Connection, caller: Caller, ref: str, now: EpochMs) -> Heartbeat:
    """Stop watching; an open incident closes. Raises HeartbeatNotFound, StateRefused."""
    before = _locked(conn, caller.project_id, ref)
    return _paused(conn, caller, before, rules.paused(before, now), now)


def suspend(conn: Connection, caller: Caller, ref: str, now: EpochMs) -> Heartbeat:
    """Stop watching until what the heartbeat belongs to resumes it: people cannot. Raises HeartbeatNotFound."""
    before = _locked(conn, caller.project_id, ref)
    after = rules.suspended(before, now)
    if before.status != "paused":
        return _paused(conn, caller, before, after, now)
    store.save(conn, after)
    return after


def _paused(conn: Connection, caller: Caller, before: Heartbeat, after: Heartbeat, now: EpochMs) -> Heartbeat:
    after, _ = holds.close(conn, before, after, "pause", now)
    store.save(conn, after)
    if before.run_due_at is not None:
        runs.unwatch(conn, after.id)
    record(conn, after, now, "paused", key=caller.key_id, incident=before.incident_id)
    return after


def resume(conn: Connection, caller: Caller, ref: str, now: EpochMs, *, by_owner: bool = False) -> Heartbeat:
    """Watch again, from now. Raises HeartbeatNotFound, StateRefused.

    by_owner: it is what the heartbeat belongs to that resumes it, which alone may do so while it is suspended.
    """
    after = rules.resumed(_locked(conn, caller.project_id, ref), now, by_owner=by_owner)
    store.save(conn, after)
    record(conn, after, now, "resumed", key=caller.key_id)
    wake_after_commit(conn, "sweep")
    return after


def resume_unarmed(conn: Connection, caller: Caller, ref: str, now: EpochMs) -> Heartbeat:
    """Take a heartbeat out of its pause; it is waited for once it has reported. Raises StateRefused, Managed.

    Raises HeartbeatNotFound.
    """
    after = rules.resumed_unarmed(_owned(_locked(conn, caller.project_id, ref)))
    store.save(conn, after)
    record(conn, after, now, "resumed", key=caller.key_id)
    return after


def snooze(
    conn: Connection, caller: Caller, ref: str, *, until: EpochMs, reason: str | None, now: EpochMs
) -> Heartbeat:
    """Tell nobody of a heartbeat until then. Raises HeartbeatNotFound, StateRefused."""
    before = _locked(conn, caller.project_id, ref)
    return holds.snooze(conn, before, until, reason=reason, key_id=caller.key_id, now=now)


def end_snooze(conn: Connection, caller: Caller, ref: str, *, tuning: Tuning, now: EpochMs) -> None:
    """Tell people of a heartbeat again. Raises HeartbeatNotFound, StateRefused."""
    before = _locked(conn, caller.project_id, ref)
    holds.end_snooze(conn, before, key_id=caller.key_id, now=now, tuning=tuning)


def import_history(
    conn: Connection, caller: Caller, ref: str, happened: Iterable[tuple[Flip, EpochMs]]
) -> tuple[int, int]:
    """Keep what another server saw of a heartbeat; how many events were new, and how many were known.

    Nothing follows from them: no incident, no message. Raises HeartbeatNotFound, Managed.
    """
    heartbeat = _owned(_locked(conn, caller.project_id, ref))
    told = set(happened)
    new = events.record_imported(conn, heartbeat.project_id, heartbeat.id, told)
    return new, len(told) - new


# How it went ---------------------------------------------------------------------------------------------------------
_ENDS_A_WAIT = (
    *("checkin", "checkin_unhealthy", "missed", "run_stalled", "run_overdue"),
    *("firing", "resolved", "acked", "paused", "resumed", "blind"),
)
# Of these some tell no end of a wait: messages, runs, edits.
_LOOKED_AT = 5 * past.MAX_PERIODS
_AT_ONCE = 100


def recent_periods(conn: Connection, heartbeats: Sequence[Heartbeat]) -> dict[str, list[Period]]:
    """How the last waits of each heartbeat ended, by id, oldest first."""
    found: dict[str, list[Period]] = {}
    for start in range(0, len(heartbeats), _AT_ONCE):
        chunk = heartbeats[start : start + _AT_ONCE]
        rows = events.last_of(conn, [each.id for each in chunk], _ENDS_A_WAIT, limit=_LOOKED_AT)
        for each in chunk:
            happened = [_happened(row) for row in rows.get(each.id, ()) if row.metadata != events.IMPORTED]
            found[each.id] = past.periods(happened, is_paused=each.status == "paused")
    return found


def _happened(row: events.StoredEvent) -> Happened:
    told = orjson.loads(row.metadata)
    return Happened(row.type, "late" in told, "suppressed" in told, told.get("reason"))


def days(conn: Connection, project_id: str, ref: str, *, count: int, now: EpochMs) -> list[Day]:
    """The last days of a heartbeat, oldest first. Raises HeartbeatNotFound."""
    heartbeat = get(conn, project_id, ref)
    since = EpochMs(now - (count + 1) * _DAY_MS)
    outages = [Span(*each) for each in incidents.spans_of(conn, heartbeat.id, since)]
    return past.days(
        outages,
        _pauses(conn, heartbeat),
        timezone=heartbeat.timezone,
        created_at=heartbeat.created_at,
        count=count,
        now=now,
    )


def _pauses(conn: Connection, heartbeat: Heartbeat) -> list[Span]:
    """When a heartbeat was paused. The event of a pause may be gone that is not over, or ended lately."""
    pauses: list[Span] = []
    began: EpochMs | None = None
    for number, row in enumerate(events.of_types(conn, heartbeat.id, ("paused", "resumed"))):
        if row.type == "paused":
            began = row.created_at
        elif began is not None or number == 0:
            pauses.append(Span(began or heartbeat.created_at, row.created_at))
            began = None
    return pauses if heartbeat.paused_at is None else [*pauses, Span(heartbeat.paused_at, None)]


# Users of policies and channels -------------------------------------------------------------------------------------
class HeartbeatsAsUsers:
    """Heartbeats name a policy, and channels of their own."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning

    def policy_users(self, conn: Connection, project_id: str, policy_id: str) -> list[tuple[str, str]]:
        """Id and name of the heartbeats that use the policy."""
        return [(each.id, each.name) for each in store.using_policy(conn, project_id, policy_id)]

    def detach_policy(self, conn: Connection, project_id: str, policy_id: str, *, key_id: str, now: EpochMs) -> None:
        """Take the policy away from every heartbeat; running escalations end, incidents stay open."""
        for heartbeat in store.using_policy(conn, project_id, policy_id):
            detached = replace(heartbeat, policy_id=None)
            store.save(conn, detached)
            record(conn, detached, now, "policy_detached", key=key_id, policy=policy_id)
            if detached.incident_id is not None:
                policies.change_policy(conn, detached.incident_id, subject_of(detached), tuning=self._tuning, now=now)

    def channel_users(self, conn: Connection, project_id: str, channel_id: str) -> list[User]:
        """The heartbeats that tell the channel by themselves."""
        return [User("heartbeat", each.id, each.name) for each in store.using_channel(conn, project_id, channel_id)]

    def detach_channel(self, conn: Connection, project_id: str, channel_id: str, *, key_id: str, now: EpochMs) -> None:
        """Take the channel away from every heartbeat; those whose policy names it hear of it as well.

        Asked before the policies forget the channel.
        """
        naming = {each.id: each for each in store.using_channel(conn, project_id, channel_id)}
        for heartbeat in naming.values():
            store.save(
                conn,
                replace(heartbeat, own_channels=tuple(each for each in heartbeat.own_channels if each != channel_id)),
            )
        concerned = set(naming)
        for policy_id in policies.policies_naming_channel(conn, project_id, channel_id):
            concerned |= {each.id for each in store.using_policy(conn, project_id, policy_id)}
        metadata = {"key": key_id, "channel": channel_id}
        events.record(conn, [Event(project_id, each, "channel_detached", metadata) for each in sorted(concerned)], now)
