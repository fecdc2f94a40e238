"""What the rules of diagnosis read of a project, and the details of what fired. Spec "Diagnosis", section 3.

Sums come from digests, which tell of all records; rows are read of the records that are looked at one by one.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from typing import Any, Final, TypeVar

from sqlalchemy import select, tuple_

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
from lifesign.telemetry.stores.arrivals import NARROW, TRACE, Arrivals, S, Scene, parts_of, placed_of
from lifesign.telemetry.stores.codes import FAILING, KINDS
from lifesign.telemetry.stores.digests import Digest
from lifesign.telemetry.stores.listed import listed
from lifesign.telemetry.stores.members import members_of

T = TypeVar("T")
_RECORDS_AT_ONCE: Final = 5000
_PENDING: Final = 5000

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
    again = _Again(arrivals, sums)
    cuts = _cuts(
        arrivals, [number for number, count in sums.sessions.items() if count > most_of_a_session], most_of_a_session
    )
    return WindowFacts(
        records=sums.records,
        sessions=len(sums.sessions),
        operations=sums.operations(),
        models=sums.models(),
        token_sums=list(sums.tokens.values()),
        heavy_sessions=again.heavy_sessions(),
        rows=in_order(sums.rows),
        recoveries=_recoveries(arrivals, sums.rows, again),
        traces=_traces(arrivals, again, cuts),
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
        self._orphans: list[tuple[bytes, bytes]] = []
        self._pending: list[list[Any]] = []
        self._metered: Counter[int] = Counter()
        self.records = 0
        self.rows: list[Placed] = []
        self.sessions: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.agents: Counter[int] = Counter()
        self.calls: Counter[int] = Counter()
        self.empties: Counter[int] = Counter()
        self.with_large_calls: set[bytes] = set()
        self.with_failing_tools: set[bytes] = set()

    def add_all(self, arrivals: Arrivals) -> None:
        for _, digest in arrivals.digests():
            self._add(digest)
        for session, records, unnamed, metered, high, low in arrivals.moved():
            self._add_session(session, int(records), int(metered), (int(high) << 32) + int(low))
            self._counts["no_session_id"] += int(unnamed)
        self._place()
        self._ask_for_parents()
        # What moved away altogether.
        self.sessions = {session: records for session, records in self.sessions.items() if records}
        self.tokens = {session: tokens for session, tokens in self.tokens.items() if self._metered[session]}

    def _add(self, digest: Digest) -> None:
        self.records += digest.records
        for op_hash, name, marks in digests.marks_by_operation(digest):
            self._names[op_hash] = name
            self._marks[op_hash] += marks
        for model, calls, known, high, low in digest.costs:
            sums = self._models[model]
            sums[0] += calls
            sums[1] += known
            sums[2] += (high << 32) + low
        self.agents.update(digests.hashes_in(digest.agents_in))
        self.calls.update(digests.hashes_in(digest.calls))
        self.empties.update(digests.hashes_in(digest.empties))
        self.with_large_calls.update(digests.at_places(digest, digest.large))
        self.with_failing_tools.update(digests.at_places(digest, digest.failing))
        if self._has_notices:
            for code in ("clock_skew", "future_spans", "truncated_records", "unknown_convention", "no_session_id"):
                self._counts[code] += getattr(digest, code)
            self._orphans.extend(digests.parents_in(digest))
            if len(self._orphans) >= _PENDING:
                self._ask_for_parents()
        its_sessions = digests.numbers(digest.session_numbers)
        columns = (digest.session_records, digest.session_metered, *digest.session_tokens)
        told = zip(its_sessions, *(digests.values(each, len(its_sessions)) for each in columns))  # noqa: B905 - as above
        for session, records, metered, high, low in told:
            self._add_session(session, records, metered, (high << 32) + low)
        self._pending += digests.rows_in(digest.rows)
        if len(self._pending) >= _PENDING:
            self._place()

    def _add_session(self, session: int, records: int, metered: int, tokens: int) -> None:
        self.sessions[session] = self.sessions.get(session, 0) + records
        if metered or tokens:
            self._metered[session] += metered
            self.tokens[session] = self.tokens.get(session, 0) + tokens

    def _place(self) -> None:
        self._scene.stop.look()
        self.rows += placed_of(self._scene, self._pending)
        self._pending.clear()

    def _ask_for_parents(self) -> None:
        """Count the records whose parent is not stored. Index: uq_spans_identity."""
        stored: set[tuple[bytes, bytes]] = set()
        for some in parts_of(sorted(set(self._orphans))):
            query = reads.stored(self._scene.conn, self._scene.project, some)
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


# What to look at again -----------------------------------------------------------------------------------------------
class _Again:
    """What digests tell of some traces and sessions, once it is known which.

    chosen: traces that a rule of order may concern; some others among them. scattered: of traces in which something
    fails, those of several digests: none of them has a trace whole.
    """

    def __init__(self, arrivals: Arrivals, sums: _Sums) -> None:
        self._scene = arrivals.scene
        self._heavy = {session: tokens for session, tokens in sums.tokens.items() if tokens > HEAVY_SESSION}
        self._metered: Counter[tuple[int, int]] = Counter()
        self._calls = {each for each, count in sums.calls.items() if count >= REPEATED}
        self._empties = {each for each, count in sums.empties.items() if count >= TWO_EMPTY}
        self._agents = {each for each, count in sums.agents.items() if count >= MANY_AGENTS}
        self._with_large_calls = sums.with_large_calls
        self._llms: Counter[bytes] = Counter()
        self._failing = {bytes.fromhex(placed.record.trace_id) for placed in sums.rows if placed.record.is_failing}
        self._met: set[bytes] = set()
        self.chosen = set(sums.with_failing_tools)
        self.scattered: set[bytes] = set()
        self.recoveries: list[list[Any]] = []
        sums.forget_traces()
        looks_for = (self._heavy, self._calls, self._empties, self._agents, self._with_large_calls, self._failing)
        if any(looks_for):
            for _, digest in arrivals.digests():
                self._look(digest)
        if self._heavy:
            for session, agent, more in arrivals.moved_agents():
                if session in self._heavy:
                    self._metered[session, agent or 0] += int(more)
        self.chosen.update(trace_id for trace_id, count in self._llms.items() if count >= MANY_CALLS)

    def _look(self, digest: Digest) -> None:
        its_traces = digests.traces_in(digest)
        pairs = ((digest.agents_in, self._agents), (digest.calls, self._calls), (digest.empties, self._empties))
        for pair, repeated in pairs:
            if not repeated.isdisjoint(digests.hashes_in(pair)):
                told = zip(digests.hashes_in(pair), digests.places_of(pair))  # noqa: B905 - as above
                self.chosen.update(its_traces[place] for each, place in told if each in repeated)
        if not self._with_large_calls.isdisjoint(its_traces):
            told_of = zip(its_traces, digests.values(digest.llms, len(its_traces)))  # noqa: B905 - as above
            for trace_id, count in told_of:
                if trace_id in self._with_large_calls:
                    self._llms[trace_id] += count
        failing = self._failing.intersection(its_traces)
        self.scattered |= failing & self._met
        self._met |= failing
        self.recoveries += digests.rows_in(digest.recoveries)
        if self._heavy:
            for session, agent, count in digests.metered_in(digest):
                if session in self._heavy:
                    self._metered[session, agent] += count

    def heavy_sessions(self) -> list[SessionTokens]:
        """Those that use much, each with the smallest name among its agents."""
        agents_of: dict[int, set[int]] = {session: set() for session in self._heavy}
        for (session, agent), count in self._metered.items():
            if count > 0 and agent:
                agents_of[session].add(agent)
        ids = self._scene.session_ids(set(self._heavy))
        names = self._scene.texts({agent for agents in agents_of.values() for agent in agents})
        return [
            SessionTokens(
                ids[session], min((names.get(each) or "" for each in agents_of[session]), default=None), tokens
            )
            for session, tokens in self._heavy.items()
        ]


# Records that are looked at one by one -------------------------------------------------------------------------------
def _recoveries(arrivals: Arrivals, rows: Sequence[Placed], again: _Again) -> list[Placed]:
    """The records that do not fail and share trace, parent and operation key with one that does.

    Index: uq_spans_identity, once for each scattered trace.
    """
    scene = arrivals.scene
    told = [row for row in again.recoveries if row[TRACE] not in again.scattered]
    found = placed_of(scene, told)
    failed = {(r.trace_id, r.parent_id, r.op_hash) for _, r in rows if r.is_failing}
    op_hashes: dict[bytes, set[int]] = defaultdict(set)
    for trace_id, _, op_hash in failed:
        op_hashes[bytes.fromhex(trace_id)].add(op_hash)
    for some in parts_of(sorted(again.scattered)):
        pairs = [(trace_id, op_hash) for trace_id in some for op_hash in op_hashes[trace_id]]
        failing = listed(scene.conn, trace_id=[each for each, _ in pairs], op_hash=[each for _, each in pairs])
        siblings = select(*NARROW).where(
            arrivals.are_read(found_otherwise=True),
            scene.is_one_of(S.trace_id, some),
            S.status != FAILING,
            tuple_(S.trace_id, S.op_hash).in_(select(failing.c.trace_id, failing.c.op_hash)),
        )
        for placed in placed_of(scene, scene.rows(siblings)):
            record = placed.record
            if (record.trace_id, record.parent_id, record.op_hash) in failed:
                found.append(placed)
    return in_order(found)


# Traces --------------------------------------------------------------------------------------------------------------
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


def _traces(arrivals: Arrivals, again: _Again, cuts: dict[str, _Place]) -> Iterator[list[Placed]]:
    """The traces of interest, as far as their sessions are read."""
    for steps in _whole(arrivals, again):
        read = [each for each in steps if _is_before(each, cuts.get(each.session_id))] if cuts else steps
        if read and is_of_interest(read):
            yield read


def _whole(arrivals: Arrivals, again: _Again) -> Iterator[list[Placed]]:
    """The chosen traces: of digests, where one has all of it. Index: uq_spans_identity, once for each other trace."""
    scene = arrivals.scene
    others = again.chosen - again.scattered
    for steps in _told(arrivals, again.scattered):
        others.discard(bytes.fromhex(steps[0].record.trace_id))
        yield steps
    for some in parts_of(sorted(others | again.chosen & again.scattered)):
        query = select(*NARROW).where(arrivals.are_read(found_otherwise=True), scene.is_one_of(S.trace_id, some))
        parts = scene.streamed(query.order_by(S.trace_id), _RECORDS_AT_ONCE)
        placed = chain.from_iterable(placed_of(scene, part) for part in parts)
        for _, group in groupby(placed, key=_trace_of):
            yield in_order(group)


def _told(arrivals: Arrivals, scattered: set[bytes]) -> Iterator[list[Placed]]:
    """The traces that digests tell, without these."""
    pending: list[list[Any]] = []
    for _, digest in arrivals.digests():
        pending += (row for row in digests.rows_in(digest.steps) if row[TRACE] not in scattered)
        if len(pending) >= _RECORDS_AT_ONCE:
            yield from (list(group) for _, group in groupby(placed_of(arrivals.scene, pending), key=_trace_of))
            pending.clear()
    yield from (list(group) for _, group in groupby(placed_of(arrivals.scene, pending), key=_trace_of))


def _trace_of(placed: Placed) -> str:
    return placed.record.trace_id


def _is_before(placed: Placed, last: _Place | None) -> bool:
    record = placed.record
    return last is None or (record.start_ns, bytes.fromhex(record.trace_id), bytes.fromhex(record.span_id)) <= last
