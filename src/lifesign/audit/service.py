"""Writing down who does what: the line of a request is part of the transaction in which it first writes."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sqlalchemy import Connection

from lifesign.audit import rules, store
from lifesign.audit.rules import Actor, Via
from lifesign.clock import EpochMs
from lifesign.db.database import beside_writes

lines_of = store.lines_of
actors_of = store.actors_of


class _Deed:
    """One request that may write. Its line is there once, and only if something was committed."""

    def __init__(self, method: str, path: str, via: Via, at: EpochMs) -> None:
        self._method, self._path, self._at = method, path, at
        self.via = via
        self.actor: Actor | None = None
        self._is_done = False

    def write(self, conn: Connection) -> None:
        if self.actor is not None and not self._is_done:
            path = self._path[: rules.MAX_PATH]
            store.append(conn, self.actor, via=self.via, method=self._method, path=path, at=self._at)

    def committed(self) -> None:
        self._is_done = self._is_done or self.actor is not None

    def end(self) -> None:
        """The request is answered. What it began and left behind writes for itself, in a context that it inherited."""
        self._is_done = True


_deed: ContextVar[_Deed | None] = ContextVar("deed", default=None)


@contextmanager
def watching(method: str, path: str, *, via: Via, now: EpochMs) -> Iterator[None]:
    """While a request is served: whoever is found to ask has a line with its first write."""
    if not rules.is_written_down(method, path):
        yield
        return
    deed = _Deed(method, path, via, now)
    kept, written = _deed.set(deed), beside_writes.set(deed)
    try:
        yield
    finally:
        deed.end()
        beside_writes.reset(written)
        _deed.reset(kept)


def name(actor: Actor, via: Via | None = None) -> None:
    """It is this one who asks. via: when that is known better than by the request itself."""
    deed = _deed.get()
    if deed is not None:
        deed.actor = actor
        deed.via = via or deed.via


def write_down(conn: Connection, actor: Actor, *, via: Via, method: str, path: str, now: EpochMs) -> None:
    """A line for a request that is not watched, in the transaction of what it does."""
    store.append(conn, actor, via=via, method=method, path=path, at=now)


@contextmanager
def unnoted() -> Iterator[None]:
    """What is written meanwhile is bookkeeping, and may be followed by a refusal: it leaves no line."""
    written = beside_writes.set(None)
    try:
        yield
    finally:
        beside_writes.reset(written)


def forget(conn: Connection, now: EpochMs, limit: int) -> int:
    """Delete lines that are older than a year; how many."""
    return store.delete_old(conn, EpochMs(now - rules.KEPT_MS), limit)
