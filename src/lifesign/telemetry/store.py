"""What keeps records: the protocol of every store, and the words it is asked and answers in. Spec "Telemetry", 8.

One test suite runs on each implementation: they give equal answers. Instants are epoch ms of arrival, `since` counts
and `until` does not. Nothing is ever told of another project.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeVar

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import Fetch
from lifesign.diagnosis.facts import Facts, Windows
from lifesign.telemetry.records import Record, SignalType
from lifesign.telemetry.sessions import Outcome, Summary, Totals

StoreKind = Literal["sqlite", "postgresql", "clickhouse"]
Scope = Literal["session", "trace"]
T = TypeVar("T")

EXAMINED_S: Final = 65.0
"""How long a question of an examination may take: longer than anybody waits for all of them."""


class StoreUnavailable(Exception):
    """The store cannot be read for now. Where it cannot be written, that is db.StorageUnavailable."""


# What is asked -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Filter:
    """Which records of a window. Each: exactly this, None for any. session_id: what `Stored.session_id` is."""

    environment: str | None = None
    session_id: str | None = None
    trace_id: str | None = None
    signal_type: SignalType | None = None


class Arrival(NamedTuple):
    """The place of a record in a window, which goes from the newest arrival back, then by record id."""

    received_at: EpochMs
    record_id: str


class Activity(NamedTuple):
    """The place of a session in a list, which goes from the newest arrival back, then by session id."""

    last_received_at: EpochMs
    session_id: str


class Start(NamedTuple):
    """The place of a record in its session, which goes by start, then by record id."""

    start_ns: int
    record_id: str


# What is answered ----------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Appended:
    """What became of records. duplicate: stored before, or twice among them; they count as accepted."""

    new: int = 0
    duplicate: int = 0
    over_quota: int = 0

    @property
    def accepted(self) -> int:
        return self.new + self.duplicate


@dataclass(frozen=True, slots=True)
class Stored:
    """A record, and the session that it belongs to by now."""

    record: Record
    session_id: str


@dataclass(frozen=True, slots=True)
class SessionPage:
    """A session, or one trace of it, with some of its records."""

    scope: Scope
    summary: Summary
    records: list[Stored]


@dataclass(frozen=True, slots=True)
class Stats:
    """Numbers of a project. All but the last two: of what arrived in a window.

    records, failures, traces, by_signal: of the records that arrived in it. sessions, by_outcome, totals: of the
    sessions that something of arrived in it, whole. pending_records: answered, and not yet where reads look.
    """

    records: int
    failures: int
    traces: int
    failures_by_signal: dict[str, int]
    sessions: int
    sessions_by_outcome: dict[Outcome, int]
    totals: Totals
    oldest_received_at: EpochMs | None
    pending_records: int


@dataclass(frozen=True, slots=True)
class Lag:
    """How far reads are behind. pending_records: answered, and not yet where reads look. The newest that is there."""

    pending_records: int
    last_received_at: EpochMs | None


class Pace(NamedTuple):
    """How many records arrived in a part of a window, and how many of them failed."""

    records: int
    failures: int


class SpanStore(Protocol):
    """Keeps the records of all projects. Reads raise StoreUnavailable; writes raise db.StorageUnavailable."""

    @property
    def kind(self) -> StoreKind:
        """What it is made of."""
        ...

    async def append(self, project_id: str, records: Sequence[Record], *, quota: int, now: EpochMs) -> Appended:
        """Store what is new, all or nothing, and return once it is durable.

        A record is identified by its trace and span; the first write wins. quota: distinct records in the calendar
        month (UTC) of `now`, 0 for any number; charged in the same transaction. Records that do not fit are left out,
        the last of them first. They have all arrived at once: `received_at` is the same. Raises StorageUnavailable.
        """
        ...

    async def used(self, project_id: str, now: EpochMs) -> int:
        """How many records were charged in the calendar month (UTC) of `now`, deleted ones too."""
        ...

    async def lag(self, project_id: str) -> Lag:
        """How far reads of a project are behind what was answered."""
        ...

    async def window(
        self, project_id: str, since: EpochMs, until: EpochMs, *, only: Filter, limit: int, after: Arrival | None
    ) -> list[Stored]:
        """Records that arrived in a window, the newest first, then by record id; those behind `after`."""
        ...

    async def records(self, project_id: str, record_ids: Sequence[str]) -> list[Stored]:
        """These records, in the order of the ids; ids of none are left out."""
        ...

    async def trace(self, project_id: str, trace_id: str, *, limit: int) -> list[Stored]:
        """Records of a trace, by start and then record id."""
        ...

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
        """Sessions that something of arrived in a window, whole; the last active first, then by id; behind `after`.

        environment: only sessions with a record of exactly that text, whenever it arrived.
        """
        ...

    async def session(
        self, project_id: str, ref: str, since: EpochMs, until: EpochMs, *, limit: int, after: Start | None
    ) -> SessionPage | None:
        """The session with this id, else the last active one with this alias, else the trace with this id.

        A trace whose records (one at least) are in a session of another name is told by itself, with scope `trace`.
        None when there is nothing, or nothing of it arrived in the window. `limit` and `after` concern the records.
        """
        ...

    async def stats(self, project_id: str, since: EpochMs, until: EpochMs) -> Stats:
        """Numbers of a project."""
        ...

    async def pace(self, project_id: str, since: EpochMs, step_ms: int, steps: int) -> list[Pace]:
        """What arrived in each of `steps` parts of a window, which begins at `since` and has parts of `step_ms`."""
        ...

    async def examine(self, project_id: str, windows: Windows, judge: Callable[[Facts, Fetch], T]) -> T:
        """What `judge` says of the facts of both windows, with the function that fetches details of the current one.

        It runs in a thread; facts and details are of one state of the store. The facts' traces are streams, to be
        read once, the current window's before the baseline's, and before anything is fetched. When the caller is
        canceled it all ends soon, and nobody waits for that.
        """
        ...

    async def purge(self, before: EpochMs, limit: int) -> int:
        """Delete about `limit` records of any project that arrived before an instant, the oldest first.

        And whatever belonged to them alone. How many went; 0 when nothing is left.
        """
        ...

    async def erase(self, project_ids: Sequence[str], limit: int) -> int:
        """Delete about `limit` things of these projects; how many went, 0 when nothing of them is left."""
        ...

    async def spare_memory(self) -> None:
        """Let go of what this process keeps of files for whoever reads or writes them next, if that can be."""
        ...

    async def close(self) -> None:
        """Finish what was acknowledged and let go of everything."""
        ...
