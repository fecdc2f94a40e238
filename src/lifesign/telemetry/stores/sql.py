"""The store in SQL: which connection does what, and what is remembered between."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Concatenate, Final, ParamSpec, TypeVar

from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.db import Database, StorageUnavailable
from lifesign.db.sql import let_go_of_pages
from lifesign.db.stop import Stop
from lifesign.diagnosis.details import Fetch, details_of
from lifesign.diagnosis.facts import MOST_OF_A_SESSION, Facts, Windows, facts_of
from lifesign.telemetry.records import Record
from lifesign.telemetry.rules import month_of
from lifesign.telemetry.sessions import Summary
from lifesign.telemetry.store import (
    EXAMINED_S,
    Activity,
    Appended,
    Arrival,
    Filter,
    Lag,
    Pace,
    SessionPage,
    Start,
    Stats,
    Stored,
    StoreKind,
    StoreUnavailable,
)
from lifesign.telemetry.stores import append, dictionary, facts, figures, reads, removal, summaries
from lifesign.telemetry.stores.arrivals import Scene
from lifesign.telemetry.stores.dictionary import Dictionary
from lifesign.telemetry.stores.seldom import collecting_seldom
from lifesign.telemetry.stores.summaries import Worked

P = ParamSpec("P")
R = TypeVar("R")

_PER_PAGE: Final = 500
MOST_IN_STATS: Final = 5000
"""Sessions whose summaries go into the numbers of a project; of more, the newest, and the others are `unknown`."""


class SqlStore:
    """Records in a SQLite file of their own, or in PostgreSQL. held: let go of last."""

    def __init__(self, kind: StoreKind, db: Database, held: ExitStack) -> None:
        self.kind: StoreKind = kind
        self.db = db
        self._held = held
        self.most_of_a_session = MOST_OF_A_SESSION
        """Of its records, in rules of order."""
        self._known = Dictionary()

    async def append(self, project_id: str, records: Sequence[Record], *, quota: int, now: EpochMs) -> Appended:
        """See SpanStore."""
        if not records:
            return Appended()
        appended, learned = await self.db.write(append.append, self._known, project_id, records, quota=quota, now=now)
        self._known.learn(learned)
        return appended

    async def used(self, project_id: str, now: EpochMs) -> int:
        """See SpanStore."""

        def read(conn: Connection, project: int) -> int:
            return append.used(conn, project, month_of(now))

        return await self._of_project(project_id, read) or 0

    async def lag(self, project_id: str) -> Lag:
        """See SpanStore. What is answered can be read."""
        return Lag(0, await self._of_project(project_id, reads.last_arrival))

    async def window(
        self, project_id: str, since: EpochMs, until: EpochMs, *, only: Filter, limit: int, after: Arrival | None
    ) -> list[Stored]:
        """See SpanStore."""

        def read(conn: Connection, project: int) -> list[Stored]:
            return reads.window(conn, self._known, project, (since, until), only=only, limit=limit, after=after)

        return await self._of_project(project_id, read) or []

    async def records(self, project_id: str, record_ids: Sequence[str]) -> list[Stored]:
        """See SpanStore."""

        def read(conn: Connection, project: int) -> list[Stored]:
            return reads.records(conn, self._known, project, record_ids)

        return await self._of_project(project_id, read) or []

    async def trace(self, project_id: str, trace_id: str, *, limit: int) -> list[Stored]:
        """See SpanStore."""

        def read(conn: Connection, project: int) -> list[Stored]:
            if not reads.is_trace_id(trace_id):
                return []
            return reads.trace(conn, self._known, project, trace_id, limit=limit)

        return await self._of_project(project_id, read) or []

    async def sessions(
        self,
        project_id: str,
        since: EpochMs,
        until: EpochMs,
        *,
        environment: str | None,
        limit: int,
        after: Activity | None,
    ) -> list[Summary]:
        """See SpanStore."""

        def read(conn: Connection, project: int) -> tuple[list[Summary], list[Worked]]:
            return summaries.listed(
                conn, self._known, project, (since, until), environment=environment, limit=limit, after=after
            )

        found, worked = await self._of_project(project_id, read) or ([], [])
        await self._keep(worked)
        return found

    async def session(
        self, project_id: str, ref: str, since: EpochMs, until: EpochMs, *, limit: int, after: Start | None
    ) -> SessionPage | None:
        """See SpanStore."""

        def read(conn: Connection, project: int) -> tuple[SessionPage | None, list[Worked]]:
            return self._session(conn, project, ref, (since, until), limit=limit, after=after)

        found, worked = await self._of_project(project_id, read) or (None, [])
        await self._keep(worked)
        return found

    def _session(
        self,
        conn: Connection,
        project: int,
        ref: str,
        arrived: tuple[EpochMs, EpochMs],
        *,
        limit: int,
        after: Start | None,
    ) -> tuple[SessionPage | None, list[Worked]]:
        number = reads.session_number(conn, project, ref) or summaries.by_alias(conn, project, ref)
        trace_id = ref.lower()
        if number is None and reads.is_trace_id(trace_id):
            # One that nobody named is called like its trace, in lower case.
            number = reads.session_number(conn, project, trace_id)
            if number is None:
                return self._trace(conn, project, trace_id, arrived, limit=limit, after=after), []
        if number is None or not reads.has_arrived(conn, project, arrived, session=number):
            return None, []
        summary, worked = summaries.one(conn, self._known, number)
        listed = reads.of_session(conn, self._known, project, number, limit=limit, after=after)
        return SessionPage("session", summary, listed), worked

    def _trace(
        self,
        conn: Connection,
        project: int,
        trace_id: str,
        arrived: tuple[EpochMs, EpochMs],
        *,
        limit: int,
        after: Start | None,
    ) -> SessionPage | None:
        if not reads.has_arrived(conn, project, arrived, trace_id=trace_id):
            return None
        summary = summaries.of_trace(conn, self._known, project, trace_id)
        listed = reads.trace(conn, self._known, project, trace_id, limit=limit, after=after)
        return SessionPage("trace", summary, listed)

    async def stats(self, project_id: str, since: EpochMs, until: EpochMs) -> Stats:
        """See SpanStore. Of more sessions than MOST_IN_STATS the newest tell outcome and totals."""
        found: list[Summary] = []
        after: Activity | None = None
        while len(found) < MOST_IN_STATS:
            page = await self.sessions(project_id, since, until, environment=None, limit=_PER_PAGE, after=after)
            found += page
            if len(page) < _PER_PAGE:
                break
            after = Activity(page[-1].last_received_at, page[-1].session_id)

        def read(conn: Connection, project: int) -> Stats:
            return figures.stats(conn, project, (since, until), found)

        return await self._of_project(project_id, read) or figures.NOTHING

    async def pace(self, project_id: str, since: EpochMs, step_ms: int, steps: int) -> list[Pace]:
        """See SpanStore."""

        def read(conn: Connection, project: int) -> list[Pace]:
            return figures.pace(conn, project, since, step_ms, steps)

        return await self._of_project(project_id, read) or [Pace(0, 0)] * steps

    async def examine(self, project_id: str, windows: Windows, judge: Callable[[Facts, Fetch], R]) -> R:
        """See SpanStore."""

        def read(conn: Connection, stop: Stop) -> R:
            project = self._known.project(project_id) or dictionary.project_number(conn, project_id)
            if project is None:
                return judge(facts_of(()), lambda wanted: details_of((), wanted, {}))
            scene = Scene(conn, self._known, project, stop)
            with collecting_seldom():
                return facts.examine(scene, windows, judge, most_of_a_session=self.most_of_a_session)

        try:
            return await self.db.read_at_length(read, limit_s=EXAMINED_S)
        except StorageUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    async def purge(self, before: EpochMs, limit: int) -> int:
        """See SpanStore."""
        project = await self._read(removal.project_with_old, before)
        if project is not None:
            count = await self.db.write(removal.delete_old, project, before, limit)
            await self.db.write(removal.give_back)
            return count
        return await self.db.write(removal.delete_unused_strings, before, limit)

    async def erase(self, project_ids: Sequence[str], limit: int) -> int:
        """See SpanStore."""
        self._known.forget(project_ids)
        for project_id in project_ids:
            project = await self._read(dictionary.project_number, project_id)
            if project is not None:
                count = await self.db.write(removal.erase, project, limit)
                await self.db.write(removal.give_back)
                return max(count, 1)
        return 0

    async def spare_memory(self) -> None:
        """See SpanStore. PostgreSQL keeps its own."""
        if self.kind == "sqlite":
            with suppress(StorageUnavailable):
                await self.db.write(let_go_of_pages)

    async def close(self) -> None:
        """See SpanStore."""
        await self.db.close()
        self._held.close()

    # Below -----------------------------------------------------------------------------------------------------------
    async def _read(self, fn: Callable[Concatenate[Connection, P], R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await self.db.read(fn, *args, **kwargs)
        except StorageUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    async def _of_project(self, project_id: str, fn: Callable[[Connection, int], R]) -> R | None:
        """What `fn` says of a project; None of one that never had a record."""

        def read(conn: Connection) -> R | None:
            project = self._known.project(project_id) or dictionary.project_number(conn, project_id)
            return None if project is None else fn(conn, project)

        return await self._read(read)

    async def _keep(self, worked: Sequence[Worked]) -> None:
        """Keep what was worked out, for whoever reads next; who read now has it already."""
        if worked:
            with suppress(StorageUnavailable):
                await self.db.write(summaries.keep, worked)
