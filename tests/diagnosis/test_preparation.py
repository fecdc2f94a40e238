"""A failure counts once: where it began."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.diagnosis.facts import window_facts
from lifesign.diagnosis.preparation import Failures, Placed, clean, failures_of, in_order, masked_message
from lifesign.diagnosis.preparation import normal_error_type as normal
from tests.diagnosis.spans import ids, span


def failures(*records: Placed) -> Failures:
    facts = window_facts(in_order(records))
    return failures_of(facts.rows, facts.recoveries)


def test_a_failure_told_again_by_its_parents_counts_once() -> None:
    root = span(1, trace=1, kind="agent", failing=True)
    step = span(2, trace=1, parent=1, kind="workflow", failing=True)
    tool = span(3, trace=1, parent=2, failing=True)

    found = failures(tool, root, step)

    assert ids(*found.leaves) == ids(tool)
    assert len(found.ended_the_root) == 1


def test_a_parent_whose_failed_child_was_made_good_failed_by_itself() -> None:
    root = span(1, trace=1, kind="agent", failing=True)
    tool = span(2, trace=1, parent=1, failing=True)
    again = span(3, trace=1, parent=1)

    found = failures(root, tool, again)

    assert ids(*found.leaves) == ids(root, tool)


@pytest.mark.parametrize(
    "other",
    [
        span(3, trace=1, parent=1, operation="fetch"),
        span(3, trace=1, parent=9),
        span(3, trace=7, parent=1),
        span(3, trace=1, parent=1, start_ns=1),
    ],
    ids=["another operation", "another parent", "another trace", "earlier"],
)
def test_what_is_no_later_success_of_the_same_makes_nothing_good(other: Placed) -> None:
    root = span(1, trace=1, kind="agent", failing=True)
    tool = span(2, trace=1, parent=1, failing=True)

    assert ids(*failures(root, tool, other).leaves) == ids(tool)


def test_a_root_that_went_well_was_not_ended() -> None:
    root = span(1, trace=1, kind="agent")
    tool = span(2, trace=1, parent=1, failing=True)

    assert failures(root, tool).ended_the_root == frozenset()


def test_a_cycle_of_parents_is_cut_at_its_earliest_record() -> None:
    first = span(1, trace=1, parent=3, failing=True)
    second = span(2, trace=1, parent=1, failing=True)
    third = span(3, trace=1, parent=2, failing=True)

    found = failures(third, second, first)

    assert ids(*found.leaves) == ids(third)
    assert found.ended_the_root == frozenset()


def test_a_record_that_is_its_own_parent_counts() -> None:
    own = span(1, trace=1, parent=1, failing=True)

    assert ids(*failures(own).leaves) == ids(own)


def test_a_chain_of_a_hundred_thousand_parents_is_followed_in_time() -> None:
    chain = [span(number, trace=1, parent=number - 1, failing=True) for number in range(1, 100_001)]

    started = time.thread_time()
    found = failures_of(chain, [])

    assert ids(*found.leaves) == ids(chain[-1])
    assert len(found.ended_the_root) == 1
    assert time.thread_time() - started < 5


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=6), st.randoms())
def test_whatever_the_tree_something_counts_when_something_fails(tree: list[tuple[int, bool]], random: object) -> None:
    records = [
        span(number, trace=1, parent=parent, failing=failing) for number, (parent, failing) in enumerate(tree, 1)
    ]
    found = failures(*records)

    assert bool(found.leaves) == any(failing for _, failing in tree)
    assert failures(*reversed(records)) == found


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ("httpx.ReadTimeout", "ReadTimeout"),
        ("std::io::Error", "Error"),
        ("ReadTimeout", "ReadTimeout"),
        (None, "_OTHER"),
        ("", "_OTHER"),
        ("...", "..."),
        ("x" * 300, "x" * 100),
        ("Err\u202eor\x00", "Error"),
    ],
)
def test_error_types_are_one_whatever_their_module(told: str | None, expected: str) -> None:
    assert normal(told) == expected


def test_messages_are_one_when_only_numbers_differ() -> None:
    first = masked_message("order 7c9e6679-7425-40de-944b-e07fc1f90ae7 lost\n\n at 2026-01-05, line 12\nthird line")
    second = masked_message("order 11111111-7425-40de-944b-e07fc1f90ae7 lost\nat 2026-02-06, line 7")

    assert first == second == "order <uuid> lost at <date>, line <n>"


def test_a_long_message_of_hex_is_masked_in_milliseconds() -> None:
    started = time.thread_time()
    masked_message("a0" * 16_384)

    assert time.thread_time() - started < 0.05


def test_what_cannot_be_seen_is_taken_out() -> None:
    assert clean("a\x00b\u202ec\ud800d\u2066e") == "abcde"
