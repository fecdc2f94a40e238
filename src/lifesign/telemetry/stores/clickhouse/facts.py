"""What the rules of diagnosis read of a project, and the details of what fired. Spec "Diagnosis", section 3.

ClickHouse keeps no snapshots: what other nodes deliver between two questions is in the answer to the second. The
windows are over and this node's spool is drained, so that little does.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import groupby, islice
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
from lifesign.diagnosis.preparation import Key, Placed, order_of
from lifesign.telemetry.masks import masked_operation
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED
from lifesign.telemetry.stores.clickhouse import queries
from lifesign.telemetry.stores.clickhouse.arrivals import COLUMNS, SOURCE, Arrivals, session_of
from lifesign.telemetry.stores.clickhouse.client import Asked
from lifesign.telemetry.stores.clickhouse.rows import STATUSES, message_in, narrows_of, record_of, signed, unsigned
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
_OFTEN_EQUAL: Final = frozenset(map(COLUMNS.index, ("trace_id", "parent_span_id", "operation", "own_session")))
_SIBLINGS: Final = "sipHash64(trace_id, parent_span_id, op_hash)"
_OF_FAILURES: Final = -1
MOST_HELD: Final = 100_000


class Most(NamedTuple):
    """How many records at most.

    of_a_session: of one that rules of order read. held: in memory at once, to be sorted here; of more than that, traces
    are read one by one.
    """

    of_a_session: int
    held: int


def examine(
    asked: Asked,
    project_id: str,
    windows: Windows,
    judge: Callable[[Facts, Fetch], T],
    *,
    most: Most,
    pending: int,
) -> T:
    """What `judge` says; see SpanStore.examine. pending: how many records of the project wait in the spool."""
    current, baseline = Arrivals.of_both(asked, project_id, windows)
    sessions = _sessions(current, most.of_a_session)
    notices = {
        **_notices(current),
        "no_session_id": sessions.unnamed,
        "pending_records": pending,
        "window_truncated": current.left_out,
    }
    facts = Facts(
        _window(current, sessions, most),
        _window(baseline, _sessions(baseline, most.of_a_session), most),
        {code: number for code, number in notices.items() if number},
        current.effective_since,
    )
    return judge(facts, lambda wanted: _fetched(current, wanted))


def _window(arrivals: Arrivals, sessions: "_Sessions", most: Most) -> WindowFacts:
    operations = _operations(arrivals)
    cuts = {session_id: _cut(arrivals, session_id, most.of_a_session) for session_id in sessions.long}
    rows, recoveries, traces = _looked_at(arrivals, cuts, most.held)
    return WindowFacts(
        records=sum(each.records for each in operations),
        sessions=sessions.many,
        operations=operations,
        models=_models(arrivals),
        token_sums=sessions.tokens,
        heavy_sessions=sessions.heavy,
        rows=rows,
        recoveries=recoveries,
        traces=_streamed_traces(arrivals, cuts) if traces is None else traces,
        sessions_cut=len(cuts),
    )


# Sums ----------------------------------------------------------------------------------------------------------------
def _operations(arrivals: Arrivals) -> list[OperationFacts]:
    names: dict[int, tuple[str, str]] = {}
    failures: Counter[int] = Counter()
    buckets: dict[int, dict[int, int]] = defaultdict(dict)
    for op_hash, kind, operation, bucket, records in arrivals.stream(f"""
        SELECT op_hash, any(kind), any(operation), if({_FAILING}, -1, toInt32(bucket)) AS mark, count()
        FROM {arrivals.records("op_hash", "kind", "operation", "status", "bucket")} GROUP BY op_hash, mark"""):
        names[op_hash] = kind, operation
        if bucket == _OF_FAILURES:
            failures[op_hash] += records
        else:
            buckets[op_hash][bucket] = records
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
    found = _Sessions(0, 0, [], [], [])
    count = unnamed = 0
    is_metered = "kind IN ('llm', 'embedding') AND total_tok IS NOT NULL"
    # Trace by trace first: sessions are looked for of traces then, of which there are fewer.
    of_traces = f"""
        SELECT trace_id, {SOURCE}, count() AS records, countIf({is_metered}) AS metered,
          sumIf(toInt128(ifNull(total_tok, 0)), {is_metered}) AS tokens,
          minIf(toString(agent), {is_metered} AND agent IS NOT NULL) AS first_agent,
          countIf({is_metered} AND agent IS NOT NULL) AS with_agent
        FROM {arrivals.records("kind", "total_tok", "agent", SOURCE)} GROUP BY trace_id, {SOURCE}"""
    rows = arrivals.stream(f"""
        SELECT session_id, sum(records), sum(metered), sum(tokens), minIf(first_agent, with_agent > 0), sum(with_agent),
          sumIf(records, session_id = toString(trace_id))
        FROM (SELECT *, {session_of(SOURCE)} AS session_id FROM ({of_traces}) AS s {arrivals.named})
        GROUP BY session_id""")
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
    records = arrivals.records("at", "flags", "start_ns", "kind", "model", "in_tok", "out_tok", "total_tok")
    [row] = arrivals.rows(f"""
        SELECT countIf(bitAnd(flags, {CLOCK_SKEW}) != 0), countIf(start_ns > at * {NS_PER_MS} + {FUTURE_NS}),
          countIf(bitAnd(flags, {TRUNCATED}) != 0),
          countIf(kind IN ('llm', 'agent') AND model IS NULL AND in_tok IS NULL AND out_tok IS NULL
            AND total_tok IS NULL)
        FROM {records}""")
    codes = ("clock_skew", "future_spans", "truncated_records", "unknown_convention")
    return {**dict(zip(codes, row, strict=True)), "orphan_parents": _orphans(arrivals)}


def _orphans(arrivals: Arrivals) -> int:
    """How many records have a parent that is not stored.

    Nearly all parents are beside their children; only of traces where some are not is the whole store asked.
    """
    lacking = f"""
        SELECT trace_id FROM {arrivals.records("parent_span_id")} GROUP BY trace_id
        HAVING length(groupUniqArrayIf(parent_span_id, parent_span_id != '') AS parents)
          > length(arrayIntersect(parents, groupArray(toString(span_id))))"""
    if not arrivals.rows(f"{lacking} LIMIT 1"):
        return 0
    stored = f"""
        SELECT trace_id, toString(span_id) FROM spans WHERE {queries.IN_PROJECT} AND trace_id IN ({lacking})"""
    [(count,)] = arrivals.rows(f"""
        SELECT count() FROM {arrivals.records("parent_span_id", only=f"trace_id IN ({lacking})")}
        WHERE parent_span_id != '' AND (trace_id, parent_span_id) NOT IN ({stored})""")
    return int(count)


# Records that are looked at one by one -------------------------------------------------------------------------------
def _whole(arrivals: Arrivals, only: str) -> str:
    return f"SELECT {_PLACED}, session_id FROM {arrivals.records(*COLUMNS, has_session=True, only=only)}"


def _placed(arrivals: Arrivals, sql: str, **parameters: Any) -> Iterator[Placed]:
    """What a query for `_whole` answers."""
    # Many records have the same texts, of which one each is enough.
    texts: dict[str, str] = {}
    for columns in arrivals.blocks(sql, **parameters):
        shared = list(columns)
        for place in _OFTEN_EQUAL:
            shared[place] = list(map(texts.setdefault, columns[place], columns[place]))
        yield from map(Placed, shared[-1], narrows_of(shared))


_Siblings = tuple[str, str, int]


def _siblings(placed: Placed) -> _Siblings:
    return placed.record.trace_id, placed.record.parent_id, placed.record.op_hash


class _LookedAt(NamedTuple):
    """traces: None when they are too many to be held."""

    rows: list[Placed]
    recoveries: list[Placed]
    traces: list[list[Placed]] | None


def _looked_at(arrivals: Arrivals, cuts: Mapping[str, "_Place"], most_held: int) -> _LookedAt:
    """The rows, the records that do not fail and share trace, parent and operation key with one that does, and traces.

    All columns of everything that arrived are read for any of these, so all are asked for at once. ClickHouse takes
    longer to sort wide rows than Python to sort what it has of them anyway.
    """
    failing = arrivals.records("parent_span_id", "op_hash", "status", only=_FAILING)
    is_sibling = f"{_SIBLINGS} IN (SELECT {_SIBLINGS} FROM {failing})"
    is_any = f"({_IS_ROW} OR {is_sibling} OR trace_id IN ({_chosen(arrivals)}))"
    found = list(islice(_placed(arrivals, _whole(arrivals, is_any)), most_held + 1))
    are_held = len(found) <= most_held
    if not are_held:
        found = list(_placed(arrivals, _whole(arrivals, f"({_IS_ROW} OR {is_sibling})")))
    found.sort(key=order_of)
    rows = [placed for placed in found if is_row(placed)]
    failed = {_siblings(placed) for placed in rows if placed.record.is_failing}
    # Rows may recover, too: a slow success is one.
    recoveries = [placed for placed in found if not placed.record.is_failing and failed and _siblings(placed) in failed]
    return _LookedAt(rows, recoveries, list(_of_interest(_in_traces(found), cuts)) if are_held else None)


def _in_traces(ordered: Iterable[Placed]) -> Iterator[list[Placed]]:
    """Records that are in order, trace by trace, by id."""
    by_trace: dict[str, list[Placed]] = defaultdict(list)
    for placed in ordered:
        by_trace[placed.record.trace_id].append(placed)
    return (steps for _, steps in sorted(by_trace.items()))


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


def _chosen(arrivals: Arrivals) -> str:
    """The traces that a rule of order may concern: a subquery of their ids."""
    tools = arrivals.records("kind", "tool", "args_hash", "flags")
    steps = arrivals.records("kind", "in_tok", "status")
    return f"""
        SELECT trace_id FROM {steps} GROUP BY trace_id
        HAVING countIf(kind = 'agent') >= {MANY_AGENTS} OR countIf(kind = 'tool' AND {_FAILING}) > 0
          OR countIf(kind = 'llm') >= {MANY_CALLS} AND countIf(kind = 'llm' AND in_tok >= {LARGE_INPUT}) > 0
        UNION ALL
        SELECT any(trace_id) FROM {tools} WHERE kind = 'tool' AND args_hash != 0
        GROUP BY sipHash64(trace_id, ifNull(tool, ''), tool IS NULL, args_hash) HAVING count() >= {REPEATED}
        UNION ALL
        SELECT trace_id FROM {tools} WHERE kind = 'tool' AND bitAnd(flags, {EMPTY_RESULT}) != 0
        GROUP BY trace_id, tool HAVING count() >= {TWO_EMPTY}"""


def _streamed_traces(arrivals: Arrivals, cuts: Mapping[str, _Place]) -> Iterator[list[Placed]]:
    """The traces that a rule of order may concern, one by one."""
    whole = _whole(arrivals, f"trace_id IN ({_chosen(arrivals)})")
    ordered = _placed(arrivals, f"{whole} ORDER BY trace_id, start_ns, span_id")
    groups = groupby(ordered, key=lambda placed: placed.record.trace_id)
    return _of_interest((list(group) for _, group in groups), cuts)


def _of_interest(traces: Iterable[Sequence[Placed]], cuts: Mapping[str, _Place]) -> Iterator[list[Placed]]:
    """Those of some traces, as far as their sessions are read, that a rule of order may concern.

    A part of a trace is of interest only if all of it is: what came for another reason falls out here.
    """
    for steps in traces:
        read = [placed for placed in steps if not cuts or _is_before(placed, cuts.get(placed.session_id))]
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
        for placed in _placed(arrivals, of_sessions, chosen=some):
            for each in by_session[placed.session_id]:
                gathered[each].add(_Row(placed), each.rank)
    return {selector: each.told(each.top(), _text) for selector, each in gathered.items()}


def _found(arrivals: Arrivals, condition: str, **parameters: Any) -> Iterator[Placed]:
    return _placed(arrivals, _whole(arrivals, condition), **parameters)


def _parts(keys: Sequence[Any], at_once: int = _CHOSEN_AT_ONCE) -> Iterator[Sequence[Any]]:
    """So few at once that a server takes them: parameters of 128 kB each."""
    return (keys[start : start + at_once] for start in range(0, len(keys), at_once))
