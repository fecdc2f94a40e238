"""What an issue tells: its name, its evidence, how bad it is, what to do next. Spec "Diagnosis", section 5."""

import hashlib

# Any: fields of records.
from typing import Any

import pytest
from msgspec.structs import replace

from lifesign.diagnosis.issues import Known
from lifesign.diagnosis.manifest import manifest_of
from lifesign.diagnosis.preparation import Placed
from lifesign.diagnosis.rules import all_rules
from lifesign.telemetry.records import BLOCKED, EMPTY_RESULT, Narrow
from tests.diagnosis.spans import SINCE_MS, diagnosed, ids, issues, span, spans

USD = 1_000_000_000


def llm(number: int, **fields: Any) -> Placed:
    return span(number, kind="llm", operation="chat", **fields)


def ways_to_fail(first: int = 1, **fields: Any) -> list[Placed]:
    """Three failures of a tool that have nothing but the tool in common."""
    return [
        span(first + n, failing=True, error_type=kind, **fields) for n, kind in enumerate(("Timeout", "Refused", "No"))
    ]


# What to do next ----------------------------------------------------------------------------------------------------
WINDOWS: dict[str, tuple[list[Placed], list[Placed]]] = {
    "tool_call_failed on search": (spans(1, 2, failing=True), []),
    "error on /page": (spans(1, 2, kind="http", operation="/page", failing=True), []),
    "slow_operation on search": (
        spans(1, 2, signal_type="slow_operation", duration_ms=40_000),
        spans(100, 5, duration_ms=500),
    ),
    "user_signal on clerk": (spans(1, 2, kind="agent", signal_type="user_signal"), []),
    "tool_loop on search": (spans(1, 3, trace=1, args_hash=7), []),
    "retry_storm on search": ([span(1, attempt=3), span(2, attempt=7)], []),
    "ignored_error on search": (
        [
            span(1, trace=1, kind="agent", operation="run"),
            *ways_to_fail(2, trace=1, parent=1),
            llm(8, trace=1, parent=1),
            llm(9, trace=1, parent=1),
        ],
        [],
    ),
    "error_rate_regression on pii": (
        [span(n, kind="guardrail", operation="pii", failing=n <= 50) for n in range(1, 101)],
        [span(1000 + n, kind="guardrail", operation="pii", failing=n < 2) for n in range(100)],
    ),
    "latency_regression on search": (spans(1, 30, duration_ms=2000), spans(1001, 30, duration_ms=1000)),
    "token_runaway on clerk": (
        [llm(1, total_tokens=60_000), llm(2, total_tokens=70_000)],
        [llm(100 + n, total_tokens=900) for n in range(20)],
    ),
    "cost_spike on gpt-5": (
        [llm(n, cost_nano=USD // 4) for n in range(1, 42)],
        [llm(100 + n, cost_nano=USD // 20) for n in range(21)],
    ),
    "output_truncated on gpt-5": ([llm(n, finish_reason="length") for n in (1, 2)], []),
    "refusal on gpt-5": ([llm(n, finish_reason="refusal") for n in (1, 2)], []),
    "guardrail_block on pay": (spans(1, 2, operation="pay", flags=BLOCKED), []),
    "agent_pingpong on a <-> b": (
        [span(n, trace=1, kind="agent", operation="run", agent="ba"[n % 2]) for n in range(1, 5)],
        [],
    ),
    "empty_result on search": (
        [span(n, trace=1, args_hash=n, flags=EMPTY_RESULT if n < 3 else 0) for n in (1, 2, 3)],
        [],
    ),
}
FIRST = ids(span(1))[0]
# A duration is told by the upper edge of its bucket: 40 s lie in the one that ends at 1.05^359 us, 40,454 ms.
NEXT = {
    "tool_call_failed on search": f"Reproduce search with the arguments of {FIRST} and fix the cause of Timeout.",
    "error on /page": f"Open {FIRST} and fix the cause of Timeout in /page.",
    "slow_operation on search": "Profile search: p95 is 40454 ms (baseline 501).",
    "user_signal on clerk": (
        "Read the sessions with negative feedback on clerk and write one eval case for each cause."
    ),
    "tool_loop on search": (
        "Stop search from being called again with equal arguments: return a clear result or end the loop."
    ),
    "retry_storm on search": "Limit retries of search and back off; the highest attempt was 7.",
    "ignored_error on search": "Make the agent handle a failed search before it goes on.",
    "error_rate_regression on pii": (
        "Compare pii before and after 2026-01-05T11:43:20.001Z: failures rose from 2 % to 50 %."
    ),
    "latency_regression on search": "Profile search: p95 is 2063 ms (baseline 1042).",
    "token_runaway on clerk": "Cap or compact the context of clerk: the largest session used 70000 tokens.",
    "cost_spike on gpt-5": ("Check calls, tokens per call and cache use of gpt-5: cost rose from 1.05 to 10.25 USD."),
    "output_truncated on gpt-5": "Raise the output limit of gpt-5 or ask for shorter output.",
    "refusal on gpt-5": "Read the blocked inputs of gpt-5 and decide whether the block is right.",
    "guardrail_block on pay": "Read the blocked inputs of pay and decide whether the block is right.",
    "agent_pingpong on a <-> b": "Decide which of a and b owns the step; they hand over to each other.",
    "empty_result on search": "Check the query of search: empty results are repeated.",
}


def test_each_rule_is_asked_what_to_do_next() -> None:
    assert [title.partition(" ")[0] for title in NEXT] == [rule.signal_type for rule in all_rules()]
    assert WINDOWS.keys() == NEXT.keys()


@pytest.mark.parametrize("title", NEXT)
def test_what_to_do_next_is_a_filled_template(title: str) -> None:
    assert issues(*WINDOWS[title])[title]["next_action"] == NEXT[title]


@pytest.mark.parametrize(
    "title",
    [
        "tool_call_failed on search",
        "error on /page",
        "slow_operation on search",
        "user_signal on clerk",
        "retry_storm on search",
        "token_runaway on clerk",
    ],
)
def test_what_happened_once_is_to_be_observed(title: str) -> None:
    now, before = WINDOWS[title]

    assert issues(now[:1], before)[title]["next_action"] == (
        f"Keep observing: one occurrence only. Look at {FIRST} if it matters."
    )


def test_a_p95_of_nothing_is_unknown() -> None:
    now, _ = WINDOWS["slow_operation on search"]

    [found] = issues(now).values()

    assert found["next_action"] == "Profile search: p95 is 40454 ms (baseline unknown)."


def test_what_sets_records_apart_is_told_where_it_helps() -> None:
    assert {rule.number for rule in all_rules() if rule.next_action.endswith("{discriminator}")} == {
        *(1, 2, 3, 5, 6, 7, 8, 9)
    }


# What it is measured against ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("tool_call_failed on search", 2),
        ("error on /page", 2),
        ("slow_operation on search", 2),
        ("user_signal on clerk", 2 + 5),
        ("tool_loop on search", 3 + 5),
        ("retry_storm on search", 2),
        ("ignored_error on search", 6 + 5),
        ("error_rate_regression on pii", 100),
        ("latency_regression on search", 30),
        ("token_runaway on clerk", 2 + 5),
        ("cost_spike on gpt-5", 41 + 5),
        ("output_truncated on gpt-5", 2 + 5),
        ("refusal on gpt-5", 2 + 5),
        ("guardrail_block on pay", 2),
        ("agent_pingpong on a <-> b", 4 + 5),
        ("empty_result on search", 3 + 5),
    ],
)
def test_exposure_is_of_the_operation_or_else_of_the_project(title: str, expected: int) -> None:
    now, before = WINDOWS[title]

    found = issues([*now, *spans(5000, 5, kind="http", operation="/elsewhere")], before)[title]

    assert found["exposure"]["current"] == expected


def test_some_rules_are_measured_against_operations_in_later_windows_too() -> None:
    assert {rule.number for rule in all_rules() if rule.of_operations} == {1, 2, 3, 6, 8, 9, 14}


def test_what_a_group_is_of_is_no_news() -> None:
    assert {rule.signal_type: set(rule.own) for rule in all_rules() if rule.own} == {
        "tool_call_failed": {"tool"},
        "user_signal": {"agent"},
        "tool_loop": {"tool"},
        "ignored_error": {"tool"},
        "token_runaway": {"agent"},
        "cost_spike": {"model"},
        "output_truncated": {"model"},
        "refusal": {"model"},
        "agent_pingpong": {"agent"},
        "empty_result": {"tool"},
    }


# Names --------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("title", "parts"),
    [
        ("tool_call_failed on search", ("tool_call_failed", "search", "Timeout")),
        ("error on /page", ("error", "/page", "Timeout")),
        ("slow_operation on search", ("slow_operation", "search")),
        ("user_signal on clerk", ("user_signal", "clerk")),
        ("tool_loop on search", ("tool_loop", "search")),
        ("retry_storm on search", ("retry_storm", "search")),
        ("ignored_error on search", ("ignored_error", "search")),
        ("error_rate_regression on pii", ("error_rate_regression", "pii", "guardrail")),
        ("latency_regression on search", ("latency_regression", "search", "tool")),
        ("token_runaway on clerk", ("token_runaway", "clerk")),
        ("cost_spike on gpt-5", ("cost_spike", "gpt-5")),
        ("output_truncated on gpt-5", ("output_truncated", "gpt-5")),
        ("refusal on gpt-5", ("refusal", "gpt-5")),
        ("guardrail_block on pay", ("guardrail_block", "pay")),
        ("agent_pingpong on a <-> b", ("agent_pingpong", "a <-> b")),
        ("empty_result on search", ("empty_result", "search")),
    ],
)
def test_a_fingerprint_is_of_the_rules_the_signal_and_the_group_alone(title: str, parts: tuple[str, ...]) -> None:
    digest = hashlib.sha256("\x1f".join(("2026.11-1", *parts)).encode()).hexdigest()

    assert issues(*WINDOWS[title])[title]["fingerprint"] == f"{parts[0]}:{digest[:16]}"


def test_a_title_has_a_hundred_and_twenty_characters_and_the_operation_has_all() -> None:
    [issue] = issues(spans(1, 2, operation="x" * 180, failing=True)).values()

    assert issue["title"] == "tool_call_failed on " + "x" * 100
    assert issue["operation"] == "x" * 180


# Evidence -----------------------------------------------------------------------------------------------------------
def test_evidence_is_the_first_the_last_and_others_by_lot() -> None:
    failing = spans(1, 50, failing=True)

    [issue] = issues(failing).values()

    def lot(record_id: str) -> str:
        return hashlib.sha256(f"{issue['fingerprint']}{record_id}".encode()).hexdigest()

    drawn = sorted(ids(*failing[1:-1]), key=lot)[:18]
    expected = {*ids(failing[0], failing[-1]), *drawn}
    assert issue["evidence_ids"] == [each for each in ids(*failing) if each in expected]


def test_traces_are_those_of_the_evidence_and_then_the_earliest_others() -> None:
    failing = [*spans(1, 60, trace=1, failing=True), *spans(61, 14, failing=True)]

    [issue] = issues(failing).values()

    of_evidence = [f"{1 if number <= 60 else number:032x}" for number in map(number_of, issue["evidence_ids"])]
    shown = list(dict.fromkeys(of_evidence))
    others = [each for each in (f"{number:032x}" for number in range(61, 75)) if each not in shown]
    assert len(shown) < 10
    assert issue["traces"] == [*shown, *others][:10]


def number_of(record_id: str) -> int:
    return int(record_id[-16:], 16)


def numbers(issue: dict[str, Any]) -> list[int]:  # Any: JSON
    return [number_of(each) for each in issue["evidence_ids"]]


def test_evidence_of_a_slower_operation_is_the_slowest() -> None:
    # The higher the number, the quicker; the last five are no slower than before.
    now = [span(n, duration_ms=5000 - 100 * n if n <= 35 else 100) for n in range(1, 41)]

    before = [*spans(1001, 97, duration_ms=100), *spans(2001, 3, duration_ms=8000)]
    found = issues(now, before)["latency_regression on search"]

    assert (found["count"], found["baseline_count"], numbers(found)) == (35, 3, list(range(1, 21)))
    assert found["sessions_hit"] == 35


def test_evidence_of_a_runaway_is_what_read_most() -> None:
    # The first ten read the least.
    now = [llm(n, trace=1, total_tokens=3000, input_tokens=100 if n <= 10 else 900 - n) for n in range(1, 41)]

    found = issues(now, [llm(100 + n, total_tokens=900) for n in range(20)])["token_runaway on clerk"]

    assert (found["count"], numbers(found)) == (1, list(range(11, 31)))


def test_evidence_of_a_cost_is_what_cost_most() -> None:
    now = [llm(n, cost_nano=n * USD // 10) for n in range(1, 41)]

    found = issues(now, [llm(100 + n, cost_nano=USD // 100) for n in range(20)])["cost_spike on gpt-5"]

    assert (found["count"], found["baseline_count"], numbers(found)) == (40, 20, list(range(21, 41)))


# How bad ------------------------------------------------------------------------------------------------------------
def in_sessions(how_many: int, records: list[Placed]) -> list[Placed]:
    return [Placed(f"s{number % how_many}", each.record) for number, each in enumerate(records)]


@pytest.mark.parametrize(("sessions", "severity"), [(4, "medium"), (5, "high")])
@pytest.mark.parametrize(
    "title", ["error_rate_regression on pii", "latency_regression on search", "cost_spike on gpt-5"]
)
def test_what_got_worse_in_five_sessions_is_high(title: str, sessions: int, severity: str) -> None:
    now, before = WINDOWS[title]

    assert issues(in_sessions(sessions, now), before)[title]["severity"] == severity


@pytest.mark.parametrize(("sessions", "severity"), [(4, "medium"), (5, "high")])
def test_failures_that_became_more_frequent_in_five_sessions_are_high(sessions: int, severity: str) -> None:
    now = in_sessions(sessions, [span(n, failing=n <= 30) for n in range(1, 101)])

    [found] = issues(now, [span(1000 + n, failing=n < 2) for n in range(100)]).values()

    assert (found["patterns"], found["severity"]) == (["error_rate_regression"], severity)


@pytest.mark.parametrize(
    "title",
    ["slow_operation on search", "user_signal on clerk", "output_truncated on gpt-5", "empty_result on search"],
)
def test_some_are_medium_at_most_though_they_came_back(title: str) -> None:
    now, before = WINDOWS[title]
    many = [Placed(f"s{copy}", moved(placed.record, 1000 * copy)) for copy in range(12) for placed in now]
    fixed = {issues(many, before)[title]["fingerprint"]: Known(SINCE_MS, SINCE_MS)}

    found = {each["title"]: each for each in diagnosed(many, before, ledger=fixed)["issues"]}[title]

    assert (found["state"], found["severity"]) == ("regressed", "medium")


def test_one_of_those_is_low() -> None:
    [found] = issues(spans(1, 1, signal_type="slow_operation", duration_ms=40_000)).values()

    assert found["severity"] == "low"


def moved(record: Narrow, by: int) -> Narrow:
    """The same in another trace."""
    return replace(
        record, trace_id=f"{int(record.trace_id, 16) + by:032x}", span_id=f"{int(record.span_id, 16) + by:016x}"
    )


@pytest.mark.parametrize(
    ("count", "sessions", "severity"), [(1, 1, "low"), (2, 1, "low"), (3, 1, "medium"), (2, 2, "medium")]
)
def test_two_sessions_or_three_records_are_medium(count: int, sessions: int, severity: str) -> None:
    [found] = issues(in_sessions(sessions, spans(1, count, trace=1, failing=True))).values()

    assert (found["severity"], found["sessions_hit"]) == (severity, sessions)


def test_several_patterns_raise_a_severity_once_and_never_above_high() -> None:
    root = span(1, trace=1, kind="agent", operation="run")
    failing = [span(n, trace=1, parent=1, failing=True, args_hash=7) for n in (2, 3, 4)]
    run = [root, *failing, llm(8, trace=1, parent=1), llm(9, trace=1, parent=1)]

    [found] = issues(run).values()

    assert found["patterns"] == ["ignored_error", "retry_storm", "tool_loop"]
    assert found["severity"] == "high"

    lone = [span(1, trace=1, kind="agent", operation="run"), span(2, trace=1, parent=1, failing=True)]
    [low] = issues([*lone, llm(8, trace=1, parent=1), llm(9, trace=1, parent=1)]).values()
    assert (low["patterns"], low["severity"]) == (["ignored_error"], "medium")


def test_only_what_was_blocked_is_taken_out_of_errors() -> None:
    blocked = spans(1, 2, kind="http", operation="/pay", failing=True, flags=BLOCKED)
    plain = spans(3, 1, kind="http", operation="/pay", failing=True)
    tools = spans(4, 2, operation="pay", failing=True, flags=BLOCKED)

    found = issues([*blocked, *plain, *tools])

    assert {title: each["count"] for title, each in found.items()} == {
        "guardrail_block on /pay": 2,
        "error on /pay": 1,
        "guardrail_block on pay": 2,
        "tool_call_failed on pay": 2,
    }
    assert found["error on /pay"]["evidence_ids"] == ids(*plain)


def test_errors_left_by_blocks_are_measured_against_their_own_operations() -> None:
    blocked = spans(1, 2, kind="workflow", operation="/pay", failing=True, flags=BLOCKED)
    plain = spans(3, 1, kind="http", operation="/pay", failing=True)

    assert issues([*blocked, *plain])["error on /pay"]["exposure"]["current"] == 1


def test_what_is_slow_in_many_sessions_makes_no_regression_worse() -> None:
    slower = spans(1, 30, duration_ms=40_000, session="one")
    slow = spans(101, 5, duration_ms=500, signal_type="slow_operation")

    [found] = issues([*slower, *slow], spans(1001, 30, duration_ms=1000)).values()

    assert (found["patterns"], found["sessions_hit"], found["severity"]) == (["slow_operation"], 1, "medium")


def test_what_is_slow_in_two_kinds_goes_into_no_regression_of_one() -> None:
    slow = {"operation": "/x", "duration_ms": 40_000, "signal_type": "slow_operation"}
    now = [*spans(1, 30, kind="http", **slow), *spans(101, 30, kind="workflow", **slow)]
    before = spans(1001, 30, kind="http", operation="/x")

    assert sorted(issues(now, before)) == ["latency_regression on /x", "slow_operation on /x"]


def test_an_issue_is_of_the_agent_that_most_of_it_is_of() -> None:
    failing = [span(n, failing=True, agent=agent) for n, agent in enumerate("accbb", 1)]

    [of_two], [of_most] = issues(failing).values(), issues([*failing, span(9, failing=True, agent="c")]).values()

    assert (of_two["agent"], of_most["agent"]) == ("b", "c")


def test_equally_bad_ones_are_ordered_by_count_then_by_when_they_were_seen_then_by_name() -> None:
    early, late = 1_767_613_000_000, 1_767_613_500_000
    records = [
        *spans(1, 2, trace=1, operation="twice", failing=True, received_at=early),
        span(3, operation="late", failing=True, received_at=late),
        *(span(10 + n, operation=name, failing=True, received_at=early) for n, name in enumerate("abcdef")),
    ]

    listed = diagnosed(records)["issues"]

    assert {each["severity"] for each in listed} == {"low"}
    assert [each["operation"] for each in listed[:2]] == ["twice", "late"]
    others = [each["fingerprint"] for each in listed[2:]]
    assert (len(others), others) == (6, sorted(others))


# What sets them apart -----------------------------------------------------------------------------------------------
def test_what_the_group_is_of_sets_nothing_apart() -> None:
    failing = spans(1, 6, operation="/x", tool="a", failing=True)

    [found] = issues([*failing, *spans(10, 6, operation="/x", tool="b")]).values()
    # Of an error the tool is not the group, and may well be what sets it apart.
    other = issues(
        [
            *spans(1, 6, kind="http", operation="/x", tool="a", failing=True),
            *spans(10, 6, kind="http", operation="/x", tool="b"),
        ]
    )["error on /x"]

    assert found["discriminator"] is None
    assert other["discriminator"] == {"field": "tool", "value": "a", "share": 1.0, "rest_share": 0.0}


def test_of_equal_differences_the_first_field_is_told_and_of_its_values_the_first() -> None:
    both = [*spans(1, 6, failing=True, version="2", environment="prod"), *spans(10, 6, version="1", environment="dev")]
    halves = [
        *(span(n, failing=True, version="b" if n % 2 else "a") for n in range(1, 7)),
        *spans(10, 6, version="c"),
    ]

    [of_both], [of_halves] = issues(both).values(), issues(halves).values()

    assert (of_both["discriminator"]["field"], of_both["discriminator"]["value"]) == ("version", "2")
    assert of_halves["discriminator"] == {"field": "version", "value": "a", "share": 0.5, "rest_share": 0.0}


def test_a_rule_without_an_operation_is_set_apart_from_the_project() -> None:
    cut = [llm(n, finish_reason="length", agent="writer") for n in range(1, 7)]

    [found] = issues([*cut, *spans(10, 9, agent="clerk"), *spans(19, 1, agent="writer")]).values()

    assert found["title"] == "output_truncated on gpt-5"
    assert found["exposure"] == {"current": 16, "baseline": 0}
    assert found["discriminator"] == {"field": "agent", "value": "writer", "share": 1.0, "rest_share": 0.1}


def test_messages_are_the_three_most_frequent_then_by_text() -> None:
    failing = spans(1, 8, failing=True)
    texts = ["d", "d", "d", "c", "b", "a", "c", ""]
    messages = {(each.record.trace_id, each.record.span_id): text for each, text in zip(failing, texts, strict=True)}

    [issue] = diagnosed(failing, messages=messages)["issues"]

    assert issue["messages"] == [{"text": "d", "count": 3}, {"text": "c", "count": 2}, {"text": "a", "count": 1}]


def test_what_is_told_of_versions_and_of_times() -> None:
    failing = [span(n, failing=True, version=f"1.{n % 13}", received_at=1_767_613_000_000 + n) for n in range(1, 27)]

    [issue] = issues(failing).values()

    assert issue["versions"] == ["1.0", "1.1", "1.10", "1.11", "1.12", "1.2", "1.3", "1.4", "1.5", "1.6"]
    assert (issue["first_seen"], issue["last_seen"]) == ("2026-01-05T11:36:40.001Z", "2026-01-05T11:36:40.026Z")


# What follows from it -----------------------------------------------------------------------------------------------
def test_what_follows_is_a_case_and_a_step_for_each_that_recurs_in_order() -> None:
    now, before = WINDOWS["slow_operation on search"]
    records = [
        *now,
        *spans(50, 3, kind="http", operation="/page", failing=True),
        *spans(60, 4, operation="fetch", failing=True, error_type="httpx.ReadTimeout"),
        span(70, operation="once", failing=True),
    ]
    packet = diagnosed(records, before) | {"project_id": "p", "packet_id": "pkt_1"}

    manifest = manifest_of(packet, run_id="run_1", created_at="2026-01-05T12:00:00.000Z")

    # Once, and yet before what is slow: it is as bad as can be in its only session.
    assert [each["operation"] for each in packet["issues"]] == ["fetch", "/page", "once", "search"]
    assert [(each["name"], each["expectation"]) for each in manifest["eval_candidates"]] == [
        ("tool_call_failed on fetch", "fetch completes without ReadTimeout"),
        ("error on /page", "/page completes without Timeout"),
        ("slow_operation on search", "no slow_operation on search"),
    ]
    assert [each["step"] for each in manifest["patch_plan"]] == [1, 2, 3]
    assert [each["next_action"] for each in manifest["patch_plan"]] == [
        each["next_action"] for each in packet["issues"] if each["count"] > 1
    ]
    assert (manifest["schema"], manifest["run_id"], manifest["packet"]) == ("improvement-packet/1", "run_1", packet)
    assert manifest["approval"] == {"required": True, "approved": False, "approved_by": None}


def test_evidence_is_in_the_order_of_start_and_not_of_arrival() -> None:
    records = [span(n, failing=True, received_at=1_767_613_000_000 - n) for n in range(1, 6)]

    [issue] = issues(records).values()

    assert numbers(issue) == [1, 2, 3, 4, 5]
