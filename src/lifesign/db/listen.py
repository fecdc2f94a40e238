"""Hints between nodes: what one node's commit made due wakes the loops of the others (PostgreSQL's NOTIFY).

Nothing depends on them: a node that cannot listen finds the same work at its next idle poll, a second later at most.
"""

import asyncio
import contextlib
import secrets
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

import structlog
from sqlalchemy import Connection, Engine, text

from lifesign.db.wakeups import LOOPS, Loop

if TYPE_CHECKING:
    import psycopg

log = structlog.get_logger("lifesign.db")

CHANNEL = "lifesign"
# What several commits ask for within this time wakes a loop once.
_GATHER_S = 0.02
_POLL_S = 0.5
_RETRY_S = 1.0


class Listener:
    """Sends this node's hints and hears those of the others, on a connection and in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._sender = secrets.token_hex(8)
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None

    def tell(self, conn: Connection, loops: set[Loop]) -> None:
        """Tell the other nodes, once the running transaction has committed."""
        payload = " ".join([self._sender, *sorted(loops)])
        conn.execute(text("SELECT pg_notify(:channel, :payload)"), {"channel": CHANNEL, "payload": payload})

    def start(self, wake: Callable[[set[Loop]], None]) -> None:
        """Call `wake`, on the running event loop, with what other nodes ask for."""
        loop = asyncio.get_running_loop()

        def pass_on(loops: set[Loop]) -> None:
            with contextlib.suppress(RuntimeError):  # the event loop is gone: nobody is left to wake
                loop.call_soon_threadsafe(wake, loops)

        self._thread = threading.Thread(
            target=self._listen_forever, args=(pass_on,), name="lifesign-listen", daemon=True
        )
        self._thread.start()

    async def stop(self) -> None:
        """Stop listening."""
        self._stopping.set()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    def _listen_forever(self, wake: Callable[[set[Loop]], None]) -> None:
        import psycopg  # noqa: PLC0415 - 9 MiB, for those who need it

        while not self._stopping.is_set():
            try:
                with self._connected() as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    # Whatever was told while nobody listened is found now.
                    wake(set(LOOPS))
                    self._hear(connection, wake)
            except psycopg.Error as error:
                log.info("database.not_listening", reason=str(error).strip())
                self._stopping.wait(_RETRY_S)

    def _connected(self) -> "psycopg.Connection[tuple[object, ...]]":
        """A connection outside the pool: it is kept for good."""
        import psycopg  # noqa: PLC0415 - as above

        arguments, options = self._engine.dialect.create_connect_args(self._engine.url)
        return psycopg.connect(*arguments, **options, autocommit=True, connect_timeout=5, application_name="lifesign")

    def _hear(self, connection: "psycopg.Connection[tuple[object, ...]]", wake: Callable[[set[Loop]], None]) -> None:
        while not self._stopping.is_set():
            heard = [each.payload for each in connection.notifies(timeout=_POLL_S, stop_after=1)]
            if heard:
                heard += [each.payload for each in connection.notifies(timeout=_GATHER_S)]
            loops = {word for payload in heard for word in self._of_others(payload)}
            if loops:
                wake(loops)

    def _of_others(self, payload: str) -> set[Loop]:
        sender, *words = payload.split()
        return set() if sender == self._sender else cast("set[Loop]", LOOPS & set(words))
