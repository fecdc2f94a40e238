"""Which machine is calling: from memory where it can, from the database where it must."""

import structlog

from lifesign.db import Database
from lifesign.systems import rules, store
from lifesign.systems.rules import INVALID_CREDENTIALS, NOBODYS_HASH, Credentials, NotAuthenticated
from lifesign.systems.store import Known

log = structlog.get_logger("lifesign.systems")

_MAX_CACHED = 20_000
_MAX_LOGGED = 64


class Machines:
    """Recognizes machines by what they send. What it remembers is a shortcut: every write looks again."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._cached: dict[str, Known] = {}

    async def recognized(self, header: bytes | None) -> Known:
        """The machine that an `Authorization` header names. Raises NotAuthenticated."""
        username = ""
        try:
            credentials = rules.basic_credentials(header)
            username = credentials.username
            return await self._recognized(credentials)
        except NotAuthenticated as error:
            log.info("system.refused", username=username[:_MAX_LOGGED], reason=str(error))
            raise

    async def _recognized(self, credentials: Credentials) -> Known:
        remembered = None if credentials.ref is None else self._cached.get(credentials.ref)
        if remembered is not None and rules.is_secret(credentials.secret, remembered.secret_hash):
            return remembered
        # Unknown, or its secret is another now: only the database can tell, and it is asked for everybody alike.
        found = await self._db.read(store.known, credentials.ref or "")
        wanted = NOBODYS_HASH if found is None else found.secret_hash
        is_right = rules.is_secret(credentials.secret, wanted)
        if found is None or credentials.ref is None or not is_right:
            if credentials.ref is not None and found is None:
                self._cached.pop(credentials.ref, None)
            raise NotAuthenticated(INVALID_CREDENTIALS)
        self._remember(credentials.ref, found)
        return found

    def _remember(self, ref: str, known: Known) -> None:
        if len(self._cached) >= _MAX_CACHED:
            # The one that came first: which is as good as any, as each is one read away.
            self._cached.pop(next(iter(self._cached)))
        self._cached[ref] = known

    def forget(self, header: bytes | None) -> None:
        """What was remembered for this header is not so any more."""
        ref = rules.basic_credentials(header).ref
        if ref is not None:
            self._cached.pop(ref, None)
