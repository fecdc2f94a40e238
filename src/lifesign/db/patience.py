"""How long somebody waits for a hot write. For each request asyncio's own time-out would cost a tenth of a check-in."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class Wait:
    """on_expired: None once it is over."""

    on_expired: Callable[[], object] | None
    until: float


class Patience:
    """One time-out for very many waits, all of the same length: one timer, where asyncio would keep one for each."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: deque[Wait] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, work: Awaitable[T]) -> T:
        """What `work` returns. Raises TimeoutError when that takes too long; `work` is then canceled."""
        task = asyncio.current_task()
        is_expired = False

        def expire() -> None:
            nonlocal is_expired
            is_expired = True
            if task is not None:
                task.cancel()

        wait = self.begin(expire)
        try:
            return await work
        except asyncio.CancelledError:
            if is_expired and task is not None and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            self.over(wait)

    def begin(self, on_expired: Callable[[], object]) -> Wait:
        """Call `on_expired` when it takes too long until `over` is called."""
        loop = asyncio.get_running_loop()
        wait = Wait(on_expired, loop.time() + self._seconds)
        self._waits.append(wait)
        if self._timer is None:
            self._timer = loop.call_at(wait.until, self._expire, loop)
        return wait

    def over(self, wait: Wait) -> None:
        """What was waited for has come, or nobody waits any more."""
        wait.on_expired = None
        while self._waits and self._waits[0].on_expired is None:
            self._waits.popleft()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the waits that are too long: the first ones, as all may take the same time."""
        self._timer = None
        while self._waits:
            first = self._waits[0]
            if first.on_expired is not None and first.until > loop.time():
                self._timer = loop.call_at(first.until, self._expire, loop)
                return
            self._waits.popleft()
            if first.on_expired is not None:
                first.on_expired()
