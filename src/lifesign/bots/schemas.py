"""What the Bots API looks like on the wire: answers, and how `/openapi.json` describes them."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from pydantic import BaseModel, Field

from lifesign import schedule as zones
from lifesign.bots import timing
from lifesign.bots.budget import credits_of
from lifesign.bots.records import Bot, Member, ProjectSettings, Schedule
from lifesign.bots.schedules import Shown
from lifesign.bots.tools import SERVER_LABELS
from lifesign.clock import EpochMs, rfc3339
from lifesign.http.describe import EXAMPLE_REQUEST_ID, Envelope, Refusal
from lifesign.http.fields import optional

# Any, throughout: JSON.
Json = dict[str, Any]
MAX_NEXT_RUNS = 10


def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)


# Out: bots ----------------------------------------------------------------------------------------------------------
def bot(found: Bot, runner_secret: str | None = None) -> Json:
    """A bot. runner_secret: in the answer that made it, and never again."""
    return {
        "id": found.number,
        "uuid": found.id,
        "name": found.name,
        "model": found.model,
        "instruction": found.instruction,
        "max_reply_tokens": found.max_reply_tokens,
        "top": found.top,
        "status": int(found.is_online),
        "heartbeat": int(found.is_scheduling),
        "created_at": rfc3339(found.created_at),
        "updated_at": rfc3339(found.updated_at),
        "lifesign": _bot_options(found, runner_secret),
    }


def _bot_options(found: Bot, runner_secret: str | None) -> Json:
    options = found.options
    runner = {name: value for name, value in options.runner.items() if name != "secret"}
    if runner_secret is not None:
        runner["secret"] = runner_secret
    return {
        "provider": options.provider,
        "fallback_models": list(options.fallback_models),
        "credits_per_1k_tokens": credits_of(options.units_per_1k),
        "runner": runner,
        "tools": list(options.tools),
        "approval_tools": list(options.approval_tools),
        "telemetry_content": options.telemetry_content,
    } | _told_if_any(acknowledge_trifecta=options.has_acknowledged, origin=options.origin)


def _told_if_any(**values: bool | str | None) -> Json:
    """What most never have, and so is there only where it is."""
    return {name: value for name, value in values.items() if value}


def bot_changes(before: Bot, after: Bot, runner_secret: str | None) -> Json:
    """Id, time, and what differs."""
    old, new = bot(before), bot(after, runner_secret)
    kept = {"id", "uuid", "updated_at"}
    return {name: value for name, value in new.items() if name in kept or old[name] != value}


def pagination(page: int, per_page: int, total: int) -> Json:
    """Where a page stands."""
    return {"page": page, "per_page": per_page, "total": total, "total_pages": -(-total // per_page)}


def subscriber(found: Member) -> Json:
    """A member."""
    return {
        "id": found.number,
        "uuid": found.id,
        "external_id": found.external_id,
        "name": found.name,
        "email": found.email,
        "created_at": rfc3339(found.created_at),
    }


# Out: schedules -----------------------------------------------------------------------------------------------------
def heartbeat(found: Shown, *, is_whole: bool = False) -> Json:
    """A schedule, as the wire calls it. is_whole: with its next runs."""
    schedule = found.schedule
    return {
        "uuid": schedule.id,
        "bot_id": found.bot.number,
        "member_id": found.member.number if found.member else None,
        "prompt": schedule.prompt,
        "enabled": int(schedule.is_enabled),
        **timing.shown(schedule.timing),
        "credit_budget": None if schedule.budget is None else credits_of(schedule.budget),
        "credits_used": credits_of(found.spent),
        "last_executed_at": _time(schedule.last_executed_at),
        "last_status": schedule.last_status,
        "execution_count": schedule.execution_count,
        "error_count": schedule.error_count,
        "max_consecutive_errors": schedule.max_errors,
        "created_at": rfc3339(schedule.created_at),
        "updated_at": rfc3339(schedule.updated_at),
        "lifesign": _schedule_extra(found) | ({"next_runs": next_runs(schedule)} if is_whole else {}),
    }


def next_runs(schedule: Schedule) -> list[str]:
    """When a schedule runs next."""
    if schedule.next_slot is None:
        return []
    later = timing.slots_after(schedule.timing, schedule.next_slot, MAX_NEXT_RUNS - 1)
    return [rfc3339(each) for each in [schedule.next_slot, *later]]


def _schedule_extra(found: Shown) -> Json:
    schedule, options = found.schedule, found.schedule.options
    return {
        "bot_uuid": found.bot.id,
        "member_uuid": found.member.id if found.member else None,
        "next_run_at": _time(schedule.next_run_at),
        "credits_reserved": credits_of(found.reserved),
        "period_start": rfc3339(found.period.start),
        "period_end": rfc3339(found.period.end),
        "paused_reason": schedule.paused_reason,
        "paused_by": schedule.paused_by,
        "paused_at": _time(schedule.paused_at),
        "last_error": schedule.last_error,
        "running_run": found.running_run,
        "jitter_seconds": options.jitter_seconds,
        "overlap": options.overlap,
        "catch_up": options.catch_up,
        "catch_up_window_seconds": options.catch_up_window_seconds,
        "session": options.session,
        "limits": _limits(options.limits),
        "notify": options.notify,
        "precheck": options.precheck,
        "tools": None if options.tools is None else list(options.tools),
        "approval": options.approval,
        "retry_lost": options.retry_lost,
        "watch": options.watch,
    } | _told_if_any(origin=options.origin)


def _limits(stored: Mapping[str, Any]) -> Json:
    shown = {name: value for name, value in stored.items() if not name.startswith(("max_units", "min_run_units"))}
    for name, units in (("max_credits_per_run", "max_units_per_run"), ("min_run_credits", "min_run_units")):
        if units in stored:
            shown[name] = credits_of(stored[units])
    return shown


def slots(zone: str, found: Sequence[EpochMs]) -> list[Json]:
    """Slots of a preview, in UTC and as the clock on the wall shows them."""
    return [
        {
            "slot": f"{rfc3339(each)[:19]}Z",
            "local": zones.reading_in(each, zone).isoformat(timespec="seconds"),
        }
        for each in found
    ]


def deleted(message: str) -> Json:
    """The answer of what leaves nothing to show."""
    return {"success": True, "message": message}


# Out: settings ------------------------------------------------------------------------------------------------------
def settings(found: ProjectSettings, server_providers: Sequence[Mapping[str, Any]] = ()) -> Json:
    """Settings without secrets."""
    options = found.options
    return {
        "plan": found.plan,
        "prices": [
            {name: value if name == "model" else float(Decimal(value)) for name, value in each.items()}
            for each in options.prices
        ],
        "max_concurrent_runs": options.max_concurrent_runs,
        "max_runs_per_hour": options.max_runs_per_hour,
        "stopped": int(found.stopped_at is not None),
        "default_model": options.default_model,
        "providers": [
            *(_provider(each) for each in options.providers),
            *(_provider(each) for each in server_providers),
        ],
        "mcp_servers": [_mcp_server(each) for each in options.mcp_servers],
        "budget_period": options.budget_period,
        "billing_timezone": options.billing_timezone,
        "notify_channels": list(options.notify_channels),
    }


def _provider(stored: Mapping[str, Any]) -> Json:
    hint = stored.get("hint")
    return {
        "name": stored["name"],
        "kind": stored["kind"],
        "base_url": stored.get("base_url"),
        "api_key": None if hint is None else f"****{hint}",
    }


def _mcp_server(stored: Mapping[str, Any]) -> Json:
    labels = stored.get("labels", sorted(SERVER_LABELS))
    return {"name": stored["name"], "url": stored["url"], "labels": list(labels)}


# Described ----------------------------------------------------------------------------------------------------------
class BotErrorDetail(BaseModel):
    """What is wrong."""

    status: int = Field(description="The status of the answer.")
    code: str = Field(description="A word for programs.")
    field: str = optional("The field that is to blame, where one is.")
    request_id: str = Field(description="The answer's `X-Request-Id`; the server's log has it too.")


class BotError(BaseModel):
    """The error envelope of the Bots API."""

    error: BotErrorDetail
    message: str = Field(description="A sentence for people.")


class ShownBot(BaseModel):
    """An agent."""

    id: int
    uuid: str
    name: str
    model: str | None
    instruction: str | None
    max_reply_tokens: int | None
    top: int | None = Field(description="Kept, without effect.")
    status: Literal[0, 1] = Field(description="1: online.")
    heartbeat: Literal[0, 1] = Field(description="Whether its schedules run.")
    created_at: datetime
    updated_at: datetime
    lifesign: dict[str, Any] = Field(description="Provider, prices, runner and tools.")


class BotBody(BaseModel):
    """A bot."""

    bot: ShownBot


class ChangedBot(BaseModel):
    """Id, time, and the fields whose value changed."""

    id: int
    uuid: str
    updated_at: datetime


class BotChangesBody(BaseModel):
    """What changed."""

    bot: ChangedBot


class Pagination(BaseModel):
    """Where the page stands."""

    page: int
    per_page: int
    total: int
    total_pages: int


class BotListBody(BaseModel):
    """Bots, newest first."""

    bots: list[ShownBot]
    pagination: Pagination
    next_cursor: str = optional("With `limit` or `cursor`: present when there are more.")


class DoneBody(BaseModel):
    """Done."""

    success: Literal[True]
    message: str


class ShownSchedule(BaseModel):
    """A schedule: when a bot runs, and with which prompt."""

    uuid: str
    bot_id: int
    member_id: int | None
    prompt: str
    enabled: Literal[0, 1]
    interval_minutes: int | None
    active_hours_start: str | None
    active_hours_end: str | None
    active_days: str | None
    cron_pattern: str | None
    timezone: str
    credit_budget: float | None
    credits_used: float
    last_executed_at: datetime | None
    last_status: Literal["success", "error", "skipped", "cancelled"] | None
    execution_count: int
    error_count: int
    max_consecutive_errors: int
    created_at: datetime
    updated_at: datetime
    lifesign: dict[str, Any] = Field(description="Next run, budget, pause and options.")


class HeartbeatBody(BaseModel):
    """A schedule."""

    heartbeat: ShownSchedule


class HeartbeatListBody(BaseModel):
    """Schedules of a bot, in the order in which they were made."""

    heartbeats: list[ShownSchedule]
    next_cursor: str = optional("Present when there are more.")


class PreviewSlot(BaseModel):
    """One slot."""

    slot: str = Field(description="In UTC, whole seconds.")
    local: str = Field(description="As the clock of the zone shows it.")


class PreviewBody(BaseModel):
    """When a schedule with this timing would run."""

    slots: list[PreviewSlot]


class ShownSubscriber(BaseModel):
    """Somebody a schedule may belong to."""

    id: int
    uuid: str
    external_id: str | None
    name: str | None
    email: str | None
    created_at: datetime


class SubscriberBody(BaseModel):
    """A subscriber."""

    subscriber: ShownSubscriber


class SubscriberListBody(BaseModel):
    """Subscribers, newest first."""

    subscribers: list[ShownSubscriber]
    pagination: Pagination
    next_cursor: str = optional("With `limit` or `cursor`: present when there are more.")


class ShownBotSettings(BaseModel):
    """What holds for all bots of a project."""

    plan: str
    prices: list[dict[str, Any]]
    max_concurrent_runs: int
    max_runs_per_hour: int
    stopped: Literal[0, 1]
    default_model: str | None
    providers: list[dict[str, Any]]
    mcp_servers: list[dict[str, Any]]
    budget_period: Literal["month", "week", "day"]
    billing_timezone: str
    notify_channels: list[str]


class SettingsBody(BaseModel):
    """The settings of a project's bots."""

    settings: ShownBotSettings


Id = str | int


class ProjectRef(BaseModel):
    """The project."""

    project_id: str = Field(examples=["default"])


class BotRef(ProjectRef):
    """A bot: its `uuid`, its `id`, or that as text."""

    bot_id: Id = Field(examples=[1])


class HeartbeatRef(BotRef):
    """A schedule of a bot."""

    heartbeat_id: str


class NewBot(ProjectRef):
    """What a bot is made of. Whatever else is sent is ignored."""

    name: str = Field(min_length=1, max_length=200, examples=["Night watch"])
    model: str | None = Field(None, max_length=200, description="The project's `default_model` when absent.")
    instruction: str | None = Field(None, max_length=100_000)
    max_reply_tokens: int | None = Field(None, ge=1, le=131_072)
    top: int | None = None
    status: bool | int | str | None = Field(1, description="Whether it is online.")
    heartbeat: bool | int | str | None = Field(0, description="Whether its schedules run.")
    lifesign: dict[str, Any] | None = optional("Provider, prices, runner and tools.")


class BotUpdate(BotRef):
    """Any field of a bot; what is absent stays."""

    name: str | None = optional()
    model: str | None = None
    instruction: str | None = None
    max_reply_tokens: int | None = None
    top: int | None = None
    status: bool | int | str | None = optional()
    heartbeat: bool | int | str | None = optional()
    lifesign: dict[str, Any] | None = optional()


class TimingFields(ProjectRef):
    """When a schedule runs."""

    interval_minutes: int | None = optional("1 to 44,640; 30 when no timing is given.")
    cron_pattern: str | None = Field(None, description="Five fields, or `@daily` and the like.")
    active_hours_start: str | None = Field(None, description="`HH:MM`; only with an interval.")
    active_hours_end: str | None = Field(None, description="`HH:MM`, exclusive; before the start: on the next day.")
    active_days: str | None = Field(None, description="`1,2,3`: 1 is Monday.")
    timezone: str | None = optional("Of IANA; `UTC` when absent.")


class Configuration(TimingFields):
    """A schedule: the same bot, member and prompt again is the same schedule."""

    bot_id: Id = Field(examples=[1])
    prompt: str = Field(min_length=1, max_length=50_000, examples=["Look at the error log and tell what is new."])
    uuid: str | None = optional("Edit this schedule, whatever its prompt.")
    member_id: Id | None = None
    enabled: bool | int | str | None = optional("false when absent.")
    credit_budget: float | None = Field(None, ge=0, description="Credits per period; null: no limit.")
    max_consecutive_errors: int | None = optional("5 when absent; 0: never pause.")
    lifesign: dict[str, Any] | None = optional("Jitter, overlap, catching up, limits, notices.")


class PreviewFields(TimingFields):
    """A timing to look at."""

    after: datetime | None = optional("The last slot; now when absent.")
    count: int | None = optional("1 to 100; 10 when absent.")


class NewSubscriber(ProjectRef):
    """Somebody a schedule may belong to."""

    external_id: str | None = Field(None, max_length=128)
    name: str | None = Field(None, max_length=200)
    email: str | None = Field(None, max_length=254)


class SettingsChange(ProjectRef):
    """Settings to change. `plan`, `prices` and the two limits need `bots:admin`."""

    plan: str | None = optional()
    prices: list[dict[str, Any]] | None = optional()
    max_concurrent_runs: int | None = optional()
    max_runs_per_hour: int | None = optional()
    default_model: str | None = None
    providers: list[dict[str, Any]] | None = optional()
    mcp_servers: list[dict[str, Any]] | None = optional()
    budget_period: Literal["month", "week", "day"] | None = optional()
    billing_timezone: str | None = optional()
    notify_channels: list[str] | None = optional()
    acknowledge_trifecta: bool | int | str | None = optional("Let bots keep tools that new labels make dangerous.")


_ERRORS = {
    400: Refusal("Something in the request is wrong; `error.field` names it.", "missing_field", "prompt is required"),
    401: Refusal(
        "No key, or one that is unknown, revoked or expired.",
        "unauthorized",
        "Unauthorized: Invalid API key",
        header="WWW-Authenticate",
    ),
    403: Refusal(
        "The key is of another project or lacks a scope, or the plan or the bot's switch forbids it.",
        "forbidden",
        "This key lacks the scope bots:write",
    ),
    404: Refusal("No such object in this project.", "not_found", "Bot not found"),
    409: Refusal(
        "The lease on the run has ended, or the run is not waiting for approval.",
        "lease_lost",
        "The lease on this run has ended",
    ),
    413: Refusal("The body is larger than 1 MiB.", "too_large", "Request body is larger than 1 MiB"),
    429: Refusal(
        "The plan's requests of this minute or day are used up; wait for the seconds in `Retry-After`.",
        "rate_limited",
        "Rate limit exceeded. Try again in 7 seconds.",
        header="Retry-After",
    ),
    500: Refusal("A fault of the server; its log has the `request_id`.", "internal", "Internal error"),
    503: Refusal(
        "The storage did not take it and nothing was written: try again after `Retry-After` seconds.",
        "unavailable",
        "Storage is not available, try again",
        header="Retry-After",
    ),
}


def _example(status: int, refusal: Refusal) -> Json:
    told = {"status": status, "code": refusal.code, "request_id": EXAMPLE_REQUEST_ID}
    return {"error": told, "message": refusal.message}


ENVELOPE = Envelope(BotError, _ERRORS, _example)
