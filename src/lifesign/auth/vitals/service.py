"""Who is calling the Vitals API, and the life of its keys."""

from dataclasses import dataclass

from sqlalchemy import Connection
from starlette.requests import Request

from lifesign.auth.vitals import rules, store
from lifesign.auth.vitals.rules import ApiKeyInvalid, KeyLimitReached, VitalsKeyNotFound, Wish
from lifesign.auth.vitals.store import VitalsKey as VitalsKey  # noqa: PLC0414 - what is answered here has this type
from lifesign.clock import Clock, EpochMs
from lifesign.db import Database
from lifesign.http.context import header_of

HEADER = b"x-api-key"
CALLER_ID = "vitals_key_id"
"""Under which name `request.state` has the id of the key that was recognized: the log of requests counts by it."""
_MAX_CACHED = 10_000
# Other nodes cannot tell this one that a key was changed, so what it remembers is good for a second only.
_SHARED_CACHE_MS = 1000

list_all = store.list_keys
count_keys = store.count_keys
ids_by_hash = store.ids_by_hash
add_uses = store.add_uses


# Who is calling -----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class VitalsCaller:
    """Whoever shows a good key. key_hash: proof that it is still the same key when something is changed later."""

    key_id: int
    project_id: str
    key_hash: str


@dataclass(frozen=True, slots=True)
class _Cached:
    caller: VitalsCaller
    read_at: EpochMs


class VitalsKeyring:
    """Knows callers by their key, from memory where it can."""

    def __init__(self, db: Database, clock: Clock) -> None:
        self._db = db
        self._clock = clock
        self._cached: dict[str, _Cached] = {}
        self._generation = 0

    async def caller(self, header: bytes | None) -> VitalsCaller:
        """The caller that an `X-API-Key` header names. Raises ApiKeyMissing, ApiKeyInvalid, StorageUnavailable."""
        key_hash = rules.key_hash(rules.key_in(header))
        known = self._cached.get(key_hash)
        if known is None or not (self._db.is_sqlite or 0 <= self._clock.now() - known.read_at < _SHARED_CACHE_MS):
            known = await self._read(key_hash)
        return known.caller

    async def _read(self, key_hash: str) -> _Cached:
        generation, now = self._generation, self._clock.now()
        key = await self._db.read(store.key_by_hash, key_hash)
        if key is None:
            self._cached.pop(key_hash, None)
            raise ApiKeyInvalid
        cached = _Cached(VitalsCaller(key.id, key.project_id, key_hash), now)
        # A key that was changed while it was being read must not be remembered.
        if generation == self._generation:
            if len(self._cached) >= _MAX_CACHED:
                # The one that came first: as good as any, as each is one read away.
                self._cached.pop(next(iter(self._cached)))
            self._cached[key_hash] = cached
        return cached

    def forget(self) -> None:
        """Keys were replaced or revoked: ask the database again for every one."""
        self._generation += 1
        self._cached.clear()


async def vitals_caller(request: Request) -> VitalsCaller:
    """The caller of a route of the Vitals API. Raises ApiKeyMissing, ApiKeyInvalid, which are 401 with its texts.

    The one way for every route of this API that needs a key: the request then counts as a use of the key. There is no
    scope, no quota and no limit of requests: a good key may ask for everything.
    """
    keyring: VitalsKeyring = request.app.state.vitals_keyring
    caller = await keyring.caller(header_of(request, HEADER))
    request.scope["state"][CALLER_ID] = caller.key_id
    return caller


# The life of keys ---------------------------------------------------------------------------------------------------
def take(conn: Connection, wish: Wish, *, project_id: str, now: EpochMs) -> tuple[VitalsKey, str]:
    """A new key, and itself, which is shown once. Raises KeyLimitReached.

    Two who ask for one place at once are told apart by the unique index: the second waits for the first, and goes
    on to the next place if there is one.
    """
    identity = rules.email_identity(wish.email)
    allowed = store.allowance(conn, identity)
    limit = rules.KEYS_PER_EMAIL if allowed is None else allowed
    made = rules.new_key()
    for slot in rules.free_slots(store.taken_slots(conn, identity), limit):
        key = store.insert_key(
            conn,
            wish,
            identity=identity,
            slot=slot,
            key_hash=rules.key_hash(made),
            prefix=rules.shown_prefix(made),
            project_id=project_id,
            now=now,
        )
        if key is not None:
            return key, made
    raise KeyLimitReached(limit)


def is_active(conn: Connection, key_id: int) -> bool:
    """Whether a key still counts."""
    return store.key_by_id(conn, key_id) is not None


def own_key(conn: Connection, caller: VitalsCaller) -> VitalsKey:
    """The key that is calling. Raises ApiKeyInvalid when it was replaced or revoked meanwhile."""
    key = store.key_by_hash(conn, caller.key_hash)
    if key is None:
        raise ApiKeyInvalid
    return key


def rotate(conn: Connection, caller: VitalsCaller) -> tuple[VitalsKey, str]:
    """The same key with another secret, and that. The caller of this tells its keyring to `forget`.

    Raises ApiKeyInvalid when the key was replaced or revoked meanwhile.
    """
    made = rules.new_key()
    key_hash, prefix = rules.key_hash(made), rules.shown_prefix(made)
    if not store.replace_key(conn, caller.key_id, caller.key_hash, key_hash=key_hash, prefix=prefix):
        raise ApiKeyInvalid
    key = store.key_by_hash(conn, key_hash)
    if key is None:
        raise ApiKeyInvalid
    return key, made


def revoke_own(conn: Connection, caller: VitalsCaller, now: EpochMs) -> None:
    """Take the calling key back. The caller of this tells its keyring to `forget`. Raises ApiKeyInvalid."""
    if not store.revoke_key(conn, caller.key_id, caller.key_hash, now):
        raise ApiKeyInvalid


def revoke(conn: Connection, key_id: int, now: EpochMs) -> None:
    """Take any key back. The caller of this tells its keyring to `forget`. Raises VitalsKeyNotFound."""
    if not store.revoke_key(conn, key_id, None, now):
        raise VitalsKeyNotFound


def allow(conn: Connection, email: str, keys: int) -> None:
    """Let an address have so many keys in its life."""
    store.set_allowance(conn, rules.email_identity(email), keys)
