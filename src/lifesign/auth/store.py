"""SQL of the table `api_keys`; the name of a project is read besides."""

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, bindparam, delete, select, update

from lifesign.clock import EpochMs
from lifesign.db.schema import api_keys, projects


@dataclass(frozen=True, slots=True)
class Key:
    """A key as stored: without its token."""

    id: str
    project_id: str
    name: str
    prefix: str
    scopes: tuple[str, ...]
    created_at: EpochMs
    expires_at: EpochMs | None
    last_used_at: EpochMs | None


_COLUMNS = (
    api_keys.c.id,
    api_keys.c.project_id,
    api_keys.c.name,
    api_keys.c.prefix,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.last_used_at,
)


def insert_key(conn: Connection, key: Key, token_hash: bytes, *, is_bootstrap: bool = False) -> None:
    """A new key."""
    conn.execute(
        api_keys.insert().values(
            id=key.id,
            project_id=key.project_id,
            name=key.name,
            hash=token_hash,
            prefix=key.prefix,
            scopes=orjson.dumps(key.scopes).decode(),
            is_bootstrap=int(is_bootstrap),
            created_at=key.created_at,
            expires_at=key.expires_at,
            last_used_at=key.last_used_at,
        )
    )


def key_by_id(conn: Connection, project_id: str, key_id: str) -> Key | None:
    """One key of a project."""
    query = select(*_COLUMNS).where(api_keys.c.id == key_id, api_keys.c.project_id == project_id)
    row = conn.execute(query).first()
    return None if row is None else _key(tuple(row))


def project_name(conn: Connection, project_id: str) -> str:
    """What people call the project of a key."""
    return conn.scalar(select(projects.c.name).where(projects.c.id == project_id)) or ""


def key_by_hash(conn: Connection, token_hash: bytes) -> Key | None:
    """The key whose token has this hash."""
    row = conn.execute(select(*_COLUMNS).where(api_keys.c.hash == token_hash)).first()
    return None if row is None else _key(tuple(row))


def keys_of(conn: Connection, project_id: str, *, limit: int, after: str | None) -> list[Key]:
    """Keys of a project, oldest first."""
    query = select(*_COLUMNS).where(api_keys.c.project_id == project_id)
    if after is not None:
        query = query.where(api_keys.c.id > after)
    return [_key(tuple(row)) for row in conn.execute(query.order_by(api_keys.c.id).limit(limit))]


def delete_key(conn: Connection, project_id: str, key_id: str) -> bool:
    """Remove a key; False when the project has none with this id."""
    return (
        conn.execute(delete(api_keys).where(api_keys.c.id == key_id, api_keys.c.project_id == project_id)).rowcount > 0
    )


def bootstrap_ids(conn: Connection) -> list[str]:
    """The admin keys made at a start."""
    return list(conn.scalars(select(api_keys.c.id).where(api_keys.c.is_bootstrap == 1)))


def delete_keys(conn: Connection, ids: list[str]) -> None:
    """Remove several keys."""
    conn.execute(delete(api_keys).where(api_keys.c.id.in_(ids)))


def save_last_used(conn: Connection, used: Mapping[str, EpochMs]) -> None:
    """Remember when keys were last used."""
    statement = update(api_keys).where(api_keys.c.id == bindparam("key_id")).values(last_used_at=bindparam("used_at"))
    conn.execute(statement, [{"key_id": key_id, "used_at": at} for key_id, at in used.items()])


# Any: SQLAlchemy types a row of nine columns only positionally.
def _key(row: tuple[object, ...]) -> Key:
    key_id, project_id, name, prefix, scopes, created_at, expires_at, last_used_at = row
    return Key(key_id, project_id, name, prefix, tuple(orjson.loads(scopes)), created_at, expires_at, last_used_at)  # type: ignore[arg-type]  # columns as declared in the schema
