"""Runs: made of slots and triggers, started under a lease, charged, ended under a fence. Each in one transaction.

Locks are taken in this order: settings of the project, schedule, run, account.
"""

import hashlib
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lifesign.bots import budget, notices, reports, rules, run_store, service, store, timing, tools, watching
from lifesign.bots.budget import Price, Tariff, Usage
from lifesign.bots.notices import Subject
from lifesign.bots.records import Bot, ProjectSettings, Run, Schedule
from lifesign.bots.reports import Report
from lifesign.bots.rules import GONE, Counted, Door, Facts, LeaseLost, Limits, RunKind, RunStatus
from lifesign.bots.run_store import DueSchedule, Moved
from lifesign.bots.store import ALL_PROJECTS
from lifesign.bots.timing import Due
from lifesign.bots.watching import Watchers
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.ids import new_id
from lifesign.schedule import BadSchedule

LEASE_MS = 60_000
_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


# Settings -----------------------------------------------------------------------------------------------------------
def is_stopped(settings: ProjectSettings, server: ProjectSettings) -> bool:
    """Whether nothing may run: the project's bots, or those of all projects, are stopped."""
    return settings.stopped_at is not None or server.stopped_at is not None


def _server_settings(conn: Connection, *, is_halted: bool) -> ProjectSettings:
    """What holds for all projects. is_halted: this server was started with all bots stopped."""
    found = store.settings_of(conn, ALL_PROJECTS)
    return replace(found, stopped_at=EpochMs(0)) if is_halted and found.stopped_at is None else found


@lru_cache(maxsize=1024)
def _least_gap(cron: str, day: int) -> float:
    return timing.least_gap_minutes(cron, EpochMs(day * _DAY_MS))


def _fits(settings: ProjectSettings, schedule: Schedule, now: EpochMs) -> bool:
    plan = rules.PLANS[settings.plan]
    cron = schedule.timing.cron
    gap = _least_gap(cron, now // _DAY_MS) if cron is not None and plan.cron_floor > 1 else None
    return rules.fits_plan(plan, interval_minutes=schedule.timing.interval_minutes, least_cron_gap=gap)


# Claiming slots -----------------------------------------------------------------------------------------------------
class Planned(NamedTuple):
    """A schedule with slots that are due, and what is to be done about them. due: None when there is no next slot."""

    row: DueSchedule
    due: Due | None


def plan(conn: Connection, now: EpochMs, limit: int) -> list[Planned]:
    """What is due, worked out by a reader: a schedule that slept for long takes a while."""
    rows = run_store.due_schedules(conn, now, limit)
    schedules = store.schedules_by_id(conn, [row.id for row in rows])
    found = []
    for row in rows:
        schedule = schedules[row.id]
        try:
            due = timing.due(schedule.timing, schedule.slot_options, schedule.id, EpochMs(schedule.last_slot or 0), now)
        except BadSchedule:
            found.append(Planned(row, None))
            continue
        if due is not None:
            found.append(Planned(row, due))
    return found


def claim(conn: Connection, planned: Sequence[Planned], now: EpochMs, *, is_halted: bool = False) -> int:
    """Make runs of slots that are due, and move on; how many schedules were dealt with.

    What changed since it was planned is left for the next time. is_halted: all bots are stopped on this server.
    """
    by_id = {each.row.id: each.due for each in planned}
    locked = run_store.lock_unchanged(conn, [each.row for each in planned])
    schedules = store.schedules_by_id(conn, locked)
    world = _World.of(conn, list(schedules.values()), now, is_halted=is_halted)
    moved: list[Moved] = []
    for schedule in schedules.values():
        due = by_id[schedule.id]
        if due is None:
            _pause(conn, schedule, "schedule_error", now)
            continue
        _claim_one(world, schedule, due)
        moved.append(Moved(schedule.id, due.last_slot, due.next_slot, due.next_effective))
    run_store.move_slots(conn, moved)
    _expect(conn, schedules, moved)
    world.write()
    if world.has_started:
        wake_after_commit(conn, "bots_run")
    return len(schedules)


def _expect(conn: Connection, schedules: Mapping[str, Schedule], moved: Sequence[Moved]) -> None:
    """Heartbeats that watch schedules expect the slot after the next check-in."""
    after = {
        schedule.heartbeat_id: replace(schedule, next_slot=each.next_slot, next_run_at=each.next_run_at)
        for each in moved
        if (schedule := schedules[each.id]).heartbeat_id is not None
    }
    watching.expect(conn, after)


def claim_or_pass(conn: Connection, planned: Planned, now: EpochMs, *, is_halted: bool = False) -> int:
    """The same for one schedule; where a slot of it has a run already, its slots are passed over."""
    try:
        with conn.begin_nested():
            return claim(conn, [planned], now, is_halted=is_halted)
    except IntegrityError:
        due = planned.due
        if due is None or not run_store.lock_unchanged(conn, [planned.row]):
            return 0
        run_store.move_slots(conn, [Moved(planned.row.id, due.last_slot, due.next_slot, due.next_effective)])
        return 1


def _claim_one(world: "_World", schedule: Schedule, due: Due) -> None:
    first = due.starts[0].slot if due.starts else due.last_slot
    count = len(due.starts) + sum(each.missed_count for each in due.starts)
    if due.missed is not None:
        first, count = due.missed.first_slot, count + due.missed.count
    reason = rules.admit("tick", "scheduled", world.facts(schedule, is_slot=False))
    if reason == GONE:
        return
    if reason is not None:
        world.skip(schedule, reason, first, due.last_slot, count)
        return
    if due.missed is not None:
        world.skip(schedule, "missed", due.missed.first_slot, due.missed.last_slot, due.missed.count)
    is_series = len(due.starts) > 1
    for n, start in enumerate(due.starts):
        facts = world.facts(schedule)
        # Slots that are caught up in a row wait for each other; that is no overlap.
        if is_series and n:
            facts = replace(facts, is_running=False, is_queued=False)
        refused = rules.admit("tick", start.kind, facts)
        if refused is not None:
            world.skip(schedule, refused, start.slot, start.slot, 1 + start.missed_count)
            continue
        world.queue(schedule, start, gap_ms=due.next_slot - start.slot)


class _World:
    """What claims depend on, read once for a batch, and what they lead to, written at the end."""

    def __init__(self, conn: Connection, now: EpochMs) -> None:
        self._conn = conn
        self._now = now
        self._settings: dict[str, ProjectSettings] = {}
        self._bots: dict[str, Bot] = {}
        self._open: dict[str, list[Run]] = {}
        self._latest: dict[str, Run] = {}
        self._recent: dict[str, int] = {}
        self._new: list[Run] = []
        self._grown: dict[str, Run] = {}
        self._skipped: set[str] = set()
        self.has_started = False

    @classmethod
    def of(cls, conn: Connection, schedules: Sequence[Schedule], now: EpochMs, *, is_halted: bool = False) -> "_World":
        world = cls(conn, now)
        ids = [each.id for each in schedules]
        projects = sorted({each.project_id for each in schedules})
        world._settings = store.settings_of_many(conn, projects)
        world._settings[ALL_PROJECTS] = _server_settings(conn, is_halted=is_halted)
        world._bots = store.bots_by_id(conn, sorted({each.bot_id for each in schedules}))
        world._open = run_store.open_runs(conn, ids)
        world._latest = run_store.latest_runs(conn, ids)
        since = EpochMs(now - _HOUR_MS)
        world._recent = {each: run_store.count_recent(conn, each, since) for each in projects}
        return world

    def facts(self, schedule: Schedule, *, is_slot: bool = True) -> Facts:
        """What decides about a slot. is_slot: False to ask only what holds for all slots of the schedule."""
        settings = self._settings[schedule.project_id]
        bot = self._bots.get(schedule.bot_id)
        found = facts_of(settings, self._settings[ALL_PROJECTS], bot, schedule, self._now)
        if not is_slot:
            return found
        runs = self._open.get(schedule.id, [])
        return replace(
            found,
            waits_for_approval=any(each.status == "waiting_approval" for each in runs),
            is_running=any(_is_running(each, self._now) for each in runs),
            is_queued=any(each.status == "queued" for each in runs),
            is_rate_limited=self._recent[schedule.project_id] >= settings.options.max_runs_per_hour,
        )

    def queue(self, schedule: Schedule, start: timing.Start, gap_ms: int) -> None:
        """A run that begins when there is a place."""
        waits_for_another = bool(self._open.get(schedule.id))
        if schedule.options.overlap == "cancel_previous":
            _supersede(self._conn, schedule, self._now)
        made = new_run(schedule, start.kind, self._now)
        made = replace(
            made,
            slot=start.slot,
            effective_at=start.effective_at,
            missed_count=start.missed_count,
            place_until=None
            if waits_for_another
            else rules.place_until(start.kind, start.effective_at, self._now, gap_ms),
            runner=self._bots[schedule.bot_id].options.runner["kind"],
        )
        self._new.append(made)
        self._open.setdefault(schedule.id, []).append(made)
        self._latest[schedule.id] = made
        self._recent[schedule.project_id] += 1
        self.has_started = True

    def skip(self, schedule: Schedule, reason: str, first: EpochMs, last: EpochMs, count: int) -> None:
        """Slots that are not run: one row, as long as the reason stays the same."""
        latest = self._latest.get(schedule.id)
        if latest is not None and latest.status == "skipped" and latest.reason == reason:
            grown = replace(latest, count=latest.count + count, last_slot=last)
            self._latest[schedule.id] = grown
            for n, each in enumerate(self._new):
                if each.id == grown.id:
                    self._new[n] = grown
                    return
            self._grown[grown.id] = grown
            return
        made = replace(
            new_run(schedule, "scheduled", self._now),
            status="skipped",
            reason=reason,
            error_message=rules.SKIPS[reason],
            slot=first,
            effective_at=first,
            first_slot=first,
            last_slot=last,
            count=count,
            finished_at=self._now,
        )
        self._new.append(made)
        self._latest[schedule.id] = made
        self._skipped.add(schedule.id)

    def write(self) -> None:
        """Write what came of it."""
        run_store.insert_runs(self._conn, self._new)
        for grown in self._grown.values():
            run_store.set_run(self._conn, grown.id, {"count": grown.count, "last_slot": grown.last_slot})
        store.note_skips(self._conn, self._skipped, self._now)


def _supersede(conn: Connection, schedule: Schedule, now: EpochMs) -> None:
    until = EpochMs(now + rules.LAST_WORDS_MS)
    run_store.ask_to_cancel(conn, {"schedule_id": schedule.id}, "superseded", last_words_until=until)


def _is_running(run: Run, now: EpochMs) -> bool:
    return run.status == "running" and (run.lease_until or 0) > now


def facts_of(
    settings: ProjectSettings, server: ProjectSettings, bot: Bot | None, schedule: Schedule | None, now: EpochMs
) -> Facts:
    """What holds for every run of a schedule."""
    if bot is None or schedule is None:
        return Facts(is_gone=True)
    return Facts(
        is_gone=not bot.is_scheduling,
        is_enabled=schedule.is_enabled,
        is_stopped=is_stopped(settings, server),
        fits_plan=_fits(settings, schedule, now),
        is_online=bot.is_online,
        overlap=schedule.options.overlap,
    )


def new_run(schedule: Schedule, kind: RunKind, now: EpochMs) -> Run:
    """A run that waits to be started."""
    return Run(
        id=new_id("run", now),
        project_id=schedule.project_id,
        bot_id=schedule.bot_id,
        schedule_id=schedule.id,
        member_id=schedule.member_id,
        kind=kind,
        status="queued",
        reason=None,
        slot=None,
        effective_at=now,
        first_slot=None,
        last_slot=None,
        count=1,
        missed_count=0,
        place_until=None,
        prompt=schedule.prompt,
        runner=None,
        model=None,
        tools=None,
        response=None,
        error_message=None,
        started_at=None,
        finished_at=None,
        duration_ms=None,
        input_tokens=0,
        output_tokens=0,
        requests=0,
        tool_calls=0,
        credits=0,
        is_estimated=0,
        reserved=0,
        period_start=None,
        deadline_at=None,
        lease_owner=None,
        lease_until=None,
        lease_token=0,
        cancel_reason=None,
        token_hash=None,
        idem_key=None,
        notice=None,
        parked_until=None,
        is_approved=None,
        created_at=now,
    )


# Triggers -----------------------------------------------------------------------------------------------------------
def trigger(
    conn: Connection,
    ask: service.Ask,
    bot_ref: str | int,
    schedule_id: str,
    *,
    idem_key: str | None = None,
    is_halted: bool = False,
) -> Run:
    """A run now, or the refusal of one. Raises BotNotFound, ScheduleNotFound, PlanForbids, HeartbeatDisabled."""
    now = ask.now
    bot, _ = service.get_schedule(conn, ask.project_id, bot_ref, schedule_id)
    service.require_switches(conn, bot)
    schedule = store.schedule_by_id(conn, bot.id, schedule_id, lock=True)
    if schedule is None:
        raise rules.ScheduleNotFound
    key = None if idem_key is None else hashlib.sha256(idem_key.encode()).hexdigest()
    if key is not None and (known := run_store.run_by_idem(conn, schedule_id, key)) is not None:
        if now - known.created_at < _DAY_MS:
            return known
        run_store.forget_idem(conn, known.id)
    world = _World.of(conn, [schedule], now, is_halted=is_halted)
    facts = world.facts(schedule)
    refused = rules.admit("trigger", "trigger", facts)
    run = replace(new_run(schedule, "trigger", now), idem_key=key, runner=bot.options.runner["kind"])
    if refused is not None:
        run = replace(run, status="skipped", reason=refused, error_message=rules.SKIPS[refused], finished_at=now)
        store.set_columns(conn, schedule.id, {"last_status": "skipped", "last_executed_at": now})
    else:
        if schedule.options.overlap == "cancel_previous":
            _supersede(conn, schedule, now)
        if not (facts.is_running or facts.is_queued):
            run = replace(run, place_until=rules.place_until("trigger", now, now, 0))
        wake_after_commit(conn, "bots_run")
    run_store.insert_runs(conn, [run])
    return run


def full_projects(conn: Connection, now: EpochMs) -> list[str]:
    """Projects with as many runs going on as they may have."""
    counts = run_store.count_running_of_all(conn, now)
    settings = store.settings_of_many(conn, list(counts))
    return [each for each, count in counts.items() if count >= settings[each].options.max_concurrent_runs]


# Starting -----------------------------------------------------------------------------------------------------------
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
        _refuse(conn, run, schedule, run.cancel_reason, now)
        return None
    bot = store.bots_by_id(conn, [run.bot_id]).get(run.bot_id)
    facts = facts_of(settings, _server_settings(conn, is_halted=is_halted), bot, schedule, now)
    is_full = run_store.count_running(conn, run.project_id, now) >= settings.options.max_concurrent_runs
    if is_full and (run.place_until is None or now < run.place_until):
        return None
    refused = rules.admit(door, run.kind, replace(facts, has_no_place=is_full))
    if refused == GONE or schedule is None or bot is None:
        _refuse(conn, run, schedule, "user" if schedule is not None else "deleted", now)
        return None
    if refused is not None:
        _refuse(conn, run, schedule, refused, now)
        return None
    limits = limits_of(schedule, bot)
    period = service.period_now(settings, run.slot if run.slot is not None else now)
    account = run_store.lock_account(conn, schedule.id, schedule.project_id, start=period.start, end=period.end)
    reserved = budget.reservation(budget.remaining(schedule.budget, *account), limits.max_units, limits.min_units)
    if reserved is None:
        _refuse(conn, run, schedule, "budget_exhausted", now)
        return None
    run_store.save_account(conn, schedule.id, period.start, account._replace(reserved=account.reserved + reserved))
    token = secrets.token_urlsafe(32) if has_token else None
    deadline = EpochMs(now + limits.timeout_ms)
    values: dict[str, Any] = {
        "status": "running",
        "started_at": now,
        "lease_owner": owner,
        "lease_until": now + LEASE_MS,
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
    state = run_store.parked_state(conn, run.id) if run.is_approved is not None else None
    resumed = None if state is None else Resumed(state, bool(run.is_approved))
    return Started(run, schedule, bot, settings, limits, tariff_of(settings, bot), token, resumed)


def _refuse(conn: Connection, run: Run, schedule: Schedule | None, reason: str, now: EpochMs) -> None:
    """End a run that may not begin. What was parked has begun already, so that it ends as a run does."""
    if run.is_approved is None:
        end_queued(conn, run, "cancelled" if reason in rules.CANCELS else "skipped", reason, now)
        return
    outcome = Outcome("error", "budget_cut") if reason == "budget_exhausted" else Outcome("cancelled", reason)
    if outcome.status == "cancelled" and reason not in rules.CANCELS:
        outcome = Outcome("cancelled", "stopped", error_message=rules.SKIPS[reason])
    _finish(conn, run, schedule, outcome, now)


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


def end_queued(conn: Connection, run: Run, status: RunStatus, reason: str, now: EpochMs) -> None:
    """A run that was never started ends; equal skips in a row become one row. It is locked."""
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
        values |= {"first_slot": run.slot, "last_slot": run.slot, "count": count, "missed_count": 0}
    run_store.set_run(conn, run.id, values)
    store.set_columns(conn, run.schedule_id, {"last_status": status, "last_executed_at": now})
    _let_next(conn, run.schedule_id, now)


# While it runs ------------------------------------------------------------------------------------------------------
def book(conn: Connection, run_id: str, token: int, usage: Usage, *, units: int, now: EpochMs) -> int:
    """Charge a response; what is left of the reservation. Raises LeaseLost."""
    seen = run_store.run_by_id(conn, run_id)
    if seen is None:
        raise LeaseLost
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = _held(conn, run_id, token)
    return _book(conn, run, schedule, usage, units=units, now=now)


def _held(conn: Connection, run_id: str, token: int) -> Run:
    run = run_store.run_by_id(conn, run_id, lock=True)
    if run is None or run.status != "running" or run.lease_token != token:
        raise LeaseLost
    return run


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
    run = _held(conn, run_id, token)
    if run_store.transcript_bytes(conn, run_id) <= run_store.MAX_TRANSCRIPT_BYTES:
        run_store.append_transcript(conn, run, entries)
    if tool_calls:
        run_store.set_run(conn, run_id, {"tool_calls": run.tool_calls + tool_calls})


# Ends ---------------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Parked:
    """A call of a tool that waits for approval. arguments: JSON. state: what the runner goes on with."""

    tool: str
    arguments: str
    state: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a run ended."""

    status: RunStatus
    reason: str | None = None
    response: str | None = None
    error_message: str | None = None
    report: Report | None = None
    pauses_as: str | None = None
    """The schedule shall run no more, for this reason."""
    parked: Parked | None = None
    """With the status `waiting_approval`: what somebody shall decide about."""


def redacted(outcome: Outcome) -> Outcome:
    """An outcome without what looks like credentials; people are told of it, and it is stored."""
    report = outcome.report
    if report is not None:
        report = replace(report, title=reports.redacted(report.title), body=reports.redacted(report.body))
    return replace(
        outcome,
        response=None if outcome.response is None else reports.redacted(outcome.response),
        error_message=None if outcome.error_message is None else reports.redacted(outcome.error_message),
        report=report,
    )


def finish(conn: Connection, run_id: str, token: int, outcome: Outcome, now: EpochMs) -> Run:
    """End a run that is held under this token. Raises LeaseLost."""
    seen = run_store.run_by_id(conn, run_id)
    if seen is None:
        raise LeaseLost
    schedule = store.schedules_by_id(conn, [seen.schedule_id], lock=True).get(seen.schedule_id)
    run = _held(conn, run_id, token)
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
        "lease_until": None,
        "token_hash": None,
    }
    run = replace(run, **values)
    if schedule is not None:
        values["notice"] = _follow_up(conn, run, schedule, outcome, now)
    run_store.set_run(conn, run.id, values | {"parked": None, "parked_until": None})
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
    wake_after_commit(conn, "bots_run")
    return replace(run, **values)


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
        _pause(conn, replace(schedule, **values), outcome.pauses_as, now)
    return None if told is None else msgspec.json.encode(told).decode()


def _error_of(run: Run) -> Report | None:
    if run.status != "error":
        return None
    title = f"run failed: {run.reason}"
    return Report(True, "warning", title, run.error_message or title, f"error:{run.reason}")  # noqa: FBT003 - a field


def _auto_pause(
    conn: Connection, schedule: Schedule, subject: Subject | None, *, counted: Counted, run: Run, now: EpochMs
) -> None:
    _pause(conn, schedule, "consecutive_errors", now)
    if subject is None:
        return
    title = f"paused after {counted.error_count} errors in a row"
    text = f"{title}. The last one: {run.error_message or run.reason}"
    told = Report(True, "critical", title, text, "paused")  # noqa: FBT003 - a field
    notices.tell(conn, subject, told, cause=f"{run.id}:paused", n=1, run_id=run.id, now=now)


def _pause(conn: Connection, schedule: Schedule, reason: str, now: EpochMs) -> None:
    """The server itself disables a schedule."""
    store.save_schedule(conn, service.paused(schedule, reason, "system", now))


# Lost, late, cancelled ----------------------------------------------------------------------------------------------
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
        _refuse(conn, run, schedule, run.cancel_reason, now)
        return True
    if run.place_until is None or now < run.place_until:
        return False
    _refuse(conn, run, schedule, "concurrency", now)
    return True


def _end_parked(conn: Connection, run: Run, schedule: Schedule | None, now: EpochMs) -> bool:
    if run.cancel_reason is not None:
        outcome = Outcome("cancelled", run.cancel_reason)
    elif run.parked_until is not None and run.parked_until <= now:
        outcome = Outcome("error", "approval_expired", error_message="Nobody approved or declined within 24 hours")
    else:
        return False
    _finish(conn, run, schedule, outcome, now)
    return True


def cancel(conn: Connection, project_id: str, run_id: str, now: EpochMs) -> Run:
    """Ask a run to end; one that waits ends at once, one that ended stays as it is. Raises BotRunNotFound."""
    run = run_of(conn, project_id, run_id)
    if run.status not in rules.OPEN:
        return run
    run_store.ask_to_cancel(conn, {"id": run.id}, "user", last_words_until=EpochMs(now + rules.LAST_WORDS_MS))
    end_waiting(conn, run.id, now)
    wake_after_commit(conn, "bots_run")
    return run_store.run_by_id(conn, run.id) or run


def run_of(conn: Connection, project_id: str, run_id: str) -> Run:
    """A run of a project. Raises BotRunNotFound."""
    found = run_store.run_by_id(conn, run_id)
    if found is None or found.project_id != project_id:
        raise rules.BotRunNotFound
    return found


def stop(conn: Connection, project_id: str, reason: str | None, *, cancels: bool, now: EpochMs) -> int:
    """Let nothing run any more; how many runs are cancelled. project_id: ALL_PROJECTS for the whole server."""
    settings = store.lock_settings(conn, project_id)
    if settings.stopped_at is None:
        settings = replace(settings, stopped_at=now, stop_reason=reason)
        store.save_settings(conn, settings, now)
    if not cancels:
        return 0
    which = {} if project_id == ALL_PROJECTS else {"project_id": project_id}
    count = run_store.count_open(conn, which)
    run_store.ask_to_cancel(conn, which, "stopped", last_words_until=EpochMs(now + rules.LAST_WORDS_MS))
    wake_after_commit(conn, "bots_run")
    return count


def resume(conn: Connection, project_id: str, now: EpochMs) -> None:
    """Let runs begin again, with the next slot of each schedule."""
    settings = store.lock_settings(conn, project_id)
    if settings.stopped_at is not None:
        store.save_settings(conn, replace(settings, stopped_at=None, stop_reason=None), now)
    wake_after_commit(conn, "bots_claim")


def stop_project(conn: Connection, ask: service.Ask, reason: str | None, *, cancels: bool) -> int:
    """The same for the project of whoever asks, whose schedules nothing watches meanwhile."""
    count = stop(conn, ask.project_id, reason, cancels=cancels, now=ask.now)
    watching.switch_all(conn, ask.watchers, ask.project_id, ask.now)
    return count


def resume_project(conn: Connection, ask: service.Ask) -> None:
    """Let runs of the project begin again, and what watches them look again."""
    resume(conn, ask.project_id, ask.now)
    watching.switch_all(conn, ask.watchers, ask.project_id, ask.now)


def stop_server(
    conn: Connection, watchers_of: Callable[[str], Watchers], reason: str | None, *, cancels: bool, now: EpochMs
) -> int:
    """As `stop_project`, for all projects. watchers_of: by project."""
    count = stop(conn, ALL_PROJECTS, reason, cancels=cancels, now=now)
    _switch_everywhere(conn, watchers_of, now)
    return count


def resume_server(conn: Connection, watchers_of: Callable[[str], Watchers], now: EpochMs) -> None:
    """As `resume_project`, for all projects; those that were stopped by themselves stay so."""
    resume(conn, ALL_PROJECTS, now)
    _switch_everywhere(conn, watchers_of, now)


def _switch_everywhere(conn: Connection, watchers_of: Callable[[str], Watchers], now: EpochMs) -> None:
    for project_id in store.watching_projects(conn):
        watching.switch_all(conn, watchers_of(project_id), project_id, now)
