"""What the rules of diagnosis read of a project, and the details of what fired. Spec "Diagnosis", section 3.

ClickHouse keeps no snapshots: what other nodes deliver between two questions is in the answer to the second. The
windows are over and this node's spool is drained, so that little does.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeVar

from lifesign.diagnosis.details import Details, Fetch, Selected, Values, Wanted
from lifesign.diagnosis.facts import (
    ABNORMAL_REASONS,
    FUTURE_NS,
    HEAVY_SESSION,
    LARGE_INPUT,
    MANY_AGENTS,
    MANY_ATTEMPTS,
    MANY_CALLS,
    NS_PER_MS,
    REPEATED,
    TWO_EMPTY,
    Facts,
    ModelFacts,
    OperationFacts,
    SessionTokens,
    WindowFacts,
    Windows,
    is_of_interest,
    is_row,
)
from lifesign.diagnosis.findings import Selector
from lifesign.diagnosis.preparation import Key, Placed, in_order
from lifesign.telemetry.masks import masked_operation
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED
from lifesign.telemetry.stores.clickhouse import queries
from lifesign.telemetry.stores.clickhouse.arrivals import COLUMNS, Arrivals
from lifesign.telemetry.stores.clickhouse.client import Asked
from lifesign.telemetry.stores.clickhouse.rows import STATUSES, message_in, narrow_of, record_of, signed, unsigned
from lifesign.telemetry.stores.gathered import Gathered, Tally

T = TypeVar("T")
_FAILING: Final = f"status = {STATUSES.index('error')}"
_IS_ABNORMAL: Final = (
    f"kind = 'llm' AND lower(finish_reason) IN ({', '.join(repr(each) for each in sorted(ABNORMAL_REASONS))})"
)
_IS_ROW: Final = f"""(signal_type != 'info' OR {_FAILING} OR bitAnd(flags, {BLOCKED}) != 0
  OR ifNull(attempt, 0) >= {MANY_ATTEMPTS} OR ifNull({_IS_ABNORMAL}, 0))"""
_KEYS_AT_ONCE: Final = 2000
_CHOSEN_AT_ONCE: Final = 400
_PLACED: Final = ", ".join(COLUMNS)


def examine(
    asked: Asked,
    project_id: str,
    windows: Windows,
    judge: Callable[[Facts, Fetch], T],
    *,
    most_of_a_session: int,
    pending: int,
) -> T:
    """What `judge` says; see SpanStore.examine. pending: how many records of the project wait in the spool."""
    current = Arrivals.of(asked, project_id, windows, windows.current, "current")
    baseline = Arrivals.of(asked, project_id, windows, windows.baseline, "baseline")
    sessions = _sessions(current, most_of_a_session)
    notices = {
        **_notices(current),
        "no_session_id": sessions.unnamed,
        "pending_records": pending,
        "window_truncated": current.left_out,
    }
    facts = Facts(
        _window(current, sessions, most_of_a_session),
        _window(baseline, _sessions(baseline, most_of_a_session), most_of_a_session),
        {code: number for code, number in notices.items() if number},
        current.effective_since,
    )
    return judge(facts, lambda wanted: _fetched(current, wanted))


def _window(arrivals: Arrivals, sessions: "_Sessions", most_of_a_session: int) -> WindowFacts:
    operations = _operations(arrivals)
    rows, recoveries = _looked_at(arrivals)
    cuts = [_cut(arrivals, session_id, most_of_a_session) for session_id in sessions.long]
    return WindowFacts(
        records=sum(each.records for each in operations),
        sessions=sessions.many,
        operations=operations,
        models=_models(arrivals),
        token_sums=sessions.tokens,
        heavy_sessions=sessions.heavy,
        rows=rows,
        recoveries=recoveries,
        traces=_traces(arrivals, dict(zip(sessions.long, cuts, strict=True))),
        sessions_cut=len(cuts),
    )


# Sums ----------------------------------------------------------------------------------------------------------------
def _operations(arrivals: Arrivals) -> list[OperationFacts]:
    records = arrivals.records("op_hash", "kind", "operation", "status", "bucket")
    names: dict[int, tuple[str, str]] = {}
    failures: Counter[int] = Counter()
    buckets: dict[int, dict[int, int]] = defaultdict(dict)
    for op_hash, kind, operation, is_failing, counts in arrivals.stream(f"""
        SELECT op_hash, any(kind), any(operation), {_FAILING} AS is_failing, sumMap([bucket], [toUInt64(1)])
        FROM {records} GROUP BY op_hash, is_failing"""):
        names[op_hash] = kind, operation
        if is_failing:
            failures[op_hash] += sum(counts[1])
        else:
            buckets[op_hash] = dict(zip(*counts, strict=True))
    return [
        OperationFacts(
            signed(op_hash) or 0,
            kind,
            masked_operation(operation),
            failures[op_hash] + sum(buckets[op_hash].values()),
            failures[op_hash],
            buckets[op_hash],
        )
        for op_hash, (kind, operation) in names.items()
    ]


def _models(arrivals: Arrivals) -> list[ModelFacts]:
    rows = arrivals.rows(f"""
        SELECT ifNull(model, '') AS name, count(), count(cost), sum(toInt128(ifNull(cost, 0)))
        FROM {arrivals.records("model", "kind", "cost")} WHERE kind = 'llm' GROUP BY name""")
    return [ModelFacts(name, count, int(cost) if known else None) for name, count, known, cost in rows]


class _Sessions(NamedTuple):
    """Of a window.

    unnamed: records whose session is called like their trace. long: sessions of more records than rules of order read.
    """

    many: int
    unnamed: int
    tokens: list[int]
    heavy: list[SessionTokens]
    long: list[str]


def _sessions(arrivals: Arrivals, most_of_a_session: int) -> _Sessions:
    is_metered = "kind IN ('llm', 'embedding') AND total_tok IS NOT NULL"
    found = _Sessions(0, 0, [], [], [])
    count = unnamed = 0
    rows = arrivals.stream(f"""
        SELECT session_id, count(), countIf({is_metered}), sumIf(toInt128(ifNull(total_tok, 0)), {is_metered}),
          minIf(toString(agent), {is_metered} AND agent IS NOT NULL), countIf({is_metered} AND agent IS NOT NULL),
          countIf(session_id = toString(trace_id))
        FROM {arrivals.records("kind", "total_tok", "agent", has_session=True)} GROUP BY session_id""")
    for session_id, records, metered, tokens, agent, with_agent, like_trace in rows:
        count += 1
        unnamed += like_trace
        if records > most_of_a_session:
            found.long.append(session_id)
        if metered:
            found.tokens.append(int(tokens))
            if tokens > HEAVY_SESSION:
                found.heavy.append(SessionTokens(session_id, agent if with_agent else None, int(tokens)))
    return found._replace(many=count, unnamed=unnamed)


def _notices(arrivals: Arrivals) -> dict[str, int]:
    records = arrivals.records("flags", "start_ns", "parent_span_id", "kind", "model", "in_tok", "out_tok", "total_tok")
    stored = f"""
        SELECT trace_id, span_id FROM spans WHERE {queries.IN_PROJECT} AND (trace_id, toString(span_id)) IN (
          SELECT trace_id, parent_span_id FROM {arrivals.records("parent_span_id")} WHERE parent_span_id != '')"""
    [row] = arrivals.rows(f"""
        SELECT countIf(bitAnd(flags, {CLOCK_SKEW}) != 0), countIf(start_ns > at * {NS_PER_MS} + {FUTURE_NS}),
          countIf(parent_span_id != '' AND (trace_id, parent_span_id) NOT IN (
            SELECT trace_id, toString(span_id) FROM ({stored}))),
          countIf(bitAnd(flags, {TRUNCATED}) != 0),
          countIf(kind IN ('llm', 'agent') AND model IS NULL AND in_tok IS NULL AND out_tok IS NULL
            AND total_tok IS NULL)
        FROM {records}""")
    codes = (
        "clock_skew",
        "future_spans",
        "orphan_parents",
        "truncated_records",
        "unknown_convention",
    )
    return dict(zip(codes, row, strict=True))


# Records that are looked at one by one -------------------------------------------------------------------------------
def _whole(arrivals: Arrivals, only: str) -> str:
    return f"SELECT {_PLACED}, session_id FROM {arrivals.records(*COLUMNS, has_session=True, only=only)}"


def _placed(row: Sequence[Any]) -> Placed:
    return Placed(row[-1], narrow_of(row))


def _looked_at(arrivals: Arrivals) -> tuple[list[Placed], list[Placed]]:
    """The rows, and the records that do not fail and share trace, parent and operation key with one that does.

    All columns of everything that arrived are read for that, so both are asked for at once.
    """
    failing = arrivals.records("parent_span_id", "op_hash", "status", only=_FAILING)
    is_either = f"""({_IS_ROW} OR (trace_id, parent_span_id, op_hash) IN (
        SELECT trace_id, parent_span_id, op_hash FROM {failing}))"""
    found = in_order(map(_placed, arrivals.stream(_whole(arrivals, is_either))))
    failed = {(r.trace_id, r.parent_id, r.op_hash) for _, r in found if r.is_failing}
    recoveries = [
        placed
        for placed in found
        if not placed.record.is_failing
        and (placed.record.trace_id, placed.record.parent_id, placed.record.op_hash) in failed
    ]
    return [placed for placed in found if is_row(placed)], recoveries


_Place = tuple[int, str, str]
"""Start, trace and span of a record: what sorts it."""


def _cut(arrivals: Arrivals, session_id: str, most: int) -> _Place:
    """The last record of a session that is read in rules of order."""
    [row] = arrivals.rows(
        f"""
        SELECT start_ns, toString(trace_id), toString(span_id) FROM {arrivals.records("start_ns", has_session=True)}
        WHERE session_id = {{session:String}} ORDER BY start_ns, trace_id, span_id LIMIT 1 OFFSET {{place:UInt64}}""",
        session=session_id,
        place=most - 1,
    )
    return row[0], row[1], row[2]


def _traces(arrivals: Arrivals, cuts: Mapping[str, _Place]) -> Iterator[list[Placed]]:
    """The traces that a rule of order may concern, as far as their sessions are read."""
    tools = arrivals.records("kind", "tool", "args_hash", "flags")
    steps = arrivals.records("kind", "in_tok", "status")
    chosen = f"""
        SELECT trace_id FROM {steps} GROUP BY trace_id
        HAVING countIf(kind = 'agent') >= {MANY_AGENTS} OR countIf(kind = 'tool' AND {_FAILING}) > 0
          OR countIf(kind = 'llm') >= {MANY_CALLS} AND countIf(kind = 'llm' AND in_tok >= {LARGE_INPUT}) > 0
        UNION ALL
        SELECT trace_id FROM {tools} WHERE kind = 'tool' AND args_hash != 0
        GROUP BY trace_id, tool, args_hash HAVING count() >= {REPEATED}
        UNION ALL
        SELECT trace_id FROM {tools} WHERE kind = 'tool' AND bitAnd(flags, {EMPTY_RESULT}) != 0
        GROUP BY trace_id, tool HAVING count() >= {TWO_EMPTY}"""
    whole = _whole(arrivals, f"trace_id IN ({chosen})")
    rows = arrivals.stream(f"{whole} ORDER BY trace_id, start_ns, span_id")
    for _, group in groupby(map(_placed, rows), key=lambda placed: placed.record.trace_id):
        read = [placed for placed in group if not cuts or _is_before(placed, cuts.get(placed.session_id))]
        if read and is_of_interest(read):
            yield read


def _is_before(placed: Placed, last: _Place | None) -> bool:
    record = placed.record
    return last is None or (record.start_ns, record.trace_id, record.span_id) <= last


# Details -------------------------------------------------------------------------------------------------------------
def _fetched(arrivals: Arrivals, wanted: Wanted) -> Details:
    return Details(_selected(arrivals, wanted.selectors), _values(arrivals, wanted), _messages(arrivals, wanted))


def _text(value: Any) -> str | None:  # Any: what a text is in a tally here
    return value if isinstance(value, str) else None


def _values(arrivals: Arrivals, wanted: Wanted) -> dict[int | None, Values]:
    tallies: dict[int | None, Tally] = {op_hash: Tally() for op_hash in wanted.op_hashes}
    if tallies:
        fields = "version, environment, agent, model, tool"
        records = arrivals.records("op_hash", *fields.split(", "))
        for op_hash, *values, count in arrivals.stream(
            f"SELECT op_hash, {fields}, count() FROM {records} GROUP BY op_hash, {fields}"
        ):
            for each in (None, signed(op_hash)):
                if each in tallies:
                    tallies[each].add(values, count)
    return {op_hash: tally.values(_text) for op_hash, tally in tallies.items()}


def _messages(arrivals: Arrivals, wanted: Wanted) -> dict[Key, str]:
    """All failures of the window are read, when many are wanted: by their ids it would take longer."""
    found: dict[Key, str] = {}
    missing = set(wanted.messages)
    if len(missing) > _KEYS_AT_ONCE:
        failing = arrivals.records("status", "body", only=_FAILING)
        for trace_id, span_id, body in arrivals.stream(f"SELECT trace_id, span_id, body FROM {failing}"):
            key = (trace_id, span_id)
            if key in missing:
                missing.discard(key)
                _note(found, key, message_in(body))
    for some in _parts(sorted(missing), _KEYS_AT_ONCE):
        parameters = {
            "traces": sorted({trace_id for trace_id, _ in some}),
            "keys": [f"{trace_id}{span_id}" for trace_id, span_id in some],
        }
        for row in arrivals.stream(queries.RECORDS, **parameters):
            record = record_of(row, row[-1])
            _note(found, (record.trace_id, record.span_id), record.body.message)
    return found


def _note(found: dict[Key, str], key: Key, message: str | None) -> None:
    if message is not None:
        found[key] = message


class _Row:
    """A record as it is counted, see `gathered.LOOKED_AT`."""

    __slots__ = ("_record", "id", "session")

    def __init__(self, placed: Placed) -> None:
        self.id = placed
        self.session, self._record = placed

    def __getattr__(self, name: str) -> Any:  # Any: a member of a record
        return getattr(self._record, name)


def _selected(arrivals: Arrivals, selectors: Sequence[Selector]) -> dict[Selector, Selected]:
    gathered: dict[Selector, Gathered] = defaultdict(Gathered)
    by_operation: dict[int, list[Selector]] = defaultdict(list)
    by_model: dict[str, list[Selector]] = defaultdict(list)
    by_session: dict[str, list[Selector]] = defaultdict(list)
    for each in selectors:
        if each.op_hash is not None:
            by_operation[each.op_hash].append(each)
        elif each.sessions is None:
            by_model[each.model or ""].append(each)
        else:
            for session_id in set(each.sessions):
                by_session[session_id].append(each)
    for some in _parts(list(by_operation)):
        slow = f"NOT {_FAILING} AND op_hash IN {{chosen:Array(UInt64)}} AND bucket > {{least:Int32}}"
        least = min(each.above_bucket or -1 for op_hash in some for each in by_operation[op_hash])
        for placed in _found(arrivals, slow, chosen=[unsigned(op_hash) for op_hash in some], least=least):
            for each in by_operation[placed.record.op_hash]:
                if each.above_bucket is None or placed.record.bucket > each.above_bucket:
                    gathered[each].add(_Row(placed), each.rank)
    of_models = "kind = 'llm'"
    for some in _parts(list(by_model)):
        named = f"{of_models} AND ifNull(model, '') IN {{chosen:Array(String)}}"
        for placed in _found(arrivals, named, chosen=some):
            for each in by_model[placed.record.model or ""]:
                gathered[each].add(_Row(placed), each.rank)
    for some in _parts(list(by_session)):
        of_sessions = f"{_whole(arrivals, of_models)} WHERE session_id IN {{chosen:Array(String)}}"
        for placed in map(_placed, arrivals.stream(of_sessions, chosen=some)):
            for each in by_session[placed.session_id]:
                gathered[each].add(_Row(placed), each.rank)
    return {selector: each.told(each.top(), _text) for selector, each in gathered.items()}


def _found(arrivals: Arrivals, condition: str, **parameters: Any) -> Iterator[Placed]:
    return map(_placed, arrivals.stream(_whole(arrivals, condition), **parameters))


def _parts(keys: Sequence[Any], at_once: int = _CHOSEN_AT_ONCE) -> Iterator[Sequence[Any]]:
    """So few at once that a server takes them: parameters of 128 kB each."""
    return (keys[start : start + at_once] for start in range(0, len(keys), at_once))
