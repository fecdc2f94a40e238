"""How long somebody waits for a hot write. For each request asyncio's own time-out would cost a tenth of a check-in."""

import asyncio
from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(slots=True)
class _Wait:
    """task: None once it is over."""

    task: "asyncio.Task[Any] | None"  # Any: whatever it returns
    until: float
    is_expired: bool = False


class Patience:
    """One time-out for very many waits, all of the same length: one timer, where asyncio would keep one for each."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._waits: deque[_Wait] = deque()
        self._timer: asyncio.TimerHandle | None = None

    async def wait(self, work: Awaitable[T]) -> T:
        """What `work` returns. Raises TimeoutError when that takes too long; `work` is then canceled."""
        loop = asyncio.get_running_loop()
        task = asyncio.current_task()
        wait = _Wait(task, loop.time() + self._seconds)
        self._waits.append(wait)
        if self._timer is None:
            self._timer = loop.call_at(wait.until, self._expire, loop)
        try:
            return await work
        except asyncio.CancelledError:
            if wait.is_expired and task is not None and task.uncancel() == 0:
                raise TimeoutError from None
            raise
        finally:
            wait.task = None
            while self._waits and self._waits[0].task is None:
                self._waits.popleft()

    def _expire(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the waits that are too long: the first ones, as all may take the same time."""
        self._timer = None
        while self._waits:
            first = self._waits[0]
            if first.task is not None and first.until > loop.time():
                self._timer = loop.call_at(first.until, self._expire, loop)
                return
            self._waits.popleft()
            if first.task is not None:
                first.is_expired = True
                first.task.cancel()
