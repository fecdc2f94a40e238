"""What is true of incidents: which step runs when, whom it tells, what each message says."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from lifesign.channels.rules import target_key
from lifesign.clock import EpochMs

Reason = Literal["missed", "unhealthy", "run_stalled", "run_overdue"]
Resolution = Literal["checkin", "ack", "pause", "delete", "late_checkin"]
Unattended = Literal["no_policy", "no_channel", "exhausted", "undeliverable"]

TimerKind = Literal[
    "escalate",
    "failover",
    "remind",
    "storm_release",
    "flap_settle",
    "snooze_end",
    "maintenance_edge",
    "dependency_release",
]
Hold = Literal["flap", "snooze", "maintenance", "dependency"]
# What waits for the end of the holds of an incident.
A_STEP_WAITS, EVERYTHING_WAITS = 1, 2

STORM_WINDOW_MS, STORM_HOLD_MS = 60_000, 120_000
STORM_SHARE = 10
# Nothing that is read as something else.
CODE_LETTERS, CODE_LENGTH = "23456789ABCDEFGHJKMNPQRSTUVWXYZ", 6
# A provider that has not accepted anything for this long is not waited for.
FAILOVER_AFTER_MS = 90_000
WORTH_HASTENING_MS = 1_000
_REMINDER_MS, _LATE_REMINDER_MS, _REMINDERS_PER_DAY = 1_800_000, 86_400_000, 48


class PolicyNotFound(Exception):
    """The project has no policy with this id."""


class IncidentNotFound(Exception):
    """The project has no incident with this id."""


class PolicyInUse(Exception):
    """Heartbeats name the policy. `users`: the first hundred of `total`, as (id, name)."""

    def __init__(self, users: Sequence[tuple[str, str]], total: int) -> None:
        super().__init__("Policy is in use")
        self.users = users
        self.total = total


@dataclass(frozen=True, slots=True)
class Step:
    """One step of a policy: wait, then tell channels. `wait_s` None: as sent, without a wait."""

    channels: tuple[str, ...]
    wait_s: int | None = None
    message: str | None = None

    @property
    def wait_ms(self) -> int:
        """The wait before this step."""
        return (self.wait_s or 0) * 1000


@dataclass(frozen=True, slots=True)
class Tuning:
    """What the operator may tune of escalations. `unattended_after_ms`: wait after the last step, for a reaction.

    public_url: where people reach this server, for the texts of steps that name the page of an incident.
    """

    min_repeat_ms: int = 60_000
    unattended_after_ms: int = 1_800_000
    storm_min: int = 20
    flap_limit: int = 4
    public_url: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What escalation needs of a policy."""

    steps: tuple[Step, ...]
    repeat_last_step: bool


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy, whole."""

    id: str
    project_id: str
    name: str
    plan: Plan
    created_at: EpochMs
    updated_at: EpochMs | None
    origin: str | None = None


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident, whole. Instants are epoch ms."""

    id: str
    project_id: str
    heartbeat_id: str
    policy_id: str | None
    reason: Reason
    status: Literal["open", "resolved"]
    escalation: Literal["running", "held", "done"]
    deadline_at: EpochMs | None
    expected_at: EpochMs | None
    opened_at: EpochMs
    resolved_at: EpochMs | None
    resolved_by: Resolution | None
    ack_message: str | None
    ack_actor: str | None
    steps_run: int
    loop: int
    last_step_at: EpochMs | None
    unattended: str | None
    next_seq: int
    blind_from: EpochMs | None = None
    blind_to: EpochMs | None = None
    ack_code: str | None = None
    holds: str | None = None
    """Words, joined by blanks, for which no step runs."""
    step_waiting: int = 0
    storm_id: str | None = None
    run_id: str | None = None
    suppressed_by: str | None = None

    def is_held_by(self, hold: Hold) -> bool:
        """Whether this is among the reasons for which no step runs."""
        return self.holds is not None and hold in self.holds.split()


def with_hold(holds: str | None, hold: Hold) -> str:
    """The words with one more."""
    return " ".join(sorted({*(holds or "").split(), hold}))


def without_hold(holds: str | None, hold: Hold) -> str | None:
    """The words with one less; None when none is left."""
    return " ".join(each for each in (holds or "").split() if each != hold) or None


@dataclass(frozen=True, slots=True)
class Storm:
    """Many heartbeats of one project that went silent together. `count`: incidents that belong to it by now."""

    id: str
    project_id: str
    opened_at: EpochMs
    release_at: EpochMs
    count: int


@dataclass(frozen=True, slots=True)
class Subject:
    """A heartbeat as an incident sees it: who it is, what its messages may say, whom it tells by itself."""

    id: str
    project_id: str
    name: str
    slug: str
    mode: Literal["recurring", "oneshot", "scheduled"]
    timezone: str
    namespace: str | None
    metadata: Mapping[str, Any] | None  # Any: the user's own JSON
    policy_id: str | None
    own_channels: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Target:
    """Where one message of a step goes. Only channels exist; people and on-call schedules will be further kinds."""

    kind: Literal["channel"]
    key: str
    channel_id: str
    dest: str | None = None
    delay_ms: int = 0


@dataclass(frozen=True, slots=True)
class Move:
    """The next thing an escalation does: run `step` (its `loop`th repeat), then wait until `then_at`.

    `then_at` None: that was the last one, the escalation is done.
    """

    step: int
    loop: int
    then_at: EpochMs | None


def resolve_targets(channels: Sequence[str], directory: Mapping[str, Sequence[str]]) -> list[Target]:
    """Whom a step tells: one target for each channel, or for each address of a channel that has several.

    channels: ids, in order. directory: addresses by channel id; a channel that is not in it was deleted.
    """
    targets = []
    for channel_id in channels:
        if channel_id not in directory:
            continue
        addresses = directory[channel_id]
        if not addresses:
            targets.append(Target("channel", target_key(channel_id, None), channel_id))
        targets += [Target("channel", target_key(channel_id, each), channel_id, each) for each in addresses]
    return targets


def next_move(plan: Plan, *, steps_run: int, loop: int, now: EpochMs, min_repeat_ms: int) -> Move | None:
    """What is due when the timer of an escalation goes off; None when nothing is left to do.

    The waits that follow count from `now`, the moment the step really runs, so that a server that was away runs the
    overdue step once.  Source: spec "Engine", section 6.
    """
    count = len(plan.steps)
    if steps_run < count:
        number = steps_run + 1
        return Move(number, 0, due_after(plan, steps_run=number, since=now, min_repeat_ms=min_repeat_ms))
    if count and plan.repeat_last_step:
        return Move(count, loop + 1, due_after(plan, steps_run=count, since=now, min_repeat_ms=min_repeat_ms))
    return None


def due_after(plan: Plan, *, steps_run: int, since: EpochMs, min_repeat_ms: int) -> EpochMs | None:
    """When the next step or repeat is due after `steps_run` steps, the last of them (or the opening) at `since`."""
    if steps_run < len(plan.steps):
        return EpochMs(since + plan.steps[steps_run].wait_ms)
    if plan.steps and plan.repeat_last_step:
        return EpochMs(since + max(plan.steps[-1].wait_ms, min_repeat_ms))
    return None


class Foreseen(NamedTuple):
    """A step that an escalation would take, or its `loop`th repeat."""

    at: EpochMs
    step: int
    loop: int


def foreseen(plan: Plan, now: EpochMs, *, min_repeat_ms: int, most: int) -> list[Foreseen]:
    """What an incident that opened now would do, if every message went out at once and nobody reacted; at most `most`.

    By the very rules of escalation, step by step.
    """
    found: list[Foreseen] = []
    steps_run = loop = 0
    due = due_after(plan, steps_run=0, since=now, min_repeat_ms=min_repeat_ms)
    while due is not None and len(found) < most:
        move = next_move(plan, steps_run=steps_run, loop=loop, now=due, min_repeat_ms=min_repeat_ms)
        if move is None:
            break
        found.append(Foreseen(due, move.step, move.loop))
        steps_run, loop, due = move.step, move.loop, move.then_at
    return found


def storm_threshold(tuning: Tuning, armed: int) -> int:
    """More missed deadlines of a project than this within a minute are a storm.  Source: spec "Engine", section 9."""
    return max(tuning.storm_min, armed // STORM_SHARE)


def reminder_delay_ms(told: int) -> int:
    """How long after the fallback channel was told for the `told`th time (0 = the first) it is told again.

    Every 30 min for 24 h, then once a day.  Source: spec "Engine", section 6, rule U.
    """
    return _REMINDER_MS if told < _REMINDERS_PER_DAY else _LATE_REMINDER_MS
