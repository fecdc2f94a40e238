"""What is true of heartbeats: when the next check-in is due, and what each event does in each state.

Spec "Heartbeats", sections 5 and 6. Everything is decided here and nothing is done here.
"""

import math
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

from lifesign.clock import LATEST, EpochMs
from lifesign.heartbeats import schedule as cron

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


class Timing(NamedTuple):
    """What a deadline is computed from."""

    mode: Mode
    interval_ms: int | None
    schedule: str | None
    timezone: str
    grace_ms: int


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

    @property
    def timing(self) -> Timing:
        """The part a deadline is computed from."""
        return Timing(self.mode, self.interval_ms, self.schedule, self.timezone, self.grace_ms)

    @property
    def is_final(self) -> bool:
        """A one-shot that is over: nothing will ever fire."""
        return self.status == "resolved" and self.fires_at is None


# Deadlines ----------------------------------------------------------------------------------------------------------
def next_deadline(timing: Timing, anchor: EpochMs) -> EpochMs:
    """When the check-in is expected that follows `anchor`, without grace.

    recurring, oneshot: anchor + interval, elapsed time. scheduled: the next cron time strictly after the anchor.
    """
    if timing.mode == "scheduled":
        return cron.next_after(timing.schedule or "", timing.timezone, anchor)
    return min(EpochMs(anchor + (timing.interval_ms or 0)), LATEST)


def armed(heartbeat: Heartbeat, anchor: EpochMs, now: EpochMs) -> Heartbeat:
    """The heartbeat waiting for the check-in that follows `anchor`; every bound is set anew."""
    return replace(heartbeat, **_wait(heartbeat, anchor, now))


def _wait(heartbeat: Heartbeat, anchor: EpochMs, now: EpochMs) -> dict[str, Any]:
    deadline = next_deadline(heartbeat.timing, anchor)
    fires_at = EpochMs(deadline + heartbeat.grace_ms)
    return {
        "is_armed": True,
        "anchor_at": anchor,
        "next_deadline": deadline,
        "fires_at": fires_at,
        "armed_at": now,
        "check_at": fires_at,
    }


def disarmed(heartbeat: Heartbeat) -> Heartbeat:
    """The heartbeat waiting for nothing."""
    return replace(heartbeat, **_NO_WAIT)


# Any, here and below: changes of columns by name, as `replace` takes them.
_NO_WAIT: dict[str, Any] = {"next_deadline": None, "fires_at": None, "armed_at": None, "check_at": None}


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
    if heartbeat.status != "active" or heartbeat.mode == "oneshot":
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
    anchor = max(stamp, waiting.anchor_at)
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


@dataclass(frozen=True, slots=True)
class CheckInOutcome:
    """What a check-in does. `heartbeat` is the state after it, apart from the incident that firing opens."""

    heartbeat: Heartbeat
    fires: bool = False
    recovers: bool = False
    resumes: bool = False


def after_check_in(heartbeat: Heartbeat, *, healthy: bool, stamp: EpochMs, metadata: str | None) -> CheckInOutcome:
    """Decide what a check-in that arrived at `stamp` does, in any state.

    A check-in whose stamp is older than the present anchor counts, but never moves the deadline backwards.
    """
    # Copying a heartbeat (7 us) is most of what deciding costs, so the usual path copies it once, not four times.
    seen: dict[str, Any] = {
        "last_checkin_at": max(stamp, heartbeat.last_checkin_at or stamp),
        "checkin_count": heartbeat.checkin_count + 1,
    }
    if metadata is not None:
        seen["metadata"] = metadata
    resumes = heartbeat.status == "paused" and not heartbeat.is_sticky_pause
    if (heartbeat.status == "paused" and not resumes) or heartbeat.is_final:
        return CheckInOutcome(replace(heartbeat, **seen))
    if resumes:
        seen |= {"status": "active", "paused_at": None, "anchor_at": stamp}
    if healthy:
        after = replace(heartbeat, **(seen | _rearming(heartbeat, stamp)))
        return CheckInOutcome(after, recovers=heartbeat.status == "firing", resumes=resumes)
    if heartbeat.status == "firing":
        return CheckInOutcome(replace(heartbeat, **seen))
    return CheckInOutcome(firing(replace(heartbeat, **seen)), fires=True, resumes=resumes)


def _rearming(heartbeat: Heartbeat, stamp: EpochMs) -> dict[str, Any]:
    """What a healthy check-in changes of a heartbeat that is watched, or is watched again from now."""
    if heartbeat.mode == "oneshot":
        return _NO_WAIT | {"status": "resolved", "is_armed": True, "incident_id": None}
    is_waiting = heartbeat.is_armed and heartbeat.status != "paused"
    anchor = max(stamp, heartbeat.anchor_at) if is_waiting else stamp
    changes = _wait(heartbeat, anchor, stamp) | {"status": "active", "incident_id": None}
    # The old bound stays a bound while it is early enough, so that an ordinary check-in touches no index.
    if heartbeat.check_at is not None and heartbeat.check_at <= changes["fires_at"]:
        changes["check_at"] = heartbeat.check_at
    return changes


def firing(heartbeat: Heartbeat) -> Heartbeat:
    """The heartbeat while its incident is open."""
    return replace(disarmed(heartbeat), status="firing", is_armed=True)


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
    resolved = replace(heartbeat, status="resolved", incident_id=None)
    return disarmed(resolved) if heartbeat.mode == "oneshot" else armed(resolved, now, now)


def paused(heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """Not watched until resumed. Raises StateRefused."""
    if heartbeat.status == "paused":
        raise StateRefused(heartbeat.status, "Heartbeat is already paused")
    if heartbeat.is_final:
        raise StateRefused(heartbeat.status, "Heartbeat is resolved for good, there is nothing to pause")
    return replace(disarmed(heartbeat), status="paused", paused_at=now, incident_id=None)


def resumed(heartbeat: Heartbeat, now: EpochMs) -> Heartbeat:
    """Watched again, from now. Raises StateRefused."""
    if heartbeat.status != "paused":
        raise StateRefused(heartbeat.status, f"Heartbeat is {heartbeat.status}, not paused")
    return armed(replace(heartbeat, status="active", paused_at=None), now, now)


def after_edit(before: Heartbeat, after: Heartbeat, now: EpochMs) -> Heartbeat:
    """`after`, which differs from `before` by an edit, with its deadline put right. An edit never causes a firing."""
    if before.timing == after.timing:
        return after
    if before.is_final:
        return armed(replace(after, status="active"), now, now)
    if before.fires_at is None:  # firing, paused, un-armed: the new timing is used when it is armed next
        return after
    waiting = replace(after, status="active") if after.mode == "oneshot" else after
    fresh = armed(waiting, before.anchor_at, now)
    return fresh if fresh.fires_at is not None and fresh.fires_at > now else armed(waiting, now, now)
