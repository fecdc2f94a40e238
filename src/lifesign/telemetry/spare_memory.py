"""Giving memory back to the system after large requests.

What a request of 20 MB was decoded into is freed, but in pieces between pages that the database keeps, and glibc gives
back only what lies above the last piece in use. After six such requests a server of 145 MiB had 267 MiB, and has 207
once glibc is told to look between the pieces too. That takes 3 to 26 ms of another thread. SQLite keeps 32 MB of pages,
for whoever stores the like soon: they go first, which makes 264 MiB 225.
"""

import asyncio
import ctypes
import functools
from collections.abc import Awaitable, Callable
from typing import Final

AFTER_S: Final = 2.0
"""So long after the first of several, once for all of them."""


def give_back() -> None:
    """Give back what is free. Other systems' libraries do so by themselves, or cannot."""
    trim = _trim()
    if trim is not None:
        trim(0)


@functools.cache
def _trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None)


class SpareMemory:
    """Gives memory back some time after it was much used. first: lets go of what is kept for those who come next."""

    def __init__(
        self,
        after_s: float = AFTER_S,
        give: Callable[[], None] = give_back,
        first: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._after_s = after_s
        self._give = give
        self._first = first
        self._waiting: asyncio.TimerHandle | None = None
        self._giving: asyncio.Task[None] | None = None

    def was_used(self) -> None:
        """Much was in use just now, and is free."""
        if self._waiting is None:
            self._waiting = asyncio.get_running_loop().call_later(self._after_s, self._begin)

    def _begin(self) -> None:
        self._waiting = None
        self._giving = asyncio.create_task(self._give_all())

    async def _give_all(self) -> None:
        if self._first is not None:
            await self._first()
        await asyncio.get_running_loop().run_in_executor(None, self._give)

    async def close(self) -> None:
        """Leave it to the end of the process; what has begun is finished."""
        if self._waiting is not None:
            self._waiting.cancel()
        if self._giving is not None:
            await asyncio.wait({self._giving})
