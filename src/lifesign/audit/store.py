"""SQL of the table `audit_log`."""

from sqlalchemy import Connection, delete, insert, select

from lifesign.audit.rules import Actor, Line, Via
from lifesign.clock import EpochMs
from lifesign.db.schema import audit_log

A = audit_log.c


def append(conn: Connection, actor: Actor, *, via: Via, method: str, path: str, at: EpochMs) -> None:
    """One more line."""
    row = {"project_id": actor.project_id, "actor_id": actor.id, "actor": actor.name, "via": via}
    conn.execute(insert(audit_log).values(**row, method=method, path=path, at=at))


def lines_of(
    conn: Connection, project_id: str, *, limit: int, before: int | None, actor: str | None, via: Via | None
) -> list[Line]:
    """The lines of a project, newest first. Index: ix_audit_log_project."""
    query = select(A.seq, A.at, A.actor, A.via, A.method, A.path).where(A.project_id == project_id)
    if before is not None:
        query = query.where(A.seq < before)
    if actor is not None:
        query = query.where(A.actor == actor)
    if via is not None:
        query = query.where(A.via == via)
    return [Line(*row) for row in conn.execute(query.order_by(A.seq.desc()).limit(limit))]


def actors_of(conn: Connection, project_id: str, limit: int) -> list[str]:
    """Everybody who has a line in a project. Index: ix_audit_log_actor."""
    query = select(A.actor).where(A.project_id == project_id).distinct().order_by(A.actor).limit(limit)
    return list(conn.scalars(query))


def delete_old(conn: Connection, before: EpochMs, limit: int) -> int:
    """Forget lines that are too old; how many. Index: ix_audit_log_at."""
    seqs = list(conn.scalars(select(A.seq).where(A.at < before).order_by(A.at).limit(limit)))
    if seqs:
        conn.execute(delete(audit_log).where(A.seq.in_(seqs)))
    return len(seqs)
