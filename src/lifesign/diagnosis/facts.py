"""What the rules read: sums of a window, and the few records that are looked at one by one.

A store computes the sums where the records are and streams the rest; `facts_of` does the same for records in hand and
says what the answer of every store must be. Spec "Diagnosis", section 3.
"""

import heapq
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from lifesign.clock import EpochMs
from lifesign.diagnosis.preparation import Key, Placed, in_order, key_of
from lifesign.telemetry.masks import masked_operation
from lifesign.telemetry.records import BLOCKED, CLOCK_SKEW, EMPTY_RESULT, TRUNCATED

REPEATED: Final = 3
MANY_AGENTS: Final = 4
MANY_CALLS: Final = 6
LARGE_INPUT: Final = 20_000
HEAVY_SESSION: Final = 50_000
MANY_ATTEMPTS: Final = 3
TWO_EMPTY: Final = 2
MOST_OF_A_SESSION: Final = 50_000
MOST_RECORDS: Final = 2_000_000
CUT_REASONS: Final = frozenset({"length", "max_tokens", "max_output_tokens"})
REFUSAL_REASONS: Final = frozenset({"refusal", "content_filter", "safety"})

ABNORMAL_REASONS: Final = CUT_REASONS | REFUSAL_REASONS
FUTURE_NS: Final = 5 * 60 * 1_000_000_000
NS_PER_MS: Final = 1_000_000

_METERED: Final = frozenset({"llm", "embedding"})


@dataclass(frozen=True, slots=True)
class Windows:
    """What is asked. current, baseline: since and until of arrivals; environment: only records of exactly that text.

    most_records: of each window that are read, the newest. Of the baseline too: it is there to be compared with, a
    part of it that is as large serves as well, and reading all of it could take any time.
    """

    current: tuple[EpochMs, EpochMs]
    baseline: tuple[EpochMs, EpochMs]
    environment: str | None = None
    most_records: int = MOST_RECORDS


@dataclass(frozen=True, slots=True)
class OperationFacts:
    """One operation key. operation: masked. buckets: durations of the records that do not fail."""

    op_hash: int
    kind: str
    operation: str
    records: int
    failures: int
    buckets: Mapping[int, int]

    @property
    def succeeded(self) -> int:
        """How many records the histogram is of."""
        return self.records - self.failures


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """The llm records of one model. cost_nano: 10^-9 USD of those whose cost is known, None when of none."""

    model: str
    records: int
    cost_nano: int | None


class SessionTokens(NamedTuple):
    """What a session used. agent: the smallest name among its llm and embedding records."""

    session_id: str
    agent: str | None
    tokens: int


@dataclass(frozen=True, slots=True)
class WindowFacts:
    """One window.

    operations, models: in any order, each key once. token_sums: `total_tokens` over the llm and embedding records of
    each session that has any. heavy_sessions: those of more than 50,000.
    rows: all records whose signal is not `info`, and those with an abnormal finish reason, a third attempt or a block.
    recoveries: the records that do not fail and share trace, parent and operation key with one that does.
    traces: each trace that a rule of order may concern, once, whole: with a failing tool record; with two empty
    results of a tool; with a call of a tool, equal in arguments, three times; with four agent records; with six llm
    records and 20,000 tokens of input. Read once, so that it may be a stream. At most 50,000 records of a session,
    the earliest.
    sessions_cut: how many sessions had more.
    """

    records: int = 0
    sessions: int = 0
    operations: Sequence[OperationFacts] = ()
    models: Sequence[ModelFacts] = ()
    token_sums: Sequence[int] = ()
    heavy_sessions: Sequence[SessionTokens] = ()
    rows: Sequence[Placed] = ()
    recoveries: Sequence[Placed] = ()
    traces: Iterable[Sequence[Placed]] = ()
    sessions_cut: int = 0


class Newest(NamedTuple):
    """The records of a window that are read. When others were left out, so many, the arrival of the oldest read."""

    records: list[Placed]
    effective_since: EpochMs | None
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """Both windows. notices: counts of the current one by code, as the store can tell them.

    effective_since: arrival of the oldest record read of the current one, when others were left out.
    """

    current: WindowFacts
    baseline: WindowFacts
    notices: Mapping[str, int] = field(default_factory=dict)
    effective_since: EpochMs | None = None


def facts_of(
    current: Iterable[Placed],
    baseline: Iterable[Placed] = (),
    *,
    known: Iterable[Key] = (),
    most_of_a_session: int = MOST_OF_A_SESSION,
) -> Facts:
    """The facts of records in hand; their order does not matter. known: what else is stored, as a parent may be."""
    now, before = in_order(current), in_order(baseline)
    return Facts(
        window_facts(now, most_of_a_session=most_of_a_session),
        window_facts(before, most_of_a_session=most_of_a_session),
        _notices(now, {*known, *(key_of(placed) for placed in (*now, *before))}),
    )


def facts_within(records: Iterable[Placed], windows: Windows, *, most_of_a_session: int = MOST_OF_A_SESSION) -> Facts:
    """The facts of all records of a project, in hand: what every store must answer."""
    stored = list(records)
    current = read_of(stored, windows.current, windows)
    facts = facts_of(
        current.records,
        read_of(stored, windows.baseline, windows).records,
        known=map(key_of, stored),
        most_of_a_session=most_of_a_session,
    )
    if current.effective_since is None:
        return facts
    notices = {**facts.notices, "window_truncated": current.left_out}
    return replace(facts, notices=notices, effective_since=current.effective_since)


def read_of(records: Iterable[Placed], arrived: tuple[EpochMs, EpochMs], windows: Windows) -> Newest:
    """Those of a project's records that are read of one window."""
    since, until = arrived
    asked = [
        placed
        for placed in records
        if since <= placed.record.received_at < until and windows.environment in {None, placed.record.environment}
    ]
    return newest(asked, windows.most_records)


def newest(records: Sequence[Placed], most: int) -> Newest:
    """At most so many records, those that arrived last; of equals the larger trace and span id."""
    if len(records) <= most:
        return Newest(list(records), None)
    kept = heapq.nlargest(most, records, key=lambda placed: (placed.record.received_at, *key_of(placed)))
    return Newest(kept, kept[-1].record.received_at if kept else None, len(records) - len(kept))


def window_facts(ordered: Sequence[Placed], *, most_of_a_session: int = MOST_OF_A_SESSION) -> WindowFacts:
    """The facts of one window. ordered: its records, by (start_ns, trace_id, span_id)."""
    tokens = _session_tokens(ordered)
    traces, cut = _traces(ordered, most_of_a_session)
    return WindowFacts(
        records=len(ordered),
        sessions=len({placed.session_id for placed in ordered}),
        operations=_operations(ordered),
        models=_models(ordered),
        token_sums=[each.tokens for each in tokens],
        heavy_sessions=[each for each in tokens if each.tokens > HEAVY_SESSION],
        rows=[placed for placed in ordered if is_row(placed)],
        recoveries=_recoveries(ordered),
        traces=traces,
        sessions_cut=cut,
    )


def finish_reason_of(placed: Placed) -> str:
    """Why the model stopped, in lower case; empty when unknown."""
    return (placed.record.finish_reason or "").lower()


def is_row(placed: Placed) -> bool:
    """Whether a record is looked at by itself."""
    record = placed.record
    return (
        record.signal_type != "info"
        or record.is_failing
        or bool(record.flags & BLOCKED)
        or (record.attempt or 0) >= MANY_ATTEMPTS
        or (record.kind == "llm" and finish_reason_of(placed) in ABNORMAL_REASONS)
    )


def _operations(ordered: Sequence[Placed]) -> list[OperationFacts]:
    failures: Counter[int] = Counter()
    buckets: dict[int, Counter[int]] = defaultdict(Counter)
    names: dict[int, tuple[str, str]] = {}
    for placed in ordered:
        record = placed.record
        names.setdefault(record.op_hash, (record.kind, record.operation))
        if record.is_failing:
            failures[record.op_hash] += 1
        else:
            buckets[record.op_hash][record.bucket] += 1
    return [
        OperationFacts(
            op_hash,
            kind,
            masked_operation(operation),
            failures[op_hash] + sum(buckets[op_hash].values()),
            failures[op_hash],
            buckets[op_hash],
        )
        for op_hash, (kind, operation) in sorted(names.items())
    ]


def _models(ordered: Sequence[Placed]) -> list[ModelFacts]:
    calls: Counter[str] = Counter()
    costs: Counter[str] = Counter()
    for record in (placed.record for placed in ordered if placed.record.kind == "llm"):
        model = record.model or ""
        calls[model] += 1
        if record.cost_nano is not None:
            costs[model] += record.cost_nano
    return [ModelFacts(model, number, costs.get(model)) for model, number in sorted(calls.items())]


def _session_tokens(ordered: Sequence[Placed]) -> list[SessionTokens]:
    sums: Counter[str] = Counter()
    agents: dict[str, str] = {}
    for session_id, record in ordered:
        if record.kind not in _METERED or record.total_tokens is None:
            continue
        sums[session_id] += record.total_tokens
        if record.agent is not None:
            agents[session_id] = min(agents.get(session_id, record.agent), record.agent)
    return [SessionTokens(each, agents.get(each), tokens) for each, tokens in sorted(sums.items())]


def _recoveries(ordered: Sequence[Placed]) -> list[Placed]:
    failed = {_siblings(placed) for placed in ordered if placed.record.is_failing}
    return [placed for placed in ordered if not placed.record.is_failing and _siblings(placed) in failed]


def _siblings(placed: Placed) -> tuple[str, str, int]:
    return placed.record.trace_id, placed.record.parent_id, placed.record.op_hash


# Traces --------------------------------------------------------------------------------------------------------------
def _traces(ordered: Sequence[Placed], most_of_a_session: int) -> tuple[list[list[Placed]], int]:
    """The traces of interest, by id, and how many sessions were cut."""
    taken: Counter[str] = Counter()
    by_trace: dict[str, list[Placed]] = defaultdict(list)
    for placed in ordered:
        taken[placed.session_id] += 1
        if taken[placed.session_id] <= most_of_a_session:
            by_trace[placed.record.trace_id].append(placed)
    found = [steps for _, steps in sorted(by_trace.items()) if is_of_interest(steps)]
    return found, sum(number > most_of_a_session for number in taken.values())


def is_of_interest(steps: Sequence[Placed]) -> bool:
    kinds = Counter(placed.record.kind for placed in steps)
    if kinds["agent"] >= MANY_AGENTS:
        return True
    if kinds["llm"] >= MANY_CALLS and any(_is_large_call(placed) for placed in steps):
        return True
    return kinds["tool"] > 0 and _has_tools_of_interest([placed for placed in steps if placed.record.kind == "tool"])


def _is_large_call(placed: Placed) -> bool:
    return placed.record.kind == "llm" and (placed.record.input_tokens or 0) >= LARGE_INPUT


def _has_tools_of_interest(tools: Sequence[Placed]) -> bool:
    if any(placed.record.is_failing for placed in tools):
        return True
    empty = Counter(placed.record.tool for placed in tools if placed.record.flags & EMPTY_RESULT)
    calls = Counter((record.tool, record.args_hash) for _, record in tools if record.args_hash is not None)
    return max(empty.values(), default=0) >= TWO_EMPTY or max(calls.values(), default=0) >= REPEATED


# Notices -------------------------------------------------------------------------------------------------------------
def _notices(ordered: Sequence[Placed], known: set[Key]) -> dict[str, int]:
    counts = {
        "clock_skew": sum(bool(placed.record.flags & CLOCK_SKEW) for placed in ordered),
        "future_spans": sum(_is_of_the_future(placed) for placed in ordered),
        "no_session_id": sum(placed.session_id == placed.record.trace_id for placed in ordered),
        "orphan_parents": sum(_is_orphan(placed, known) for placed in ordered),
        "truncated_records": sum(bool(placed.record.flags & TRUNCATED) for placed in ordered),
        "unknown_convention": sum(_is_bare(placed) for placed in ordered),
    }
    return {code: number for code, number in counts.items() if number}


def _is_of_the_future(placed: Placed) -> bool:
    return placed.record.start_ns > placed.record.received_at * NS_PER_MS + FUTURE_NS


def _is_orphan(placed: Placed, known: set[Key]) -> bool:
    record = placed.record
    return record.parent_id != "" and (record.trace_id, record.parent_id) not in known


def _is_bare(placed: Placed) -> bool:
    record = placed.record
    return (
        record.kind in {"llm", "agent"}
        and record.model is None
        and (record.input_tokens, record.output_tokens, record.total_tokens) == (None, None, None)
    )
