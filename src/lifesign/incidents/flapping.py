"""Flapping: a heartbeat that fires and recovers again and again is told of once, and again when it is calm.

Its incidents open under a hold: they are recorded like any other and tell nobody. Everything runs in the caller's
transaction, with the heartbeat locked. Spec "Engine", section 10.
"""

from collections.abc import Collection, Mapping, Sequence

from sqlalchemy import Connection

from lifesign.channels import outbox
from lifesign.channels.message import Message
from lifesign.channels.outbox import Draft
from lifesign.channels.rules import PRIORITY_LATER, PRIORITY_RESOLVE
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.incidents import messages, rules, service, store, telling
from lifesign.incidents.rules import Subject, Target, Tuning
from lifesign.projects import service as projects


def begin(conn: Connection, spells: Sequence[tuple[Subject, str]], now: EpochMs, *, quiet: Collection[str]) -> None:
    """These heartbeats flap from now on: tell their own channels and those of step 1.

    spells: each heartbeat with the incident that opened the spell. quiet: incidents of which nobody is to be told.
    """
    if not spells:
        return
    plans = store.plans(conn, {subject.policy_id for subject, _ in spells if subject.policy_id})
    wanted: dict[str, list[str]] = {}
    for subject, incident_id in spells:
        plan = plans.get(subject.policy_id or "")
        first = plan.steps[0].channels if plan is not None else ()
        wanted[incident_id] = list(dict.fromkeys([*subject.own_channels, *first]))
    by_project: dict[str, set[str]] = {}
    for subject, incident_id in spells:
        by_project.setdefault(subject.project_id, set()).update(wanted[incident_id])
    directory = {key: entry.addresses for key, entry in telling.directory_of(conn, by_project).items()}
    names = projects.names(conn, set(by_project))
    drafts = [
        _draft(
            subject,
            incident_id,
            target,
            messages.flapping(subject, incident_id, names.get(subject.project_id, ""), now),
        )
        for subject, incident_id in spells
        if incident_id not in quiet
        for target in rules.resolve_targets(wanted[incident_id], directory)
    ]
    outbox.enqueue(conn, drafts, now)
    happened = [
        Event(subject.project_id, subject.id, "flapping", {"incident": incident_id}) for subject, incident_id in spells
    ]
    events.record(conn, happened, now)


def _draft(subject: Subject, incident_id: str, target: Target, message: Message) -> Draft:
    is_end = message.kind == "resolve"
    return Draft(
        project_id=subject.project_id,
        idem_key=f"{incident_id}:{message.kind}:0.0:{target.key}" + (":flap" if is_end else ""),
        incident_id=incident_id,
        heartbeat_id=subject.id,
        target=target.key,
        channel_id=target.channel_id,
        dest=target.dest,
        message=message,
        priority=PRIORITY_RESOLVE if is_end else PRIORITY_LATER,
        order_seq=1 if is_end else 0,
        # A spell outlives the incident that opened it.
        order_subject=f"{subject.id}:{incident_id}",
    )


def settle_at(conn: Connection, due: Mapping[str, tuple[str, EpochMs]]) -> None:
    """Look at flapping heartbeats at these moments: id -> (project id, moment)."""
    store.set_timers(conn, due, "flap_settle")
    if due:
        wake_after_commit(conn, "escalate")


def end(
    conn: Connection,
    subject: Subject,
    spell: str,
    *,
    status: str,
    incident_id: str | None,
    now: EpochMs,
    tuning: Tuning,
) -> None:
    """The heartbeat is calm: whoever heard that it flaps hears that, and what its open incident held back is told.

    spell: the incident that opened it. status: the heartbeat's, as the message says.
    """
    told = outbox.withdraw_flap(conn, spell, now)
    name = projects.names(conn, {subject.project_id}).get(subject.project_id, "")
    message = messages.flapping_ended(subject, spell, status, name, now)
    outbox.enqueue(
        conn,
        [_draft(subject, spell, Target("channel", each.target, each.channel_id, each.dest), message) for each in told],
        now,
    )
    events.record(conn, [Event(subject.project_id, subject.id, "flapping_ended", {"status": status})], now)
    if incident_id is not None:
        service.end_hold(conn, incident_id, subject, "flap", now=now, tuning=tuning)


clear_timers = store.clear_timers
