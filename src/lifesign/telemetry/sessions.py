"""Which records belong together, and how it went: sessions, as pure functions of their records.

Nothing here depends on the order in which records arrived or are handed in. Spec "Telemetry", section 5.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import Any, Final, Literal, NamedTuple

from lifesign.clock import EpochMs, rfc3339
from lifesign.telemetry.records import Narrow
from lifesign.telemetry.wire import milliseconds, time_of, usd

Outcome = Literal["failed", "recovered", "ok", "unknown"]

MAX_ALIASES: Final = 20
MAX_AGENTS: Final = 20
MOST_RECORDS: Final = 20_000
"""Of a session that are looked at one by one, the first by `in_order`; of a longer one the rest is only counted."""
_METERED: Final = frozenset({"llm", "embedding"})
_NS_DIGITS: Final = 19
# What the descendants of a record tell: a call of a model with its tokens, tokens, a cost.
_CALL, _TOKENS, _COST = 1, 2, 4


# Membership ----------------------------------------------------------------------------------------------------------
class Rank(NamedTuple):
    """How good a span is as the source of its trace's session id; the smaller the better.

    The root comes before all others, then what started earlier; of equals the smaller id.
    """

    is_inner: bool
    start_ns: int
    span_id: str

    @property
    def key(self) -> str:
        """The same as text that sorts alike, for a column."""
        return f"{int(self.is_inner)}{self.start_ns:0{_NS_DIGITS}}{self.span_id}"

    @classmethod
    def from_key(cls, key: str) -> "Rank":
        """The rank of a column."""
        return cls(key[0] == "1", int(key[1 : _NS_DIGITS + 1]), key[_NS_DIGITS + 1 :])


class TraceSession(NamedTuple):
    """The session id of a trace, which its records without one of their own have, and where it comes from."""

    session_id: str
    rank: Rank


class Move(NamedTuple):
    """Records of a trace that have no session id of their own now belong to another session."""

    trace_id: str
    from_session: str
    to_session: str


def trace_session(records: Iterable[Narrow], known: TraceSession | None = None) -> TraceSession | None:
    """The session of a trace after these records of it; None while none of its spans has an id.

    known: what earlier records said.
    """
    said = (TraceSession(record.own_session, rank_of(record)) for record in records if record.own_session is not None)
    return min(said if known is None else (known, *said), key=lambda each: each.rank, default=None)


def rank_of(record: Narrow) -> Rank:
    """How good this span would be as the source."""
    return Rank(record.parent_id != "", record.start_ns, record.span_id)


def session_of(record: Narrow, trace: TraceSession | None) -> str:
    """The one session of a record: its own, else its trace's, else its trace."""
    if record.own_session is not None:
        return record.own_session
    return record.trace_id if trace is None else trace.session_id


def move(trace_id: str, before: TraceSession | None, after: TraceSession | None) -> Move | None:
    """Where the records that inherit move when a better source has come; None when they stay."""
    source = trace_id if before is None else before.session_id
    target = trace_id if after is None else after.session_id
    return None if source == target else Move(trace_id, source, target)


# How it went ---------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Totals:
    """What a session used. None: nobody said. cost_nano: 10^-9 USD."""

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    reasoning: int | None = None
    total: int | None = None
    cost_nano: int | None = None

    def wire_tokens(self) -> dict[str, int | None]:
        """The six numbers of tokens."""
        return {
            "input": self.input,
            "output": self.output,
            "cache_read": self.cache_read,
            "cache_write": self.cache_write,
            "reasoning": self.reasoning,
            "total": self.total,
        }


_used = attrgetter("input", "output", "cache_read", "cache_write", "reasoning", "total", "cost_nano")


def together(several: Iterable[Totals]) -> Totals:
    """What all of them used."""
    return Totals(*map(_sum, zip(*map(_used, several), strict=True)))


class Counts(NamedTuple):
    """What a store counts of all records of a session, however many there are. Named as in `Summary`."""

    turns: int
    traces: int
    failures: int
    signals: dict[str, int]
    started_ns: int
    ended_ns: int
    last_received_at: EpochMs
    aliases: Collection[str]


@dataclass(frozen=True, slots=True)
class Summary:
    """A session in short."""

    session_id: str
    aliases: tuple[str, ...]
    agent: str | None
    agents: tuple[str, ...]
    environment: str | None
    environments: tuple[str, ...]
    models: tuple[str, ...]
    outcome: Outcome
    turns: int
    traces: int
    failures: int
    signals: dict[str, int]
    started_ns: int
    ended_ns: int
    last_received_at: EpochMs
    totals: Totals

    def of_all(self, counts: Counts) -> "Summary":
        """The summary of a session's first records with what is known of all."""
        return replace(
            self,
            aliases=_few(counts.aliases, MAX_ALIASES),
            turns=counts.turns,
            traces=counts.traces,
            failures=counts.failures,
            signals={signal: counts.signals[signal] for signal in sorted(counts.signals)},
            started_ns=counts.started_ns,
            ended_ns=counts.ended_ns,
            last_received_at=counts.last_received_at,
        )

    def wire(self) -> dict[str, Any]:  # Any: JSON
        """As the API shows it."""
        return {
            "session_id": self.session_id,
            "aliases": list(self.aliases),
            "agent": self.agent,
            "agents": list(self.agents),
            "environment": self.environment,
            "environments": list(self.environments),
            "models": list(self.models),
            "outcome": self.outcome,
            "turns": self.turns,
            "traces": self.traces,
            "failures": self.failures,
            "signals": self.signals,
            "started_at": time_of(self.started_ns),
            "ended_at": time_of(self.ended_ns),
            "duration_ms": milliseconds(self.ended_ns - self.started_ns),
            "last_received_at": rfc3339(self.last_received_at),
            "tokens": self.totals.wire_tokens(),
            "cost_usd": usd(self.totals.cost_nano),
        }


def summary_of(session_id: str, records: Sequence[Narrow], aliases: Iterable[str] = ()) -> Summary:
    """The summary of a session from its records, at least one. aliases: every other id that they have.

    Of more than MOST_RECORDS stores hand in the first by `in_order`, and tell the counts to `Summary.of_all`.
    """
    ordered = in_order(records)
    lead = next((record for record in ordered if not record.parent_id), ordered[0])
    signals = Counter(record.signal_type for record in ordered)
    return Summary(
        session_id=session_id,
        aliases=_few(aliases, MAX_ALIASES),
        agent=lead.agent,
        agents=_few((record.agent for record in ordered), MAX_AGENTS),
        environment=ordered[-1].environment,
        environments=_few(record.environment for record in ordered),
        models=_few(record.model for record in ordered),
        outcome=_outcome_of(ordered),
        turns=len(ordered),
        traces=len({record.trace_id for record in ordered}),
        failures=sum(record.is_failing for record in ordered),
        signals={signal: signals[signal] for signal in sorted(signals)},
        started_ns=ordered[0].start_ns,
        ended_ns=max(max(record.start_ns, record.end_ns) for record in ordered),
        last_received_at=max(record.received_at for record in ordered),
        totals=_totals_of(ordered),
    )


def in_order(records: Iterable[Narrow]) -> list[Narrow]:
    """By start, and then by id, so that equal starts are always told in the same order."""
    return sorted(records, key=lambda record: (record.start_ns, record.trace_id, record.span_id))


def _few(values: Iterable[str | None], most: int | None = None) -> tuple[str, ...]:
    return tuple(sorted({value for value in values if value is not None})[:most])


def outcome_of(records: Iterable[Narrow]) -> Outcome:
    """How a session went.

    `failed`: something failed and its operation did not succeed later, or the latest root failed. `recovered`:
    everything that failed succeeded later. `ok`: nothing failed, and a root has arrived or a span says that it is OK.
    """
    return _outcome_of(in_order(records))


def _outcome_of(ordered: Sequence[Narrow]) -> Outcome:
    failures = [record for record in ordered if record.is_failing]
    last_root = next((record for record in reversed(ordered) if not record.parent_id), None)
    if failures:
        last_success = {record.operation: record.start_ns for record in ordered if not record.is_failing}
        has_recovered = all(last_success.get(each.operation, each.start_ns) > each.start_ns for each in failures)
        return "recovered" if has_recovered and not (last_root is not None and last_root.is_failing) else "failed"
    is_ok = last_root is not None or any(record.status == "ok" for record in ordered)
    return "ok" if is_ok else "unknown"


def totals_of(records: Iterable[Narrow]) -> Totals:
    """Tokens and costs of a session, each counted once although spans repeat what those inside them used.

    Calls of models count unless there are such calls inside them; of anything else the tokens count where nothing
    inside tells tokens, and the cost where nothing inside tells a cost.
    """
    return _totals_of(in_order(records))


def _totals_of(ordered: Sequence[Narrow]) -> Totals:
    inside = _inside(ordered)
    told = list(zip(ordered, inside, strict=True))
    tokens = [each for each, found in told if not found & (_CALL if each.kind in _METERED else _TOKENS)]
    costs = [each.cost_nano for each, found in told if not found & (_CALL if each.kind in _METERED else _COST)]
    sums = [*map(_sum, zip(*map(_tokens, tokens), strict=True))] or [None] * _KINDS_OF_TOKENS
    return Totals(*(*sums, _sum(costs)))


_KINDS_OF_TOKENS: Final = 6
_tokens = attrgetter(
    *("input_tokens", "output_tokens", "cache_read_tokens", "cache_write_tokens", "reasoning_tokens", "total_tokens")
)


def _sum(values: Iterable[int | None]) -> int | None:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _has_tokens(record: Narrow) -> bool:
    """Whether it says what it used. A call whose usage nobody counted is often told with zeros."""
    return bool(record.total_tokens or record.cache_read_tokens or record.cache_write_tokens or record.reasoning_tokens)


def _inside(ordered: Sequence[Narrow]) -> list[int]:
    """Of each record, what its descendants tell: bits of _CALL, _TOKENS and _COST."""
    parents = _parents(ordered)
    inside = [0] * len(ordered)
    for index, record in enumerate(ordered):
        has_tokens = _has_tokens(record)
        tells = (_TOKENS if has_tokens else 0) | (_COST if record.cost_nano else 0)
        tells |= _CALL if has_tokens and record.kind in _METERED else 0
        above = parents[index]
        # Whoever knows it has told its own ancestors: all walks together visit a record three times at most.
        while above is not None and tells & ~inside[above]:
            inside[above] |= tells
            above = parents[above]
    return inside


def _parents(ordered: Sequence[Narrow]) -> list[int | None]:
    """The place of each record's parent; None for what has none here. A cycle is cut at its earliest record."""
    places = {(record.trace_id, record.span_id): index for index, record in enumerate(ordered)}
    parents = [places.get((record.trace_id, record.parent_id)) for record in ordered]
    seen_from = [-1] * len(ordered)
    for start in range(len(ordered)):
        walker: int | None = start
        while walker is not None and seen_from[walker] == -1:
            seen_from[walker] = start
            walker = parents[walker]
        if walker is not None and seen_from[walker] == start:
            cycle = [walker]
            while (following := parents[cycle[-1]]) is not None and following != walker:
                cycle.append(following)
            parents[min(cycle)] = None
    return parents
