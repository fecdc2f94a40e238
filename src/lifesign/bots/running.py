"""Runs while they go on: held under the token of a lease, charged for each response, and noted down.

Locks are taken in this order: settings of the project, schedule, run, account.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection

from lifesign.bots import activity, budget, notices, rules, run_store, store
from lifesign.bots.budget import Usage
from lifesign.bots.records import Run, Schedule
from lifesign.bots.reports import Report
from lifesign.bots.rules import LeaseLost
from lifesign.clock import EpochMs

LEASE_MS = 60_000


def run_of(conn: Connection, project_id: str, run_id: str) -> Run:
    """A run of a project. Raises BotRunNotFound."""
    found = run_store.run_by_id(conn, run_id)
    if found is None or found.project_id != project_id:
        raise rules.BotRunNotFound
    return found


def held(conn: Connection, run_id: str, token: int) -> Run:
    run = run_store.run_by_id(conn, run_id, lock=True)
    if run is None or run.status != "running" or run.lease_token != token:
        raise LeaseLost
    return run


def book(conn: Connection, run_id: str, token: int, usage: Usage, *, units: int, now: EpochMs) -> int:
    """Charge a response; what is left of the reservation. Raises LeaseLost."""
    seen = run_store.run_by_id(conn, run_id)
    if seen is None:
        raise LeaseLost
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = held(conn, run_id, token)
    return _book(conn, run, schedule, usage, units=units, now=now)


def _book(conn: Connection, run: Run, schedule: Schedule | None, usage: Usage, *, units: int, now: EpochMs) -> int:
    start = run.period_start if run.period_start is not None else now
    taken = min(units, run.reserved)
    values = {
        "input_tokens": run.input_tokens + usage.input_tokens,
        "output_tokens": run.output_tokens + usage.output_tokens,
        "requests": run.requests + usage.requests,
        "credits": run.credits + units,
        "is_estimated": int(bool(run.is_estimated) or usage.is_estimated),
        "reserved": run.reserved - taken,
    }
    run_store.set_run(conn, run.id, values)
    activity.progressed(conn, run, now)
    run_store.insert_ledger(
        conn,
        {
            "project_id": run.project_id,
            "bot_id": run.bot_id,
            "schedule_id": run.schedule_id,
            "run_id": run.id,
            "period_start": start,
            "at": now,
            "model": run.model,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "credits": units,
        },
    )
    if schedule is None:
        return run.reserved - taken
    account = run_store.lock_account(conn, schedule.id, schedule.project_id, start=start, end=start)
    spent = account.spent + units
    run_store.save_account(conn, schedule.id, start, run_store.Account(spent, max(0, account.reserved - taken)))
    _tell_of_budget(conn, schedule, start, before=account.spent, after=spent, now=now)
    return run.reserved - taken


def _tell_of_budget(
    conn: Connection, schedule: Schedule, start: EpochMs, *, before: int, after: int, now: EpochMs
) -> None:
    due = budget.notices_due(schedule.budget, before, after)
    subject = notices.subject_of(conn, schedule) if due else None
    if subject is None:
        return
    for percent, n in due:
        left = "" if percent < 100 else "; nothing runs until the next period"  # noqa: PLR2004 - all of it
        title = f"{percent} % of the budget is used up"
        told = Report(True, "warning", title, f"{title}{left}.", f"budget:{start}:{percent}")  # noqa: FBT003 - a field
        notices.tell(conn, subject, told, cause=f"{schedule.id}:{start}", n=n, now=now)


def note(conn: Connection, run_id: str, token: int, entries: Sequence[Mapping[str, Any]], tool_calls: int = 0) -> None:
    """Keep what was said. Raises LeaseLost."""
    run = held(conn, run_id, token)
    if run_store.transcript_bytes(conn, run_id) <= run_store.MAX_TRANSCRIPT_BYTES:
        run_store.append_transcript(conn, run, entries)
        activity.progressed(conn, run, EpochMs(entries[-1]["at"]))
    if tool_calls:
        run_store.set_run(conn, run_id, {"tool_calls": run.tool_calls + tool_calls})
