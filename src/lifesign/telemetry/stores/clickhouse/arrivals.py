"""Which records of a window diagnosis reads, in ClickHouse: texts of subqueries over them.

Nearly all records have one row, and nearly all traces whose session somebody named one source that was never sent
twice. Of these a row is the record, and the best source is in `traces`. Only of traces with a record that has several
rows these have to be compared (`queries.members`), which for a million records takes too long and too much memory.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from lifesign.clock import EpochMs
from lifesign.diagnosis.facts import Windows
from lifesign.telemetry.stores.clickhouse.client import Asked
from lifesign.telemetry.stores.clickhouse.queries import IN_PROJECT, MEMBERSHIP, TIME, instant, members
from lifesign.telemetry.stores.clickhouse.rows import NARROW

COLUMNS: Final = tuple("at" if column.name == "received_at" else column.name for column in NARROW)
"""What a subquery may be asked for."""
SOURCE: Final = "source"
"""A column more: the session that a record names itself, or is known to be in; empty when its trace decides."""
_NEEDED: Final = ("trace_id", "span_id", "at", "environment")
_TOLD: Final = {"at": f"{TIME} AS at", SOURCE: f"own_session AS {SOURCE}"}


# What is equal by chance is looked at more closely, so that the quickest hash will do.
_HASH: Final = "cityHash64(trace_id, span_id)"
MANY_TRACES: Final = 500_000
"""To read so many of `traces` takes longer than to find out which of them are wanted."""


def _is_told_twice(asked: Asked, project_id: str, since: EpochMs, until: EpochMs) -> bool:
    """Whether any record of the traces of which something arrived in a range may have several rows."""
    parameters = {"project": project_id, "since": since, "until": until}
    arrived = f"(received_at >= {instant('since')} AND received_at < {instant('until')})"
    inside = f"FROM spans WHERE {IN_PROJECT} AND {arrived}"
    outside = f"FROM spans WHERE {IN_PROJECT} AND NOT {arrived}"
    [(rows, records)] = asked.rows(f"SELECT count(), uniqExact({_HASH}) {inside}", parameters, is_alone=True)
    if rows != records:
        return True
    if not asked.rows(f"SELECT 1 {outside} LIMIT 1", parameters):
        return False
    scattered = f"SELECT trace_id {outside} AND trace_id IN (SELECT trace_id {inside})"
    twice = f"""
        SELECT 1 FROM spans WHERE {IN_PROJECT} AND trace_id IN ({scattered})
        GROUP BY {_HASH} HAVING count() > 1 LIMIT 1"""
    return bool(asked.rows(twice, parameters, is_alone=True))


def _repeated(traces: str) -> str:
    """Those of some traces that have such a record."""
    return f"""
        SELECT trace_id FROM spans WHERE {IN_PROJECT} AND trace_id IN ({traces})
        GROUP BY trace_id HAVING count() > uniqExact(span_id)"""


def _named(only: str) -> str:
    """Traces with the best source of their session that there ever was: the row that merges leave."""
    return f"SELECT trace_id, session_id AS named FROM traces FINAL WHERE {IN_PROJECT} AND {only}"


def session_of(source: str) -> str:
    """The session of what names itself this one, or none, where `named` is the best source of its trace."""
    return f"multiIf({source} != '', {source}, named != '', named, toString(trace_id))"


@dataclass(frozen=True, slots=True)
class Arrivals:
    """The records of one window that are read.

    name: of the window among parameters. edge: of what arrived at `since` only what has this trace and span or larger
    ones; empty for all of it. has_repeated: whether any record may have several rows. has_many: whether the project has
    MANY_TRACES.
    """

    asked: Asked
    project_id: str
    name: str
    since: EpochMs
    until: EpochMs
    environment: str | None
    has_repeated: bool
    has_many: bool
    left_out: int = 0
    edge: str = ""

    @classmethod
    def of_both(cls, asked: Asked, beside: Asked, project_id: str, windows: Windows) -> "tuple[Arrivals, Arrivals]":
        """Those of the current window, and of the baseline, which is asked for beside it."""
        (since, until), (base_since, base_until) = windows.current, windows.baseline
        # The one begins where the other ends, but for what is verified.
        ranges = [(base_since, until)] if base_until == since else [windows.current, windows.baseline]
        is_told_twice = any(_is_told_twice(asked, project_id, *each) for each in ranges)
        [(traces,)] = asked.rows(f"SELECT count() FROM traces WHERE {IN_PROJECT}", {"project": project_id})
        has_many = traces > MANY_TRACES
        current, baseline = (
            cls(who, project_id, name, *arrived, windows.environment, is_told_twice, has_many)
            for who, name, arrived in ((asked, "current", windows.current), (beside, "baseline", windows.baseline))
        )
        return current.newest(windows.most_records), baseline.newest(windows.most_records)

    def newest(self, most: int) -> "Arrivals":
        """The same with the newest only, when there are more than so many."""
        [(count,)] = self.rows(f"SELECT count() FROM {self.records('at')}")
        if count <= most:
            return self
        by_arrival = f"SELECT at, count() AS records FROM {self.records('at')} GROUP BY at"
        newest_first = f"SELECT at, records, sum(records) OVER (ORDER BY at DESC) AS so_far FROM ({by_arrival})"
        [(at, later)] = self.rows(
            f"SELECT at, so_far - records FROM ({newest_first}) WHERE so_far >= {{most:UInt64}}"
            " ORDER BY at DESC LIMIT 1",
            most=most,
        )
        key = "concat(trace_id, span_id)"
        of_then = f"SELECT {key} AS key FROM {self.records('at')} WHERE at = {{then:Int64}}"
        paged = f"{of_then} ORDER BY key DESC LIMIT 1 OFFSET {{place:UInt64}}"
        [(edge,)] = self.rows(paged, then=at, place=most - later - 1)
        return replace(self, since=EpochMs(at), left_out=count - most, edge=edge)

    @property
    def effective_since(self) -> EpochMs | None:
        """Arrival of the oldest record read, when others were left out."""
        return self.since if self.left_out else None

    # Asking ---------------------------------------------------------------------------------------------------------
    @property
    def parameters(self) -> dict[str, Any]:
        """What subqueries of this window name."""
        return {
            "project": self.project_id,
            f"since_{self.name}": self.since,
            f"until_{self.name}": self.until,
            f"edge_{self.name}": self.edge,
            "environment": self.environment or "",
        }

    def rows(self, sql: str, **parameters: Any) -> Sequence[Sequence[Any]]:
        """What a query answers."""
        return self.asked.rows(sql, {**self.parameters, **parameters})

    def stream(self, sql: str, **parameters: Any) -> Iterator[Sequence[Any]]:
        """The same, row by row."""
        return self.asked.stream(sql, {**self.parameters, **parameters})

    def blocks(self, sql: str, **parameters: Any) -> Iterator[Sequence[Sequence[Any]]]:
        """The same, some rows at once, by column."""
        return self.asked.blocks(sql, {**self.parameters, **parameters})

    @property
    def _arrived(self) -> str:
        return f"received_at >= {instant(f'since_{self.name}')} AND received_at < {instant(f'until_{self.name}')}"

    @property
    def traces(self) -> str:
        """The traces of everything that arrived in the window, whichever row counts."""
        return f"SELECT trace_id FROM spans WHERE {IN_PROJECT} AND {self._arrived}"

    def records(self, *columns: str, has_session: bool = False, only: str = "1") -> str:
        """A subquery of the records with these columns, if asked for with their `session_id`.

        columns: may have SOURCE, which is cheaper than the session and tells it, see `named`. only: a condition on
        these columns, heeded before sessions are looked for.
        """
        names = tuple(dict.fromkeys((*_NEEDED, *(("own_session",) if has_session else ()), *columns)))
        told = ", ".join(_TOLD.get(name, name) for name in names)
        found = f"SELECT {told} FROM spans WHERE {IN_PROJECT} AND {self._arrived} AND {only}"
        if self.has_repeated:
            found += f" AND trace_id NOT IN ({_repeated(self.traces)})"
        chosen = ", ".join(names)
        if has_session:
            found = f"SELECT {chosen}, {session_of('own_session')} AS session_id FROM ({found}) AS s {self.named}"
            chosen += ", session_id"
        if self.has_repeated:
            kept = tuple(name for name in dict.fromkeys((*names, *MEMBERSHIP)) if name != SOURCE)
            compared = members(kept, f"({_repeated(self.traces)})")
            settled = ", ".join(f"session_id AS {SOURCE}" if name == SOURCE else name for name in chosen.split(", "))
            found = f"SELECT {chosen} FROM ({found}) UNION ALL SELECT {settled} FROM {compared} WHERE {only}"
        return f"(SELECT {chosen} FROM ({found}) WHERE {self._is_read})"

    @property
    def named(self) -> str:
        """A join with the best source of the session of each trace, as `named`, for `session_of`."""
        return f"ANY LEFT JOIN ({_named(f'trace_id IN ({self.traces})')}) AS n USING trace_id"

    def traces_named(self, traces: str) -> str:
        """A subquery of traces, each once, with `named`: the other way round, as these are fewer than have names."""
        names = _named(f"trace_id IN ({self.traces})" if self.has_many else "1")
        return f"({names}) AS n RIGHT JOIN ({traces}) AS s USING trace_id"

    @property
    def _is_read(self) -> str:
        since, until = f"{{since_{self.name}:Int64}}", f"{{until_{self.name}:Int64}}"
        conditions = [f"at >= {since} AND at < {until}"] if self.has_repeated else ["1"]
        if self.edge:
            conditions.append(f"(at > {since} OR concat(trace_id, span_id) >= {{edge_{self.name}:String}})")
        if self.environment is not None:
            conditions.append("environment = {environment:String}")
        return " AND ".join(conditions)
