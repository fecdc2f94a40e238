"""SQL of the tables `ping_bodies` and `ping_rids`."""

from collections.abc import Sequence
from typing import NamedTuple

from sqlalchemy import Connection, bindparam, delete, select

from lifesign.clock import EpochMs
from lifesign.db.schema import ping_bodies, ping_rids
from lifesign.pings.rules import Signal

B = ping_bodies.c
R = ping_rids.c
_LOOK_EVERY = 16


class Body(NamedTuple):
    """What a ping carried, by the number of the ping."""

    heartbeat_id: str
    n: int
    project_id: str
    body: bytes


_TOO_OLD = delete(ping_bodies).where(B.heartbeat_id == bindparam("key"), B.n <= bindparam("up_to"))


def insert_bodies(conn: Connection, bodies: Sequence[Body], *, kept: int) -> None:
    """Keep what pings carried; what the oldest of more than `kept` pings of a heartbeat carried is forgotten."""
    if not bodies:
        return
    conn.execute(ping_bodies.insert(), [each._asdict() for each in bodies])
    # Not at each: looking whether something is too old takes as long as keeping something.
    aged = [{"key": each.heartbeat_id, "up_to": each.n - kept} for each in bodies if each.n % _LOOK_EVERY == 0]
    if aged:
        conn.execute(_TOO_OLD, aged)


def body(conn: Connection, heartbeat_id: str, n: int) -> bytes | None:
    """What a ping carried; None when nothing, or when it is forgotten."""
    found = conn.scalar(select(B.body).where(B.heartbeat_id == heartbeat_id, B.n == n))
    return None if found is None else bytes(found)


def numbers_with_body(conn: Connection, heartbeat_id: str) -> set[int]:
    """The numbers of pings whose body is kept."""
    return set(conn.scalars(select(B.n).where(B.heartbeat_id == heartbeat_id)))


def came(conn: Connection, heartbeat_id: str, rid: str) -> dict[Signal, EpochMs]:
    """When the last ping with this run id came, by signal."""
    rows = conn.execute(select(R.signal, R.at).where(R.heartbeat_id == heartbeat_id, R.rid == rid))
    return {row[0]: row[1] for row in rows}


def remember(conn: Connection, *, heartbeat_id: str, project_id: str, rid: str, signal: Signal, now: EpochMs) -> None:
    """A ping with this run id and this signal came now."""
    conn.execute(delete(ping_rids).where(R.heartbeat_id == heartbeat_id, R.rid == rid, R.signal == signal))
    conn.execute(
        ping_rids.insert().values(heartbeat_id=heartbeat_id, rid=rid, signal=signal, project_id=project_id, at=now)
    )


def forget_old(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget run ids that came before `before`. Index: ix_ping_rids_at."""
    stale = conn.execute(select(R.heartbeat_id, R.rid, R.signal).where(R.at < before).limit(limit)).all()
    for row in stale:
        conn.execute(delete(ping_rids).where(R.heartbeat_id == row[0], R.rid == row[1], R.signal == row[2]))
    return len(stale)
