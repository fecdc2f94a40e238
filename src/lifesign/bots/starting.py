"""Beginnings of runs: a place, a lease and a reservation, or a refusal. Each in one transaction.

Locks are taken in this order: settings of the project, schedule, run, account.
"""

import hashlib
import secrets
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection

from lifesign.bots import activity, budget, rules, run_store, schedules, store, tools
from lifesign.bots.budget import Price, Tariff
from lifesign.bots.claiming import facts_of
from lifesign.bots.ending import refuse
from lifesign.bots.records import Bot, ProjectSettings, Run, Schedule
from lifesign.bots.rules import GONE, Door, Limits
from lifesign.bots.running import LEASE_MS
from lifesign.bots.stopping import server_settings
from lifesign.clock import EpochMs


@dataclass(frozen=True, slots=True)
class Started:
    """A run under our lease, and all that whoever does it must know."""

    run: Run
    schedule: Schedule
    bot: Bot
    settings: ProjectSettings
    limits: Limits
    tariff: Tariff
    token: str | None = None
    """What an outside runner answers with."""
    resumed: "Resumed | None" = None
    """Where it was parked until somebody decided; None: it begins."""


class Resumed(NamedTuple):
    """A run that goes on. state: as its runner wrote it down when it parked it."""

    state: str
    is_approved: bool


def full_projects(conn: Connection, now: EpochMs) -> list[str]:
    """Projects with as many runs going on as they may have."""
    counts = run_store.count_running_of_all(conn, now)
    settings = store.settings_of_many(conn, list(counts))
    return [each for each, count in counts.items() if count >= settings[each].options.max_concurrent_runs]


def start(
    conn: Connection,
    run_id: str,
    *,
    owner: str,
    now: EpochMs,
    door: Door = "start",
    has_token: bool = False,
    is_halted: bool = False,
) -> Started | None:
    """Begin a queued run, or go on with one that was parked; None when it may not begin, or not now."""
    seen = run_store.run_by_id(conn, run_id)
    if seen is None or seen.status != "queued":
        return None
    settings = store.lock_settings(conn, seen.project_id)
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = run_store.run_by_id(conn, run_id, lock=True)
    if run is None or run.status != "queued":
        return None
    if run.cancel_reason is not None:
        refuse(conn, run, schedule, run.cancel_reason, now)
        return None
    bot = store.bots_by_id(conn, [run.bot_id]).get(run.bot_id)
    facts = facts_of(settings, server_settings(conn, is_halted=is_halted), bot, schedule, now)
    is_full = run_store.count_running(conn, run.project_id, now) >= settings.options.max_concurrent_runs
    if is_full and (run.place_until is None or now < run.place_until):
        return None
    refused = rules.admit(door, run.kind, replace(facts, has_no_place=is_full))
    if refused == GONE or schedule is None or bot is None:
        refuse(conn, run, schedule, "user" if schedule is not None else "deleted", now)
        return None
    if refused is not None:
        refuse(conn, run, schedule, refused, now)
        return None
    limits = limits_of(schedule, bot)
    period = schedules.period_now(settings, run.slot if run.slot is not None else now)
    account = run_store.lock_account(conn, schedule.id, schedule.project_id, start=period.start, end=period.end)
    reserved = budget.reservation(budget.remaining(schedule.budget, *account), limits.max_units, limits.min_units)
    if reserved is None:
        refuse(conn, run, schedule, "budget_exhausted", now)
        return None
    run_store.save_account(conn, schedule.id, period.start, account._replace(reserved=account.reserved + reserved))
    token = secrets.token_urlsafe(32) if has_token else None
    deadline = EpochMs(now + limits.timeout_ms)
    lease_until = now + LEASE_MS
    if bot.options.runner["kind"] in run_store.OUTSIDE:
        # Nobody here ends it at its deadline; the end of its lease does.
        lease_until = min(lease_until, deadline + run_store.DEADLINE_GRACE_MS)
    values: dict[str, Any] = {
        "status": "running",
        "started_at": now,
        "lease_owner": owner,
        "lease_until": lease_until,
        "lease_token": run.lease_token + 1,
        "reserved": reserved,
        "period_start": period.start,
        "deadline_at": deadline,
        "runner": bot.options.runner["kind"],
        "model": bot.model,
        "tools": msgspec.json.encode(tools_of(schedule, bot)).decode(),
        "token_hash": None if token is None else token_hash(token),
    }
    run_store.set_run(conn, run.id, values)
    run = replace(run, **values)
    activity.changed(conn, [run], now)
    state = run_store.parked_state(conn, run.id) if run.is_approved is not None else None
    resumed = None if state is None else Resumed(state, bool(run.is_approved))
    return Started(run, schedule, bot, settings, limits, tariff_of(settings, bot), token, resumed)


def token_hash(token: str) -> str:
    """What is kept of a one-run token."""
    return hashlib.sha256(token.encode()).hexdigest()


def tools_of(schedule: Schedule, bot: Bot) -> list[str]:
    """The tools that a run may use: the bot's, narrowed by the schedule's."""
    chosen = schedule.options.tools
    allowed = list(bot.options.tools)
    return allowed if chosen is None else [each for each in chosen if tools.is_among(each, allowed)]


def limits_of(schedule: Schedule, bot: Bot) -> Limits:
    """The limits of a run of a schedule."""
    return rules.limits_of(schedule.options.limits, gap_ms=schedule.gap_ms, max_reply_tokens=bot.max_reply_tokens)


def tariff_of(settings: ProjectSettings, bot: Bot) -> Tariff:
    """How responses of a bot are priced."""
    prices = {
        each["model"]: Price(
            budget.usd(each["input_usd_per_million"]),
            budget.usd(each["output_usd_per_million"]),
            budget.usd(each["cached_input_usd_per_million"]) if "cached_input_usd_per_million" in each else None,
        )
        for each in settings.options.prices
    }
    return Tariff(prices, bot.options.units_per_1k)
