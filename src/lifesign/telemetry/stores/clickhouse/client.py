"""The one place that knows clickhouse-connect: calls in threads of its own, and its errors as ours.

The same client speaks to a server by HTTP and to chdb, the engine in this process. Its package is optional.
"""

import asyncio
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import structlog
from sqlalchemy import make_url

from lifesign.db.database import LENGTHY
from lifesign.db.stop import Stop
from lifesign.telemetry.store import StoreUnavailable
from lifesign.telemetry.stores.clickhouse.rows import INSERTED, REMEMBERED, sources_in
from lifesign.telemetry.stores.clickhouse.tables import (
    CREATE_SPANS,
    CREATE_TRACES,
    SPANS,
    TRACES,
    is_kept_for,
    keep_for,
    lifetime,
)

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

R = TypeVar("R")
# Any, throughout: values of columns and of parameters.
Parameters = Mapping[str, Any]

log = structlog.get_logger("lifesign.telemetry")

_THREADS: Final = 4
_ROWS_AT_ONCE: Final = 8192
"""The driver makes lists of all columns of a block. Blocks as small as this make counting a third slower."""
_CONNECT_S: Final = 3
_ANSWER_S: Final = 15
_LONGEST_S: Final = 20
"""An answer that comes in pieces may take longer than any piece of it."""
_QUERY_SETTINGS: Final = {"max_execution_time": _ANSWER_S}
_FORMATS: Final = {"FixedString": "string"}
_BESIDE_OTHERS: Final = {
    "max_threads": 1,
    "max_memory_usage": 2**30,
    "max_bytes_before_external_group_by": 2**28,
}
"""Of long questions to the engine within this process, which has more to do: two are asked at once, one thread each.

What is grouped goes to disk in good time; what takes more memory all the same is refused, and the process lives on.
"""
_PURGE: Final = "SYSTEM JEMALLOC PURGE"


class ClickHouseNotInstalled(Exception):
    """The optional package is missing; the message says how to get it."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where ClickHouse is. path: of the directory of chdb, which then is everything."""

    host: str = ""
    port: int = 8123
    username: str = "default"
    password: str = ""
    database: str = "default"
    is_secure: bool = False
    path: str | None = None

    @classmethod
    def of(cls, url: str) -> "Address":
        """The address that `clickhouse://user:pass@host:8123/db`, `clickhouses://` or `chdb:///path` names."""
        parts = make_url(url)
        if parts.drivername == "chdb":
            return cls(path=f"/{parts.database}")
        is_secure = parts.drivername == "clickhouses"
        return cls(
            host=parts.host or "localhost",
            port=parts.port or (8443 if is_secure else 8123),
            username=parts.username or "default",
            password=parts.password or "",
            database=parts.database or "default",
            is_secure=is_secure,
        )


class Asked:
    """ClickHouse, as asked many things in one thread, for as long as somebody waits for the answer."""

    def __init__(self, client: "Client", stop: Stop, limits: Mapping[str, int], *, is_inside: bool) -> None:
        """limits: settings of each question. is_inside: it is an engine within this process."""
        self._client = client
        self._limits = limits
        self._is_inside = is_inside
        self.stop = stop

    def rows(self, sql: str, parameters: Parameters, *, is_alone: bool = False) -> Sequence[Sequence[Any]]:
        """What a query answers, when that is little: it comes at once. Raises Stopped.

        is_alone: nothing is asked beside it, so that it may have all threads.
        """
        self.stop.look()
        limits = {name: limit for name, limit in self._limits.items() if not is_alone or name != "max_threads"}
        answer = self._client.query(sql, dict(parameters), settings=limits, query_formats=_FORMATS)
        self.stop.look()
        return answer.result_rows

    def stream(self, sql: str, parameters: Parameters) -> Iterator[Sequence[Any]]:
        """The same, row by row as they come; of few columns, since many rows come at once. Raises Stopped."""
        for columns in self._blocks(sql, parameters, self._limits):
            yield from zip(*columns, strict=True)

    def blocks(self, sql: str, parameters: Parameters) -> Iterator[Sequence[Sequence[Any]]]:
        """The same of any number of columns, some rows at once, by column. Raises Stopped."""
        return self._blocks(sql, parameters, {**self._limits, "max_block_size": _ROWS_AT_ONCE})

    def _blocks(
        self, sql: str, parameters: Parameters, settings: Mapping[str, int]
    ) -> Iterator[Sequence[Sequence[Any]]]:
        self.stop.look()
        blocks = self._client.query_column_block_stream(
            sql, dict(parameters), settings=dict(settings), query_formats=_FORMATS
        )
        with blocks:
            for block in blocks:
                self.stop.look()
                yield block

    def give_back(self) -> None:
        """Have an engine within this process give back memory, of which it keeps much for the next question."""
        from clickhouse_connect.driver.exceptions import ClickHouseError  # noqa: PLC0415 - optional

        if self._is_inside:
            # One that has another allocator cannot.
            with suppress(ClickHouseError):
                self._client.command(_PURGE)


class ClickHouse:
    """A connection that is made when it is first needed, and again when it failed. Raises StoreUnavailable."""

    def __init__(self, address: Address, *, retention_days: int) -> None:
        """Raises ClickHouseNotInstalled."""
        is_inside = address.path is not None
        self.long_limits: dict[str, int] = dict(_BESIDE_OTHERS) if is_inside else {}
        """Settings of questions that are asked at length. A server has its own."""
        self._is_inside = is_inside
        self._create = _driver(address)
        self._address = address
        self._retention_days = retention_days
        self._client: Client | None = None
        self._opening = threading.Lock()
        self._spare: list[Client] = []
        self._is_closed = False
        # The driver is synchronous. One thread more, so that reads which hang do not keep records from going out.
        self._readers = ThreadPoolExecutor(_THREADS, thread_name_prefix="lifesign-clickhouse")
        self._lengthy = ThreadPoolExecutor(LENGTHY, thread_name_prefix="lifesign-clickhouse-at-length")
        self._sender = ThreadPoolExecutor(1, thread_name_prefix="lifesign-clickhouse-insert")

    async def rows(self, sql: str, parameters: Parameters) -> Sequence[Sequence[Any]]:
        """What a query answers."""

        def ask(client: "Client") -> Sequence[Sequence[Any]]:
            return client.query(sql, dict(parameters), settings=_QUERY_SETTINGS, query_formats=_FORMATS).result_rows

        return await self._run(self._readers, ask)

    async def gathered(
        self, sql: str, parameters: Parameters, gather: Callable[[Iterator[Sequence[Any]]], R], *, limit_s: float
    ) -> R:
        """What `gather` makes of the rows of a query, in a thread and as they come, however many there are."""

        def ask(client: "Client") -> R:
            settings = {"max_execution_time": int(limit_s)}
            with client.query_rows_stream(sql, dict(parameters), settings=settings, query_formats=_FORMATS) as stream:
                return gather(iter(stream))

        return await self._run(self._readers, ask, limit_s=limit_s)

    async def at_length(self, work: "Callable[[Asked, Asked], R]", *, limit_s: float) -> R:
        """What `work` makes of questions of its own, in a thread that no other question waits for.

        It may ask two at a time, the second in a thread of its own. limit_s: of each of them. When the caller is
        canceled it ends before its next question or block of rows.
        """
        stop = Stop()
        limits = {"max_execution_time": int(limit_s), **self.long_limits}

        def ask(_client: "Client") -> R:
            with self._lent() as one, self._lent() as other:
                asked, beside = (Asked(each, stop, limits, is_inside=self._is_inside) for each in (one, other))
                try:
                    return work(asked, beside)
                finally:
                    asked.give_back()

        try:
            return await self._run(self._lengthy, ask, limit_s=limit_s)
        except (asyncio.CancelledError, StoreUnavailable):
            stop.now()
            raise

    async def insert(self, rows: Sequence[Sequence[Any]], token: str) -> None:
        """Insert rows of `spans`, and who names sessions in them. The same rows with the same token go in once."""

        def send(client: "Client") -> None:
            # What makes other rows right goes first.
            for table, columns, some in ((TRACES, REMEMBERED, sources_in(rows)), (SPANS, INSERTED, rows)):
                if some:
                    client.insert(
                        table,
                        some,
                        column_names=list(columns),
                        column_type_names=list(columns.values()),
                        # Records of more than a hundred days at once are unusual, and no reason to refuse them.
                        settings={"insert_deduplication_token": token, "max_partitions_per_insert_block": 0},
                    )

        await self._run(self._sender, send)

    async def command(self, sql: str, parameters: Parameters, settings: Mapping[str, int]) -> None:
        """Have something done."""

        def command(client: "Client") -> None:
            client.command(sql, dict(parameters), settings=dict(settings))

        await self._run(self._readers, command)

    async def close(self) -> None:
        """Let go of the connection. A call that hangs is left to its timeout."""
        for pool in (self._readers, self._lengthy, self._sender):
            pool.shutdown(wait=False, cancel_futures=True)
        with self._opening:
            self._is_closed = True
            clients = [*self._spare, *([] if self._client is None else [self._client])]
            self._spare.clear()
            self._client = None
        for client in clients:
            await asyncio.to_thread(client.close)

    async def _run(self, pool: ThreadPoolExecutor, call: "Callable[[Client], R]", *, limit_s: float = _LONGEST_S) -> R:
        from clickhouse_connect.driver.exceptions import ClickHouseError  # noqa: PLC0415 - optional

        try:
            async with asyncio.timeout(limit_s):
                return await asyncio.get_running_loop().run_in_executor(pool, lambda: call(self._connected()))
        except (ClickHouseError, OSError, TimeoutError) as error:
            raise StoreUnavailable(_reason(error)) from error

    def _connected(self) -> "Client":
        with self._opening:
            if self._client is None:
                client = self._create()
                self._prepare(client)
                self._client = client
            return self._client

    @contextmanager
    def _lent(self) -> "Iterator[Client]":
        """A connection that nobody else asks meanwhile: each of chdb's answers one question after the other."""
        with self._opening:
            client = self._spare.pop() if self._spare else None
        if client is None:
            client = self._create()
        try:
            yield client
        finally:
            with self._opening:
                is_wanted = not self._is_closed
                if is_wanted:
                    self._spare.append(client)
            if not is_wanted:
                client.close()

    def _prepare(self, client: "Client") -> None:
        """Make what is missing, and keep records for as long as the setting says."""
        for table, create in ((SPANS, CREATE_SPANS), (TRACES, CREATE_TRACES)):
            client.command(create)
            days = lifetime(table, self._retention_days)
            if not is_kept_for(str(client.command(f"SHOW CREATE TABLE {table}")), days):
                client.command(keep_for(table, days))
                log.info("telemetry.retention_changed", table=table, days=days)


def _reason(error: Exception) -> str:
    """What went wrong, in a few words: what servers say may quote what they were asked."""
    name = getattr(error, "name", None) or type(error).__name__
    return name if error.__cause__ is None else f"{name}: {type(error.__cause__).__name__}"


def _driver(address: Address) -> "Callable[[], Client]":
    try:
        import clickhouse_connect  # noqa: PLC0415 - optional
    except ModuleNotFoundError as error:
        raise ClickHouseNotInstalled(
            "LIFESIGN_TELEMETRY_URL names ClickHouse, whose client is not installed: pip install 'lifesign[clickhouse]'"
        ) from error
    if address.path is not None:
        return lambda: clickhouse_connect.get_client(interface="chdb", path=address.path)
    return lambda: clickhouse_connect.get_client(
        host=address.host,
        port=address.port,
        username=address.username,
        password=address.password,
        database=address.database,
        interface="https" if address.is_secure else "http",
        connect_timeout=_CONNECT_S,
        send_receive_timeout=_ANSWER_S,
        query_retries=0,
        # A session runs one query at a time.
        autogenerate_session_id=False,
        # Hundreds of ids are too long for an address.
        form_encode_query_params=True,
    )
