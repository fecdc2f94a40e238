"""The store that is plainly right: a list of records, over which the pure rules are run each time somebody asks."""

from collections import Counter
from dataclasses import astuple, dataclass, field

from lifesign.clock import EpochMs
from lifesign.telemetry.records import Record
from lifesign.telemetry.sessions import Summary, Totals, TraceSession, session_of, summary_of, trace_session
from lifesign.telemetry.store import Appended, Filter, Stats

Key = tuple[str, str]


@dataclass
class Model:
    """The records of one project."""

    kept: dict[Key, Record] = field(default_factory=dict)
    names: dict[str, TraceSession | None] = field(default_factory=dict)
    used: int = 0

    def append(self, records: list[Record], quota: int) -> Appended:
        new: list[Record] = []
        duplicate = over = 0
        for record in records:
            key = (record.trace_id, record.span_id)
            if key in self.kept:
                duplicate += 1
            elif quota and self.used >= quota:
                over += 1
            else:
                self.kept[key] = record
                self.used += 1
                new.append(record)
        for trace_id in {each.trace_id for each in new}:
            some = [each for each in new if each.trace_id == trace_id]
            self.names[trace_id] = trace_session(some, self.names.get(trace_id))
        return Appended(len(new), duplicate, over)

    def purge(self, before: EpochMs) -> None:
        self.kept = {key: each for key, each in self.kept.items() if each.received_at >= before}
        traces = {trace_id for trace_id, _ in self.kept}
        self.names = {trace_id: name for trace_id, name in self.names.items() if trace_id in traces}

    def session(self, record: Record) -> str:
        return session_of(record, self.names[record.trace_id])

    def members(self) -> dict[str, list[Record]]:
        found: dict[str, list[Record]] = {}
        for record in self.kept.values():
            found.setdefault(self.session(record), []).append(record)
        return found

    def window(self, since: int, until: int, only: Filter) -> list[str]:
        """Record ids, in order."""
        chosen = [
            each
            for each in self.kept.values()
            if since <= each.received_at < until
            and only.environment in {None, each.environment}
            and only.trace_id in {None, each.trace_id}
            and only.signal_type in {None, each.signal_type}
            and only.session_id in {None, self.session(each)}
        ]
        return [each.record_id for each in sorted(chosen, key=lambda each: (-each.received_at, each.record_id))]

    def sessions(self, since: int, until: int, environment: str | None) -> list[Summary]:
        chosen = [
            self.summary(session_id, members)
            for session_id, members in self.members().items()
            if any(since <= each.received_at < until for each in members)
            and (environment is None or any(each.environment == environment for each in members))
        ]
        return sorted(chosen, key=lambda each: (-each.last_received_at, each.session_id))

    def summary(self, session_id: str, members: list[Record]) -> Summary:
        return summary_of(session_id, members, {alias for each in members for alias in each.body.aliases})

    def of_trace(self, trace_id: str) -> Summary:
        """Of a trace whose records are in sessions of other names."""
        name = self.names[trace_id]
        assert name is not None
        return self.summary(name.session_id, self.records_of(trace_id))

    def records_of(self, trace_id: str) -> list[Record]:
        its = [each for each in self.kept.values() if each.trace_id == trace_id]
        return sorted(its, key=lambda each: (each.start_ns, each.record_id))

    def stats(self, since: int, until: int) -> Stats:
        ids = {*self.window(since, until, Filter())}
        arrived = [each for each in self.kept.values() if each.record_id in ids]
        sessions = self.sessions(since, until, None)
        columns = zip(*(astuple(each.totals) for each in sessions), strict=True)
        told = [[value for value in column if value is not None] for column in columns]
        return Stats(
            records=len(arrived),
            failures=sum(each.status == "error" for each in arrived),
            traces=len({each.trace_id for each in arrived}),
            failures_by_signal=dict(Counter(each.signal_type for each in arrived if each.status == "error")),
            sessions=len(sessions),
            sessions_by_outcome=dict(Counter(each.outcome for each in sessions)),
            totals=Totals(*(sum(values) if values else None for values in told)),
            oldest_received_at=min((each.received_at for each in self.kept.values()), default=None),
            pending_records=0,
        )
