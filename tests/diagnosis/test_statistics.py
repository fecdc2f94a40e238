"""The figures agree with those of the literature, of R and of scipy, written down by hand."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.diagnosis.statistics import (
    discoveries,
    outlier_above,
    percentile_bucket,
    shift,
    upper_edge_ms,
    wilson,
)
from lifesign.telemetry.rules import duration_bucket

histograms = st.dictionaries(st.integers(0, 30), st.integers(1, 20), min_size=1, max_size=8)


def test_wilson_agrees_with_the_worked_examples_of_newcombe() -> None:
    # Newcombe 1998, table I, method 3.
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(1, 29) == pytest.approx((0.0061, 0.1718), abs=5e-5)
    # By hand: 1 / (1 + 1.96^2), and all of it.
    assert wilson(1, 1) == pytest.approx((0.2065, 1.0), abs=5e-5)


def test_a_share_of_nothing_may_be_anything() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


def test_samples_apart_give_the_figure_worked_out_by_hand() -> None:
    # U = 9, mean 4.5, variance 9 * 7 / 12 = 5.25, z = 4 / 2.2913 = 1.7457.
    assert shift({4: 1, 5: 1, 6: 1}, {1: 1, 2: 1, 3: 1}) == pytest.approx((0.0404, 1.0), abs=5e-5)


def test_one_against_one_may_be_either() -> None:
    # U is 1 of 1, half of one above its mean, and that is what is taken off for continuity.
    assert shift({2: 1}, {1: 1}) == pytest.approx((0.5, 1.0))


def test_ties_narrow_the_variance() -> None:
    # U = 2 * 2 * 1/2 + 2 * 2 + 2 * 2 * 1/2 = 8 of 16 pairs at most; ties 4^3 - 4 in the middle bucket.
    p, delta = shift({2: 2, 3: 2}, {1: 2, 2: 2})

    assert delta == 0.75
    variance = 16 / 12 * (9 - (6 + 60 + 6) / 56)
    assert p == pytest.approx(0.5 * math.erfc(5.5 / math.sqrt(2 * variance)))


def test_equal_values_are_no_shift() -> None:
    assert shift({7: 40}, {7: 40}) == (1.0, 0.0)
    assert shift({}, {7: 40}) == shift({7: 40}, {}) == (1.0, 0.0)


@given(histograms, histograms)
def test_the_delta_is_that_of_all_pairs(now: dict[int, int], before: dict[int, int]) -> None:
    signs = sum(((a > b) - (a < b)) * m * n for a, m in now.items() for b, n in before.items())

    assert shift(now, before).delta == pytest.approx(signs / (sum(now.values()) * sum(before.values())))


def test_discoveries_are_those_of_benjamini_and_hochberg() -> None:
    # The fifteen chances of their paper; at q = .05 the first four hold.
    chances = [0.0001, 0.0004, 0.0019, 0.0095, 0.0201, 0.0278, 0.0298, 0.0344, 0.0459, 0.324, 0.4262, 0.5719]
    chances += [0.6528, 0.759, 1.0]

    assert discoveries(chances, 0.05) == [True] * 4 + [False] * 11
    assert discoveries(chances[::-1], 0.05) == [False] * 11 + [True] * 4
    assert discoveries([0.05], 0.05) == [True]
    assert discoveries([], 0.05) == []


def test_an_outlier_is_far_from_the_median_in_units_of_the_usual_distance() -> None:
    assert outlier_above([1, 1, 2, 2, 4, 6, 9], 6) == pytest.approx(2 + 6 * 1.4826 * 1)


def test_a_percentile_is_the_bucket_where_the_count_is_reached() -> None:
    assert percentile_bucket({1: 19, 5: 1}, 0.95) == 1
    assert percentile_bucket({1: 18, 5: 2}, 0.95) == 5
    for nothing in ({}, {1: 0}):
        with pytest.raises(ValueError, match="nothing"):
            percentile_bucket(nothing, 0.95)


@given(st.integers(1_000, 10**15))
def test_a_duration_lies_below_the_edge_of_its_bucket(duration_ns: int) -> None:
    edge_ns = upper_edge_ms(duration_bucket(duration_ns)) * 1_000_000

    assert duration_ns // 1000 * 1000 <= edge_ns * 1.000001
    assert edge_ns <= duration_ns // 1000 * 1000 * 1.05 * 1.000001
