"""Incidents: opened, escalated, closed; and the policies that say how.

Everything here runs in the caller's transaction: an incident, its timer, its messages and its events exist together or
not at all.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from lifesign.channels import outbox
from lifesign.channels import service as channels
from lifesign.channels.outbox import Draft
from lifesign.channels.rules import PRIORITY_RESOLVE, page_priority
from lifesign.channels.service import DirectoryEntry
from lifesign.clock import EpochMs, rfc3339
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.ids import new_id
from lifesign.incidents import attention, messages, rules, store, storms, telling
from lifesign.incidents.rules import (
    A_STEP_WAITS,
    EVERYTHING_WAITS,
    Hold,
    Incident,
    IncidentNotFound,
    Plan,
    Reason,
    Resolution,
    Subject,
    Target,
    TimerKind,
    Tuning,
)
from lifesign.incidents.telling import draft
from lifesign.projects import service as projects
from lifesign.settings import Settings

MAX_USERS_SHOWN = 100
_NO_PLAN = Plan((), repeat_last_step=False)


def tuning_of(settings: Settings) -> Tuning:
    """What the operator tuned."""
    return Tuning(
        settings.min_repeat_seconds * 1000,
        settings.unattended_after_seconds * 1000,
        settings.storm_min,
        settings.flap_limit,
        settings.public_url,
    )


@dataclass(frozen=True, slots=True)
class Firing:
    """A heartbeat that fires now. `deadline_at`: when it was to fire; `expected_at`: when the check-in was expected."""

    subject: Subject
    reason: Reason
    deadline_at: EpochMs | None = None
    expected_at: EpochMs | None = None
    cause: Mapping[str, Any] | None = None
    """Further metadata of the event `firing` (`key` of the acting key)."""
    blind: tuple[EpochMs, EpochMs] | None = None
    """The span in which Lifesign itself was down, when check-ins were waited for because of it."""
    storm_id: str | None = None
    run_id: str | None = None
    """The run that was silent, or busy, for too long."""
    holds: tuple[Hold, ...] = ()
    """Why nobody is told for now."""
    suppressed_by: str | None = None
    """The firing heartbeat that this one depends on."""


# Opening ------------------------------------------------------------------------------------------------------------
def open_incidents(conn: Connection, firings: Sequence[Firing], now: EpochMs, tuning: Tuning) -> dict[str, str]:
    """Open one incident for each firing heartbeat; incident ids by heartbeat id.

    The caller has set the heartbeats to firing in the same transaction, which keeps this from happening twice.
    """
    if not firings:
        return {}
    opened: list[tuple[Firing, Incident]] = []
    plans = store.plans(conn, {each.subject.policy_id for each in firings if each.subject.policy_id})
    for firing in firings:
        subject = firing.subject
        is_running = subject.policy_id is not None and subject.policy_id in plans
        incident = Incident(
            id=new_id("inc", now),
            project_id=subject.project_id,
            heartbeat_id=subject.id,
            policy_id=subject.policy_id if is_running else None,
            reason=firing.reason,
            status="open",
            escalation="held" if firing.holds else "running" if is_running else "done",
            deadline_at=firing.deadline_at,
            expected_at=firing.expected_at,
            opened_at=now,
            resolved_at=None,
            resolved_by=None,
            ack_message=None,
            ack_actor=None,
            steps_run=0,
            loop=0,
            last_step_at=None,
            unattended=None,
            next_seq=0,
            blind_from=firing.blind and firing.blind[0],
            blind_to=firing.blind and firing.blind[1],
            holds=" ".join(sorted(firing.holds)) or None,
            step_waiting=EVERYTHING_WAITS if firing.holds else 0,
            storm_id=firing.storm_id,
            run_id=firing.run_id,
            suppressed_by=firing.suppressed_by,
        )
        opened.append((firing, incident))
    store.insert_incidents(conn, [incident for _, incident in opened])
    events.record(conn, [_opening_event(firing, incident) for firing, incident in opened], now)
    started = [(firing.subject, incident) for firing, incident in opened if incident.holds is None]
    waits = {key: plan.steps[0].wait_ms for key, plan in plans.items()}
    _start(conn, started, plans, waits, now=now, tuning=tuning)
    return {incident.heartbeat_id: incident.id for _, incident in opened}


def _start(
    conn: Connection,
    started: Sequence[tuple[Subject, Incident]],
    plans: Mapping[str, Plan],
    waits: Mapping[str, int],
    *,
    now: EpochMs,
    tuning: Tuning,
) -> None:
    """Tell the heartbeats' own channels and wait for step 1; of those that have neither, see rule U.

    waits: how long until step 1, by policy.
    """
    store.set_timers(
        conn,
        {
            incident.id: (incident.project_id, EpochMs(now + waits[incident.policy_id]))
            for _, incident in started
            if incident.policy_id is not None
        },
    )
    wake_after_commit(conn, "escalate")
    alone = [(subject, incident) for subject, incident in started if incident.policy_id is None]
    attention.mark_unattended(conn, [pair for pair in alone if not pair[0].own_channels], "no_policy", now)
    attention.await_reaction(conn, [incident for subject, incident in alone if subject.own_channels], now, tuning)
    own = [
        _Run(subject, incident, _plan_of(incident, plans), 0, 0)
        for subject, incident in started
        if subject.own_channels
    ]
    _tell(conn, own, now, tuning)
    attention.await_acceptance(
        conn,
        {run.incident.id: (run.incident.project_id, waits.get(run.incident.policy_id or "")) for run in own},
        now,
    )


def _opening_event(firing: Firing, incident: Incident) -> Event:
    metadata = dict(firing.cause or {}) | {
        "incident": incident.id,
        "reason": incident.reason,
        "runId": incident.run_id,
        "suppressedBy": incident.suppressed_by,
    }
    if incident.expected_at is not None:
        metadata["deadline"] = rfc3339(incident.expected_at)
    return Event(incident.project_id, incident.heartbeat_id, "firing", metadata)


# Holds --------------------------------------------------------------------------------------------------------------
def hold(conn: Connection, incident_id: str, word: Hold, *, suppressed_by: str | None = None) -> Incident | None:
    """From now on there is a reason to tell nobody of this incident: what waits to leave waits on.

    The incident as it is then; None when it is over.
    """
    incident = store.lock_open(conn, incident_id)
    if incident is None or incident.is_held_by(word):
        return incident
    after = replace(
        incident,
        holds=rules.with_hold(incident.holds, word),
        escalation="held",
        suppressed_by=suppressed_by or incident.suppressed_by,
    )
    store.save_incidents(
        conn, {after.id: {name: getattr(after, name) for name in ("holds", "escalation", "suppressed_by")}}
    )
    outbox.hold_pages(conn, after.id)
    return after


def suppress(conn: Connection, causes: Mapping[str, str]) -> None:
    """Of these incidents that a dependency keeps quiet, the one that fires by now: incident id -> heartbeat id."""
    for incident_id, cause in causes.items():
        incident = store.lock_open(conn, incident_id)
        if incident is not None and incident.is_held_by("dependency"):
            store.save_incidents(conn, {incident_id: {"suppressed_by": cause}})


def set_aside(conn: Connection, due: Sequence[Incident], kind: TimerKind) -> list[Incident]:
    """Those of the locked incidents that are under no hold; of the others the timer goes, and what waits is noted."""
    held = [each for each in due if each.holds is not None]
    store.clear_timers(conn, [each.id for each in held], kind)
    if kind == "escalate":
        waiting = {each.id: {"step_waiting": max(each.step_waiting, A_STEP_WAITS)} for each in held}
        store.save_incidents(conn, waiting)
    return [each for each in due if each.holds is None]


def end_hold(conn: Connection, incident_id: str, subject: Subject, word: Hold, *, now: EpochMs, tuning: Tuning) -> None:
    """A reason to tell nobody is gone; was it the last, then what waits happens at once, and the rest goes on."""
    incident = store.lock_open(conn, incident_id)
    if incident is None or not incident.is_held_by(word):
        return
    left = rules.without_hold(incident.holds, word)
    plans = store.plans(conn, [incident.policy_id]) if incident.policy_id else {}
    plan = _plan_of(incident, plans)
    since = incident.opened_at if incident.last_step_at is None else incident.last_step_at
    due = rules.due_after(plan, steps_run=incident.steps_run, since=since, min_repeat_ms=tuning.min_repeat_ms)
    changes: dict[str, Any] = {"holds": left, "escalation": "held" if left else "running" if due else "done"}
    if word == "dependency":
        changes["suppressed_by"] = None
    if left is None:
        changes["step_waiting"] = 0
    store.save_incidents(conn, {incident_id: changes})
    if left is not None:
        return
    released = replace(incident, holds=None, step_waiting=0, escalation=changes["escalation"])
    if incident.step_waiting == EVERYTHING_WAITS:
        # A heartbeat that flapped has been down for long enough: its first step does not wait.
        waits = {key: 0 if word == "flap" or due is None else max(0, due - now) for key in plans}
        _start(conn, [(subject, released)], plans, waits, now=now, tuning=tuning)
    else:
        # What waited may be gone by now: a policy can lose a step, or the incident its policy.
        next_at = now if due is not None and incident.step_waiting else due
        _go_on(conn, subject, released, next_at, now=now, tuning=tuning)


def _go_on(
    conn: Connection, subject: Subject, incident: Incident, due: EpochMs | None, *, now: EpochMs, tuning: Tuning
) -> None:
    """An escalation that was held half-way: its messages leave, its timers run again. due: when its next step is."""
    holding = store.still_open(conn, [incident.storm_id] if incident.storm_id else [])
    outbox.release_pages(conn, incident.id, now, except_of=next(iter(holding), None))
    store.clear_timers(conn, [incident.id])
    if due is not None:
        store.set_timers(conn, {incident.id: (incident.project_id, max(now, due))})
    if incident.unattended is not None:
        # Its reminders waited as well, whether or not steps go on beside them.
        store.keep_timers(conn, {incident.id: (incident.project_id, now)}, "remind")
    elif due is None and incident.policy_id is None and not subject.own_channels:
        attention.mark_unattended(conn, [(subject, incident)], "no_policy", now)
    elif due is None:
        attention.await_reaction(conn, [incident], now, tuning)
    if incident.steps_run or subject.own_channels:
        wait_ms = None if due is None else max(0, due - now)
        attention.await_acceptance(conn, {incident.id: (incident.project_id, wait_ms)}, now)
    wake_after_commit(conn, "escalate")


# Escalating ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class _Run:
    """One step of one incident, about to tell its channels."""

    subject: Subject
    incident: Incident
    plan: Plan
    step: int
    repeat: int

    @property
    def channels(self) -> tuple[str, ...]:
        return self.plan.steps[self.step - 1].channels if self.step else self.subject.own_channels


def lock_due(
    conn: Connection,
    now: EpochMs,
    limit: int,
    *,
    kind: TimerKind = "escalate",
    without: Collection[str] = (),
    only: str | None = None,
) -> tuple[list[Incident], int]:
    """Incidents with a timer of this kind that is due, locked, and how many timers were looked at."""
    ids = store.due_timers(conn, now, limit, kind=kind, without=without, only=only, lock=True)
    found = store.lock_free(conn, ids)
    # A timer without an open incident behind it has nothing left to do.
    store.clear_timers(conn, set(ids) - store.existing(conn, ids), kind)
    return [found[key] for key in ids if key in found and found[key].status == "open"], len(ids)


def run_due(
    conn: Connection, due: Sequence[Incident], subjects: Mapping[str, Subject], *, now: EpochMs, tuning: Tuning
) -> None:
    """Run the step that is due of each locked incident, and set the timer of what follows it."""
    plans = store.plans(conn, {incident.policy_id for incident in due if incident.policy_id})
    runs: list[_Run] = []
    finished: list[Event] = []
    timers: dict[str, tuple[str, EpochMs]] = {}
    changes: dict[str, dict[str, Any]] = {}
    for incident in due:
        plan = _plan_of(incident, plans)
        move = rules.next_move(
            plan, steps_run=incident.steps_run, loop=incident.loop, now=now, min_repeat_ms=tuning.min_repeat_ms
        )
        if move is None or incident.heartbeat_id not in subjects:
            changes[incident.id] = _progress(incident, escalation="done")
            continue
        runs.append(_Run(subjects[incident.heartbeat_id], incident, plan, move.step, move.loop))
        changes[incident.id] = {
            "steps_run": max(incident.steps_run, move.step),
            # Never back to 0: a policy that loses and regains steps would meet its own old idempotency keys.
            "loop": max(incident.loop, move.loop),
            "last_step_at": now,
            "escalation": "done" if move.then_at is None else "running",
        }
        if move.then_at is not None:
            timers[incident.id] = (incident.project_id, move.then_at)
        else:
            metadata = {"incident": incident.id, "steps": len(plan.steps)}
            finished.append(Event(incident.project_id, incident.heartbeat_id, "escalation_finished", metadata))
    store.clear_timers(conn, [incident.id for incident in due if incident.id not in timers])
    store.set_timers(conn, timers)
    store.save_incidents(conn, changes)
    _tell(conn, runs, now, tuning)
    events.record(conn, finished, now)
    attention.await_reaction(conn, [each for each in due if changes[each.id]["escalation"] == "done"], now, tuning)
    # A repeat tells the same channels again: only another step is worth waiting for.
    waits = {
        run.incident.id: (
            run.incident.project_id,
            timers[run.incident.id][1] - now if run.step < len(run.plan.steps) else None,
        )
        for run in runs
    }
    attention.await_acceptance(conn, waits, now, again={run.incident.id for run in runs if run.repeat})


def _progress(incident: Incident, *, escalation: str) -> dict[str, Any]:
    return {
        "steps_run": incident.steps_run,
        "loop": incident.loop,
        "last_step_at": incident.last_step_at,
        "escalation": escalation,
    }


def _plan_of(incident: Incident, plans: Mapping[str, Plan]) -> Plan:
    return plans.get(incident.policy_id or "", _NO_PLAN)


def _tell(conn: Connection, runs: Sequence[_Run], now: EpochMs, tuning: Tuning) -> None:
    """Put the messages of steps into the outbox, with their events. The incidents' rows are locked or new."""
    if not runs:
        return
    directory = _directory(conn, runs)
    targets = _targets(runs, directory)
    told = [(run.incident.id, target.channel_id) for run in runs for target in targets[run.incident.id]]
    types = {key: entry.type for key, entry in directory.items()}
    current = telling.with_codes(conn, {run.incident.id: run.incident for run in runs}, told, types)
    nobody = [(run.subject, run.incident) for run in runs if not targets[run.incident.id]]
    paged = outbox.paged_targets(conn, {run.incident.id for run in runs})
    names = projects.names(conn, {run.subject.project_id for run in runs})
    drafts: list[Draft] = []
    happened: list[Event] = []
    sequences: dict[str, dict[str, Any]] = {}
    holding = store.still_open(conn, {each.storm_id for each in current.values() if each.storm_id is not None})
    held_for: dict[str, dict[str, Target]] = {}
    for run in runs:
        incident = current[run.incident.id]
        storm = holding.get(incident.storm_id or "")
        project = names.get(run.subject.project_id, "")
        for position, target in enumerate(targets[incident.id]):
            message = messages.page(
                run.subject,
                incident,
                run.plan,
                step=run.step,
                repeat=run.repeat,
                project=project,
                is_first=(incident.id, target.key) not in paged,
                public_url=tuning.public_url,
                now=now,
            )
            made = draft(incident, target, message, page_priority(run.step), incident.next_seq + position)
            if storm is not None and not directory[target.channel_id].is_machine:
                made = replace(made, storm_id=storm.id, is_held=True)
                held_for.setdefault(storm.id, {})[target.key] = target
            drafts.append(made)
        metadata = {"incident": incident.id, "step": run.step, "repeat": run.repeat, "channels": list(run.channels)}
        happened.append(Event(incident.project_id, incident.heartbeat_id, "step_notified", metadata))
        sequences[incident.id] = {"next_seq": incident.next_seq + len(targets[incident.id])}
    for storm_id, held in held_for.items():
        storm = holding[storm_id]
        drafts += storms.announcements(storm, held.values(), project=names.get(storm.project_id, ""), now=now)
    outbox.enqueue(conn, drafts, now)
    store.save_incidents(conn, sequences)
    events.record(conn, happened, now)
    attention.mark_unattended(conn, nobody, "no_channel", now)


def _directory(conn: Connection, runs: Sequence[_Run]) -> dict[str, DirectoryEntry]:
    wanted: dict[str, set[str]] = {}
    for run in runs:
        wanted.setdefault(run.subject.project_id, set()).update(run.channels)
    return telling.directory_of(conn, wanted)


def _targets(runs: Sequence[_Run], directory: Mapping[str, DirectoryEntry]) -> dict[str, list[Target]]:
    addresses = {key: entry.addresses for key, entry in directory.items()}
    return {run.incident.id: rules.resolve_targets(run.channels, addresses) for run in runs}


def follow_clock(conn: Connection, by_ms: int, now: EpochMs) -> None:
    """The clock was set back by so much: what is so long to wait stays so long, and ends by the new time.

    Snoozes and windows end when their owner said; whether a heartbeat is calm, its own rule says.
    """
    store.set_timers_back(conn, ("escalate", "failover", "remind", "storm_release", "dependency_release"), by_ms, now)


due_kinds = store.due_kinds
next_timer = store.next_timer
due_timers = store.due_timers
set_timers = store.set_timers
clear_timers = store.clear_timers
held = store.held
heartbeats_of = store.heartbeats_of
open_of_project = store.open_of_project


# Closing ------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Ack:
    """Who acknowledged an incident, and what they said."""

    actor: str
    message: str | None = None


def close_incident(
    conn: Connection,
    incident_id: str,
    subject: Subject,
    resolution: Resolution,
    *,
    heartbeat_status: str,
    now: EpochMs,
    ack: Ack | None = None,
) -> Incident | None:
    """Close an open incident: nothing more leaves, those who were told hear of the end. None: it was closed already.

    heartbeat_status: what the heartbeat is afterwards, as the closing messages say. now: for a check-in its stamp.
    """
    found = store.lock_open(conn, incident_id)
    if found is None:
        return None
    if (
        resolution == "checkin"
        and found.reason == "missed"
        and found.deadline_at is not None
        and now < found.deadline_at
    ):
        # The check-in was in time: the sweep only committed first.
        resolution = "late_checkin"
    closed = replace(
        found,
        status="resolved",
        escalation="done",
        # A check-in that was in time is older than the incident that the quicker sweep opened.
        resolved_at=max(now, found.opened_at),
        resolved_by=resolution,
        ack_actor=None if ack is None else ack.actor,
        ack_message=None if ack is None else ack.message,
    )
    store.clear_timers(conn, [incident_id], None)
    outbox.withdraw_pages(conn, incident_id, now)
    told = outbox.told_of(conn, incident_id)
    entries = channels.directory(conn, subject.project_id, {each.channel_id for each in told})
    # People hear of a recovery only; machines must know that an acknowledged or paused incident is over, too.
    hears = [
        each
        for each in told
        if each.channel_id in entries
        and (messages.shown_resolution(resolution) == "checkin" or entries[each.channel_id].is_machine)
    ]
    project = projects.names(conn, {subject.project_id}).get(subject.project_id, "")
    message = messages.closing(subject, closed, heartbeat_status=heartbeat_status, project=project)
    drafts = [
        draft(
            closed,
            Target("channel", each.target, each.channel_id, each.dest),
            message,
            PRIORITY_RESOLVE,
            closed.next_seq + position,
        )
        for position, each in enumerate(hears)
    ]
    outbox.enqueue(conn, drafts, now)
    columns = ("status", "escalation", "resolved_at", "resolved_by", "ack_actor", "ack_message")
    store.save_incidents(
        conn,
        {incident_id: {name: getattr(closed, name) for name in columns} | {"next_seq": closed.next_seq + len(drafts)}},
    )
    return closed


# Repairing ----------------------------------------------------------------------------------------------------------
def look_again(conn: Connection, incidents: Mapping[str, tuple[str, str]], now: EpochMs) -> None:
    """Set the timer that incidents should have, due now: id -> (project id, escalation)."""
    for escalation, kind in _TIMER_OF.items():
        due = {key: (project_id, now) for key, (project_id, state) in incidents.items() if state == escalation}
        store.keep_timers(conn, due, kind)
    wake_after_commit(conn, "escalate")


_TIMER_OF: dict[str, TimerKind] = {"running": "escalate", "done": "remind"}


def abandon(conn: Connection, incident_ids: Sequence[str], now: EpochMs) -> None:
    """Close incidents whose heartbeat is gone: nobody is told, as nobody could say of what."""
    closed = {"status": "resolved", "escalation": "done", "resolved_at": now, "resolved_by": "delete"}
    store.save_incidents(conn, dict.fromkeys(incident_ids, closed))
    store.clear_timers(conn, incident_ids, None)
    for incident_id in incident_ids:
        outbox.withdraw_pages(conn, incident_id, now)


# Reading ------------------------------------------------------------------------------------------------------------
def get_incident(conn: Connection, project_id: str, incident_id: str) -> Incident:
    """One incident. Raises IncidentNotFound."""
    found = store.incident_by_id(conn, project_id, incident_id)
    if found is None:
        raise IncidentNotFound
    return found


def cause_of(conn: Connection, incident_id: str | None) -> str | None:
    """The run that opened this incident; None when none did."""
    found = None if incident_id is None else store.find(conn, incident_id)
    return None if found is None else found.run_id


list_incidents = store.incidents_of
of_heartbeats = store.of_heartbeats
spans_of = store.spans_of
next_steps = store.timers_of
find = store.find
find_by_code = store.find_by_code
count_open = store.count_open
unattended_of = store.open_unattended
