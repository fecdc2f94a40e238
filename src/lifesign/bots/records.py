"""What is kept of bots, schedules, members, runs and of a project's settings, as plain values."""

from dataclasses import dataclass, field
from typing import Any

import msgspec

from lifesign.bots.budget import UNITS_PER_CREDIT, PeriodKind
from lifesign.bots.rules import DEFAULT_PLAN, Approval, Overlap, RunKind, RunStatus
from lifesign.bots.timing import CatchUp, Options, Timing, slots_after
from lifesign.clock import EpochMs
from lifesign.ids import new_id


# Any, in these: JSON whose shape `bodies` has checked.
class BotOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a bot has beyond the published fields. Credits in units."""

    provider: str = "default"
    fallback_models: tuple[str, ...] = ()
    units_per_1k: int = UNITS_PER_CREDIT
    runner: dict[str, Any] = msgspec.field(default_factory=lambda: {"kind": "builtin"})
    tools: tuple[str, ...] = ()
    approval_tools: tuple[str, ...] = ()
    telemetry_content: bool = False
    has_acknowledged: bool = False
    """Somebody who may said that these tools may be together whatever that can lead to."""
    origin: str | None = None


class ScheduleOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a schedule has beyond the published fields. Credits in units."""

    jitter_seconds: int = 0
    overlap: Overlap = "skip"
    catch_up: CatchUp = "one"
    catch_up_window_seconds: int | None = None
    session: str = "day"
    limits: dict[str, Any] = msgspec.field(default_factory=dict)
    notify: dict[str, Any] = msgspec.field(default_factory=dict)
    precheck: dict[str, Any] | None = None
    tools: tuple[str, ...] | None = None
    approval: Approval = "deny"
    retry_lost: bool = False
    watch: dict[str, Any] | None = None
    origin: str | None = None


class ProjectOptions(msgspec.Struct, frozen=True, omit_defaults=True):
    """Settings of a project's bots. Keys of providers are sealed; prices are numbers as text."""

    prices: tuple[dict[str, Any], ...] = ()
    max_concurrent_runs: int = 10
    max_runs_per_hour: int = 1000
    default_model: str | None = None
    providers: tuple[dict[str, Any], ...] = ()
    mcp_servers: tuple[dict[str, Any], ...] = ()
    budget_period: PeriodKind = "month"
    billing_timezone: str = "UTC"
    notify_channels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ProjectSettings:
    """The settings of a project's bots."""

    project_id: str
    plan: str = DEFAULT_PLAN
    stopped_at: EpochMs | None = None
    stop_reason: str | None = None
    options: ProjectOptions = field(default_factory=ProjectOptions)


@dataclass(frozen=True, slots=True)
class Bot:
    """An agent. number: what the API calls `id`."""

    number: int
    id: str
    project_id: str
    name: str
    model: str | None
    instruction: str | None
    max_reply_tokens: int | None
    top: int | None
    is_online: bool
    is_scheduling: bool
    options: BotOptions
    reset_at: EpochMs | None
    created_at: EpochMs
    updated_at: EpochMs


@dataclass(frozen=True, slots=True)
class Member:
    """A subscriber that schedules may belong to."""

    id: str
    project_id: str
    number: int
    external_id: str | None
    name: str | None
    email: str | None
    created_at: EpochMs


@dataclass(frozen=True, slots=True)
class Schedule:
    """When a bot runs, and with which prompt. member_id: empty when of none."""

    id: str
    project_id: str
    bot_id: str
    member_id: str
    prompt: str
    is_enabled: bool
    timing: Timing
    budget: int | None
    max_errors: int
    options: ScheduleOptions
    last_slot: EpochMs | None
    next_slot: EpochMs | None
    next_run_at: EpochMs | None
    version: int
    execution_count: int
    error_count: int
    last_executed_at: EpochMs | None
    last_status: RunStatus | None
    last_error: str | None
    paused_reason: str | None
    paused_by: str | None
    paused_at: EpochMs | None
    heartbeat_id: str | None
    error_key: str | None
    created_at: EpochMs
    updated_at: EpochMs

    @property
    def gap_ms(self) -> int | None:
        """Between the next two slots; None when there are none."""
        if self.next_slot is None:
            return None
        after = slots_after(self.timing, self.next_slot, 1)
        return after[0] - self.next_slot if after else None

    @property
    def slot_options(self) -> Options:
        """How its slots are treated."""
        seconds = self.options.catch_up_window_seconds
        return Options(self.options.jitter_seconds, self.options.catch_up, None if seconds is None else seconds * 1000)


@dataclass(frozen=True, slots=True)
class Run:
    """One slot, one trigger, or slots that were skipped."""

    id: str
    project_id: str
    bot_id: str
    schedule_id: str
    member_id: str
    kind: RunKind
    status: RunStatus
    reason: str | None
    slot: EpochMs | None
    effective_at: EpochMs
    first_slot: EpochMs | None
    last_slot: EpochMs | None
    count: int
    missed_count: int
    place_until: EpochMs | None
    prompt: str
    runner: str | None
    model: str | None
    tools: str | None
    response: str | None
    error_message: str | None
    started_at: EpochMs | None
    finished_at: EpochMs | None
    duration_ms: int | None
    input_tokens: int
    output_tokens: int
    requests: int
    tool_calls: int
    credits: int
    is_estimated: int
    reserved: int
    period_start: EpochMs | None
    deadline_at: EpochMs | None
    lease_owner: str | None
    lease_until: EpochMs | None
    lease_token: int
    cancel_reason: str | None
    token_hash: str | None
    idem_key: str | None
    notice: str | None
    parked_until: EpochMs | None
    is_approved: int | None
    created_at: EpochMs


def new_run(schedule: Schedule, kind: RunKind, now: EpochMs) -> Run:
    """A run that waits to be started."""
    return Run(
        id=new_id("run", now),
        project_id=schedule.project_id,
        bot_id=schedule.bot_id,
        schedule_id=schedule.id,
        member_id=schedule.member_id,
        kind=kind,
        status="queued",
        reason=None,
        slot=None,
        effective_at=now,
        first_slot=None,
        last_slot=None,
        count=1,
        missed_count=0,
        place_until=None,
        prompt=schedule.prompt,
        runner=None,
        model=None,
        tools=None,
        response=None,
        error_message=None,
        started_at=None,
        finished_at=None,
        duration_ms=None,
        input_tokens=0,
        output_tokens=0,
        requests=0,
        tool_calls=0,
        credits=0,
        is_estimated=0,
        reserved=0,
        period_start=None,
        deadline_at=None,
        lease_owner=None,
        lease_until=None,
        lease_token=0,
        cancel_reason=None,
        token_hash=None,
        idem_key=None,
        notice=None,
        parked_until=None,
        is_approved=None,
        created_at=now,
    )
