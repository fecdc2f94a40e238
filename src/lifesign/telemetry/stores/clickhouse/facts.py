"""What the rules of diagnosis read of a project, and the details of what fired. Spec "Diagnosis", section 3.

ClickHouse keeps no snapshots: what other nodes deliver between two questions is in the answer to the second. The
windows are over and this node's spool is drained, so that little does.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import groupby, islice, repeat
from threading import Lock
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
from lifesign.diagnosis.preparation import READ_CHARACTERS, Key, Placed, order_of
from lifesign.telemetry.masks import masked_operation
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED
from lifesign.telemetry.stores.clickhouse import queries
from lifesign.telemetry.stores.clickhouse.arrivals import COLUMNS, SOURCE, Arrivals
from lifesign.telemetry.stores.clickhouse.client import Asked
from lifesign.telemetry.stores.clickhouse.rows import STATUSES, message_in, narrows_of, record_of, signed, unsigned
from lifesign.telemetry.stores.gathered import Gathered, Tally

T = TypeVar("T")
_FAILING: Final = f"status = {STATUSES.index('error')}"
_IS_ABNORMAL: Final = (
    f"kind = 'llm' AND lowerUTF8(finish_reason) IN ({', '.join(repr(each) for each in sorted(ABNORMAL_REASONS))})"
)
_IS_ROW: Final = f"""(signal_type != 'info' OR {_FAILING} OR bitAnd(flags, {BLOCKED}) != 0
  OR ifNull(attempt, 0) >= {MANY_ATTEMPTS} OR ifNull({_IS_ABNORMAL}, 0))"""
_ROW_BY: Final = ("signal_type", "status", "flags", "attempt", "kind", "finish_reason")
_CALLS: Final = "groupArrayIf(args_hash, kind = 'tool' AND args_hash != 0)"
_IS_CHOSEN: Final = f"""(countIf(kind = 'agent') >= {MANY_AGENTS} OR countIf(kind = 'tool' AND {_FAILING}) > 0
  OR countIf(kind = 'llm') >= {MANY_CALLS} AND countIf(kind = 'llm' AND in_tok >= {LARGE_INPUT}) > 0
  OR countIf(kind = 'tool' AND bitAnd(flags, {EMPTY_RESULT}) != 0) >= {TWO_EMPTY}
  OR length({_CALLS} AS calls) > length(arrayDistinct(calls)) + {REPEATED - 2})"""
_CHOSEN_BY: Final = ("kind", "status", "in_tok", "flags", "args_hash")
_KEYS_AT_ONCE: Final = 2000
_TRACES_AT_ONCE: Final = 3000
_MOST_CHOSEN: Final = 30_000
_CHOSEN_AT_ONCE: Final = 400
_PLACED: Final = ", ".join(COLUMNS)
_TRACE, _OWN = COLUMNS.index("trace_id"), COLUMNS.index("own_session")
_OFTEN_EQUAL: Final = frozenset(map(COLUMNS.index, ("trace_id", "parent_span_id", "operation", "own_session")))
_SIBLINGS: Final = "cityHash64(trace_id, parent_span_id, op_hash)"
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
    beside: Asked,
    project_id: str,
    windows: Windows,
    judge: Callable[[Facts, Fetch], T],
    *,
    most: Most,
    pending: int,
) -> T:
    """What `judge` says; see SpanStore.examine.

    beside: to be asked at the same time, in a thread of its own: while records of one window are made here, ClickHouse
    sums up the other. pending: how many records of the project wait in the spool.
    """
    current, baseline = Arrivals.of_both(asked, beside, project_id, windows)
    # To look for what arrived twice took more of it than anything else will.
    asked.give_back()
    turn = Lock()
    with ThreadPoolExecutor(1, thread_name_prefix="lifesign-clickhouse-beside") as second:
        try:
            reading = second.submit(_read, baseline, most, turn, has_sums_first=False)
            notices = _notices(current)
            asked.give_back()
            now = _read(current, most, turn, has_sums_first=True)
            before = reading.result()
            notices |= {
                "no_session_id": now.unnamed,
                "pending_records": pending,
                "window_truncated": current.left_out,
            }
            facts = Facts(
                now.window,
                before.window,
                {code: number for code, number in notices.items() if number},
                current.effective_since,
            )

            there = replace(current, asked=beside)
            ahead = second.submit(_Ahead.of, there, sum(placed.record.is_failing for placed in now.window.rows))

            def rest_of(wanted: Wanted) -> tuple[dict[int | None, Values], dict[Key, str]]:
                known = ahead.result()  # there by now: the one thread does one thing after the other
                return (
                    _values(there, wanted.op_hashes, known.counts),
                    _messages(there, wanted.messages, known.messages),
                )

            def fetch(wanted: Wanted) -> Details:
                rest = second.submit(rest_of, wanted)
                return Details(_selected(current, wanted.selectors), *rest.result())

            return judge(facts, fetch)
        except BaseException:
            # The other thread is waited for, and has nothing to work for any more.
            asked.stop.now()
            raise


class _Read(NamedTuple):
    """A window, and how many of its records have no session but their trace."""

    window: WindowFacts
    unnamed: int


def _read(arrivals: Arrivals, most: Most, turn: Lock, *, has_sums_first: bool) -> _Read:
    """What is read of a window: what ClickHouse sums up before what is made into records here, or after it.

    turn: whose it is to have traces summed up, which takes more memory than anything else.
    """
    sums = _sums(arrivals) if has_sums_first else None
    with turn:
        sessions = _sessions(arrivals, most.of_a_session)
        arrivals.asked.give_back()
    looked_at = _looked_at(arrivals, sessions, most.held)
    sums = sums or _sums(arrivals)
    cuts = {session_id: _cut(arrivals, session_id, most.of_a_session) for session_id in sessions.long}
    steps = looked_at.steps
    window = WindowFacts(
        records=sum(each.records for each in sums.operations),
        sessions=sessions.many,
        operations=sums.operations,
        models=sums.models,
        token_sums=sessions.tokens,
        heavy_sessions=sessions.heavy,
        rows=looked_at.rows,
        recoveries=looked_at.recoveries,
        traces=_streamed_traces(arrivals, sessions.chosen, cuts)
        if steps is None
        else list(_of_interest(_in_traces(steps), cuts)),
        sessions_cut=len(cuts),
    )
    return _Read(window, sessions.unnamed)


# Sums ----------------------------------------------------------------------------------------------------------------
class _Sums(NamedTuple):
    operations: list[OperationFacts]
    models: list[ModelFacts]


def _sums(arrivals: Arrivals) -> _Sums:
    return _Sums(_operations(arrivals), _models(arrivals))


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


@dataclass(slots=True)
class _Sessions:
    """Of a window.

    unnamed: records whose session is called like their trace. long: sessions of more records than rules of order read.
    chosen: traces that a rule of order may concern, and a few more. of_traces: the session of each of these and of
    each with a row, as far as records do not name it themselves.
    """

    many: int = 0
    unnamed: int = 0
    tokens: list[int] = field(default_factory=list)
    heavy: list[SessionTokens] = field(default_factory=list)
    long: list[str] = field(default_factory=list)
    chosen: list[str] = field(default_factory=list)
    of_traces: dict[str, str] = field(default_factory=dict)


def _sessions(arrivals: Arrivals, most_of_a_session: int) -> _Sessions:
    """Sums by session, and which traces to look at: both are known of a trace when all of it has been seen.

    Sessions are looked for of traces, of which there are fewer than records.
    """
    found = _Sessions()
    inherits = f"{SOURCE} = ''"
    columns = ("kind", "total_tok", "agent", SOURCE, *_CHOSEN_BY, *_ROW_BY)
    of_traces = f"""
        SELECT trace_id, {_summed(inherits)}, {_IS_CHOSEN} AS is_chosen, countIf({_IS_ROW}) > 0 AS has_rows
        FROM {arrivals.records(*columns)} GROUP BY trace_id"""
    by_themselves = f"""
        SELECT {SOURCE} AS session_id, {_summed("1")}, countIf({SOURCE} = toString(trace_id)) AS like_trace
        FROM {arrivals.records("kind", "total_tok", "agent", SOURCE)} WHERE NOT ({inherits}) GROUP BY {SOURCE}"""
    sums = "records, metered, tokens, first_agent, with_agent"
    rows = arrivals.stream(f"""
        SELECT session_id, sum(records), sum(metered), sum(tokens), minIf(first_agent, with_agent > 0), sum(with_agent),
          sum(like_trace), groupArrayIf(trace_id, is_chosen), groupArrayIf(trace_id, is_chosen OR has_rows)
        FROM (
          SELECT if(named != '', named, toString(trace_id)) AS session_id, {sums},
            if(session_id = toString(trace_id), records, 0) AS like_trace, trace_id, is_chosen, has_rows
          FROM {arrivals.traces_named(of_traces)}
          UNION ALL
          SELECT session_id, {sums}, like_trace, '' AS trace_id, 0 AS is_chosen, 0 AS has_rows FROM ({by_themselves}))
        GROUP BY session_id""")
    for session_id, records, metered, tokens, agent, with_agent, like_trace, chosen, noted in rows:
        found.chosen += chosen
        found.of_traces.update(zip(noted, repeat(session_id)))
        # All records of a trace may name their sessions themselves.
        found.many += records > 0
        found.unnamed += like_trace
        if records > most_of_a_session:
            found.long.append(session_id)
        if metered:
            found.tokens.append(int(tokens))
            if tokens > HEAVY_SESSION:
                found.heavy.append(SessionTokens(session_id, agent if with_agent else None, int(tokens)))
    return found


def _summed(which: str) -> str:
    """Sums of some records."""
    is_metered = f"{which} AND kind IN ('llm', 'embedding') AND total_tok IS NOT NULL"
    return f"""
          countIf({which}) AS records, countIf({is_metered}) AS metered,
          sumIf(toInt128(ifNull(total_tok, 0)), {is_metered}) AS tokens,
          minIf(toString(agent), {is_metered} AND agent IS NOT NULL) AS first_agent,
          countIf({is_metered} AND agent IS NOT NULL) AS with_agent"""


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

    Nearly all parents are beside their children; only of the others is the whole store asked.
    """
    beside = f"SELECT cityHash64(trace_id, toString(span_id)) FROM {arrivals.records()}"
    lacking = f"""
        {arrivals.records("parent_span_id")}
        WHERE parent_span_id != '' AND cityHash64(trace_id, parent_span_id) NOT IN ({beside})"""
    if not arrivals.rows(f"SELECT 1 FROM {lacking} LIMIT 1"):
        return 0
    stored = f"""
        SELECT trace_id, toString(span_id) FROM spans
        WHERE {queries.IN_PROJECT} AND trace_id IN (SELECT trace_id FROM {lacking})"""
    [(count,)] = arrivals.rows(f"SELECT count() FROM {lacking} AND (trace_id, parent_span_id) NOT IN ({stored})")
    return int(count)


# Records that are looked at one by one -------------------------------------------------------------------------------
def _whole(arrivals: Arrivals, only: str, *, has_session: bool = True) -> str:
    told = f"{_PLACED}, session_id" if has_session else _PLACED
    return f"SELECT {told} FROM {arrivals.records(*COLUMNS, has_session=has_session, only=only)}"


def _placed(
    arrivals: Arrivals, sql: str, sessions: Mapping[str, str] | None = None, **parameters: Any
) -> Iterator[Placed]:
    """What a query for `_whole` answers. sessions: of traces, when it does not tell them."""
    # Many records have the same texts, of which one each is enough.
    texts: dict[str, str] = {}
    for columns in arrivals.blocks(sql, **parameters):
        shared = list(columns)
        for place in _OFTEN_EQUAL:
            shared[place] = list(map(texts.setdefault, columns[place], columns[place]))
        if sessions is not None:
            of_traces = map(sessions.get, shared[_TRACE], shared[_TRACE])
            shared.append([own or inherited for own, inherited in zip(shared[_OWN], of_traces, strict=True)])
        yield from map(_place, zip(shared[-1], narrows_of(shared), strict=True))


_place = partial(tuple.__new__, Placed)


_Siblings = tuple[str, str, int]


def _siblings(placed: Placed) -> _Siblings:
    return placed.record.trace_id, placed.record.parent_id, placed.record.op_hash


class _LookedAt(NamedTuple):
    """steps: what was found of traces, in order; None when there is more than can be held."""

    rows: list[Placed]
    recoveries: list[Placed]
    steps: list[Placed] | None


def _looked_at(arrivals: Arrivals, sessions: _Sessions, most_held: int) -> _LookedAt:
    """The rows, the records that do not fail and share trace, parent and operation key with one that does, and steps.

    All columns of everything that arrived are read for any of these, so all are asked for at once. ClickHouse takes
    longer to sort wide rows than Python to sort what it has of them anyway.
    """
    failing = arrivals.records("parent_span_id", "op_hash", "status", only=_FAILING)
    is_any = f"{_IS_ROW} OR {_SIBLINGS} IN (SELECT {_SIBLINGS} FROM {failing})"
    chosen, parameters = _chosen(arrivals, sessions.chosen)
    found = list(islice(_found(arrivals, f"({is_any} OR {chosen})", sessions, parameters), most_held + 1))
    are_held = len(found) <= most_held
    if not are_held:
        found = list(_found(arrivals, f"({is_any})", sessions, {}))
    found.sort(key=order_of)
    rows = [placed for placed in found if is_row(placed)]
    failed = {_siblings(placed) for placed in rows if placed.record.is_failing}
    # Rows may recover, too: a slow success is one.
    recoveries = [placed for placed in found if not placed.record.is_failing and failed and _siblings(placed) in failed]
    return _LookedAt(rows, recoveries, found if are_held else None)


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


def _found(arrivals: Arrivals, only: str, sessions: _Sessions, parameters: Mapping[str, Any]) -> Iterator[Placed]:
    """Records, of rows and of chosen traces only. Where rows have to be compared, that tells their sessions as well."""
    known = None if arrivals.has_repeated else sessions.of_traces
    return _placed(arrivals, _whole(arrivals, only, has_session=known is None), known, **parameters)


def _chosen(arrivals: Arrivals, trace_ids: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """A condition for records of these traces, and its parameters; of too many to be told, as they were found."""
    if not trace_ids:
        return "0", {}
    if len(trace_ids) > _MOST_CHOSEN:
        steps = arrivals.records(*_CHOSEN_BY)
        return f"trace_id IN (SELECT trace_id FROM {steps} GROUP BY trace_id HAVING {_IS_CHOSEN})", {}
    parameters = {f"chosen_{place}": some for place, some in enumerate(_parts(trace_ids, _TRACES_AT_ONCE))}
    arrays = ", ".join(f"{{{name}:Array(String)}}" for name in parameters)
    return f"trace_id IN (SELECT toFixedString(arrayJoin(arrayConcat({arrays})), 32))", parameters


def _streamed_traces(
    arrivals: Arrivals, trace_ids: Sequence[str], cuts: Mapping[str, _Place]
) -> Iterator[list[Placed]]:
    """The traces that a rule of order may concern, one by one."""
    chosen, parameters = _chosen(arrivals, trace_ids)
    ordered = _placed(arrivals, f"{_whole(arrivals, chosen)} ORDER BY trace_id, start_ns, span_id", None, **parameters)
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
_Count = Sequence[Any]
"""An operation key, a value of each of _COUNTED, and how many records have these."""
_COUNTED: Final = ("version", "environment", "agent", "model", "tool")


@dataclass(frozen=True, slots=True)
class _Ahead:
    """What is read of a window while the rules look at it, as most of it will be wanted. None: it has to be asked for.

    messages: of failures; None for one that has none.
    """

    counts: Sequence[_Count] | None = None
    messages: Mapping[Key, str | None] | None = None

    @classmethod
    def of(cls, arrivals: Arrivals, failing: int) -> "_Ahead":
        """failing: how many records fail. Without any there is little to tell; very many are too many to hold."""
        if not failing:
            return cls()
        counts = list(islice(_counts(arrivals), MOST_HELD + 1))
        return cls(
            counts if len(counts) <= MOST_HELD else None,
            dict(_messages_of_failures(arrivals)) if _KEYS_AT_ONCE < failing <= MOST_HELD else None,
        )


def _text(value: Any) -> str | None:  # Any: what a text is in a tally here
    return value if isinstance(value, str) else None


def _counts(arrivals: Arrivals) -> Iterator[_Count]:
    fields = ", ".join(_COUNTED)
    records = arrivals.records("op_hash", *_COUNTED)
    return arrivals.stream(f"SELECT op_hash, {fields}, count() FROM {records} GROUP BY op_hash, {fields}")


def _values(
    arrivals: Arrivals, op_hashes: Collection[int | None], counts: Iterable[_Count] | None
) -> dict[int | None, Values]:
    tallies: dict[int | None, Tally] = {op_hash: Tally() for op_hash in op_hashes}
    if tallies:
        for op_hash, *values, count in _counts(arrivals) if counts is None else counts:
            for each in (None, signed(op_hash)):
                if each in tallies:
                    tallies[each].add(values, count)
    return {op_hash: tally.values(_text) for op_hash, tally in tallies.items()}


def _messages_of_failures(arrivals: Arrivals) -> Iterator[tuple[Key, str | None]]:
    texts: dict[str, str] = {}
    failing = arrivals.records("status", "body", only=_FAILING)
    for trace_id, span_id, body in arrivals.stream(f"SELECT trace_id, span_id, body FROM {failing}"):
        yield (trace_id, span_id), _read_of(message_in(body), texts)


def _read_of(message: str | None, texts: dict[str, str]) -> str | None:
    """As much of it as is read. texts: those that were read before; thousands of failures say the same."""
    return None if message is None else texts.setdefault(message[:READ_CHARACTERS], message[:READ_CHARACTERS])


def _messages(arrivals: Arrivals, keys: Collection[Key], known: Mapping[Key, str | None] | None) -> dict[Key, str]:
    """All failures of the window are read, when many are wanted: by their ids it would take longer."""
    if known is None:
        are_many = len(keys) > _KEYS_AT_ONCE
        known = {key: text for key, text in _messages_of_failures(arrivals) if key in keys} if are_many else {}
    found = {key: known[key] for key in keys if key in known}
    texts: dict[str, str] = {}
    for some in _parts(sorted(set(keys) - found.keys()), _KEYS_AT_ONCE):
        parameters = {
            "traces": sorted({trace_id for trace_id, _ in some}),
            "keys": [f"{trace_id}{span_id}" for trace_id, span_id in some],
        }
        for row in arrivals.stream(queries.RECORDS, **parameters):
            record = record_of(row, row[-1])
            found[record.trace_id, record.span_id] = _read_of(record.body.message, texts)
    return {key: message for key, message in found.items() if message is not None}


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
        numbers = [unsigned(op_hash) for op_hash in some]
        for placed in _placed(arrivals, _whole(arrivals, slow), chosen=numbers, least=least):
            for each in by_operation[placed.record.op_hash]:
                if each.above_bucket is None or placed.record.bucket > each.above_bucket:
                    gathered[each].add(_Row(placed), each.rank)
    of_models = "kind = 'llm'"
    for some in _parts(list(by_model)):
        named = f"{of_models} AND ifNull(model, '') IN {{chosen:Array(String)}}"
        for placed in _placed(arrivals, _whole(arrivals, named), chosen=some):
            for each in by_model[placed.record.model or ""]:
                gathered[each].add(_Row(placed), each.rank)
    for some in _parts(list(by_session)):
        of_sessions = f"{_whole(arrivals, of_models)} WHERE session_id IN {{chosen:Array(String)}}"
        for placed in _placed(arrivals, of_sessions, chosen=some):
            for each in by_session[placed.session_id]:
                gathered[each].add(_Row(placed), each.rank)
    return {selector: each.told(each.top(), _text) for selector, each in gathered.items()}


def _parts(keys: Sequence[Any], at_once: int = _CHOSEN_AT_ONCE) -> Iterator[Sequence[Any]]:
    """So few at once that a server takes them: parameters of 128 kB each."""
    return (keys[start : start + at_once] for start in range(0, len(keys), at_once))
