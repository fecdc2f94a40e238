"""Bots, members, schedules and settings: made, changed, switched, removed. Each in the caller's transaction."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from sqlalchemy import Connection

from lifesign.bots import activity, bodies, budget, rules, run_store, store, timing, tools, watching
from lifesign.bots.bodies import Fields
from lifesign.bots.records import (
    Bot,
    BotOptions,
    Member,
    ProjectSettings,
    Schedule,
    ScheduleOptions,
)
from lifesign.bots.rules import (
    BelowPlanMinimum,
    BotNotFound,
    HeartbeatDisabled,
    InvalidField,
    Plan,
    PlanForbids,
    PlanFull,
    ScheduleNotFound,
    Trifecta,
)
from lifesign.bots.store import Tally
from lifesign.bots.timing import Timing
from lifesign.bots.watching import Watchers
from lifesign.channels import config as channel_config
from lifesign.channels import service as channels
from lifesign.channels.secrets import SecretBox
from lifesign.channels.targets import GuardPolicy
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.ids import new_id
from lifesign.schedule import BadSchedule

BOTS_SECRETS = "bots"
_RUNNER_SECRET = "runner.secret"  # noqa: S105 - the name of a place
_NAMED = 5
_BOT_FIELDS = ("name", "model", "instruction", "max_reply_tokens", "top", "is_online", "is_scheduling")


@dataclass(frozen=True, slots=True)
class Offers:
    """What the operator offers a project, by name: providers of models, and servers of tools with their labels."""

    providers: frozenset[str] = frozenset()
    mcp_labels: Mapping[str, frozenset[str]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Ask:
    """Who asks, as far as definitions depend on it."""

    project_id: str
    key_id: str
    is_admin: bool
    watchers: Watchers
    guard: GuardPolicy
    box: SecretBox
    now: EpochMs
    offers: Offers = Offers()


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


# Settings -----------------------------------------------------------------------------------------------------------
settings_of = store.settings_of


def change_settings(conn: Connection, ask: Ask, fields: Fields) -> ProjectSettings:
    """Change the settings that were sent. Raises InvalidField."""
    wanted = bodies.settings_of(fields, ask.guard)
    is_acknowledged = bool(fields.flag("acknowledge_trifecta")) and ask.is_admin
    before = store.lock_settings(conn, ask.project_id)
    if "notify_channels" in wanted:
        _require_channels(conn, ask, fields, "notify_channels", wanted["notify_channels"])
    if "providers" in wanted:
        wanted["providers"] = _sealed_providers(ask, before.options.providers, wanted["providers"])
    if "mcp_servers" in wanted:
        wanted["mcp_servers"] = _sealed_servers(ask, before.options.mcp_servers, wanted["mcp_servers"])
    plan = wanted.pop("plan", before.plan)
    after = replace(before, plan=plan, options=_with(before.options, wanted))
    if after != before:
        _require_no_new_trifecta(conn, ask, is_acknowledged=is_acknowledged, before=before, after=after)
        store.save_settings(conn, after, ask.now)
    return after


def _require_no_new_trifecta(
    conn: Connection, ask: Ask, *, is_acknowledged: bool, before: ProjectSettings, after: ProjectSettings
) -> None:
    """Other labels of servers must not make of a bot's tools what would be refused if they were sent now."""
    labels, earlier = labels_by_server(after, ask.offers), labels_by_server(before, ask.offers)
    if labels == earlier:
        return
    found = [
        each
        for each in store.bots_of(conn, ask.project_id)
        if is_unsafe(each.options, each.options.tools, labels)
        and not is_unsafe(each.options, each.options.tools, earlier)
    ]
    if found and not is_acknowledged:
        schedules = store.tallies(conn, [each.id for each in found])
        raise Trifecta("mcp_servers", [_named(each, schedules.get(each.id)) for each in found[:_NAMED]])
    for each in found:
        store.save_bot(conn, replace(each, options=_with(each.options, {"has_acknowledged": True})))


def _named(bot: Bot, tally: Tally | None) -> str:
    return f"{bot.name!r} ({bot.id}, schedules: {0 if tally is None else tally.schedules})"


def is_unsafe(options: BotOptions, names: Sequence[str], labels: Mapping[str, frozenset[str]]) -> bool:
    """Whether a bot must not use these tools together. labels: of each server of tools."""
    return not options.has_acknowledged and tools.is_trifecta(names, options.approval_tools, labels)


def _with(options: Any, changes: Mapping[str, Any]) -> Any:  # Any: one of the structs of options
    return msgspec.structs.replace(options, **changes)


def _require_channels(conn: Connection, ask: Ask, fields: Fields, name: str, ids: Sequence[str]) -> None:
    known = channels.known_channels(conn, ask.project_id, ids)
    unknown = next((each for each in ids if each not in known), None)
    if unknown is not None:
        raise fields.refuse(name, f"unknown channel {unknown[:100]!r}")


def _sealed_providers(
    ask: Ask, before: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Providers as stored. One that is sent without its key keeps it while its address is the same."""
    known = {each["name"]: each for each in before}
    sealed = []
    for each in wanted:
        entry = {name: value for name, value in each.items() if name != "api_key"}
        old = known.get(each["name"], {})
        if "api_key" in each:
            entry["key"] = ask.box.seal(each["api_key"], ask.project_id, each["name"], kind=BOTS_SECRETS)
            entry["hint"] = each["api_key"][-4:] if len(each["api_key"]) > 8 else ""  # noqa: PLR2004 - twice the hint
        elif "key" in old and old.get("base_url") == each.get("base_url") and old["kind"] == each["kind"]:
            entry |= {"key": old["key"], "hint": old["hint"]}
        sealed.append(entry)
    return tuple(sealed)


def _sealed_servers(
    ask: Ask, before: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Servers of tools as stored. One that is sent without headers keeps them while its address is the same."""
    known = {each["name"]: each for each in before}
    sealed = []
    for each in wanted:
        entry = {name: value for name, value in each.items() if name != "headers"}
        old = known.get(each["name"], {})
        if each.get("headers"):
            text = msgspec.json.encode(each["headers"]).decode()
            entry["headers"] = ask.box.seal(text, ask.project_id, _server_place(each["name"]), kind=BOTS_SECRETS)
        elif "headers" not in each and "headers" in old and old["url"] == each["url"]:
            entry["headers"] = old["headers"]
        sealed.append(entry)
    return tuple(sealed)


def _server_place(name: str) -> str:
    return f"mcp.{name}"


def server_headers(box: SecretBox, project_id: str, server: Mapping[str, Any]) -> dict[str, str]:
    """The headers that requests to a server of tools carry. Raises SecretUnreadable."""
    if "headers" not in server:
        return {}
    text = box.open(server["headers"], project_id, _server_place(server["name"]), kind=BOTS_SECRETS)
    return msgspec.json.decode(text, type=dict[str, str])


def labels_by_server(settings: ProjectSettings, offers: Offers) -> dict[str, frozenset[str]]:
    """The labels of all servers of tools that a project may use; its own come before the operator's."""
    own = {
        each["name"]: frozenset(each["labels"]) if "labels" in each else tools.SERVER_LABELS
        for each in settings.options.mcp_servers
    }
    return {**offers.mcp_labels, **own}


# Bots ---------------------------------------------------------------------------------------------------------------
def get_bot(conn: Connection, project_id: str, ref: str | int, *, lock: bool = False) -> Bot:
    """The bot with this id or number. Raises BotNotFound."""
    found = store.bot_by_ref(conn, project_id, ref, lock=lock)
    if found is None:
        raise BotNotFound
    return found


def create_bot(conn: Connection, ask: Ask, fields: Fields) -> Bot:
    """A new bot. Raises MissingField, InvalidField, PlanForbids."""
    settings = store.settings_of(conn, ask.project_id)
    if fields.flag("heartbeat"):
        _require_plan(settings)
    own, extra = bodies.bot_of(fields, ask.guard, is_new=True)
    bot = Bot(
        number=0,
        id=new_id("bot", ask.now),
        project_id=ask.project_id,
        name="",
        model=settings.options.default_model,
        instruction=None,
        max_reply_tokens=None,
        top=None,
        is_online=True,
        is_scheduling=False,
        options=BotOptions(),
        reset_at=None,
        created_at=ask.now,
        updated_at=ask.now,
    )
    bot = replace(bot, **own)
    return store.insert_bot(conn, replace(bot, options=_bot_options(ask, settings, bot, extra, fields)))


def update_bot(conn: Connection, ask: Ask, ref: str | int, fields: Fields) -> tuple[Bot, Bot]:
    """A bot before and after its change. Raises BotNotFound, PlanForbids, InvalidField."""
    before = get_bot(conn, ask.project_id, ref, lock=True)
    settings = store.settings_of(conn, ask.project_id)
    if fields.flag("heartbeat") and not before.is_scheduling:
        _require_plan(settings)
    own, extra = bodies.bot_of(fields, ask.guard, is_new=False)
    after = replace(before, **own)
    after = replace(after, options=_bot_options(ask, settings, after, extra, fields))
    if after == before:
        return before, before
    after = replace(after, updated_at=max(ask.now, before.updated_at))
    store.save_bot(conn, after)
    activity.edited(conn, after.project_id, after.id, ask.now)
    is_switched = after.is_scheduling != before.is_scheduling
    if is_switched or after.name != before.name:
        _carry_over(conn, ask, after, is_switched=is_switched)
    return before, after


def _carry_over(conn: Connection, ask: Ask, bot: Bot, *, is_switched: bool) -> None:
    """A bot was renamed, or its switch was moved: schedules run or rest, and what watches them is called after it."""
    for schedule in store.lock_schedules_of(conn, bot.id):
        after = schedule
        if is_switched and schedule.is_enabled:
            after = timed(schedule, ask.now, is_running=bot.is_scheduling)
        after = _watched(conn, ask, bot, after, is_switched=is_switched and schedule.is_enabled)
        if after != schedule:
            store.save_schedule(conn, after)
    wake_after_commit(conn, "bots_claim")


def reset_bot(conn: Connection, ask: Ask, ref: str | int) -> None:
    """Forget what was said before. Raises BotNotFound."""
    bot = get_bot(conn, ask.project_id, ref, lock=True)
    store.save_bot(conn, replace(bot, reset_at=ask.now))


def _bot_options(ask: Ask, settings: ProjectSettings, bot: Bot, extra: Mapping[str, Any], fields: Fields) -> BotOptions:
    told = Fields(fields.raw("lifesign") or {}, within="lifesign")
    if "provider" in extra and extra["provider"] != "default":
        known = {each["name"] for each in settings.options.providers} | ask.offers.providers
        if extra["provider"] not in known:
            raise told.refuse("provider", f"unknown provider {extra['provider'][:64]!r}")
    if "runner" in extra:
        extra = {**extra, "runner": _sealed_runner(ask, bot, extra["runner"])}
    options: BotOptions = _with(bot.options, extra)
    labels = labels_by_server(settings, ask.offers)
    for name in ("tools", "approval_tools"):
        for tool in extra.get(name, ()):
            parts = tools.parted(tool)
            if parts is not None and parts[0] not in labels:
                raise told.refuse(name, f"unknown server of tools {parts[0]!r}")
    is_acknowledged = bool(told.flag("acknowledge_trifecta")) and ask.is_admin
    if is_acknowledged or {"tools", "approval_tools"} & set(extra):
        options = _with(options, {"has_acknowledged": is_acknowledged})
        if is_unsafe(options, options.tools, labels):
            raise Trifecta("lifesign.tools")
    return options


def _sealed_runner(ask: Ask, bot: Bot, runner: Mapping[str, Any]) -> dict[str, Any]:
    """A runner as stored. Without a secret it keeps the one of the same address, else one is made."""
    if runner["kind"] != "http":
        return dict(runner)
    old = bot.options.runner
    if "secret" not in runner and old.get("url") == runner["url"] and "secret" in old:
        return {**runner, "secret": old["secret"]}
    secret = runner.get("secret") or channel_config.generate_webhook_secret()
    return {**runner, "secret": ask.box.seal(secret, bot.id, _RUNNER_SECRET, kind=BOTS_SECRETS)}


def runner_secret(box: SecretBox, bot: Bot) -> str:
    """What requests to a bot's runner are signed with. Raises SecretUnreadable."""
    return box.open(bot.options.runner["secret"], bot.id, _RUNNER_SECRET, kind=BOTS_SECRETS)


# Plans --------------------------------------------------------------------------------------------------------------
def _require_plan(settings: ProjectSettings) -> Plan:
    plan = rules.PLANS[settings.plan]
    if not plan.may_enable:
        raise PlanForbids(plan.name)
    return plan


def require_switches(conn: Connection, bot: Bot) -> Plan:
    """Raise PlanForbids, HeartbeatDisabled."""
    plan = _require_plan(store.settings_of(conn, bot.project_id))
    if not bot.is_scheduling:
        raise HeartbeatDisabled
    return plan


def require_floor(plan: Plan, wanted: Timing, now: EpochMs) -> None:
    """Raise BelowPlanMinimum where a plan does not let schedules run this often."""
    if wanted.cron is None:
        if (wanted.interval_minutes or 0) < plan.interval_floor:
            raise BelowPlanMinimum("interval_minutes", plan.interval_floor)
    elif plan.cron_floor > 1 and timing.least_gap_minutes(wanted.cron, now) < plan.cron_floor:
        raise BelowPlanMinimum("cron_pattern", plan.cron_floor)


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
def get_schedule(conn: Connection, project_id: str, bot_ref: str | int, schedule_id: str) -> tuple[Bot, Schedule]:
    """A schedule and its bot. Raises BotNotFound, ScheduleNotFound."""
    bot = get_bot(conn, project_id, bot_ref)
    found = store.schedule_by_id(conn, bot.id, schedule_id)
    if found is None:
        raise ScheduleNotFound
    return bot, found


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
        _require_room(conn, plan, bot)
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
            _require_channels(conn, ask, told, "notify.channels", extra["notify"]["channels"])
    if extra.get("watch") is not None:
        watching.require_policy(conn, ask.project_id, extra["watch"])
    options: ScheduleOptions = _with(before.options, extra)
    if options.catch_up == "all" and wanted.cron is None:
        raise told.refuse("catch_up", "all is for schedules by cron")
    unknown = next((each for each in options.tools or () if not tools.is_among(each, bot.options.tools)), None)
    if "tools" in extra and unknown is not None:
        raise told.refuse("tools", f"the bot may not use {unknown!r}")
    return options


def _merged(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """What was chosen, after changes; None takes a choice back."""
    return {name: value for name, value in {**before, **changes}.items() if value is not None}


def _require_room(conn: Connection, plan: Plan, bot: Bot) -> None:
    if plan.most_schedules is not None and store.count_schedules(conn, bot.id) >= plan.most_schedules:
        raise PlanFull(plan.name, plan.most_schedules)


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


# Ends ---------------------------------------------------------------------------------------------------------------
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


def delete_bot(conn: Connection, ask: Ask, ref: str | int) -> str:
    """Remove a bot and all that was kept of it; its id. Raises BotNotFound."""
    bot = get_bot(conn, ask.project_id, ref, lock=True)
    # Locked, or a run that somebody starts meanwhile would outlive its bot.
    for schedule in store.lock_schedules_of(conn, bot.id):
        watching.remove(conn, ask.watchers, bot, schedule, ask.now)
    store.delete_bot(conn, bot.id)
    activity.edited(conn, bot.project_id, bot.id, ask.now)
    # Whoever does one of its runs notices that the run is gone.
    wake_after_commit(conn, "bots_run")
    return bot.id
