"""Each rule fires from its threshold on, and not below."""

from pathlib import Path

# Any: fields of records.
from typing import Any

import pytest

from lifesign.diagnosis import rules
from lifesign.diagnosis.preparation import Placed
from lifesign.diagnosis.rules import all_rules
from lifesign.diagnosis.texts import percent
from lifesign.telemetry.records import BLOCKED, EMPTY_RESULT
from tests.diagnosis.spans import counts, diagnosed, issues, span, spans


def calls(*args: tuple[str, int | None], results: list[int | None] | None = None) -> list[Placed]:
    """Calls of tools with arguments, in one trace."""
    return [
        span(number, trace=1, operation=tool, args_hash=args_hash, result_hash=results[number - 1] if results else 5)
        for number, (tool, args_hash) in enumerate(args, 1)
    ]


def llm(number: int, **fields: Any) -> Placed:
    return span(number, kind="llm", operation="chat", **fields)


def test_there_are_sixteen_rules_each_with_its_own_name() -> None:
    rules = all_rules()

    assert [rule.number for rule in rules] == list(range(1, 17))
    assert len({rule.signal_type for rule in rules}) == 16


def test_a_new_file_is_a_new_rule(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "added_by_a_test.py").write_text(
        "from lifesign.diagnosis.findings import Rule\nRULE = Rule(17, 'added', '')\n"
    )
    monkeypatch.setattr(rules, "__path__", [*rules.__path__, str(tmp_path)])
    rules.all_rules.cache_clear()

    try:
        assert [rule.signal_type for rule in all_rules()][-2:] == ["empty_result", "added"]
    finally:
        rules.all_rules.cache_clear()


@pytest.mark.parametrize(("share", "expected"), [(0.145, "15"), (0.144, "14"), (1.0, "100"), (0.0, "0"), (1e-9, "0")])
def test_percents_are_whole_and_half_goes_up(share: float, expected: str) -> None:
    assert percent(share) == expected


def test_a_rate_is_told_in_percents_when_no_failure_issue_has_it() -> None:
    # A guardrail's failures are blocks, so its rate stands by itself.
    now = [span(n, kind="guardrail", operation="pii", failing=n <= 50) for n in range(1, 101)]
    before = [span(1000 + n, kind="guardrail", operation="pii", failing=n < 2) for n in range(100)]

    found = issues(now, before)

    assert set(found) == {"guardrail_block on pii", "error_rate_regression on pii"}
    assert found["error_rate_regression on pii"]["next_action"] == (
        "Compare pii before and after 2026-01-05T11:43:20.001Z: failures rose from 2 % to 50 %."
    )
    assert found["error_rate_regression on pii"]["baseline_count"] == 2


# R1 to R4 ------------------------------------------------------------------------------------------------------------
def test_failures_are_told_by_operation_and_type() -> None:
    packet = diagnosed(
        [
            span(1, failing=True),
            span(2, failing=True, error_type="a.b.Timeout"),
            span(3, failing=True, error_type="ValueError"),
            span(4, kind="http", operation="/users/17", failing=True),
            span(5, kind="http", operation="/users/18", failing=True),
            span(6),
        ]
    )

    assert sorted((each["title"], each["error_type"], each["count"]) for each in packet["issues"]) == [
        ("error on /users/<n>", "Timeout", 2),
        ("tool_call_failed on search", "Timeout", 2),
        ("tool_call_failed on search", "ValueError", 1),
    ]


def test_slow_records_and_unhappy_people_are_told() -> None:
    slow = span(1, kind="http", operation="/pay", signal_type="slow_operation", duration_ms=12_000)
    unhappy = span(2, kind="agent", signal_type="user_signal", agent=None)

    found = issues([slow, unhappy])

    assert {title: each["count"] for title, each in found.items()} == {
        "slow_operation on /pay": 1,
        "user_signal on unknown": 1,
    }


def test_many_slow_records_are_medium_at_most() -> None:
    slow = spans(1, 60, kind="http", operation="/pay", signal_type="slow_operation", duration_ms=12_000)

    [found] = issues(slow).values()

    assert found["severity"] == "medium"
    assert found["next_action"].startswith("Profile /pay: p95 is 12")
    assert found["next_action"].endswith("(baseline unknown).")


# R5 ------------------------------------------------------------------------------------------------------------------
SAME = ("search", 7)
OTHER = ("search", 8)
FETCH = ("fetch", 7)


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([SAME] * 2, {}),
        ([SAME] * 3, {"tool_loop on search": 3}),
        ([SAME] * 6, {"tool_loop on search": 6}),
        ([SAME, SAME, OTHER, SAME], {}),
        ([SAME, SAME, OTHER, SAME, SAME, FETCH, SAME], {"tool_loop on search": 5}),
        ([SAME, SAME, ("search", None), SAME], {}),
        ([("search", None)] * 6, {}),
        ([SAME, SAME, OTHER, SAME, SAME], {}),
        ([SAME, SAME, FETCH] * 3, {"tool_loop on search": 6}),
        ([SAME, FETCH] * 2, {}),
        ([SAME, FETCH] * 3, {"tool_loop on search": 3, "tool_loop on fetch": 3}),
        ([SAME, OTHER, FETCH] * 3, {"tool_loop on search": 6, "tool_loop on fetch": 3}),
        ([SAME, OTHER, FETCH, ("fetch", 8)] * 3, {"tool_loop on search": 6, "tool_loop on fetch": 6}),
        ([SAME, OTHER, FETCH, ("fetch", 8), ("x", 1)] * 3, {}),
        ([OTHER, SAME, FETCH, SAME, FETCH, SAME], {}),
        ([("x", 1), OTHER, SAME, FETCH, SAME, FETCH, SAME], {}),
        ([("x", 1), *[SAME, FETCH] * 3], {"tool_loop on search": 3, "tool_loop on fetch": 3}),
        ([*[SAME, FETCH] * 3, ("x", 1), ("x", 2), ("x", 3)], {"tool_loop on search": 3, "tool_loop on fetch": 3}),
        ([*[SAME] * 3, *[("search", None)] * 5], {"tool_loop on search": 3}),
    ],
)
def test_loops_are_three_in_a_row_five_in_all_or_three_cycles(
    made: list[tuple[str, int | None]], expected: dict[str, int]
) -> None:
    assert counts(calls(*made)) == expected


def test_polling_is_no_loop() -> None:
    assert counts(calls(*[SAME] * 6, results=[1, 2, 3, 4, 5, 6])) == {}
    assert counts(calls(*[SAME] * 6, results=[1, 2, 3, 4, 5, 5])) == {"tool_loop on search": 6}
    # What is not told may be the same.
    assert counts(calls(*[SAME] * 3, results=[1, 2, None])) == {"tool_loop on search": 3}


def test_a_row_is_one_of_tool_records_whatever_stands_between() -> None:
    between = [llm(10 * n + 5, trace=1) for n in (1, 2)]

    assert counts([*(span(10 * n, trace=1, args_hash=7) for n in (1, 2, 3)), *between]) == {"tool_loop on search": 3}


def test_equal_calls_in_different_traces_are_no_loop() -> None:
    assert counts(spans(1, 6, args_hash=7, result_hash=5)) == {}


# R6, R7 --------------------------------------------------------------------------------------------------------------
def test_a_third_attempt_is_a_storm_and_a_second_is_not() -> None:
    assert counts([span(1, attempt=2)]) == {}
    found = issues([span(1, attempt=3), span(2, attempt=4)])
    assert found["retry_storm on search"]["next_action"].endswith("the highest attempt was 4.")


def test_an_attempt_that_failed_because_of_its_child_is_no_storm() -> None:
    parents = [span(n, trace=n, attempt=3, failing=True) for n in (1, 2)]
    children = [span(10 + n, trace=n, parent=n, kind="http", operation="/page", failing=True) for n in (1, 2)]

    assert counts([*parents, *children]) == {"error on /page": 2}


def test_three_failing_siblings_are_a_storm_within_their_failure() -> None:
    two = [span(number, trace=1, parent=9, failing=True) for number in (1, 2)]
    third = span(3, trace=1, parent=9, failing=True)

    assert issues(two)["tool_call_failed on search"]["patterns"] == []
    [found] = issues([*two, third]).values()
    assert (found["title"], found["patterns"]) == ("tool_call_failed on search", ["retry_storm"])


def test_a_storm_is_within_a_failure_when_half_of_it_failed() -> None:
    half = [*spans(1, 2, attempt=3, failing=True), *spans(3, 2, attempt=3)]
    less = [*spans(1, 1, attempt=3, failing=True), *spans(3, 3, attempt=3)]

    assert list(issues(half)) == ["tool_call_failed on search"]
    assert counts(less) == {"retry_storm on search": 4, "tool_call_failed on search": 1}


def test_failing_roots_have_no_parent_in_common() -> None:
    assert issues(spans(1, 3, trace=1, failing=True))["tool_call_failed on search"]["patterns"] == []


def run_with_failure(*, root_failing: bool = False, later_calls: int = 2, success: bool = False) -> list[Placed]:
    root = span(1, trace=1, kind="agent", operation="run", failing=root_failing)
    tool = span(2, trace=1, parent=1, failing=True)
    again = [span(3, trace=1, parent=7)] if success else []
    return [root, tool, *again, *(llm(10 + each, trace=1, parent=1) for each in range(later_calls))]


def test_a_failure_that_nobody_minded_is_told() -> None:
    assert issues(run_with_failure())["tool_call_failed on search"]["patterns"] == ["ignored_error"]


@pytest.mark.parametrize(
    "run",
    [
        run_with_failure(root_failing=True),
        run_with_failure(later_calls=1),
        run_with_failure(success=True),
        run_with_failure()[1:],
    ],
    ids=["the root failed", "one call of a model", "success later", "no root"],
)
def test_a_failure_that_somebody_minded_is_not_ignored(run: list[Placed]) -> None:
    assert issues(run)["tool_call_failed on search"]["patterns"] == []


def test_only_tools_whose_own_failure_it_was_and_calls_after_it_count() -> None:
    root = span(1, trace=1, kind="agent", operation="run")
    calls_after = [llm(10 + each, trace=1, parent=1) for each in (1, 2)]
    page = span(3, trace=1, parent=2, kind="http", operation="/page", failing=True)
    tool = span(2, trace=1, parent=1, failing=True)

    # The tool failed because of the page, which is no tool.
    assert {title: each["patterns"] for title, each in issues([root, tool, page, *calls_after]).items()} == {
        "error on /page": []
    }
    early = [llm(10 + each, trace=1, parent=1, start_ns=tool.record.start_ns - each) for each in (0, 1, 2)]
    for calls_before in (early, [*early, calls_after[0]]):
        assert issues([root, tool, *calls_before])["tool_call_failed on search"]["patterns"] == []
    assert issues([root, tool, *early, *calls_after])["tool_call_failed on search"]["patterns"] == ["ignored_error"]


def test_only_calls_of_models_go_on_and_only_the_tool_makes_good() -> None:
    root, tool = run_with_failure(later_calls=0)
    others = [span(10 + n, trace=1, parent=1, kind="http", operation="/page", tool="search") for n in (1, 2)]

    assert issues([root, tool, *others])["tool_call_failed on search"]["patterns"] == []
    # A request for the tool is not the tool.
    assert issues([*run_with_failure(), others[1]])["tool_call_failed on search"]["patterns"] == ["ignored_error"]


def test_of_several_roots_none_may_have_failed() -> None:
    other = span(50, trace=1, kind="agent", operation="other", failing=True)

    assert issues([*run_with_failure(), other])["tool_call_failed on search"]["patterns"] == []


# R8, R9 --------------------------------------------------------------------------------------------------------------
def calls_with_failures(first: int, number: int, failing: int) -> list[Placed]:
    return [span(first + each, failing=each < failing) for each in range(number)]


def test_a_rate_that_rose_beyond_chance_is_told() -> None:
    risen = issues(calls_with_failures(1, 100, 30), calls_with_failures(1001, 100, 2))
    assert risen["tool_call_failed on search"]["patterns"] == ["error_rate_regression"]
    assert risen["tool_call_failed on search"]["severity"] == "critical"

    steady = issues(calls_with_failures(1, 100, 4), calls_with_failures(1001, 100, 2))
    assert steady["tool_call_failed on search"]["patterns"] == []


@pytest.mark.parametrize(("timeouts", "refusals", "expected"), [(20, 12, "Timeout"), (12, 20, "Refused")])
def test_a_rate_goes_into_the_failure_that_most_of_it_is(timeouts: int, refusals: int, expected: str) -> None:
    kinds = ["Timeout"] * timeouts + ["Refused"] * refusals + [None] * 68
    now = [span(n, failing=kind is not None, error_type=kind) for n, kind in enumerate(kinds, 1)]

    packet = diagnosed(now, calls_with_failures(1001, 100, 2))

    assert {each["error_type"]: each["patterns"] for each in packet["issues"]} == {
        "Timeout": [],
        "Refused": [],
        expected: ["error_rate_regression"],
    }


def test_of_two_kinds_of_operation_each_rate_counts_its_own_sessions() -> None:
    # Both have one issue of errors; five sessions of either are many.
    now = [
        *(span(n, kind="http", operation="/x", session=f"s{n % 5}", failing=n <= 30) for n in range(1, 101)),
        *(span(200 + n, kind="workflow", operation="/x", session="w", failing=n <= 30) for n in range(1, 101)),
    ]
    before = [*spans(1001, 100, kind="http", operation="/x"), *spans(2001, 100, kind="workflow", operation="/x")]

    [found] = issues(now, before).values()

    assert (found["count"], found["patterns"], found["severity"]) == (60, ["error_rate_regression"], "high")


def test_nineteen_calls_are_too_few_for_a_rate() -> None:
    enough = issues(calls_with_failures(1, 20, 19), calls_with_failures(1001, 20, 0))
    few = issues(calls_with_failures(1, 19, 19), calls_with_failures(1001, 200, 0))
    few_before = issues(calls_with_failures(1, 200, 190), calls_with_failures(1001, 19, 0))

    assert enough["tool_call_failed on search"]["patterns"] == ["error_rate_regression"]
    assert few["tool_call_failed on search"]["patterns"] == few_before["tool_call_failed on search"]["patterns"] == []


@pytest.mark.parametrize(
    ("number", "before_ms", "now_ms", "fires"),
    [
        (30, 1000, 1600, True),
        (29, 1000, 1600, False),
        (30, 1000, 1400, False),
        (30, 100, 190, False),
        (30, 100, 250, True),
        (30, 1600, 1000, False),
        (30, 172, 266, False),
        (30, 71, 167, True),
    ],
    ids=["half as long again", "too few", "not by half", "not by 100 ms", "by much more", "faster", "99.2", "100.1"],
)
def test_a_latency_that_rose_by_much_is_told(number: int, before_ms: int, now_ms: int, *, fires: bool) -> None:
    found = counts(spans(1, number, duration_ms=now_ms), spans(1001, number, duration_ms=before_ms))

    assert found == ({"latency_regression on search": number} if fires else {})


@pytest.mark.parametrize(("now", "before"), [(29, 300), (300, 29)])
def test_twenty_nine_that_succeed_in_either_window_are_too_few_for_a_latency(now: int, before: int) -> None:
    failing = [span(n, failing=True, duration_ms=5000) for n in range(5000, 5050)]

    found = counts(
        [*spans(1, now, duration_ms=5000), *failing],
        [*spans(1001, before, duration_ms=100), *(span(n, failing=True) for n in range(6000, 6050))],
    )

    assert found == {"tool_call_failed on search": 50}


def test_a_few_slow_ones_raise_the_p95_and_are_no_regression() -> None:
    now = [*spans(1, 90, duration_ms=100), *spans(91, 10, duration_ms=9000)]

    assert counts(now, spans(1001, 100, duration_ms=100)) == {}


def test_more_of_the_slow_ones_that_were_there_before_are_no_regression() -> None:
    now = [*spans(1, 60, duration_ms=100), *spans(101, 40, duration_ms=3000)]

    assert counts(now, [*spans(1001, 90, duration_ms=100), *spans(2001, 10, duration_ms=3000)]) == {}


def test_a_shift_that_may_be_chance_is_no_regression() -> None:
    before = spans(1001, 30, duration_ms=100)

    # Worked out by hand: z is 3.00 for eight of thirty, which is .0013, and 3.42 for ten.
    assert counts([*spans(1, 8, duration_ms=900), *spans(9, 22, duration_ms=100)], before) == {}
    assert counts([*spans(1, 10, duration_ms=900), *spans(11, 20, duration_ms=100)], before) == {
        "latency_regression on search": 10
    }


@pytest.mark.parametrize(
    ("slow", "now", "before", "fires"), [(9, 36, 34, True), (7, 34, 43, False)], ids=[".0009987", ".0010008"]
)
def test_chance_is_one_in_a_thousand(slow: int, now: int, before: int, *, fires: bool) -> None:
    # As `scipy.stats.mannwhitneyu(..., alternative="greater", method="asymptotic")` has them.
    found = counts(
        [*spans(1, slow, duration_ms=900), *spans(101, now - slow, duration_ms=100)],
        spans(1001, before, duration_ms=100),
    )

    assert found == ({"latency_regression on search": slow} if fires else {})


@pytest.mark.parametrize(("operations", "fires"), [(32, True), (33, False)])
def test_among_many_operations_it_takes_less_chance_to_believe_one(operations: int, *, fires: bool) -> None:
    # Ten of thirty: p is .000309, and a hundredth may be false of 32 tests at .0003125.
    now = [*spans(1, 10, duration_ms=900), *spans(11, 20, duration_ms=100)]
    names = [f"op-{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(operations - 1)]
    steady = [span(5000 + 30 * n + each, operation=name) for n, name in enumerate(names) for each in range(30)]

    found = counts([*now, *steady], [*spans(1001, 30, duration_ms=100), *steady])

    assert found == ({"latency_regression on search": 10} if fires else {})


@pytest.mark.parametrize(("slow", "fires"), [(19, False), (20, True)])
def test_a_fifth_must_be_slower_however_sure_it_is(slow: int, *, fires: bool) -> None:
    now = [*spans(1, slow, duration_ms=900), *spans(100, 100 - slow, duration_ms=100)]

    found = counts(now, spans(1001, 100, duration_ms=100))

    assert found == ({"latency_regression on search": slow} if fires else {})


def test_slow_operations_go_into_the_regression_of_their_operation() -> None:
    now = spans(1, 30, duration_ms=40_000, signal_type="slow_operation")

    [found] = issues(now, spans(1001, 30, duration_ms=1000)).values()

    assert (found["title"], found["patterns"]) == ("latency_regression on search", ["slow_operation"])
    assert len(found["evidence_ids"]) == 20
    assert found["severity"] == "high"


# R10, R11 ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("tokens", "sessions", "fires"),
    [(50_001, 20, True), (50_000, 20, False), (50_001, 19, False)],
)
def test_a_session_beyond_all_others_is_told(tokens: int, sessions: int, *, fires: bool) -> None:
    found = counts([llm(1, total_tokens=tokens)], [llm(100 + each, total_tokens=900) for each in range(sessions)])

    assert found == ({"token_runaway on clerk": 1} if fires else {})


def test_a_session_among_heavy_ones_is_none() -> None:
    assert (
        counts([llm(1, total_tokens=60_000)], [llm(100 + n, total_tokens=40_000 + 3000 * n) for n in range(20)]) == {}
    )


def test_a_session_as_heavy_as_all_others_is_none() -> None:
    before = [llm(100 + n, total_tokens=60_000) for n in range(20)]

    assert counts([llm(1, total_tokens=60_000)], before) == {}
    assert counts([llm(1, total_tokens=60_001)], before) == {"token_runaway on clerk": 1}


@pytest.mark.parametrize(("tokens", "fires"), [(57_791, False), (57_792, True)])
def test_how_far_beyond_is_six_times_how_far_sessions_lie_apart(tokens: int, *, fires: bool) -> None:
    # The median is 40,000, and all lie 2,000 from it: 40,000 + 6 x 1.4826 x 2,000 is 57,791.2.
    before = [llm(100 + n, total_tokens=38_000 + 4000 * (n % 2)) for n in range(20)]

    assert counts([llm(1, total_tokens=tokens)], before) == ({"token_runaway on clerk": 1} if fires else {})


def test_of_a_context_that_grew_what_it_grew_to_is_told() -> None:
    runs = [
        llm(10 * trace + step, trace=trace, input_tokens=tokens + trace)
        for trace in (1, 2)
        for step, tokens in enumerate((1000, 5000, 9000, 13_000, 17_000, 21_000))
    ]

    [found] = issues(runs).values()

    assert (found["count"], found["sessions_hit"]) == (2, 2)
    assert found["next_action"].endswith("the largest session used 21002 tokens.")


@pytest.mark.parametrize(
    ("inputs", "fires"),
    [
        ([5000, 8000, 11_000, 14_000, 17_000, 20_000], True),
        ([5000, 8000, 11_000, 14_000, 17_000, 19_999], False),
        ([5001, 8000, 11_000, 14_000, 17_000, 20_000], False),
        ([5000, 8000, 11_000, 14_000, 20_000], False),
        ([5000, 8000, 8000, 14_000, 17_000, 20_000], False),
        ([None, 9000, 12_000, 15_000, 18_000, 21_000], False),
        ([0, 9000, 12_000, 15_000, 18_000, 21_000], False),
        ([3000, 9000, None, 15_000, 18_000, 21_000, 24_000], False),
        ([1, 9000, 12_000, 15_000, 18_000, 21_000], True),
        ([1000, 900, 6000, 11_000, 16_000, 21_000], False),
        ([20_000, 1000, 5000, 9000, 13_000, 17_000, 19_999], False),
        ([5000, 8000, 11_000, 14_000, 17_000, 20_000, 100], True),
    ],
    ids=[
        "six rising to four times",
        "19,999",
        "less than four times",
        "five",
        "not rising",
        "from what is not told",
        "from nothing",
        "with one that is not told",
        "from one token",
        "five of six",
        "19,999 after a large one",
        "and shrinks again",
    ],
)
def test_a_context_that_grows_with_every_call_is_told(inputs: list[int | None], *, fires: bool) -> None:
    found = issues([llm(number, trace=1, input_tokens=tokens) for number, tokens in enumerate(inputs, 1)])

    assert list(found) == (["token_runaway on clerk"] if fires else [])


def test_a_context_that_grew_is_of_the_agent_that_had_it_last_whoever_works_between() -> None:
    steps = [llm(2 * n, trace=1, input_tokens=3500 * n, agent="writer" if n == 6 else "clerk") for n in range(1, 7)]

    assert counts([*steps, *spans(3, 1, trace=1), *spans(7, 1, trace=1)]) == {"token_runaway on writer": 1}


@pytest.mark.parametrize(
    ("number", "before_usd", "now_usd", "fires"),
    [
        (20, 1.0, 2.0, True),
        (19, 1.0, 2.0, False),
        (20, 1.0, 1.9, False),
        (20, 0.5, 1.4, False),
        (20, 0.5, 1.5, True),
        (20, 4.0, 7.9, False),
    ],
)
def test_a_cost_that_doubled_by_a_dollar_is_told(
    number: int, before_usd: float, now_usd: float, *, fires: bool
) -> None:
    now, before = (round(usd * 1_000_000_000) // number for usd in (now_usd, before_usd))
    found = issues(
        [llm(each, cost_nano=now + (now_usd == 2.0)) for each in range(1, number + 1)],
        [llm(1000 + each, cost_nano=before) for each in range(number)],
    )

    assert list(found) == (["cost_spike on gpt-5"] if fires else [])


@pytest.mark.parametrize(("now", "before", "fires"), [(20, 20, True), (19, 200, False), (200, 19, False)])
def test_a_cost_is_compared_from_twenty_calls_in_each_window_on(now: int, before: int, *, fires: bool) -> None:
    found = counts(
        [llm(n, cost_nano=10**10) for n in range(1, 1 + now)], [llm(1000 + n, cost_nano=10**7) for n in range(before)]
    )

    assert found == ({"cost_spike on gpt-5": now} if fires else {})


def test_a_cost_that_was_not_known_before_has_not_risen() -> None:
    known = [llm(n, cost_nano=10**9) for n in range(1, 21)]

    assert counts(known, [llm(100 + n) for n in range(20)]) == {}
    # Nor has one that is not known now.
    assert counts([llm(100 + n) for n in range(20)], known) == {}


def test_a_cost_is_told_in_cents_that_are_full() -> None:
    [found] = issues(
        [llm(n, cost_nano=199_650_000) for n in range(1, 21)], [llm(100 + n, cost_nano=29_980_000) for n in range(20)]
    ).values()

    assert found["next_action"].endswith("cost rose from 0.59 to 3.99 USD.")


# R12 to R14 ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("reason", "title"),
    [
        ("length", "output_truncated on gpt-5"),
        ("MAX_TOKENS", "output_truncated on gpt-5"),
        ("max_output_tokens", "output_truncated on gpt-5"),
        ("refusal", "refusal on gpt-5"),
        ("content_filter", "refusal on gpt-5"),
        ("Safety", "refusal on gpt-5"),
    ],
)
def test_two_abnormal_ends_of_a_model_are_told_and_one_is_not(reason: str, title: str) -> None:
    assert counts([llm(1, finish_reason=reason), llm(2, finish_reason=reason), llm(3)]) == {title: 2}
    assert counts([llm(1, finish_reason=reason), llm(3, finish_reason="stop")]) == {}


@pytest.mark.parametrize("reason", ["length", "refusal"])
def test_only_models_end_abnormally(reason: str) -> None:
    run = [span(n, kind="agent", operation="run", failing=True, finish_reason=reason) for n in range(1, 4)]

    assert counts(run) == {"error on run": 3}


def test_truncated_answers_below_one_percent_are_not_told() -> None:
    cut = [llm(number, finish_reason="length") for number in (1, 2)]

    assert counts([*cut, *(llm(number) for number in range(3, 201))]) == {"output_truncated on gpt-5": 2}
    assert counts([*cut, *(llm(number) for number in range(3, 202))]) == {}


def test_blocks_are_told_once_and_not_as_errors() -> None:
    failing = spans(1, 2, kind="guardrail", operation="pii", failing=True)

    assert counts(failing) == {"guardrail_block on pii": 2}
    assert counts(failing[:1]) == {"error on pii": 1}
    assert counts(spans(1, 2, operation="pay", flags=BLOCKED)) == {"guardrail_block on pay": 2}
    assert counts(spans(1, 1, operation="pay", flags=BLOCKED)) == {}


@pytest.mark.parametrize("fields", [{"kind": "guardrail"}, {"kind": "workflow", "flags": BLOCKED}])
def test_what_failed_because_of_its_child_is_no_block(fields: dict[str, Any]) -> None:
    parents = [span(n, operation="pii", failing=True, **fields) for n in (1, 2)]
    children = [span(10 + n, trace=n, parent=n, kind="http", operation="/page", failing=True) for n in (1, 2)]

    assert counts([*parents, *children]) == {"error on /page": 2}


# R15, R16 ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("agents", "expected"),
    [
        ("abab", {"agent_pingpong on a <-> b": 4}),
        ("baba", {"agent_pingpong on a <-> b": 4}),
        ("aba", {}),
        ("aaaa", {}),
        ("aabab", {"agent_pingpong on a <-> b": 4}),
        ("abcabc", {}),
        ("abac", {}),
        ("cabab", {"agent_pingpong on a <-> b": 4}),
        ("ababcbcb", {"agent_pingpong on a <-> b": 4, "agent_pingpong on b <-> c": 5}),
    ],
)
def test_agents_that_alternate_twice_are_told(agents: str, expected: dict[str, int]) -> None:
    run = [span(n, trace=1, kind="agent", operation="run", agent=agent) for n, agent in enumerate(agents, 1)]

    assert counts(run) == expected


def test_what_agents_do_between_does_not_end_their_game() -> None:
    run = [span(10 * n, trace=1, kind="agent", operation="run", agent="ab"[n % 2]) for n in range(1, 5)]

    assert counts([*run, *(llm(10 * n + 5, trace=1) for n in range(1, 4))]) == {"agent_pingpong on a <-> b": 4}


def test_nobody_plays_with_an_agent_without_a_name() -> None:
    run = [span(n, trace=1, kind="agent", agent="a" if n % 2 else None) for n in range(1, 7)]

    assert counts(run) == {}


@pytest.mark.parametrize(
    ("empty", "expected"), [("ee.", 2), ("eee", 3), ("ee", 0), ("e..", 0), ("e.e", 0), ("e.e.", 2)]
)
def test_two_empty_results_and_another_call_are_told(empty: str, expected: int) -> None:
    run = [span(n, trace=1, args_hash=n, flags=EMPTY_RESULT if each == "e" else 0) for n, each in enumerate(empty, 1)]

    assert counts(run) == ({"empty_result on search": expected} if expected else {})
    assert counts([span(n, trace=1, flags=EMPTY_RESULT) for n in range(1, 5)]) == {}


def test_empty_results_are_counted_tool_by_tool_and_of_tools_alone() -> None:
    # The failure is there so that the run is looked at.
    failing = span(90, trace=1, operation="other", failing=True)
    one_each = [span(n, trace=1, operation=each, args_hash=n, flags=EMPTY_RESULT) for n, each in enumerate("ab", 1)]
    requests = [
        span(10 + n, trace=1, kind="http", operation="/x", args_hash=n, flags=EMPTY_RESULT if n < 3 else 0)
        for n in (1, 2, 3)
    ]

    assert counts([failing, *one_each, *spans(3, 1, trace=1, operation="a", args_hash=3)]) == {
        "tool_call_failed on other": 1
    }
    assert counts([failing, *requests]) == {"tool_call_failed on other": 1}
