"""Heartbeats that watch schedules: a run that ends well checks in, one that does not come is missed.

Spec "Bots", section 14. The heartbeat is the bot's: it alone checks in, and its deadline is always that of the
schedule. What people do with any heartbeat they do with it, too, but for resuming it while the schedule does not run;
who deletes it ends the watching.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec
import structlog
from sqlalchemy import Connection

from lifesign.auth.rules import Caller
from lifesign.bots import rules, store
from lifesign.bots.records import Bot, Run, Schedule
from lifesign.bots.rules import InvalidField
from lifesign.clock import Clock, EpochMs
from lifesign.db import Database
from lifesign.heartbeats import service as heartbeats
from lifesign.heartbeats.checkins import CheckIn, CheckIns
from lifesign.heartbeats.definition import Definition
from lifesign.heartbeats.rules import BOT_OWNER, Heartbeat, HeartbeatLimitReached, HeartbeatNotFound
from lifesign.incidents import policies
from lifesign.incidents.rules import Tuning

log = structlog.get_logger("lifesign.bots")

_NAMESPACE: Final = "bots"
_SHOWN_PROMPT: Final = 60
_MAX_NAME: Final = 100
_USUAL_GAP_MS: Final = 1_800_000
_S: Final = 1000


@dataclass(frozen=True, slots=True)
class Watchers:
    """What keeping heartbeats needs besides a connection."""

    caller: Caller
    tuning: Tuning
    max_heartbeats: int


def require_policy(conn: Connection, project_id: str, watch: Mapping[str, Any]) -> None:
    """Raise InvalidField for a policy that the project does not have."""
    if not policies.is_policy(conn, project_id, watch["policy"]):
        raise InvalidField("lifesign.watch.policy", f"unknown policy {watch['policy'][:100]!r}")


def without_lost(conn: Connection, schedule: Schedule) -> Schedule:
    """A schedule that is watched no more when somebody deleted its heartbeat."""
    if schedule.heartbeat_id is None or heartbeats.by_ids(conn, [schedule.heartbeat_id]):
        return schedule
    return replace(schedule, heartbeat_id=None, options=msgspec.structs.replace(schedule.options, watch=None))


def lost(conn: Connection, schedules: Iterable[Schedule]) -> set[str]:
    """Those of these schedules, by id, whose heartbeat is gone."""
    watched = {each.heartbeat_id: each.id for each in schedules if each.heartbeat_id is not None}
    present = heartbeats.by_ids(conn, watched) if watched else {}
    return {schedule_id for heartbeat_id, schedule_id in watched.items() if heartbeat_id not in present}


def kept(
    conn: Connection, watchers: Watchers, bot: Bot, schedule: Schedule, now: EpochMs, *, is_switched: bool
) -> Schedule:
    """The schedule with a heartbeat as it wants one, which is made, changed, paused, resumed or removed for that.

    is_switched: whether the schedule, or what it belongs to, was just enabled or disabled; else what somebody paused
    stays paused. Raises InvalidField when there is no room for one more.
    """
    present = None
    if schedule.heartbeat_id is not None:
        present = heartbeats.by_ids(conn, [schedule.heartbeat_id]).get(schedule.heartbeat_id)
    if schedule.options.watch is None:
        if present is not None:
            remove(conn, watchers, bot, schedule, now)
        return replace(schedule, heartbeat_id=None)
    is_live = schedule.is_enabled and bot.is_scheduling and not store.is_stopped(conn, schedule.project_id)
    if present is None:
        is_switched = True
        present = _made(conn, watchers, bot, schedule, now, is_live=is_live)
    else:
        present = _changed(conn, watchers, bot, schedule, now)
    expect(conn, {present.id: schedule})
    if is_switched:
        _switch(conn, watchers, schedule, present, now, is_live=is_live)
    elif is_live and present.expected_at != _expected_at(schedule):
        heartbeats.rearm(conn, present.id, now)
    return replace(schedule, heartbeat_id=present.id)


def _made(
    conn: Connection, watchers: Watchers, bot: Bot, schedule: Schedule, now: EpochMs, *, is_live: bool
) -> Heartbeat:
    try:
        return heartbeats.create(
            conn,
            watchers.caller,
            _definition(bot, schedule),
            is_armed=False,
            is_paused=not is_live,
            has_slug=True,
            max_heartbeats=watchers.max_heartbeats,
            now=now,
            managed_by=_owner(bot),
        )
    except HeartbeatLimitReached as error:
        raise InvalidField("lifesign.watch", "the project has as many heartbeats as it may have") from error


def _owner(bot: Bot) -> str:
    return f"{BOT_OWNER}{bot.id}"


def _definition(bot: Bot, schedule: Schedule) -> Definition:
    watch = schedule.options.watch or {}
    prompt = " ".join(schedule.prompt.split())[:_SHOWN_PROMPT]
    return Definition(
        name=f"{bot.name[: _MAX_NAME - _SHOWN_PROMPT - 2]}: {prompt}",
        mode="recurring",
        slug=f"bot-{schedule.id}",
        # For show only: when the next check-in is expected, the schedule says.
        interval_ms=schedule.gap_ms or _USUAL_GAP_MS,
        grace_ms=watch["grace_seconds"] * _S,
        policy_id=watch["policy"],
        namespace=_NAMESPACE,
        # Or a run would un-pause what somebody paused.
        is_sticky_pause=True,
    )


def _changed(conn: Connection, watchers: Watchers, bot: Bot, schedule: Schedule, now: EpochMs) -> Heartbeat:
    wanted = _definition(bot, schedule)
    names = ("name", "interval_ms", "grace_ms", "policy_id")
    return heartbeats.edit(
        conn,
        watchers.caller,
        schedule.heartbeat_id or "",
        {name: getattr(wanted, name) for name in names},
        check=lambda definition, changes: replace(definition, **changes),
        tuning=watchers.tuning,
        now=now,
        owner=_owner(bot),
    )


def _switch(
    conn: Connection, watchers: Watchers, schedule: Schedule, present: Heartbeat, now: EpochMs, *, is_live: bool
) -> None:
    if is_live and present.status == "paused":
        heartbeats.resume(conn, watchers.caller, present.id, now, by_owner=True)
    elif is_live and present.status != "firing":
        heartbeats.rearm(conn, present.id, now)
    elif not is_live and schedule.paused_by != "system":
        heartbeats.suspend(conn, watchers.caller, present.id, now)


def expect(conn: Connection, schedules: Mapping[str, Schedule]) -> None:
    """Tell heartbeats, by id, when the next run of their schedule is to have ended."""
    expected = {heartbeat_id: _expected_at(schedule) for heartbeat_id, schedule in schedules.items()}
    heartbeats.expect(conn, {heartbeat_id: at for heartbeat_id, at in expected.items() if at is not None})


def _expected_at(schedule: Schedule) -> EpochMs | None:
    """When the next run is to have ended; None when there is none."""
    if schedule.next_run_at is None:
        return None
    limits = rules.limits_of(schedule.options.limits, gap_ms=schedule.gap_ms, max_reply_tokens=None)
    return EpochMs(schedule.next_run_at + limits.timeout_ms)


def remove(conn: Connection, watchers: Watchers, bot: Bot, schedule: Schedule, now: EpochMs) -> None:
    """Remove the heartbeat of a schedule, if there is one."""
    if schedule.heartbeat_id is None or not heartbeats.by_ids(conn, [schedule.heartbeat_id]):
        return
    heartbeats.delete(conn, watchers.caller, schedule.heartbeat_id, now, tuning=watchers.tuning, owner=_owner(bot))


def switch_all(conn: Connection, watchers: Watchers, project_id: str, now: EpochMs) -> None:
    """Pause, or resume, the heartbeats of a project's schedules, after its bots were stopped or resumed."""
    schedules = store.watched_schedules(conn, project_id)
    bots = store.bots_by_id(conn, sorted({each.bot_id for each in schedules}))
    for schedule in schedules:
        kept(conn, watchers, bots[schedule.bot_id], schedule, now, is_switched=True)


class Watcher:
    """Lets heartbeats know how runs ended; one that cannot be told is silent, so that its deadline passes."""

    def __init__(self, db: Database, clock: Clock, check_ins: CheckIns) -> None:
        self._db = db
        self._clock = clock
        self._check_ins = check_ins

    async def tell(self, run: Run) -> None:
        """Check in for a run that has ended, if its schedule is watched."""
        try:
            await self._db.write(self._told, run, self._clock.now())
        except Exception as error:  # noqa: BLE001 - whatever it is, the run has ended as it did
            log.warning("bot_run.not_checked_in", run_id=run.id, error=repr(error))

    def _told(self, conn: Connection, run: Run, now: EpochMs) -> None:
        schedule = store.schedules_by_id(conn, [run.schedule_id]).get(run.schedule_id)
        if schedule is None or schedule.heartbeat_id is None or schedule.options.watch is None:
            return
        is_paused = not schedule.is_enabled and schedule.paused_by == "system"
        healthy = rules.health_of(
            run.status, run.reason, is_paused=is_paused, counts_errors=bool(schedule.options.watch.get("errors"))
        )
        if healthy is None:
            return
        told = {"run_id": run.id, "status": run.status, "reason": run.reason, "message": run.error_message}
        item = CheckIn(
            run.project_id,
            "",
            schedule.heartbeat_id,
            healthy=healthy,
            metadata=msgspec.json.encode({name: each for name, each in told.items() if each is not None}).decode(),
            stamp=now,
            via="bot",
            owner=f"{BOT_OWNER}{run.bot_id}",
        )
        [outcome] = self._check_ins.record(conn, [item])
        if isinstance(outcome, HeartbeatNotFound):
            store.save_schedule(conn, without_lost(conn, schedule))
        elif isinstance(outcome, Exception):
            raise outcome
