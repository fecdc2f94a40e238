"""Who is calling, and the life of keys."""

from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import Connection
from starlette.requests import Request

from lifesign.audit import service as audit
from lifesign.audit.rules import Actor
from lifesign.auth import rules, store
from lifesign.auth.rules import (
    ALL,
    PRODUCER_SCOPE,
    Caller,
    KeyExpired,
    KeyNotFound,
    KeyRevoked,
    KeyUnknown,
    Kind,
    MissingScope,
    Unauthorized,
    WrongKeyKind,
)
from lifesign.auth.store import Key
from lifesign.clock import Clock, EpochMs
from lifesign.db import Database, StorageUnavailable
from lifesign.http.context import header_of
from lifesign.ids import new_id

__all__ = ["Key"]

_MAX_CACHED = 10_000
# Other nodes cannot tell this one that they revoked a key, so what it remembers is good for a second only.
_SHARED_CACHE_MS = 1000
OPERATOR_ID = "operator"
OPERATOR = "lifesign.operator"
"""Key of the ASGI scope under which the operator's way in puts its Caller."""


@dataclass(frozen=True, slots=True)
class _Cached:
    caller: Caller
    expires_at: EpochMs | None
    read_at: EpochMs


class Keyring:
    """Knows callers by their token, from memory where it can; notes when keys are used."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._cached: dict[bytes, _Cached] = {}
        self._generation = 0
        self._used: dict[str, EpochMs] = {}

    async def caller(self, authorization: bytes | None, *, is_fresh: bool = False) -> Caller:
        """The caller that an `Authorization` header names. Raises Unauthorized.

        is_fresh: what another node revoked a moment ago is known already; costs a read where there are other nodes.
        """
        token = rules.bearer_token(authorization)
        token_hash = rules.token_hash(token)
        now = self._clock.now()
        known = self._remembered(token_hash, now, good_for_ms=0 if is_fresh else _SHARED_CACHE_MS)
        if known is None:
            known = await self._read(token_hash, now)
        if known.expires_at is not None and rules.is_expired(known.expires_at, now):
            raise KeyExpired(known.expires_at)
        self._used[known.caller.key_id] = now
        return known.caller

    def known_caller(self, authorization: bytes | None) -> Caller | None:
        """The same where it can be told without asking the database and without refusing anybody; else None."""
        try:
            token_hash = rules.token_hash(rules.bearer_token(authorization))
        except Unauthorized:
            return None
        now = self._clock.now()
        known = self._remembered(token_hash, now, good_for_ms=_SHARED_CACHE_MS)
        if known is None or rules.is_expired(known.expires_at, now):
            return None
        self._used[known.caller.key_id] = now
        return known.caller

    def _remembered(self, token_hash: bytes, now: EpochMs, *, good_for_ms: int) -> _Cached | None:
        known = self._cached.get(token_hash)
        if known is None or not (self._db.is_sqlite or 0 <= now - known.read_at < good_for_ms):
            return None
        return known

    async def caller_by_id(self, project_id: str, key_id: str) -> Caller:
        """The caller whose key was shown before; asks the database every time. Raises KeyRevoked, KeyExpired."""
        key = await self._db.read(store.key_by_id, project_id, key_id)
        now = self._clock.now()
        if key is None:
            raise KeyRevoked
        if key.expires_at is not None and rules.is_expired(key.expires_at, now):
            raise KeyExpired(key.expires_at)
        self._used[key.id] = now
        return _caller(key)

    async def _read(self, token_hash: bytes, now: EpochMs) -> _Cached:
        generation = self._generation
        key = await self._db.read(store.key_by_hash, token_hash)
        if key is None or key.revoked_at is not None:
            self._cached.pop(token_hash, None)
            raise KeyUnknown if key is None else KeyRevoked
        cached = _Cached(_caller(key), key.expires_at, now)
        # A key revoked while it was being read must not be remembered.
        if generation == self._generation:
            if len(self._cached) >= _MAX_CACHED:
                self._cached.clear()
            self._cached[token_hash] = cached
        return cached

    def forget(self) -> None:
        """Keys were revoked, or live longer now: ask the database again for every one."""
        self._generation += 1
        self._cached.clear()

    def last_used(self, key: Key) -> EpochMs | None:
        """When `key` was last used, as far as this node knows."""
        return max(filter(None, (key.last_used_at, self._used.get(key.id))), default=None)

    async def save_last_used(self) -> None:
        """Write down when keys were used since the last call."""
        used, self._used = self._used, {}
        if not used:
            return
        try:
            await self._db.write(store.save_last_used, used)
        except StorageUnavailable:
            self._used = used | self._used
            raise


def _caller(key: Key) -> Caller:
    return Caller(key.id, key.name, key.project_id, frozenset(key.scopes), key.kind, key.prefix)


async def caller_of(request: Request, scope: str) -> Caller:
    """The caller of `request`, who must hold `scope`. Raises Unauthorized, MissingScope."""
    caller = await any_caller_of(request)
    if not caller.allows(scope):
        raise MissingScope([scope])
    return caller


async def any_caller_of(request: Request) -> Caller:
    """The caller of `request`, whatever they may do. Raises Unauthorized."""
    operator: Caller | None = request.scope.get(OPERATOR)
    if operator is not None:
        return noted(operator)
    keyring: Keyring = request.app.state.keyring
    return noted(await keyring.caller(header_of(request, b"authorization")))


def noted(caller: Caller) -> Caller:
    """The caller, of whom the audit log is to know that it is they who ask."""
    if caller.key_id == OPERATOR_ID:
        audit.name(Actor(caller.project_id, OPERATOR_ID, OPERATOR_ID), "cli")
    else:
        audit.name(Actor(caller.project_id, caller.key_id, f"key:{caller.key_name} ({caller.key_prefix})"))
    return caller


async def telemetry_caller(request: Request, scope: str) -> Caller:
    """The caller of a route of the Telemetry API, who must hold `scope`.

    Raises KeyMissing, KeyUnknown, KeyRevoked, KeyExpired, WrongKeyKind, looked for in this order. What was revoked, on
    whatever node, is refused from the next request on.
    """
    operator: Caller | None = request.scope.get(OPERATOR)
    if operator is not None:
        return noted(operator)
    keyring: Keyring = request.app.state.keyring
    caller = await keyring.caller(header_of(request, b"authorization"), is_fresh=True)
    if not caller.allows(scope):
        raise WrongKeyKind("producer" if scope == PRODUCER_SCOPE else "agent")
    return noted(caller)


@dataclass(frozen=True, slots=True)
class Own:
    """Who is calling, as they may know it. key: None for the operator, who needs none."""

    caller: Caller
    project: str
    key: Key | None


def own_key(conn: Connection, caller: Caller) -> Own:
    """What there is to know of the caller. Raises KeyRevoked when that happened meanwhile."""
    project = store.project_name(conn, caller.project_id)
    if caller.key_id == OPERATOR_ID:
        return Own(caller, project, None)
    key = store.key_by_id(conn, caller.project_id, caller.key_id)
    if key is None:
        raise KeyRevoked
    return Own(caller, project, key)


def operator(project_id: str) -> Caller:
    """The person who owns the data directory: every scope, no key."""
    return Caller(OPERATOR_ID, "operator", project_id, frozenset({ALL}))


def create_key(
    conn: Connection,
    creator: Caller,
    *,
    name: str,
    scopes: Iterable[str] | None,
    expires_at: EpochMs | None,
    now: EpochMs,
) -> tuple[Key, str]:
    """A new key and its token, which is shown once. Raises MissingScope for scopes the creator does not hold."""
    wanted = sorted(set(creator.scopes if scopes is None else scopes))
    missing = rules.not_covered(creator.scopes, wanted)
    if missing:
        raise MissingScope(missing)
    token = rules.new_token()
    key = Key(
        new_id("key", now), creator.project_id, name, rules.shown_prefix(token), tuple(wanted), now, expires_at, None
    )
    store.insert_key(conn, key, rules.token_hash(token))
    return key, token


def revoke_key(conn: Connection, project_id: str, key_id: str, now: EpochMs) -> None:
    """Take a key back; the caller of this tells its Keyring to `forget`. Raises KeyNotFound."""
    if not store.revoke_key(conn, project_id, key_id, now):
        raise KeyNotFound


def get_key(conn: Connection, project_id: str, key_id: str) -> Key:
    """One key that counts. Raises KeyNotFound."""
    found = store.key_by_id(conn, project_id, key_id)
    if found is None:
        raise KeyNotFound
    return found


def is_active(conn: Connection, project_id: str, key_id: str, now: EpochMs) -> bool:
    """Whether a key, or what stands for one on the command line, still counts."""
    if key_id == OPERATOR_ID:
        return True
    found = store.key_by_id(conn, project_id, key_id)
    return found is not None and not rules.is_expired(found.expires_at, now)


list_keys = store.keys_of
revoke_keys = store.revoke_keys
set_life = store.set_life


# Keys of self-service projects --------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class KeyPair:
    """The tokens a project is used with, which are shown once."""

    producer: str
    agent: str


def create_pair(
    conn: Connection, project_id: str, *, plan: str | None, expires_at: EpochMs | None, now: EpochMs
) -> KeyPair:
    """A new producer key and a new agent key."""
    return KeyPair(
        producer=_create_of("producer", conn, project_id, plan=plan, expires_at=expires_at, now=now),
        agent=_create_of("agent", conn, project_id, plan=plan, expires_at=expires_at, now=now),
    )


def _create_of(
    kind: Kind, conn: Connection, project_id: str, *, plan: str | None, expires_at: EpochMs | None, now: EpochMs
) -> str:
    token = rules.new_token_of(kind)
    key = Key(
        id=new_id("key", now),
        project_id=project_id,
        name=kind,
        prefix=rules.shown_prefix(token),
        scopes=rules.KIND_SCOPES[kind],
        created_at=now,
        expires_at=expires_at,
        last_used_at=None,
        kind=kind,
        plan=plan,
    )
    store.insert_key(conn, key, rules.token_hash(token))
    return token


def bootstrap(
    conn: Connection, project_id: str, chosen: str | None, *, is_first_start: bool, now: EpochMs
) -> str | None:
    """See to it that the operator has an admin key; return a token that was made here and must be shown once.

    chosen: `LIFESIGN_ADMIN_KEY`. It replaces the admin key of an earlier start, whatever that was. Without it only the
    first start makes a key: one that was revoked on purpose must not come back with the next restart.
    """
    if chosen is None:
        if not is_first_start:
            return None
        token = rules.new_token()
        _insert_admin(conn, project_id, token, rules.shown_prefix(token), now)
        return token
    token_hash = rules.token_hash(chosen)
    found = store.key_by_hash(conn, token_hash)
    if found is None or found.revoked_at is not None:
        store.delete_bootstrap_keys(conn, token_hash)
        _insert_admin(conn, project_id, chosen, rules.shown_prefix(chosen, chosen=True), now)
    return None


def _insert_admin(conn: Connection, project_id: str, token: str, prefix: str, now: EpochMs) -> None:
    key = Key(new_id("key", now), project_id, "admin", prefix, (ALL,), now, None, None)
    store.insert_key(conn, key, rules.token_hash(token), is_bootstrap=True)
