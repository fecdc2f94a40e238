"""Storms: when many heartbeats of a project go silent together, people get one message instead of hundreds.

Incidents of a storm carry its id. While it is open their messages to people are held; each address concerned hears once
that there is a storm, and two minutes later gets one digest of what is still down. Machines get every message as ever.
Everything runs in the caller's transaction. Spec "Engine", section 9.
"""

from collections.abc import Callable, Collection, Iterable, Mapping

from sqlalchemy import Connection

from lifesign.channels import outbox
from lifesign.channels.outbox import Draft
from lifesign.channels.rules import PRIORITY_URGENT
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.ids import new_id
from lifesign.incidents import attention, messages, rules, store
from lifesign.incidents.rules import STORM_HOLD_MS, STORM_WINDOW_MS, Storm, Target, Tuning
from lifesign.projects import service as projects

Armed = Callable[[Connection, str, EpochMs], int]
"""How many heartbeats of a project wait for a check-in."""


def storms_of_batch(
    conn: Connection, missed: Mapping[str, int], now: EpochMs, *, tuning: Tuning, armed: Armed
) -> dict[str, str]:
    """The open storm of each project that has one, opened here where this batch crosses the line: project -> storm.

    missed: deadlines that each project's heartbeats have just missed. The batch that crosses it belongs to the storm.
    """
    if not tuning.storm_min or not missed:
        return {}
    opened = store.open_storms(conn, missed)
    for project_id in sorted(set(missed) - set(opened)):
        count = missed[project_id] + _missed_lately(conn, project_id, now)
        if count <= tuning.storm_min or count <= rules.storm_threshold(tuning, armed(conn, project_id, now)):
            continue
        projects.lock(conn, project_id)  # or two nodes would each open one
        found = store.open_storms(conn, [project_id])
        opened[project_id] = found.get(project_id) or _open(conn, project_id, now)
    store.count_into_storms(conn, {storm.id: missed[project_id] for project_id, storm in opened.items()})
    return {project_id: storm.id for project_id, storm in opened.items()}


def _missed_lately(conn: Connection, project_id: str, now: EpochMs) -> int:
    return store.count_missed_since(conn, project_id, EpochMs(now - STORM_WINDOW_MS))


def _open(conn: Connection, project_id: str, now: EpochMs) -> Storm:
    # The batch is counted into it right after, like every later one.
    release_at = EpochMs(now + STORM_HOLD_MS)
    storm = Storm(new_id("stm", now), project_id, now, release_at, count=0)
    store.insert_storm(conn, storm)
    store.set_timers(conn, {storm.id: (project_id, release_at)}, "storm_release")
    wake_after_commit(conn, "escalate")
    return storm


def announcements(storm: Storm, targets: Iterable[Target], *, project: str, now: EpochMs) -> list[Draft]:
    """One message to each address that the storm's held messages are for; one that was told is not told again."""
    message = messages.storm(storm.count, project=project, now=now)
    return [
        Draft(
            project_id=storm.project_id,
            idem_key=f"{storm.id}:storm:0.0:{target.key}",
            incident_id=None,
            heartbeat_id=None,
            target=target.key,
            channel_id=target.channel_id,
            dest=target.dest,
            message=message,
            priority=PRIORITY_URGENT,
            order_seq=0,
            order_subject=storm.id,
            storm_id=storm.id,
        )
        for target in targets
    ]


def release(conn: Connection, storm_ids: Collection[str], now: EpochMs, *, tuning: Tuning, armed: Armed) -> None:
    """The time of these storms has come: what is held and still down is told, one digest for each address.

    A storm goes on for another two minutes while as many keep going silent.
    """
    locked = store.lock_storms(conn, storm_ids)
    store.clear_timers(conn, storm_ids, "storm_release")
    for storm in locked:
        told = outbox.tell_held(conn, storm.id, now)
        # While they were held nobody waited for a provider to take them.
        attention.await_acceptance(conn, dict.fromkeys(told, (storm.project_id, None)), now)
        lately = _missed_lately(conn, storm.project_id, now)
        goes_on = lately > tuning.storm_min and lately > rules.storm_threshold(
            tuning, armed(conn, storm.project_id, now)
        )
        if goes_on:
            release_at = EpochMs(now + STORM_HOLD_MS)
            store.prolong_storm(conn, storm.id, release_at)
            store.set_timers(conn, {storm.id: (storm.project_id, release_at)}, "storm_release")
        else:
            store.close_storm(conn, storm.id, now)
