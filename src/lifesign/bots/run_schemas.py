"""What runs look like on the wire, and how `/openapi.json` describes them."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, Field

from lifesign.bots.budget import credits_of
from lifesign.bots.records import Run
from lifesign.bots.runners.contract import job_of
from lifesign.bots.schemas import Id, Json, Pagination, ProjectRef
from lifesign.bots.starting import Started
from lifesign.bots.statistics import TYPES
from lifesign.clock import EpochMs, rfc3339
from lifesign.http.fields import optional


def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)


# Out ----------------------------------------------------------------------------------------------------------------
def result(run: Run) -> Json:
    """What became of a run that was triggered."""
    return {
        "status": run.status,
        "response": run.response if run.response is not None else run.error_message,
        "duration_ms": run.duration_ms or 0,
        "tokens_used": run.input_tokens + run.output_tokens,
        "credits_charged": credits_of(run.credits),
        "error_message": run.error_message,
        "run_id": run.id,
        "reason": run.reason,
    }


def log(run: Run) -> Json:
    """A run in a log."""
    return {
        "uuid": run.id,
        "type": TYPES[run.kind],
        "status": run.status,
        "prompt": run.prompt,
        "response": run.response,
        "duration_ms": run.duration_ms,
        "tokens_used": run.input_tokens + run.output_tokens,
        "credits_charged": credits_of(run.credits),
        "error_message": run.error_message,
        "created_at": rfc3339(run.created_at),
        "lifesign": {
            "heartbeat_id": run.schedule_id,
            "kind": run.kind,
            "reason": run.reason,
            "slot": _time(run.slot),
            "effective_at": rfc3339(run.effective_at),
            "started_at": _time(run.started_at),
            "finished_at": _time(run.finished_at),
            "count": run.count,
            "first_slot": _time(run.first_slot),
            "last_slot": _time(run.last_slot),
            "missed_count": run.missed_count,
            "input_tokens": run.input_tokens,
            "output_tokens": run.output_tokens,
            "requests": run.requests,
            "tool_calls": run.tool_calls,
            "usage_estimated": bool(run.is_estimated),
            "notify": None if run.notice is None else msgspec.json.decode(run.notice),
            "trace_id": run.id.removeprefix("run_"),
            "runner": run.runner,
            "model": run.model,
            "tools": [] if run.tools is None else msgspec.json.decode(run.tools),
            "approve_until": _time(run.parked_until) if run.status == "waiting_approval" else None,
        },
    }


def entry(stored: Mapping[str, Any]) -> Json:
    """One piece of a transcript."""
    return {**stored, "at": rfc3339(EpochMs(stored["at"]))}


def claimed(started: Started) -> Json:
    """A job and the lease on it."""
    return job_of(started) | {
        "lease_token": started.run.lease_token,
        "lease_until": _time(started.run.lease_until),
    }


def beat(until: EpochMs, *, is_cancelled: bool) -> Json:
    """Until when the lease goes on, and whether the run shall end."""
    return {"lease_until": rfc3339(until), "cancel": is_cancelled}


# Described ----------------------------------------------------------------------------------------------------------
class RunResult(BaseModel):
    """What became of it. A run that failed or was refused is answered with 200, too."""

    status: Literal["success", "error", "skipped", "cancelled", "waiting_approval"]
    response: str | None
    duration_ms: int
    tokens_used: int
    credits_charged: float
    error_message: str | None
    run_id: str
    reason: str | None = Field(description="Why it was refused, or why it failed.")


class ResultBody(BaseModel):
    """What became of it."""

    result: RunResult


class AcceptedRun(BaseModel):
    """A run that goes on by itself, or was refused."""

    uuid: str
    status: str
    reason: str | None


class AcceptedBody(BaseModel):
    """The run, which goes on by itself."""

    run: AcceptedRun


class ShownRun(BaseModel):
    """A run."""

    uuid: str
    type: Literal["heartbeat", "trigger"] = Field(description="`heartbeat`: by its schedule.")
    status: Literal["success", "error", "skipped", "cancelled", "queued", "running", "waiting_approval"]
    prompt: str
    response: str | None
    duration_ms: int | None
    tokens_used: int
    credits_charged: float
    error_message: str | None
    created_at: datetime
    lifesign: dict[str, Any] = Field(description="Reason, slot, times, usage, and who was told.")


class RunBody(BaseModel):
    """A run."""

    run: ShownRun


class LogsBody(BaseModel):
    """Runs, newest first."""

    total: int
    logs: list[ShownRun]
    pagination: Pagination
    next_cursor: str = optional("With `limit` or `cursor`: present when there are more.")


class TranscriptEntry(BaseModel):
    """One thing that was said."""

    at: datetime
    role: Literal["system", "user", "assistant", "tool"]
    content: str


class TranscriptBody(BaseModel):
    """What was said in a run."""

    transcript: list[TranscriptEntry]
    truncated: bool = Field(description="Whether the rest was left out: a transcript has at most 1 MiB.")


class DayOfStats(BaseModel):
    """One UTC day."""

    date: str
    total: int
    success: int
    error: int


class ShownStats(BaseModel):
    """What became of a bot's runs."""

    total_executions: int
    success_count: int
    error_count: int
    skipped_count: int
    success_rate: float = Field(description="Per cent of successes among successes and errors.")
    total_tokens: int
    total_credits: float
    avg_duration_ms: float
    active_heartbeats: int
    by_type: dict[str, int]
    time_series: list[DayOfStats] = Field(description="Each day, oldest first.")
    lifesign: dict[str, Any] = Field(description="Cancelled runs; numbers by reason and by model.")


class StatsBody(BaseModel):
    """Numbers of some days."""

    stats: ShownStats


class StoppedBody(BaseModel):
    """Nothing runs any more."""

    stopped: Literal[1]
    cancelled: int


class ResumedBody(BaseModel):
    """Runs begin again."""

    stopped: Literal[0]


class ShownJob(BaseModel):
    """A job and the lease on it."""

    run_id: str
    slot: datetime | None = Field(description="null: it was triggered.")
    model: str | None
    prompt: str
    instruction: str | None
    remaining_credits: float | None = Field(description="null: unlimited.")
    deadline: datetime
    lease_token: int
    lease_until: datetime


class ClaimedBody(BaseModel):
    """A run to be done, or null."""

    run: ShownJob | None


class BeatBody(BaseModel):
    """How it goes on."""

    lease_until: datetime
    cancel: bool = Field(description="Whether the run shall end.")


class RunRef(ProjectRef):
    """A run."""

    run_id: str


class Approval(RunRef):
    """A decision about the call of a tool that a run waits with."""

    approve: bool | int | str


class Stop(ProjectRef):
    """How to stop."""

    reason: str | None = optional("For those who ask why nothing runs.")
    cancel_running: bool | int | str | None = optional("true when absent.")


class Claim(ProjectRef):
    """Which runs to take."""

    bot_id: Id | None = optional("Of this bot only.")
    wait_seconds: int | None = optional("0 to 30: how long to wait for one.")


class UsageSoFar(BaseModel):
    """Of the whole run, from its beginning."""

    input_tokens: int | None = optional()
    output_tokens: int | None = optional()
    requests: int | None = optional()


class Beat(BaseModel):
    """A run that goes on. With the one-run token of a job neither `project_id` nor `lease_token` is needed."""

    project_id: str | None = optional()
    run_id: str | None = optional()
    lease_token: int | None = optional()
    usage: UsageSoFar | None = optional()
    log: str | None = optional()


class FinishBotRun(Beat):
    """A run that ended."""

    status: Literal["success", "error"]
    response: str | None = None
    report: dict[str, Any] | None = Field(None, description="`noteworthy`, `severity`, `title`, `body`, `dedupe_key`.")
    error_message: str | None = None
