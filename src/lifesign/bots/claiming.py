"""Where runs come from: slots that are due, each claimed once, and triggers. Each in one transaction.

Locks are taken in this order: settings of the project, schedule, run, account.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from lifesign.bots import activity, asking, project_settings, rules, run_store, store, timing, watching
from lifesign.bots.ending import pause
from lifesign.bots.records import Bot, ProjectSettings, Run, Schedule, new_run
from lifesign.bots.rules import GONE, Facts
from lifesign.bots.run_store import DueSchedule, Moved
from lifesign.bots.stopping import halted, is_stopped
from lifesign.bots.store import ALL_PROJECTS
from lifesign.bots.timing import Due
from lifesign.clock import EpochMs
from lifesign.db.wakeups import wake_after_commit
from lifesign.schedule import BadSchedule

_HOUR_MS = 3_600_000
_DAY_MS = 24 * _HOUR_MS


class Planned(NamedTuple):
    """A schedule with slots that are due, and what is to be done about them. due: None when there is no next slot."""

    row: DueSchedule
    due: Due | None


def plan(conn: Connection, now: EpochMs, limit: int, *, skip: int = 0) -> list[Planned]:
    """What is due, worked out by a reader: a schedule that slept for long takes a while. skip: so many of the first."""
    rows = run_store.due_schedules(conn, now, limit, skip=skip)
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
    if not locked:
        # Another node was quicker, as happens to one of two all the time.
        return 0
    schedules = store.schedules_by_id(conn, locked)
    world = _World.of(conn, list(schedules.values()), now, is_halted=is_halted)
    moved: list[Moved] = []
    for schedule in schedules.values():
        due = by_id[schedule.id]
        if due is None:
            pause(conn, schedule, "schedule_error", now)
            continue
        _claim_one(world, schedule, due)
        moved.append(_moved(schedule.id, schedule.version, due))
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
        run_store.move_slots(conn, [_moved(*planned.row, due)])
        return 1


def _moved(schedule_id: str, version: int, due: Due) -> Moved:
    return Moved(schedule_id, due.last_slot, due.next_slot, due.next_effective, version + 1)


def _claim_one(world: "_World", schedule: Schedule, due: Due) -> None:
    count = len(due.starts) + sum(each.missed_count for each in due.starts)
    count += 0 if due.missed is None else due.missed.count
    reason = rules.admit("tick", "scheduled", world.facts(schedule, is_slot=False))
    if reason == GONE:
        return
    if reason is not None:
        world.skip(schedule, reason, due.first_slot, due.last_slot, count)
        return
    if due.missed is not None:
        world.skip(schedule, "missed", due.missed.first_slot, due.missed.last_slot, due.missed.count)
    is_series = len(due.starts) > 1
    for n, start in enumerate(due.starts):
        facts = world.facts(schedule)
        # Slots that are caught up in a row wait for each other; that is no overlap.
        if is_series and n:
            facts = replace(facts, is_running=False, is_queued=False)
        # A run that carries others stands for them, too: only the first of a series does.
        first = due.first_slot if start.missed_count else start.slot
        refused = rules.admit("tick", start.kind, facts)
        if refused is not None:
            world.skip(schedule, refused, first, start.slot, 1 + start.missed_count)
            continue
        world.queue(schedule, start, first=first, gap_ms=due.next_slot - start.slot)


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
        world._settings = store.settings_of_many(conn, [*projects, ALL_PROJECTS])
        world._settings[ALL_PROJECTS] = halted(world._settings[ALL_PROJECTS], is_halted=is_halted)
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

    def queue(self, schedule: Schedule, start: timing.Start, *, first: EpochMs, gap_ms: int) -> None:
        """A run that begins when there is a place. first: the first slot that it stands for."""
        waits_for_another = bool(self._open.get(schedule.id))
        if schedule.options.overlap == "cancel_previous":
            _supersede(self._conn, schedule, self._now)
        made = new_run(schedule, start.kind, self._now)
        made = replace(
            made,
            slot=start.slot,
            effective_at=start.effective_at,
            missed_count=start.missed_count,
            first_slot=first if start.missed_count else None,
            last_slot=start.slot if start.missed_count else None,
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
        activity.changed(self._conn, [*self._new, *self._grown.values()], self._now)
        for grown in self._grown.values():
            run_store.set_run(self._conn, grown.id, {"count": grown.count, "last_slot": grown.last_slot})
        store.note_skips(self._conn, self._skipped, self._now)


def _supersede(conn: Connection, schedule: Schedule, now: EpochMs) -> None:
    until = EpochMs(now + rules.LAST_WORDS_MS)
    run_store.ask_to_cancel(conn, {"schedule_id": schedule.id}, "superseded", last_words_until=until)


def _is_running(run: Run, now: EpochMs) -> bool:
    return run.status == "running" and (run.lease_until or 0) > now


# What holds for every run of a schedule ------------------------------------------------------------------------------
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


def _fits(settings: ProjectSettings, schedule: Schedule, now: EpochMs) -> bool:
    plan = rules.PLANS[settings.plan]
    cron = schedule.timing.cron
    gap = _least_gap(cron, now // _DAY_MS) if cron is not None and plan.cron_floor > 1 else None
    return rules.fits_plan(plan, interval_minutes=schedule.timing.interval_minutes, least_cron_gap=gap)


@lru_cache(maxsize=1024)
def _least_gap(cron: str, day: int) -> float:
    return timing.least_gap_minutes(cron, EpochMs(day * _DAY_MS))


# Triggers ------------------------------------------------------------------------------------------------------------
def trigger(
    conn: Connection,
    ask: asking.Ask,
    bot_ref: str | int,
    schedule_id: str,
    *,
    idem_key: str | None = None,
    is_halted: bool = False,
) -> Run:
    """A run now, or the refusal of one. Raises BotNotFound, ScheduleNotFound, PlanForbids, HeartbeatDisabled."""
    now = ask.now
    bot, _ = asking.get_schedule(conn, ask.project_id, bot_ref, schedule_id)
    project_settings.require_switches(conn, bot)
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
    activity.changed(conn, [run], now)
    return run
