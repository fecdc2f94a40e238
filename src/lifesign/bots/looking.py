"""What is looked at of bots: lists, numbers and transcripts, each in one transaction that changes nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import Connection

from lifesign.bots import asking, rules, run_store, running, schedules, statistics, store
from lifesign.bots.records import Bot, ProjectSettings, Run, Schedule
from lifesign.bots.schedules import Shown
from lifesign.bots.statistics import Spent
from lifesign.bots.store import Tally
from lifesign.clock import EpochMs

SHOWN_SCHEDULES = 100
_DAYS = 30


@dataclass(frozen=True, slots=True)
class Listed:
    """Some bots of a project, newest first, what their schedules come to, and the schedules that run next."""

    settings: ProjectSettings
    bots: Sequence[Bot]
    has_more: bool
    tallies: Mapping[str, Tally]
    upcoming: Sequence[Schedule]
    names: Mapping[str, str]
    """Of the bots of those schedules, by id."""


def bots(conn: Connection, project_id: str, *, limit: int, before: int | None, schedules: int) -> Listed:
    """Bots, those older than the one numbered `before`, and so many of the schedules that run next, of all bots."""
    found = store.list_bots(conn, project_id, limit=limit + 1, before=before)
    upcoming = store.upcoming(conn, project_id, schedules)
    named = store.bots_by_id(conn, sorted({each.bot_id for each in upcoming}))
    return Listed(
        store.settings_of(conn, project_id),
        found[:limit],
        len(found) > limit,
        store.tallies(conn, [each.id for each in found[:limit]]),
        upcoming,
        {each.id: each.name for each in named.values()},
    )


@dataclass(frozen=True, slots=True)
class SeenBot:
    """A bot with its schedules and runs. stats: of 30 days, as the API tells them."""

    bot: Bot
    settings: ProjectSettings
    schedules: Sequence[Shown]
    open_runs: Sequence[Run]
    runs: Sequence[Run]
    has_older: bool
    stats: Mapping[str, Any]  # Any: JSON


def bot(
    conn: Connection,
    project_id: str,
    ref: str | int,
    *,
    status: str | None,
    schedule_id: str | None,
    before: str | None,
    limit: int,
    now: EpochMs,
) -> SeenBot:
    """One bot. status, schedule_id, before: which of its runs, newest first. Raises BotNotFound."""
    found = asking.get_bot(conn, project_id, ref)
    shown = schedules.list_schedules(conn, project_id, found.id, member=None, limit=SHOWN_SCHEDULES, after="", now=now)
    going_on = run_store.open_runs(conn, [each.schedule.id for each in shown])
    runs = run_store.list_runs(
        conn, found.id, status=status, schedule_id=schedule_id, member_id=None, limit=limit + 1, before=before
    )
    return SeenBot(
        found,
        store.settings_of(conn, project_id),
        shown,
        [each for some in going_on.values() for each in some],
        runs[:limit],
        len(runs) > limit,
        numbers(conn, found, _DAYS, now),
    )


def numbers(conn: Connection, bot: Bot, days: int, now: EpochMs) -> dict[str, Any]:  # Any: JSON
    """What became of a bot's runs over so many UTC days, today included."""
    since = statistics.first_instant(now, days)
    active = store.count_enabled(conn, bot.id) if bot.is_scheduling else 0
    spent = Spent(*run_store.ledger_since(conn, bot.id, since))
    return statistics.statistics(run_store.ended_since(conn, bot.id, since), spent, active=active, days=days, now=now)


@dataclass(frozen=True, slots=True)
class SeenRun:
    """A run with all that was said in it. waits_with: the id of the call of a tool that waits for approval."""

    run: Run
    bot: Bot
    schedule: Schedule | None
    entries: Sequence[Mapping[str, Any]]  # Any: JSON
    is_cut: bool
    waits_with: str | None


def run(conn: Connection, project_id: str, run_id: str) -> SeenRun:
    """One run. Raises BotRunNotFound."""
    found = running.run_of(conn, project_id, run_id)
    bot = store.bots_by_id(conn, [found.bot_id]).get(found.bot_id)
    if bot is None:
        raise rules.BotRunNotFound
    entries, is_cut = run_store.transcript_of(conn, found.id)
    state = run_store.parked_state(conn, found.id) if found.status == "waiting_approval" else None
    return SeenRun(
        found,
        bot,
        store.schedules_by_id(conn, [found.schedule_id]).get(found.schedule_id),
        entries,
        is_cut,
        None if state is None else msgspec.json.decode(state, type=dict[str, Any]).get("call_id"),
    )


def transcript(conn: Connection, project_id: str, run_id: str) -> tuple[list[dict[str, Any]], bool]:
    """What was said in a run, and whether the rest was left out. Raises BotRunNotFound."""
    return run_store.transcript_of(conn, running.run_of(conn, project_id, run_id).id)
