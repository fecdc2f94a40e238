"""Which machine is calling: from memory where it can, from the database where it must."""

import hashlib

import structlog

from lifesign.db import Database
from lifesign.systems import rules, store
from lifesign.systems.rules import INVALID_CREDENTIALS, NOBODYS_HASH, NotAuthenticated
from lifesign.systems.store import Known

log = structlog.get_logger("lifesign.systems")

_MAX_CACHED = 20_000
_MAX_LOGGED = 64


class Machines:
    """Recognizes machines by what they send. What it remembers is a shortcut: every write looks again."""

    def __init__(self, db: Database) -> None:
        self._db = db
        # By the digest of the whole header: whoever sends the same once more has proved the same once more.
        self._cached: dict[bytes, Known] = {}

    async def recognized(self, header: bytes | None) -> Known:
        """The machine that an `Authorization` header names. Raises NotAuthenticated."""
        digest = _digest(header)
        found = self._cached.get(digest)
        if found is None:
            found = await self._looked_up(header)
            if len(self._cached) >= _MAX_CACHED:
                # The one that came first: as good as any, as each is one read away.
                self._cached.pop(next(iter(self._cached)))
            self._cached[digest] = found
        return found

    def remembered(self, header: bytes | None) -> Known | None:
        """The same, without asking the database and without refusing anybody."""
        return self._cached.get(_digest(header))

    async def _looked_up(self, header: bytes | None) -> Known:
        try:
            username, ref, secret = rules.basic_credentials(header)
        except NotAuthenticated as error:
            raise _refused("", str(error)) from None
        # Asked for everybody alike, so that nobody can tell by the time it takes who is known.
        found = await self._db.read_batched(store.known, ref or "")
        is_right = rules.is_secret(secret, NOBODYS_HASH if found is None else found.secret_hash)
        if found is None or not is_right:
            raise _refused(username, INVALID_CREDENTIALS)
        return found

    def forget(self, header: bytes | None) -> None:
        """What was remembered for this header is not so any more."""
        self._cached.pop(_digest(header), None)


def _refused(username: str, reason: str) -> NotAuthenticated:
    log.info("system.refused", username=username[:_MAX_LOGGED], reason=reason)
    return NotAuthenticated(reason)


def _digest(header: bytes | None) -> bytes:
    return hashlib.sha256(header or b"").digest()
