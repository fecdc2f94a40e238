"""Rows that fail twice are left out for a minute, so that one bad row never stops the rest: spec "Engine", 1."""

from collections.abc import Awaitable, Callable, Sequence

import structlog

from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable
from lifesign.engine.rules import is_resting

log = structlog.get_logger("lifesign.engine")

SKIP_MS = 60_000


class Quarantine:
    """The rows that one loop leaves out for now.

    A tick whose batch fails is an ordinary failure of its loop. The next tick goes through the rows one by one, and
    the row that fails again is left out.
    """

    def __init__(self, loop: str) -> None:
        self._loop = loop
        self._skipped: dict[str, EpochMs] = {}
        self.is_wary = False
        """The last batch failed: look at each row by itself."""

    def skipped(self, now: EpochMs) -> list[str]:
        """Rows to leave out."""
        self._skipped = {row: until for row, until in self._skipped.items() if is_resting(now, until, SKIP_MS)}
        return list(self._skipped)

    async def one_by_one(self, rows: Sequence[str], work: Callable[[str], Awaitable[object]], now: EpochMs) -> None:
        """Work on each row by itself. Raises StorageUnavailable: then it is not the row's fault."""
        for row in rows:
            try:
                await work(row)
            except StorageUnavailable:
                raise
            except Exception:
                self._skipped[row] = EpochMs(now + SKIP_MS)
                log.exception("row.skipped", loop=self._loop, row=row)
        self.is_wary = False
