"""Heartbeats: made, edited, checked in, acknowledged, paused; and fired when nobody checked in.

Everything here runs in the caller's transaction and goes through `rules` for its decisions.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import orjson
from sqlalchemy import Connection

from lifesign.auth.rules import Caller
from lifesign.channels import service as channels
from lifesign.channels.rules import User
from lifesign.clock import EpochMs, rfc3339
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event, EventType
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats import rules, slugs, store
from lifesign.heartbeats.rules import Blindness, Heartbeat, HeartbeatLimitReached, HeartbeatNotFound, Mode
from lifesign.ids import new_id
from lifesign.incidents import flapping, policies, storms
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Incident, Subject, Tuning
from lifesign.incidents.service import Ack, Firing
from lifesign.incidents.storms import Armed
from lifesign.projects import service as projects

_SLUG_WINDOW = 64
_MAX_SLUG_WINDOW = 4096


# Making and editing -------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Definition:
    """What a person says of a heartbeat, checked field by field and as a whole."""

    name: str
    mode: Mode
    slug: str | None
    interval_ms: int | None
    schedule: str | None
    timezone: str
    grace_ms: int
    policy_id: str | None
    own_channels: tuple[str, ...]
    namespace: str | None
    description: str | None
    tags: tuple[str, ...]
    metadata: str | None
    is_sticky_pause: bool


Check = Callable[[Definition, Mapping[str, Any]], Definition]

# What a person calls the fields of a definition.
WIRE_NAMES = {
    "interval_ms": "interval",
    "grace_ms": "grace",
    "policy_id": "policy",
    "own_channels": "channels",
    "is_sticky_pause": "stickyPause",
}


def create(
    conn: Connection,
    caller: Caller,
    definition: Definition,
    *,
    is_armed: bool,
    has_slug: bool,
    max_heartbeats: int,
    now: EpochMs,
) -> Heartbeat:
    """A new heartbeat, waiting from now on. Raises InvalidInput, HeartbeatLimitReached.

    has_slug: the slug was chosen, so it is refused when taken; otherwise the lowest free one is made from the name.
    """
    _check_references(conn, caller.project_id, definition)
    projects.lock(conn, caller.project_id)  # or two creations at once would both see room for the last one
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
        **_values(definition),
    )
    heartbeat = rules.armed(blank, now, now) if is_armed else blank
    while not store.insert_if_free(conn, heartbeat):
        if has_slug:
            raise _slug_taken(definition.slug)
        heartbeat = replace(heartbeat, slug=free_slug(conn, caller.project_id, slugs.slug_from_name(definition.name)))
    _record(conn, heartbeat, now, "created", key=caller.key_id)
    wake_after_commit(conn, "sweep")
    return heartbeat


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


def _check_references(conn: Connection, project_id: str, definition: Definition) -> None:
    faults = []
    if definition.policy_id is not None and not policies.is_policy(conn, project_id, definition.policy_id):
        faults.append(Fault("policy", "unknown policy", definition.policy_id, has_value=True))
    known = channels.known_channels(conn, project_id, definition.own_channels) if definition.own_channels else set()
    for position, channel in enumerate(definition.own_channels):
        if channel not in known:
            faults.append(Fault(f"channels[{position}]", "unknown channel", channel, has_value=True))
    if faults:
        raise InvalidInput(*faults)


def edit(
    conn: Connection,
    caller: Caller,
    ref: str,
    changes: Mapping[str, Any],
    *,
    check: Check,
    tuning: Tuning,
    now: EpochMs,
) -> Heartbeat:
    """Change fields of a definition. Raises HeartbeatNotFound, InvalidInput.

    changes: fields of `Definition`. check: raises InvalidInput when the whole would not pass as a new heartbeat.
    """
    before = _locked(conn, caller.project_id, ref)
    present = Definition(**{field.name: getattr(before, field.name) for field in fields(Definition)})
    wanted = check(present, changes)
    if wanted == present:
        return before
    _check_references(conn, caller.project_id, wanted)
    after = rules.after_edit(before, replace(before, **_values(wanted), updated_at=now), now)
    if not store.save_if_free(conn, after):
        raise _slug_taken(wanted.slug)
    changed = sorted(
        WIRE_NAMES.get(name, name) for name, value in _values(wanted).items() if value != getattr(present, name)
    )
    _record(conn, after, now, "updated", key=caller.key_id, fields=changed)
    if after.incident_id is not None and after.policy_id != before.policy_id:
        policies.change_policy(conn, after.incident_id, subject_of(after), tuning=tuning, now=now)
    wake_after_commit(conn, "sweep")
    return after


def delete(conn: Connection, caller: Caller, ref: str, now: EpochMs, *, tuning: Tuning) -> None:
    """Remove a heartbeat; its incident closes and its unsent messages are canceled. Raises HeartbeatNotFound."""
    heartbeat = _locked(conn, caller.project_id, ref)
    if heartbeat.incident_id is not None:
        incidents.close_incident(
            conn, heartbeat.incident_id, subject_of(heartbeat), "delete", heartbeat_status="resolved", now=now
        )
    if heartbeat.is_flapping and heartbeat.flap_incident_id is not None:
        subject, spell = subject_of(heartbeat), heartbeat.flap_incident_id
        flapping.end(conn, subject, spell, status="deleted", incident_id=None, now=now, tuning=tuning)
    store.delete_heartbeat(conn, heartbeat.id)


def get(conn: Connection, project_id: str, ref: str) -> Heartbeat:
    """The heartbeat with this id or slug. Raises HeartbeatNotFound."""
    found = store.by_ref(conn, project_id, ref)
    if found is None:
        raise HeartbeatNotFound
    return found


list_heartbeats = store.heartbeats_of


def history(
    conn: Connection, project_id: str, ref: str, *, limit: int, before_seq: int | None, event_type: str | None
) -> list[events.StoredEvent]:
    """Events of a heartbeat, newest first. Raises HeartbeatNotFound."""
    return events.history(
        conn, get(conn, project_id, ref).id, limit=limit, before_seq=before_seq, event_type=event_type
    )


def subject_of(heartbeat: Heartbeat) -> Subject:
    """The heartbeat as an incident sees it."""
    return Subject(
        id=heartbeat.id,
        project_id=heartbeat.project_id,
        name=heartbeat.name,
        slug=heartbeat.slug or heartbeat.id,
        mode=heartbeat.mode,
        timezone=heartbeat.timezone,
        namespace=heartbeat.namespace,
        metadata=None if heartbeat.metadata is None else orjson.loads(heartbeat.metadata),
        policy_id=heartbeat.policy_id,
        own_channels=heartbeat.own_channels,
    )


def subjects(conn: Connection, ids: Iterable[str]) -> dict[str, Subject]:
    """Several heartbeats as incidents see them, by id."""
    return {key: subject_of(heartbeat) for key, heartbeat in store.by_ids(conn, ids).items()}


def _locked(conn: Connection, project_id: str, ref: str) -> Heartbeat:
    found = store.by_ref(conn, project_id, ref, lock=True)
    if found is None:
        raise HeartbeatNotFound
    return found


def _record(
    conn: Connection, heartbeat: Heartbeat, now: EpochMs, event_type: EventType, **metadata: Any
) -> None:  # Any: JSON
    events.record(conn, [Event(heartbeat.project_id, heartbeat.id, event_type, metadata)], now)


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
    after = rules.acked(before, now)
    store.save(conn, after)
    closed = incidents.close_incident(
        conn, before.incident_id or "", subject_of(after), "ack", heartbeat_status=after.status, now=now, ack=who
    )
    if closed is None:
        msg = f"firing heartbeat {before.id} has no open incident"
        raise RuntimeError(msg)
    _record(
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
    after = rules.paused(before, now)
    store.save(conn, after)
    if before.incident_id is not None:
        incidents.close_incident(
            conn, before.incident_id, subject_of(after), "pause", heartbeat_status="paused", now=now
        )
    _record(conn, after, now, "paused", key=caller.key_id, incident=before.incident_id)
    return after


def resume(conn: Connection, caller: Caller, ref: str, now: EpochMs) -> Heartbeat:
    """Watch again, from now. Raises HeartbeatNotFound, StateRefused."""
    after = rules.resumed(_locked(conn, caller.project_id, ref), now)
    store.save(conn, after)
    _record(conn, after, now, "resumed", key=caller.key_id)
    wake_after_commit(conn, "sweep")
    return after


# Time ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Swept:
    """What one look for missed deadlines found. `late_ms`: of each firing, how long after its moment."""

    looked_at: int
    late_ms: tuple[int, ...]


def sweep(
    conn: Connection,
    now: EpochMs,
    limit: int,
    *,
    tuning: Tuning,
    armed: Armed,
    blind: Blindness | None = None,
    without: Collection[str] = (),
    only: str | None = None,
) -> Swept:
    """Fire what is overdue, among at most `limit` heartbeats whose bound has passed; move the bounds of the rest.

    blind: the last span in which nobody listened; what could not be heard in it is given time to check in.
    """
    due = store.lock_due(conn, now, limit, without=without, only=only)
    if blind is not None:
        due = _hold(conn, due, blind, now)
    later = {each.id: each.fires_at for each in due if each.fires_at is None or each.fires_at > now}
    store.set_bounds(conn, later)
    overdue = [each for each in due if each.id not in later]
    found = storms.storms_of_batch(conn, Counter(each.project_id for each in overdue), now, tuning=tuning, armed=armed)
    firings = [
        Firing(
            subject_of(each),
            "missed",
            each.fires_at,
            each.next_deadline,
            blind=_blind_time(each, blind),
            storm_id=found.get(each.project_id),
        )
        for each in overdue
    ]
    store.save_fired(conn, fire(conn, list(zip(overdue, firings, strict=True)), now, tuning).values())
    return Swept(len(due), tuple(now - (each.fires_at or now) for each in overdue))


def fire(
    conn: Connection, firings: Sequence[tuple[Heartbeat, Firing]], now: EpochMs, tuning: Tuning
) -> dict[str, Heartbeat]:
    """Open an incident for each heartbeat; the heartbeats afterwards, by id, which the caller saves.

    One that fires again and again opens it under a hold.
    """
    if not firings:
        return {}
    after = {each.id: rules.fired(each, now, tuning.flap_limit) for each, _ in firings}
    opened = incidents.open_incidents(
        conn, [replace(firing, is_flapping=after[each.id].is_flapping) for each, firing in firings], now, tuning
    )
    after = {key: replace(each, incident_id=opened[key]) for key, each in after.items()}
    begun = {each.id for each, _ in firings if after[each.id].is_flapping and not each.is_flapping}
    after |= {key: replace(after[key], flap_incident_id=opened[key]) for key in begun}
    flapping.begin(conn, [(firing.subject, opened[each.id]) for each, firing in firings if each.id in begun], now)
    flapping.settle_at(
        conn, {each.id: (each.project_id, rules.calm_at(each)) for each in after.values() if each.is_flapping}
    )
    return after


def settle(conn: Connection, ids: Collection[str], now: EpochMs, tuning: Tuning) -> None:
    """Heartbeats that flapped are looked at: those that are calm by now are told of like any other again."""
    for heartbeat in store.lock_flapping(conn, ids):
        flapping.clear_timers(conn, [heartbeat.id], "flap_settle")
        calm_at = rules.calm_at(heartbeat)
        if calm_at > now and tuning.flap_limit:
            flapping.settle_at(conn, {heartbeat.id: (heartbeat.project_id, calm_at)})
            continue
        store.save(conn, replace(heartbeat, is_flapping=False, flap_incident_id=None))
        flapping.end(
            conn,
            subject_of(heartbeat),
            heartbeat.flap_incident_id or "",
            status=heartbeat.status,
            incident_id=heartbeat.incident_id,
            now=now,
            tuning=tuning,
        )
    flapping.clear_timers(conn, set(ids) - store.existing(conn, ids), "flap_settle")


class ArmedCounts:
    """How many heartbeats each project watches, counted once a minute at most: a storm is judged in the sweep."""

    _fresh_ms = 60_000

    def __init__(self) -> None:
        self._counted: dict[str, tuple[EpochMs, int]] = {}

    def __call__(self, conn: Connection, project_id: str, now: EpochMs) -> int:
        """The count, at most a minute old."""
        at, count = self._counted.get(project_id, (None, 0))
        if at is None or not 0 <= now - at < self._fresh_ms:
            count = store.count_armed(conn, project_id)
            self._counted[project_id] = (now, count)
        return count


def _hold(conn: Connection, due: list[Heartbeat], blind: Blindness, now: EpochMs) -> list[Heartbeat]:
    """The same heartbeats, those that could not be heard with the later moment at which they fire."""
    until = {each.id: rules.held_until(each, blind) for each in due}
    holds = {key: at for key, at in until.items() if at is not None}
    store.save_holds(conn, holds)
    span = {"from": rfc3339(blind.from_at), "to": rfc3339(blind.to_at)}
    told = [
        Event(each.project_id, each.id, "blind", span | {"heldUntil": rfc3339(holds[each.id])})
        for each in due
        if each.id in holds
    ]
    events.record(conn, told, now)
    return [replace(each, fires_at=holds.get(each.id, each.fires_at)) for each in due]


def _blind_time(heartbeat: Heartbeat, blind: Blindness | None) -> tuple[EpochMs, EpochMs] | None:
    """The span because of which the heartbeat was waited for."""
    return (blind.from_at, blind.to_at) if blind is not None and rules.was_held(heartbeat, blind) else None


def fire_again(conn: Connection, ids: Collection[str], now: EpochMs, tuning: Tuning) -> None:
    """Open an incident for heartbeats that fire without one. Their rows are locked."""
    alone = store.by_ids(conn, ids).values()
    firings = [(each, Firing(subject_of(each), "missed", each.fires_at, each.next_deadline)) for each in alone]
    store.save_fired(conn, fire(conn, firings, now, tuning).values())


def end_flap_hold(conn: Connection, incidents_of: Mapping[str, str], now: EpochMs, tuning: Tuning) -> None:
    """Incidents that are held back for flapping go on: heartbeat id -> incident id. The heartbeats are locked."""
    for heartbeat in store.by_ids(conn, incidents_of).values():
        incidents.end_hold(conn, incidents_of[heartbeat.id], subject_of(heartbeat), "flap", now=now, tuning=tuning)


set_firing = store.save_firing
next_bound = store.next_bound
due_ids = store.due_ids
forget_answers = store.forget_answers


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
            _record(conn, detached, now, "policy_detached", key=key_id, policy=policy_id)
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
