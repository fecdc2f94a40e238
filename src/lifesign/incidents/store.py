"""SQL of the tables `incidents`, `timers` and `policies`."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, func, or_, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import incidents, policies, storms, timers
from lifesign.db.sql import contains, insert_many, insert_new, update_many, word
from lifesign.incidents.rules import Hold, Incident, Plan, Policy, Step, Storm, TimerKind

I = incidents.c  # noqa: E741 - the columns of the one table this module is about
_OPEN = I.status != word("resolved")


_COLUMNS = tuple(I[name] for name in Incident.__dataclass_fields__)


# Policies -----------------------------------------------------------------------------------------------------------
def insert_policy(conn: Connection, policy: Policy) -> None:
    """A new policy."""
    conn.execute(
        policies.insert().values(
            id=policy.id,
            project_id=policy.project_id,
            created_at=policy.created_at,
            origin=policy.origin,
            **_policy_values(policy),
        )
    )


def save_policy(conn: Connection, policy: Policy) -> None:
    """Change a policy."""
    conn.execute(
        update(policies)
        .where(policies.c.id == policy.id)
        .values(updated_at=policy.updated_at, **_policy_values(policy))
    )


def _policy_values(policy: Policy) -> dict[str, Any]:
    steps = [
        {"channels": step.channels}
        | ({} if step.wait_s is None else {"wait": step.wait_s})
        | ({} if step.message is None else {"message": step.message})
        for step in policy.plan.steps
    ]
    return {
        "name": policy.name,
        "steps": orjson.dumps(steps).decode(),
        "repeat_last_step": int(policy.plan.repeat_last_step),
    }


def policy_by_id(conn: Connection, project_id: str, policy_id: str, *, lock: bool = False) -> Policy | None:
    """One policy of a project."""
    query = select(policies).where(policies.c.id == policy_id, policies.c.project_id == project_id)
    row = conn.execute(query.with_for_update() if lock else query).first()
    return None if row is None else _policy(row)


def keep_policy(conn: Connection, project_id: str, policy_id: str) -> bool:
    """Whether the project has this policy; if so, nobody deletes it until the transaction ends."""
    query = select(policies.c.id).where(policies.c.id == policy_id, policies.c.project_id == project_id)
    return conn.scalar(query.with_for_update(read=True, key_share=True)) is not None


def policies_of(conn: Connection, project_id: str, *, limit: int, after: str | None) -> list[Policy]:
    """Policies of a project, oldest first."""
    query = select(policies).where(policies.c.project_id == project_id)
    if after is not None:
        query = query.where(policies.c.id > after)
    return [_policy(row) for row in conn.execute(query.order_by(policies.c.id).limit(limit))]


def plans(conn: Connection, ids: Iterable[str]) -> dict[str, Plan]:
    """The plans of several policies, by id."""
    rows = conn.execute(select(policies).where(policies.c.id.in_(set(ids))))
    return {row.id: _policy(row).plan for row in rows}


def policies_naming_channel(conn: Connection, project_id: str, channel_id: str) -> list[Policy]:
    """Policies with a step that tells the channel."""
    query = select(policies).where(
        policies.c.project_id == project_id, contains(conn, policies.c.steps, f'"{channel_id}"')
    )
    return [_policy(row) for row in conn.execute(query.order_by(policies.c.id).with_for_update())]


def names_naming_channel(conn: Connection, project_id: str, channel_id: str) -> list[tuple[str, str]]:
    """Id and name of the policies with a step that tells the channel. Index: ix_policies_project."""
    is_named = contains(conn, policies.c.steps, f'"{channel_id}"')
    query = select(policies.c.id, policies.c.name).where(policies.c.project_id == project_id, is_named)
    return [(row.id, row.name) for row in conn.execute(query.order_by(policies.c.name, policies.c.id))]


def delete_policy(conn: Connection, policy_id: str) -> None:
    """Remove a policy."""
    conn.execute(delete(policies).where(policies.c.id == policy_id))


def _policy(row: Any) -> Policy:  # Any: a row of a table whose columns mypy does not know
    steps = tuple(
        Step(tuple(step["channels"]), step.get("wait"), step.get("message")) for step in orjson.loads(row.steps)
    )
    return Policy(
        row.id,
        row.project_id,
        row.name,
        Plan(steps, bool(row.repeat_last_step)),
        row.created_at,
        row.updated_at,
        row.origin,
    )


# Incidents ----------------------------------------------------------------------------------------------------------
def insert_incidents(conn: Connection, rows: Sequence[Incident]) -> None:
    """New incidents."""
    insert_many(conn, incidents, [{name: getattr(row, name) for name in Incident.__dataclass_fields__} for row in rows])


def save_incidents(conn: Connection, changes: Mapping[str, Mapping[str, Any]]) -> None:
    """Change the same columns of several incidents, in id order."""
    update_many(conn, incidents, [{"id": key, **changes[key]} for key in sorted(changes)])


def incident_by_id(conn: Connection, project_id: str, incident_id: str) -> Incident | None:
    """One incident of a project."""
    row = conn.execute(select(*_COLUMNS).where(I.id == incident_id, I.project_id == project_id)).first()
    return None if row is None else Incident(*row)


def find(conn: Connection, incident_id: str) -> Incident | None:
    """One incident, of whichever project."""
    row = conn.execute(select(*_COLUMNS).where(I.id == incident_id)).first()
    return None if row is None else Incident(*row)


def find_by_code(conn: Connection, code: str) -> Incident | None:
    """The incident with this code; of several the open one, else the latest. Index: ix_incidents_ack_code."""
    query = select(*_COLUMNS).where(I.ack_code == code).order_by(_OPEN.desc(), I.id.desc()).limit(1)
    row = conn.execute(query).first()
    return None if row is None else Incident(*row)


def codes_in_use(conn: Connection, codes: Iterable[str]) -> set[str]:
    """Those of `codes` that an open incident has. Index: ix_incidents_ack_code."""
    return set(conn.scalars(select(I.ack_code).where(I.ack_code.in_(set(codes)), _OPEN)))


def lock_open(conn: Connection, incident_id: str) -> Incident | None:
    """An open incident, locked until the transaction ends."""
    row = conn.execute(select(*_COLUMNS).where(I.id == incident_id, _OPEN).with_for_update()).first()
    return None if row is None else Incident(*row)


def lock_free(conn: Connection, ids: Iterable[str]) -> dict[str, Incident]:
    """Those of `ids` that nobody else is working on, locked."""
    query = select(*_COLUMNS).where(I.id.in_(set(ids))).order_by(I.id).with_for_update(skip_locked=True)
    return {row.id: Incident(*row) for row in conn.execute(query)}


def existing(conn: Connection, ids: Iterable[str]) -> set[str]:
    """Those of `ids` that are open incidents."""
    return set(conn.scalars(select(I.id).where(I.id.in_(set(ids)), _OPEN)))


def lock_open_of_policy(conn: Connection, policy_id: str) -> list[Incident]:
    """Open incidents that a policy escalates, locked. Index: ix_incidents_open_policy."""
    query = select(*_COLUMNS).where(I.policy_id == policy_id, _OPEN).order_by(I.id).with_for_update()
    return [Incident(*row) for row in conn.execute(query)]


def held(conn: Connection, heartbeat_ids: Iterable[str], hold: Hold) -> dict[str, str]:
    """The open incidents of these heartbeats that are under this hold, by heartbeat. Index: uq_incidents_open."""
    query = select(I.heartbeat_id, I.id, I.holds).where(I.heartbeat_id.in_(set(heartbeat_ids)), _OPEN)
    return {row.heartbeat_id: row.id for row in conn.execute(query) if hold in (row.holds or "").split()}


def heartbeats_of(conn: Connection, incident_ids: Iterable[str]) -> dict[str, str]:
    """The heartbeat of each of these incidents that is open, by incident."""
    query = select(I.id, I.heartbeat_id).where(I.id.in_(set(incident_ids)), _OPEN)
    return {row.id: row.heartbeat_id for row in conn.execute(query)}


def open_of_project(conn: Connection, project_id: str) -> dict[str, str]:
    """The open incidents of a project, by heartbeat. Index: uq_incidents_open."""
    query = select(I.heartbeat_id, I.id).where(_OPEN, I.project_id == project_id)
    return {row.heartbeat_id: row.id for row in conn.execute(query)}


def open_unattended(conn: Connection, project_id: str) -> list[str]:
    """Ids of open incidents that nobody attends to. Index: ix_incidents_project."""
    query = select(I.id).where(I.project_id == project_id, _OPEN, I.unattended.is_not(None))
    return list(conn.scalars(query.order_by(I.id)))


def incidents_of(
    conn: Connection, project_id: str, *, limit: int, before: str | None, status: str | None, heartbeat_id: str | None
) -> list[Incident]:
    """Incidents of a project, newest first. Indexes: ix_incidents_project, ix_incidents_heartbeat."""
    query = select(*_COLUMNS).where(I.project_id == project_id)
    if before is not None:
        query = query.where(I.id < before)
    if status is not None:
        query = query.where(I.status == status)
    if heartbeat_id is not None:
        query = query.where(I.heartbeat_id == heartbeat_id)
    return [Incident(*row) for row in conn.execute(query.order_by(I.id.desc()).limit(limit))]


def of_heartbeats(conn: Connection, heartbeat_ids: Iterable[str], *, since: EpochMs, limit: int) -> list[Incident]:
    """The incidents of some heartbeats that opened since then, newest first. Index: ix_incidents_heartbeat."""
    is_theirs = I.heartbeat_id.in_(list(heartbeat_ids))
    query = select(*_COLUMNS).where(is_theirs, I.opened_at >= since).order_by(I.id.desc()).limit(limit)
    return [Incident(*row) for row in conn.execute(query)]


def spans_of(conn: Connection, heartbeat_id: str, since: EpochMs) -> list[tuple[EpochMs, EpochMs | None]]:
    """From when until when a heartbeat fired, since a moment, oldest first. Index: ix_incidents_heartbeat."""
    query = select(I.opened_at, I.resolved_at).where(
        I.heartbeat_id == heartbeat_id, or_(I.resolved_at.is_(None), I.resolved_at >= since)
    )
    return [(row[0], row[1]) for row in conn.execute(query.order_by(I.id))]


def count_open(conn: Connection) -> tuple[int, int]:
    """Open incidents, and those of them that nobody is told of."""
    row = conn.execute(select(func.count(), func.count(I.unattended)).where(_OPEN)).one()
    return row[0], row[1]


# Storms -------------------------------------------------------------------------------------------------------------
S = storms.c
_STORM_COLUMNS = tuple(S[name] for name in Storm.__dataclass_fields__)
_STORM_OPEN = S.state == word("open")


def insert_storm(conn: Connection, storm: Storm) -> None:
    """A new open storm."""
    values = {name: getattr(storm, name) for name in Storm.__dataclass_fields__}
    conn.execute(storms.insert().values(state="open", **values))


def open_storms(conn: Connection, project_ids: Iterable[str]) -> dict[str, Storm]:
    """The open storm of each project that has one, by project. Index: uq_storms_open."""
    query = select(*_STORM_COLUMNS).where(_STORM_OPEN, S.project_id.in_(set(project_ids)))
    return {row.project_id: Storm(*row) for row in conn.execute(query)}


def still_open(conn: Connection, storm_ids: Iterable[str]) -> dict[str, Storm]:
    """Those of `storm_ids` that are open, by id; they do not end until the transaction does."""
    query = select(*_STORM_COLUMNS).where(S.id.in_(set(storm_ids)), _STORM_OPEN).order_by(S.id)
    return {row.id: Storm(*row) for row in conn.execute(query.with_for_update(read=True))}


def lock_storms(conn: Connection, storm_ids: Iterable[str]) -> list[Storm]:
    """Those of `storm_ids` that are open, locked."""
    query = select(*_STORM_COLUMNS).where(S.id.in_(set(storm_ids)), _STORM_OPEN).order_by(S.id)
    return [Storm(*row) for row in conn.execute(query.with_for_update())]


def count_into_storms(conn: Connection, counts: Mapping[str, int]) -> None:
    """So many more incidents belong to each storm, in id order."""
    for storm_id, count in sorted(counts.items()):
        conn.execute(update(storms).where(S.id == storm_id).values(count=S.count + count))


def prolong_storm(conn: Connection, storm_id: str, release_at: EpochMs) -> None:
    """The storm goes on."""
    conn.execute(update(storms).where(S.id == storm_id).values(release_at=release_at))


def close_storm(conn: Connection, storm_id: str, now: EpochMs) -> None:
    """The storm is over."""
    conn.execute(update(storms).where(S.id == storm_id).values(state="closed", closed_at=now))


def count_missed_since(conn: Connection, project_id: str, since: EpochMs) -> int:
    """Deadlines of a project missed since `since`: an id begins with its time. Index: ix_incidents_project."""
    query = select(func.count()).where(I.project_id == project_id, I.id > f"inc_{since:012x}", I.reason == "missed")
    return conn.scalar(query) or 0


# Timers -------------------------------------------------------------------------------------------------------------
def set_timers(conn: Connection, due: Mapping[str, tuple[str, EpochMs]], kind: TimerKind = "escalate") -> None:
    """Set timers of one kind: incident id -> (project id, due)."""
    if not due:
        return
    clear_timers(conn, due, kind)
    rows = [{"kind": kind, "subject_id": key, "project_id": due[key][0], "due_at": due[key][1]} for key in sorted(due)]
    insert_many(conn, timers, rows)


def keep_timers(conn: Connection, due: Mapping[str, tuple[str, EpochMs]], kind: TimerKind) -> None:
    """Set timers of one kind where there are none."""
    rows = [{"kind": kind, "subject_id": key, "project_id": due[key][0], "due_at": due[key][1]} for key in sorted(due)]
    insert_new(conn, timers, rows, unique=["kind", "subject_id"])


def timers_of(conn: Connection, incident_ids: Iterable[str]) -> dict[str, EpochMs]:
    """When the `escalate` timers of incidents are due."""
    query = select(timers.c.subject_id, timers.c.due_at)
    query = query.where(timers.c.kind == "escalate", timers.c.subject_id.in_(list(incident_ids)))
    return {row.subject_id: row.due_at for row in conn.execute(query)}


def clear_timers(conn: Connection, incident_ids: Iterable[str], kind: TimerKind | None = "escalate") -> None:
    """Delete timers of incidents: those of one kind, or all (None)."""
    query = delete(timers).where(timers.c.subject_id.in_(list(incident_ids)))
    kinds = ("escalate", "failover", "remind", "dependency_release") if kind is None else (kind,)
    conn.execute(query.where(timers.c.kind.in_(kinds)))


def due_timers(
    conn: Connection,
    now: EpochMs,
    limit: int,
    *,
    kind: TimerKind | None,
    without: Collection[str] = (),
    only: str | None = None,
    lock: bool,
) -> list[str]:
    """Subjects whose timer of this kind, or of any (None), is due, longest due first. Index: ix_timers_due."""
    query = select(timers.c.subject_id).where(timers.c.due_at <= now)
    if kind is not None:
        query = query.where(timers.c.kind == kind)
    if without:
        query = query.where(timers.c.subject_id.not_in(list(without)))
    if only is not None:
        query = query.where(timers.c.subject_id == only)
    query = query.order_by(timers.c.due_at).limit(limit)
    return list(conn.scalars(query.with_for_update(skip_locked=True) if lock else query))


def set_timers_back(conn: Connection, kinds: Collection[TimerKind], by_ms: int, now: EpochMs) -> None:
    """Timers of these kinds that are not due are due so much earlier. Index: ix_timers_due."""
    to_come = update(timers).where(timers.c.due_at > now, timers.c.kind.in_(kinds))
    conn.execute(to_come.values(due_at=timers.c.due_at - by_ms))


_DUE_KINDS = select(timers.c.kind).where(timers.c.due_at <= bindparam("now")).distinct()
_NEXT_TIMER = select(func.min(timers.c.due_at))


def due_kinds(conn: Connection, now: EpochMs) -> set[TimerKind]:
    """Of which kinds a timer is due. Index: ix_timers_due."""
    return set(conn.scalars(_DUE_KINDS, {"now": now}))


def next_timer(conn: Connection) -> EpochMs | None:
    """When the next timer is due. Index: ix_timers_due."""
    due: EpochMs | None = conn.scalar(_NEXT_TIMER)
    return due
