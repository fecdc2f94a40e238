"""How far a node's clock is from the database's, which all nodes share. The only SQL that asks for the time."""

from typing import NamedTuple

from sqlalchemy import Connection, text

from lifesign.clock import CorrectedClock, EpochMs
from lifesign.db.database import Database

_NOW = text("SELECT CAST(extract(epoch FROM clock_timestamp()) * 1000 AS bigint)")
# Less is within what asking takes, and no deadline is that exact.
_NOISE_MS = 50
_TRIES = 3


class Offset(NamedTuple):
    """What must be added to a clock, and by how much that may be wrong."""

    ms: int
    uncertainty_ms: int


def _database_time(conn: Connection) -> EpochMs:
    return EpochMs(conn.execute(_NOW).scalar_one())


async def correct(db: Database, clock: CorrectedClock) -> int:
    """Measure, put the clock right when it is off by more than can be measured, and return the offset in ms.

    PostgreSQL only. Raises StorageUnavailable.
    """
    tries = [await _measure(db, clock) for _ in range(_TRIES)]
    best = min(tries, key=lambda each: each.uncertainty_ms)
    if abs(best.ms - clock.offset_ms) > max(_NOISE_MS, best.uncertainty_ms):
        clock.offset_ms = best.ms
    return clock.offset_ms


async def _measure(db: Database, clock: CorrectedClock) -> Offset:
    asked_at = clock.base.now()
    at = await db.read(_database_time)
    answered_at = clock.base.now()
    return Offset(at - (asked_at + answered_at) // 2, (answered_at - asked_at) // 2 + 1)
