"""The deliver loop: claims what is due, sends it, saves what became of it."""

import asyncio
import contextlib
import random
from collections import Counter

import structlog
from sqlalchemy import Connection

from lifesign.channels import outbox
from lifesign.channels.delivery import Courier, LeaseLost
from lifesign.channels.outbox import Claimed, Finished, Flight
from lifesign.channels.rules import Status
from lifesign.channels.sender import ChannelType
from lifesign.channels.senders import SLOTS
from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable
from lifesign.db.wakeups import Loop as Wakeable
from lifesign.engine import metrics
from lifesign.incidents import attention

log = structlog.get_logger("lifesign.engine")

_SHUTDOWN_S = 20.0


class Deliver:
    """Spec "Engine", section 7. Each type has slots of its own, so that one never waits for another."""

    name = "deliver"
    idle_ms = 1000
    wakes_on: Wakeable | None = "deliver"

    def __init__(self, courier: Courier, node_id: str) -> None:
        self._courier = courier
        self._db = courier.db
        self._node_id = node_id
        self._sends: dict[asyncio.Task[None], Claimed] = {}
        self._stopping = False

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Claim as much as there are free slots, and begin to send it."""
        if self._stopping:
            return None
        in_flight: Counter[Flight] = Counter((each.channel.id, each.channel.type) for each in self._sends.values())
        used = Counter(each.channel.type for each in self._sends.values())
        free = {kind: slots - used[kind] for kind, slots in SLOTS.items()}
        claimed, next_due = await self._db.write(self._claim, now, free=free, in_flight=in_flight)
        if claimed:
            self._db.failpoints.hit("claim.after_commit")
        for each in claimed:
            task = asyncio.create_task(self._send(each), name=f"send.{each.notification.id}")
            self._sends[task] = each
            task.add_done_callback(self._done)
        return next_due

    def _claim(
        self, conn: Connection, now: EpochMs, *, free: dict[ChannelType, int], in_flight: Counter[Flight]
    ) -> tuple[list[Claimed], EpochMs | None]:
        result = outbox.claim_due(conn, now, node_id=self._node_id, free=free, in_flight=in_flight)
        if result[0]:
            self._db.failpoints.hit("claim.before_commit")
        return result

    def _done(self, task: asyncio.Task[None]) -> None:
        self._sends.pop(task, None)
        # A slot is free again: look at once whether something waits for it.
        self._db.wakeups.wake({"deliver"})
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("send.crashed", error=repr(error))

    async def _send(self, claimed: Claimed) -> None:
        clock = self._courier.clock
        started_at = clock.now()
        try:
            outcome, took_ms = await self._courier.attempt(claimed)
        except LeaseLost:
            metrics.STALE_FINISHES.inc()
            return
        kind = claimed.channel.type
        metrics.ATTEMPTS.labels(kind, type(outcome).__name__.lower()).inc()
        finished = Finished(claimed, outcome, started_at, took_ms, random.random())  # noqa: S311 - jitter, not a secret
        try:
            status: Status | None = await self._db.write_batched(outbox.finish_many, (finished, clock.now()))
        except StorageUnavailable:
            # The lease runs out and the message is sent again, under the same idempotency key.
            log.warning("notification.unfinished", notification_id=claimed.notification.id)
            return
        self._db.failpoints.hit("finish.after_commit")
        if status is None:
            metrics.STALE_FINISHES.inc()
            log.warning("notification.superseded", notification_id=claimed.notification.id)
        else:
            metrics.NOTIFICATIONS.labels(kind, claimed.notification.kind, status).inc()
        if status == "dead" and claimed.notification.kind == "page" and claimed.notification.incident_id is not None:
            # If this is lost, the look 90 s after the step does the same.
            with contextlib.suppress(StorageUnavailable):
                await self._db.write(attention.hasten_failover, [claimed.notification.incident_id], clock.now())

    async def settle(self) -> bool:
        """Wait for the sends in flight."""
        sends = list(self._sends)
        if sends:
            await asyncio.gather(*sends, return_exceptions=True)
        return bool(sends)

    async def stop(self) -> None:
        """Claim nothing more; let sends finish; what does not finish in time is given back by its lease."""
        self._stopping = True
        if self._sends:
            _, late = await asyncio.wait(list(self._sends), timeout=_SHUTDOWN_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
