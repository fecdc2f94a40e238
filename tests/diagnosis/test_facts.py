"""The facts of a window are sums, and only the records that a rule may look at."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.diagnosis.facts import (
    HEAVY_SESSION,
    ModelFacts,
    OperationFacts,
    SessionTokens,
    WindowFacts,
    facts_of,
    newest,
    window_facts,
)
from lifesign.diagnosis.packet import examined
from lifesign.diagnosis.preparation import Placed, in_order
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.records import BLOCKED, EMPTY_RESULT
from lifesign.telemetry.rules import duration_bucket
from tests.diagnosis.spans import UNTIL_MS, diagnosed, ids, span, spans


def test_operations_are_summed_by_key() -> None:
    records = [
        span(1, kind="http", operation="/users/17", duration_ms=100),
        span(2, kind="http", operation="/users/18", duration_ms=100),
        span(3, kind="http", operation="/users/19", failing=True),
        span(4, operation="/users/17"),
    ]

    found = window_facts(in_order(records)).operations

    http, tool = (operation_hash(kind, "/users/<n>") for kind in ("http", "tool"))
    bucket = duration_bucket(100_000_000)
    assert {each.op_hash: each for each in found} == {
        http: OperationFacts(http, "http", "/users/<n>", 3, 1, {bucket: 2}),
        tool: OperationFacts(tool, "tool", "/users/<n>", 1, 0, {bucket: 1}),
    }


def test_models_and_sessions_are_summed() -> None:
    records = [
        span(1, session="s", kind="llm", cost_nano=7, total_tokens=HEAVY_SESSION, agent="b"),
        span(2, session="s", kind="llm", cost_nano=None, total_tokens=1, agent="a"),
        span(3, session="t", kind="llm", model="small", total_tokens=HEAVY_SESSION),
        span(4, session="t", kind="agent", total_tokens=9),
        span(5, session="u"),
    ]

    found = window_facts(records)

    assert found.models == [ModelFacts("gpt-5", 2, 7), ModelFacts("small", 1, None)]
    assert found.token_sums == [HEAVY_SESSION + 1, HEAVY_SESSION]
    assert found.heavy_sessions == [SessionTokens("s", "a", HEAVY_SESSION + 1)]
    assert (found.records, found.sessions) == (5, 3)


def test_rows_are_what_is_out_of_the_ordinary() -> None:
    plain = [span(1), span(2, kind="llm", finish_reason="stop"), span(3, attempt=2)]
    rows = [
        span(4, failing=True),
        span(5, signal_type="slow_operation"),
        span(6, kind="llm", finish_reason="LENGTH"),
        span(7, attempt=3),
        span(8, flags=BLOCKED),
    ]

    assert window_facts([*plain, *rows]).rows == rows


@pytest.mark.parametrize(
    ("trace", "is_read"),
    [
        (spans(1, 3, trace=1), False),
        (spans(1, 1, trace=1, failing=True), True),
        (spans(1, 1, trace=1, kind="http", failing=True), False),
        (spans(1, 2, trace=1, flags=EMPTY_RESULT), True),
        (spans(1, 1, trace=1, flags=EMPTY_RESULT), False),
        (spans(1, 3, trace=1, args_hash=7), True),
        (spans(1, 2, trace=1, args_hash=7), False),
        (spans(1, 4, trace=1, kind="agent"), True),
        (spans(1, 3, trace=1, kind="agent"), False),
        (spans(1, 6, trace=1, kind="llm", input_tokens=20_000), True),
        (spans(1, 6, trace=1, kind="llm", input_tokens=19_999), False),
        (spans(1, 5, trace=1, kind="llm", input_tokens=20_000), False),
    ],
)
def test_only_traces_of_interest_are_read_whole(trace: list[Placed], *, is_read: bool) -> None:
    assert window_facts(trace).traces == ([trace] if is_read else [])


def test_a_session_is_read_from_its_start_and_told_of_when_it_is_cut() -> None:
    noisy = spans(1, 10, trace=1, failing=True)
    other = spans(11, 2, trace=2, failing=True)

    found = window_facts([*noisy, *other], most_of_a_session=4)

    assert found.traces == [noisy[:4], other]
    assert found.sessions_cut == 1
    assert found.records == 12


def test_beyond_the_cap_the_newest_are_read() -> None:
    records = spans(1, 1500, failing=True)
    random.Random(4).shuffle(records)

    kept, effective_since, left_out = newest(records, 1000)

    assert (len(kept), left_out) == (1000, 500)
    assert effective_since == UNTIL_MS - 1_000_000 + 501
    assert diagnosed(kept)["telemetry_read"] == 1000
    assert newest(records, 1500) == (records, None, 0)


def test_the_traces_are_read_once_so_that_they_may_be_a_stream() -> None:
    steps = spans(1, 6, trace=1, args_hash=7, result_hash=5)
    facts = facts_of(steps)
    whole = facts.current
    streamed = WindowFacts(records=6, sessions=1, operations=whole.operations, traces=iter([steps]))

    [kept] = examined(type(facts)(streamed, facts.baseline)).kept

    assert ids(*kept.finding.records) == ids(*steps)


@given(st.randoms(use_true_random=False))
def test_the_order_of_records_changes_no_fact(dice: random.Random) -> None:
    records = [
        span(n, trace=n % 3 + 1, failing=n % 4 == 0, args_hash=1, start_ns=n % 2, session=f"s{n % 5}")
        for n in range(1, 30)
    ]
    facts = facts_of(records, most_of_a_session=4)
    dice.shuffle(records)

    assert facts_of(records, most_of_a_session=4) == facts
