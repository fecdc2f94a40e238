"""Finding and making projects."""

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.ids import new_id
from lifesign.projects import store
from lifesign.projects.rules import DEFAULT_PROJECT, ProjectNotFound

names = store.project_names
lock = store.lock_project
fallback_channels = store.fallback_channels
set_fallback_channel = store.set_fallback_channel


def ensure_default(conn: Connection, now: EpochMs) -> str:
    """The id of the default project, which is made when missing."""
    found = store.project_id(conn, DEFAULT_PROJECT)
    if found is not None:
        return found
    made = new_id("prj", now)
    store.insert_project(conn, made, DEFAULT_PROJECT, now)
    return made


def is_first_start(conn: Connection, project_id: str, now: EpochMs) -> bool:
    """True once: for the first server that starts on this project."""
    return store.mark_started(conn, project_id, now)


def id_of(conn: Connection, name: str) -> str:
    """The id of the project named `name`. Raises ProjectNotFound."""
    found = store.project_id(conn, name)
    if found is None:
        raise ProjectNotFound(name)
    return found
