"""Schedules of bots: many that are due at once, claimed by two loops; and how long the next slot takes to find."""

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import replace

from sqlalchemy import Connection, select

from benchmarks.report import Figure, Goal
from benchmarks.stage import DATABASES, DatabaseKind, Options, fresh_settings
from lifesign.app import Node, open_node
from lifesign.bots import schedules, store, timing
from lifesign.bots.records import Bot, BotOptions
from lifesign.bots.timing import Timing
from lifesign.clock import EpochMs, ManualClock
from lifesign.db.open import is_postgres
from lifesign.db.schema import bot_runs
from lifesign.engine.bots import BotsClaim
from lifesign.ids import new_id
from lifesign.projects import service as projects
from lifesign.projects.rules import DEFAULT_PROJECT
from lifesign.settings import Settings

_DUE = 1000
_SLOTS = 2000
_MINUTE_MS = 60_000
_AT = EpochMs(1_767_614_400_000)
_BERLIN = "Europe/Berlin"
_TIMINGS = {
    "every 30 min": Timing(30),
    "every 30 min, 09:00-17:00 on working days": Timing(30, None, _BERLIN, 540, 1020, (1, 2, 3, 4, 5)),
    "cron 0 9 * * 1-5": Timing(cron="0 9 * * 1-5", timezone=_BERLIN),
}


def run(options: Options) -> list[Figure]:
    """Measure both."""
    claims = [_claims(kind, options.rounds) for kind in DATABASES]
    return claims + [_next_slot(name, when, options.rounds) for name, when in _TIMINGS.items()]


# Claims -------------------------------------------------------------------------------------------------------------
def _claims(kind: DatabaseKind, rounds: int) -> Figure:
    took: list[float] = []
    for _ in range(rounds):
        with fresh_settings(kind) as settings:
            took.append(asyncio.run(_claim_all(settings)))
    where = "two nodes" if kind == "postgresql" else "two loops"
    return Figure(f"{kind}: {_DUE:,} due schedules claimed by {where}", took, "s", Goal(2))


async def _claim_all(settings: Settings) -> float:
    """Seconds until two loops have claimed everything that is due, each slot once."""
    clock = ManualClock(_AT)
    async with AsyncExitStack() as stack:
        nodes = [await _opened(stack, settings, clock) for _ in range(2 if is_postgres(settings) else 1)]
        await nodes[0].db.write(_schedules, _AT)
        now = EpochMs(_AT + _MINUTE_MS)
        loops = [BotsClaim(nodes[n % len(nodes)].db) for n in range(2)]
        began = time.perf_counter()
        await asyncio.gather(*(_drained(each, now) for each in loops))
        took = time.perf_counter() - began
        slots = await nodes[0].db.read(_claimed)
    assert len(slots) == _DUE, f"{len(slots)} of {_DUE} schedules have a run"
    assert set(slots.values()) == {1}, "a slot was claimed twice"
    return took


async def _opened(stack: AsyncExitStack, settings: Settings, clock: ManualClock) -> Node:
    node = await open_node(settings, clock=clock)
    stack.push_async_callback(node.close)
    return node


async def _drained(loop: BotsClaim, now: EpochMs) -> None:
    while (due := await loop.tick(now)) is not None and due <= now + 1:
        pass


def _schedules(conn: Connection, now: EpochMs) -> None:
    """As many schedules as wanted, all due in a minute."""
    bot = Bot(
        number=0,
        id=new_id("bot", now),
        project_id=projects.id_of(conn, DEFAULT_PROJECT),
        name="bench",
        model=None,
        instruction=None,
        max_reply_tokens=None,
        top=None,
        is_online=True,
        is_scheduling=True,
        options=BotOptions(runner={"kind": "pull"}),
        reset_at=None,
        created_at=now,
        updated_at=now,
    )
    bot = store.insert_bot(conn, bot)
    for n in range(_DUE):
        made = replace(schedules.blank(now, bot, "", f"prompt {n}"), is_enabled=True, timing=Timing(1))
        store.insert_schedule(conn, schedules.timed(made, now, is_running=True))


def _claimed(conn: Connection) -> Counter[str]:
    """How many runs or skips each schedule has."""
    return Counter(conn.scalars(select(bot_runs.c.schedule_id)))


# Slots --------------------------------------------------------------------------------------------------------------
def _next_slot(name: str, when: Timing, rounds: int) -> Figure:
    took_us = []
    for _ in range(rounds):
        began, at = time.perf_counter(), _AT
        for _ in range(_SLOTS):
            at = timing.next_slot(when, at)
        took_us.append((time.perf_counter() - began) / _SLOTS * 1_000_000)
    return Figure(f"next slot: {name}", took_us, "us", Goal(200))
