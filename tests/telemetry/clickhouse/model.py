"""The store as it would be if it were a list."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple

from lifesign.clock import EpochMs
from lifesign.telemetry.records import Record
from lifesign.telemetry.sessions import Summary, Totals, session_of, summary_of, trace_session
from lifesign.telemetry.store import Filter, Stats, Stored


class Model:
    """Records of one project, the first of each id."""

    def __init__(self) -> None:
        self._records: dict[str, Record] = {}

    def append(self, records: Sequence[Record]) -> None:
        for record in records:
            self._records.setdefault(record.record_id, record)

    def stored(self) -> list[Stored]:
        """Everything, by record id."""
        told = []
        for record in sorted(self._records.values(), key=lambda each: each.record_id):
            trace = trace_session(each for each in self._records.values() if each.trace_id == record.trace_id)
            told.append(Stored(record, session_of(record, trace)))
        return told

    def window(self, since: int, until: int, only: Filter) -> list[Stored]:
        found = [
            each
            for each in self.stored()
            if since <= each.record.received_at < until
            and only.environment in {None, each.record.environment}
            and only.signal_type in {None, each.record.signal_type}
            and only.trace_id in {None, each.record.trace_id}
            and only.session_id in {None, each.session_id}
        ]
        return sorted(found, key=lambda each: -each.record.received_at)

    def members(self) -> dict[str, list[Record]]:
        members: dict[str, list[Record]] = {}
        for each in self.stored():
            members.setdefault(each.session_id, []).append(each.record)
        return members

    def sessions(self, since: int, until: int, environment: str | None) -> list[Summary]:
        found = [
            self.summary(session_id, records)
            for session_id, records in self.members().items()
            if any(since <= record.received_at < until for record in records)
            and (environment is None or any(record.environment == environment for record in records))
        ]
        return sorted(found, key=lambda each: (-each.last_received_at, each.session_id))

    @staticmethod
    def summary(session_id: str, records: Sequence[Record]) -> Summary:
        aliases = {alias for record in records for alias in record.body.aliases}
        return summary_of(session_id, records, aliases)

    def detail(self, ref: str, since: int, until: int) -> tuple[str, Summary, list[Record]] | None:
        members = self.members()
        with_alias = [
            self.summary(session_id, records)
            for session_id, records in members.items()
            if any(ref in record.body.aliases for record in records)
        ]
        if ref in members:
            name, scope, records = ref, "session", members[ref]
        elif with_alias:
            name = min(with_alias, key=lambda each: (-each.last_received_at, each.session_id)).session_id
            scope, records = "session", members[name]
        else:
            name, scope = ref.lower(), "session" if ref.lower() in members else "trace"
            of_trace = [record for record in self._records.values() if record.trace_id == name]
            records = members.get(name, of_trace)
        if not any(since <= record.received_at < until for record in records):
            return None
        if scope == "trace":
            named = trace_session(records)
            assert named is not None
            name = named.session_id
        in_order = sorted(records, key=lambda record: (record.start_ns, record.record_id))
        return scope, self.summary(name, records), in_order

    def stats(self, since: int, until: int) -> Stats:
        arrived = [each.record for each in self.window(since, until, Filter())]
        sessions = self.sessions(since, until, None)
        sums = [
            None if all(value is None for value in column) else sum(value or 0 for value in column)
            for column in zip(*(astuple(each.totals) for each in sessions), strict=True)
        ]
        return Stats(
            records=len(arrived),
            failures=sum(record.is_failing for record in arrived),
            traces=len({record.trace_id for record in arrived}),
            failures_by_signal=dict(Counter(record.signal_type for record in arrived if record.is_failing)),
            sessions=len(sessions),
            sessions_by_outcome=dict(Counter(each.outcome for each in sessions)),
            totals=Totals(*sums),
            oldest_received_at=min((EpochMs(each.received_at) for each in self._records.values()), default=None),
            pending_records=0,
        )
