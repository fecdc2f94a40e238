"""What is true of heartbeats: when the next check-in is due, and what each event does in each state.

Spec "Heartbeats", sections 5 and 6. Everything is decided here and nothing is done here.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from lifesign import schedule as cron
from lifesign.clock import LATEST, SET_BACK_MS, EpochMs

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")


def _line(name: str) -> str:
    """A name on one line: those who ping may leave it empty, or break it, which no subject of a mail may be."""
    return _CONTROL.sub(" ", name).strip()


def called(heartbeat_id: str, name: str, slug: str | None, ping_id: str | None) -> str:
    """What pages call a heartbeat: its name; without one its slug, or how its UUID begins.

    Whoever sees the whole UUID can ping.
    """
    return _line(name) or slug or (f"check {ping_id[:8]}" if ping_id else heartbeat_id)


Mode = Literal["recurring", "oneshot", "scheduled"]
Status = Literal["active", "firing", "paused", "resolved"]


class HeartbeatNotFound(Exception):
    """The project has no heartbeat with this id or slug."""


class HeartbeatLimitReached(Exception):
    """The project has as many heartbeats as it may have."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"Heartbeat limit reached ({limit})")
        self.limit = limit


class StateRefused(Exception):
    """What was asked makes no sense in the heartbeat's present state."""

    def __init__(self, status: Status, message: str) -> None:
        super().__init__(message)
        self.status = status


class Managed(StateRefused):
    """The heartbeat belongs to something that alone reports for it and changes it."""

    def __init__(self, status: Status, owner: str) -> None:
        super().__init__(status, f"managed by {owner}")


class Suspended(StateRefused):
    """The heartbeat is paused because what it belongs to may not report; only that ends the pause."""

    def __init__(self, status: Status, owner: str) -> None:
        why = "does not run this schedule" if owner.startswith(BOT_OWNER) else "is suspended"
        super().__init__(status, f"{owner} {why}")


BOT_OWNER = "bot "
"""How owners begin whose heartbeats are told when to expect what, and may be deleted like those of nobody."""


class Timing(NamedTuple):
    """What a deadline is computed from."""

    mode: Mode
    interval_ms: int | None
    schedule: str | None
    timezone: str
    grace_ms: int
    expected_at: EpochMs | None = None
    """Told by its owner, in place of all that."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """A heartbeat, whole. Instants are epoch ms; `metadata` is JSON text."""

    id: str
    project_id: str
    name: str
    slug: str | None
    mode: Mode
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
    status: Status
    is_armed: bool
    anchor_at: EpochMs
    last_checkin_at: EpochMs | None
    checkin_count: int
    next_deadline: EpochMs | None
    fires_at: EpochMs | None
    armed_at: EpochMs | None
    check_at: EpochMs | None
    incident_id: str | None
    paused_at: EpochMs | None
    created_at: EpochMs
    updated_at: EpochMs | None
    flap_penalty: float = 0
    flap_at: EpochMs | None = None
    is_flapping: bool = False
    flap_incident_id: str | None = None
    tolerance_failures: int | None = None
    tolerance_window: int | None = None
    results: str | None = None
    """The last results, oldest first, `b` for bad and `g` for good; None while none of them is bad."""
    snoozed_until: EpochMs | None = None
    snooze_reason: str | None = None
    snooze_incident_id: str | None = None
    depends_on: tuple[str, ...] = ()
    run_due_at: EpochMs | None = None
    """When the first of its watched runs has been silent, or busy, for too long."""
    managed_by: str | None = None
    ping_id: str | None = None
    badge_id: str | None = None
    ping_rules: str | None = None
    """Which pings count, and for what: JSON text; None: all, as they say."""
    ping_extras: int = 0
    ping_run_id: str | None = None
    ping_started_at: EpochMs | None = None
    last_duration_ms: int | None = None
    origin: str | None = None
    expected_at: EpochMs | None = None
    """When its owner expects the next check-in, in place of what its interval says."""
    is_suspended: bool = False
    """While it is paused: whether only its owner may resume it."""

    @property
    def line(self) -> str:
        """Its name on one line."""
        return _line(self.name)

    @property
    def called(self) -> str:
        """What pages call it."""
        return called(self.id, self.name, self.slug, self.ping_id)

    @property
    def timing(self) -> Timing:
        """The part a deadline is computed from."""
        return Timing(self.mode, self.interval_ms, self.schedule, self.timezone, self.grace_ms, self.expected_at)

    @property
    def is_final(self) -> bool:
        """A one-shot that is over: nothing will ever fire."""
        return _is_final(self.status, self.mode)

    @property
    def is_watched(self) -> bool:
        """Whether anything is expected of it, and of its runs."""
        return _is_watched(self.status, self.mode)

    def is_snoozed(self, now: EpochMs) -> bool:
        """Whether nobody is told of it for now."""
        return self.snoozed_until is not None and self.snoozed_until > now


def _is_final(status: Status, mode: Mode) -> bool:
    return status == "resolved" and mode == "oneshot"


def _is_watched(status: Status, mode: Mode) -> bool:
    return status != "paused" and not _is_final(status, mode)


# Deadlines ----------------------------------------------------------------------------------------------------------
def next_deadline(timing: Timing, anchor: EpochMs) -> EpochMs:
    """When the check-in is expected that follows `anchor`, without grace.

    recurring, oneshot: anchor + interval, elapsed time. scheduled: the next cron time strictly after the anchor.
    """
    if timing.expected_at is not None:
        return timing.expected_at
    if timing.mode == "scheduled":
        return cron.next_after(timing.schedule or "", timing.timezone, anchor)
    return min(EpochMs(anchor + (timing.interval_ms or 0)), LATEST)


def armed(heartbeat: Heartbeat, anchor: EpochMs, now: EpochMs) -> Heartbeat:
    """The heartbeat waiting for the check-in that follows `anchor`; every bound is set anew."""
    return replace(heartbeat, **_wait(heartbeat, anchor, now))


# Any, here and below: changes of columns by name, as `replace` takes them.
def _wait(heartbeat: Heartbeat, anchor: EpochMs, now: EpochMs) -> dict[str, Any]:
    deadline = next_deadline(heartbeat.timing, anchor)
    bounds = _bounds(EpochMs(deadline + heartbeat.grace_ms), heartbeat.run_due_at, now)
    return {"is_armed": True, "anchor_at": anchor, "next_deadline": deadline} | bounds


def _bounds(due_at: EpochMs | None, run_due_at: EpochMs | None, now: EpochMs) -> dict[str, Any]:
    """When it fires: at `due_at`, deadline and grace, or when a run of its is due, whatever comes first."""
    fires_at = _earliest(due_at, run_due_at)
    return {"fires_at": fires_at, "armed_at": None if fires_at is None else now, "check_at": fires_at}


def _earliest(*moments: EpochMs | None) -> EpochMs | None:
    return min((at for at in moments if at is not None), default=None)


def disarmed(heartbeat: Heartbeat) -> Heartbeat:
    """The heartbeat waiting for no check-in. Its runs are looked at all the same, while it has any."""
    return replace(heartbeat, **_NO_WAIT, check_at=heartbeat.run_due_at)


_NO_WAIT: dict[str, Any] = {"next_deadline": None, "fires_at": None, "armed_at": None}


def unwatched(heartbeat: Heartbeat) -> Heartbeat:
    """The heartbeat, and its runs, waiting for nothing."""
    return disarmed(replace(heartbeat, run_due_at=None))


class Minded(NamedTuple):
    """What runs change of a heartbeat, and what that depends on: not more, because copying a whole one takes long."""

    status: Status
    mode: Mode
    grace_ms: int
    next_deadline: EpochMs | None
    fires_at: EpochMs | None
    armed_at: EpochMs | None
    check_at: EpochMs | None
    run_due_at: EpochMs | None

    @property
    def is_watched(self) -> bool:
        """Whether anything is expected of the heartbeat, and of its runs."""
        return _is_watched(self.status, self.mode)


def minded(before: Minded, run_due_at: EpochMs | None, lease_until: EpochMs | None, now: EpochMs) -> Minded:
    """After one of the runs changed: when the first of them is due now, and the lease that was given.

    A lease lifts the deadline: while a run reports, the next check-in is not expected.
    """
    if not before.is_watched:
        run_due_at = None
    if before.status == "firing" or not before.is_watched:
        return before._replace(run_due_at=run_due_at, check_at=run_due_at)
    deadline = before.next_deadline
    if deadline is not None and lease_until is not None:
        deadline = max(deadline, lease_until)
    due_at = None if deadline is None else EpochMs(deadline + before.grace_ms)
    if due_at is not None and before.fires_at is not None:
        # It may be waited for longer, because nobody could listen.
        due_at = max(due_at, before.fires_at)
    fires_at = _earliest(due_at, run_due_at)
    # A bound that did not move is as old as before: one from before a gap is given time after it.
    armed_at = before.armed_at if fires_at == before.fires_at else None if fires_at is None else now
    check_at = before.check_at if _is_early(before.check_at, fires_at) else fires_at
    return before._replace(
        next_deadline=deadline, fires_at=fires_at, armed_at=armed_at, check_at=check_at, run_due_at=run_due_at
    )


def with_runs(heartbeat: Heartbeat, run_due_at: EpochMs | None, lease_until: EpochMs | None, now: EpochMs) -> Heartbeat:
    """The heartbeat after one of its runs changed, as `minded` says."""
    before = Minded(*(getattr(heartbeat, name) for name in Minded._fields))
    after = minded(before, run_due_at, lease_until, now)
    return heartbeat if after == before else replace(heartbeat, **after._asdict())


def _next_in_rhythm(heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """The heartbeat waiting for the check-in after the one that was missed; counted from now if that is over too."""
    after = heartbeat if heartbeat.next_deadline is None else armed(heartbeat, heartbeat.next_deadline, now)
    is_to_come = after.next_deadline is not None and after.next_deadline + after.grace_ms > now
    if not is_to_come and heartbeat.expected_at is not None:
        # Its owner says when, and has not said so for what follows.
        return disarmed(heartbeat)
    return after if is_to_come else armed(heartbeat, now, now)


# Results ------------------------------------------------------------------------------------------------------------
_GOOD, _BAD = "g", "b"


def _with_result(heartbeat: Heartbeat, result: str) -> tuple[str | None, bool]:
    """The last results after one more, and whether there are as many bad ones among them as make it fire."""
    failures, window = heartbeat.tolerance_failures or 1, heartbeat.tolerance_window or 1
    results = ((heartbeat.results or "") + result)[-window:]
    bad = results.count(_BAD)
    return (results if bad and window > 1 else None), bad >= failures


class Silence(NamedTuple):
    """One thing that was not heard in time: a check-in (no `run_id`), or a run. What became of it, if not a firing."""

    reason: Literal["missed", "run_stalled", "run_overdue"]
    run_id: str | None = None
    deadline: EpochMs | None = None
    tolerated: bool = False
    suppressed: bool = False


@dataclass(frozen=True, slots=True)
class SilenceOutcome:
    """What silence does. `heartbeat` is the state after it, apart from the incident that firing opens."""

    heartbeat: Heartbeat
    heard: tuple[Silence, ...]
    """Runs that were too late, and a check-in that was missed without firing, in order."""
    fires: Silence | None = None


def after_silence(
    heartbeat: Heartbeat, runs: Sequence[Silence], now: EpochMs, *, covered_until: EpochMs | None
) -> SilenceOutcome:
    """Decide what happens when a bound of a heartbeat has passed.

    runs: those found too late; `heartbeat.run_due_at` is already that of the others. covered_until: when the
    maintenance window closes that it is in; None: it is in none.  Source: spec "Heartbeats", sections 5 to 7.
    """
    after, noted, cause = heartbeat, list[Silence](), None
    for run in runs:
        if covered_until is not None and heartbeat.status != "firing":
            noted.append(run._replace(suppressed=True))
            continue
        if cause is None and heartbeat.status != "firing":
            results, fires = _with_result(after, _BAD)
            after = replace(after, results=results)
            cause = run if fires else None
            noted.append(run._replace(tolerated=not fires))
        else:
            noted.append(run)
    if cause is not None:
        return SilenceOutcome(firing(after), tuple(noted), cause)
    if after.status == "firing" or after.next_deadline is None or after.next_deadline + after.grace_ms > now:
        return SilenceOutcome(with_runs(after, after.run_due_at, None, now), tuple(noted))
    missed = Silence("missed", deadline=after.next_deadline)
    if covered_until is not None:
        noted.append(missed._replace(suppressed=True))
        return SilenceOutcome(_past_window(after, covered_until, now), tuple(noted))
    results, fires = _with_result(after, _BAD)
    after = replace(after, results=results)
    if fires:
        return SilenceOutcome(firing(after), tuple(noted), missed)
    noted.append(missed._replace(tolerated=True))
    return SilenceOutcome(_next_in_rhythm(after, now), tuple(noted))


def _past_window(heartbeat: Heartbeat, closes_at: EpochMs, now: EpochMs) -> Heartbeat:
    """The heartbeat after silence, or bad news, that was expected."""
    if heartbeat.mode != "oneshot":
        return _next_in_rhythm(heartbeat, now)
    bounds = _bounds(EpochMs(closes_at + heartbeat.grace_ms), heartbeat.run_due_at, now)
    return replace(heartbeat, is_armed=True, next_deadline=closes_at, **bounds)


# Check-ins ----------------------------------------------------------------------------------------------------------
class Waiting(NamedTuple):
    """What an ordinary check-in needs to know, and all that it changes, of a heartbeat that waits for one."""

    id: str
    project_id: str
    timing: Timing
    anchor_at: EpochMs
    last_checkin_at: EpochMs | None
    checkin_count: int
    next_deadline: EpochMs
    fires_at: EpochMs
    check_at: EpochMs


def waiting(heartbeat: Heartbeat) -> Waiting | None:
    """The heartbeat as a `Waiting`; None when a healthy check-in would do more than move its deadline."""
    next_deadline, fires_at, check_at = heartbeat.next_deadline, heartbeat.fires_at, heartbeat.check_at
    if heartbeat.status != "active" or heartbeat.mode == "oneshot" or heartbeat.expected_at is not None:
        return None
    if heartbeat.run_due_at is not None or heartbeat.results is not None:
        return None
    if next_deadline is None or fires_at is None or check_at is None:
        return None
    return Waiting(
        heartbeat.id,
        heartbeat.project_id,
        heartbeat.timing,
        heartbeat.anchor_at,
        heartbeat.last_checkin_at,
        heartbeat.checkin_count,
        next_deadline,
        fires_at,
        check_at,
    )


def after_ordinary_check_in(waiting: Waiting, stamp: EpochMs) -> Waiting | None:
    """`after_check_in` for the usual case: a healthy one, to a heartbeat that waits for it; a tenth of the cost.

    None when its bound has to move, so that more than this must be written.
    """
    anchor = _later(waiting.anchor_at, stamp)
    deadline = next_deadline(waiting.timing, anchor)
    fires_at = EpochMs(deadline + waiting.timing.grace_ms)
    if fires_at < waiting.check_at:
        return None
    return Waiting(
        waiting.id,
        waiting.project_id,
        waiting.timing,
        anchor,
        max(stamp, waiting.last_checkin_at or stamp),
        waiting.checkin_count + 1,
        deadline,
        fires_at,
        waiting.check_at,
    )


def _later(before: EpochMs, stamp: EpochMs) -> EpochMs:
    """The later of what is known and a stamp: one that committed late moves nothing backwards.

    What lies further ahead than a check-in can be late was written down by a clock that has been set back since. To
    keep it would be to ignore every check-in, and the silence after the last one, until that time comes again.
    """
    return stamp if before - stamp > SET_BACK_MS else max(stamp, before)


@dataclass(frozen=True, slots=True)
class CheckInOutcome:
    """What a check-in does. `heartbeat` is the state after it, apart from the incident that firing opens."""

    heartbeat: Heartbeat
    fires: bool = False
    recovers: bool = False
    resumes: bool = False
    tolerated: bool = False
    suppressed: bool = False


def after_check_in(
    heartbeat: Heartbeat,
    *,
    healthy: bool,
    stamp: EpochMs,
    metadata: str | None,
    covered_until: EpochMs | None = None,
) -> CheckInOutcome:
    """Decide what a check-in that arrived at `stamp` does, in any state.

    A check-in whose stamp is a little older than the present anchor counts, but never moves the deadline backwards.
    covered_until: when the maintenance window closes that the heartbeat is in, which makes bad news expected.
    """
    # Copying a heartbeat (7 us) is most of what deciding costs, so the usual path copies it once, not four times.
    seen: dict[str, Any] = {
        "last_checkin_at": max(stamp, heartbeat.last_checkin_at or stamp),
        "checkin_count": heartbeat.checkin_count + 1,
    }
    if metadata is not None:
        seen["metadata"] = metadata
    resumes = heartbeat.status == "paused" and not (heartbeat.is_sticky_pause or heartbeat.is_suspended)
    if (heartbeat.status == "paused" and not resumes) or heartbeat.is_final:
        return CheckInOutcome(replace(heartbeat, **seen))
    if resumes:
        seen |= {"status": "active", "paused_at": None, "anchor_at": stamp, "results": None}
    if healthy:
        after = replace(heartbeat, **(seen | _rearming(heartbeat, stamp)))
        recovers = heartbeat.status == "firing"
        results = None if recovers or resumes or heartbeat.results is None else _with_result(heartbeat, _GOOD)[0]
        after = after if after.results == results else replace(after, results=results)
        return CheckInOutcome(after, recovers=recovers, resumes=resumes)
    if heartbeat.status == "firing":
        return CheckInOutcome(replace(heartbeat, **seen))
    unhealthy = replace(heartbeat, **seen)
    if covered_until is not None:
        is_waiting = resumes or heartbeat.next_deadline is not None
        after = _past_window(unhealthy, covered_until, stamp) if is_waiting else unhealthy
        return CheckInOutcome(after, resumes=resumes, suppressed=True)
    results, fires = _with_result(unhealthy, _BAD)
    if fires:
        return CheckInOutcome(firing(replace(unhealthy, results=results)), fires=True, resumes=resumes)
    after = replace(unhealthy, **(_rearming(heartbeat, stamp) | {"results": results}))
    return CheckInOutcome(after, resumes=resumes, tolerated=True)


def _rearming(heartbeat: Heartbeat, stamp: EpochMs) -> dict[str, Any]:
    """What a healthy check-in changes of a heartbeat that is watched, or is watched again from now."""
    if heartbeat.mode == "oneshot":
        over = {"status": "resolved", "is_armed": True, "incident_id": None, "run_due_at": None, "check_at": None}
        return _NO_WAIT | over
    is_waiting = heartbeat.is_armed and heartbeat.status != "paused"
    anchor = _later(heartbeat.anchor_at, stamp) if is_waiting else stamp
    changes = _wait(heartbeat, anchor, stamp) | {"status": "active", "incident_id": None}
    return changes | _kept_bound(heartbeat, changes)


def _kept_bound(heartbeat: Heartbeat, bounds: Mapping[str, Any]) -> dict[str, Any]:
    """The old bound stays a bound while it is early enough, so that what is reported often touches no index."""
    fires_at = bounds["fires_at"]
    return {"check_at": heartbeat.check_at} if _is_early(heartbeat.check_at, fires_at) else {}


def _is_early(check_at: EpochMs | None, fires_at: EpochMs | None) -> bool:
    return check_at is not None and fires_at is not None and check_at <= fires_at


def firing(heartbeat: Heartbeat) -> Heartbeat:
    """The heartbeat while its incident is open."""
    return replace(disarmed(heartbeat), status="firing", is_armed=True)


def recovered(heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """The heartbeat whose stalled run goes on: waiting again from now, without a check-in."""
    return armed(replace(heartbeat, status="active", incident_id=None, results=None), now, now)


# Flapping -----------------------------------------------------------------------------------------------------------
FLAP_HALF_LIFE_MS = 15 * 60_000
# Below this a heartbeat is calm.
_CALM = 1.0


def penalty(heartbeat: Heartbeat, now: EpochMs) -> float:
    """How often a heartbeat fired lately: each firing adds 1, and the sum halves every 15 min."""
    if heartbeat.flap_at is None:
        return 0
    halvings = max(0, now - heartbeat.flap_at) / FLAP_HALF_LIFE_MS
    return heartbeat.flap_penalty * math.exp2(-halvings)


def fired(heartbeat: Heartbeat, now: EpochMs, limit: int) -> Heartbeat:
    """The heartbeat after one more firing; it flaps when it had fired more than `limit` times of late (0: never).

    Source: spec "Engine", section 10.
    """
    before = penalty(heartbeat, now)
    is_flapping = bool(limit) and (heartbeat.is_flapping or before > limit)
    return replace(heartbeat, flap_penalty=before + 1, flap_at=now, is_flapping=is_flapping)


def calm_at(heartbeat: Heartbeat) -> EpochMs:
    """When a heartbeat that does not fire again has been calm for long enough."""
    since = heartbeat.flap_at or EpochMs(0)
    if heartbeat.flap_penalty <= _CALM:
        return since
    return EpochMs(since + math.ceil(FLAP_HALF_LIFE_MS * math.log2(heartbeat.flap_penalty / _CALM)))


# When Lifesign itself did not run -----------------------------------------------------------------------------------
class Blindness(NamedTuple):
    """A span in which nobody listened, and how long heartbeats are waited for after it, at least and at most."""

    from_at: EpochMs
    to_at: EpochMs
    min_hold_ms: int
    max_hold_ms: int

    def hold_end(self, grace_ms: int) -> EpochMs:
        """Until when a heartbeat with this grace may still check in."""
        return EpochMs(self.to_at + min(max(grace_ms, self.min_hold_ms), self.max_hold_ms))


def held_until(heartbeat: Heartbeat, blind: Blindness) -> EpochMs | None:
    """When a heartbeat fires that could not be heard, or had no time to be heard since; None when it is not concerned.

    What was due before the span was missed while somebody listened. What was moved once is not moved again.
    """
    end = blind.hold_end(heartbeat.grace_ms)
    if heartbeat.fires_at is None or not blind.from_at <= heartbeat.fires_at < end:
        return None
    return end if _was_armed_before(heartbeat, blind) else None


def held(heartbeat: Heartbeat, until: EpochMs) -> Heartbeat:
    """The heartbeat that fires no earlier than `until`; when its check-in was expected stays as it was."""
    run_due_at = None if heartbeat.run_due_at is None else max(heartbeat.run_due_at, until)
    return replace(heartbeat, fires_at=until, check_at=until, run_due_at=run_due_at)


def released(heartbeat: Heartbeat, blind: Blindness) -> Heartbeat:
    """The heartbeat that was held for too long: it fires when it is due, but not before the end of this hold."""
    due_at = blind.hold_end(heartbeat.grace_ms)
    if heartbeat.next_deadline is not None:
        due_at = max(due_at, EpochMs(heartbeat.next_deadline + heartbeat.grace_ms))
    return replace(heartbeat, fires_at=due_at, check_at=due_at)


def was_held(heartbeat: Heartbeat, blind: Blindness) -> bool:
    """Whether `fires_at` is the end of a hold."""
    return heartbeat.fires_at == blind.hold_end(heartbeat.grace_ms) and _was_armed_before(heartbeat, blind)


def _was_armed_before(heartbeat: Heartbeat, blind: Blindness) -> bool:
    return heartbeat.armed_at is not None and heartbeat.armed_at < blind.to_at


# People -------------------------------------------------------------------------------------------------------------
def acked(heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """Acknowledged: resolved, and waiting again, so that a job that stays dead fires anew. Raises StateRefused."""
    if heartbeat.status != "firing":
        raise StateRefused(heartbeat.status, f"Heartbeat is {heartbeat.status}, not firing")
    resolved = replace(heartbeat, status="resolved", incident_id=None, results=None)
    return unwatched(resolved) if heartbeat.mode == "oneshot" else armed(resolved, now, now)


def paused(heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """Not watched until resumed. Raises StateRefused."""
    if heartbeat.status == "paused":
        raise StateRefused(heartbeat.status, "Heartbeat is already paused")
    if heartbeat.is_final:
        raise StateRefused(heartbeat.status, "Heartbeat is resolved for good, there is nothing to pause")
    quiet = replace(unwatched(heartbeat), status="paused", paused_at=now, incident_id=None, results=None)
    return replace(quiet, is_suspended=False)


def suspended(heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """Paused until its owner resumes it, since when it may have been already. Raises StateRefused."""
    return replace(heartbeat if heartbeat.status == "paused" else paused(heartbeat, now), is_suspended=True)


def resumed(heartbeat: Heartbeat, now: EpochMs, *, by_owner: bool = False) -> Heartbeat:
    """Watched again, from now. Raises StateRefused."""
    if heartbeat.status != "paused":
        raise StateRefused(heartbeat.status, f"Heartbeat is {heartbeat.status}, not paused")
    if heartbeat.is_suspended and not by_owner:
        raise Suspended(heartbeat.status, heartbeat.managed_by or "its owner")
    active = replace(heartbeat, status="active", paused_at=None, is_suspended=False, results=None)
    # What belongs to something else is expected to report only once it has reported at all.
    is_told = heartbeat.expected_at is not None
    is_expected = heartbeat.managed_by is None or heartbeat.last_checkin_at is not None or is_told
    return armed(active, now, now) if is_expected else active


def resumed_unarmed(heartbeat: Heartbeat) -> Heartbeat:
    """As if it were new: waited for once it has reported. Raises StateRefused."""
    if heartbeat.status != "paused":
        raise StateRefused(heartbeat.status, f"Heartbeat is {heartbeat.status}, not paused")
    fresh = replace(heartbeat, status="active", paused_at=None, is_armed=False, last_checkin_at=None, results=None)
    return unwatched(fresh)


def snoozed(heartbeat: Heartbeat, until: EpochMs, reason: str | None) -> Heartbeat:
    """Nobody is told of it until then, or until the end of the incident that is open. Raises StateRefused."""
    if heartbeat.is_final:
        raise StateRefused(heartbeat.status, "Heartbeat is resolved for good, there is nothing to snooze")
    return replace(heartbeat, snoozed_until=until, snooze_reason=reason, snooze_incident_id=heartbeat.incident_id)


def unsnoozed(heartbeat: Heartbeat) -> Heartbeat:
    """People are told of it again. Raises StateRefused."""
    if heartbeat.snoozed_until is None:
        raise StateRefused(heartbeat.status, "Heartbeat is not snoozed")
    return replace(heartbeat, snoozed_until=None, snooze_reason=None, snooze_incident_id=None)


def after_edit(before: Heartbeat, after: Heartbeat, now: EpochMs) -> Heartbeat:
    """`after`, which differs from `before` by an edit, with its deadline put right. An edit never causes a firing."""
    if _tolerance(before) != _tolerance(after):
        after = replace(after, results=None)
    if before.timing == after.timing:
        return after
    after = replace(after, results=None)
    if before.is_final:
        return armed(replace(after, status="active"), now, now)
    if before.next_deadline is None:  # firing, paused, un-armed: the new timing is used when it is armed next
        return after
    waiting = replace(after, status="active") if after.mode == "oneshot" else after
    fresh = armed(waiting, before.anchor_at, now)
    is_to_come = fresh.next_deadline is not None and fresh.next_deadline + fresh.grace_ms > now
    return _lifted_as(before, fresh if is_to_come else armed(waiting, now, now), now)


def _lifted_as(before: Heartbeat, after: Heartbeat, now: EpochMs) -> Heartbeat:
    """`after` with its deadline where that of `before` was lifted to, by a lease still promised, or a window."""
    floor, deadline = before.next_deadline, after.next_deadline
    if before.expected_at is not None or floor is None or deadline is None or deadline >= floor:
        return after
    if floor <= next_deadline(before.timing, before.anchor_at):
        return after
    return replace(after, next_deadline=floor, **_bounds(EpochMs(floor + after.grace_ms), after.run_due_at, now))


def _tolerance(heartbeat: Heartbeat) -> tuple[int | None, int | None]:
    return heartbeat.tolerance_failures, heartbeat.tolerance_window
