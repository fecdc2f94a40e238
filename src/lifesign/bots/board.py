"""Schedules as people look over everything that beats: lines for the board of heartbeats, and how their runs went.

SQL of the tables `bot_schedules` and `bot_runs`; `state_of` says of one schedule what the statement says of all.
"""

from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlalchemy import BigInteger, ColumnElement, Connection, Select, Text, and_, case, func, literal, null, or_, select

from lifesign.bots import store
from lifesign.bots.records import Bot, ProjectSettings, Schedule
from lifesign.bots.rules import RunStatus
from lifesign.clock import EpochMs
from lifesign.db.schema import bot_runs, bot_schedules, bot_settings, bots
from lifesign.db.sql import behind_last, contains, each_text, json_rows
from lifesign.heartbeats.board import STATES, State

OVERDUE_MS: Final = 120_000
"""A slot that nobody began for so long is late."""
SHOWN_PROMPT: Final = 100

S, B, P, R = bot_schedules.c, bots.c, bot_settings.c, bot_runs.c


def state_of(schedule: Schedule, bot: Bot, settings: ProjectSettings, now: EpochMs) -> State:
    """What is shown of a schedule.

    `firing`: it failed so often that it runs no more; `late`: its last run failed, or one that is due does not begin.
    """
    if not schedule.is_enabled and schedule.paused_by == "system":
        return "firing"
    if not (schedule.is_enabled and bot.is_scheduling and bot.is_online) or settings.stopped_at is not None:
        return "paused"
    is_overdue = schedule.next_run_at is not None and schedule.next_run_at < now - OVERDUE_MS
    if schedule.last_status == "error" or is_overdue:
        return "late"
    return "never_seen" if schedule.last_executed_at is None else "alive"


def _rank(now: EpochMs) -> ColumnElement[int]:
    """The place in `STATES` of a row's state, as `state_of` tells it."""
    place = STATES.index
    is_live = and_(S.is_enabled == 1, B.is_scheduling == 1, B.is_online == 1, P.stopped_at.is_(None))
    return case(
        (and_(S.is_enabled == 0, func.coalesce(S.paused_by, "") == "system"), place("firing")),
        (~is_live, place("paused")),
        (
            or_(func.coalesce(S.last_status, "") == "error", func.coalesce(S.next_run_at, now) < now - OVERDUE_MS),
            place("late"),
        ),
        (S.last_executed_at.is_(None), place("never_seen")),
        else_=place("alive"),
    )


# Any: rows of several columns.
def lines(conn: Connection, project_id: str, *, search: str, now: EpochMs) -> Select[Any]:
    """The schedules of a project, whose names hold `search`, as lines of the board. Index: ix_bot_schedules_project."""
    name = func.lower(B.name + ": " + func.substr(S.prompt, 1, SHOWN_PROMPT))
    query = (
        select(
            S.id.label("id"),
            _rank(now).label("rank"),
            name.label("name"),
            literal("", Text).label("namespace"),
            func.coalesce(S.last_executed_at, literal(0, BigInteger)).label("seen"),
            func.coalesce(S.next_run_at, literal(2**62, BigInteger)).label("due"),
            func.coalesce(null(), literal(2**62, BigInteger)).label("fires"),
        )
        .select_from(bot_schedules)
        .join(bots, B.id == S.bot_id)
        .join(bot_settings, P.project_id == S.project_id, isouter=True)
        # Said of both: a database that cannot tell from the one would read the bots of all projects.
        .where(S.project_id == project_id, B.project_id == project_id)
    )
    if search:
        query = query.where(or_(contains(conn, name, search.casefold()), contains(conn, S.id, search.casefold())))
    return query


def has_schedules(conn: Connection, project_id: str) -> bool:
    """Whether a project has any. Index: ix_bot_schedules_project."""
    return conn.execute(select(S.id).where(S.project_id == project_id).limit(1)).first() is not None


class Planned(NamedTuple):
    """A schedule with its bot, the state that is shown of it, and how its last runs ended, oldest first."""

    schedule: Schedule
    bot: Bot
    state: State
    ends: Sequence[RunStatus]


def by_ids(conn: Connection, project_id: str, ids: Sequence[str], *, runs: int, now: EpochMs) -> dict[str, Planned]:
    """Schedules of a project, by id. runs: how many of the last of each are looked at."""
    if not ids:
        return {}
    schedules = store.schedules_by_id(conn, ids)
    owners = store.bots_by_id(conn, sorted({each.bot_id for each in schedules.values()}))
    settings = store.settings_of(conn, project_id)
    ends = _last_ends(conn, ids, limit=runs)
    return {
        key: Planned(each, bot := owners[each.bot_id], state_of(each, bot, settings, now), ends.get(key, []))
        for key, each in schedules.items()
        if each.bot_id in owners
    }


def _last_ends(conn: Connection, ids: Sequence[str], *, limit: int) -> dict[str, list[RunStatus]]:
    """How the last runs of each schedule ended, oldest first. Index: ix_bot_runs_schedule.

    What it costs goes with what is asked for, not with the length of the history.
    """
    asked = each_text(conn, "ids")
    floor = behind_last(R.schedule_id, R.id, asked.c.value, limit)
    query = (
        select(R.schedule_id, R.status)
        .select_from(asked.join(bot_runs, R.schedule_id == asked.c.value))
        .where(R.id > func.coalesce(floor, ""), R.finished_at.is_not(None))
        .order_by(R.schedule_id, R.id)
    )
    found: dict[str, list[RunStatus]] = {}
    for schedule_id, status in conn.execute(query, {"ids": json_rows(list(ids))}):
        found.setdefault(schedule_id, []).append(status)
    return found
