"""Runs that are done elsewhere: claimed by a worker that asks for them, or handed over, and ended by a callback."""

from typing import Any, NamedTuple

from sqlalchemy import Connection

from lifesign.bots import budget, ending, outcomes, reports, run_store, running, starting, store
from lifesign.bots.bodies import Fields
from lifesign.bots.execution import grown
from lifesign.bots.outcomes import Outcome
from lifesign.bots.records import Run
from lifesign.bots.rules import BotRunNotFound, LeaseLost, MissingField
from lifesign.bots.runners.contract import INVALID, Result, Totals, result_of, totals_of
from lifesign.bots.running import LEASE_MS
from lifesign.bots.starting import Started
from lifesign.clock import EpochMs

_TRIES = 20
_MAX_LOG = 65_536


class Hold(NamedTuple):
    """Who says that a run is theirs: a project with a token of its lease, or the run's own token."""

    run_id: str
    project_id: str | None = None
    lease_token: int | None = None
    token: str | None = None


def is_waiting(conn: Connection, project_id: str, bot_id: str | None, now: EpochMs) -> bool:
    """Whether a run waits for an outside worker: asked of a reader, as most of the time there is none."""
    return bool(run_store.startable(conn, now, 1, is_pull=True, project_id=project_id, bot_id=bot_id))


def claim(
    conn: Connection, project_id: str, bot_id: str | None, owner: str, now: EpochMs, *, is_halted: bool
) -> Started | None:
    """The next run that waits for an outside worker, under a lease; None when there is none."""
    for waiting in run_store.startable(conn, now, _TRIES, is_pull=True, project_id=project_id, bot_id=bot_id):
        started = starting.start(conn, waiting.id, owner=owner, now=now, door="claim", is_halted=is_halted)
        if started is not None:
            return started
    return None


def held(conn: Connection, hold: Hold, now: EpochMs) -> Run:
    """The run that is held so, with a lease that has not ended. Raises BotRunNotFound, LeaseLost."""
    if hold.token is not None:
        run = run_store.run_by_token(conn, starting.token_hash(hold.token))
        if run is None or (hold.run_id and run.id != hold.run_id):
            raise LeaseLost
    else:
        run = run_store.run_by_id(conn, hold.run_id)
        if run is None or run.project_id != hold.project_id:
            raise BotRunNotFound
        if run.lease_token != hold.lease_token:
            raise LeaseLost
    if run.status != "running" or (run.lease_until or 0) <= now:
        raise LeaseLost
    return run


def beat(conn: Connection, hold: Hold, fields: Fields, now: EpochMs) -> tuple[EpochMs, bool]:
    """A worker is still at it: until when its lease goes on, and whether it shall end."""
    run = held(conn, hold, now)
    totals = _totals(fields)
    text = fields.text("log", _MAX_LOG)
    if totals is not None:
        _spend(conn, run, totals, now)
    if text:
        entry = {"at": now, "role": "system", "content": reports.redacted(text), "name": "log"}
        running.note(conn, run.id, run.lease_token, [entry])
    if run.cancel_reason is not None:
        return EpochMs(run.lease_until or now), True
    until = EpochMs(min(now + LEASE_MS, (run.deadline_at or now) + run_store.DEADLINE_GRACE_MS))
    run_store.set_run(conn, run.id, {"lease_until": until})
    return until, False


def finish(conn: Connection, hold: Hold, fields: Fields, body: Any, now: EpochMs) -> Run:  # Any: JSON
    """A worker is done."""
    run = held(conn, hold, now)
    if "status" not in fields:
        raise MissingField("status")
    result = result_of(body) or Result(INVALID, None)
    if result.totals is not None:
        _spend(conn, run, result.totals, now)
    outcome = result.outcome
    if run.cancel_reason is not None:
        outcome = Outcome("cancelled", run.cancel_reason, outcome.response)
    return ending.finish(conn, run.id, run.lease_token, outcomes.redacted(outcome), now)


def _totals(fields: Fields) -> Totals | None:
    if "usage" not in fields:
        return None
    found = totals_of(fields.raw("usage"))
    if found is None:
        raise fields.refuse("usage", "must have input_tokens, output_tokens and requests, whole numbers")
    return found


def _spend(conn: Connection, run: Run, totals: Totals, now: EpochMs) -> None:
    usage = grown(Totals(run.input_tokens, run.output_tokens, run.requests), totals)
    bot = store.bots_by_id(conn, [run.bot_id]).get(run.bot_id)
    if usage is None or bot is None:
        return
    tariff = starting.tariff_of(store.settings_of(conn, run.project_id), bot)
    units = budget.cost(usage, run.model, tariff, None)
    running.book(conn, run.id, run.lease_token, usage, units=units, now=now)
