"""Wire models of runs."""

from datetime import datetime
from typing import Annotated, Any, Literal

import orjson
from pydantic import AfterValidator, Field, StrictStr, WithJsonSchema

from lifesign.clock import EpochMs, rfc3339
from lifesign.http.answers import without_absent
from lifesign.http.fields import Body, Bool, Integer, LongText, Metadata, optional
from lifesign.runs.rules import Durations, Report, Run, is_run_id

_S = 1000
MAX_LEASE_S, MAX_RUN_S = 86_400, 31_536_000
MAX_MESSAGE = 1000
STATUSES = ("running", "finished", "failed", "stalled", "overdue", "superseded", "abandoned")
StatusWord = Literal["running", "finished", "failed", "stalled", "overdue", "superseded", "abandoned"]


def _run_id(value: str) -> str:
    if not is_run_id(value):
        msg = "must be 1 to 64 characters of A-Z, a-z, 0-9, ., _, : and -"
        raise ValueError(msg)
    return value


RunId = Annotated[
    StrictStr, AfterValidator(_run_id), WithJsonSchema({"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,64}$"})
]
Lease = Annotated[int, Integer(1, MAX_LEASE_S)]


class NewRun(Body):
    """A run that begins; every member is optional, and so is the body."""

    runId: RunId = optional("Yours, to start it only once; made when omitted.", ["nightly-2030-03-08"])
    lease: Lease = optional("Seconds by which progress or the end must come, again and again.", [300])
    maxDuration: Annotated[int, Integer(1, MAX_RUN_S)] = optional("Seconds it may take in all.", [7200])
    metadata: Metadata = optional()


class Progress(Body):
    """A sign of progress; every member is optional, and so is the body."""

    lease: Lease = optional("Another lease from now on, in seconds.")
    message: Annotated[str, LongText(MAX_MESSAGE)] = optional(examples=["table 3 of 12"])
    metadata: Metadata = optional("Replaces the run's.")


class Finish(Body):
    """The end of a run, which is a check-in; every member is optional, and so is the body."""

    ok: Bool = Field(default=True, description="false: an unhealthy check-in.")
    message: Annotated[str, LongText(MAX_MESSAGE)] = optional()
    metadata: Metadata = optional("Replaces the run's, and the heartbeat's.")


NEW_RUNS: dict[str, dict[str, Any]] = {"with progress every five minutes": {"lease": 300, "maxDuration": 7200}}


class ShownRun(Body):
    """One execution of the watched job."""

    runId: str = Field(examples=["hbr_0199e6a1b2c37d4e8f00112233445566"])
    status: StatusWord
    startedAt: datetime
    lastProgressAt: datetime = optional()
    leaseExpiresAt: datetime = optional("By then progress or the end must come.")
    limitAt: datetime = optional("By then the end must come.")
    finishedAt: datetime = optional()
    durationMs: int = optional()
    message: str = optional()
    metadata: dict[str, Any] = optional()


class ShownDurations(Body):
    """How long those of the newest 1,000 runs took that ended well, in ms."""

    count: int
    shortestMs: int
    medianMs: int
    p95Ms: int
    longestMs: int


class RunList(Body):
    """Runs, newest first."""

    runs: list[ShownRun]
    durations: ShownDurations = optional("On the first page, once a run has ended well.")
    nextCursor: str = optional("Present when there are more.")


def report_of(body: NewRun | Progress | Finish) -> Report:
    """What a body says of its run."""
    given = body.given()
    return Report(
        lease_ms=None if isinstance(body, Finish) or "lease" not in given else body.lease * _S,
        message=None if isinstance(body, NewRun) else body.message,
        metadata=orjson.dumps(body.metadata).decode() if "metadata" in given else None,
    )


def shown(run: Run) -> dict[str, Any]:  # Any: JSON
    """A run on the wire."""
    return without_absent(
        {
            "runId": run.run_id,
            "status": run.status,
            "startedAt": rfc3339(run.started_at),
            "lastProgressAt": _time(run.progress_at),
            "leaseExpiresAt": _time(run.lease_until) if run.is_open else None,
            "limitAt": _time(run.limit_at),
            "finishedAt": _time(run.finished_at),
            "durationMs": run.duration_ms,
            "message": run.message,
            "metadata": None if run.metadata is None else orjson.Fragment(run.metadata),
        }
    )


def shown_durations(durations: Durations) -> dict[str, int]:
    """Statistics on the wire."""
    return {
        "count": durations.count,
        "shortestMs": durations.shortest,
        "medianMs": durations.median,
        "p95Ms": durations.p95,
        "longestMs": durations.longest,
    }


def _time(at: EpochMs | None) -> str | None:
    return None if at is None else rfc3339(at)
