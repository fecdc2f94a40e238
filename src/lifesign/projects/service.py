"""Finding and making projects."""

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.ids import new_id
from lifesign.projects import store
from lifesign.projects.rules import DEFAULT_PROJECT, ProjectNotFound

names = store.project_names


def ensure_default(conn: Connection, now: EpochMs) -> tuple[str, bool]:
    """The id of the default project, and whether it was made just now: the first start."""
    found = store.project_id(conn, DEFAULT_PROJECT)
    if found is not None:
        return found, False
    made = new_id("prj", now)
    store.insert_project(conn, made, DEFAULT_PROJECT, now)
    return made, True


def id_of(conn: Connection, name: str) -> str:
    """The id of the project named `name`. Raises ProjectNotFound."""
    found = store.project_id(conn, name)
    if found is None:
        raise ProjectNotFound(name)
    return found
