"""Heartbeats as people look over them: the state that is shown of each, and a page of many, worst first.

SQL of the table `heartbeats`; `state_of` says of one heartbeat what the statements say of all.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    false,
    func,
    literal,
    or_,
    select,
    union_all,
)

from lifesign.clock import EpochMs
from lifesign.db.schema import heartbeats
from lifesign.db.sql import contains
from lifesign.heartbeats.rules import BOT_OWNER, Heartbeat

State = Literal["firing", "snoozed", "late", "acknowledged", "never_seen", "alive", "paused", "done"]
STATES: tuple[State, ...] = get_args(State)
"""Worst first."""
Kind = Literal["heartbeat", "system", "schedule", "diagnosis"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Sort = Literal["state", "name", "namespace", "seen", "due"]
SORTS: tuple[Sort, ...] = get_args(Sort)

H = heartbeats.c


class Wanted(NamedTuple):
    """Which heartbeats are looked for; empty: any."""

    state: State | None = None
    kind: Kind | None = None
    namespace: str = ""
    tag: str = ""
    search: str = ""


@dataclass(frozen=True, slots=True)
class Board:
    """A page of lines, by id in order; how many of those that are looked for are in which state."""

    ids: list[str]
    counts: dict[State, int]


def state_of(heartbeat: Heartbeat, now: EpochMs) -> State:
    """What is shown of a heartbeat: what it is, and whether people know of it.

    `late`: the deadline has passed and the grace has not. `acknowledged`: until the next check-in.
    """
    if heartbeat.status == "firing":
        return "snoozed" if heartbeat.is_snoozed(now) else "firing"
    if heartbeat.status == "paused":
        return "paused"
    if heartbeat.is_final:
        return "done"
    if heartbeat.is_armed and heartbeat.next_deadline is not None and heartbeat.next_deadline < now:
        return "late"
    if heartbeat.status == "resolved":
        return "acknowledged"
    return "never_seen" if heartbeat.last_checkin_at is None else "alive"


def kind_of(heartbeat: Heartbeat) -> Kind:
    """What beats there."""
    match (heartbeat.managed_by or "").partition(" ")[0]:
        case "system":
            return "system"
        case "diagnosis":
            return "diagnosis"
        case _:
            return "heartbeat"


def _rank(now: EpochMs) -> ColumnElement[int]:
    """The place in `STATES` of a row's state, as `state_of` tells it."""
    is_snoozed = func.coalesce(H.snoozed_until, 0) > now
    is_late = and_(H.is_armed == 1, H.next_deadline < now)
    place = STATES.index
    return case(
        (and_(H.status == "firing", is_snoozed), place("snoozed")),
        (H.status == "firing", place("firing")),
        (H.status == "paused", place("paused")),
        (and_(H.status == "resolved", H.mode == "oneshot"), place("done")),
        (is_late, place("late")),
        (H.status == "resolved", place("acknowledged")),
        (H.last_checkin_at.is_(None), place("never_seen")),
        else_=place("alive"),
    )


# Any: rows of several columns.
def lines(conn: Connection, project_id: str, wanted: Wanted, now: EpochMs) -> Select[Any]:
    """The heartbeats that are looked for, in whatever state, as lines of the board. Index: ix_heartbeats_project."""
    return select(
        H.id.label("id"),
        _rank(now).label("rank"),
        func.lower(H.name).label("name"),
        func.coalesce(H.namespace, "").label("namespace"),
        func.coalesce(H.last_checkin_at, literal(0, BigInteger)).label("seen"),
        # What is expected of nobody comes last.
        func.coalesce(H.next_deadline, literal(2**62, BigInteger)).label("due"),
        func.coalesce(H.fires_at, literal(2**62, BigInteger)).label("fires"),
    ).where(*_conditions(conn, project_id, wanted))


def board(
    conn: Connection,
    project_id: str,
    wanted: Wanted,
    *,
    now: EpochMs,
    sort: Sort,
    is_descending: bool,
    limit: int,
    offset: int,
    others: Select[Any] | None = None,
) -> Board:
    """A page of what is looked for. Two statements, whatever there is.

    others: lines of what beats besides heartbeats, with the columns of `lines`.
    """
    own = lines(conn, project_id, wanted, now)
    every = (own if others is None else union_all(own, others)).subquery("every")
    counted = select(every.c.rank, func.count()).group_by(every.c.rank)
    counts = {STATES[place]: count for place, count in conn.execute(counted)}
    query = select(every.c.id)
    if wanted.state is not None:
        query = query.where(every.c.rank == STATES.index(wanted.state))
    chosen = every.c["rank" if sort == "state" else sort]
    first = chosen.desc() if is_descending else chosen.asc()
    page = query.order_by(first, every.c.fires, every.c.id).limit(limit).offset(offset)
    return Board(list(conn.scalars(page)), counts)


def _conditions(conn: Connection, project_id: str, wanted: Wanted) -> list[ColumnElement[bool]]:
    found: list[ColumnElement[bool]] = [H.project_id == project_id]
    match wanted.kind:
        case "heartbeat":
            found.append(or_(H.managed_by.is_(None), H.managed_by.like(f"{BOT_OWNER}%")))
        case "system":
            found.append(H.managed_by.like("system %"))
        case "diagnosis":
            found.append(H.managed_by == "diagnosis")
        case "schedule":
            found.append(false())
        case None:
            pass
    if wanted.namespace:
        found.append(H.namespace == wanted.namespace)
    if wanted.tag:
        # As in the list of the API: two tags that are neighbours are not one with a blank in it.
        found.append(contains(conn, H.tags, f" {wanted.tag} ") if wanted.tag.split() == [wanted.tag] else false())
    if wanted.search:
        searched = wanted.search.casefold()
        found.append(or_(contains(conn, H.search, searched), contains(conn, H.id, searched)))
    return found


def namespaces_of(conn: Connection, project_id: str, limit: int) -> list[str]:
    """The namespaces of a project, in order. Index: ix_heartbeats_namespace."""
    query = select(H.namespace).where(H.project_id == project_id, H.namespace.is_not(None)).distinct()
    return list(conn.scalars(query.order_by(H.namespace).limit(limit)))
