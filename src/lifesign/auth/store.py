"""SQL of the table `api_keys`; the name of a project is read besides."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, func, or_, select, update

from lifesign.auth.rules import Kind
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
    kind: Kind | None = None
    plan: str | None = None
    revoked_at: EpochMs | None = None


_COLUMNS = (
    api_keys.c.id,
    api_keys.c.project_id,
    api_keys.c.name,
    api_keys.c.prefix,
    api_keys.c.scopes,
    api_keys.c.created_at,
    api_keys.c.expires_at,
    api_keys.c.last_used_at,
    api_keys.c.kind,
    api_keys.c.plan,
    api_keys.c.revoked_at,
)
_FIELDS = tuple(column.name for column in _COLUMNS)
_IS_ACTIVE = api_keys.c.revoked_at.is_(None)


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
            kind=key.kind,
            plan=key.plan,
            revoked_at=key.revoked_at,
        )
    )


def key_by_id(conn: Connection, project_id: str, key_id: str) -> Key | None:
    """One key of a project that is not revoked."""
    query = select(*_COLUMNS).where(api_keys.c.id == key_id, api_keys.c.project_id == project_id, _IS_ACTIVE)
    row = conn.execute(query).first()
    return None if row is None else _key(row)


def project_name(conn: Connection, project_id: str) -> str:
    """What people call the project of a key."""
    name = func.coalesce(projects.c.title, projects.c.name)
    return conn.scalar(select(name).where(projects.c.id == project_id)) or ""


def key_by_hash(conn: Connection, token_hash: bytes) -> Key | None:
    """The key whose token has this hash, revoked or not."""
    row = conn.execute(select(*_COLUMNS).where(api_keys.c.hash == token_hash)).first()
    return None if row is None else _key(row)


def keys_of(conn: Connection, project_id: str, *, limit: int, after: str | None) -> list[Key]:
    """Keys of a project that are not revoked, oldest first."""
    query = select(*_COLUMNS).where(api_keys.c.project_id == project_id, _IS_ACTIVE)
    if after is not None:
        query = query.where(api_keys.c.id > after)
    return [_key(row) for row in conn.execute(query.order_by(api_keys.c.id).limit(limit))]


def revoke_key(conn: Connection, project_id: str, key_id: str, now: EpochMs) -> bool:
    """Take a key back; False when the project has none with this id."""
    is_it = (api_keys.c.id == key_id) & (api_keys.c.project_id == project_id) & _IS_ACTIVE
    return conn.execute(update(api_keys).where(is_it).values(_revoked(now))).rowcount > 0


def revoke_keys(conn: Connection, project_ids: Sequence[str], now: EpochMs) -> None:
    """Take back every key of several projects. Index: ix_api_keys_project."""
    are_theirs = api_keys.c.project_id.in_(project_ids) & _IS_ACTIVE
    conn.execute(update(api_keys).where(are_theirs).values(_revoked(now)))


def _revoked(now: EpochMs) -> dict[str, EpochMs]:
    # Expired as well: nodes of the version before, which may still serve, know nothing of the other column.
    return {"revoked_at": now, "expires_at": now}


def set_life(conn: Connection, project_id: str, plan: str | None, expires_at: EpochMs | None) -> int:
    """Set plan and expiry of the active keys that a project was made with; how many there are."""
    are_own = (api_keys.c.project_id == project_id) & api_keys.c.kind.is_not(None) & _IS_ACTIVE
    return conn.execute(update(api_keys).where(are_own).values(plan=plan, expires_at=expires_at)).rowcount


def delete_bootstrap_keys(conn: Connection, token_hash: bytes) -> None:
    """Remove the admin keys made at a start, and any key with this hash."""
    conn.execute(delete(api_keys).where(or_(api_keys.c.is_bootstrap == 1, api_keys.c.hash == token_hash)))


def save_last_used(conn: Connection, used: Mapping[str, EpochMs]) -> None:
    """Remember when keys were last used."""
    statement = update(api_keys).where(api_keys.c.id == bindparam("key_id")).values(last_used_at=bindparam("used_at"))
    conn.execute(statement, [{"key_id": key_id, "used_at": at} for key_id, at in used.items()])


def _key(row: Sequence[Any]) -> Key:  # Any: a row of a table whose columns mypy does not know
    values = dict(zip(_FIELDS, row, strict=True))
    return Key(**(values | {"scopes": tuple(orjson.loads(values["scopes"]))}))
