"""What must not exist, found by SQL over the tables of all slices, and put right.

A rule finds suspects without a lock. Mending locks them, looks again, because another node may have been in the middle
of something, and repairs what is still wrong. Spec "Engine", section 12.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, Table, literal, or_, select, update

from lifesign.channels import attempts, outbox
from lifesign.clock import EpochMs
from lifesign.db.schema import heartbeats, incidents, lanes, notifications, projects, storms, timers
from lifesign.db.sql import word
from lifesign.heartbeats import sweep
from lifesign.incidents import service as incidents_service
from lifesign.incidents.rules import Hold, TimerKind, Tuning

_S = 1000
# A little more than any wait for a provider's limit.
_ASLEEP_MS = 60 * _S
_OVERDUE_MS = 60 * _S
_LEASE_LOST_MS = 120 * _S

H, I, L, N, S, T = heartbeats.c, incidents.c, lanes.c, notifications.c, storms.c, timers.c  # noqa: E741 - the columns of tables
_OPEN = I.status != word("resolved")
_FIRING = H.status == "firing"


class Repair(NamedTuple):
    """What was put right, and in whose history that belongs, if in anybody's."""

    subject_id: str
    project_id: str
    heartbeat_id: str | None


@dataclass(frozen=True, slots=True)
class Rule:
    """One kind of damage. find: ids of suspects. mend: repairs those of them that are damaged."""

    name: str
    find: Callable[[Connection, EpochMs, int], list[str]]
    mend: Callable[[Connection, Collection[str], EpochMs, Tuning], list[Repair]]


def _ids(conn: Connection, query: Select[tuple[str]], limit: int) -> list[str]:
    return list(conn.scalars(query.limit(limit)))


def _lock(conn: Connection, table: Table, ids: Collection[str]) -> list[str]:
    """Those of `ids` that nobody else is working on, locked."""
    key = table.primary_key.columns[0]
    return list(conn.scalars(select(key).where(key.in_(ids)).order_by(key).with_for_update(skip_locked=True)))


# Incidents and their timers -----------------------------------------------------------------------------------------
def _has_timer(kind: str) -> ColumnElement[bool]:
    return select(literal(1)).where(T.kind == kind, T.subject_id == I.id).exists()


_UNTIMED: ColumnElement[bool] = (
    _OPEN
    & I.holds.is_(None)
    & or_(
        (I.escalation == "running") & ~_has_timer("escalate"),
        (I.escalation == "done") & I.unattended.is_(None) & ~_has_timer("remind"),
    )
)


def _find_untimed(conn: Connection, _now: EpochMs, limit: int) -> list[str]:
    """Open incidents that nothing will ever look at again. Indexes: uq_incidents_open, the timers' primary key."""
    return _ids(conn, select(I.id).where(_UNTIMED), limit)


def _mend_untimed(conn: Connection, ids: Collection[str], now: EpochMs, _tuning: Tuning) -> list[Repair]:
    locked = _lock(conn, incidents, ids)
    query = select(I.id, I.project_id, I.heartbeat_id, I.escalation).where(I.id.in_(locked), _UNTIMED)
    rows = conn.execute(query.order_by(I.id)).all()
    incidents_service.look_again(conn, {row.id: (row.project_id, row.escalation) for row in rows}, now)
    return [Repair(row.id, row.project_id, row.heartbeat_id) for row in rows]


_IS_OPEN_FOR = select(literal(1)).where(I.heartbeat_id == H.id, _OPEN).exists()


def _find_alone(conn: Connection, _now: EpochMs, limit: int) -> list[str]:
    """Firing heartbeats without an open incident. Indexes: ix_heartbeats_status, uq_incidents_open."""
    everywhere = H.project_id.in_(select(projects.c.id))
    return _ids(conn, select(H.id).where(everywhere, _FIRING, ~_IS_OPEN_FOR), limit)


def _mend_alone(conn: Connection, ids: Collection[str], now: EpochMs, tuning: Tuning) -> list[Repair]:
    locked = _lock(conn, heartbeats, ids)
    rows = conn.execute(select(H.id, H.project_id).where(H.id.in_(locked), _FIRING, ~_IS_OPEN_FOR)).all()
    sweep.fire_again(conn, [row.id for row in rows], now, tuning)
    return [Repair(row.id, row.project_id, row.id) for row in rows]


_NOT_FIRING = _OPEN & (H.id == I.heartbeat_id) & or_(H.status != "firing", H.incident_id.is_(None))


def _find_unfired(conn: Connection, _now: EpochMs, limit: int) -> list[str]:
    """Heartbeats that do not fire although an incident is open. Index: uq_incidents_open."""
    return _ids(conn, select(H.id).where(_NOT_FIRING), limit)


def _mend_unfired(conn: Connection, ids: Collection[str], _now: EpochMs, _tuning: Tuning) -> list[Repair]:
    locked = _lock(conn, heartbeats, ids)
    rows = conn.execute(select(H.id, H.project_id, I.id).where(H.id.in_(locked), _NOT_FIRING)).all()
    sweep.set_firing(conn, {row[0]: row[2] for row in rows})
    return [Repair(row[0], row[1], row[0]) for row in rows]


_IS_ORPHAN = _OPEN & ~select(literal(1)).where(H.id == I.heartbeat_id).exists()


def _find_orphans(conn: Connection, _now: EpochMs, limit: int) -> list[str]:
    """Open incidents whose heartbeat is gone. Index: uq_incidents_open."""
    return _ids(conn, select(I.id).where(_IS_ORPHAN), limit)


def _mend_orphans(conn: Connection, ids: Collection[str], now: EpochMs, _tuning: Tuning) -> list[Repair]:
    locked = _lock(conn, incidents, ids)
    rows = conn.execute(select(I.id, I.project_id).where(I.id.in_(locked), _IS_ORPHAN).order_by(I.id)).all()
    incidents_service.abandon(conn, [row.id for row in rows], now)
    return [Repair(row.id, row.project_id, None) for row in rows]


# Deadlines ----------------------------------------------------------------------------------------------------------
_UNBOUND = H.fires_at.is_not(None) & or_(H.check_at.is_(None), H.check_at > H.fires_at)


class Sample(NamedTuple):
    """Some heartbeats that were looked at: the last id, None at the end; and those whose bound is wrong."""

    last_id: str | None
    unbound: list[str]


def sample_bounds(conn: Connection, after: str, limit: int) -> Sample:
    """The next `limit` heartbeats by id: those that would never, or too late, be looked at. Index: the primary key."""
    some = select(H.id).where(H.id > after).order_by(H.id).limit(limit).subquery()
    ids = list(conn.scalars(select(some.c.id)))
    unbound = select(H.id).where(H.id > after, H.id <= ids[-1], _UNBOUND) if ids else None
    wrong = [] if unbound is None else list(conn.scalars(unbound))
    return Sample(ids[-1] if len(ids) == limit else None, wrong)


def _mend_bounds(conn: Connection, ids: Collection[str], _now: EpochMs, _tuning: Tuning) -> list[Repair]:
    locked = _lock(conn, heartbeats, ids)
    rows = conn.execute(
        update(heartbeats).where(H.id.in_(locked), _UNBOUND).values(check_at=H.fires_at).returning(H.id, H.project_id)
    ).all()
    return [Repair(row.id, row.project_id, row.id) for row in rows]


# Messages -----------------------------------------------------------------------------------------------------------
def _find_unreaped(conn: Connection, now: EpochMs, limit: int) -> list[str]:
    """Messages whose lease ran out long ago. Index: ix_notifications_lease."""
    lost = (N.status == word("sending")) & (N.lease_until < now - _LEASE_LOST_MS)
    return _ids(conn, select(N.id).where(lost), limit)


def _mend_unreaped(conn: Connection, ids: Collection[str], now: EpochMs, _tuning: Tuning) -> list[Repair]:
    taken_back = attempts.reap(conn, now, len(ids), overdue_ms=_LEASE_LOST_MS)
    return [Repair(row.id, row.project_id, row.heartbeat_id) for row in taken_back]


def _find_asleep(conn: Connection, now: EpochMs, limit: int) -> list[str]:
    """Channels that do not know that a message waits. Indexes: the lanes' primary key, ix_notifications_pending."""
    return outbox.sleeping_lanes(conn, now, EpochMs(now - _OVERDUE_MS), EpochMs(now + _ASLEEP_MS))[:limit]


def _mend_asleep(conn: Connection, ids: Collection[str], now: EpochMs, _tuning: Tuning) -> list[Repair]:
    locked = set(_lock(conn, lanes, ids))
    still = set(outbox.sleeping_lanes(conn, now, EpochMs(now - _OVERDUE_MS), EpochMs(now + _ASLEEP_MS))) & locked
    owners = conn.execute(select(L.channel_id, L.project_id).where(L.channel_id.in_(still))).all()
    outbox.wake_lanes(conn, still, now)
    return [Repair(row.channel_id, row.project_id, None) for row in owners]


_IS_FORGOTTEN = (
    (N.status == word("held"))
    & N.storm_id.is_not(None)
    & (N.is_on_hold == 0)
    & ~select(literal(1)).where(S.id == N.storm_id, S.state == "open").exists()
)


def _find_held(conn: Connection, _now: EpochMs, limit: int) -> list[str]:
    """Storms that are over and still hold messages back. Index: ix_notifications_held."""
    storm_id: Select[tuple[str]] = select(N.storm_id).where(_IS_FORGOTTEN).distinct()
    return _ids(conn, storm_id, limit)


def _mend_held(conn: Connection, ids: Collection[str], now: EpochMs, _tuning: Tuning) -> list[Repair]:
    found = conn.execute(select(N.storm_id, N.project_id).where(N.storm_id.in_(ids), _IS_FORGOTTEN).distinct()).all()
    for row in found:
        outbox.tell_held(conn, row.storm_id, now)
    return [Repair(row.storm_id, row.project_id, None) for row in found]


def _holds_in_vain(hold: Hold, reason: ColumnElement[bool]) -> ColumnElement[bool]:
    """Open incidents under this hold, without the reason for it or whatever will end it."""
    return _OPEN & I.holds.is_not(None) & (" " + I.holds + " ").contains(f" {hold} ") & ~reason


def _waits_for(kind: TimerKind, subject: ColumnElement[str]) -> ColumnElement[bool]:
    return select(literal(1)).where(T.kind == kind, T.subject_id == subject).exists()


# By hold: what is not in order. A window that is open has a timer for its end.
_IN_VAIN: dict[Hold, ColumnElement[bool]] = {
    "flap": _holds_in_vain("flap", _waits_for("flap_settle", I.heartbeat_id)),
    "snooze": _holds_in_vain("snooze", _waits_for("snooze_end", I.heartbeat_id)),
    "maintenance": _holds_in_vain(
        "maintenance",
        select(literal(1)).where(T.kind == "maintenance_edge", T.project_id == I.project_id).exists(),
    ),
    "dependency": _holds_in_vain(
        "dependency",
        _waits_for("dependency_release", I.id)
        | select(literal(1)).where(H.id == I.suppressed_by, H.status == "firing").exists(),
    ),
}
_HOLDS_FOR_NOTHING = or_(*_IN_VAIN.values())


def _find_unheld(conn: Connection, _now: EpochMs, limit: int) -> list[str]:
    """Heartbeats whose incident is held for a reason that is gone, or never ends. Index: uq_incidents_open."""
    return _ids(conn, select(I.heartbeat_id).where(_HOLDS_FOR_NOTHING), limit)


def _mend_unheld(conn: Connection, ids: Collection[str], now: EpochMs, tuning: Tuning) -> list[Repair]:
    locked = _lock(conn, heartbeats, ids)
    repairs: dict[str, Repair] = {}
    for hold, in_vain in _IN_VAIN.items():
        rows = conn.execute(select(I.heartbeat_id, I.project_id, I.id).where(I.heartbeat_id.in_(locked), in_vain)).all()
        sweep.end_hold(conn, {row[0]: row[2] for row in rows}, hold, now=now, tuning=tuning)
        repairs |= {row[2]: Repair(row[2], row[1], row[0]) for row in rows}
    return list(repairs.values())


BOUND = Rule("bound", lambda _conn, _now, _limit: [], _mend_bounds)
"""Its suspects come from `sample_bounds`: there are too many heartbeats to look at all of them."""

RULES = (
    Rule("timer", _find_untimed, _mend_untimed),
    Rule("firing_alone", _find_alone, _mend_alone),
    Rule("not_firing", _find_unfired, _mend_unfired),
    Rule("orphan", _find_orphans, _mend_orphans),
    Rule("lease", _find_unreaped, _mend_unreaped),
    Rule("lane", _find_asleep, _mend_asleep),
    Rule("held", _find_held, _mend_held),
    Rule("hold", _find_unheld, _mend_unheld),
)
