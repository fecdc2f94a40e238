"""SQL of the table `projects`."""

from sqlalchemy import Connection, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import projects


def project_id(conn: Connection, name: str) -> str | None:
    """The id of the project named `name`."""
    return conn.scalar(select(projects.c.id).where(projects.c.name == name))


def project_names(conn: Connection, ids: set[str]) -> dict[str, str]:
    """The names of several projects, by id."""
    rows = conn.execute(select(projects.c.id, projects.c.name).where(projects.c.id.in_(ids)))
    return {row.id: row.name for row in rows}


def lock_project(conn: Connection, project_id: str) -> None:
    """Nobody else gets past here with this project until the transaction ends."""
    conn.execute(select(projects.c.id).where(projects.c.id == project_id).with_for_update(key_share=True))


def insert_project(conn: Connection, project_id: str, name: str, now: EpochMs) -> None:
    """A new project."""
    conn.execute(projects.insert().values(id=project_id, name=name, created_at=now))


def mark_started(conn: Connection, project_id: str, now: EpochMs) -> bool:
    """Note the first start of a server on a project; False when it was noted before."""
    unmarked = update(projects).where(projects.c.id == project_id, projects.c.started_at.is_(None))
    return conn.execute(unmarked.values(started_at=now)).rowcount == 1


def fallback_channels(conn: Connection, project_ids: set[str]) -> dict[str, str]:
    """The fallback channels of several projects, by project id; those without one are left out."""
    query = select(projects.c.id, projects.c.fallback_channel_id).where(
        projects.c.id.in_(project_ids), projects.c.fallback_channel_id.is_not(None)
    )
    return {row.id: row.fallback_channel_id for row in conn.execute(query)}


def set_fallback_channel(conn: Connection, project_id: str, channel_id: str | None) -> None:
    """Set or clear the fallback channel of a project."""
    conn.execute(update(projects).where(projects.c.id == project_id).values(fallback_channel_id=channel_id))
