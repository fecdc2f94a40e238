"""What is true of bots: their words, plans, what lets a run start, what its end means. Pure.

Source: spec/bots.md, sections 1 to 8.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

from lifesign.clock import EpochMs

RunStatus = Literal["queued", "running", "waiting_approval", "success", "error", "skipped", "cancelled"]
RunKind = Literal["scheduled", "catch_up", "trigger"]
Door = Literal["tick", "trigger", "start", "claim"]
Overlap = Literal["skip", "queue_one", "cancel_previous"]
Approval = Literal["deny", "park"]
PlanName = Literal["self-hosted", "free", "hobby", "starter", "pro", "prime"]

SKIPS: Final = {
    "project_stopped": "The project's bots are stopped",
    "plan": "The project's plan does not allow this schedule",
    "bot_offline": "The bot is offline",
    "missed": "The slot passed while nobody could run it",
    "pending_approval": "An earlier run waits for approval",
    "overlap": "An earlier run is still going on",
    "rate_limited": "The project's runs of this hour are used up",
    "concurrency": "No place became free in time",
    "budget_exhausted": "The budget of this period is used up",
    "precheck": "The precheck said that there is nothing to do",
    "provider_unreachable": "The provider of the model cannot be reached",
    "runner_skip": "The runner said that there is nothing to do",
}
"""Why a run did not start, in words."""
COUNTING: Final = frozenset(
    {
        "provider_error",
        "no_model",
        "runtime_missing",
        "tool_crash",
        "invalid_output",
        "timeout",
        "limit_requests",
        "limit_tool_calls",
        "runner_error",
        "precheck_failed",
        "lost",
        "trifecta",
    }
)
"""Errors that count towards a pause."""
NOT_COUNTING: Final = frozenset({"budget_cut", "approval_expired"})
CANCELS: Final = {
    "user": "Cancelled by a person",
    "deleted": "Its schedule was deleted",
    "superseded": "A later run took its place",
    "stopped": "The project's bots were stopped",
}
LAST_WORDS_MS: Final = 5000
"""How long somebody else who does a run has to hear that it shall end, and to say what it cost."""
APPROVAL_MS: Final = 86_400_000
ENDED: Final = frozenset({"success", "error", "skipped", "cancelled"})
OPEN: Final = frozenset({"queued", "running", "waiting_approval"})
STATUSES: Final = get_args(RunStatus)


# Refusals -----------------------------------------------------------------------------------------------------------
class BotsRefusal(Exception):
    """Something about a request is wrong; what answers it knows the status. code: a word for programs."""

    code = ""


class InvalidBody(BotsRefusal):
    """The body is not a JSON object."""

    code = "invalid_body"

    def __init__(self) -> None:
        super().__init__("Request body must be a JSON object")


class MissingField(BotsRefusal):
    """A field that must be there is not."""

    code = "missing_field"

    def __init__(self, field: str) -> None:
        super().__init__(f"{field} is required")
        self.field = field


class InvalidField(BotsRefusal):
    """A field has a value that it cannot have."""

    code = "invalid_field"

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field


class BelowPlanMinimum(InvalidField):
    """The plan does not let schedules run this often."""

    code = "plan_minimum"

    def __init__(self, field: str, minutes: int) -> None:
        super().__init__(field, f"below the plan minimum of {minutes}")


class Trifecta(InvalidField):
    """Tools that read what strangers wrote, know private things and can send them away, with nobody to ask."""

    code = "trifecta"

    def __init__(self, field: str, bots: Sequence[str] = ()) -> None:
        """bots: whose tools these would become; none: those that were sent."""
        whose = "these tools" if not bots else f"the tools of {' and '.join(bots)} would"
        acknowledge = "acknowledge_trifecta" if bots else "lifesign.acknowledge_trifecta"
        super().__init__(
            field,
            f"together {whose} read what strangers wrote, see private data and can send it away; put those that "
            f"send into approval_tools, or set {acknowledge} with a key that has bots:admin",
        )


class ProjectForbidden(BotsRefusal):
    """The key is of another project, or there is no such project."""

    code = "forbidden"

    def __init__(self) -> None:
        super().__init__("This key has no access to the project")


class HeartbeatDisabled(BotsRefusal):
    """The bot's switch is off."""

    code = "heartbeat_disabled"

    def __init__(self) -> None:
        super().__init__("Heartbeat is not enabled for this bot")


class PlanForbids(BotsRefusal):
    """The plan has no schedules."""

    code = "plan"

    def __init__(self, plan: str) -> None:
        super().__init__(f"Plan '{plan}' does not include heartbeats")


class PlanFull(BotsRefusal):
    """The plan allows no further schedule of this bot."""

    code = "plan_count"

    def __init__(self, plan: str, most: int) -> None:
        super().__init__(f"Plan '{plan}' allows {most} heartbeats per bot")


class BotNotFound(BotsRefusal):
    """The project has no such bot."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("Bot not found")


class ScheduleNotFound(BotsRefusal):
    """The bot has no such schedule."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("Heartbeat not found")


class BotRunNotFound(BotsRefusal):
    """The project has no such run."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("Run not found")


class EntryNotFound(BotsRefusal):
    """The settings of the project have no such provider, server of tools or price."""

    code = "not_found"

    def __init__(self) -> None:
        super().__init__("Not found")


class LeaseLost(BotsRefusal):
    """Whoever ran it was away for too long; the run has ended otherwise."""

    code = "lease_lost"

    def __init__(self) -> None:
        super().__init__("The lease on this run has ended")


class NotWaiting(BotsRefusal):
    """There is nothing to approve."""

    code = "not_waiting"

    def __init__(self) -> None:
        super().__init__("The run is not waiting for approval")


class CallsLimited(BotsRefusal):
    """The plan's requests of this minute or day are used up."""

    code = "rate_limited"

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"Rate limit exceeded. Try again in {wait_s} seconds.")
        self.wait_s = wait_s


# Plans --------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Plan:
    """What a project may do. most_schedules: per bot; None: no limit. Floors are minutes."""

    name: PlanName
    may_enable: bool = True
    most_schedules: int | None = None
    interval_floor: int = 1
    cron_floor: int = 1
    per_minute: int | None = None
    per_day: int | None = None


_HOURLY: Final = 60
PLANS: Final[dict[str, Plan]] = {
    each.name: each
    for each in (
        Plan("self-hosted"),
        Plan("free", may_enable=False, most_schedules=0, per_minute=20, per_day=1000),
        Plan("hobby", may_enable=False, most_schedules=0, per_minute=20, per_day=1000),
        Plan("starter", most_schedules=3, interval_floor=15, cron_floor=_HOURLY, per_minute=60, per_day=10_000),
        Plan("pro", most_schedules=10, interval_floor=5, cron_floor=_HOURLY, per_minute=200, per_day=50_000),
        Plan("prime", most_schedules=20, interval_floor=5, cron_floor=_HOURLY, per_minute=200, per_day=50_000),
    )
}
DEFAULT_PLAN: Final = "self-hosted"


def fits_plan(plan: Plan, *, interval_minutes: int | None, least_cron_gap: float | None) -> bool:
    """Whether a schedule that was accepted before may still run."""
    if not plan.may_enable:
        return False
    if interval_minutes is not None:
        return interval_minutes >= plan.interval_floor
    return least_cron_gap is None or least_cron_gap >= plan.cron_floor


# Admission ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Facts:
    """What decides whether a run may start, at whichever door."""

    is_gone: bool = False
    """The schedule is deleted, or the bot's switch is off."""
    is_enabled: bool = True
    is_stopped: bool = False
    fits_plan: bool = True
    is_online: bool = True
    is_missed: bool = False
    waits_for_approval: bool = False
    is_running: bool = False
    is_queued: bool = False
    overlap: Overlap = "skip"
    is_rate_limited: bool = False
    has_no_place: bool = False
    is_budget_exhausted: bool = False
    is_precheck_asleep: bool = False
    is_provider_unreachable: bool = False


GONE: Final = "gone"
"""Refused without a row: there is nothing that a run could belong to."""


def admit(door: Door, kind: RunKind, facts: Facts) -> str | None:
    """Why a run may not start, the first reason that applies; None when it may.

    door: `tick` and `trigger` make runs and judge everything but budget and what needs the network; `start` and `claim`
    begin one that was queued, and judge again what may have changed since.
    """
    is_trigger = kind == "trigger"
    is_new = door in {"tick", "trigger"}
    checks: list[tuple[str, bool]] = [
        (GONE, facts.is_gone or (not facts.is_enabled and not is_trigger)),
        ("project_stopped", facts.is_stopped),
        ("plan", not facts.fits_plan),
        ("bot_offline", not facts.is_online),
        ("missed", is_new and facts.is_missed and not is_trigger),
        ("pending_approval", is_new and facts.waits_for_approval),
        ("overlap", is_new and _overlaps(facts)),
        ("rate_limited", facts.is_rate_limited),
        ("concurrency", not is_new and facts.has_no_place),
        ("budget_exhausted", not is_new and facts.is_budget_exhausted),
        ("precheck", not is_new and facts.is_precheck_asleep and not is_trigger),
        ("provider_unreachable", not is_new and facts.is_provider_unreachable and not is_trigger),
    ]
    return next((reason for reason, applies in checks if applies), None)


def _overlaps(facts: Facts) -> bool:
    match facts.overlap:
        case "skip":
            return facts.is_running or facts.is_queued
        case "queue_one":
            return facts.is_queued
        case "cancel_previous":
            return False


# Ends ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Counted:
    """Consecutive errors after a run, and whether they pause the schedule."""

    error_count: int
    is_paused: bool


def after_run(error_count: int, most_errors: int, kind: RunKind, status: RunStatus, reason: str | None) -> Counted:
    """What the end of a run does to the counter. most_errors: 0 never pauses."""
    if kind == "trigger":
        return Counted(error_count, is_paused=False)
    if status == "success":
        return Counted(0, is_paused=False)
    if status != "error" or reason not in COUNTING:
        return Counted(error_count, is_paused=False)
    now = error_count + 1
    return Counted(now, is_paused=0 < most_errors <= now)


def health_of(status: RunStatus, reason: str | None, *, is_paused: bool, counts_errors: bool) -> bool | None:
    """What the end of a run says to the heartbeat that watches its schedule; None: nothing.

    is_paused: the server itself has disabled the schedule. counts_errors: any error is bad news.
    """
    if status == "error":
        return not (is_paused or counts_errors or reason == "lost")
    return True if status == "success" or (status, reason) == ("skipped", "precheck") else None


def words_of(status: RunStatus, reason: str | None, message: str | None) -> str | None:
    """The sentence that tells why a run ended as it did."""
    if message:
        return message[:MAX_ERROR_MESSAGE]
    if status == "skipped":
        return SKIPS.get(reason or "", reason)
    return CANCELS.get(reason or "", reason) if status == "cancelled" else None


MAX_ERROR_MESSAGE: Final = 2000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a run may take. Credits in units."""

    timeout_ms: int
    max_requests: int = 20
    max_tool_calls: int = 40
    max_output_tokens: int = 1024
    max_units: int = 1_000_000
    min_units: int = 1000


_TIMEOUT_MOST_MS: Final = 600_000
_TIMEOUT_LEAST_MS: Final = 10_000
_PLACE_MOST_MS: Final = 3_600_000
TRIGGER_PLACE_MS: Final = 30_000


def limits_of(chosen: dict[str, Any], *, gap_ms: int | None, max_reply_tokens: int | None) -> Limits:
    """The limits of a run. chosen: those somebody set, by field; Any: numbers, of which some are credits in units."""
    usual = max(_TIMEOUT_LEAST_MS, min(gap_ms or _TIMEOUT_MOST_MS, _TIMEOUT_MOST_MS))
    seconds = chosen.get("timeout_seconds")
    return Limits(
        timeout_ms=usual if seconds is None else seconds * 1000,
        max_requests=chosen.get("max_requests", 20),
        max_tool_calls=chosen.get("max_tool_calls", 40),
        max_output_tokens=chosen.get("max_output_tokens") or max_reply_tokens or 1024,
        max_units=chosen.get("max_units_per_run", 1_000_000),
        min_units=chosen.get("min_run_units", 1000),
    )


def place_until(kind: RunKind, effective_at: EpochMs, now: EpochMs, gap_ms: int) -> EpochMs:
    """Until when a queued run waits for a free place. One that waits for another of its schedule has no such end."""
    if kind == "trigger":
        return EpochMs(now + TRIGGER_PLACE_MS)
    return EpochMs(max(effective_at, now) + min(gap_ms, _PLACE_MOST_MS))
