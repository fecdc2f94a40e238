"""The pure rules of breakers and rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.channels.limits import Limits, bucket_key
from lifesign.channels.rules import (
    Breaker,
    Bucket,
    Rate,
    after_failure,
    breaker_after_failure,
    minutes_late,
    refilled,
    token_wait_ms,
)
from lifesign.clock import EpochMs

NOW = EpochMs(1_767_614_400_000)
S = 1000


def test_each_probe_that_fails_doubles_the_pause_up_to_five_minutes() -> None:
    breaker, pauses = Breaker(), []
    for _ in range(10):
        breaker = breaker_after_failure(breaker, NOW)
        if breaker.open_until is not None:
            pauses.append((breaker.open_until - NOW) // S)
            breaker = breaker._replace(state="half", open_until=None)

    assert pauses == [30, 60, 120, 240, 300, 300]


def test_a_failure_of_what_was_sent_before_the_breaker_opened_changes_nothing() -> None:
    opened = Breaker("open", 5, EpochMs(NOW + 30 * S))

    assert breaker_after_failure(opened, EpochMs(NOW + 1)) == opened


@given(
    st.integers(1, 600), st.integers(1, 50), st.lists(st.tuples(st.integers(0, 5000), st.integers(1, 20)), max_size=60)
)
def test_no_span_lets_more_leave_than_the_burst_and_the_rate_of_its_length(
    per_minute: int, burst: int, asked: list[tuple[int, int]]
) -> None:
    rate = Rate(per_minute / 60, burst)
    bucket, now, left = refilled(None, rate, NOW), NOW, []
    for later, wanted in asked:
        now = EpochMs(now + later)
        bucket = refilled(bucket, rate, now)
        taken = min(wanted, int(bucket.tokens))
        bucket = Bucket(bucket.tokens - taken, bucket.at)
        left += [now] * taken

    for first, since in enumerate(left):
        for last in range(first, len(left)):
            allowed = burst + (left[last] - since) / S * rate.per_second
            assert last - first + 1 <= allowed + 1e-6


@given(st.floats(0, 20), st.integers(1, 600), st.integers(1, 20))
def test_after_the_wait_there_are_as_many_tokens_as_wanted(tokens: float, per_minute: int, wanted: int) -> None:
    rate = Rate(per_minute / 60, 20)
    bucket = Bucket(tokens, NOW)

    later = refilled(bucket, rate, EpochMs(NOW + token_wait_ms(bucket, rate, wanted)))

    assert later.tokens >= wanted - 1e-6


def test_a_clock_that_is_set_back_takes_no_tokens_away_and_fills_the_bucket_from_then_on() -> None:
    earlier = EpochMs(NOW - 3600 * S)

    after = refilled(Bucket(3, NOW), Rate(1, 5), earlier)

    assert after == Bucket(3, earlier)
    assert refilled(after, Rate(1, 5), EpochMs(earlier + S)) == Bucket(4, EpochMs(earlier + S))


def test_nodes_that_differ_by_a_moment_do_not_fill_a_bucket_by_it() -> None:
    assert refilled(Bucket(3, NOW), Rate(1, 5), EpochMs(NOW - 2 * S)) == Bucket(3, NOW)


@pytest.mark.parametrize(("asked_s", "held_s"), [(0, 30), (31, 31), (600, 600), (366 * 86_400, 900)])
def test_too_many_requests_holds_the_channel_for_as_long_as_was_asked_and_not_as_long_as_one_old_message_waits(
    asked_s: int, held_s: int
) -> None:
    verdict = after_failure(
        "retry",
        attempt=12,
        now=NOW,
        expires_at=EpochMs(NOW + 86_400 * S),
        after_ms=asked_s * S,
        holds_lane=True,
        is_withdrawn=False,
        luck=0.5,
    )

    assert verdict.lane_held_until == NOW + held_s * S
    assert verdict.not_before == NOW + 3600 * S


def test_what_leaves_after_ten_minutes_or_less_is_not_called_late() -> None:
    assert minutes_late(NOW, EpochMs(NOW + 600 * S)) is None
    assert minutes_late(NOW, EpochMs(NOW + 600 * S + 1)) == 10


def test_webhooks_share_a_limit_by_host_and_slack_by_address_and_neither_can_be_read_from_the_key() -> None:
    one, two = {"url": "https://a.example/x"}, {"url": "https://A.example/y"}
    hooks = {"webhookUrl": "https://hooks.example/1"}, {"webhookUrl": "https://hooks.example/2"}

    assert bucket_key("webhook", one) == bucket_key("webhook", two)
    assert bucket_key("slack", hooks[0]) != bucket_key("slack", hooks[1])
    assert "example" not in f"{bucket_key('webhook', one)}{bucket_key('slack', hooks[0])}"
    assert bucket_key("email", {"to": "a@example.org"}) is None


def test_a_limit_of_none_is_no_limit() -> None:
    assert Limits(300, 0, "+15550100").rate("webhook") is None
    assert Limits(300, 0, "+15550100").rate("email") == Rate(5, 30)
    assert Limits(300, 0, "+15550100").bucket("sms", "ch_1", None) == "sms:+15550100"
