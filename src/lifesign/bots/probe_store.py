"""SQL of whether providers could be reached."""

from typing import NamedTuple

from sqlalchemy import Connection, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import bot_probes
from lifesign.db.sql import insert_if_new

P = bot_probes.c


class Probe(NamedTuple):
    """What the last attempt gave."""

    at: EpochMs
    is_reachable: bool


def probe(conn: Connection, project_id: str, place: str) -> Probe | None:
    """Whether a place could be reached; None when nobody has tried."""
    row = conn.execute(select(P.at, P.is_reachable).where(P.project_id == project_id, P.place == place)).first()
    return None if row is None else Probe(row.at, bool(row.is_reachable))


def save_probe(conn: Connection, project_id: str, place: str, *, is_reachable: bool, now: EpochMs) -> None:
    """Note what an attempt gave; skips are in a row until one gets through."""
    row = {"project_id": project_id, "place": place, "at": now, "is_reachable": int(is_reachable), "skips": 0}
    insert_if_new(conn, bot_probes, row, unique=["project_id", "place"])
    values = {"at": now, "is_reachable": int(is_reachable)} | ({"skips": 0} if is_reachable else {})
    conn.execute(update(bot_probes).where(P.project_id == project_id, P.place == place).values(values))


def count_skip(conn: Connection, project_id: str, place: str) -> int:
    """Count one run that was skipped; how many there were in a row."""
    mine = (P.project_id == project_id) & (P.place == place)
    counted = update(bot_probes).where(mine).values(skips=P.skips + 1).returning(P.skips)
    return int(conn.scalar(counted) or 0)
