"""Readers, and a writer that commits many callers at once.

SQLite: one writer thread with the one connection that ever writes; whatever waits in its queue shares a commit, and
one caller's error undoes only its own work: by savepoints, or, where one kind of work has the transaction to itself, by
trying each caller alone afterwards. PostgreSQL: a few writer threads, one transaction per caller (the server groups the
commits itself). Both: callers of `write_batched` with one function are handed to it together, so that the hottest
statements run once for many.
"""

import asyncio
import contextlib
import functools
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar, cast

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from lifesign.db import wakeups
from lifesign.db.failpoints import Failpoints, SimulatedCrash
from lifesign.db.listen import Listener
from lifesign.db.stop import Stop

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

MAX_BATCH = 500
MAX_QUEUE = 20_000
LENGTHY = 2
"""How many reads of `read_at_length` are at work at a time."""
# How long callers are gathered for one commit, at most; and no longer than one comes in each of these.
_GATHER_S = 0.01
_GAP_S = 0.001
# A transaction that has taken this long is committed, whoever else waits.
_LONG_S = 0.02
_RETRYABLE = {"40001", "40P01"}
# Not what the caller did is at fault: the server has become a standby, or somebody made it refuse writes.
_READ_ONLY = "25006"
_MAX_RETRIES = 5

log = structlog.get_logger("lifesign.db")


class Beside(Protocol):
    """What goes with the writes of a request, in the same transactions."""

    def write(self, conn: Connection) -> None:
        """After the caller's own statements; more than once when a transaction is tried again."""

    def committed(self) -> None:
        """One of them is durable."""


beside_writes: ContextVar[Beside | None] = ContextVar("beside_writes", default=None)


class StorageUnavailable(Exception):
    """The database did not take the transaction; nothing was written."""


class WriterBusy(StorageUnavailable):
    """The writer's queue is full; nothing was written."""


class ReadersBusy(StorageUnavailable):
    """Too many reads wait already."""


_writing: set[int] = set()


def is_writing() -> bool:
    """Whether some thread of this process is at work on a commit, of whatever database. Old once it is given.

    For work that can wait: Python lets one thread work at a time, and a writer, which lets go at each call of the
    database, waits for its turn dozens of times in one commit.
    """
    return bool(_writing)


# Any, here and below: one queue holds the callers of every function; `write` and `write_batched` restore the types.
@dataclass(slots=True)
class _Caller:
    done: Callable[[Any], None]
    loop: asyncio.AbstractEventLoop
    fn: Callable[..., Any]
    item: Any
    batched: bool


class Database:
    """The handle that every route and loop shares."""

    def __init__(
        self,
        *,
        writer: Engine,
        reader: Engine,
        writers: int,
        readers: int,
        failpoints: Failpoints,
        is_main: bool = False,
    ) -> None:
        """is_main: what goes beside the writes of a request belongs here, and has its tables here."""
        self._is_main = is_main
        self.failpoints = failpoints
        self.wakeups = wakeups.Wakeups()
        self.is_sqlite = writer.dialect.name == "sqlite"
        self.engine = writer
        self._reader = reader
        self._readers = ThreadPoolExecutor(readers, thread_name_prefix="lifesign-read")
        # On SQLite: of each thread that reads or writes its connection, and all of them.
        self._own = threading.local()
        self._kept: list[Connection] = []
        # Of `read_batched`: who waits for the next snapshot, and what works on the present one.
        self._asking: dict[Callable[..., Any], list[tuple[Any, asyncio.Future[Any]]]] = {}
        self._reading: dict[Callable[..., Any], asyncio.Task[None]] = {}
        self._lengthy = ThreadPoolExecutor(LENGTHY, thread_name_prefix="lifesign-read-at-length")
        self._queue: deque[_Caller] = deque()
        self._ready = threading.Condition()
        self._reads = 0
        self._stopping = False
        self.refusal: str | None = None
        """Why nothing may be written for now; reading goes on."""
        self._expected = 1
        self._listener = None if self.is_sqlite else Listener(writer)
        self._threads = [
            threading.Thread(target=self._write_forever, name=f"lifesign-write-{n}", daemon=True)
            for n in range(writers)
        ]
        for thread in self._threads:
            thread.start()

    async def read(self, fn: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn(conn, ...)` on a reader, on one snapshot. Raises ReadersBusy, StorageUnavailable."""
        # A loop of reads that nobody answers would otherwise take all memory before it took all patience.
        if self._reads >= MAX_QUEUE:
            raise ReadersBusy

        def run() -> R:
            try:
                with self._begun(self._reader) as conn:
                    return fn(conn, *args, **kwargs)
            except (OperationalError, InterfaceError, PoolTimeout) as error:
                raise StorageUnavailable from error

        self._reads += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._readers, run)
        finally:
            self._reads -= 1

    async def read_batched(self, fn: Callable[[Connection, Sequence[T]], Sequence[R]], item: T) -> R:
        """Like `read`, for what many may ask at once: who asks while `fn` is at work shares the next snapshot.

        `fn` answers one result for each item. What it raises is raised to everybody who shared it.
        """
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        asking = self._asking.setdefault(fn, [])
        asking.append((item, future))
        if fn not in self._reading:
            self._reading[fn] = asyncio.create_task(self._read_for_all(fn))
        return cast("R", await future)

    async def _read_for_all(self, fn: Callable[..., Any]) -> None:  # Any: see _Caller
        try:
            while asking := self._asking.pop(fn, None):
                try:
                    results = await self.read(fn, [item for item, _ in asking])
                except Exception as error:  # noqa: BLE001 - raised by those who asked
                    results = [error] * len(asking)
                for (_, future), result in zip(asking, results, strict=True):
                    _resolve(future, result)
        finally:
            del self._reading[fn]

    @contextmanager
    def _begun(self, engine: Engine) -> Iterator[Connection]:
        """A transaction of a thread, which on SQLite keeps its connection: the pool costs as much as ten check-ins."""
        if not self.is_sqlite:
            with engine.begin() as pooled:
                yield pooled
            return
        kept: Connection | None = getattr(self._own, "connection", None)
        conn = engine.connect() if kept is None else kept
        if kept is None:
            self._own.connection = conn
            self._kept.append(conn)
        try:
            with conn.begin():
                yield conn
        except BaseException:
            if conn.invalidated or conn.in_transaction():
                self._let_go()
            raise

    def _let_go(self) -> None:
        """Close the connection of this thread, if it keeps one."""
        conn: Connection | None = getattr(self._own, "connection", None)
        if conn is not None:
            self._own.connection = None
            self._kept.remove(conn)
            conn.close()

    async def read_at_length(self, fn: Callable[[Connection, Stop], R], *, limit_s: float) -> R:
        """Like `read`, for what may take up to a minute: on a thread and a connection that no `read` waits for.

        When the caller is canceled, the statement at work is ended, and so is `fn` when it next asks `Stop`; nobody
        waits for that. A second one waits for a free thread of LENGTHY. limit_s: of a statement, on PostgreSQL.
        """
        stop = Stop()

        def run() -> R:
            try:
                with self._reader.begin() as conn, stop.guarding(conn, limit_s):
                    stop.look()
                    return fn(conn, stop)
            except (OperationalError, InterfaceError, PoolTimeout) as error:
                raise StorageUnavailable from error

        working = self._lengthy.submit(run)
        try:
            return await asyncio.wrap_future(working)
        except asyncio.CancelledError:
            stop.now(working)
            raise

    async def write(self, fn: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Run `fn(conn, ...)` in a transaction and return once it is durable on disk.

        Whatever `fn` raises undoes what it did and is raised here. Raises WriterBusy, StorageUnavailable.
        """
        beside = beside_writes.get() if self._is_main else None
        if beside is None:
            return cast("R", await self._enqueue(lambda conn: fn(conn, *args, **kwargs), None, batched=False))

        def run(conn: Connection) -> R:
            result = fn(conn, *args, **kwargs)
            beside.write(conn)
            return result

        answer = cast("R", await self._enqueue(run, None, batched=False))
        beside.committed()
        return answer

    async def write_batched(self, fn: Callable[[Connection, Sequence[T]], Sequence[R | Exception]], item: T) -> R:
        """Like `write`, for hot statements: `fn` gets the items of all waiting callers and answers one result for each.

        An Exception among the results is raised to its caller alone and must have left nothing behind. When `fn`
        itself raises, each item is tried again alone.
        """
        return cast("R", await self._enqueue(fn, item, batched=True))

    def post_batched(
        self,
        fn: Callable[[Connection, Sequence[T]], Sequence[R | Exception]],
        item: T,
        done: Callable[[R | Exception], None],
    ) -> None:
        """Like `write_batched`, for who has no task to wait in: `done` gets the result, or the exception, on the loop.

        Raises WriterBusy, StorageUnavailable; `done` is not called then.
        """
        self._put(_Caller(done, asyncio.get_running_loop(), fn, item, batched=True))

    async def _enqueue(self, fn: Callable[..., Any], item: object, *, batched: bool) -> object:  # Any: see _Caller
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._put(_Caller(functools.partial(_resolve, future), loop, fn, item, batched))
        return await future

    def _put(self, caller: _Caller) -> None:
        with self._ready:
            if self.refusal is not None:
                raise StorageUnavailable(self.refusal)
            if self._stopping or len(self._queue) >= MAX_QUEUE:
                raise WriterBusy
            self._queue.append(caller)
            if len(self._queue) in {1, self._expected}:
                self._ready.notify()

    def listen(self) -> None:
        """Be woken by what other nodes commit, until `close`. SQLite has no other nodes."""
        if self._listener is not None:
            self._listener.start(self.wakeups.wake)

    async def close(self) -> None:
        """Commit what is queued, then let go of every connection."""
        if self._listener is not None:
            await self._listener.stop()
        with self._ready:
            self._stopping = True
            self._ready.notify_all()
        for thread in self._threads:
            await asyncio.to_thread(thread.join)
        await asyncio.to_thread(self._readers.shutdown)
        await asyncio.to_thread(self._lengthy.shutdown, cancel_futures=True)
        for conn in self._kept:
            conn.close()
        self.engine.dispose()
        self._reader.dispose()

    # The writer threads ---------------------------------------------------------------------------------------------
    def _write_forever(self) -> None:
        try:
            self._write_until_stopped()
        finally:
            self._let_go()

    def _write_until_stopped(self) -> None:
        # No names here for what was written: they would keep the last of it until somebody writes again.
        while self._write_next():
            pass

    def _write_next(self) -> bool:
        """Wait for work, do it and answer; False when stopping and done."""
        callers = self._next_callers()
        if not callers:
            return False
        try:
            _writing.add(threading.get_ident())
            results = self._commit_with_retries(callers)
        except SimulatedCrash as crash:
            # The node is dead from here on: nobody is answered, nothing more is written.
            log.debug("node.crashed", failpoint=str(crash))
            with self._ready:
                self._stopping = True
                self._queue.clear()
            return False
        finally:
            _writing.discard(threading.get_ident())
        # What was left out to answer the others sooner goes first next time.
        done = callers[: len(results)]
        with self._ready:
            self._queue.extendleft(reversed(callers[len(results) :]))
        self._settled(done)
        _answer(done, results)
        return True

    def _next_callers(self) -> list[_Caller]:
        """Wait for work and take what shares the next transaction; empty when stopping and done."""
        with self._ready:
            while not self._gathered():
                if self._stopping and not self._queue:
                    return []
            first = self._queue.popleft()
            callers = [first]
            while self._queue and len(callers) < MAX_BATCH:
                following = self._queue[0]
                if not self.is_sqlite and not (first.batched and following.batched and following.fn == first.fn):
                    break
                callers.append(self._queue.popleft())
            if self._queue:
                self._ready.notify()
            return callers

    def _gathered(self) -> bool:
        """Wait until there are callers: as many as are expected, or as many as keep coming. False: look again.

        Those who were answered by the last commit are mostly about to call again. Begun without them, the next commit
        would have to share Python's lock with the handling of their requests, which costs both more than they gain:
        measured with 64 connections, waiting makes check-ins a fifth quicker. A lone caller is not kept.
        """
        while not self._queue:
            if self._stopping:
                return False
            self._ready.wait()
        gather_until = time.monotonic() + _GATHER_S
        while not self._stopping and len(self._queue) < self._expected and time.monotonic() < gather_until:
            already = len(self._queue)
            if not self._ready.wait(_GAP_S) and len(self._queue) == already:
                break
        # Another writer may have been quicker.
        return bool(self._queue)

    def _settled(self, callers: list[_Caller]) -> None:
        """Expect as many callers next time as there are now: those just answered, and those who wait."""
        with self._ready:
            self._expected = min(len(callers) + len(self._queue), MAX_BATCH)

    def _commit_with_retries(self, callers: list[_Caller]) -> list[Any]:
        is_guarded = False
        attempts = 0
        while True:
            try:
                return self._commit(callers, is_guarded=is_guarded)
            except _Undone as undone:
                if not _is_lost(undone.error):
                    if undone.is_lonely:
                        return [undone.error]
                    # One of many is at fault.
                    is_guarded = True
                    continue
                error = undone.error
            except Exception as failed:  # noqa: BLE001 - the writer thread must outlive every failure; it is logged and answered
                error = failed
            attempts += 1
            if getattr(getattr(error, "orig", None), "sqlstate", None) not in _RETRYABLE or attempts == _MAX_RETRIES:
                return self._unavailable(callers, error)
            # Two transactions met on the same rows: step aside for a moment, then run again from the start.
            time.sleep(random.uniform(0.01, 0.1))  # noqa: S311 - jitter, not a secret

    def _unavailable(self, callers: list[_Caller], error: Exception) -> list[Any]:
        log.error(
            "database.write_failed",
            callers=len(callers),
            error=type(error).__name__,
            reason=str(getattr(error, "orig", error)),
        )
        failure = StorageUnavailable(str(error))
        failure.__cause__ = error
        return [failure] * len(callers)

    def _commit(self, callers: list[_Caller], *, is_guarded: bool) -> list[Any]:
        """One transaction for the first of `callers`, mostly all of them; their results, in order, exceptions included.

        Nobody waits for what came after: check-ins are committed before other work begins, which may take long, and
        after a piece that did take long everybody so far is answered. What a group raises that has the transaction to
        itself comes as _Undone; is_guarded: then each of its callers is tried under a savepoint.
        """
        results: list[Any] = []
        began = time.monotonic()
        with self._begun(self.engine) as conn:
            wakeups.take(conn)
            position = 0
            while position < len(callers):
                group = _group_at(callers, position)
                if len(group) < len(callers):
                    results.extend(self._run_group(conn, group))
                elif is_guarded:
                    results.extend(self._run_each(conn, group))
                else:
                    results.extend(self._run_alone(conn, group))
                position += len(group)
                if position < len(callers) and (
                    (group[0].batched and not callers[position].batched) or time.monotonic() - began > _LONG_S
                ):
                    break
            asked = wakeups.take(conn)
            if asked and self._listener is not None:
                self._listener.tell(conn, asked)
        if asked:
            with contextlib.suppress(RuntimeError):  # the event loop is gone: nobody is left to wake
                callers[0].loop.call_soon_threadsafe(self.wakeups.wake, asked)
        return results

    @staticmethod
    def _run_alone(conn: Connection, group: list[_Caller]) -> list[Any]:
        """Run a group that has the transaction to itself. Raises _Undone."""
        first = group[0]
        try:
            return list(first.fn(conn, [caller.item for caller in group])) if first.batched else [first.fn(conn)]
        except Exception as error:
            raise _Undone(error, is_lonely=len(group) == 1) from error

    def _run_group(self, conn: Connection, group: list[_Caller]) -> list[Any]:
        fn = group[0].fn
        if not group[0].batched:
            return [self._run_guarded(conn, fn)]
        result = self._run_guarded(conn, fn, [caller.item for caller in group])
        if not isinstance(result, Exception):
            return list(result)
        return [result] if len(group) == 1 else self._run_each(conn, group)

    def _run_each(self, conn: Connection, group: list[_Caller]) -> list[Any]:
        alone = [self._run_guarded(conn, caller.fn, [caller.item]) for caller in group]
        return [result if isinstance(result, Exception) else result[0] for result in alone]

    @staticmethod
    def _run_guarded(conn: Connection, fn: Callable[..., Any], *args: Any) -> Any:  # Any: see _Caller
        """Run one piece of work under a savepoint; its exception is its result, unless the transaction is lost."""
        savepoint = conn.begin_nested()
        try:
            result = fn(conn, *args)
            savepoint.commit()
        except DBAPIError as error:
            if error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _RETRYABLE:
                raise
            savepoint.rollback()
            if _is_lost(error):
                raise
            return error
        except Exception as error:  # noqa: BLE001 - handed to the caller that caused it, which raises it
            savepoint.rollback()
            return error
        return result


class _Undone(Exception):
    """What a group raised that had a transaction to itself, which is rolled back. is_lonely: it was a single caller."""

    def __init__(self, error: Exception, *, is_lonely: bool) -> None:
        super().__init__(str(error))
        self.error = error
        self.is_lonely = is_lonely


def _is_lost(error: Exception) -> bool:
    """Whether it is the database that failed, and not what the caller asked of it."""
    if not isinstance(error, DBAPIError):
        return False
    sqlstate = getattr(error.orig, "sqlstate", None)
    is_refused = sqlstate in _RETRYABLE or sqlstate == _READ_ONLY
    return error.connection_invalidated or is_refused or isinstance(error, OperationalError)


def _group_at(callers: list[_Caller], position: int) -> list[_Caller]:
    """The run of batched callers with one function that begins at `position`, or the single caller there.

    Only neighbours are joined: the queue's order is the order in which things happened.
    """
    first = callers[position]
    if not first.batched:
        return [first]
    end = position + 1
    while end < len(callers) and callers[end].batched and callers[end].fn == first.fn:
        end += 1
    return callers[position:end]


def _answer(callers: list[_Caller], results: list[Any]) -> None:  # Any: see _Caller
    def settle() -> None:
        for caller, result in zip(callers, results, strict=True):
            try:
                caller.done(result)
            except Exception:  # the others are to be answered all the same
                log.exception("database.answer_lost")

    with contextlib.suppress(RuntimeError):  # the event loop is gone, and with it whoever asked
        callers[0].loop.call_soon_threadsafe(settle)


def _resolve(future: "asyncio.Future[Any]", result: Any) -> None:  # Any: see _Caller
    if future.done():
        return
    if isinstance(result, Exception):
        future.set_exception(result)
    else:
        future.set_result(result)
