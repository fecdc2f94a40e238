"""The loops are called in time, whatever the machine's clock does meanwhile."""

import asyncio

from lifesign.clock import EpochMs, SystemClock
from lifesign.db.wakeups import Wakeups
from lifesign.engine.driver import Driver
from lifesign.engine.loops import Idle


class _Settable(SystemClock):
    """A machine whose clock somebody sets."""

    set_by_ms = 0

    def now(self) -> EpochMs:
        return EpochMs(super().now() + self.set_by_ms)


class _Watched(Idle):
    """Sets the clock back while it ticks for the first time."""

    name = "watched"
    idle_ms = 20

    def __init__(self, clock: _Settable) -> None:
        self._clock = clock
        self.is_called_again = asyncio.Event()

    async def tick(self, now: EpochMs) -> EpochMs | None:
        if self._clock.set_by_ms:
            self.is_called_again.set()
        self._clock.set_by_ms = -3_600_000
        return None


class _Failing(Idle):
    """A loop that never does its work."""

    name = "failing"
    idle_ms = 1000

    async def tick(self, now: EpochMs) -> EpochMs | None:
        raise RuntimeError


async def _attest(at: EpochMs) -> None:
    pass


async def test_a_clock_that_is_set_back_during_a_tick_does_not_put_off_the_next_one() -> None:
    clock = _Settable()
    watched = _Watched(clock)
    driver = Driver(clock, Wakeups(), [watched], attest=_attest)

    driver.start()
    async with asyncio.timeout(10):
        await watched.is_called_again.wait()
    await driver.stop()


async def test_a_loop_that_never_succeeds_is_late_since_the_beginning() -> None:
    clock = _Settable()
    driver = Driver(clock, Wakeups(), [_Failing()], attest=_attest)
    began_at = clock.now()
    driver.start()
    await asyncio.sleep(0)

    late = driver.lag_ms("failing", EpochMs(began_at + 40_000))
    await driver.stop()

    assert 38_000 <= late <= 39_000
