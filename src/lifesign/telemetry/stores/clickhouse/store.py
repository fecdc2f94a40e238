"""The store of records over ClickHouse: durable in the spool of this node, read from ClickHouse."""

import asyncio
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, TypeVar

from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable
from lifesign.db.failpoints import Failpoints
from lifesign.db.open import data_directory_lock
from lifesign.db.sql import let_go_of_pages
from lifesign.diagnosis.details import Fetch
from lifesign.diagnosis.facts import MOST_OF_A_SESSION, Facts, Windows
from lifesign.telemetry.records import Narrow, Record
from lifesign.telemetry.sessions import MOST_RECORDS, Counts, Outcome, Summary, Totals, summary_of, together
from lifesign.telemetry.store import (
    EXAMINED_S,
    Activity,
    Appended,
    Arrival,
    Filter,
    Lag,
    Pace,
    Scope,
    SessionPage,
    Start,
    Stats,
    Stored,
    StoreUnavailable,
)
from lifesign.telemetry.stores.batches import batches
from lifesign.telemetry.stores.clickhouse import facts, queries, spool
from lifesign.telemetry.stores.clickhouse.client import Address, Asked, ClickHouse, Parameters
from lifesign.telemetry.stores.clickhouse.flusher import Flusher
from lifesign.telemetry.stores.clickhouse.rows import Row, narrow_of, record_of
from lifesign.telemetry.stores.seldom import collecting_seldom

_DRAIN_S: Final = 2.0
_EXAMINED_DRAIN_S: Final = 5.0
_SESSIONS_AT_ONCE: Final = 100
_WHOLE_S: Final = 60.0
"""Summaries of everything that was active may take longer than other questions."""
# Done when it is answered; and a subquery is the same on every replica for as long as one node deletes.
_MARKED: Final = {"lightweight_deletes_sync": 2, "allow_nondeterministic_mutations": 1}
_REWRITTEN: Final = {"mutations_sync": 2}
_LATEST: Final = 2**63 - 1
_FIRST_PLACE: Final = (_LATEST, "")
_COMMON_AT_ONCE: Final = 500
# A server takes parameters of 128 kB each, and a key has 51 characters.
_KEYS_AT_ONCE: Final = 2000
_TRACE = re.compile(r"[0-9a-f]{32}")
_RECORD = re.compile(r"rec_([0-9a-f]{48})")
_TRACE_DIGITS: Final = 32
_PREFIX: Final = "rec_"
T = TypeVar("T")


class Head(NamedTuple):
    """What ClickHouse counts of a session or a trace; in_window: how many of its records arrived in one."""

    session_id: str
    counts: Counts
    in_window: int

    @classmethod
    def of(cls, row: Row) -> "Head":
        """From the columns of `queries.HEADS`."""
        return cls(row[0], Counts(*row[1:-1]), row[-1])

    def corrected(self, summary: Summary) -> Summary:
        """The summary of the first records with what is known of all."""
        return summary if self.counts.turns == summary.turns else summary.of_all(self.counts)


@dataclass(slots=True)
class Tally:
    """Sessions by how they went, and what they used together."""

    sessions: int = 0
    by_outcome: Counter[Outcome] = field(default_factory=Counter)
    totals: Totals = field(default_factory=Totals)

    def add(self, summary: Summary) -> None:
        self.sessions += 1
        self.by_outcome[summary.outcome] += 1
        self.totals = together((self.totals, summary.totals))


class ClickHouseStore:
    """See `SpanStore`. Reads wait up to 2 s for what the project has in this node's spool."""

    kind: Literal["clickhouse"] = "clickhouse"

    def __init__(
        self, address: Address, directory: Path, *, retention_days: int, max_bytes: int, failpoints: Failpoints
    ) -> None:
        """Open the spool in `directory`; ClickHouse may be away.

        max_bytes: of what waits in the spool. Raises ClickHouseNotInstalled, DataDirectoryInUse.
        """
        self.drain_s = _DRAIN_S
        """How long a question waits for what is in the spool."""
        self.most_of_a_session = MOST_OF_A_SESSION
        """Of its records, in rules of order."""
        self.most_held = facts.MOST_HELD
        """Records that a diagnosis looks at in memory; more are streamed."""
        self.many_rows = 50_000
        """An environment with more records than these is a common one."""
        self._is_closed = False
        self._max_bytes = max_bytes
        self._clickhouse = ClickHouse(address, retention_days=retention_days)
        with ExitStack() as held:
            held.enter_context(data_directory_lock(directory, spool.LOCK_FILE))
            self._spool = spool.open_spool(directory, failpoints)
            self._held = held.pop_all()
        self._flusher = Flusher(self._spool, self._clickhouse)

    async def close(self) -> None:
        """Carry over what can be carried over in 5 s. The rest is durable, and goes when the spool is opened again."""
        if self._is_closed:
            return
        self._is_closed = True
        await self._flusher.stop()
        await self._spool.close()
        await self._clickhouse.close()
        self._held.close()

    # Writing --------------------------------------------------------------------------------------------------------
    async def append(self, project_id: str, records: Sequence[Record], *, quota: int, now: EpochMs) -> Appended:
        if not records:
            return Appended()
        parcel = await asyncio.to_thread(spool.parcel_of, project_id, records)
        appended = await self._spool.write(spool.take, parcel, quota=quota, now=now, max_bytes=self._max_bytes)
        self._flusher.appended(appended.new, now)
        return appended

    async def used(self, project_id: str, now: EpochMs) -> int:
        try:
            return await self._spool.read(spool.used, project_id, now)
        except StorageUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    async def lag(self, project_id: str) -> Lag:
        await self._drained(project_id)
        newest = await self._clickhouse.rows(queries.NEWEST, {"project": project_id})
        waiting = await self._pending(project_id)
        return Lag(waiting.records, newest[0][0] if newest else None)

    async def spare_memory(self) -> None:
        with suppress(StorageUnavailable):
            await self._spool.write(let_go_of_pages)

    async def purge(self, before: EpochMs, limit: int) -> int:  # noqa: ARG002 - to delete fewer would be more work
        await self._flusher.drained(None, within_s=self.drain_s)
        try:
            ((rows,),) = await self._clickhouse.rows(queries.COUNT_BEFORE, {"before": before})
            if rows:
                await self._clickhouse.command(queries.DELETE_BEFORE, {"before": before}, _MARKED)
            await self._clickhouse.command(queries.FORGET_SOURCES, {"before": before}, _MARKED)
        except StoreUnavailable:
            # The tables have a lifetime, so that nothing stays for long; and a server whose ClickHouse is away has
            # nothing to be alarmed about.
            return 0
        await self._spool.write(spool.forget_before, before)
        return int(rows)

    async def erase(self, project_ids: Sequence[str], limit: int) -> int:
        gone = await self._spool.write(spool.erase, project_ids, limit)
        if gone:
            return gone
        parameters = {"projects": list(project_ids)}
        with _as_unavailable():
            ((rows,),) = await self._clickhouse.rows(queries.COUNT_OF_PROJECTS, parameters)
            for statement in queries.ERASE if rows else ():
                await self._clickhouse.command(statement, parameters, _REWRITTEN)
        return int(rows)

    # Reading records ------------------------------------------------------------------------------------------------
    async def window(
        self, project_id: str, since: EpochMs, until: EpochMs, *, only: Filter, limit: int, after: Arrival | None
    ) -> list[Stored]:
        await self._drained(project_id)
        if only.session_id == "":
            # Nothing is called so, and whatever names no session would be looked through.
            return []
        heeded = [name for name in queries.FILTERS if getattr(only, name) is not None]
        session = only.session_id or ""
        parameters = {
            **_of_sessions(project_id, [session]),
            "since": since,
            "until": until,
            "limit": limit,
            "environment": only.environment or "",
            "signal_type": only.signal_type or "",
            "trace": only.trace_id or "",
        }
        place = _FIRST_PLACE if after is None else (after.received_at, after.record_id.removeprefix(_PREFIX))
        found: list[Stored] = []
        # A page may hold rows that do not count: repetitions of what arrived before. Then another is needed.
        while len(found) < limit:
            page = await self._clickhouse.rows(
                queries.arrived(heeded), {**parameters, "after_at": place[0], "after_key": place[1]}
            )
            stored = await self._stored(project_id, [key for _at, key in page])
            arrived = [(at, stored.get(key)) for at, key in page]
            found.extend(
                each
                for at, each in arrived
                if each is not None and each.record.received_at == at and _is_wanted(each, only)
            )
            if len(page) < limit:
                break
            place = page[-1][0], page[-1][1]
        return found[:limit]

    async def records(self, project_id: str, record_ids: Sequence[str]) -> list[Stored]:
        await self._drained(project_id)
        keys = [match[1] for match in map(_RECORD.fullmatch, record_ids) if match]
        stored = await self._stored(project_id, keys)
        return [stored[key] for key in keys if key in stored]

    async def trace(self, project_id: str, trace_id: str, *, limit: int) -> list[Stored]:
        await self._drained(project_id)
        if not _TRACE.fullmatch(trace_id):
            return []
        page = await self._clickhouse.rows(
            queries.OF_TRACE, {"project": project_id, "trace": trace_id, "limit": limit, **_behind(None)}
        )
        return await self._in_order(project_id, [key for (key,) in page])

    async def _in_order(self, project_id: str, keys: Sequence[str]) -> list[Stored]:
        stored = await self._stored(project_id, keys)
        return [stored[key] for key in keys if key in stored]

    async def _stored(self, project_id: str, keys: Sequence[str]) -> dict[str, Stored]:
        """Whole records and their sessions, by trace and span id in one text."""
        stored: dict[str, Stored] = {}
        for some in batches(keys, _KEYS_AT_ONCE):
            parameters = {
                "project": project_id,
                "traces": sorted({key[:_TRACE_DIGITS] for key in some}),
                "keys": list(some),
            }
            sources = await self._clickhouse.rows(queries.SESSIONS_OF_TRACES, parameters)
            named = {str(trace_id): str(session_id) for trace_id, session_id in sources}
            for row in await self._clickhouse.rows(queries.RECORDS, parameters):
                record = record_of(row, row[-1])
                session_id = record.own_session or named.get(record.trace_id) or record.trace_id
                stored[f"{record.trace_id}{record.span_id}"] = Stored(record, session_id)
        return stored

    # Reading sessions -----------------------------------------------------------------------------------------------
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
        await self._drained(project_id)
        parameters = {"project": project_id, "since": since, "until": until, "environment": environment or ""}
        rows = 0
        if environment is not None:
            ((rows,),) = await self._clickhouse.rows(queries.COUNT_OF_ENVIRONMENT, parameters)
            if not rows:
                return []
        is_common = rows > self.many_rows
        is_rare = environment is not None and not is_common
        ids = await self._active(parameters, limit, after, is_rare=is_rare, is_common=is_common)
        summaries = await self._summaries(project_id, ids)
        return [summaries[session_id] for session_id in ids if session_id in summaries]

    async def _active(
        self, parameters: Parameters, limit: int, after: Activity | None, *, is_rare: bool, is_common: bool
    ) -> list[str]:
        """A page of sessions. is_rare, is_common: the environment that is asked for; neither: any will do.

        Of a rare one all records are looked for. Of a common one that would take too long: sessions are looked at
        instead, the last active first, until enough of them have it.
        """
        sql = queries.active(has_environment=is_rare)
        at_once = _COMMON_AT_ONCE if is_common else limit
        place = _FIRST_PLACE if after is None else (after.last_received_at, after.session_id)
        found: list[str] = []
        while True:
            after_at, after_id = place
            page = await self._clickhouse.rows(
                sql, {**parameters, "limit": at_once, "after_at": after_at, "after_id": after_id}
            )
            ids = [str(session_id) for session_id, _last in page]
            found += await self._in_environment(parameters, ids) if is_common else ids
            if not is_common or len(found) >= limit or len(page) < at_once:
                return found[:limit]
            place = page[-1][1], page[-1][0]

    async def _in_environment(self, parameters: Parameters, ids: Sequence[str]) -> list[str]:
        """Those of some sessions that have a record of the environment, in their order."""
        chosen = _of_sessions(parameters["project"], ids)
        found = await self._clickhouse.rows(queries.IN_ENVIRONMENT, {**parameters, **chosen})
        with_it = {session_id for (session_id,) in found}
        return [session_id for session_id in ids if session_id in with_it]

    async def session(
        self, project_id: str, ref: str, since: EpochMs, until: EpochMs, *, limit: int, after: Start | None
    ) -> SessionPage | None:
        await self._drained(project_id)
        found = await self._found(project_id, ref, since, until)
        if found is None:
            return None
        scope, head = found
        parameters = {
            **_of_sessions(project_id, [head.session_id]),
            "trace": head.session_id,
            "limit": limit,
            **_behind(after),
        }
        is_trace = scope == "trace"
        summary = await self._summary(queries.NARROW_OF_TRACE if is_trace else queries.NARROW_OF_SESSIONS, parameters)
        page = await self._clickhouse.rows(queries.OF_TRACE if is_trace else queries.OF_SESSION, parameters)
        records = await self._in_order(project_id, [key for (key,) in page])
        if summary is None:
            return None
        summary = head.corrected(summary)
        if is_trace:
            for _trace_id, session_id in await self._clickhouse.rows(queries.SESSIONS_OF_TRACES, parameters):
                summary = replace(summary, session_id=session_id)
        return SessionPage(scope, summary, records)

    async def _found(self, project_id: str, ref: str, since: EpochMs, until: EpochMs) -> tuple[Scope, Head] | None:
        """What `ref` names, if something of it arrived in the window."""
        if not ref:
            return None
        window = {"since": since, "until": until}
        head = await self._head(queries.HEADS, {**_of_sessions(project_id, [ref]), **window})
        if head is None and (named := await self._last_with_alias(project_id, ref)) is not None:
            head = await self._head(queries.HEADS, {**_of_sessions(project_id, [named]), **window})
        if head is not None:
            return ("session", head) if head.in_window else None
        trace_id = ref.lower()
        if not _TRACE.fullmatch(trace_id):
            return None
        parameters = {**_of_sessions(project_id, [trace_id]), **window, "trace": trace_id}
        # Hex in either case: it may be the id of a session after all.
        head = await self._head(queries.HEADS, parameters)
        if head is not None:
            return ("session", head) if head.in_window else None
        head = await self._head(queries.HEAD_OF_TRACE, parameters)
        return ("trace", head) if head is not None and head.in_window else None

    async def _head(self, sql: str, parameters: Parameters) -> Head | None:
        rows = await self._clickhouse.rows(sql, parameters)
        return Head.of(rows[0]) if rows else None

    async def _last_with_alias(self, project_id: str, alias: str) -> str | None:
        named = await self._clickhouse.rows(queries.WITH_ALIAS, {"project": project_id, "alias": alias})
        if not named:
            return None
        parameters = _of_sessions(project_id, [session_id for (session_id,) in named])
        rows = await self._clickhouse.rows(queries.LAST_ACTIVE, parameters)
        return str(rows[0][0]) if rows else None

    async def _summary(self, sql: str, parameters: Parameters) -> Summary | None:
        return next(iter(await self._summed(sql, parameters)), None)

    async def _summaries(self, project_id: str, ids: Sequence[str]) -> dict[str, Summary]:
        """The summaries of these sessions."""
        summaries: dict[str, Summary] = {}
        for some in batches(ids, _SESSIONS_AT_ONCE):
            parameters = _of_sessions(project_id, some)
            for summary in await self._summed(queries.NARROW_OF_SESSIONS, parameters):
                summaries[summary.session_id] = summary
        long = [each.session_id for each in summaries.values() if each.turns == MOST_RECORDS]
        if long:
            parameters = {**_of_sessions(project_id, long), "since": 0, "until": 0}
            for row in await self._clickhouse.rows(queries.HEADS, parameters):
                head = Head.of(row)
                summaries[head.session_id] = head.corrected(summaries[head.session_id])
        return summaries

    async def _summed(self, sql: str, parameters: Parameters) -> list[Summary]:
        return await self._clickhouse.gathered(
            sql, {**parameters, "most": MOST_RECORDS}, lambda rows: list(_summaries_of(rows)), limit_s=_WHOLE_S
        )

    async def stats(self, project_id: str, since: EpochMs, until: EpochMs) -> Stats:
        await self._drained(project_id)
        parameters = {"project": project_id, "since": since, "until": until, "most": MOST_RECORDS}
        ((records, failures, traces, failures_by_signal),) = await self._clickhouse.rows(queries.ARRIVALS, parameters)
        tally = await self._clickhouse.gathered(
            queries.NARROW_OF_ACTIVE, parameters, lambda rows: _tally_of(_summaries_of(rows)), limit_s=_WHOLE_S
        )
        oldest = await self._clickhouse.rows(queries.OLDEST, parameters)
        waiting = await self._pending(project_id)
        return Stats(
            records=records,
            failures=failures,
            traces=traces,
            failures_by_signal=failures_by_signal,
            sessions=tally.sessions,
            sessions_by_outcome=dict(tally.by_outcome),
            totals=tally.totals,
            oldest_received_at=oldest[0][0] if oldest else None,
            pending_records=waiting.records,
        )

    async def pace(self, project_id: str, since: EpochMs, step_ms: int, steps: int) -> list[Pace]:
        await self._drained(project_id)
        until = since + step_ms * steps
        parameters = {"project": project_id, "since": since, "until": until, "step": step_ms}
        rows = await self._clickhouse.rows(queries.PACE, parameters)
        found = {part: Pace(records, failures) for part, records, failures in rows}
        return [found.get(number, Pace(0, 0)) for number in range(steps)]

    # Diagnosis -------------------------------------------------------------------------------------------------------
    async def examine(self, project_id: str, windows: Windows, judge: Callable[[Facts, Fetch], T]) -> T:
        await self._drained(project_id, within_s=max(self.drain_s, _EXAMINED_DRAIN_S))
        waiting = (await self._pending(project_id)).records

        def examined(asked: Asked, beside: Asked) -> T:
            most = facts.Most(of_a_session=self.most_of_a_session, held=self.most_held)
            with collecting_seldom():
                return facts.examine(asked, beside, project_id, windows, judge, most=most, pending=waiting)

        return await self._clickhouse.at_length(examined, limit_s=EXAMINED_S)

    async def _pending(self, project_id: str) -> spool.Pending:
        try:
            return await self._spool.read(spool.pending, project_id)
        except StorageUnavailable as error:
            raise StoreUnavailable(str(error)) from error

    async def _drained(self, project_id: str, *, within_s: float | None = None) -> None:
        try:
            await self._flusher.drained(project_id, within_s=self.drain_s if within_s is None else within_s)
        except StorageUnavailable as error:
            raise StoreUnavailable(str(error)) from error


@contextmanager
def _as_unavailable() -> Iterator[None]:
    """A store that cannot be read cannot be written either."""
    try:
        yield
    except StoreUnavailable as error:
        raise StorageUnavailable(str(error)) from error


def _of_sessions(project_id: str, ids: Sequence[str]) -> dict[str, Any]:
    """What finds the traces of sessions: by their ids, some of which may be those of traces."""
    return {
        "project": project_id,
        "sessions": list(ids),
        "traces": [session_id for session_id in ids if _TRACE.fullmatch(session_id)],
    }


def _behind(after: Start | None) -> dict[str, Any]:
    if after is None:
        return {"after_start": -1, "after_key": ""}
    return {"after_start": after.start_ns, "after_key": after.record_id.removeprefix(_PREFIX)}


def _is_wanted(stored: Stored, only: Filter) -> bool:
    """Whether the record itself is what rows were searched for."""
    return only.session_id is None or stored.session_id == only.session_id


def _summaries_of(rows: Iterator[Row]) -> Iterator[Summary]:
    """Summaries from rows that come session by session."""
    for session_id, group in groupby(rows, key=lambda row: row[-1]):
        records: list[Narrow] = []
        aliases: set[str] = set()
        for row in group:
            records.append(narrow_of(row))
            aliases.update(row[-2])
        yield summary_of(session_id, records, aliases)


def _tally_of(summaries: Iterator[Summary]) -> Tally:
    tally = Tally()
    for summary in summaries:
        tally.add(summary)
    return tally
