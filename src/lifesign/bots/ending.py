"""Ends of runs: each settled, counted, told and followed by what waited for it, in one transaction.

Locks are taken in this order: settings of the project, schedule, run, account.
"""

from dataclasses import replace
from typing import Any

import msgspec
from sqlalchemy import Connection

from lifesign.bots import activity, notices, reports, rules, run_store, schedules, store
from lifesign.bots.notices import Subject
from lifesign.bots.outcomes import Outcome, Parked
from lifesign.bots.records import Run, Schedule, new_run
from lifesign.bots.reports import Report
from lifesign.bots.rules import Counted, LeaseLost, RunStatus
from lifesign.bots.running import held, run_of
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit

_HOUR_MS = 3_600_000


def finish(conn: Connection, run_id: str, token: int, outcome: Outcome, now: EpochMs) -> Run:
    """End a run that is held under this token. Raises LeaseLost."""
    seen = run_store.run_by_id(conn, run_id)
    if seen is None:
        raise LeaseLost
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = held(conn, run_id, token)
    if run.cancel_reason is not None and outcome.status not in {"success", "error"}:
        outcome = replace(outcome, status="cancelled", reason=run.cancel_reason)
    return _finish(conn, run, schedule, outcome, now)


def _finish(conn: Connection, run: Run, schedule: Schedule | None, outcome: Outcome, now: EpochMs) -> Run:
    run = _settle(conn, run, schedule)
    took_ms = (run.duration_ms or 0) + (max(0, now - (run.started_at or now)) if run.status == "running" else 0)
    if outcome.parked is not None:
        return _park(conn, run, schedule, outcome.parked, took_ms=took_ms, now=now)
    if outcome.status == "skipped":
        end_queued(conn, run, "skipped", outcome.reason or "", now)
        return run_store.run_by_id(conn, run.id) or replace(run, status="skipped", reason=outcome.reason)
    message = rules.words_of(outcome.status, outcome.reason, outcome.error_message)
    values: dict[str, Any] = {
        "status": outcome.status,
        "reason": outcome.reason,
        "response": None if outcome.response is None else reports.cut(outcome.response, reports.MAX_RESPONSE_BYTES),
        "error_message": message,
        "finished_at": now,
        "duration_ms": took_ms,
        # Its token stays, so that who comes back with it is told what became of the lease.
        "lease_until": None,
    }
    run = replace(run, **values)
    if schedule is not None:
        values["notice"] = _follow_up(conn, run, schedule, outcome, now)
    run_store.set_run(conn, run.id, values | {"parked": None, "parked_until": None})
    activity.changed(conn, [run], now)
    _let_next(conn, run.schedule_id, now)
    return replace(run, notice=values.get("notice"), parked_until=None)


def _let_next(conn: Connection, schedule_id: str, now: EpochMs) -> None:
    """What waited for the end of a run, or for its place, may begin; from here on it waits for a place only."""
    waiting = run_store.free_places(conn, schedule_id)
    if waiting:
        schedule = store.schedules_by_id(conn, [schedule_id]).get(schedule_id)
        gap_ms = None if schedule is None else schedule.gap_ms
        until = rules.place_until("scheduled", now, now, _HOUR_MS if gap_ms is None else gap_ms)
        for run_id in waiting:
            run_store.set_run(conn, run_id, {"place_until": until})
    wake_after_commit(conn, "bots_run")


def _settle(conn: Connection, run: Run, schedule: Schedule | None) -> Run:
    """Give back what is left of the reservation."""
    if run.reserved and run.period_start is not None and schedule is not None:
        start = run.period_start
        account = run_store.lock_account(conn, schedule.id, schedule.project_id, start=start, end=start)
        left = max(0, account.reserved - run.reserved)
        run_store.save_account(conn, schedule.id, start, account._replace(reserved=left))
    run_store.set_run(conn, run.id, {"reserved": 0})
    return replace(run, reserved=0)


def _follow_up(conn: Connection, run: Run, schedule: Schedule, outcome: Outcome, now: EpochMs) -> str | None:
    """Count, pause and tell; what the log says of who was told."""
    counted = rules.after_run(schedule.error_count, schedule.max_errors, run.kind, run.status, run.reason)
    values: dict[str, Any] = {
        "execution_count": schedule.execution_count + 1,
        "error_count": counted.error_count,
        "last_executed_at": now,
        "last_status": run.status,
    }
    if run.status == "error":
        values["last_error"] = run.error_message
    subject = notices.subject_of(conn, schedule)
    told = None
    if subject is not None:
        told, values["error_key"] = notices.tell_of_run(
            conn,
            subject,
            run,
            report=outcome.report if run.status == "success" else None,
            error=_error_of(run),
            now=now,
        )
    store.set_columns(conn, schedule.id, values)
    if counted.is_paused and schedule.is_enabled:
        _auto_pause(conn, replace(schedule, **values), subject, counted=counted, run=run, now=now)
    elif outcome.pauses_as is not None:
        pause(conn, replace(schedule, **values), outcome.pauses_as, now)
    return None if told is None else msgspec.json.encode(told).decode()


def _error_of(run: Run) -> Report | None:
    if run.status != "error":
        return None
    title = f"run failed: {run.reason}"
    return Report(True, "warning", title, run.error_message or title, f"error:{run.reason}")  # noqa: FBT003 - a field


def _auto_pause(
    conn: Connection, schedule: Schedule, subject: Subject | None, *, counted: Counted, run: Run, now: EpochMs
) -> None:
    pause(conn, schedule, "consecutive_errors", now)
    if subject is None:
        return
    title = f"paused after {counted.error_count} errors in a row"
    text = f"{title}. The last one: {run.error_message or run.reason}"
    told = Report(True, "critical", title, text, "paused")  # noqa: FBT003 - a field
    notices.tell(conn, subject, told, cause=f"{run.id}:paused", n=1, run_id=run.id, now=now)


def pause(conn: Connection, schedule: Schedule, reason: str, now: EpochMs) -> None:
    """The server itself disables a schedule."""
    store.save_schedule(conn, schedules.paused(schedule, reason, "system", now))


# Ends before the beginning -------------------------------------------------------------------------------------------
def refuse(conn: Connection, run: Run, schedule: Schedule | None, reason: str, now: EpochMs) -> None:
    """End a run that may not begin. What was parked has begun already, so that it ends as a run does."""
    if run.is_approved is None:
        end_queued(conn, run, "cancelled" if reason in rules.CANCELS else "skipped", reason, now)
        return
    outcome = Outcome("error", "budget_cut") if reason == "budget_exhausted" else Outcome("cancelled", reason)
    if outcome.status == "cancelled" and reason not in rules.CANCELS:
        outcome = Outcome("cancelled", "stopped", error_message=rules.SKIPS[reason])
    _finish(conn, run, schedule, outcome, now)


def end_queued(conn: Connection, run: Run, status: RunStatus, reason: str, now: EpochMs) -> None:
    """A run that was never started ends; equal skips in a row become one row. It is locked."""
    activity.changed(conn, [run], now)
    values: dict[str, Any] = {
        "status": status,
        "reason": reason,
        "error_message": rules.words_of(status, reason, None),
        "finished_at": now,
        "started_at": None,
        "lease_until": None,
        "lease_owner": None,
        "cancel_reason": None,
        "token_hash": None,
    }
    if status == "skipped" and run.slot is not None:
        earlier = run_store.latest_runs(conn, [run.schedule_id], before=run.id).get(run.schedule_id)
        count = run.count + run.missed_count
        if earlier is not None and earlier.status == "skipped" and earlier.reason == reason:
            run_store.set_run(
                conn, earlier.id, {"count": earlier.count + count, "last_slot": run.slot, "finished_at": now}
            )
            run_store.delete_run(conn, run.id)
            _let_next(conn, run.schedule_id, now)
            return
        values |= {"first_slot": run.first_slot or run.slot, "last_slot": run.slot, "count": count, "missed_count": 0}
    run_store.set_run(conn, run.id, values)
    store.set_columns(conn, run.schedule_id, {"last_status": status, "last_executed_at": now})
    _let_next(conn, run.schedule_id, now)


# Approval ------------------------------------------------------------------------------------------------------------
def _park(conn: Connection, run: Run, schedule: Schedule | None, parked: Parked, *, took_ms: int, now: EpochMs) -> Run:
    """Let a run wait until somebody has approved a call of a tool, or declined it; people are told once."""
    values: dict[str, Any] = {
        "status": "waiting_approval",
        "parked_until": EpochMs(now + rules.APPROVAL_MS),
        "is_approved": None,
        "duration_ms": took_ms,
        "lease_until": None,
        "token_hash": None,
    }
    run_store.set_run(conn, run.id, values | {"parked": parked.state})
    activity.changed(conn, [run], now)
    subject = None if schedule is None else notices.subject_of(conn, schedule)
    if subject is not None:
        title = f"asks for approval of {parked.tool}"
        text = f"A run waits for approval: {parked.tool} {reports.redacted(parked.arguments)}"
        told = Report(True, "warning", title, text[: reports.MAX_BODY], f"approval:{run.id}")  # noqa: FBT003 - a field
        notices.tell(conn, subject, told, cause=f"{run.id}:approval:{run.lease_token}", n=1, run_id=run.id, now=now)
    wake_after_commit(conn, "bots_run")
    return replace(run, **values)


def approve(conn: Connection, project_id: str, run_id: str, *, is_approved: bool, now: EpochMs) -> Run:
    """Decide about the call that a run waits with: it goes on, with the call or with its refusal.

    Raises BotRunNotFound, NotWaiting.
    """
    seen = run_of(conn, project_id, run_id)
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = run_store.run_by_id(conn, run_id, lock=True)
    if run is None or run.status != "waiting_approval" or run.cancel_reason is not None:
        raise rules.NotWaiting
    if run.parked_until is not None and run.parked_until <= now:
        raise rules.NotWaiting
    gap_ms = None if schedule is None else schedule.gap_ms
    values: dict[str, Any] = {
        "status": "queued",
        "is_approved": int(is_approved),
        "effective_at": now,
        "place_until": rules.place_until("scheduled", now, now, _HOUR_MS if gap_ms is None else gap_ms),
    }
    run_store.set_run(conn, run.id, values)
    activity.changed(conn, [run], now)
    wake_after_commit(conn, "bots_run")
    return replace(run, **values)


def _end_parked(conn: Connection, run: Run, schedule: Schedule | None, now: EpochMs) -> bool:
    if run.cancel_reason is not None:
        outcome = Outcome("cancelled", run.cancel_reason)
    elif run.parked_until is not None and run.parked_until <= now:
        outcome = Outcome("error", "approval_expired", error_message="Nobody approved or declined within 24 hours")
    else:
        return False
    _finish(conn, run, schedule, outcome, now)
    return True


# Lost, late, cancelled -----------------------------------------------------------------------------------------------
def reap(conn: Connection, run_id: str, now: EpochMs) -> Run | None:
    """End a run whose owner did not come back; None when it did meanwhile."""
    seen = run_store.run_by_id(conn, run_id)
    if seen is None:
        return None
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = run_store.run_by_id(conn, run_id, lock=True)
    if run is None or run.status != "running" or (run.lease_until or 0) > now:
        return None
    if run.cancel_reason is not None:
        outcome = Outcome("cancelled", run.cancel_reason)
    elif run.deadline_at is not None and now >= run.deadline_at:
        outcome = Outcome("error", "timeout", error_message="The run took longer than it may")
    else:
        outcome = Outcome("error", "lost", error_message="Whoever ran it did not come back")
    # From here on whoever held the lease cannot end the run any more.
    run = replace(run, lease_token=run.lease_token + 1)
    run_store.set_run(conn, run.id, {"lease_token": run.lease_token})
    ended = _finish(conn, run, schedule, outcome, now)
    if outcome.reason == "lost" and schedule is not None and schedule.options.retry_lost:
        _run_again(conn, run, now)
    return ended


def _run_again(conn: Connection, run: Run, now: EpochMs) -> None:
    """A slot that was lost is run once more; one that was caught up already is not."""
    if run.kind != "scheduled":
        return
    schedule = store.schedules_by_id(conn, [run.schedule_id]).get(run.schedule_id)
    if schedule is None or not schedule.is_enabled:
        return
    again = replace(
        new_run(schedule, "catch_up", now),
        slot=run.slot,
        place_until=rules.place_until("catch_up", now, now, _HOUR_MS),
        runner=run.runner,
    )
    run_store.insert_runs(conn, [again])
    activity.changed(conn, [again], now)


def end_waiting(conn: Connection, run_id: str, now: EpochMs) -> bool:
    """End a run that was cancelled, found no place or was not approved in time, while nobody does it."""
    seen = run_store.run_by_id(conn, run_id)
    if seen is None or seen.status not in {"queued", "waiting_approval"}:
        return False
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = run_store.run_by_id(conn, run_id, lock=True)
    if run is None:
        return False
    if run.status == "waiting_approval":
        return _end_parked(conn, run, schedule, now)
    if run.status != "queued":
        return False
    if run.cancel_reason is not None:
        refuse(conn, run, schedule, run.cancel_reason, now)
        return True
    if run.place_until is None or now < run.place_until:
        return False
    refuse(conn, run, schedule, "concurrency", now)
    return True


def cancel(conn: Connection, project_id: str, run_id: str, now: EpochMs) -> Run:
    """Ask a run to end; one that waits ends at once, one that ended stays as it is. Raises BotRunNotFound."""
    run = run_of(conn, project_id, run_id)
    if run.status not in rules.OPEN:
        return run
    run_store.ask_to_cancel(conn, {"id": run.id}, "user", last_words_until=EpochMs(now + rules.LAST_WORDS_MS))
    activity.changed(conn, [run], now)
    end_waiting(conn, run.id, now)
    wake_after_commit(conn, "bots_run")
    return run_store.run_by_id(conn, run.id) or run
