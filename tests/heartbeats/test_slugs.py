"""Slugs: from names, chosen by hand, and the lowest free one."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.heartbeats.slugs import is_valid_slug, lowest_free, slug_from_name


@pytest.mark.parametrize(
    ("name", "slug"),
    [
        ("Nightly Export", "nightly-export"),
        ("  Nightly -- Export!  ", "nightly-export"),
        ("Größe", "gro-e"),
        ("Crème brûlée", "creme-brulee"),
        ("\u0130stanbul", "istanbul"),  # capital I with a dot, whose lower case is two characters
        ("\ufb01le \u2460", "file-1"),  # the ligature fi and a circled digit
        ("\u212aelvin", "kelvin"),  # the Kelvin sign
        ("db_backup", "db-backup"),
        ("hb_abc", "hb-abc"),
        ("v1.2/main", "v1-2-main"),
        ("\u5099\u4efd", "heartbeat"),
        ("\u0661\u0662", "heartbeat"),  # Arabic digits are not 0-9
        ("!!!", "heartbeat"),
        ("", "heartbeat"),
        ("\u0301", "heartbeat"),
    ],
)
def test_a_name_becomes_a_slug(name: str, slug: str) -> None:
    assert slug_from_name(name) == slug


def test_a_long_name_is_cut_to_ninety_characters() -> None:
    assert slug_from_name("x" * 200) == "x" * 90


def test_a_cut_leaves_no_dash_at_the_end() -> None:
    assert slug_from_name("x" * 89 + " tail") == "x" * 89


@given(st.text(max_size=200))
def test_every_name_gives_a_valid_slug(name: str) -> None:
    slug = slug_from_name(name)

    assert is_valid_slug(slug)
    assert len(slug) <= 90
    assert slug == slug.strip("-")


@given(st.text(alphabet="ab \u00e9_-HB", max_size=200))
def test_the_slug_of_a_slug_is_itself(name: str) -> None:
    slug = slug_from_name(name)

    assert slug_from_name(slug) == slug


@pytest.mark.parametrize("slug", ["a", "0", "-", "_", "nightly-export_2", "hb-abc", "hb", "xhb_", "a" * 100])
def test_slugs_that_a_caller_may_choose(slug: str) -> None:
    assert is_valid_slug(slug)


@pytest.mark.parametrize(
    "slug", ["", "a" * 101, "hb_abc", "hb_", "Nightly", "a b", "a\n", "caf\u00e9", "a.b", "a/b", "\u0661"]
)
def test_slugs_that_nobody_may_choose(slug: str) -> None:
    assert not is_valid_slug(slug)


def test_a_free_slug_is_taken_as_it_is() -> None:
    assert lowest_free("nightly", ["nightly-2", "nightlyx"]) == "nightly"


def test_the_second_of_a_name_gets_the_number_two() -> None:
    assert lowest_free("nightly", ["nightly"]) == "nightly-2"


def test_a_number_that_became_free_is_used_again() -> None:
    assert lowest_free("nightly", {"nightly", "nightly-2", "nightly-4", "nightly-03"}) == "nightly-3"


@given(st.sets(st.integers(1, 12)))
def test_no_lower_number_is_free(numbers: set[int]) -> None:
    names = {number: "job" if number == 1 else f"job-{number}" for number in range(1, 14)}

    found = lowest_free("job", [names[number] for number in numbers])

    lowest = next(number for number in range(1, 14) if number not in numbers)
    assert found == names[lowest]
