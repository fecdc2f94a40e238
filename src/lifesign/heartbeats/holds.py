"""Why nobody is told of a heartbeat that fires: a snooze, a maintenance window, a dependency that fires as well.

Each puts its word on the open incident and takes it away again; `incidents` does the rest. Everything runs in the
caller's transaction. Spec "Heartbeats", section 6, and "Engine", section 6, "Holds".
"""

from collections.abc import Collection, Iterable, Mapping, Sequence

from sqlalchemy import Connection

from lifesign.clock import EpochMs, rfc3339
from lifesign.db.wakeups import wake_after_commit
from lifesign.heartbeats import rules, store
from lifesign.heartbeats.rules import Heartbeat
from lifesign.heartbeats.subjects import record, subject_of
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Hold, Incident, Resolution, Tuning
from lifesign.incidents.service import Ack
from lifesign.maintenance import service as maintenance
from lifesign.maintenance.rules import Window, next_edge


# Closing ------------------------------------------------------------------------------------------------------------
def close(
    conn: Connection,
    before: Heartbeat,
    after: Heartbeat,
    resolution: Resolution,
    now: EpochMs,
    *,
    ack: Ack | None = None,
) -> tuple[Heartbeat, Incident | None]:
    """Close the open incident of a heartbeat that does not fire any more; the heartbeat, and the incident.

    A snooze that was meant for this incident ends with it, and those that were quiet because of it are looked at.
    """
    if before.incident_id is None:
        return after, None
    closed = incidents.close_incident(
        conn, before.incident_id, subject_of(after), resolution, heartbeat_status=after.status, now=now, ack=ack
    )
    _release_dependents(conn, before.id, now)
    if after.snoozed_until is not None and after.snooze_incident_id == before.incident_id:
        after = rules.unsnoozed(after)
        incidents.clear_timers(conn, [after.id], "snooze_end")
        record(conn, after, now, "snooze_ended")
    return after, closed


# Snooze -------------------------------------------------------------------------------------------------------------
def snooze(
    conn: Connection, before: Heartbeat, until: EpochMs, *, reason: str | None, key_id: str, now: EpochMs
) -> Heartbeat:
    """Tell nobody of a heartbeat until then. Raises StateRefused."""
    after = rules.snoozed(before, until, reason)
    store.save(conn, after)
    record(conn, after, now, "snoozed", key=key_id, until=rfc3339(until), reason=reason, incident=after.incident_id)
    incidents.set_timers(conn, {after.id: (after.project_id, until)}, "snooze_end")
    if after.incident_id is not None:
        incidents.hold(conn, after.incident_id, "snooze")
    wake_after_commit(conn, "escalate")
    return after


def end_snooze(conn: Connection, before: Heartbeat, *, key_id: str | None, now: EpochMs, tuning: Tuning) -> Heartbeat:
    """Tell people again; what waited is told at once. Raises StateRefused."""
    after = rules.unsnoozed(before)
    store.save(conn, after)
    record(conn, after, now, "snooze_ended", key=key_id)
    incidents.clear_timers(conn, [after.id], "snooze_end")
    _end_hold(conn, [after], "snooze", now, tuning)
    return after


def end_snoozes(conn: Connection, ids: Collection[str], now: EpochMs, tuning: Tuning) -> None:
    """The time of these snoozes is over. What somebody else is working on keeps its timer."""
    free = store.lock_free(conn, ids)
    incidents.clear_timers(conn, [*free, *(set(ids) - store.existing(conn, ids))], "snooze_end")
    for heartbeat in free.values():
        if heartbeat.snoozed_until is None:
            continue
        if heartbeat.is_snoozed(now):
            incidents.set_timers(conn, {heartbeat.id: (heartbeat.project_id, heartbeat.snoozed_until)}, "snooze_end")
        else:
            end_snooze(conn, heartbeat, key_id=None, now=now, tuning=tuning)


def _end_hold(conn: Connection, heartbeats: Iterable[Heartbeat], hold: Hold, now: EpochMs, tuning: Tuning) -> None:
    for heartbeat in heartbeats:
        if heartbeat.incident_id is not None:
            incidents.end_hold(conn, heartbeat.incident_id, subject_of(heartbeat), hold, now=now, tuning=tuning)


# Dependencies -------------------------------------------------------------------------------------------------------
def firing_dependencies(conn: Connection, ids: Collection[str], *, besides: Collection[str] = ()) -> dict[str, str]:
    """Of each heartbeat that depends, directly or not, on one that fires: that one.

    besides: heartbeats that fire from now on.
    """
    edges: dict[str, set[str]] = {}
    frontier = set(ids)
    while frontier:
        found = store.dependencies_of(conn, frontier)
        edges |= found
        frontier = set().union(*found.values()) - set(edges) if found else set()
    if not edges:
        return {}
    above = set().union(*edges.values())
    firing = store.firing_among(conn, above) | (above & set(besides))
    causes = ((key, _cause(key, edges, firing)) for key in ids)
    return {key: cause for key, cause in causes if cause is not None}


def _cause(heartbeat_id: str, edges: Mapping[str, set[str]], firing: Collection[str]) -> str | None:
    """The nearest firing heartbeat that this one depends on."""
    seen, level = {heartbeat_id}, {heartbeat_id}
    while level := set().union(*(edges.get(each, set()) for each in level)) - seen:
        if found := sorted(level & set(firing)):
            return found[0]
        seen |= level
    return None


def reaches(conn: Connection, start: Iterable[str], goal: str) -> bool:
    """Whether some of `start` is `goal`, or depends on it."""
    seen: set[str] = set()
    frontier = set(start)
    while frontier:
        if goal in frontier:
            return True
        seen |= frontier
        frontier = set().union(*store.dependencies_of(conn, frontier).values()) - seen
    return False


def without_held_by_dependencies(conn: Connection, due: Sequence[Incident]) -> list[Incident]:
    """Those of the locked incidents whose next step may run: of the others a dependency fires by now."""
    causes = firing_dependencies(conn, {each.heartbeat_id for each in due})
    quiet = [each for each in due if each.heartbeat_id in causes]
    held = [incidents.hold(conn, each.id, "dependency", suppressed_by=causes[each.heartbeat_id]) for each in quiet]
    incidents.set_aside(conn, [each for each in held if each is not None], "escalate")
    return [each for each in due if each.heartbeat_id not in causes]


def _release_dependents(conn: Connection, heartbeat_id: str, now: EpochMs) -> None:
    """A heartbeat fires no more: those that were quiet because of it are looked at."""
    look_again(conn, store.dependents_of(conn, [heartbeat_id]), now)


def look_again(conn: Connection, ids: Collection[str], now: EpochMs) -> None:
    """What these depend on fires no more, or is none of theirs: they, and all that depend on them, are looked at.

    Each after its own grace, if a dependency keeps it quiet.
    """
    seen: set[str] = set()
    frontier = set(ids)
    while frontier:
        seen |= frontier
        frontier = store.dependents_of(conn, frontier) - seen
    held = incidents.held(conn, seen, "dependency") if seen else {}
    waiting = store.by_ids(conn, held)
    due = {held[key]: (each.project_id, EpochMs(now + each.grace_ms)) for key, each in waiting.items()}
    incidents.set_timers(conn, due, "dependency_release")
    if due:
        wake_after_commit(conn, "escalate")


def release(conn: Connection, incident_ids: Collection[str], now: EpochMs, tuning: Tuning) -> None:
    """The dependencies of these incidents' heartbeats are looked at again: where none fires, people are told.

    What somebody else is working on keeps its timer.
    """
    owners = incidents.heartbeats_of(conn, incident_ids)
    locked = store.lock_free(conn, owners.values())
    busy = {key for key, owner in owners.items() if owner not in locked}
    incidents.clear_timers(conn, set(incident_ids) - busy, "dependency_release")
    still = firing_dependencies(conn, list(locked))
    incidents.suppress(conn, {key: still[owner] for key, owner in owners.items() if owner in still})
    _end_hold(conn, [each for key, each in locked.items() if key not in still], "dependency", now, tuning)


# Maintenance --------------------------------------------------------------------------------------------------------
def pass_edges(conn: Connection, window_ids: Sequence[str], now: EpochMs, tuning: Tuning) -> None:
    """These windows open or close now."""
    incidents.clear_timers(conn, window_ids, "maintenance_edge")
    found = maintenance.by_ids(conn, window_ids)
    _set_edges(conn, found, now)
    for project_id in sorted({each.project_id for each in found}):
        _judge_windows(conn, project_id, now, tuning)


class HeartbeatsInWindows:
    """Heartbeats are what maintenance windows are about."""

    def __init__(self, tuning: Tuning) -> None:
        self._tuning = tuning

    def ids_of_refs(self, conn: Connection, project_id: str, refs: Collection[str]) -> dict[str, str]:
        """The heartbeats that these ids or slugs name: ref -> id."""
        return store.ids_of_refs(conn, project_id, refs)

    def judge(self, conn: Connection, project_id: str, windows: Sequence[Window], now: EpochMs) -> None:
        """These windows are new, or changed."""
        incidents.clear_timers(conn, [each.id for each in windows], "maintenance_edge")
        _set_edges(conn, windows, now)
        _judge_windows(conn, project_id, now, self._tuning)

    def forget(self, conn: Connection, project_id: str, window_id: str, now: EpochMs) -> None:
        """A window is gone."""
        incidents.clear_timers(conn, [window_id], "maintenance_edge")
        _judge_windows(conn, project_id, now, self._tuning)


def _set_edges(conn: Connection, concerned: Iterable[Window], now: EpochMs) -> None:
    """Look again when these windows open or close next."""
    due = {each.id: (each.project_id, at) for each in concerned if (at := next_edge(each, now)) is not None}
    incidents.set_timers(conn, due, "maintenance_edge")
    if due:
        wake_after_commit(conn, "escalate")


def _judge_windows(conn: Connection, project_id: str, now: EpochMs, tuning: Tuning) -> None:
    """Hold the open incidents of a project that are in a window by now, and let go of those that are not any more."""
    locked = store.by_ids(conn, incidents.open_of_project(conn, project_id), lock=True)
    judge(conn, list(locked.values()), now, tuning)


def judge(conn: Connection, heartbeats: Sequence[Heartbeat], now: EpochMs, tuning: Tuning) -> None:
    """Hold, or let go, the incidents of locked heartbeats, as the windows say that cover them by now."""
    covered = maintenance.covered_until(conn, heartbeats, now)
    for heartbeat in heartbeats:
        if heartbeat.id in covered and heartbeat.incident_id is not None:
            incidents.hold(conn, heartbeat.incident_id, "maintenance")
    _end_hold(conn, [each for each in heartbeats if each.id not in covered], "maintenance", now, tuning)
