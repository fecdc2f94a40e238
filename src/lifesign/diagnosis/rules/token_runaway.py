"""R10: a session uses far more tokens than sessions do, or a context grows with every call."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from lifesign.diagnosis.facts import HEAVY_SESSION, LARGE_INPUT, MANY_CALLS
from lifesign.diagnosis.findings import Finding, Groups, Hit, Rule, Selector, View, named
from lifesign.diagnosis.preparation import Placed
from lifesign.diagnosis.statistics import outlier_above

SIGMAS: Final = 6
LEAST_SESSIONS: Final = 20
GROWTH: Final = 4


def _hits_in(steps: Sequence[Placed], _view: View) -> Iterator[Hit]:
    calls = [placed for placed in steps if placed.record.kind == "llm"]
    if len(calls) < MANY_CALLS:
        return
    rising: list[Placed] = []
    for placed in calls:
        if rising and _input(placed) <= _input(rising[-1]):
            yield from _hits(rising)
            rising = []
        # What a call read that does not say so is unknown, not nothing.
        if _input(placed) > 0:
            rising.append(placed)
    yield from _hits(rising)


def _hits(rising: Sequence[Placed]) -> Iterator[Hit]:
    if len(rising) < MANY_CALLS:
        return
    first, last = _input(rising[0]), _input(rising[-1])
    if last >= LARGE_INPUT and last >= GROWTH * first:
        yield Hit((named(rising[-1].record.agent),), rising[-1])


def _input(placed: Placed) -> int:
    return placed.record.input_tokens or 0


def _findings(rule: Rule, groups: Groups, now: View, before: View | None) -> Iterator[Finding]:
    sessions: dict[str, set[str]] = defaultdict(set)
    for (agent,), hits in groups.items():
        sessions[agent].update(hit.placed.session_id for hit in hits)
    limit = _limit(before)
    for session in now.facts.heavy_sessions:
        if session.tokens > limit:
            sessions[named(session.agent)].add(session.session_id)
    tokens = {session.session_id: session.tokens for session in now.facts.heavy_sessions}
    for agent, session_ids in sorted(sessions.items()):
        # A context that grows to 20,000 tokens may be of a session that is not among the heavy ones.
        largest = max(tokens.get(each, 0) for each in session_ids)
        grown = max((_input(hit.placed) for hit in groups.get((agent,), ())), default=0)
        yield Finding(
            rule,
            (agent,),
            len(session_ids),
            selector=Selector("input_tokens", sessions=tuple(sorted(session_ids))),
            values={"n": str(max(largest, grown))},
        )


def _limit(before: View | None) -> float:
    if before is None or len(before.facts.token_sums) < LEAST_SESSIONS:
        return float("inf")
    return max(HEAVY_SESSION, outlier_above(before.facts.token_sums, SIGMAS))


RULE: Final = Rule(
    10,
    "token_runaway",
    "Cap or compact the context of {subject}: the largest session used {n} tokens.",
    own=frozenset({"agent"}),
    hits_in=_hits_in,
    findings=_findings,
)
