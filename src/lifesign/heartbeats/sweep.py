"""Time passes for heartbeats: what was not heard fires, what flapped calms down.

Everything here runs in the caller's transaction and goes through `rules` for its decisions.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from lifesign.clock import EpochMs, rfc3339
from lifesign.events import service as events
from lifesign.events.rules import Event, EventType
from lifesign.heartbeats import holds, rules, store
from lifesign.heartbeats.rules import Blindness, Heartbeat, Silence, SilenceOutcome
from lifesign.heartbeats.subjects import subject_of
from lifesign.incidents import flapping, storms
from lifesign.incidents import service as incidents
from lifesign.incidents.rules import Hold, Tuning
from lifesign.incidents.service import Firing
from lifesign.incidents.storms import Armed
from lifesign.maintenance import service as maintenance
from lifesign.runs import service as runs


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
    silent = [each for each in due if _is_silent(each, now)]
    concerned = {each.id for each in silent}
    store.set_bounds(conn, {each.id: _bound(each) for each in due if each.id not in concerned})
    outcomes = _judged(conn, silent, now)
    before = {each.id: each for each in silent}
    causes = {key: outcome.fires for key, outcome in outcomes.items() if outcome.fires is not None}
    store.save_waits(conn, [outcome.heartbeat for key, outcome in outcomes.items() if key not in causes])
    missed = Counter(before[key].project_id for key, cause in causes.items() if cause.reason == "missed")
    found = storms.storms_of_batch(conn, missed, now, tuning=tuning, armed=armed)
    firings = [
        (
            outcomes[key].heartbeat,
            Firing(
                subject_of(before[key]),
                cause.reason,
                before[key].fires_at,
                cause.deadline,
                blind=_blind_time(before[key], blind),
                storm_id=found.get(before[key].project_id) if cause.reason == "missed" else None,
                run_id=cause.run_id,
            ),
        )
        for key, cause in causes.items()
    ]
    store.save_fired(conn, fire(conn, firings, now, tuning).values())
    return Swept(len(due), tuple(now - (before[key].fires_at or now) for key in causes))


def _is_silent(heartbeat: Heartbeat, now: EpochMs) -> bool:
    """Whether something was not heard in time; of one that fires already, from its runs."""
    bound = _bound(heartbeat)
    return bound is not None and bound <= now


def _bound(heartbeat: Heartbeat) -> EpochMs | None:
    return heartbeat.run_due_at if heartbeat.status == "firing" else heartbeat.fires_at


def _judged(conn: Connection, silent: Sequence[Heartbeat], now: EpochMs) -> dict[str, SilenceOutcome]:
    """What silence does to each heartbeat, by id; what it does not make fire is in their history."""
    if not silent:
        return {}
    watching = [each.id for each in silent if each.run_due_at is not None]
    passed = runs.pass_due(conn, watching, now) if watching else {}
    # At the moment that passed: it is looked at a little later, and long after it where nobody looked for a while.
    covered = maintenance.covered_at(conn, [(each, _bound(each) or now) for each in silent])
    outcomes: dict[str, SilenceOutcome] = {}
    for each in silent:
        late, run_due_at = passed.get(each.id, ([], None))
        heard = [Silence("run_overdue" if run.status == "overdue" else "run_stalled", run.run_id) for run in late]
        outcomes[each.id] = rules.after_silence(
            replace(each, run_due_at=run_due_at), heard, now, covered_until=covered.get(each.id)
        )
    told = [_event_of(each, silence) for each in silent for silence in outcomes[each.id].heard]
    events.record(conn, told, now)
    return outcomes


def _event_of(heartbeat: Heartbeat, silence: Silence) -> Event:
    kind: EventType = silence.reason
    metadata: dict[str, Any] = {  # Any: JSON
        "runId": silence.run_id,
        "deadline": None if silence.deadline is None else rfc3339(silence.deadline),
        "tolerated": silence.tolerated or None,
        "suppressed": "maintenance" if silence.suppressed else None,
    }
    return Event(heartbeat.project_id, heartbeat.id, kind, metadata)


def fire(
    conn: Connection, firings: Sequence[tuple[Heartbeat, Firing]], now: EpochMs, tuning: Tuning
) -> dict[str, Heartbeat]:
    """Open an incident for each heartbeat; the heartbeats afterwards, by id, which the caller saves.

    It opens under a hold when the heartbeat fires again and again, is snoozed, depends on another that fires, or is in
    a maintenance window by now, which had not opened yet when it fell silent.
    """
    if not firings:
        return {}
    after = {each.id: rules.fired(each, now, tuning.flap_limit) for each, _ in firings}
    causes = holds.firing_dependencies(conn, list(after), besides=after)
    covered = maintenance.covered_until(conn, after.values(), now)
    held = {key: _holds(each, now, is_quiet=key in causes, is_covered=key in covered) for key, each in after.items()}
    opened = incidents.open_incidents(
        conn,
        [replace(firing, holds=held[each.id], suppressed_by=causes.get(each.id)) for each, firing in firings],
        now,
        tuning,
    )
    after = {key: replace(each, incident_id=opened[key]) for key, each in after.items()}
    begun = {each.id for each, _ in firings if after[each.id].is_flapping and not each.is_flapping}
    after |= {key: replace(after[key], flap_incident_id=opened[key]) for key in begun}
    spells = [(firing.subject, opened[each.id]) for each, firing in firings if each.id in begun]
    flapping.begin(conn, spells, now, quiet={opened[key] for key, words in held.items() if len(words) > 1})
    flapping.settle_at(
        conn, {each.id: (each.project_id, rules.calm_at(each)) for each in after.values() if each.is_flapping}
    )
    return after


def _holds(heartbeat: Heartbeat, now: EpochMs, *, is_quiet: bool, is_covered: bool) -> tuple[Hold, ...]:
    words: tuple[tuple[Hold, bool], ...] = (
        ("flap", heartbeat.is_flapping),
        ("snooze", heartbeat.is_snoozed(now)),
        ("dependency", is_quiet),
        ("maintenance", is_covered),
    )
    return tuple(word for word, is_so in words if is_so)


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
    until = {each.id: at for each in due if (at := rules.held_until(each, blind)) is not None}
    if not until:
        return due
    runs.extend(conn, {each.id: until[each.id] for each in due if each.id in until and each.run_due_at is not None})
    after = [rules.held(each, until[each.id]) if each.id in until else each for each in due]
    store.save_holds(conn, [each for each in after if each.id in until])
    span = {"from": rfc3339(blind.from_at), "to": rfc3339(blind.to_at)}
    told = [
        Event(each.project_id, each.id, "blind", span | {"heldUntil": rfc3339(until[each.id])})
        for each in due
        if each.id in until
    ]
    events.record(conn, told, now)
    return after


def release(conn: Connection, wrong: Blindness, now: EpochMs, limit: int) -> int:
    """Let heartbeats fire in time that wait for the end of a span which a clock that was ahead saw; how many.

    They are given time to check in from now on, as nobody knows how much of that span there was.
    """
    held = store.lock_held(conn, wrong, limit)
    hold = wrong._replace(to_at=now)
    store.save_holds(conn, [rules.released(each, hold) for each in held])
    return len(held)


def _blind_time(heartbeat: Heartbeat, blind: Blindness | None) -> tuple[EpochMs, EpochMs] | None:
    """The span because of which the heartbeat was waited for."""
    return (blind.from_at, blind.to_at) if blind is not None and rules.was_held(heartbeat, blind) else None


def fire_again(conn: Connection, ids: Collection[str], now: EpochMs, tuning: Tuning) -> None:
    """Open an incident for heartbeats that fire without one. Their rows are locked."""
    alone = store.by_ids(conn, ids).values()
    firings = [(each, Firing(subject_of(each), "missed", each.fires_at, each.next_deadline)) for each in alone]
    store.save_fired(conn, fire(conn, firings, now, tuning).values())


def end_hold(conn: Connection, incidents_of: Mapping[str, str], hold: Hold, *, now: EpochMs, tuning: Tuning) -> None:
    """Incidents that are held back in vain go on: heartbeat id -> incident id. The heartbeats are locked."""
    for heartbeat in store.by_ids(conn, incidents_of).values():
        incidents.end_hold(conn, incidents_of[heartbeat.id], subject_of(heartbeat), hold, now=now, tuning=tuning)


set_firing = store.save_firing
next_bound = store.next_bound
due_ids = store.due_ids
