"""SQL of the tables `projects`, `project_names` and `limited_calls`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, delete, func, or_, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import limited_calls, project_names, projects
from lifesign.db.sql import insert_if_new
from lifesign.projects.rules import Identity, Limiter

P = projects.c
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# Nodes agree on the time to some milliseconds; what lies further ahead was written before a clock was set back.
_AHEAD_MS = 60_000


@dataclass(frozen=True, slots=True)
class Project:
    """A project that is not deleted."""

    id: str
    tenant_id: str
    title: str
    """What people call it."""
    plan: str | None
    expires_at: EpochMs | None
    quota_spans: int
    created_at: EpochMs


_TITLE = func.coalesce(P.title, P.name).label("title")
_COLUMNS = (P.id, P.tenant_id, _TITLE, P.plan, P.expires_at, P.quota_spans, P.created_at)
_EXISTS = P.deleted_at.is_(None)


def _project(row: Sequence[Any] | None) -> Project | None:  # Any: a row of a table whose columns mypy does not know
    return None if row is None else Project(*row)


# Finding ------------------------------------------------------------------------------------------------------------
def project_id(conn: Connection, ref: str) -> str | None:
    """The id of the project that alone can be asked for so: by its id, or as `default`."""
    return conn.scalar(select(P.id).where(or_(P.id == ref, P.name == ref), _EXISTS))


def ids_of_title(conn: Connection, title: str, limit: int) -> list[str]:
    """Ids of the projects that people call so, oldest first."""
    query = select(P.id).where(P.title == title, _EXISTS)
    return list(conn.scalars(query.order_by(P.created_at, P.id).limit(limit)))


def project_names_of(conn: Connection, ids: set[str]) -> dict[str, str]:
    """What people call several projects, each on one line, by id."""
    rows = conn.execute(select(P.id, _TITLE).where(P.id.in_(ids)))
    return {row.id: _CONTROL.sub(" ", row.title) for row in rows}


def project(conn: Connection, project_id: str) -> Project | None:
    """The project with this id."""
    return _project(conn.execute(select(*_COLUMNS).where(P.id == project_id, _EXISTS)).first())


def locked_project(conn: Connection, project_id: str) -> Project | None:
    """The project with this id, which nobody else changes until the transaction ends."""
    query = select(*_COLUMNS).where(P.id == project_id, _EXISTS)
    return _project(conn.execute(query.with_for_update(key_share=True)).first())


def claimed_project(conn: Connection, tenant_id: str, identity: Identity) -> Project | None:
    """The project that has a name of a tenant."""
    n = project_names.c
    is_it = (n.tenant_id == tenant_id) & (n.operator_key == identity.operator_key) & (n.name_key == identity.name_key)
    query = select(*_COLUMNS).join(project_names, n.project_id == P.id)
    return _project(conn.execute(query.where(is_it, _EXISTS)).first())


def list_projects(conn: Connection, *, limit: int, after: str | None) -> list[Project]:
    """Projects of every tenant, in id order."""
    query = select(*_COLUMNS).where(_EXISTS)
    if after is not None:
        query = query.where(P.id > after)
    return [Project(*row) for row in conn.execute(query.order_by(P.id).limit(limit))]


def lock_project(conn: Connection, project_id: str) -> None:
    """Nobody else gets past here with this project until the transaction ends."""
    conn.execute(select(P.id).where(P.id == project_id).with_for_update(key_share=True))


# Saving -------------------------------------------------------------------------------------------------------------
def insert_project(conn: Connection, project_id: str, name: str, now: EpochMs) -> None:
    """A new project of the tenant `default`, without a quota."""
    conn.execute(projects.insert().values(id=project_id, name=name, created_at=now))


def insert_titled(conn: Connection, project: Project) -> bool:
    """A new project that is asked for by its id; False when another has this id."""
    row = {
        "id": project.id,
        "name": project.id,
        "tenant_id": project.tenant_id,
        "title": project.title,
        "plan": project.plan,
        "expires_at": project.expires_at,
        "quota_spans": project.quota_spans,
        "created_at": project.created_at,
    }
    return insert_if_new(conn, projects, row, unique=["id"])


def claim_name(conn: Connection, tenant_id: str, identity: Identity, project_id: str) -> bool:
    """Give a name of a tenant to a project; False when another has it."""
    row = {
        "tenant_id": tenant_id,
        "operator_key": identity.operator_key,
        "name_key": identity.name_key,
        "project_id": project_id,
    }
    return insert_if_new(conn, project_names, row, unique=["tenant_id", "operator_key", "name_key"])


def set_life(conn: Connection, project_id: str, plan: str | None, expires_at: EpochMs | None) -> None:
    """Set until when a project is there."""
    conn.execute(update(projects).where(P.id == project_id).values(plan=plan, expires_at=expires_at))


def mark_started(conn: Connection, project_id: str, now: EpochMs) -> bool:
    """Note the first start of a server on a project; False when it was noted before."""
    unmarked = update(projects).where(P.id == project_id, P.started_at.is_(None))
    return conn.execute(unmarked.values(started_at=now)).rowcount == 1


def fallback_channels(conn: Connection, project_ids: set[str]) -> dict[str, str]:
    """The fallback channels of several projects, by project id; those without one are left out."""
    query = select(P.id, P.fallback_channel_id).where(P.id.in_(project_ids), P.fallback_channel_id.is_not(None))
    return {row.id: row.fallback_channel_id for row in conn.execute(query)}


def set_fallback_channel(conn: Connection, project_id: str, channel_id: str | None) -> None:
    """Set or clear the fallback channel of a project."""
    conn.execute(update(projects).where(P.id == project_id).values(fallback_channel_id=channel_id))


# Ends ---------------------------------------------------------------------------------------------------------------
def expired_before(conn: Connection, before: EpochMs, limit: int) -> list[str]:
    """Projects that expired before an instant, longest ago first. Index: ix_projects_expires_at."""
    is_over = P.expires_at.is_not(None) & (P.expires_at <= before)
    return list(conn.scalars(select(P.id).where(is_over, _EXISTS).order_by(P.expires_at).limit(limit)))


def lock_expired(conn: Connection, project_ids: Sequence[str], before: EpochMs) -> list[str]:
    """Those of these projects that expired before an instant, and stay so until the transaction ends."""
    is_over = P.id.in_(project_ids) & P.expires_at.is_not(None) & (P.expires_at <= before)
    return list(conn.scalars(select(P.id).where(is_over, _EXISTS).order_by(P.id).with_for_update(key_share=True)))


def mark_deleted(conn: Connection, project_ids: Sequence[str], now: EpochMs) -> None:
    """Delete projects for everybody, and set their names free; what they had is still there."""
    conn.execute(delete(project_names).where(project_names.c.project_id.in_(project_ids)))
    conn.execute(update(projects).where(P.id.in_(project_ids), _EXISTS).values(deleted_at=now, expires_at=None))


def deleted_before(conn: Connection, before: EpochMs, limit: int) -> list[str]:
    """Projects that were deleted before an instant, longest ago first. Index: ix_projects_deleted_at."""
    is_deleted = P.deleted_at.is_not(None) & (P.deleted_at <= before)
    return list(conn.scalars(select(P.id).where(is_deleted).order_by(P.deleted_at).limit(limit)))


def delete_projects(conn: Connection, project_ids: Sequence[str]) -> None:
    """Forget deleted projects."""
    conn.execute(delete(projects).where(P.id.in_(project_ids), P.deleted_at.is_not(None)))


# Limits -------------------------------------------------------------------------------------------------------------
def nth_latest_call(
    conn: Connection, limiter: Limiter, n: int, *, network: str | None, since: EpochMs, now: EpochMs
) -> EpochMs | None:
    """When the `n`th latest call since `since` was, of a network or of all; None when there were fewer.

    Indexes: ix_limited_calls_network, ix_limited_calls_at.
    """
    c = limited_calls.c
    query = select(c.at).where(c.limiter == limiter, c.at > since, c.at <= now + _AHEAD_MS)
    if network is not None:
        query = query.where(c.network == network)
    at: EpochMs | None = conn.scalar(query.order_by(c.at.desc()).offset(n - 1).limit(1))
    return at


def insert_call(conn: Connection, limiter: Limiter, network: str, now: EpochMs) -> None:
    """A call that counts."""
    conn.execute(limited_calls.insert().values(limiter=limiter, network=network, at=now))


def delete_calls(conn: Connection, limiter: Limiter, before: EpochMs, limit: int) -> int:
    """Forget calls that count no longer; how many. Index: ix_limited_calls_at."""
    c = limited_calls.c
    old = select(c.seq).where(c.limiter == limiter, c.at <= before).order_by(c.at).limit(limit)
    seqs = list(conn.scalars(old))
    if seqs:
        conn.execute(delete(limited_calls).where(c.seq.in_(seqs)))
    return len(seqs)
