"""What is counted of a request, and how requests add up. Spec "Usage", sections 3 to 5."""

import itertools
import math
import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.clock import EpochMs, parse_timestamp
from lifesign.usage import rules
from lifesign.usage.rules import Latency, Minute, UsageRecord

NOON = parse_timestamp("2026-01-05T12:00:00.000Z")
DURATIONS = st.integers(0, 700_000)


# Paths and methods --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "prefix"),
    [
        ("/api/keys", "/api/keys"),
        ("/api/keys/", "/api/keys"),
        ("/api/keys/me/rotate", "/api/keys"),
        ("/api/dashboard/overview", "/api/dashboard"),
        ("/api/rppg/measure", "/api/rppg"),
        ("/api/demo", "/api/demo"),
        ("/api/vitals/stream", "/api/vitals"),
        ("/api/keysmith", None),
        ("/api/key", None),
        ("/api/", None),
        ("/api", None),
        ("/v1/keys", None),
        ("/api/systems/api/keys", None),
        ("//api/keys", None),
        ("/API/KEYS", None),
    ],
)
def test_a_path_is_of_this_api_by_its_first_two_parts(path: str, prefix: str | None) -> None:
    assert rules.prefix_of(path) == prefix


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("/api/keys/you", "/api/keys/you"),
        ("/api/keys/", "/api/keys/"),
        ("/api/vitals/" + "x" * 15, "/api/vitals/" + "x" * 15),
        ("/api/vitals/" + "x" * 16, "/api/vitals/:id"),
        ("/api/vitals/beam_/a", "/api/vitals/:id/a"),
        ("/api/vitals/" + "a/" * 34, "/api/vitals/" + "a/" * 34),
        ("/api/vitals/" + "a/" * 34 + "a", None),
        ("/api/keys/a b", None),
        ("/api/keys/ä", None),
        ("/api/keys/a:b", None),
        ("/api/keys/a\n", None),
        ("/api/keys/\x00", None),
    ],
)
def test_of_a_path_that_is_not_there_only_what_is_harmless_is_shown(path: str, shown: str | None) -> None:
    assert rules.shown_path(path) == shown


@pytest.mark.parametrize(
    ("method", "counted"),
    [("get", "GET"), ("PROPFIND", "PROPFIND"), ("BREW", "OTHER"), ("OTHER", "OTHER"), ("", "OTHER")],
)
def test_methods_that_nobody_registered_are_one(method: str, counted: str) -> None:
    assert rules.counted_method(method) == counted


@pytest.mark.parametrize(
    ("seconds", "ms"), [(0, 0), (0.000_49, 0), (0.000_5, 1), (0.001_5, 2), (0.002_5, 3), (12.3456, 12346)]
)
def test_durations_are_rounded_half_up(seconds: float, ms: int) -> None:
    assert rules.rounded_ms(seconds) == ms


# Bins ---------------------------------------------------------------------------------------------------------------
def test_bins_are_exact_below_128_ms() -> None:
    assert [rules.bin_of(each) for each in range(128)] == list(range(128))
    assert [rules.middle_of(each) for each in range(128)] == list(range(128))


@pytest.mark.parametrize(
    ("duration", "number", "middle"),
    [
        (128, 128, 129),
        (129, 128, 129),
        (130, 129, 131),
        (255, 191, 255),
        (256, 192, 258),
        (511, 255, 510),
        (1000, 317, 1004),
    ],
)
def test_above_there_are_64_bins_for_each_power_of_two(duration: int, number: int, middle: int) -> None:
    assert rules.bin_of(duration) == number
    assert rules.middle_of(number) == middle


@given(st.integers(0, 600_000))
def test_a_bin_is_told_as_a_duration_that_is_off_by_less_than_a_hundredth(duration: int) -> None:
    middle = rules.middle_of(rules.bin_of(duration))

    assert abs(middle - duration) <= duration / 100
    assert rules.bin_of(middle) == rules.bin_of(duration)


@given(DURATIONS, DURATIONS)
def test_bins_are_in_the_order_of_durations(one: int, other: int) -> None:
    low, high = sorted((one, other))

    assert rules.bin_of(low) <= rules.bin_of(high)


def test_what_takes_longer_than_ten_minutes_shares_a_bin() -> None:
    assert rules.bin_of(600_000) == rules.bin_of(600_001) == rules.bin_of(10**12)
    assert rules.bin_of(600_000) < 128 + 13 * 64


# Latency ------------------------------------------------------------------------------------------------------------
def latency_of(durations: list[int]) -> Latency:
    """What the dashboard says of these durations."""
    sums = Minute()
    for each in durations:
        sums.add(200, each)
    return rules.latency_of(sorted(Counter(map(rules.bin_of, durations)).items()), sums)


def test_percentiles_of_ten_to_a_thousand_milliseconds() -> None:
    latency = latency_of(list(range(10, 1001)))

    assert latency.p50_ms == pytest.approx(505, rel=0.02)
    assert latency.p95_ms == pytest.approx(951, rel=0.016)
    assert latency.p99_ms == pytest.approx(991, rel=0.016)
    assert latency.avg_ms == 505


@pytest.mark.parametrize(
    ("durations", "latency"),
    [
        ([], Latency()),
        ([7], Latency(7, 7, 7, 7)),
        # The middle of its bin would be 131: never more than there was.
        ([130], Latency(130, 130, 130, 130)),
        ([1, 2], Latency(1, 2, 2, 2)),
        ([0, 0, 0, 1], Latency(0, 1, 1, 0)),
        ([*range(1, 101)], Latency(50, 95, 99, 51)),
        ([3_600_000, 3_600_000], Latency(3_600_000, 3_600_000, 3_600_000, 3_600_000)),
    ],
)
def test_latency_is_by_nearest_rank(durations: list[int], latency: Latency) -> None:
    assert latency_of(durations) == latency


@given(st.lists(DURATIONS, min_size=1, max_size=300))
def test_latency_is_near_what_was_measured_and_within_it(durations: list[int]) -> None:
    latency = latency_of(durations)
    ordered = sorted(durations)

    for found, percent in ((latency.p50_ms, 50), (latency.p95_ms, 95), (latency.p99_ms, 99)):
        exact = ordered[math.ceil(len(ordered) * percent / 100) - 1]
        assert found is not None
        assert ordered[0] <= found <= ordered[-1]
        # Above ten minutes the sketch knows no more than that it took longer.
        assert min(exact, 600_000) * 0.984 - 1 <= found
        assert exact > 600_000 or found <= exact * 1.016 + 1
    assert latency.p50_ms <= latency.p95_ms <= latency.p99_ms  # type: ignore[operator]  # as was found above
    assert latency.avg_ms == math.floor(sum(durations) / len(durations) + 0.5)


# Adding up ----------------------------------------------------------------------------------------------------------
RECORDS = st.lists(
    st.builds(
        UsageRecord,
        at=st.integers(NOON - 3 * 3_600_000, NOON).map(EpochMs),
        method=st.sampled_from(["GET", "POST"]),
        path=st.sampled_from(["/api/keys", "/api/vitals/x"]),
        status=st.sampled_from([101, 200, 201, 301, 400, 404, 499, 500, 503]),
        duration_ms=st.none() | DURATIONS,
        key=st.none() | st.integers(1, 3) | st.sampled_from(["h1", "h2"]),
    ),
    max_size=200,
)


@settings(deadline=None)
@given(RECORDS)
def test_sums_are_what_counting_the_records_gives(records: list[UsageRecord]) -> None:
    sums = rules.sums_of(records)

    assert {at: each.total for at, each in sums.minutes.items()} == Counter(
        each.at // 60_000 * 60_000 for each in records
    )
    assert sum(each.client_errors for each in sums.minutes.values()) == sum(
        400 <= each.status < 500 for each in records
    )
    assert sum(each.server_errors for each in sums.minutes.values()) == sum(each.status >= 500 for each in records)
    timed = [each for each in records if each.duration_ms is not None]
    assert sum(each.duration_sum_ms for each in sums.minutes.values()) == sum(each.duration_ms or 0 for each in timed)
    assert sum(sums.latency.values()) == sum(each.duration_count for each in sums.minutes.values()) == len(timed)
    failed = Counter(f"{each.method} {each.path} → {each.status}" for each in records if each.status >= 400)
    assert {message: each.times for (_, message), each in sums.errors.items()} == failed
    assert all((kind == "server_error") == (int(message[-3:]) >= 500) for kind, message in sums.errors)
    used = {key: each.times for found in (sums.keys, sums.hashes) for key, each in found.items()}
    assert used == Counter(each.key for each in records if each.key is not None)


@settings(deadline=None)
@given(RECORDS)
def test_the_order_of_records_does_not_matter(records: list[UsageRecord]) -> None:
    shuffled = random.Random(1).sample(records, len(records))

    assert rules.sums_of(shuffled) == rules.sums_of(records)


# Windows ------------------------------------------------------------------------------------------------------------
@given(st.integers(0, 4_000_000_000_000).map(EpochMs), st.sampled_from(rules.RANGES))
def test_buckets_cover_the_window_without_gaps(now: EpochMs, of: rules.Range) -> None:
    begins = rules.buckets_of(of, now)
    length = rules.bucket_length_ms(of)

    assert len(begins) == {"24h": 25, "7d": 8, "30d": 31}[of]
    assert all(later - earlier == length for earlier, later in itertools.pairwise(begins))
    assert begins[0] <= rules.first_minute(of, now) < begins[0] + length
    assert begins[-1] <= now < begins[-1] + length


@pytest.mark.parametrize(
    ("part", "whole", "share"),
    [(0, 0, 0), (0, 9, 0), (1, 1, 100), (3, 184, 1.63), (1, 3, 33.33), (2, 3, 66.67), (1, 800, 0.13), (1, 100_000, 0)],
)
def test_a_share_has_two_decimals_rounded_half_up(part: int, whole: int, share: float) -> None:
    assert rules.share_pct(part, whole) == share
