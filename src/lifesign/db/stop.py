"""Ending a long read whose caller has left, whatever it is doing."""

import contextlib
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Final

from sqlalchemy import Connection, text

_OPCODES: Final = 500_000
"""So many steps of SQLite's machine, some milliseconds, between two looks."""
_AGAIN_S: Final = 0.1


class Stopped(Exception):
    """Nobody waits for the answer any more."""


class Stop:
    """Whether to stop. Asked between pieces of work; a statement at work is ended from outside."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._lock = threading.Lock()
        self._driver: Any = None  # Any: psycopg's own connection, of which the interface of all drivers knows less

    def look(self) -> None:
        """Raises Stopped when nobody waits any more."""
        if self._asked.is_set():
            raise Stopped

    def now(self, working: "Future[Any] | None" = None) -> None:
        """Have the run that asks this end soon. Does not wait for it. working: it, when it is in PostgreSQL."""
        self._asked.set()
        if working is not None and self._driver is not None and not working.done():
            threading.Thread(target=self._cancel, args=(working,), name="lifesign-stop", daemon=True).start()

    def _cancel(self, working: "Future[Any]") -> None:
        # Between two statements there is none to cancel, and the next one begins: so again, until it is over.
        over = threading.Event()
        working.add_done_callback(lambda _: over.set())
        while not over.is_set():
            with self._lock, contextlib.suppress(Exception):
                if self._driver is not None:
                    self._driver.cancel_safe(timeout=1)
            over.wait(_AGAIN_S)

    @contextmanager
    def guarding(self, conn: Connection, limit_s: float) -> Iterator[None]:
        """Statements on this connection end when it is asked to; those on PostgreSQL after so long anyway.

        The connection is as good as before afterwards.
        """
        driver: Any = conn.connection.driver_connection
        if conn.dialect.name == "sqlite":
            driver.set_progress_handler(self._asked.is_set, _OPCODES)
            try:
                yield
            finally:
                driver.set_progress_handler(None, 0)
            return
        # Until the transaction ends. Between its statements it may have much to think about.
        for name in ("statement_timeout", "idle_in_transaction_session_timeout"):
            conn.execute(text("SELECT set_config(:name, :limit, true)"), {"name": name, "limit": f"{limit_s:.0f}s"})
        self._driver = driver
        try:
            yield
        finally:
            # Whoever has the connection next is not meant.
            with self._lock:
                self._driver = None
