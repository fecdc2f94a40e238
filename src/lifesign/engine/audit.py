"""The auditor: finds what must not exist and puts it right; and, while all is well, says so to another monitor."""

from collections.abc import Callable, Collection

import structlog
from sqlalchemy import Connection

from lifesign.channels.outbound import OutboundClient
from lifesign.channels.sender import HttpReply
from lifesign.clock import EpochMs
from lifesign.db import Database
from lifesign.engine import damage, metrics
from lifesign.engine.damage import Repair, Rule
from lifesign.engine.loops import Idle
from lifesign.engine.rules import is_resting
from lifesign.events import service as events
from lifesign.events.rules import Event
from lifesign.incidents.rules import Tuning

log = structlog.get_logger("lifesign.engine")

_S = 1000
_PING_EVERY_MS = 60 * _S
_LONGEST_LAG_MS = 30 * _S


class Audit(Idle):
    """Looks, without a lock, for damage; only where there is some does it take the writer's time.

    Spec "Engine", section 12.
    """

    name = "audit"
    idle_ms = 30_000
    _limit = 500
    _sample = 10_000

    def __init__(self, db: Database, tuning: Tuning, deadman: "Deadman | None") -> None:
        self._db = db
        self._tuning = tuning
        self._deadman = deadman
        self._after = ""
        self._next_at = EpochMs(0)

    async def tick(self, now: EpochMs) -> EpochMs | None:
        """Look at everything once; ping when nothing is left that is wrong."""
        if is_resting(now, self._next_at, self.idle_ms):
            return None
        self._next_at = EpochMs(now + self.idle_ms)
        is_clean = True
        suspects = await self._db.read(self._suspects, now)
        for rule, ids in suspects:
            repairs = await self._db.write(self._mend, rule, ids, now)
            metrics.REPAIRS.labels(rule.name).inc(len(repairs))
            is_clean = is_clean and len(repairs) >= len(ids)
        if is_clean and self._deadman is not None:
            await self._deadman.ping(now)
        return None

    def _suspects(self, conn: Connection, now: EpochMs) -> list[tuple[Rule, list[str]]]:
        found = [(rule, rule.find(conn, now, self._limit)) for rule in damage.RULES]
        sample = damage.sample_bounds(conn, self._after, self._sample)
        self._after = sample.last_id or ""
        return [(rule, ids) for rule, ids in (*found, (damage.BOUND, sample.unbound[: self._limit])) if ids]

    def _mend(self, conn: Connection, rule: Rule, ids: Collection[str], now: EpochMs) -> list[Repair]:
        repairs = rule.mend(conn, ids, now, self._tuning)
        told = [
            Event(each.project_id, each.heartbeat_id, "repaired", {"rule": rule.name, "subject": each.subject_id})
            for each in repairs
            if each.heartbeat_id is not None
        ]
        events.record(conn, told, now)
        for each in repairs:
            log.error("damage.repaired", rule=rule.name, subject=each.subject_id)
        return repairs


class Deadman:
    """Asks an address of the operator's once a minute while this server does its work."""

    def __init__(self, outbound: OutboundClient, url: str, lag_ms: Callable[[], int]) -> None:
        self._outbound = outbound
        self._url = url
        self._lag_ms = lag_ms
        self._next_at = EpochMs(0)

    async def ping(self, now: EpochMs) -> None:
        """Tell the other monitor that all is well, unless silences are told late or it was told within the minute."""
        if is_resting(now, self._next_at, _PING_EVERY_MS) or self._lag_ms() >= _LONGEST_LAG_MS:
            return
        self._next_at = EpochMs(now + _PING_EVERY_MS)
        reply = await self._outbound.get(self._url, {}, guarded=False)
        is_heard = isinstance(reply, HttpReply) and 200 <= reply.status <= 299  # noqa: PLR2004 - the class of statuses
        metrics.DEADMAN_PINGS.labels("ok" if is_heard else "failed").inc()
        if not is_heard:
            why = f"answered with status {reply.status}" if isinstance(reply, HttpReply) else reply.why
            log.warning("deadman.unheard", why=why)
