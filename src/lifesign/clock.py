"""Time, as a parameter: the one place of the project that reads a clock.

Everything else receives epoch milliseconds. `ManualClock` is the same interface turned by hand, for tests in this
process and, with `LIFESIGN_CLOCK=manual`, in a real one.
"""

import asyncio
import re
import time
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import NewType, Protocol

EpochMs = NewType("EpochMs", int)
"""An instant: milliseconds since 1970-01-01T00:00Z."""

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LATEST = EpochMs(253_402_300_799_999)
"""The last instant that RFC 3339 can name: the end of year 9999."""
EARLIEST = EpochMs(-62_135_596_800_000)
"""The first: the beginning of year 1."""
SET_BACK_MS = 10 * 60_000
"""What is written down lies no further ahead, unless the clock was set back since: nothing takes so long to commit."""
_LONGEST_SLEEP_S = 3600.0


class Clock(Protocol):
    """What the engine and the routes ask for the time."""

    def now(self) -> EpochMs:
        """Return the wall clock, epoch milliseconds."""
        ...

    def monotonic(self) -> float:
        """Seconds that never run backwards; only differences mean something."""
        ...

    async def sleep_until(self, at: EpochMs) -> None:
        """Return once `now() >= at`; may return early, so callers look at the clock again."""
        ...


class SystemClock:
    """The machine's clock."""

    def now(self) -> EpochMs:
        return EpochMs(time.time_ns() // 1_000_000)

    def monotonic(self) -> float:
        return time.monotonic()

    async def sleep_until(self, at: EpochMs) -> None:
        await asyncio.sleep(min(max(at - self.now(), 0) / 1000, _LONGEST_SLEEP_S))


class CorrectedClock:
    """Another clock, put right by how far it was measured to be off."""

    def __init__(self, base: Clock) -> None:
        self.base = base
        self.offset_ms = 0

    def now(self) -> EpochMs:
        return EpochMs(self.base.now() + self.offset_ms)

    def monotonic(self) -> float:
        return self.base.monotonic()

    async def sleep_until(self, at: EpochMs) -> None:
        await self.base.sleep_until(EpochMs(at - self.offset_ms))


class ManualClock:
    """A clock that stands still until somebody turns it."""

    def __init__(self, start: EpochMs) -> None:
        self._now = start
        self._started = start
        self._turned = asyncio.Event()

    def now(self) -> EpochMs:
        return self._now

    def monotonic(self) -> float:
        return (self._now - self._started) / 1000

    async def sleep_until(self, at: EpochMs) -> None:
        while self._now < at:
            await self._turned.wait()

    def set(self, at: EpochMs) -> None:
        """Turn the hands to `at` and let every sleeper look again. Loops are driven by `engine.driver`, not here."""
        self._now = at
        self._turned.set()
        self._turned = asyncio.Event()


def parse_timestamp(value: object) -> EpochMs:
    """RFC 3339 with an offset, as epoch ms. Raises ValueError."""
    if not isinstance(value, str) or not _RFC3339.fullmatch(value):
        raise ValueError("must be an RFC 3339 time with an offset, like 2026-03-08T07:00:00Z")
    try:
        at = from_datetime(datetime.fromisoformat(value.upper().replace(" ", "T")))
    except (ValueError, OverflowError):
        raise ValueError("is not a date that exists") from None
    # An offset can carry a date past the years that can be shown.
    if not EARLIEST <= at <= LATEST:
        raise ValueError("is not a date between year 1 and year 9999 in UTC")
    return at


def rfc3339(at: EpochMs) -> str:
    """`2026-03-08T07:00:00.000Z`: UTC, exactly three decimals, `Z`."""
    seconds, millis = divmod(at, 1000)
    return f"{_second(seconds)}.{millis:03d}Z"


# Check-ins of one second name few different seconds: remembered, a time costs 0.6 us instead of 4.7.
@lru_cache(maxsize=1024)
def _second(seconds: int) -> str:
    # isoformat, not strftime: it pads years before 1000 and is three times as fast.
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()[:19]


def from_datetime(moment: datetime) -> EpochMs:
    """Epoch milliseconds of an aware datetime; microseconds are cut off."""
    return EpochMs((moment - _EPOCH) // timedelta(milliseconds=1))


def to_datetime(at: EpochMs) -> datetime:
    """The aware UTC datetime of an instant."""
    return _EPOCH + timedelta(milliseconds=at)
