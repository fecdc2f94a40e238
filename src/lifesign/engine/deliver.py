"""The deliver loop: claims what is due, sends it, saves what became of it."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import Collection

import structlog
from sqlalchemy import Connection

from lifesign.channels import attempts, claims, outbox
from lifesign.channels.attempts import Claimed, Ended, Finished
from lifesign.channels.claims import Claim, Flight, Room
from lifesign.channels.delivery import Courier, LeaseLost
from lifesign.channels.limits import Limits
from lifesign.channels.senders import SLOTS
from lifesign.channels.store import Notification
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
    rests_first = False
    wakes_on: Wakeable | None = "deliver"

    def __init__(self, courier: Courier, node_id: str) -> None:
        self._courier = courier
        self._db = courier.db
        self._node_id = node_id
        self._limits = Limits.of(courier.settings)
        self._sends: dict[asyncio.Task[None], Claimed] = {}
        self._stopping = False

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Claim as much as there are free slots, and begin to send it."""
        if self._stopping:
            return None
        first = await self._db.read(claims.first_due)
        if first is None or first > now:
            return first
        in_flight: Counter[Flight] = Counter((each.channel.id, each.channel.type) for each in self._sends.values())
        used = Counter(each.channel.type for each in self._sends.values())
        free = {kind: slots - used[kind] for kind, slots in SLOTS.items()}
        claim = await self._db.write(self._claim, now, Room(free, in_flight))
        if claim.claimed:
            self._db.failpoints.hit("claim.after_commit")
        for each in claim.claimed:
            task = asyncio.create_task(self._send(each), name=f"send.{each.notification.id}")
            self._sends[task] = each
            task.add_done_callback(self._done)
        await self._hasten_failover(claim.unreached, now)
        return claim.next_due

    def _claim(self, conn: Connection, now: EpochMs, room: Room) -> Claim:
        claim = claims.claim_due(conn, now, node_id=self._node_id, room=room, limits=self._limits)
        if claim.claimed:
            self._db.failpoints.hit("claim.before_commit")
        return claim

    async def _look_for_others(self, dead: Notification, now: EpochMs) -> None:
        """A message could not be delivered: others are told of what it was an alarm of."""
        with contextlib.suppress(StorageUnavailable):
            await self._hasten_failover(await self._db.read(outbox.alarms_among, [dead]), now)

    async def _hasten_failover(self, incident_ids: Collection[str], now: EpochMs) -> None:
        if incident_ids:
            # If this is lost, the look 90 s after the step does the same.
            with contextlib.suppress(StorageUnavailable):
                await self._db.write(attention.hasten_failover, incident_ids, now)

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
            ended: Ended | None = await self._db.write_batched(attempts.finish_many, (finished, clock.now()))
        except StorageUnavailable:
            # The lease runs out and the message is sent again, under the same idempotency key.
            log.warning("notification.unfinished", notification_id=claimed.notification.id)
            return
        self._db.failpoints.hit("finish.after_commit")
        if ended is None:
            metrics.STALE_FINISHES.inc()
            log.warning("notification.superseded", notification_id=claimed.notification.id)
            return
        metrics.NOTIFICATIONS.labels(kind, claimed.notification.kind, ended.status).inc()
        if ended.breaker == "opened":
            log.warning("breaker.opened", channel_id=claimed.channel.id, type=kind)
        elif ended.breaker == "closed":
            log.info("breaker.closed", channel_id=claimed.channel.id, type=kind)
        if ended.status == "dead":
            await self._look_for_others(claimed.notification, clock.now())

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
