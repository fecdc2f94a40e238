"""How recordings come in: so many at a time, at the pace of a network that works, and not for ever."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.requests import Request
from starlette.types import Message, Receive

from lifesign.vitals.rules import LEAST_BYTES_PER_S, ServerBusy, UploadTooSlow

PLACES = 32
_GRACE_S = 10.0
_SILENCE_S = 30.0
# Two megabits a second: what comes as fast keeps its place, however many want it.
_QUICK_BYTES_PER_S = 256 << 10


@dataclass(frozen=True, slots=True)
class Pace:
    """How slowly a body may come: `total_s` in all; after the first seconds at a least rate, without long pauses."""

    total_s: float
    grace_s: float = _GRACE_S
    silence_s: float = _SILENCE_S
    bytes_per_s: float = LEAST_BYTES_PER_S

    def patience_s(self, elapsed_s: float, received: int) -> float:
        """How long the next piece may take, when so many bytes came in the first `elapsed_s` seconds; below 0: over."""
        by_now = min(self.total_s, self.grace_s + received / self.bytes_per_s)
        return min(self.silence_s, by_now - elapsed_s)


@dataclass(slots=True, eq=False)
class _Arrival:
    """A body that is coming in."""

    began: float
    received: int = 0
    waiting: asyncio.Timeout | None = None
    is_ended: bool = False

    def rate(self, now: float) -> float:
        return self.received / max(now - self.began, 0.001)

    def end(self, now: float) -> None:
        self.is_ended = True
        if self.waiting is not None and not self.waiting.expired():
            self.waiting.reschedule(now)


@dataclass(slots=True)
class Arrivals:
    """The bodies that are coming in to this node."""

    pace: Pace
    places: int = PLACES
    _coming: list[_Arrival] = field(default_factory=list)

    def __len__(self) -> int:
        """How many there are."""
        return len(self._coming)

    @asynccontextmanager
    async def admitted(self, request: Request) -> AsyncIterator[Request]:
        """The same request, whose body has to come in time. Raises ServerBusy; its body raises UploadTooSlow.

        When every place is taken, the slowest of those that had their first seconds gives its own up, unless even that
        one is quick.
        """
        loop = asyncio.get_running_loop()
        if len(self._coming) >= self.places:
            self._make_room(loop.time())
        arrival = _Arrival(loop.time())
        self._coming.append(arrival)
        try:
            yield Request(request.scope, self._timed(arrival, request.receive))
        finally:
            self._leave(arrival)

    def _make_room(self, now: float) -> None:
        slow = [
            each
            for each in self._coming
            if now - each.began >= self.pace.grace_s and each.rate(now) < _QUICK_BYTES_PER_S
        ]
        if not slow:
            raise ServerBusy
        slowest = min(slow, key=lambda each: each.rate(now))
        slowest.end(now)
        self._leave(slowest)

    def _leave(self, arrival: _Arrival) -> None:
        if arrival in self._coming:
            self._coming.remove(arrival)

    def _timed(self, arrival: _Arrival, receive: Receive) -> Receive:
        loop = asyncio.get_running_loop()

        async def received() -> Message:
            if arrival.is_ended:
                raise UploadTooSlow(self.pace.total_s)
            left_s = self.pace.patience_s(loop.time() - arrival.began, arrival.received)
            # A piece that is there already would come in whatever the time is.
            if left_s <= 0:
                raise UploadTooSlow(self.pace.total_s)
            try:
                async with asyncio.timeout(left_s) as arrival.waiting:
                    message = await receive()
            except TimeoutError:
                raise UploadTooSlow(self.pace.total_s) from None
            finally:
                arrival.waiting = None
            arrival.received += len(message.get("body", b""))
            if not message.get("more_body", False):
                # What follows takes a worker, of which there are so many places of their own.
                self._leave(arrival)
            return message

        return received
