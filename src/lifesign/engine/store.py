"""SQL of the tables `nodes` and `engine_state`."""

from typing import NamedTuple

from sqlalchemy import Connection, bindparam, func, insert, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import engine_state, nodes
from lifesign.engine.rules import CLOCKS_DIFFER_MS, Span

N = nodes.c
S = engine_state.c
# A node whose clock was ahead when it ended would hide every silence until that time comes.
_LAST_ALIVE = select(func.max(N.alive_at)).where(N.alive_at <= bindparam("latest")).scalar_subquery()
_STATE = select(_LAST_ALIVE, S.blind_from, S.blind_to)


class State(NamedTuple):
    """When any node was last alive, and the last span in which none was."""

    last_alive: EpochMs | None
    blind: Span | None


def state(conn: Connection, now: EpochMs) -> State:
    """What the nodes know of each other at `now`."""
    last_alive, blind_from, blind_to = conn.execute(_STATE, {"latest": now + CLOCKS_DIFFER_MS}).one()
    return State(last_alive, None if blind_from is None else Span(blind_from, blind_to))


def last_blind(conn: Connection) -> Span | None:
    """The last span in which no node was alive."""
    row = conn.execute(select(S.blind_from, S.blind_to).where(S.blind_from.is_not(None))).first()
    return None if row is None else Span(row.blind_from, row.blind_to)


def lock_state(conn: Connection) -> None:
    """Hold the one row, so that two nodes which wake up together find one span and not two."""
    conn.execute(select(S.id).with_for_update())


def save_blind(conn: Connection, span: Span) -> None:
    """The last span in which no node was alive."""
    conn.execute(update(engine_state).values(blind_from=span.from_at, blind_to=span.to_at))


def save_alive(conn: Connection, node_id: str, now: EpochMs, *, started_at: EpochMs, version: str) -> None:
    """Say that the node is alive at `now`."""
    if not conn.execute(update(nodes).where(N.id == node_id).values(alive_at=now)).rowcount:
        conn.execute(insert(nodes).values(id=node_id, started_at=started_at, alive_at=now, version=version))
