"""Schedules and the members they are of: made, changed, switched, shown, removed. Each in the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from lifesign.bots import activity, bodies, budget, rules, run_store, store, timing, tools, watching
from lifesign.bots.asking import Ask, changed, get_bot, get_schedule, require_channels
from lifesign.bots.bodies import Fields
from lifesign.bots.project_settings import require_floor, require_room, require_switches
from lifesign.bots.records import Bot, Member, ProjectSettings, Schedule, ScheduleOptions
from lifesign.bots.rules import InvalidField, ScheduleNotFound
from lifesign.bots.timing import Timing
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.ids import new_id
from lifesign.schedule import BadSchedule


@dataclass(frozen=True, slots=True)
class Shown:
    """A schedule with what answers tell besides."""

    schedule: Schedule
    bot: Bot
    member: Member | None
    period: budget.Period
    spent: int
    reserved: int
    running_run: str | None = None


# Members ------------------------------------------------------------------------------------------------------------
def create_member(conn: Connection, ask: Ask, fields: Fields) -> Member:
    """A new subscriber. Raises InvalidField for an external id that another has."""
    name, email = fields.text("name", 200), fields.text("email", 254)
    external_id = fields.text("external_id", 128, least=1)
    store.lock_settings(conn, ask.project_id)
    if external_id is not None and store.member_by_ref(conn, ask.project_id, external_id) is not None:
        raise fields.refuse("external_id", "belongs to another subscriber")
    return _new_member(conn, ask, external_id=external_id, name=name, email=email)


def _new_member(
    conn: Connection,
    ask: Ask,
    *,
    number: int | None = None,
    external_id: str | None = None,
    name: str | None = None,
    email: str | None = None,
) -> Member:
    if number is None:
        number = store.next_member_number(conn, ask.project_id)
    made = Member(new_id("mem", ask.now), ask.project_id, number, external_id, name, email, ask.now)
    store.insert_member(conn, made)
    return made


def _member_for(conn: Connection, ask: Ask, ref: str | int | None) -> Member | None:
    """The member that a schedule shall belong to, made when unknown."""
    if ref is None:
        return None
    found = store.member_by_ref(conn, ask.project_id, ref)
    if found is not None:
        return found
    store.lock_settings(conn, ask.project_id)
    found = store.member_by_ref(conn, ask.project_id, ref)
    if found is not None:
        return found
    if isinstance(ref, int):
        return _new_member(conn, ask, number=ref)
    return _new_member(conn, ask, external_id=ref)


# Schedules ----------------------------------------------------------------------------------------------------------
def configure(conn: Connection, ask: Ask, bot_ref: str | int, fields: Fields) -> Shown:
    """Create or update a schedule. Raises what section 2 of the spec names."""
    bot = get_bot(conn, ask.project_id, bot_ref, lock=True)
    schedule_id = fields.raw("uuid")
    present: Schedule | None = None
    if not bodies.is_absent(schedule_id):
        present = store.schedule_by_id(conn, bot.id, bodies.text_of(schedule_id), lock=True)
        if present is None:
            raise ScheduleNotFound
    plan = require_switches(conn, bot)
    prompt = bodies.prompt_of(fields, is_required=present is None)
    if present is None:
        present, member_id = _by_prompt(conn, ask, bot, fields, prompt or "")
    else:
        member_id = present.member_id
        if prompt is not None and store.has_prompt(conn, present, prompt):
            raise InvalidField("prompt", "another schedule of this bot has it")
    own, extra = bodies.schedule_of(fields, ask.guard)
    if present is not None:
        # Who made it stays who made it.
        extra.pop("origin", None)
    present = None if present is None else watching.without_lost(conn, present)
    before = present or blank(ask.now, bot, member_id, prompt or "")
    is_timed = bodies.has_timing(fields)
    wanted = bodies.timing_of(fields, present.timing if present else None, ask.now) if is_timed else before.timing
    if present is None or is_timed:
        require_floor(plan, wanted, ask.now)
    options = _schedule_options(conn, ask, bot, before=before, wanted=wanted, extra=extra)
    is_enabled = own.pop("is_enabled", before.is_enabled)
    after = replace(before, **own, prompt=prompt or before.prompt, timing=wanted, options=options)
    if present is None:
        require_room(conn, plan, bot)
        after = switched(after, ask, is_enabled=is_enabled) if is_enabled else after
        after = _watched(conn, ask, bot, after, is_switched=True)
        if not store.insert_schedule(conn, after):
            raise InvalidField("prompt", "another schedule of this bot has it")
    else:
        if wanted != before.timing:
            after = timed(replace(after, version=after.version + 1), ask.now, is_running=after.is_enabled)
        if is_enabled != before.is_enabled:
            after = switched(after, ask, is_enabled=is_enabled)
        if after != before:
            is_switched = is_enabled != before.is_enabled
            after = _watched(conn, ask, bot, replace(after, updated_at=ask.now), is_switched=is_switched)
            store.save_schedule(conn, after)
    activity.edited(conn, bot.project_id, bot.id, ask.now)
    wake_after_commit(conn, "bots_claim")
    return shown(conn, [(bot, after)], ask.now)[0]


def add_schedule(conn: Connection, ask: Ask, bot_ref: str | int, fields: Fields) -> Shown:
    """Create a schedule of no member; one that has the prompt already is left alone. Raises as `configure`."""
    bot = get_bot(conn, ask.project_id, bot_ref, lock=True)
    prompt = bodies.prompt_of(fields, is_required=True) or ""
    if store.schedule_by_prompt(conn, bot.id, "", prompt) is not None:
        raise InvalidField("prompt", "another schedule of this bot has it")
    return configure(conn, ask, bot.id, fields)


def _by_prompt(conn: Connection, ask: Ask, bot: Bot, fields: Fields, prompt: str) -> tuple[Schedule | None, str]:
    """The schedule that a prompt names, and the member it is or shall be of."""
    member = _member_for(conn, ask, bodies.member_ref(fields))
    member_id = "" if member is None else member.id
    return store.schedule_by_prompt(conn, bot.id, member_id, prompt), member_id


def blank(now: EpochMs, bot: Bot, member_id: str, prompt: str) -> Schedule:
    """A schedule as it is before anything is said of it."""
    return Schedule(
        id=new_id("sch", now),
        project_id=bot.project_id,
        bot_id=bot.id,
        member_id=member_id,
        prompt=prompt,
        is_enabled=False,
        timing=Timing(30),
        budget=None,
        max_errors=5,
        options=ScheduleOptions(),
        last_slot=None,
        next_slot=None,
        next_run_at=None,
        version=1,
        execution_count=0,
        error_count=0,
        last_executed_at=None,
        last_status=None,
        last_error=None,
        paused_reason=None,
        paused_by=None,
        paused_at=None,
        heartbeat_id=None,
        error_key=None,
        created_at=now,
        updated_at=now,
    )


def _schedule_options(
    conn: Connection, ask: Ask, bot: Bot, *, before: Schedule, wanted: Timing, extra: dict[str, Any]
) -> ScheduleOptions:
    told = Fields({}, within="lifesign")
    if "limits" in extra:
        extra["limits"] = _merged(before.options.limits, extra["limits"])
    if "notify" in extra:
        extra["notify"] = _merged(before.options.notify, extra["notify"])
        if "channels" in extra["notify"]:
            require_channels(conn, ask, told, "notify.channels", extra["notify"]["channels"])
    if extra.get("watch") is not None:
        watching.require_policy(conn, ask.project_id, extra["watch"])
    options: ScheduleOptions = changed(before.options, extra)
    if options.catch_up == "all" and wanted.cron is None:
        raise told.refuse("catch_up", "all is for schedules by cron")
    unknown = next((each for each in options.tools or () if not tools.is_among(each, bot.options.tools)), None)
    if "tools" in extra and unknown is not None:
        raise told.refuse("tools", f"the bot may not use {unknown!r}")
    return options


def _merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, after changes; None takes a choice back."""
    return {name: value for name, value in {**before, **changes}.items() if value is not None}


def set_enabled(conn: Connection, ask: Ask, bot_ref: str | int, schedule_id: str, *, is_enabled: bool) -> Shown:
    """Enable or disable a schedule. Raises BotNotFound, ScheduleNotFound, PlanForbids, HeartbeatDisabled."""
    bot, _ = get_schedule(conn, ask.project_id, bot_ref, schedule_id)
    if is_enabled:
        require_switches(conn, bot)
    before = store.schedule_by_id(conn, bot.id, schedule_id, lock=True)
    if before is None:
        raise ScheduleNotFound
    after = before
    if before.is_enabled != is_enabled:
        after = replace(switched(before, ask, is_enabled=is_enabled), updated_at=ask.now)
        after = _watched(conn, ask, bot, after, is_switched=True)
        store.save_schedule(conn, after)
        activity.edited(conn, bot.project_id, bot.id, ask.now)
        wake_after_commit(conn, "bots_claim")
    return shown(conn, [(bot, after)], ask.now)[0]


def _watched(conn: Connection, ask: Ask, bot: Bot, schedule: Schedule, *, is_switched: bool) -> Schedule:
    """The schedule with its heartbeat as it wants one."""
    if schedule.options.watch is None and schedule.heartbeat_id is None:
        return schedule
    found = watching.without_lost(conn, schedule)
    return watching.kept(conn, ask.watchers, bot, found, ask.now, is_switched=is_switched)


def switched(schedule: Schedule, ask: Ask, *, is_enabled: bool) -> Schedule:
    """A schedule whose switch was moved by a person."""
    if is_enabled:
        cleared = replace(schedule, is_enabled=True, error_count=0, paused_reason=None, paused_by=None, paused_at=None)
        return timed(cleared, ask.now, is_running=True)
    return paused(schedule, "user", ask.key_id, ask.now)


def paused(schedule: Schedule, reason: str, by: str, now: EpochMs) -> Schedule:
    """A schedule that runs no more until somebody enables it."""
    stopped = replace(schedule, is_enabled=False, paused_reason=reason, paused_by=by, paused_at=now)
    return timed(stopped, now, is_running=False)


def timed(schedule: Schedule, now: EpochMs, *, is_running: bool) -> Schedule:
    """A schedule whose next slot is counted from now, or which has none."""
    if not is_running:
        return replace(schedule, next_slot=None, next_run_at=None, version=schedule.version + 1)
    # A clock that was set back must not repeat slots.
    last = max(timing.whole_second(now), schedule.last_slot or 0)
    try:
        following = timing.next_slot(schedule.timing, EpochMs(last))
    except BadSchedule:
        return replace(schedule, next_slot=None, next_run_at=None, version=schedule.version + 1)
    effective = timing.effective_at(schedule.timing, schedule.slot_options, schedule.id, following)
    return replace(
        schedule,
        last_slot=EpochMs(last),
        next_slot=following,
        next_run_at=effective,
        version=schedule.version + 1,
    )


def delete_schedule(conn: Connection, ask: Ask, bot_ref: str | int, schedule_id: str) -> None:
    """Remove a schedule; its runs end, its logs stay. Raises BotNotFound, ScheduleNotFound."""
    bot, _ = get_schedule(conn, ask.project_id, bot_ref, schedule_id)
    schedule = store.schedule_by_id(conn, bot.id, schedule_id, lock=True)
    if schedule is None:
        raise ScheduleNotFound
    watching.remove(conn, ask.watchers, bot, schedule, ask.now)
    until = EpochMs(ask.now + rules.LAST_WORDS_MS)
    run_store.ask_to_cancel(conn, {"schedule_id": schedule_id}, "deleted", last_words_until=until)
    store.delete_schedule(conn, schedule_id)
    activity.edited(conn, bot.project_id, bot.id, ask.now)
    wake_after_commit(conn, "bots_run")


def carry_over(conn: Connection, ask: Ask, bot: Bot, *, is_switched: bool) -> None:
    """A bot was renamed, or its switch was moved: schedules run or rest, and what watches them is called after it."""
    for schedule in store.lock_schedules_of(conn, bot.id):
        after = schedule
        if is_switched and schedule.is_enabled:
            after = timed(schedule, ask.now, is_running=bot.is_scheduling)
        after = _watched(conn, ask, bot, after, is_switched=is_switched and schedule.is_enabled)
        if after != schedule:
            store.save_schedule(conn, after)
    wake_after_commit(conn, "bots_claim")


# Shown --------------------------------------------------------------------------------------------------------------
def period_now(settings: ProjectSettings, at: EpochMs) -> budget.Period:
    """The period of a project's budgets around an instant."""
    return budget.period_at(settings.options.budget_period, settings.options.billing_timezone, at)


def shown(conn: Connection, found: Sequence[tuple[Bot, Schedule]], now: EpochMs) -> list[Shown]:
    """Schedules with what answers tell besides."""
    if not found:
        return []
    period = period_now(store.settings_of(conn, found[0][0].project_id), now)
    spent = store.spent_in(conn, {schedule.id: period.start for _, schedule in found})
    members = store.members_by_id(conn, [schedule.member_id for _, schedule in found if schedule.member_id])
    gone = watching.lost(conn, [schedule for _, schedule in found])
    found = [(bot, watching.without_lost(conn, each) if each.id in gone else each) for bot, each in found]
    running = run_store.running_of(conn, [schedule.id for _, schedule in found], now)
    return [
        Shown(
            schedule,
            bot,
            members.get(schedule.member_id),
            period,
            *spent.get(schedule.id, (0, 0)),
            running.get(schedule.id),
        )
        for bot, schedule in found
    ]


def read_schedule(conn: Connection, project_id: str, bot_ref: str | int, schedule_id: str, now: EpochMs) -> Shown:
    """One schedule. Raises BotNotFound, ScheduleNotFound."""
    return shown(conn, [get_schedule(conn, project_id, bot_ref, schedule_id)], now)[0]


def list_schedules(
    conn: Connection,
    project_id: str,
    bot_ref: str | int,
    *,
    member: str | int | None,
    limit: int,
    after: str,
    now: EpochMs,
) -> list[Shown]:
    """Schedules of a bot, of one member if that is named. Raises BotNotFound."""
    bot = get_bot(conn, project_id, bot_ref)
    member_id = None
    if member is not None:
        found = store.member_by_ref(conn, project_id, member)
        if found is None:
            return []
        member_id = found.id
    rows = store.schedules_of(conn, bot.id, member_id=member_id, limit=limit, after=after)
    return shown(conn, [(bot, each) for each in rows], now)
