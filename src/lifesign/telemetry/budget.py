"""How many bytes of requests are in hand at once, and who waits for room. Spec "Telemetry", section 3.3."""

import asyncio
import contextlib
import math
from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from prometheus_client import Gauge

from lifesign.clock import Clock, EpochMs
from lifesign.telemetry.rules import Overloaded

WAIT_S = 2.0
LEAST_BYTES = 1024
"""What a request takes, however short its body is: there must be an end to their number, too."""


class _Waiting(NamedTuple):
    """Somebody who waits for so many bytes. granted: resolved once they are theirs."""

    size: int
    granted: "asyncio.Future[None]"


class Budget:
    """So many bytes, or turns, and no more.

    Who waits is served in the order of arrival, those first that are half way through. gauge: shows what is in use.
    """

    def __init__(self, limit: int, clock: Clock, *, gauge: Gauge | None = None) -> None:
        self._limit = limit
        self._clock = clock
        self._gauge = gauge
        self._used = 0
        # Whoever holds bytes and needs more comes first: their end is what gives room to the others.
        self._begun: deque[_Waiting] = deque()
        self._new: deque[_Waiting] = deque()

    @property
    def used(self) -> int:
        """What is in use."""
        return self._used

    @property
    def waiting(self) -> int:
        """How many wait for room."""
        return len(self._begun) + len(self._new)

    @contextlib.contextmanager
    def lease(self) -> Iterator["Lease"]:
        """Room for one request, none yet; given back when the block ends, unless somebody else was given it."""
        lease = Lease(self)
        try:
            yield lease
        finally:
            lease.end()

    async def take(self, size: int, *, has_begun: bool) -> None:
        """Take so many; waits for 2 s at most. Raises Overloaded."""
        queue = self._begun if has_begun else self._new
        if not self._begun and (has_begun or not self._new) and self._fits(size):
            self._add(size)
            return
        waiting = _Waiting(size, asyncio.get_running_loop().create_future())
        queue.append(waiting)
        try:
            await self._granted(waiting.granted)
        except BaseException:
            if waiting in queue:
                queue.remove(waiting)
            else:
                # It was granted at the moment at which nobody wanted it any more.
                self._add(-size)
            # Whoever waited behind may want less.
            self._serve()
            raise

    async def _granted(self, granted: "asyncio.Future[None]") -> None:
        clock, until = self._clock, self._clock.monotonic() + WAIT_S
        while not granted.done():
            left_s = until - clock.monotonic()
            if left_s <= 0:
                raise Overloaded
            patience = asyncio.ensure_future(clock.sleep_until(EpochMs(clock.now() + math.ceil(left_s * 1000))))
            try:
                await asyncio.wait({granted, patience}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                patience.cancel()

    def give_back(self, size: int) -> None:
        """Let others have so many."""
        self._add(-size)
        self._serve()

    def _fits(self, size: int) -> bool:
        return self._used + size <= self._limit

    def _add(self, size: int) -> None:
        self._used += size
        if self._gauge is not None:
            self._gauge.inc(size)

    def _serve(self) -> None:
        for queue in (self._begun, self._new):
            while queue:
                if not self._fits(queue[0].size):
                    return
                waiting = queue.popleft()
                self._add(waiting.size)
                waiting.granted.set_result(None)


class Lease:
    """The room of one request."""

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._size = 0
        self._is_kept = False

    @property
    def size(self) -> int:
        """Bytes that it has."""
        return self._size

    async def grow_to(self, size: int) -> None:
        """Have at least so many bytes. Raises Overloaded."""
        more = max(size, LEAST_BYTES) - self._size
        if more > 0:
            await self._budget.take(more, has_begun=self._size > 0)
            self._size += more

    def keep(self) -> None:
        """Somebody else ends it, later than the block that it was made for."""
        self._is_kept = True

    def end(self, *, is_last: bool = False) -> None:
        """Give everything back. is_last: even what was to be kept."""
        if self._size and (is_last or not self._is_kept):
            size, self._size = self._size, 0
            self._budget.give_back(size)
