"""Silence is a fix only when the issue would have been heard."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.clock import EpochMs
from lifesign.diagnosis.facts import ModelFacts, WindowFacts, window_facts
from lifesign.diagnosis.findings import View
from lifesign.diagnosis.issues import fingerprint_of
from lifesign.diagnosis.preparation import clean, failures_of
from lifesign.diagnosis.verdicts import (
    Judgement,
    Later,
    Past,
    Trend,
    exposure_of,
    fix_of,
    judged,
    needed_exposure,
    trend,
)
from lifesign.diagnosis.versions import highest, is_at_least
from tests.diagnosis.spans import span


def past(count: int = 30, exposure: int = 100, *, signal: str = "tool_call_failed") -> Past:
    return Past("f", "t", signal, "search", count, exposure)


@pytest.mark.parametrize(
    ("before", "later", "expected"),
    [
        (past(), Later(0, 100), Judgement("fixed")),
        (past(), Later(0, 9), Judgement("fixed")),
        (past(), Later(0, 8), Judgement("unverified", needed_exposure=1)),
        (past(), Later(0, 2), Judgement("unverified", needed_exposure=7)),
        (past(), Later(0, 0), Judgement("unverified", needed_exposure=9)),
        (past(100, 100), Later(0, 1), Judgement("fixed")),
        (past(100, 100), Later(0, 0), Judgement("unverified", needed_exposure=1)),
        (past(), Later(1, 100, came_back=True), Judgement("regressed")),
        (past(), Later(30, 100), Judgement("ongoing", "same")),
        (past(signal="latency_regression"), Later(3, 30, succeeded=30), Judgement("fixed")),
        (past(signal="latency_regression"), Later(0, 29, succeeded=29), Judgement("unverified", needed_exposure=1)),
        (past(signal="latency_regression"), Later(0, 40, succeeded=20), Judgement("unverified", needed_exposure=10)),
        (
            past(signal="latency_regression"),
            Later(0, 40, succeeded=40, doubt="baseline_gone"),
            Judgement("unverified", doubt="baseline_gone"),
        ),
        (
            past(signal="latency_regression"),
            Later(30, 100, still_fires=True, doubt="baseline_gone"),
            Judgement("ongoing", "same"),
        ),
        (past(signal="latency_regression"), Later(30, 100, still_fires=True), Judgement("ongoing", "same")),
    ],
)
def test_verdicts(before: Past, later: Later, expected: Judgement) -> None:
    # ln .05 / ln .7 is 8.4.
    assert judged(before, later, window_records=500) == expected


def test_a_window_without_telemetry_proves_nothing() -> None:
    assert judged(past(), Later(0, 0), window_records=0).verdict == "unverified"


@pytest.mark.parametrize(("count", "expected"), [(5, "improving"), (60, "worse"), (25, "same"), (30, "same")])
def test_a_trend_is_beyond_chance(count: int, expected: Trend) -> None:
    assert trend(past(), Later(count, 100)) == expected


@given(st.integers(1, 10**6), st.integers(1, 10**6))
def test_what_is_needed_would_have_shown_the_issue_with_95_percent(count: int, exposure: int) -> None:
    needed = needed_exposure(past(count, exposure))
    silence = max(0.0, 1 - count / exposure)

    assert silence**needed <= 0.05 * 1.0001
    assert needed == 1 or silence ** (needed - 1) > 0.05 * 0.9999


def test_one_record_is_enough_where_nearly_all_were_hit_and_as_many_as_before_where_none_was() -> None:
    # ln .05 / ln .04 is .93.
    assert needed_exposure(past(96, 100)) == 1
    assert needed_exposure(past(0, 50)) == 50


def test_exposure_is_of_the_operation_and_of_its_kind() -> None:
    facts = window_facts([span(1), span(2), span(3, kind="http"), span(4, operation="fetch")])
    view = View(facts, failures_of([], []))

    assert exposure_of(past(), view, of_operations=True) == 2
    assert exposure_of(past(signal="error"), view, of_operations=True) == 1
    assert exposure_of(past(signal="slow_operation"), view, of_operations=True) == 3
    assert exposure_of(past(signal="refusal"), view, of_operations=False) == 4


def test_an_operation_is_found_by_its_name_as_issues_have_it() -> None:
    view = View(window_facts([span(1, operation="a\u202eb")]), failures_of([], []))

    assert exposure_of(Past("f", "t", "tool_call_failed", "ab", 1, 1), view, of_operations=True) == 1


@pytest.mark.parametrize("order", [1, -1])
def test_models_without_a_name_are_unknown_unless_one_is_called_that(order: int) -> None:
    nameless, named = ModelFacts("", 3, None), ModelFacts("unknown", 5, None)

    assert View(WindowFacts(models=[nameless]), failures_of([], [])).models == {"unknown": nameless}
    assert View(WindowFacts(models=[nameless, named][::order]), failures_of([], [])).models == {"unknown": named}


@pytest.mark.parametrize("signal", ["error_rate_regression", "latency_regression"])
@pytest.mark.parametrize(("kind", "expected"), [("tool", 2), ("http", 1), ("llm", 0)])
def test_what_compares_one_operation_key_is_measured_against_that_alone(signal: str, kind: str, expected: int) -> None:
    view = View(window_facts([span(1), span(2), span(3, kind="http")]), failures_of([], []))
    told = Past(fingerprint_of(signal, ("search", kind)), "t", signal, "search", 30, 100)

    assert exposure_of(told, view, of_operations=True) == expected


def test_operations_are_named_once_however_many_issues_are_judged(monkeypatch: pytest.MonkeyPatch) -> None:
    named: list[str] = []

    def noted(text: str) -> str:
        named.append(text)
        return clean(text)

    monkeypatch.setattr("lifesign.diagnosis.findings.clean", noted)
    letters = "abcdefghij"
    facts = window_facts([span(n, operation=f"op-{letters[n // 10]}{letters[n % 10]}") for n in range(1, 100)])
    view = View(facts, failures_of([], []))

    found = [exposure_of(past(), view, of_operations=True) for _ in range(50)]

    assert found == [0] * 50
    assert len(named) == 99


def test_a_fix_is_not_taken_back_by_an_earlier_window() -> None:
    assert fix_of(EpochMs(5), ["1.9.0", "1.10.0"], None) == (5, "1.10.0")
    assert fix_of(EpochMs(5), ["1.9.0"], EpochMs(4)) == (5, "1.9.0")
    assert fix_of(EpochMs(5), ["1.9.0"], EpochMs(6)) is None
    assert fix_of(EpochMs(5), [], None) == (5, None)


@pytest.mark.parametrize(
    ("version", "fixed", "expected"),
    [
        ("1.10.0", "1.9.0", True),
        ("1.9.0", "1.10.0", False),
        ("1.2.0", "1.2.0", True),
        ("1.2.0-rc.2", "1.2.0", False),
        ("1.2.0-rc.10", "1.2.0-rc.2", True),
        ("1.2.0-alpha", "1.2.0-1", True),
        ("1.2.0+build.7", "1.2.0", True),
        ("v2", "1.2.0", True),
        ("3f2a91c", "1.2.0", True),
        ("1.1.0", "3f2a91c", True),
        (None, "1.2.0", True),
        ("1.1.0", None, True),
        ("1.3.0-rc.1", "1.2.0", True),
        ("1.2.0-alpha", "1.2.0-beta", False),
        ("2", "2.0.0", True),
        ("2.0.0", "2", True),
    ],
)
def test_versions_have_the_order_of_semantic_versioning(
    version: str | None, fixed: str | None, *, expected: bool
) -> None:
    assert is_at_least(version, fixed) is expected


def test_the_highest_version_is_not_the_last_by_alphabet() -> None:
    assert highest(["1.9.0", "zzz", "1.10.0"]) == "1.10.0"
    assert highest(["1.0.0", "1.0"]) == highest(["1.0", "1.0.0"]) == "1.0.0"
    assert highest([]) is None
