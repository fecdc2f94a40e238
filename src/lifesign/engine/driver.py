"""Calls the loops: when something is due, when somebody wakes them, and at least once per idle poll."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from lifesign.clock import Clock, EpochMs, ManualClock
from lifesign.db.wakeups import Loop as Wakeable
from lifesign.db.wakeups import Wakeups
from lifesign.engine import metrics

log = structlog.get_logger("lifesign.engine")

_ERROR_PAUSE_MS = 1000
# What is due but held by another node at this moment is not asked for in a busy circle.
_SHORTEST_WAIT_MS = 2
# One instant may cause as many rounds as a chain of steps and retries is long; more is a loop that never settles.
_MAX_ROUNDS = 10_000
# Loops that look so often are asked at each turn of the hands, as if their time had come.
_OFTEN_MS = 5000


class Loop(Protocol):
    """One kind of work that becomes due."""

    name: str
    idle_ms: int
    rests_first: bool
    wakes_on: Wakeable | None

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Do what is due at `now`, a bounded amount of it; return when there is more, None when nothing is known."""
        ...

    async def settle(self) -> bool:
        """Wait for what a tick left running; True when there was something."""
        ...

    async def stop(self) -> None:
        """Finish or give back what is running."""
        ...


@dataclass(slots=True)
class Pulse:
    """When a loop last ticked, or since when it rests before its first tick, and how late it was."""

    last_tick: EpochMs | None = None
    rests_since: EpochMs | None = None
    next_due: EpochMs | None = None
    lag_ms: int = 0
    has_failed: bool = False

    @property
    def active_at(self) -> EpochMs | None:
        """From when on the loop may be idle; None when it should have ticked and did not."""
        return self.rests_since if self.last_tick is None else self.last_tick


class Driver:
    """Runs loops on the machine's clock, or step by step on a manual one."""

    def __init__(
        self,
        clock: Clock,
        wakeups: Wakeups,
        loops: Sequence[Loop],
        *,
        attest: Callable[[EpochMs], Awaitable[None]],
        may_work: Callable[[], bool] = lambda: True,
    ) -> None:
        """attest: says, before a manual clock is turned, that the node lives at the time it is turned to.

        may_work: whether any loop but the first, which finds that out, may do anything.
        """
        self._clock = clock
        self._attest = attest
        self._may_work = may_work
        self._wakeups = wakeups
        self.loops = loops
        self._began_at = began_at = clock.now()
        self.pulses = {loop.name: Pulse(rests_since=began_at if loop.rests_first else None) for loop in loops}
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = asyncio.Event()
        self._hands = asyncio.Lock()

    @property
    def is_manual(self) -> bool:
        """Whether time stands until somebody turns it."""
        return isinstance(self._clock, ManualClock)

    def lag_ms(self, name: str, now: EpochMs) -> int:
        """How late a loop is: how late it last began, or for how long its next tick without a fault is missing."""
        pulse = self.pulses[name]
        idle_ms = next(loop.idle_ms for loop in self.loops if loop.name == name)
        last_tick = self._began_at if pulse.last_tick is None else pulse.last_tick
        return max(0, pulse.lag_ms, now - last_tick - idle_ms)

    # The machine's clock --------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Begin to run; with a manual clock, loops run when woken and when the hands are turned."""
        if isinstance(self._clock, ManualClock):
            self._tasks = [asyncio.create_task(self._run_manually(), name="engine")]
        else:
            self._tasks = [asyncio.create_task(self._run(loop), name=f"engine.{loop.name}") for loop in self.loops]

    async def stop(self) -> None:
        """Let running ticks end, then let every loop finish or give back what it holds."""
        self._stopping.set()
        self._wakeups.any.set()
        await asyncio.gather(*self._tasks)
        ended = await asyncio.gather(*(loop.stop() for loop in self.loops), return_exceptions=True)
        for loop, result in zip(self.loops, ended, strict=True):
            if isinstance(result, Exception):
                # The others have stopped as they should; this one has lost at most what it wanted to note.
                log.warning("loop.stop_failed", loop=loop.name, error=repr(result))

    async def _run(self, loop: Loop) -> None:
        if loop.rests_first:
            await self._wait_for([self._stopping], loop.idle_ms)
        while not self._stopping.is_set():
            now = self._clock.now()
            next_due = await self._tick(loop, now)
            if self.pulses[loop.name].has_failed:
                # Not even a wake-up shortens this: what failed now would most likely fail again at once.
                await self._wait_for([self._stopping], _ERROR_PAUSE_MS)
                continue
            wait_until = EpochMs(now + loop.idle_ms)
            if next_due is not None:
                wait_until = min(wait_until, max(next_due, EpochMs(now + _SHORTEST_WAIT_MS)))
            await self._wait(loop, wait_until)
            self.pulses[loop.name].lag_ms = max(0, self._clock.now() - wait_until)

    async def _tick(self, loop: Loop, now: EpochMs) -> EpochMs | None:
        pulse = self.pulses[loop.name]
        try:
            is_allowed = loop is self.loops[0] or self._may_work()
            pulse.next_due = await loop.tick(now) if is_allowed else None
        except Exception:
            log.exception("loop.failed", loop=loop.name)
            metrics.LOOP_ERRORS.labels(loop.name).inc()
            pulse.has_failed = True
            pulse.next_due = EpochMs(now + _ERROR_PAUSE_MS)
            return pulse.next_due
        pulse.last_tick = now
        pulse.has_failed = False
        return pulse.next_due

    async def _wait(self, loop: Loop, until: EpochMs) -> None:
        """Return at `until`, when somebody wakes the loop, or when the driver stops."""
        events = [self._stopping]
        if loop.wakes_on is not None:
            events.append(self._wakeups.event(loop.wakes_on))
        # Never longer than it may be idle: the clock may have been set back during the tick.
        await self._wait_for(events, min(max(0, until - self._clock.now()), loop.idle_ms))
        self._forget_wake_up(loop)

    @staticmethod
    async def _wait_for(events: Sequence[asyncio.Event], timeout_ms: int) -> None:
        """Return when one of `events` is set, after `timeout_ms` at the latest."""
        waits = [asyncio.ensure_future(event.wait()) for event in events]
        await asyncio.wait(waits, timeout=timeout_ms / 1000, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    # A manual clock -------------------------------------------------------------------------------------------------
    async def _run_manually(self) -> None:
        """Do at once what a request made due, so that a test need not turn the hands to see it."""
        while not self._stopping.is_set():
            await self._wakeups.any.wait()
            self._wakeups.any.clear()
            async with self._hands:
                await self._settle(self._clock.now())

    async def advance(self, ms: int) -> EpochMs | None:
        """Turn a manual clock forward, stopping wherever something is due; return when the next thing is.

        Loops tick at each such instant until nothing is due there and nothing is in flight. Those that look every few
        seconds do so at the first and at the last one, as if a hint had been lost.
        """
        if not isinstance(self._clock, ManualClock):
            msg = "only a manual clock can be turned"
            raise TypeError(msg)
        async with self._hands:
            target = EpochMs(self._clock.now() + ms)
            next_due = await self._settle(self._clock.now(), unasked=True)
            while next_due is not None and next_due <= target:
                await self._turn(self._clock, max(next_due, self._clock.now()))
                next_due = await self._settle(self._clock.now())
            if self._clock.now() == target:
                return next_due
            await self._turn(self._clock, target)
            return await self._settle(target, unasked=True)

    async def _turn(self, clock: ManualClock, at: EpochMs) -> None:
        await self._attest(at)
        clock.set(at)

    async def _settle(self, now: EpochMs, *, unasked: bool = False) -> EpochMs | None:
        """Tick what is due, awake, or idle for long, until nothing of that is left; the next due instant, if known."""
        for _ in range(_MAX_ROUNDS):
            self._wakeups.any.clear()
            for loop in self.loops:
                if self._has_its_turn(loop, now) or (unasked and loop.idle_ms <= _OFTEN_MS):
                    self._forget_wake_up(loop)
                    await self._tick(loop, now)
            # What ended meanwhile may have made work for anybody.
            unasked = any([await loop.settle() for loop in self.loops])
            known = [pulse.next_due for pulse in self.pulses.values() if pulse.next_due is not None]
            # A wake-up tells of work for a loop that had its turn already, such as a send that ended meanwhile.
            if not self._wakeups.any.is_set() and not unasked and all(due > now for due in known):
                return min(known, default=None)
        msg = "the engine does not come to rest"
        raise RuntimeError(msg)

    def _has_its_turn(self, loop: Loop, now: EpochMs) -> bool:
        pulse = self.pulses[loop.name]
        if loop.wakes_on is not None and self._wakeups.event(loop.wakes_on).is_set():
            return True
        if pulse.next_due is not None and pulse.next_due <= now:
            return True
        # Not in this span: idle for long, or the clock was set back.
        return pulse.active_at is None or not 0 <= now - pulse.active_at < loop.idle_ms

    def _forget_wake_up(self, loop: Loop) -> None:
        if loop.wakes_on is not None:
            self._wakeups.event(loop.wakes_on).clear()
