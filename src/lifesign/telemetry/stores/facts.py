"""What the rules of diagnosis read of a project, and the details of what fired. Spec "Diagnosis", section 3.

Sums come from digests, which tell of all records; rows are read of the records that are looked at one by one.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Final, TypeVar

from sqlalchemy import func, select, tuple_

from lifesign.diagnosis.details import Fetch
from lifesign.diagnosis.facts import (
    HEAVY_SESSION,
    MANY_AGENTS,
    MANY_CALLS,
    REPEATED,
    TWO_EMPTY,
    Facts,
    ModelFacts,
    OperationFacts,
    SessionTokens,
    WindowFacts,
    Windows,
    is_of_interest,
)
from lifesign.diagnosis.preparation import Placed, in_order
from lifesign.telemetry.masks import masked_operation
from lifesign.telemetry.stores import details, digests, reads
from lifesign.telemetry.stores.arrivals import (
    ITS_TRACE,
    PLACED,
    Arrivals,
    S,
    Scene,
    parts_of,
    placed_of,
)
from lifesign.telemetry.stores.codes import FAILING, KINDS
from lifesign.telemetry.stores.digests import HAS_FAILING_TOOL, HAS_LARGE_CALL, HAS_TOKENS, Digest
from lifesign.telemetry.stores.listed import listed
from lifesign.telemetry.stores.members import members_of
from lifesign.telemetry.stores.tables import sessions, traces

T = TypeVar("T")
_RECORDS_AT_ONCE: Final = 5000
_PENDING: Final = 5000
_TRACE_DIGITS: Final = 32

_Place = tuple[int, bytes, bytes]
"""Start, trace and span of a record: what sorts it."""


def examine(scene: Scene, windows: Windows, judge: Callable[[Facts, Fetch], T], *, most_of_a_session: int) -> T:
    """What `judge` says; see SpanStore.examine."""
    current = Arrivals.of(scene, windows, windows.current)
    baseline = Arrivals.of(scene, windows, windows.baseline)
    sums = _Sums(scene, has_notices=True)
    sums.add_all(current)
    notices = {**sums.notices(), "window_truncated": current.left_out}
    facts = Facts(
        _facts(current, sums, most_of_a_session),
        _window(baseline, most_of_a_session),
        {code: number for code, number in notices.items() if number},
        current.effective_since,
    )
    return judge(facts, lambda wanted: details.fetched(current, wanted))


def _window(arrivals: Arrivals, most_of_a_session: int) -> WindowFacts:
    sums = _Sums(arrivals.scene, has_notices=False)
    sums.add_all(arrivals)
    return _facts(arrivals, sums, most_of_a_session)


def _facts(arrivals: Arrivals, sums: "_Sums", most_of_a_session: int) -> WindowFacts:
    rows = _rows(arrivals, sums.ids)
    cuts = _cuts(
        arrivals, [number for number, count in sums.sessions.items() if count > most_of_a_session], most_of_a_session
    )
    return WindowFacts(
        records=sums.records,
        sessions=len(sums.sessions),
        operations=sums.operations(),
        models=sums.models(),
        token_sums=list(sums.tokens.values()),
        heavy_sessions=sums.heavy_sessions(),
        rows=rows,
        recoveries=_recoveries(arrivals, rows),
        traces=_traces(arrivals, _traces_of_interest(arrivals, sums), cuts),
        sessions_cut=len(cuts),
    )


# Sums ----------------------------------------------------------------------------------------------------------------
class _Sums:
    """What digests say together."""

    def __init__(self, scene: Scene, *, has_notices: bool) -> None:
        self._scene = scene
        self._has_notices = has_notices
        self._marks: dict[int, bytearray] = defaultdict(bytearray)
        self._names: dict[int, int] = {}
        self._models: dict[int, list[int]] = defaultdict(lambda: [0, 0, 0])
        self._counts: Counter[str] = Counter()
        self._agents_of: dict[int, frozenset[int]] = {}
        self._inherited: list[tuple[bytes, int, int, int | None]] = []
        self._orphans: list[tuple[bytes, bytes]] = []
        self._parts: list[tuple[int, bytes | None, int, int, int | None]] = []
        self._alone: dict[int, frozenset[int]] = {}
        self.records = 0
        self.ids: list[int] = []
        self.sessions: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.agents: Counter[bytes] = Counter()
        self.calls: Counter[int] = Counter()
        self.empties: Counter[int] = Counter()
        self.with_large_calls: set[bytes] = set()
        self.with_failing_tools: set[bytes] = set()

    def add_all(self, arrivals: Arrivals) -> None:
        for _, digest in arrivals.digests():
            self._add(digest)
        self._ask_for_sessions()
        self._settle()
        self._ask_for_parents()

    def _add(self, digest: Digest) -> None:
        self.records += digest.records
        self.ids.extend(digests.numbers(digest.ids))
        for op_hash, name, marks in digests.marks_by_operation(digest):
            self._names[op_hash] = name
            self._marks[op_hash] += marks
        for model, calls, known, high, low in digest.costs:
            sums = self._models[model]
            sums[0] += calls
            sums[1] += known
            sums[2] += (high << 32) + low
        self.calls.update(digests.hashes_in(digest.calls))
        self.empties.update(digests.hashes_in(digest.empties))
        if self._has_notices:
            for code in ("clock_skew", "future_spans", "truncated_records", "unknown_convention"):
                self._counts[code] += getattr(digest, code)
            self._orphans.extend(digests.parents_in(digest))
            if len(self._orphans) >= _PENDING:
                self._ask_for_parents()
        self._add_parts(digest)

    def _add_parts(self, digest: Digest) -> None:
        its_traces = digests.traces_in(digest)
        count = len(its_traces)
        columns = (
            digest.part_sessions,
            digest.part_agents,
            digest.part_records,
            digest.part_agent_records,
            digest.part_marks,
            *digest.part_tokens,
        )
        told = zip(its_traces, *(digests.values(each, count) for each in columns))  # noqa: B905 - as above
        add_part, add_inherited = self._parts.append, self._inherited.append
        for trace_id, session, agent, records, agents, marks, high, low in told:
            if agents:
                self.agents[trace_id] += agents
            tokens = None
            if marks:
                if marks & HAS_TOKENS:
                    tokens = (high << 32) + low
                if marks & HAS_LARGE_CALL:
                    self.with_large_calls.add(trace_id)
                if marks & HAS_FAILING_TOOL:
                    self.with_failing_tools.add(trace_id)
            if session:
                add_part((session, trace_id, agent, records, tokens))
            else:
                add_inherited((trace_id, agent, records, tokens))
        if len(self._inherited) >= _PENDING:
            self._ask_for_sessions()
        if len(self._parts) >= _PENDING:
            self._settle()

    def _ask_for_sessions(self) -> None:
        """Find the session of traces. Index: the primary key of `traces`."""
        t = traces.c
        found: dict[bytes, tuple[int, bool]] = {}
        for some in parts_of(sorted({each[0] for each in self._inherited}), _PENDING):
            query = select(t.trace_id, t.session, t.rank.is_(None))
            query = query.where(t.project == self._scene.project, self._scene.is_one_of(t.trace_id, some))
            found.update((trace_id, (session, is_bare)) for trace_id, session, is_bare in self._scene.rows(query))
        for trace_id, agent, records, tokens in self._inherited:
            session, is_bare = found[trace_id]
            # What nobody named is called like its trace; anything else may be, and is looked at.
            self._parts.append((session, None if is_bare else trace_id, agent, records, tokens))
            if is_bare:
                self._counts["no_session_id"] += records
        self._inherited.clear()

    def _settle(self) -> None:
        """Add to sessions what is known to be of them."""
        if self._has_notices:
            self._ask_for_names()
        counts, tokens_of, agents_of = self.sessions, self.tokens, self._agents_of
        for session, _, agent, records, tokens in self._parts:
            counts[session] = counts.get(session, 0) + records
            if tokens is not None:
                tokens_of[session] = tokens_of.get(session, 0) + tokens
                if agent:
                    agents = agents_of.get(session)
                    if agents is None:
                        agents_of[session] = self._alone.setdefault(agent, frozenset({agent}))
                    elif agent not in agents:
                        agents_of[session] = agents | {agent}
        self._parts.clear()

    def _ask_for_names(self) -> None:
        """Count the records whose session is called like their trace."""
        told = [(session, trace_id, records) for session, trace_id, _, records, _ in self._parts if trace_id]
        c = sessions.c
        named: dict[int, str] = {}
        for some in parts_of(sorted({session for session, _, _ in told}), _PENDING):
            query = select(c.id, c.session_id).where(self._scene.is_one_of(c.id, some))
            named.update(
                tuple(row) for row in self._scene.rows(query.where(func.length(c.session_id) == _TRACE_DIGITS))
            )
        for session, trace_id, records in told:
            if session in named and named[session] == trace_id.hex():
                self._counts["no_session_id"] += records

    def _ask_for_parents(self) -> None:
        """Count the records whose parent is not stored. Index: uq_spans_identity."""
        stored: set[tuple[bytes, bytes]] = set()
        for some in parts_of(sorted(set(self._orphans))):
            query = reads.stored(self._scene.conn, self._scene.project, some, S.id)
            stored.update((trace_id, span_id) for trace_id, span_id, number in self._scene.rows(query) if number)
        self._counts["orphan_parents"] += sum(each not in stored for each in self._orphans)
        self._orphans.clear()

    def forget_traces(self) -> None:
        """Give back what was needed to find traces of interest."""
        self.calls, self.empties, self.agents = Counter(), Counter(), Counter()

    def notices(self) -> dict[str, int]:
        return dict(self._counts)

    def operations(self) -> list[OperationFacts]:
        texts = self._scene.texts(set(self._names.values()))
        return [
            _operation(op_hash, texts.get(self._names[op_hash]) or "", Counter(digests.marks_in(marks)))
            for op_hash, marks in sorted(self._marks.items())
        ]

    def models(self) -> list[ModelFacts]:
        texts = self._scene.texts(set(self._models) - {0})
        merged: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0])
        # A model without a name and one whose name is empty are one.
        for number, sums in self._models.items():
            of_name = merged[texts.get(number) or ""]
            of_name[:] = [one + other for one, other in zip(of_name, sums, strict=True)]
        return [
            ModelFacts(name, calls, cost if known else None) for name, (calls, known, cost) in sorted(merged.items())
        ]

    def heavy_sessions(self) -> list[SessionTokens]:
        heavy = {session: tokens for session, tokens in self.tokens.items() if tokens > HEAVY_SESSION}
        ids = self._scene.session_ids(set(heavy))
        agents = self._scene.texts({agent for session in heavy for agent in self._agents_of.get(session, ())})
        return [
            SessionTokens(
                ids[session],
                min((agents.get(each) or "" for each in self._agents_of.get(session, ())), default=None),
                tokens,
            )
            for session, tokens in heavy.items()
        ]


def _operation(op_hash: int, operation: str, marks: Mapping[int, int]) -> OperationFacts:
    failures = 0
    buckets: dict[int, int] = {}
    kind = 0
    for mark, count in marks.items():
        kind, is_failing, bucket = digests.mark_of(mark)
        if is_failing:
            failures += count
        else:
            buckets[bucket] = count
    records = failures + sum(buckets.values())
    return OperationFacts(op_hash, KINDS[kind], masked_operation(operation), records, failures, buckets)


# Records that are looked at one by one -------------------------------------------------------------------------------
def _rows(arrivals: Arrivals, ids: Sequence[int]) -> list[Placed]:
    """These records, in order. Index: the primary key of `spans`."""
    found: list[Placed] = []
    for some in parts_of(sorted(ids)):
        query = select(*PLACED).join(traces, ITS_TRACE).where(arrivals.scene.is_one_of(S.id, some))
        found += placed_of(arrivals.scene, arrivals.scene.rows(query))
    return in_order(found)


def _recoveries(arrivals: Arrivals, rows: Sequence[Placed]) -> list[Placed]:
    """The records that do not fail and share trace, parent and operation key with one that does.

    Index: uq_spans_identity, once for each trace in which something fails.
    """
    conn = arrivals.scene.conn
    failed = {(r.trace_id, r.parent_id, r.op_hash) for _, r in rows if r.is_failing}
    op_hashes: dict[bytes, set[int]] = defaultdict(set)
    for trace_id, _, op_hash in failed:
        op_hashes[bytes.fromhex(trace_id)].add(op_hash)
    found: list[Placed] = []
    for some in parts_of(sorted(op_hashes)):
        pairs = [(trace_id, op_hash) for trace_id in some for op_hash in op_hashes[trace_id]]
        failing = listed(conn, trace_id=[each for each, _ in pairs], op_hash=[each for _, each in pairs])
        siblings = select(S.id, S.trace_id, S.parent_id, S.op_hash).where(
            arrivals.are_read(found_otherwise=True),
            arrivals.scene.is_one_of(S.trace_id, some),
            S.status != FAILING,
            tuple_(S.trace_id, S.op_hash).in_(select(failing.c.trace_id, failing.c.op_hash)),
        )
        told = arrivals.scene.rows(siblings)
        ids = [
            number
            for number, trace_id, parent_id, op_hash in told
            if (trace_id.hex(), "" if parent_id is None else parent_id.hex(), op_hash) in failed
        ]
        found += _rows(arrivals, ids)
    return in_order(found)


# Traces --------------------------------------------------------------------------------------------------------------
def _traces_of_interest(arrivals: Arrivals, sums: _Sums) -> list[bytes]:
    """Traces that a rule of order may concern, by id; some others among them."""
    calls = {each for each, count in sums.calls.items() if count >= REPEATED}
    empties = {each for each, count in sums.empties.items() if count >= TWO_EMPTY}
    chosen = sums.with_failing_tools | {trace_id for trace_id, count in sums.agents.items() if count >= MANY_AGENTS}
    sums.forget_traces()
    llms: Counter[bytes] = Counter()
    if calls or empties or sums.with_large_calls:
        for _, digest in arrivals.digests():
            its_traces = digests.traces_in(digest)
            for pair, repeated in ((digest.calls, calls), (digest.empties, empties)):
                if not repeated.isdisjoint(digests.hashes_in(pair)):
                    told = zip(digests.hashes_in(pair), digests.parts_of(pair))  # noqa: B905 - as above
                    chosen.update(its_traces[part] for each, part in told if each in repeated)
            if not sums.with_large_calls.isdisjoint(its_traces):
                calls_told = digests.values(digest.part_llm_records, len(its_traces))
                for trace_id, count in zip(its_traces, calls_told):  # noqa: B905 - as above
                    if trace_id in sums.with_large_calls:
                        llms[trace_id] += count
    chosen.update(trace_id for trace_id, count in llms.items() if count >= MANY_CALLS)
    return sorted(chosen)


def _cuts(arrivals: Arrivals, numbers: Sequence[int], most: int) -> dict[str, _Place]:
    """Of each of these sessions, by its id, the last record that is read in rules of order."""
    cuts: dict[str, _Place] = {}
    ids = arrivals.scene.session_ids(set(numbers))
    for number in numbers:
        members = members_of([number], *S).subquery("members")
        m = members.c
        query = select(m.start_ns, m.trace_id, m.span_id).where(arrivals.are_read(m, found_otherwise=True))
        query = query.order_by(m.start_ns, m.trace_id, m.span_id).offset(most - 1).limit(1)
        [row] = arrivals.scene.rows(query)
        cuts[ids[number]] = (row[0], row[1], row[2])
    return cuts


def _traces(arrivals: Arrivals, chosen: Sequence[bytes], cuts: dict[str, _Place]) -> Iterator[list[Placed]]:
    """These traces, as far as their sessions are read. Index: uq_spans_identity, once for each trace."""
    scene = arrivals.scene
    for some in parts_of(chosen):
        query = select(*PLACED).join(traces, ITS_TRACE)
        query = query.where(arrivals.are_read(found_otherwise=True), scene.is_one_of(S.trace_id, some))
        parts = scene.streamed(query.order_by(S.trace_id), _RECORDS_AT_ONCE)
        placed = chain.from_iterable(placed_of(scene, part) for part in parts)
        for _, group in groupby(placed, key=lambda each: each.record.trace_id):
            steps = in_order(each for each in group if not cuts or _is_before(each, cuts.get(each.session_id)))
            if steps and is_of_interest(steps):
                yield steps


def _is_before(placed: Placed, last: _Place | None) -> bool:
    record = placed.record
    return last is None or (record.start_ns, bytes.fromhex(record.trace_id), bytes.fromhex(record.span_id)) <= last
