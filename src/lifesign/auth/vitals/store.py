"""SQL of the tables `vitals_keys` and `vitals_allowances`."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, bindparam, case, func, or_, select, update

from lifesign.auth.vitals.rules import UseCase, Wish
from lifesign.clock import EpochMs
from lifesign.db.schema import vitals_allowances, vitals_keys
from lifesign.db.sql import insert_if_new

K = vitals_keys.c
A = vitals_allowances.c


@dataclass(frozen=True, slots=True)
class VitalsKey:
    """A key as stored: without itself."""

    id: int
    project_id: str
    name: str
    email: str
    company: str | None
    use_case: UseCase | None
    prefix: str
    created_at: EpochMs
    last_used_at: EpochMs | None
    request_count: int
    revoked_at: EpochMs | None


_COLUMNS = (
    K.id,
    K.project_id,
    K.name,
    K.email,
    K.company,
    K.use_case,
    K.prefix,
    K.created_at,
    K.last_used_at,
    K.request_count,
    K.revoked_at,
)
_IS_ACTIVE = K.revoked_at.is_(None)


def _key(row: Sequence[Any] | None) -> VitalsKey | None:  # Any: a row of a table whose columns mypy does not know
    return None if row is None else VitalsKey(*row)


# Finding ------------------------------------------------------------------------------------------------------------
def key_by_hash(conn: Connection, key_hash: str) -> VitalsKey | None:
    """The active key with this hash. Index: uq_vitals_keys_hash."""
    return _key(conn.execute(select(*_COLUMNS).where(K.hash == key_hash, _IS_ACTIVE)).first())


def key_by_id(conn: Connection, key_id: int) -> VitalsKey | None:
    """The active key with this id."""
    return _key(conn.execute(select(*_COLUMNS).where(K.id == key_id, _IS_ACTIVE)).first())


def list_keys(conn: Connection, *, limit: int, after: int) -> list[VitalsKey]:
    """Keys, revoked ones too, in the order in which they were made."""
    query = select(*_COLUMNS).where(K.id > after).order_by(K.id).limit(limit)
    return [VitalsKey(*row) for row in conn.execute(query)]


def allowance(conn: Connection, identity: str) -> int | None:
    """How many keys the operator lets an address have."""
    return conn.scalar(select(A["keys"]).where(A.email_identity == identity))


def taken_slots(conn: Connection, identity: str) -> list[int]:
    """The places for keys that an address has used. Index: uq_vitals_keys_slot."""
    return list(conn.scalars(select(K.slot).where(K.email_identity == identity)))


def ids_by_hash(conn: Connection, hashes: Collection[str]) -> dict[str, int]:
    """The ids of those active keys that have one of these hashes. Index: uq_vitals_keys_hash."""
    if not hashes:
        return {}
    return {row.hash: row.id for row in conn.execute(select(K.hash, K.id).where(K.hash.in_(hashes), _IS_ACTIVE))}


def count_keys(conn: Connection, used_since: EpochMs) -> tuple[int, int]:
    """How many active keys there are, and how many of them were used since an instant: all keys are looked at."""
    is_used = case((K.last_used_at >= used_since, 1))
    total, used = conn.execute(select(func.count(), func.count(is_used)).where(_IS_ACTIVE)).one()
    return total, used


# Saving -------------------------------------------------------------------------------------------------------------
def insert_key(
    conn: Connection, wish: Wish, *, identity: str, slot: int, key_hash: str, prefix: str, project_id: str, now: EpochMs
) -> VitalsKey | None:
    """A new key in this place of an address; None when the place was taken meanwhile."""
    row = {
        "project_id": project_id,
        "name": wish.name,
        "email": wish.email,
        "email_identity": identity,
        "slot": slot,
        "company": wish.company,
        "use_case": wish.use_case,
        "hash": key_hash,
        "prefix": prefix,
        "created_at": now,
    }
    if not insert_if_new(conn, vitals_keys, row, unique=["email_identity", "slot"]):
        return None
    return key_by_hash(conn, key_hash)


def replace_key(conn: Connection, key_id: int, old_hash: str, *, key_hash: str, prefix: str) -> bool:
    """Give a key another secret; False when it has another one already, or is revoked."""
    is_it = (K.id == key_id) & (K.hash == old_hash) & _IS_ACTIVE
    return conn.execute(update(vitals_keys).where(is_it).values(hash=key_hash, prefix=prefix)).rowcount == 1


def revoke_key(conn: Connection, key_id: int, key_hash: str | None, now: EpochMs) -> bool:
    """Take a key back, of which somebody showed the hash, or (None) the operator said so; False when it is gone."""
    is_it = (K.id == key_id) & _IS_ACTIVE
    if key_hash is not None:
        is_it &= K.hash == key_hash
    return conn.execute(update(vitals_keys).where(is_it).values(revoked_at=now)).rowcount == 1


def set_allowance(conn: Connection, identity: str, keys: int) -> None:
    """Let an address have so many keys."""
    if not insert_if_new(
        conn, vitals_allowances, {"email_identity": identity, "keys": keys}, unique=["email_identity"]
    ):
        conn.execute(update(vitals_allowances).where(A.email_identity == identity).values({"keys": keys}))


_USED_AT = bindparam("used_at", type_=K.last_used_at.type)
_USED = (
    update(vitals_keys)
    .where(K.id == bindparam("key_id"))
    .values(
        request_count=K.request_count + bindparam("used"),
        last_used_at=case((or_(K.last_used_at.is_(None), K.last_used_at < _USED_AT), _USED_AT), else_=K.last_used_at),
    )
)


def add_uses(conn: Connection, uses: Mapping[int, tuple[int, EpochMs]]) -> None:
    """Of each key: how often it was used besides, and when last."""
    if not uses:
        return
    # In one order, so that two nodes never wait for each other.
    conn.execute(
        _USED, [{"key_id": key_id, "used": uses[key_id][0], "used_at": uses[key_id][1]} for key_id in sorted(uses)]
    )
