"""What is true of runs: what each report does in each state, and when a run has been silent, or busy, for too long."""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from lifesign.clock import EpochMs

RunStatus = Literal["running", "finished", "failed", "stalled", "overdue", "superseded", "abandoned"]
CLOSED: frozenset[RunStatus] = frozenset({"finished", "failed", "superseded", "abandoned"})
# The newest of a heartbeat.
KEPT = 1000
ABANDONED_AFTER_MS = 7 * 86_400_000


_RUN_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")


def is_run_id(value: str) -> bool:
    """Whether a caller may call a run so."""
    return _RUN_ID.fullmatch(value) is not None


class RunNotFound(Exception):
    """The heartbeat has no run with this id."""


class RunRefused(Exception):
    """What was reported makes no sense in the run's present state."""

    def __init__(self, status: RunStatus) -> None:
        super().__init__(f"Run is {status}")
        self.status = status


# A tuple: a frozen dataclass takes three times as long to make, and each report of progress makes two of them.
class Run(NamedTuple):
    """A run, whole. Instants are epoch ms; `metadata` is JSON text."""

    id: str
    project_id: str
    heartbeat_id: str
    run_id: str
    status: RunStatus
    started_at: EpochMs
    progress_at: EpochMs | None
    lease_ms: int | None
    lease_until: EpochMs | None
    limit_at: EpochMs | None
    finished_at: EpochMs | None
    is_watched: bool
    message: str | None
    metadata: str | None

    @property
    def is_open(self) -> bool:
        """Whether it may still report."""
        return self.status not in CLOSED

    @property
    def due_at(self) -> EpochMs | None:
        """When it has been silent, or busy, for too long; None while nothing is expected of it."""
        if not self.is_watched or self.status != "running":
            return None
        return min((at for at in (self.lease_until, self.limit_at) if at is not None), default=None)

    @property
    def duration_ms(self) -> int | None:
        """From start to finish; None before that."""
        return None if self.finished_at is None else max(0, self.finished_at - self.started_at)


@dataclass(frozen=True, slots=True)
class Report:
    """What a running job says of itself."""

    lease_ms: int | None = None
    message: str | None = None
    metadata: str | None = None


def progressed(run: Run, report: Report, now: EpochMs, *, is_watched: bool) -> Run:
    """The run after a sign of progress: its lease counts from now. Raises RunRefused.

    A stalled one runs again; one that is overdue stays so, and what it says is recorded. A report that arrived earlier
    than another, and is written later, takes nothing back. is_watched: whether its heartbeat is.
    """
    if not run.is_open:
        raise RunRefused(run.status)
    now = now if run.progress_at is None else max(now, run.progress_at)
    lease_ms = run.lease_ms if report.lease_ms is None else report.lease_ms
    return run._replace(
        status="running" if run.status == "stalled" else run.status,
        progress_at=now,
        lease_ms=lease_ms,
        lease_until=None if lease_ms is None else EpochMs(now + lease_ms),
        is_watched=is_watched,
        message=run.message if report.message is None else report.message,
        metadata=run.metadata if report.metadata is None else report.metadata,
    )


def finished(run: Run, report: Report, now: EpochMs, *, ok: bool) -> Run | None:
    """The run after its end; None when it had ended just so before. Raises RunRefused."""
    status: RunStatus = "finished" if ok else "failed"
    if run.status == status:
        return None
    if not run.is_open:
        raise RunRefused(run.status)
    return run._replace(
        status=status,
        finished_at=now,
        message=run.message if report.message is None else report.message,
        metadata=run.metadata if report.metadata is None else report.metadata,
    )


def passed(run: Run, now: EpochMs) -> Run | None:
    """The run as `overdue` past its limit, `stalled` past its lease; None while neither is the case."""
    if run.due_at is None or run.due_at > now:
        return None
    is_over = run.limit_at is not None and run.limit_at <= now
    return run._replace(status="overdue" if is_over else "stalled")


def extended(run: Run, until: EpochMs) -> Run:
    """The run, which may be silent, and busy, until then at least."""
    return run._replace(
        lease_until=None if run.lease_until is None else max(run.lease_until, until),
        limit_at=None if run.limit_at is None else max(run.limit_at, until),
    )


def earliest_due(runs: Iterable[Run]) -> EpochMs | None:
    """When the first of them has been silent or busy for too long."""
    return min((run.due_at for run in runs if run.due_at is not None), default=None)


@dataclass(frozen=True, slots=True)
class Durations:
    """How long the runs took that ended well, in ms. Percentiles by nearest rank."""

    count: int
    shortest: int
    median: int
    p95: int
    longest: int


def durations(taken_ms: Sequence[int]) -> Durations | None:
    """Statistics of durations; None of none."""
    if not taken_ms:
        return None
    ordered = sorted(taken_ms)

    def rank(share: float) -> int:
        return ordered[math.ceil(share * len(ordered)) - 1]

    return Durations(len(ordered), ordered[0], rank(0.5), rank(0.95), ordered[-1])
