"""An incident that reaches nobody is never silent: early fail-over, the fallback channel, reminders.

Three timers of an incident are set here: `failover` looks whether any provider has accepted a message of the latest
step, `remind` whether anybody reacted once the last step had run, and later when to remind the fallback channel again.
Everything runs in the caller's transaction, on locked incidents. Spec "Engine", section 6.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from lifesign.channels import outbox
from lifesign.channels.outbox import Draft
from lifesign.channels.rules import PRIORITY_REMINDER, PRIORITY_URGENT, PageState
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.incidents import messages, rules, store, telling
from lifesign.incidents.rules import FAILOVER_AFTER_MS, Incident, Subject, Tuning, Unattended
from lifesign.projects import service as projects

Pairs = Sequence[tuple[Subject, Incident]]


# Timers -------------------------------------------------------------------------------------------------------------
def await_acceptance(
    conn: Connection,
    waits: Mapping[str, tuple[str, int | None]],
    now: EpochMs,
    *,
    again: Collection[str] = (),
) -> None:
    """A step ran: look after 90 s whether a provider took it, unless the next step runs before that.

    waits: incident id -> (project id, ms until the next step; None: none follows). again: those whose step is a
    repeat, which does not put off a look that is already due: repeats may come faster than looks.
    """
    due = {
        key: (project_id, EpochMs(now + FAILOVER_AFTER_MS))
        for key, (project_id, wait_ms) in waits.items()
        if key in again or wait_ms is None or wait_ms > FAILOVER_AFTER_MS
    }
    store.clear_timers(conn, [key for key in waits if key not in due], "failover")
    store.set_timers(conn, {key: at for key, at in due.items() if key not in again}, "failover")
    store.keep_timers(conn, {key: at for key, at in due.items() if key in again}, "failover")


def await_reaction(conn: Connection, finished: Sequence[Incident], now: EpochMs, tuning: Tuning) -> None:
    """The last step ran and nothing repeats: look after a while whether anybody reacted."""
    due = {each.id: (each.project_id, EpochMs(now + tuning.unattended_after_ms)) for each in finished}
    store.keep_timers(conn, due, "remind")


def await_no_reaction(conn: Connection, running: Sequence[Incident]) -> None:
    """The escalation goes on: whether anybody reacts is asked after its new last step."""
    store.clear_timers(conn, [each.id for each in running if each.unattended is None], "remind")


# Fail-over ----------------------------------------------------------------------------------------------------------
def hasten_failover(conn: Connection, incident_ids: Collection[str], now: EpochMs) -> None:
    """Messages of these incidents died: those whose latest step has nothing but dead ones fail over at once."""
    opened = [each for each in store.lock_free(conn, incident_ids).values() if each.status == "open"]
    alive = {(row.incident_id, row.step, row.loop) for row in _pages(conn, opened) if row.status != "dead"}
    hopeless = [each for each in opened if (each.id, each.steps_run, each.loop) not in alive]
    store.set_timers(conn, {each.id: (each.project_id, now) for each in hopeless}, "failover")
    if hopeless:
        wake_after_commit(conn, "escalate")


def fail_over(conn: Connection, due: Sequence[Incident], subjects: Mapping[str, Subject], now: EpochMs) -> None:
    """Where no provider took a message of the latest step, run the next one now; without a next one, see rule U."""
    store.clear_timers(conn, [each.id for each in due], "failover")
    reached = {(row.incident_id, row.step, row.loop) for row in _pages(conn, due) if row.status in _REACHED}
    plans = store.plans(conn, {each.policy_id for each in due if each.policy_id})
    escalations = store.timers_of(conn, [each.id for each in due])
    sooner: dict[str, tuple[str, EpochMs]] = {}
    happened: list[Event] = []
    unreached: list[tuple[Subject, Incident]] = []
    for incident in due:
        # A repeat was told less than 90 s ago: the one before it counts as well.
        if {(incident.id, incident.steps_run, incident.loop - n) for n in (0, 1)} & reached:
            continue
        plan = plans.get(incident.policy_id or "")
        if plan is None or incident.steps_run >= len(plan.steps):
            if incident.heartbeat_id in subjects:
                unreached.append((subjects[incident.heartbeat_id], incident))
        elif escalations.get(incident.id, now) > now + rules.WORTH_HASTENING_MS:
            sooner[incident.id] = (incident.project_id, now)
            metadata = {"incident": incident.id, "step": incident.steps_run + 1, "reason": "undelivered"}
            happened.append(Event(incident.project_id, incident.heartbeat_id, "failover", metadata))
    store.set_timers(conn, sooner)
    events.record(conn, happened, now)
    mark_unattended(conn, unreached, "undeliverable", now)
    if sooner:
        wake_after_commit(conn, "escalate")


# Held and folded messages will be told; whoever holds them sees to it.
_REACHED = {"sent", "delivered", "held", "bundled"}


def _pages(conn: Connection, incidents: Sequence[Incident]) -> list[PageState]:
    return outbox.page_states(conn, {each.id for each in incidents})


# Rule U -------------------------------------------------------------------------------------------------------------
def mark_unattended(conn: Connection, pairs: Pairs, reason: Unattended, now: EpochMs) -> None:
    """Nobody is told of these incidents, or nobody reacts: say so in their history, and to the fallback channel.

    An incident that is marked already stays as it is; its steps still to come run all the same.
    """
    fresh = [(subject, incident) for subject, incident in pairs if incident.unattended is None]
    if not fresh:
        return
    store.save_incidents(conn, {incident.id: {"unattended": reason} for _, incident in fresh})
    events.record(
        conn,
        [
            Event(each.project_id, each.heartbeat_id, "unattended", {"incident": each.id, "reason": reason})
            for _, each in fresh
        ],
        now,
    )
    _tell_fallback(conn, [(subject, incident, reason) for subject, incident in fresh], now)


def remind(conn: Connection, due: Sequence[Incident], subjects: Mapping[str, Subject], now: EpochMs) -> None:
    """Nobody reacted since the last step, or since the fallback channel was last told."""
    store.clear_timers(conn, [each.id for each in due], "remind")
    known = [(subjects[each.heartbeat_id], each) for each in due if each.heartbeat_id in subjects]
    mark_unattended(conn, [pair for pair in known if pair[1].escalation == "done"], "exhausted", now)
    _tell_fallback(conn, [(subject, each, each.unattended) for subject, each in known if each.unattended], now)


def remind_now(conn: Connection, project_id: str, now: EpochMs) -> None:
    """The project has a fallback channel from now on: it hears of what is unattended already."""
    unattended = store.open_unattended(conn, project_id)
    store.set_timers(conn, dict.fromkeys(unattended, (project_id, now)), "remind")
    wake_after_commit(conn, "escalate")


def _tell_fallback(conn: Connection, concerned: Sequence[tuple[Subject, Incident, str]], now: EpochMs) -> None:
    """Tell the fallback channel of each project that has one, and set the timer of the next time."""
    fallbacks = projects.fallback_channels(conn, {incident.project_id for _, incident, _ in concerned})
    directory = telling.directory_of(conn, {project_id: [channel] for project_id, channel in fallbacks.items()})
    addresses = {key: entry.addresses for key, entry in directory.items()}
    current = telling.with_codes(
        conn,
        {incident.id: incident for _, incident, _ in concerned},
        [
            (incident.id, fallbacks[incident.project_id])
            for _, incident, _ in concerned
            if fallbacks.get(incident.project_id) in directory
        ],
        {key: entry.type for key, entry in directory.items()},
    )
    names = projects.names(conn, set(fallbacks))
    told = outbox.times_told(conn, {incident.id for _, incident, _ in concerned})
    drafts: list[Draft] = []
    next_look: dict[str, tuple[str, EpochMs]] = {}
    sequences: dict[str, dict[str, Any]] = {}
    for subject, incident, reason in concerned:
        channel_id = fallbacks.get(incident.project_id)
        if channel_id is None:
            continue
        count = told.get(incident.id, 0)
        message = messages.unattended(
            subject,
            current[incident.id],
            reason,
            kind="reminder" if count else "fallback",
            project=names.get(incident.project_id, ""),
            now=now,
        )
        found = [
            telling.draft(
                incident,
                target,
                message,
                PRIORITY_REMINDER if count else PRIORITY_URGENT,
                incident.next_seq + n,
                number=count or None,
            )
            for n, target in enumerate(rules.resolve_targets([channel_id], addresses))
        ]
        drafts += found
        sequences[incident.id] = {"next_seq": incident.next_seq + len(found)}
        next_look[incident.id] = (incident.project_id, EpochMs(now + rules.reminder_delay_ms(count)))
    outbox.enqueue(conn, drafts, now)
    store.save_incidents(conn, sequences)
    store.set_timers(conn, next_look, "remind")
