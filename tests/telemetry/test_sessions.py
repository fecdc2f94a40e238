"""Which session a record is in, how a session went, and what it used: the same in any order of arrival."""

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.clock import EpochMs
from lifesign.telemetry import sessions
from lifesign.telemetry.records import Narrow
from lifesign.telemetry.sessions import Move, Rank, Totals, TraceSession
from tests.telemetry.spans import MS, RECEIVED_AT, START_NS, narrow

TRACE = "aa" * 16


def ids(*span_ids: int) -> list[str]:
    return [f"{span_id:016x}" for span_id in span_ids]


def child(span_id: int, of: int, **fields: Any) -> Narrow:  # Any: see Narrow
    return narrow(span_id, parent_id=f"{of:016x}", **fields)


# Membership ----------------------------------------------------------------------------------------------------------
def test_a_record_is_in_its_own_session_else_in_that_of_its_trace_else_in_its_trace() -> None:
    root, inner = narrow(1, own_session="s"), child(2, of=1)
    trace = sessions.trace_session([root, inner])

    assert sessions.session_of(root, None) == "s"
    assert sessions.session_of(inner, trace) == "s"
    assert sessions.session_of(inner, None) == TRACE
    assert sessions.session_of(child(3, of=1, own_session="mine"), trace) == "mine"


def test_the_id_of_a_trace_is_that_of_its_root() -> None:
    early = child(1, of=5, own_session="early")
    root = narrow(5, own_session="root")

    assert sessions.trace_session([early, root]) == TraceSession("root", Rank(False, root.start_ns, root.span_id))


def test_without_a_root_that_has_one_it_is_that_of_the_earliest_span() -> None:
    late, early = child(3, of=1, own_session="late"), child(2, of=1, own_session="early")
    tied = child(9, of=1, own_session="tied", start_ns=early.start_ns)

    found = sessions.trace_session([tied, late, early, narrow(1)])

    assert found is not None
    assert found.session_id == "early"


def test_a_trace_in_which_nobody_has_an_id_has_none() -> None:
    assert sessions.trace_session([narrow(1), child(2, of=1)]) is None


def test_a_better_source_that_comes_later_moves_what_inherits() -> None:
    # Children without an id arrive first, then one with an id, then the root.
    first = sessions.trace_session([child(2, of=1)])
    second = sessions.trace_session([child(3, of=1, own_session="inner")], first)
    third = sessions.trace_session([narrow(1, own_session="root")], second)
    fourth = sessions.trace_session([child(4, of=1, own_session="inner")], third)

    assert sessions.move(TRACE, None, first) is None
    assert sessions.move(TRACE, first, second) == Move(TRACE, TRACE, "inner")
    assert sessions.move(TRACE, second, third) == Move(TRACE, "inner", "root")
    assert sessions.move(TRACE, third, fourth) is None


def test_ranks_as_text_sort_as_the_ranks_do() -> None:
    ranks = [
        Rank(False, 5, "b"),
        Rank(False, 40, "a"),
        Rank(True, 0, "c"),
        Rank(True, 5, "a"),
        Rank(True, 5, "b"),
        Rank(True, 2**63 - 1, "a"),
    ]

    assert sorted(ranks) == ranks
    assert sorted(ranks, key=lambda rank: rank.key) == ranks
    assert [Rank.from_key(rank.key) for rank in ranks] == ranks


OWN = st.none() | st.sampled_from(["s", "t"])


@st.composite
def records(draw: st.DrawFn) -> list[Narrow]:
    """Records of two traces with parents anywhere, also in cycles and outside."""
    size = draw(st.integers(1, 12))
    return [
        narrow(
            span_id,
            trace_id=draw(st.sampled_from(["aa" * 16, "bb" * 16])),
            parent_id=draw(st.just("") | st.integers(1, size + 1).map(lambda parent: f"{parent:016x}")),
            start_ns=START_NS + draw(st.integers(0, 5)),
            received_at=EpochMs(RECEIVED_AT + draw(st.integers(0, 3))),
            kind=draw(st.sampled_from(["llm", "tool", "agent", "embedding", "other"])),
            operation=draw(st.sampled_from(["a", "b"])),
            status=draw(st.sampled_from(["ok", "error", "unset"])),
            signal_type=draw(st.sampled_from(["info", "error"])),
            own_session=draw(OWN),
            agent=draw(OWN),
            environment=draw(OWN),
            input_tokens=(tokens := draw(st.none() | st.integers(0, 9))),
            total_tokens=tokens,
            cost_nano=draw(st.none() | st.integers(0, 9)),
        )
        for span_id in range(1, size + 1)
    ]


@given(records(), st.randoms(use_true_random=False), st.integers(0, 12))
def test_nothing_depends_on_the_order(of_session: list[Narrow], chance: random.Random, cut: int) -> None:
    shuffled = of_session[:]
    chance.shuffle(shuffled)

    assert sessions.summary_of("s", shuffled, ["b", "a"]) == sessions.summary_of("s", of_session, ["a", "b"])
    for trace_id in ("aa" * 16, "bb" * 16):
        whole = sessions.trace_session(each for each in of_session if each.trace_id == trace_id)
        first = sessions.trace_session(each for each in shuffled[:cut] if each.trace_id == trace_id)
        then = sessions.trace_session((each for each in shuffled[cut:] if each.trace_id == trace_id), first)
        assert then == whole


@given(records())
def test_a_number_is_counted_at_most_once_and_not_lost(of_session: list[Narrow]) -> None:
    totals = sessions.totals_of(of_session)

    told = [each.input_tokens for each in of_session if each.input_tokens is not None]
    assert (totals.input or 0) <= sum(told)
    assert (totals.input or 0) > 0 or not any(told)


# Outcomes ------------------------------------------------------------------------------------------------------------
def failed(record: Narrow) -> Narrow:
    return narrow(
        int(record.span_id, 16),
        parent_id=record.parent_id,
        operation=record.operation,
        status="error",
        signal_type="error",
    )


@pytest.mark.parametrize(
    ("of_session", "expected"),
    [
        ([narrow(1), child(2, of=1)], "ok"),
        ([child(2, of=1)], "unknown"),
        ([child(2, of=1), child(3, of=1, status="ok")], "ok"),
        ([failed(narrow(1))], "failed"),
        ([narrow(1), failed(child(2, of=1))], "failed"),
        # A later success of the same operation makes up for it; of another one, or an earlier one, does not.
        ([narrow(1, operation="r"), failed(child(2, of=1)), child(3, of=1)], "recovered"),
        ([narrow(1, operation="r"), failed(child(2, of=1)), child(3, of=1, operation="x")], "failed"),
        ([narrow(1, operation="r"), child(2, of=1), failed(child(3, of=1))], "failed"),
        ([narrow(1, operation="r"), failed(child(2, of=1)), child(3, of=1, start_ns=START_NS + 2 * MS)], "failed"),
        ([narrow(1, operation="r"), failed(child(2, of=1)), failed(child(3, of=1)), child(4, of=1)], "recovered"),
        # Without a root it can be recovered too.
        ([failed(child(2, of=1)), child(3, of=1)], "recovered"),
        # The latest root decides.
        ([failed(narrow(1, operation="r")), narrow(5, operation="r")], "recovered"),
        ([narrow(1, operation="r"), failed(narrow(5, operation="r"))], "failed"),
        (
            [
                narrow(1, operation="r"),
                failed(narrow(5, operation="q")),
                child(6, of=5, operation="q"),
            ],
            "failed",
        ),
    ],
)
def test_outcomes(of_session: list[Narrow], expected: str) -> None:
    assert sessions.outcome_of(of_session) == expected
    assert sessions.outcome_of(reversed(of_session)) == expected


# Totals --------------------------------------------------------------------------------------------------------------
def used(tokens: int | None, cost: int | None = None) -> dict[str, Any]:
    return {"input_tokens": tokens, "total_tokens": tokens, "cost_nano": cost}


def test_calls_of_models_are_summed() -> None:
    agent = narrow(1, kind="agent")
    calls = [
        child(2, of=1, kind="llm", input_tokens=10, output_tokens=2, cache_read_tokens=4, total_tokens=12, cost_nano=7),
        child(3, of=1, kind="llm", input_tokens=20, output_tokens=3, reasoning_tokens=1, total_tokens=23, cost_nano=8),
        child(4, of=1, kind="embedding", input_tokens=5, total_tokens=5),
    ]

    assert sessions.totals_of([agent, *calls]) == Totals(35, 5, 4, None, 1, 40, 15)


def test_nothing_known_is_not_nothing_used() -> None:
    assert sessions.totals_of([narrow(1)]) == Totals()


@pytest.mark.parametrize(
    ("of_session", "tokens", "cost"),
    [
        # An agent repeats what its calls used.
        ([narrow(1, kind="agent", **used(30, 3)), child(2, of=1, kind="llm", **used(30, 4))], 30, 4),
        # A wrapper around the same call, by another library.
        ([narrow(1, kind="llm", **used(30, 3)), child(2, of=1, kind="llm", **used(30, 4))], 30, 4),
        # However far inside.
        ([narrow(1, kind="llm", **used(30)), child(2, of=1), child(3, of=2, kind="llm", **used(29))], 29, None),
        # An agent is all there is.
        ([narrow(1, kind="agent", **used(30, 3)), child(2, of=1)], 30, 3),
        ([narrow(1, kind="agent", **used(30)), child(2, of=1, kind="agent", **used(20))], 20, None),
        # Somebody counted nothing inside: what the wrapper says counts.
        ([narrow(1, kind="llm", **used(30)), child(2, of=1, kind="llm", **used(0))], 30, None),
        ([narrow(1, kind="llm", **used(30)), child(2, of=1, kind="llm", **used(None))], 30, None),
        # Only calls of models supersede a call of a model.
        ([narrow(1, kind="llm", **used(30)), child(2, of=1, kind="tool", **used(5))], 35, None),
        # Tokens and costs may be told in different places.
        ([narrow(1, kind="agent", **used(30)), child(2, of=1, kind="tool", **used(None, 5))], 30, 5),
        ([narrow(1, kind="agent", **used(None, 5)), child(2, of=1, kind="llm", **used(30))], 30, 5),
        ([narrow(1, kind="agent", **used(30, 5)), child(2, of=1, kind="llm", **used(30))], 30, 5),
        # Equal ids in two traces are two spans.
        ([narrow(1, kind="agent", **used(30)), child(2, of=1, trace_id="bb" * 16, kind="llm", **used(5))], 35, None),
    ],
)
def test_what_is_told_twice_counts_once(of_session: list[Narrow], tokens: int | None, cost: int | None) -> None:
    totals = sessions.totals_of(of_session)

    assert (totals.total, totals.cost_nano) == (tokens, cost)
    assert sessions.totals_of(of_session[::-1]) == totals


def test_a_cycle_of_parents_is_cut_at_its_earliest_record() -> None:
    cycle = [
        child(1, of=3, kind="agent", **used(10)),
        child(2, of=1, kind="agent", **used(20)),
        child(3, of=2, kind="agent", **used(30)),
    ]

    # 1 is the root now, 3 the innermost.
    assert sessions.totals_of(cycle).total == 30
    assert sessions.totals_of([child(1, of=1, kind="agent", **used(10))]).total == 10


def test_a_hundred_thousand_spans_inside_each_other_are_summed_in_one_go() -> None:
    chain = [narrow(1, kind="agent", **used(1))]
    chain += [child(span_id, of=span_id - 1, kind="agent", **used(1)) for span_id in range(2, 100_001)]

    assert sessions.totals_of(chain).total == 1


# Summaries -----------------------------------------------------------------------------------------------------------
def test_a_summary() -> None:
    of_session = [
        narrow(
            2,
            kind="agent",
            agent="planner",
            environment="prod",
            end_ns=START_NS + 900 * MS,
            received_at=EpochMs(RECEIVED_AT + 5),
        ),
        child(1, of=2, agent="early", environment=None, signal_type="slow_operation"),
        child(3, of=2, kind="llm", agent="planner", model="m-2", **used(10, 2_500_000)),
        child(4, of=2, kind="llm", agent="coder", model="m-1", **used(20, 500_000)),
        child(5, of=2, kind="tool", operation="t", status="error", signal_type="tool_call_failed"),
        narrow(6, trace_id="bb" * 16, agent="late", environment="test"),
    ]

    assert sessions.summary_of("s-1", of_session, ["b", "a", "b"]).wire() == {
        "session_id": "s-1",
        "aliases": ["a", "b"],
        "agent": "planner",
        "agents": ["coder", "early", "late", "planner"],
        "environment": "test",
        "environments": ["prod", "test"],
        "models": ["m-1", "m-2"],
        "outcome": "failed",
        "turns": 6,
        "traces": 2,
        "failures": 1,
        "signals": {"info": 4, "slow_operation": 1, "tool_call_failed": 1},
        "started_at": "2026-01-05T12:00:00.001Z",
        "ended_at": "2026-01-05T12:00:00.900Z",
        "duration_ms": 899.0,
        "last_received_at": "2026-01-05T12:00:01.005Z",
        "tokens": {
            "input": 30,
            "output": None,
            "cache_read": None,
            "cache_write": None,
            "reasoning": None,
            "total": 30,
        },
        "cost_usd": 0.003,
    }


def test_without_a_root_the_earliest_record_names_the_agent() -> None:
    summary = sessions.summary_of("s", [child(3, of=1, agent="b"), child(2, of=1, agent="a")])

    assert summary.agent == "a"


def test_twenty_agents_and_aliases_are_listed() -> None:
    of_session = [narrow(number, agent=f"a{number:02}") for number in range(1, 31)]

    summary = sessions.summary_of("s", of_session, [f"alias{number:02}" for number in range(30)])

    assert summary.agents == tuple(f"a{number:02}" for number in range(1, 21))
    assert summary.aliases == tuple(f"alias{number:02}" for number in range(20))


def test_a_session_that_ended_before_it_began_took_no_time() -> None:
    summary = sessions.summary_of("s", [narrow(1, end_ns=START_NS - 5)])

    assert (summary.wire()["duration_ms"], summary.wire()["ended_at"]) == (0.0, "2026-01-05T12:00:00.001Z")
