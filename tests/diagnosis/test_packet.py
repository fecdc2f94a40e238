"""A packet tells what happened, how bad it is and where to look, in the same bytes for the same records."""

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

# Any: JSON.
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.clock import EpochMs
from lifesign.diagnosis import rules, shown
from lifesign.diagnosis.details import Details
from lifesign.diagnosis.facts import facts_of
from lifesign.diagnosis.findings import Finding, Groups, Rule, View
from lifesign.diagnosis.issues import Known
from lifesign.diagnosis.packet import examined, issues_in, packet_of
from lifesign.diagnosis.preparation import Placed, key_of
from lifesign.telemetry.records import CLOCK_SKEW, EMPTY_RESULT, TRUNCATED
from tests.diagnosis.shapes import assert_fits
from tests.diagnosis.spans import SINCE_MS, UNTIL_MS, diagnosed, ids, issues, span, spans


def only(packet: dict[str, Any]) -> dict[str, Any]:
    [issue] = packet["issues"]
    found: dict[str, Any] = issue
    return found


# What is told --------------------------------------------------------------------------------------------------------
def test_nothing_gives_a_packet_of_nothing() -> None:
    packet = diagnosed([])

    assert (packet["status"], packet["issues"], packet["notices"]) == ("observe_more", [], [])
    assert (packet["telemetry_read"], packet["failures"], packet["approval_required"]) == (0, 0, True)
    assert (packet["ruleset"], packet["sessions"], packet["omitted_issues"]) == ("2026.11-1", 0, 0)


def test_three_failures_of_one_kind_are_one_issue_with_all_its_evidence() -> None:
    failing = spans(1, 3, operation="/checkout", failing=True)

    packet = diagnosed(failing)

    issue = only(packet)
    assert packet["status"] == "ready_for_issue_diagnosis"
    assert (issue["title"], issue["count"], issue["sessions_hit"]) == ("tool_call_failed on /checkout", 3, 3)
    assert issue["evidence_ids"] == ids(*failing)
    assert issue["traces"] == [placed.record.trace_id for placed in failing]
    assert issue["exposure"] == {"current": 3, "baseline": 0}
    assert issue["messages"] == []
    assert issue["next_action"] == (
        f"Reproduce /checkout with the arguments of {ids(failing[0])[0]} and fix the cause of Timeout."
    )


def test_one_failure_is_told_and_watched() -> None:
    packet = diagnosed([span(1, failing=True), span(2)])

    assert (packet["status"], packet["failures"], packet["telemetry_read"]) == ("observe_more", 1, 2)
    assert packet["approval_reason"] == "Not enough evidence to act; external writes would need human approval."
    assert only(packet)["next_action"].startswith("Keep observing: one occurrence only. Look at rec_")


def test_two_of_a_kind_are_enough_to_act_upon() -> None:
    packet = diagnosed(spans(1, 2, failing=True))

    assert (packet["status"], packet["approval_required"]) == ("ready_for_issue_diagnosis", True)
    assert packet["approval_reason"] == ("External writes (issues, pull requests, deployments) need human approval.")


def test_success_is_no_issue() -> None:
    packet = diagnosed([span(1), span(2, kind="llm"), span(3, kind="agent")])

    assert (packet["failures"], packet["issues"]) == (0, [])


def test_a_failure_is_counted_where_it_began() -> None:
    root = span(1, trace=1, kind="agent", operation="run", failing=True)
    step = span(2, trace=1, parent=1, kind="workflow", operation="step", failing=True)
    tool = span(3, trace=1, parent=2, failing=True)

    packet = diagnosed([root, step, tool])

    assert packet["failures"] == 1
    assert only(packet)["evidence_ids"] == ids(tool)


def test_fifty_failures_give_twenty_ids_with_the_first_and_the_last() -> None:
    failing = spans(1, 50, failing=True)

    issue = only(diagnosed(failing))

    assert issue["count"] == 50
    assert len(set(issue["evidence_ids"])) == 20
    assert issue["evidence_ids"][0] == ids(failing[0])[0]
    assert issue["evidence_ids"][-1] == ids(failing[-1])[0]
    assert issue["evidence_ids"] == sorted(issue["evidence_ids"])
    assert len(issue["traces"]) == 10


def test_messages_that_differ_in_numbers_are_one() -> None:
    failing = spans(1, 4, failing=True)
    messages = {key_of(placed): f"order {n} lost at 2026-01-0{n}" for n, placed in enumerate(failing[:3], 1)}

    issue = only(diagnosed(failing, messages={**messages, key_of(failing[3]): "gone"}))

    assert issue["messages"] == [{"text": "order <n> lost at <date>", "count": 3}, {"text": "gone", "count": 1}]


def test_what_failures_have_in_common_is_told() -> None:
    failing = spans(1, 6, failing=True, version="2.0.0")
    good = [*spans(7, 9, version="1.0.0"), *spans(16, 1, version="2.0.0")]

    issue = only(diagnosed([*failing, *good]))

    assert issue["discriminator"] == {"field": "version", "value": "2.0.0", "share": 1.0, "rest_share": 0.1}
    assert issue["next_action"].endswith(" 100 % have version=2.0.0 (elsewhere 10 %).")
    assert issue["versions"] == ["2.0.0"]


@pytest.mark.parametrize(("failing", "good", "told"), [(4, 9, False), (6, 4, False), (5, 5, True)])
def test_too_few_records_have_nothing_in_common(failing: int, good: int, *, told: bool) -> None:
    records = [*spans(1, failing, failing=True, version="2"), *spans(100, good, version="1")]

    assert (only(diagnosed(records))["discriminator"] is not None) is told


def test_a_difference_below_three_tenths_is_none() -> None:
    failing = [*spans(1, 7, failing=True, version="2"), *spans(8, 3, failing=True, version="1")]
    alike = [*spans(11, 5, version="2"), *spans(16, 5, version="1")]
    unlike = [*spans(11, 4, version="2"), *spans(15, 6, version="1")]

    assert only(diagnosed([*failing, *alike]))["discriminator"] is None
    assert only(diagnosed([*failing, *unlike]))["discriminator"]["value"] == "2"


@pytest.mark.parametrize(("of_many", "many", "told"), [(3, 10, True), (7, 25, False)])
def test_three_tenths_and_nothing_elsewhere_are_a_difference(of_many: int, many: int, *, told: bool) -> None:
    failing = [span(n, failing=True, version="2" if n <= of_many else None) for n in range(1, many + 1)]

    assert (only(diagnosed([*failing, *spans(100, many)]))["discriminator"] is not None) is told


def test_shares_have_four_digits() -> None:
    failing = [span(n, failing=True, version="2" if n < 6 else "1") for n in range(1, 7)]
    good = [span(10 + n, version="1" if n < 6 else "2") for n in range(7)]

    assert only(diagnosed([*failing, *good]))["discriminator"] == {
        "field": "version",
        "value": "2",
        "share": 0.8333,
        "rest_share": 0.1429,
    }


def test_what_says_nothing_of_itself_is_not_set_apart() -> None:
    failing = spans(1, 6, kind="http", operation="/page", agent=None, failing=True)

    issue = only(diagnosed([*failing, *spans(10, 6, kind="http", operation="/page", agent=None)]))

    assert (issue["discriminator"], issue["agent"]) == (None, "unknown")


# How bad -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sessions", "ended", "expected"),
    [
        (12, 4, "critical"),
        (12, 3, "critical"),
        (12, 2, "high"),
        (10, 1, "high"),
        (12, 1, "low"),
        (25, 6, "high"),
        (11, 1, "low"),
        (101, 25, "high"),
        (9, 9, "medium"),
        (2, 2, "medium"),
    ],
)
def test_severity_goes_by_the_sessions_that_were_ended(sessions: int, ended: int, expected: str) -> None:
    records = []
    for number in range(1, sessions + 1):
        fails = number <= ended
        records.append(span(number, trace=number, kind="agent", operation="run", failing=fails))
        records.append(span(100 + number, trace=number, parent=number, failing=fails))

    assert only(diagnosed(records))["severity"] == expected


def test_failures_that_ended_nothing_are_medium_in_however_many_sessions() -> None:
    runs = [
        each
        for n in range(1, 13)
        for each in (
            span(n, trace=n, kind="agent", operation="run"),
            span(100 + n, trace=n, parent=n, failing=True),
        )
    ]

    assert only(diagnosed(runs))["severity"] == "medium"


@pytest.mark.parametrize(("ended", "expected"), [(4, "critical"), (2, "high")])
def test_a_pattern_makes_what_is_high_or_worse_no_worse(ended: int, expected: str) -> None:
    records = []
    for n in range(1, 13):
        records.append(span(n, trace=n, kind="agent", operation="run", failing=n <= ended))
        records += [span(100 * n + each, trace=n, parent=n, failing=n <= ended) for each in (1, 2, 3)]

    issue = only(diagnosed(records))

    assert (issue["patterns"], issue["severity"]) == (["retry_storm"], expected)


def test_only_failures_and_blocks_are_worse_for_ending_sessions() -> None:
    # Less than half of the attempts failed, so that the storm stands by itself.
    found = issues([span(n, attempt=3, failing=n <= 5) for n in range(1, 13)])

    assert {title: each["severity"] for title, each in found.items()} == {
        "tool_call_failed on search": "critical",
        "retry_storm on search": "medium",
    }


@pytest.mark.parametrize(("ended", "expected"), [(4, "critical"), (2, "high")])
@pytest.mark.parametrize("kind", ["guardrail", "http"])
def test_blocks_and_errors_end_sessions_as_tools_do(kind: str, ended: int, expected: str) -> None:
    records = []
    for number in range(1, 13):
        fails = number <= ended
        records.append(span(number, trace=number, kind="agent", operation="run", failing=fails))
        records.append(span(100 + number, trace=number, parent=number, kind=kind, operation="step", failing=fails))

    issue = only(diagnosed(records))

    assert (issue["signal_type"], issue["severity"]) == (
        "guardrail_block" if kind == "guardrail" else "error",
        expected,
    )


def test_a_pattern_raises_the_severity_by_one_level() -> None:
    siblings = [span(number, trace=1, parent=9, failing=True) for number in (1, 2, 3)]

    assert issues(siblings)["tool_call_failed on search"]["severity"] == "high"
    assert issues(spans(1, 3, trace=1, failing=True))["tool_call_failed on search"]["severity"] == "medium"


def test_the_worst_comes_first_and_at_most_a_hundred_are_listed() -> None:
    often = spans(1, 3, operation="often", failing=True)
    once = [span(10 + n, operation=f"once-{chr(97 + n // 26)}{chr(97 + n % 26)}", failing=True) for n in range(120)]

    packet = diagnosed([*once, *often])

    assert packet["issues"][0]["operation"] == "often"
    assert (len(packet["issues"]), packet["omitted_issues"]) == (100, 21)


# States --------------------------------------------------------------------------------------------------------------
def test_what_was_there_before_is_ongoing() -> None:
    new = only(diagnosed([span(1, failing=True)]))
    assert (new["state"], new["baseline_count"]) == ("new", 0)
    issue = only(diagnosed([span(1, failing=True)], [span(100, failing=True), span(101, failing=True)]))
    assert (issue["state"], issue["baseline_count"]) == ("ongoing", 2)
    assert only(diagnosed([span(1, failing=True)], [span(100, failing=True)]))["state"] == "ongoing"


# When the first record of a test arrives.
ARRIVED_MS = EpochMs(UNTIL_MS - 1_000_000 + 1)


@pytest.mark.parametrize(
    ("known", "expected"),
    [
        (Known(SINCE_MS), "new"),
        (Known(EpochMs(SINCE_MS - 1)), "ongoing"),
        (Known(SINCE_MS, EpochMs(UNTIL_MS - 2_000_000)), "regressed"),
        (Known(EpochMs(SINCE_MS - 1), UNTIL_MS), "ongoing"),
        (Known(EpochMs(SINCE_MS - 1), EpochMs(UNTIL_MS - 2_000_000), "2.0.0"), "ongoing"),
        (Known(SINCE_MS, EpochMs(UNTIL_MS - 2_000_000), "1.2.0"), "regressed"),
        (Known(SINCE_MS, ARRIVED_MS), "regressed"),
        (Known(SINCE_MS, EpochMs(ARRIVED_MS + 1)), "new"),
    ],
    ids=[
        "first told now",
        "told before",
        "after the fix",
        "before the fix",
        "an older version",
        "the fixed version",
        "as the window of the fix ended",
        "a millisecond before",
    ],
)
def test_the_ledger_says_what_is_new_and_what_came_back(known: Known, expected: str) -> None:
    failing = [span(1, failing=True, version="1.2.0")]
    fingerprint = only(diagnosed(failing))["fingerprint"]

    assert only(diagnosed(failing, ledger={fingerprint: known}))["state"] == expected


@pytest.mark.parametrize(
    ("versions", "expected"), [(("2.0", "1.0"), "new"), (("1.0", "2.0"), "regressed"), (("1.0", "1.0"), "new")]
)
def test_one_record_must_be_both_of_the_fixed_version_and_later(versions: tuple[str, str], expected: str) -> None:
    # The first arrives before the end of the window that proved the fix, the second after it.
    failing = [span(n, failing=True, version=version) for n, version in enumerate(versions, 1)]
    fingerprint = only(diagnosed(failing))["fingerprint"]
    fixed = {fingerprint: Known(SINCE_MS, EpochMs(ARRIVED_MS + 1), "2.0")}

    assert only(diagnosed(failing, ledger=fixed))["state"] == expected


def test_one_record_of_the_fixed_version_is_enough_to_have_regressed() -> None:
    failing = [span(n, failing=True, version=version) for n, version in enumerate(("2.0", "1.0"), 1)]
    fixed = {only(diagnosed(failing))["fingerprint"]: Known(SINCE_MS, SINCE_MS, "2.0")}

    assert only(diagnosed(failing, ledger=fixed))["state"] == "regressed"


@pytest.mark.parametrize(("version", "expected"), [(None, "regressed"), ("1.0", "new"), ("2.0", "regressed")])
def test_what_is_slow_again_in_an_older_version_has_not_regressed(version: str | None, expected: str) -> None:
    now, before = spans(1, 30, duration_ms=1600, version=version), spans(1001, 30, duration_ms=1000)
    fixed = {only(diagnosed(now, before))["fingerprint"]: Known(SINCE_MS, SINCE_MS, "2.0")}

    assert only(diagnosed(now, before, ledger=fixed))["state"] == expected


def test_what_came_back_in_the_newest_of_many_versions_has_regressed() -> None:
    now = [span(n, duration_ms=1600, version="2.0" if n > 30 else f"1.{n % 10}") for n in range(1, 41)]
    before = spans(1001, 40, duration_ms=1000)
    found = only(diagnosed(now, before))
    assert (found["title"], len(found["versions"]), "2.0" in found["versions"]) == (
        "latency_regression on search",
        10,
        False,
    )

    known = Known(SINCE_MS, EpochMs(UNTIL_MS - 2_000_000), "2.0")

    assert only(diagnosed(now, before, ledger={found["fingerprint"]: known}))["state"] == "regressed"
    last = EpochMs(ARRIVED_MS + 39)
    for fixed_at, state in ((last, "regressed"), (EpochMs(last + 1), "new")):
        known = Known(SINCE_MS, fixed_at, "2.0")
        assert only(diagnosed(now, before, ledger={found["fingerprint"]: known}))["state"] == state


@pytest.mark.parametrize(
    ("number", "fields", "expected"),
    [
        (5, {"failing": True}, "high"),
        (4, {"failing": True}, "medium"),
        (5, {"signal_type": "slow_operation"}, "medium"),
    ],
    ids=["five came back", "four", "of a kind that is medium at most"],
)
def test_what_came_back_often_is_worse(number: int, fields: dict[str, Any], expected: str) -> None:
    records = spans(1, number, trace=1, **fields)
    fingerprint = only(diagnosed(records))["fingerprint"]

    issue = only(diagnosed(records, ledger={fingerprint: Known(SINCE_MS, EpochMs(UNTIL_MS - 2_000_000))}))

    assert (issue["state"], issue["severity"]) == ("regressed", expected)


# Notices and bad data ------------------------------------------------------------------------------------------------
def test_oddities_are_notices_and_never_issues() -> None:
    packet = diagnosed(
        [
            Placed(f"{1:032x}", span(1, parent=77).record),
            span(2, flags=CLOCK_SKEW),
            span(3, kind="agent"),
            span(4, start_ns=(UNTIL_MS + 400_000) * 1_000_000),
        ]
    )

    assert {each["code"]: each["count"] for each in packet["notices"]} == {
        "clock_skew": 1,
        "future_spans": 1,
        "no_session_id": 1,
        "orphan_parents": 1,
        "unknown_convention": 1,
    }
    assert (packet["status"], packet["issues"]) == ("observe_more", [])


def test_notices_are_in_the_order_of_their_codes() -> None:
    seen = examined(facts_of(spans(1, 3, session="s", flags=TRUNCATED), most_of_a_session=2))

    assert packet_of(seen, [])["notices"] == [
        {
            "code": "session_cut",
            "count": 1,
            "message": "Sessions of more than 50,000 records, of which the rules of order read the earliest.",
        },
        {
            "code": "truncated_records",
            "count": 3,
            "message": "Records of which something was cut when they arrived.",
        },
    ]


def test_a_rule_that_raises_is_left_out_and_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(_rule: Rule, _groups: Groups, _now: View, _before: View | None) -> list[Finding]:
        raise ZeroDivisionError

    broken = Rule(99, "broken", "", findings=raises)
    with_broken = (*rules.all_rules(), broken)
    monkeypatch.setattr(rules, "all_rules", lambda: with_broken)

    packet = diagnosed(spans(1, 2, failing=True))

    assert only(packet)["count"] == 2
    assert packet["notices"] == [{"code": "rule_failed", "count": 1, "message": "Left out: R99."}]


def test_rules_that_raise_in_either_window_are_left_out_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    def raises(rule: Rule, _groups: Groups, now: View, before: View | None) -> list[Finding]:
        if (before is None) is (rule.number == 98):
            raise ZeroDivisionError
        return [Finding(rule, ("search",), 2, tuple(now.failures.leaves))]

    broken = (Rule(number, f"broken_{number}", "", findings=raises) for number in (97, 98))
    with_broken = (*rules.all_rules(), *broken)
    monkeypatch.setattr(rules, "all_rules", lambda: with_broken)

    packet = diagnosed(spans(1, 2, failing=True))

    assert only(packet)["signal_type"] == "tool_call_failed"
    assert packet["notices"] == [{"code": "rule_failed", "count": 2, "message": "Left out: R97, R98."}]


def test_no_record_behind_a_finding_is_no_issue() -> None:
    seen = examined(facts_of(spans(1, 30, duration_ms=2000), spans(1001, 30, duration_ms=1000)))

    assert [each.finding.rule.signal_type for each in seen.kept] == ["latency_regression"]
    assert issues_in(seen, Details(), ledger={}, window_start=SINCE_MS) == []


def test_names_in_telemetry_cannot_turn_what_is_told() -> None:
    failing = spans(1, 6, failing=True, agent="a\u202eb", version="2\u202e")

    issue = only(diagnosed([*failing, *spans(10, 6, agent="a\u202eb", version="1")]))

    assert (issue["agent"], issue["versions"], issue["discriminator"]["value"]) == ("ab", ["2"], "2")


def test_text_of_telemetry_cannot_fill_templates_or_turn_titles() -> None:
    issue = only(diagnosed(spans(1, 2, operation="{evidence}\u202e\x00{0}\ud800", failing=True)))

    assert issue["title"] == "tool_call_failed on {evidence}{<n>}"
    assert "{evidence}" in issue["next_action"]
    json.dumps(issue, ensure_ascii=False).encode()


names = st.sampled_from(["", "a", "b\u202e", "\ud800", "<script>", "x" * 1024, "7"])
hostile = st.builds(
    lambda number, trace, parent, **fields: span(number, trace=trace, parent=parent, **fields),
    st.integers(1, 30),
    st.integers(1, 4),
    st.integers(0, 30),
    session=names,
    failing=st.booleans(),
    kind=st.sampled_from(["tool", "llm", "agent", "guardrail", "http"]),
    operation=names,
    agent=st.none() | names,
    model=st.none() | names,
    version=st.none() | names,
    error_type=st.none() | names,
    args_hash=st.none() | st.integers(1, 2),
    result_hash=st.none() | st.integers(1, 2),
    attempt=st.none() | st.integers(1, 2**16),
    flags=st.sampled_from([0, EMPTY_RESULT, 2, 31]),
    start_ns=st.sampled_from([0, 1, 5, 2**62]),
    input_tokens=st.none() | st.sampled_from([0, 5, 10**12]),
    total_tokens=st.none() | st.sampled_from([0, 10**12]),
    cost_nano=st.none() | st.sampled_from([0, 4 * 10**12]),
    finish_reason=st.none() | st.sampled_from(["length", "REFUSAL", ""]),
)


def unique(records: list[Placed]) -> list[Placed]:
    return list({key_of(placed): placed for placed in records}.values())


@settings(max_examples=150, deadline=None)
@given(st.lists(hostile, max_size=25), st.lists(hostile, max_size=10), st.randoms(use_true_random=False))
def test_whatever_is_stored_gives_a_packet_and_order_changes_no_byte(
    current: list[Placed], baseline: list[Placed], dice: random.Random
) -> None:
    current, baseline = unique(current), unique(baseline)
    packet = diagnosed(current, baseline)
    told = json.dumps(packet, ensure_ascii=False).encode()
    for issue in packet["issues"]:
        assert_fits(shown.Issue, issue)
    for notice in packet["notices"]:
        assert_fits(shown.Notice, notice)
    dice.shuffle(current)
    dice.shuffle(baseline)

    assert json.dumps(diagnosed(current, baseline), ensure_ascii=False).encode() == told
    assert b"rule_failed" not in told


_SEEDED = """
import json
from tests.diagnosis.spans import diagnosed, span
kinds = ["tool", "llm", "agent", "http", "guardrail"]
records = [
    span(n, trace=n % 40 + 1, parent=n // 2, kind=kinds[n % 5], operation=f"op{chr(97 + n % 7)}", failing=n % 3 == 0,
         version=f"1.{n % 4}.0", agent=f"a{n % 3}", args_hash=n % 4 + 1, result_hash=1)
    for n in range(1, 600)
]
print(json.dumps(diagnosed(records[200:], records[:200])))
"""


def test_the_seed_of_hashes_changes_no_byte() -> None:
    root = Path(__file__).parents[2]
    path = os.pathsep.join([str(root / "src"), str(root)])

    said = {
        subprocess.run(
            [sys.executable, "-c", _SEEDED],
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": path},
            check=True,
            capture_output=True,
        ).stdout
        for seed in ("0", "1", "4242")
    }

    assert len(said) == 1
    assert len(json.loads(said.pop())["issues"]) > 5


def test_thousands_of_storms_in_thousands_of_operations_are_placed_in_seconds() -> None:
    names = [f"{chr(97 + n // 676)}{chr(97 + n // 26 % 26)}{chr(97 + n % 26)}" for n in range(4000)]
    failing = [
        span(3 * n + each, trace=n + 1, parent=99_999, operation=name, failing=True)
        for n, name in enumerate(names)
        for each in (1, 2, 3)
    ]

    started = time.thread_time()
    packet = diagnosed(failing)

    assert (packet["failures"], packet["omitted_issues"]) == (12_000, 3900)
    assert {tuple(each["patterns"]) for each in packet["issues"]} == {("retry_storm",)}
    assert time.thread_time() - started < 5


def test_ten_thousand_long_messages_are_read_in_seconds() -> None:
    failing = spans(1, 10_000, failing=True)
    messages = {key_of(placed): f"{n} " + "a0" * 16_000 for n, placed in enumerate(failing)}

    started = time.thread_time()
    issue = only(diagnosed(failing, messages=messages))

    assert [each["count"] for each in issue["messages"]] == [10_000]
    assert time.thread_time() - started < 5
