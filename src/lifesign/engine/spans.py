"""The loop that deletes records of telemetry which are kept no longer. Spec "Telemetry", section 8, "Retention"."""

from collections.abc import Callable

import structlog

from lifesign.clock import EpochMs
from lifesign.engine.loops import Idle
from lifesign.engine.rules import is_resting
from lifesign.telemetry.store import SpanStore

log = structlog.get_logger("lifesign.engine")

_DAY = 24 * 3600 * 1000


class PruneSpans(Idle):
    """One transaction of 5,000 records at a tick, then a pause in which what arrives has the writer to itself.

    A loop of its own: a store that is away must not keep everything else from being pruned.
    """

    name = "prune_spans"
    idle_ms = 600_000
    _limit = 5000
    _pause_ms = 50

    def __init__(self, store: SpanStore, retention_days: int, may_delete: Callable[[], bool] = lambda: True) -> None:
        self._store = store
        self._retention_days = retention_days
        self._may_delete = may_delete
        self._rest_until = EpochMs(0)
        self._deleted = 0

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Delete some; come back soon when there may be more."""
        if is_resting(now, self._rest_until, self.idle_ms) or not self._may_delete():
            return None
        count = await self._store.purge(EpochMs(now - self._retention_days * _DAY), self._limit)
        if count:
            self._deleted += count
            return EpochMs(now + self._pause_ms)
        if self._deleted:
            log.info("spans.pruned", count=self._deleted)
        self._deleted = 0
        self._rest_until = EpochMs(now + self.idle_ms)
        return None
