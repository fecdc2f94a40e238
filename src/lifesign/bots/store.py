"""SQL of what people define: settings, bots, members, schedules. Runs and what they cost are in `run_store`."""

import hashlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, delete, func, or_, select, update

from lifesign.bots.records import (
    Bot,
    BotOptions,
    Member,
    ProjectOptions,
    ProjectSettings,
    Schedule,
    ScheduleOptions,
)
from lifesign.bots.timing import Timing
from lifesign.clock import EpochMs
from lifesign.db.schema import (
    bot_budget_periods,
    bot_calls,
    bot_ledger,
    bot_members,
    bot_notices,
    bot_runs,
    bot_schedules,
    bot_settings,
    bot_transcripts,
    bots,
)
from lifesign.db.sql import insert_if_new, one_at_a_time

ALL_PROJECTS = "*"
"""In place of a project's id: settings of this "project" hold for all."""

B = bots.c
S = bot_schedules.c
M = bot_members.c
P = bot_settings.c

_BOT = tuple(B[name] for name in Bot.__dataclass_fields__)
_MEMBER = tuple(M[name] for name in Member.__dataclass_fields__)
_TIMING = ("interval_minutes", "cron", "timezone", "window_start", "window_end", "days")
_OWN = tuple(name for name in Schedule.__dataclass_fields__ if name != "timing")
_SCHEDULE = (*(S[name] for name in _OWN), *(S[name] for name in _TIMING))


# Rows ---------------------------------------------------------------------------------------------------------------
# Any, in these: rows of tables whose columns mypy does not know.
def _bot(row: Sequence[Any]) -> Bot:
    values = dict(zip(Bot.__dataclass_fields__, row, strict=True))
    values["options"] = msgspec.json.decode(values["options"], type=BotOptions)
    for name in ("is_online", "is_scheduling"):
        values[name] = bool(values[name])
    return Bot(**values)


def _bot_row(bot: Bot) -> dict[str, Any]:
    row = {name: getattr(bot, name) for name in Bot.__dataclass_fields__}
    return row | {
        "options": _encoded(bot.options),
        "is_online": int(bot.is_online),
        "is_scheduling": int(bot.is_scheduling),
    }


def _schedule(row: Sequence[Any]) -> Schedule:
    values = dict(zip(_OWN, row, strict=False))
    minutes, cron, zone, start, end, days = row[len(_OWN) :]
    values["timing"] = Timing(minutes, cron, zone, start, end, tuple(int(each) for each in days.split(",") if each))
    values["options"] = msgspec.json.decode(values["options"], type=ScheduleOptions)
    values["is_enabled"] = bool(values["is_enabled"])
    return Schedule(**values)


def _schedule_row(schedule: Schedule) -> dict[str, Any]:
    row = {name: getattr(schedule, name) for name in _OWN}
    timing = {name: getattr(schedule.timing, name) for name in _TIMING}
    return (
        row
        | timing
        | {
            "days": ",".join(str(each) for each in schedule.timing.days),
            "options": _encoded(schedule.options),
            "is_enabled": int(schedule.is_enabled),
            "prompt_hash": prompt_hash(schedule.prompt),
        }
    )


def _encoded(options: msgspec.Struct) -> str:
    return msgspec.json.encode(options).decode()


def prompt_hash(prompt: str) -> str:
    """What prompts are told apart by."""
    return hashlib.sha256(prompt.encode()).hexdigest()


# Settings -----------------------------------------------------------------------------------------------------------
def is_stopped(conn: Connection, project_id: str) -> bool:
    """Whether somebody has stopped the bots of a project, or those of all projects."""
    found = settings_of_many(conn, [project_id, ALL_PROJECTS])
    return any(each.stopped_at is not None for each in found.values())


def settings_of(conn: Connection, project_id: str) -> ProjectSettings:
    """The settings of a project's bots; those that nobody set are as usual."""
    return settings_of_many(conn, [project_id])[project_id]


def settings_of_many(conn: Connection, project_ids: Sequence[str]) -> dict[str, ProjectSettings]:
    """The same of several projects, by id."""
    query = select(P.project_id, P.plan, P.stopped_at, P.stop_reason, P.options).where(P.project_id.in_(project_ids))
    found = {
        row[0]: ProjectSettings(row[0], row[1], row[2], row[3], msgspec.json.decode(row[4], type=ProjectOptions))
        for row in conn.execute(query)
    }
    return {each: found.get(each) or ProjectSettings(each) for each in project_ids}


def lock_settings(conn: Connection, project_id: str) -> ProjectSettings:
    """The settings, which nobody else changes until the transaction ends."""
    one_at_a_time(conn, f"bots:{project_id}")
    return settings_of(conn, project_id)


def save_settings(conn: Connection, settings: ProjectSettings, now: EpochMs) -> None:
    """Write the settings, which are locked."""
    row = {
        "plan": settings.plan,
        "stopped_at": settings.stopped_at,
        "stop_reason": settings.stop_reason,
        "options": _encoded(settings.options),
        "updated_at": now,
    }
    if not insert_if_new(conn, bot_settings, {"project_id": settings.project_id, **row}, unique=["project_id"]):
        conn.execute(update(bot_settings).where(P.project_id == settings.project_id).values(row))


def count_call(conn: Connection, project_id: str, span_ms: int, start: EpochMs) -> int:
    """How many calls a project made in the span that began at `start`, this one included."""
    c = bot_calls.c
    row = {"project_id": project_id, "span_ms": span_ms, "start": start, "calls": 1}
    if insert_if_new(conn, bot_calls, row, unique=["project_id", "span_ms"]):
        return 1
    mine = (c.project_id == project_id) & (c.span_ms == span_ms)
    conn.execute(update(bot_calls).where(mine, c.start != start).values(start=start, calls=0))
    counted = update(bot_calls).where(mine).values(calls=c.calls + 1).returning(c.calls)
    return int(conn.execute(counted).scalar_one())


# Bots ---------------------------------------------------------------------------------------------------------------
def insert_bot(conn: Connection, bot: Bot) -> Bot:
    """A new bot, with the number it gets."""
    row = _bot_row(bot)
    del row["number"]
    number = conn.execute(bots.insert().values(row).returning(B.number)).scalar_one()
    return _bot([number, *(row[name] for name in Bot.__dataclass_fields__ if name != "number")])


def bot_by_ref(conn: Connection, project_id: str, ref: str | int, *, lock: bool = False) -> Bot | None:
    """The bot with this id or number."""
    is_it = B.number == ref if isinstance(ref, int) else B.id == ref
    query = select(*_BOT).where(is_it, B.project_id == project_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _bot(row)


def bots_by_id(conn: Connection, bot_ids: Sequence[str]) -> dict[str, Bot]:
    """Several bots, by id."""
    return {row.id: _bot(row) for row in conn.execute(select(*_BOT).where(B.id.in_(bot_ids)))}


def list_bots(
    conn: Connection, project_id: str, *, limit: int, offset: int = 0, before: int | None = None
) -> list[Bot]:
    """Bots of a project, newest first. before: those older than the one with this number."""
    query = select(*_BOT).where(B.project_id == project_id)
    if before is not None:
        query = query.where(B.number < before)
    return [_bot(row) for row in conn.execute(query.order_by(B.number.desc()).limit(limit).offset(offset))]


def bots_of(conn: Connection, project_id: str) -> list[Bot]:
    """All bots of a project, locked, oldest first."""
    query = select(*_BOT).where(B.project_id == project_id).order_by(B.number)
    return [_bot(row) for row in conn.execute(query.with_for_update())]


def count_bots(conn: Connection, project_id: str) -> int:
    """How many bots a project has."""
    return int(conn.scalar(select(func.count()).where(B.project_id == project_id)) or 0)


class Tally(NamedTuple):
    """What a bot's schedules come to. next_run_at: of the first that runs again; None when none does."""

    schedules: int
    enabled: int
    next_run_at: EpochMs | None


def tallies(conn: Connection, bot_ids: Sequence[str]) -> dict[str, Tally]:
    """What the schedules of bots come to, by bot; those without any are left out. Index: ix_bot_schedules_prompt."""
    query = select(S.bot_id, func.count(), func.sum(S.is_enabled), func.min(S.next_run_at))
    rows = conn.execute(query.where(S.bot_id.in_(bot_ids)).group_by(S.bot_id))
    return {row[0]: Tally(int(row[1]), int(row[2] or 0), row[3]) for row in rows}


def upcoming(conn: Connection, project_id: str, limit: int) -> list[Schedule]:
    """Schedules of a project that run again, the first to run first. Index: ix_bot_schedules_project."""
    query = select(*_SCHEDULE).where(S.project_id == project_id, S.next_run_at.is_not(None))
    return [_schedule(row) for row in conn.execute(query.order_by(S.next_run_at, S.id).limit(limit))]


def save_bot(conn: Connection, bot: Bot) -> None:
    """Write a bot, which is locked."""
    row = _bot_row(bot)
    conn.execute(update(bots).where(B.number == bot.number).values({k: v for k, v in row.items() if k != "number"}))


def delete_bot(conn: Connection, bot_id: str) -> None:
    """Remove a bot and everything that was kept of it."""
    mine = select(S.id).where(S.bot_id == bot_id)
    for table in (bot_budget_periods, bot_notices):
        conn.execute(delete(table).where(table.c.schedule_id.in_(mine)))
    runs = select(bot_runs.c.id).where(bot_runs.c.bot_id == bot_id)
    conn.execute(delete(bot_transcripts).where(bot_transcripts.c.run_id.in_(runs)))
    for table in (bot_runs, bot_ledger, bot_schedules):
        conn.execute(delete(table).where(table.c.bot_id == bot_id))
    conn.execute(delete(bots).where(B.id == bot_id))


# Members ------------------------------------------------------------------------------------------------------------
def member_by_ref(conn: Connection, project_id: str, ref: str | int) -> Member | None:
    """The member with this id, number or external id."""
    is_it = M.number == ref if isinstance(ref, int) else or_(M.id == ref, M.external_id == ref)
    query = select(*_MEMBER).where(M.project_id == project_id, is_it).order_by(M.id != str(ref))
    row = conn.execute(query.limit(1)).first()
    return None if row is None else Member(*row)


def members_by_id(conn: Connection, member_ids: Sequence[str]) -> dict[str, Member]:
    """Several members, by id."""
    return {row.id: Member(*row) for row in conn.execute(select(*_MEMBER).where(M.id.in_(member_ids)))}


def insert_member(conn: Connection, member: Member) -> None:
    """A new member; number and external id are free, as whoever asks holds the lock of the project's settings."""
    row = {name: getattr(member, name) for name in Member.__dataclass_fields__}
    conn.execute(bot_members.insert().values(row))


def next_member_number(conn: Connection, project_id: str) -> int:
    """A number that no member of the project has."""
    return int(conn.scalar(select(func.max(M.number)).where(M.project_id == project_id)) or 0) + 1


def list_members(
    conn: Connection, project_id: str, *, limit: int, offset: int = 0, before: str | None = None
) -> list[Member]:
    """Members of a project, newest first."""
    query = select(*_MEMBER).where(M.project_id == project_id)
    if before is not None:
        query = query.where(M.id < before)
    return [Member(*row) for row in conn.execute(query.order_by(M.id.desc()).limit(limit).offset(offset))]


def count_members(conn: Connection, project_id: str) -> int:
    """How many members a project has."""
    return int(conn.scalar(select(func.count()).where(M.project_id == project_id)) or 0)


# Schedules ----------------------------------------------------------------------------------------------------------
def insert_schedule(conn: Connection, schedule: Schedule) -> bool:
    """A new schedule; False when its bot has one for the same member with the same prompt."""
    unique = ["bot_id", "member_id", "prompt_hash"]
    return insert_if_new(conn, bot_schedules, _schedule_row(schedule), unique=unique)


def schedule_by_id(conn: Connection, bot_id: str, schedule_id: str, *, lock: bool = False) -> Schedule | None:
    """The schedule of a bot with this id."""
    query = select(*_SCHEDULE).where(S.id == schedule_id, S.bot_id == bot_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _schedule(row)


def schedule_by_prompt(conn: Connection, bot_id: str, member_id: str, prompt: str) -> Schedule | None:
    """The schedule of a bot and member with this very prompt, locked."""
    is_it = (S.bot_id == bot_id) & (S.member_id == member_id) & (S.prompt_hash == prompt_hash(prompt))
    row = conn.execute(select(*_SCHEDULE).where(is_it).with_for_update()).first()
    return None if row is None else _schedule(row)


def schedules_by_id(conn: Connection, schedule_ids: Sequence[str], *, lock: bool = False) -> dict[str, Schedule]:
    """Several schedules, by id; locked in id order."""
    query = select(*_SCHEDULE).where(S.id.in_(schedule_ids)).order_by(S.id)
    found = (_schedule(row) for row in conn.execute(query.with_for_update() if lock else query))
    return {each.id: each for each in found}


def schedules_of(
    conn: Connection, bot_id: str, *, member_id: str | None = None, limit: int = 1000, after: str = ""
) -> list[Schedule]:
    """Schedules of a bot in the order in which they were made. member_id: of this member only."""
    query = select(*_SCHEDULE).where(S.bot_id == bot_id, S.id > after)
    if member_id is not None:
        query = query.where(S.member_id == member_id)
    return [_schedule(row) for row in conn.execute(query.order_by(S.id).limit(limit))]


def lock_schedules_of(conn: Connection, bot_id: str) -> list[Schedule]:
    """All schedules of a bot, locked in id order. Index: ix_bot_schedules_prompt."""
    query = select(*_SCHEDULE).where(S.bot_id == bot_id).order_by(S.id).with_for_update()
    return [_schedule(row) for row in conn.execute(query)]


def count_schedules(conn: Connection, bot_id: str) -> int:
    """How many schedules a bot has."""
    return int(conn.scalar(select(func.count()).where(S.bot_id == bot_id)) or 0)


def save_schedule(conn: Connection, schedule: Schedule) -> None:
    """Write a schedule, which is locked."""
    row = _schedule_row(schedule)
    conn.execute(update(bot_schedules).where(S.id == schedule.id).values({k: v for k, v in row.items() if k != "id"}))


def has_prompt(conn: Connection, schedule: Schedule, prompt: str) -> bool:
    """Whether another schedule of the same bot and member has a prompt."""
    same = (S.bot_id == schedule.bot_id) & (S.member_id == schedule.member_id)
    query = select(S.id).where(same, S.prompt_hash == prompt_hash(prompt), S.id != schedule.id)
    return conn.scalar(query) is not None


def delete_schedule(conn: Connection, schedule_id: str) -> None:
    """Remove a schedule; its runs stay."""
    for table in (bot_budget_periods, bot_notices):
        conn.execute(delete(table).where(table.c.schedule_id == schedule_id))
    conn.execute(delete(bot_schedules).where(S.id == schedule_id))


def set_columns(conn: Connection, schedule_id: str, values: Mapping[str, Any]) -> None:
    """Set single columns of a schedule."""
    conn.execute(update(bot_schedules).where(S.id == schedule_id).values(dict(values)))


def watched_schedules(conn: Connection, project_id: str) -> list[Schedule]:
    """Schedules of a project that a heartbeat watches. Index: ix_bot_schedules_project."""
    query = select(*_SCHEDULE).where(S.project_id == project_id, S.heartbeat_id.is_not(None)).order_by(S.id)
    return [_schedule(row) for row in conn.execute(query.with_for_update())]


def watching_projects(conn: Connection) -> list[str]:
    """Projects with a schedule that a heartbeat watches."""
    return list(conn.scalars(select(S.project_id).where(S.heartbeat_id.is_not(None)).distinct().order_by(S.project_id)))


def note_skips(conn: Connection, schedule_ids: Collection[str], now: EpochMs) -> None:
    """The latest slot of these schedules was skipped."""
    if not schedule_ids:
        return
    values = {"last_status": "skipped", "last_executed_at": now}
    conn.execute(update(bot_schedules).where(S.id.in_(list(schedule_ids))).values(values))


def count_enabled(conn: Connection, bot_id: str) -> int:
    """How many schedules of a bot are enabled."""
    return int(conn.scalar(select(func.count()).where(S.bot_id == bot_id, S.is_enabled == 1)) or 0)


# Periods ------------------------------------------------------------------------------------------------------------
def spent_in(conn: Connection, pairs: Mapping[str, EpochMs]) -> dict[str, tuple[int, int]]:
    """What schedules spent and reserved in their periods, by id; those that did neither are left out."""
    c = bot_budget_periods.c
    query = select(c.schedule_id, c.period_start, c.spent, c.reserved).where(c.schedule_id.in_(list(pairs)))
    return {row[0]: (row[2], row[3]) for row in conn.execute(query) if pairs.get(row[0]) == row[1]}
