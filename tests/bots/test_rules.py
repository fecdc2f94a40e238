"""What lets runs start, what their ends mean, and what they cost."""

from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lifesign.bots import budget, rules
from lifesign.bots.budget import Price, Tariff, Usage
from lifesign.bots.rules import Door, Facts, RunKind, RunStatus
from lifesign.bots.run_store import Ended
from lifesign.bots.statistics import Spent, statistics
from lifesign.clock import EpochMs, from_datetime, rfc3339


def at(text: str) -> EpochMs:
    return from_datetime(datetime.fromisoformat(text))


# Admission ----------------------------------------------------------------------------------------------------------
WORST = Facts(
    is_gone=True,
    is_stopped=True,
    fits_plan=False,
    is_online=False,
    is_missed=True,
    waits_for_approval=True,
    is_running=True,
    is_rate_limited=True,
    has_no_place=True,
    is_budget_exhausted=True,
    is_precheck_asleep=True,
    is_provider_unreachable=True,
)
ORDER = [
    ("is_gone", "gone"),
    ("is_stopped", "project_stopped"),
    ("fits_plan", "plan"),
    ("is_online", "bot_offline"),
    ("is_missed", "missed"),
    ("waits_for_approval", "pending_approval"),
    ("is_running", "overlap"),
    ("is_rate_limited", "rate_limited"),
    ("has_no_place", "concurrency"),
    ("is_budget_exhausted", "budget_exhausted"),
    ("is_precheck_asleep", "precheck"),
    ("is_provider_unreachable", "provider_unreachable"),
]
AT_THE_CLAIM = {
    "gone",
    "project_stopped",
    "plan",
    "bot_offline",
    "missed",
    "pending_approval",
    "overlap",
    "rate_limited",
}
AT_THE_START = {reason for _, reason in ORDER} - {"missed", "pending_approval", "overlap"}
TRIGGERS_PASS = {"missed", "precheck", "provider_unreachable"}


def reasons(door: Door, kind: RunKind) -> list[str]:
    """Every reason that is given, as one cause after the other goes away."""
    facts, found = {name: getattr(WORST, name) for name, _ in ORDER}, []
    while (reason := rules.admit(door, kind, Facts(**facts))) is not None:
        found.append(reason)
        name = next(name for name, told in ORDER if told == reason)
        facts[name] = not facts[name]
    return found


@pytest.mark.parametrize(
    ("door", "kind", "judged"),
    [
        ("tick", "scheduled", AT_THE_CLAIM),
        ("trigger", "trigger", AT_THE_CLAIM - TRIGGERS_PASS),
        ("start", "scheduled", AT_THE_START),
        ("start", "trigger", AT_THE_START - TRIGGERS_PASS),
        ("claim", "catch_up", AT_THE_START),
    ],
)
def test_every_door_asks_in_the_same_order(door: Door, kind: RunKind, judged: set[str]) -> None:
    assert reasons(door, kind) == [reason for _, reason in ORDER if reason in judged]


def test_a_disabled_schedule_is_run_by_hand_only() -> None:
    assert rules.admit("tick", "scheduled", Facts(is_enabled=False)) == "gone"
    assert rules.admit("trigger", "trigger", Facts(is_enabled=False)) is None


@pytest.mark.parametrize(
    ("overlap", "is_running", "is_queued", "refused"),
    [
        ("skip", True, False, True),
        ("skip", False, True, True),
        ("skip", False, False, False),
        ("queue_one", True, False, False),
        ("queue_one", True, True, True),
        ("cancel_previous", True, True, False),
    ],
)
def test_overlaps_are_treated_as_the_schedule_wants(
    overlap: rules.Overlap, is_running: bool, is_queued: bool, refused: bool
) -> None:
    facts = Facts(overlap=overlap, is_running=is_running, is_queued=is_queued)

    assert rules.admit("tick", "scheduled", facts) == ("overlap" if refused else None)


# Ends ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("kind", "status", "reason", "count", "is_paused"),
    [
        ("scheduled", "error", "provider_error", 2, True),
        ("catch_up", "error", "timeout", 2, True),
        ("scheduled", "error", "lost", 2, True),
        ("scheduled", "error", "budget_cut", 1, False),
        ("scheduled", "error", "approval_expired", 1, False),
        ("scheduled", "skipped", "overlap", 1, False),
        ("scheduled", "cancelled", "user", 1, False),
        ("scheduled", "success", None, 0, False),
        ("trigger", "error", "provider_error", 1, False),
        ("trigger", "success", None, 1, False),
    ],
)
def test_only_errors_of_slots_count_and_only_their_success_resets(
    kind: RunKind, status: RunStatus, reason: str | None, count: int, is_paused: bool
) -> None:
    assert rules.after_run(1, 2, kind, status, reason) == rules.Counted(count, is_paused)


def test_zero_errors_allowed_means_never_pause() -> None:
    assert rules.after_run(99, 0, "scheduled", "error", "lost") == rules.Counted(100, is_paused=False)


@given(st.lists(st.sampled_from(["success", "error", "skipped"]), max_size=30), st.integers(1, 5))
def test_a_schedule_pauses_exactly_when_so_many_errors_stand_in_a_row(ends: list[RunStatus], most: int) -> None:
    count, row = 0, 0
    for end in ends:
        counted = rules.after_run(count, most, "scheduled", end, "lost" if end == "error" else None)
        row = 0 if end == "success" else row + (end == "error")
        assert counted == rules.Counted(row, is_paused=end == "error" and row >= most)
        count = counted.error_count


# Limits -------------------------------------------------------------------------------------------------------------
def test_limits_are_those_set_or_follow_gap_and_bot() -> None:
    usual = rules.limits_of({}, gap_ms=300_000, max_reply_tokens=None)
    chosen = rules.limits_of({"timeout_seconds": 20, "max_requests": 1}, gap_ms=None, max_reply_tokens=99)

    assert (usual.timeout_ms, usual.max_output_tokens, usual.max_requests) == (300_000, 1024, 20)
    assert (chosen.timeout_ms, chosen.max_output_tokens, chosen.max_requests) == (20_000, 99, 1)
    assert rules.limits_of({}, gap_ms=86_400_000, max_reply_tokens=None).timeout_ms == 600_000


# Money --------------------------------------------------------------------------------------------------------------
M = Tariff({"m": Price(Decimal(3), Decimal(15)), "c": Price(Decimal(3), Decimal(15), Decimal("0.3"))}, 10_000)


@pytest.mark.parametrize(
    ("usage", "model", "tariff", "nano_usd", "expected"),
    [
        (Usage(1000, 1000), "m", M, None, 1.8),
        (Usage(1000, 1000), "unknown", M, None, 2),
        (Usage(900, 600), None, Tariff({}, 20_000), None, 3),
        (Usage(1000, 1000), "unknown", M, 18_000_000, 1.8),
        (Usage(1000, 0, cached_tokens=1000), "c", M, None, 0.03),
        (Usage(1000, 0, cached_tokens=1000), "m", M, None, 0.3),
        (Usage(1, 0), "unknown", Tariff({}, 1), None, 0.0001),
        (Usage(0, 0), "m", M, None, 0),
    ],
)
def test_a_response_costs_what_the_project_says_else_the_table_else_by_the_thousand(
    usage: Usage, model: str | None, tariff: Tariff, nano_usd: int | None, expected: float
) -> None:
    assert budget.credits_of(budget.cost(usage, model, tariff, nano_usd)) == expected


@pytest.mark.parametrize(
    ("kind", "zone", "now", "start", "end"),
    [
        ("month", "UTC", "2026-12-31T23:59:59Z", "2026-12-01T00:00", "2027-01-01T00:00"),
        ("month", "Europe/Berlin", "2026-03-31T22:30Z", "2026-03-31T22:00", "2026-04-30T22:00"),
        ("week", "UTC", "2026-01-04T12:00Z", "2025-12-29T00:00", "2026-01-05T00:00"),
        ("day", "Europe/Berlin", "2026-03-29T12:00Z", "2026-03-28T23:00", "2026-03-29T22:00"),
    ],
)
def test_periods_are_those_of_the_calendar_of_the_zone(
    kind: budget.PeriodKind, zone: str, now: str, start: str, end: str
) -> None:
    period = budget.period_at(kind, zone, at(now))

    assert (rfc3339(period.start)[:16], rfc3339(period.end)[:16]) == (start, end)


def test_a_start_reserves_what_is_left_at_most_and_nothing_when_that_is_too_little() -> None:
    assert budget.reservation(None, 60_000, 1000) == 60_000
    assert budget.reservation(budget.remaining(100_000, 0, 0), 60_000, 1000) == 60_000
    assert budget.reservation(budget.remaining(100_000, 0, 60_000), 60_000, 1000) == 40_000
    assert budget.reservation(budget.remaining(100_000, 40_000, 60_000), 60_000, 1000) is None
    assert budget.reservation(budget.remaining(0, 0, 0), 60_000, 1000) is None


@given(
    st.integers(0, 10**6),
    st.lists(st.tuples(st.booleans(), st.integers(1, 10**6), st.integers(0, 10**6)), max_size=30),
)
def test_reservations_and_what_was_spent_never_pass_the_budget(total: int, events: list[tuple[bool, int, int]]) -> None:
    spent, held = 0, list[int]()
    for is_start, wanted, used in events:
        if is_start:
            got = budget.reservation(budget.remaining(total, spent, sum(held)), wanted, 1)
            held += [] if got is None else [got]
        elif held:
            spent += min(used, held.pop(0))
        assert spent + sum(held) <= total


@pytest.mark.parametrize(
    ("before", "after", "due"),
    [(0, 79, []), (79, 80, [(80, 1)]), (0, 100, [(80, 1), (100, 2)]), (80, 99, []), (100, 120, [])],
)
def test_a_budget_is_told_of_once_at_eighty_and_once_at_a_hundred(
    before: int, after: int, due: list[tuple[int, int]]
) -> None:
    assert list(budget.notices_due(100, before, after)) == due


def test_output_is_cut_to_what_the_reservation_still_pays_for() -> None:
    assert budget.affordable_output(10_000, 4_000, 10_000) == 600
    assert budget.affordable_output(1_000, 4_000, 10_000) == 0
    assert budget.affordable_output(1_000, 4_000, 0) is None


# Statistics ---------------------------------------------------------------------------------------------------------
def test_a_rate_of_success_has_one_decimal_and_leaves_out_what_did_not_run() -> None:
    now = EpochMs(1_767_614_400_000)
    ended = [Ended(status, None, "scheduled", 1, "m", now, 10, now) for status in ("success", "success", "error")]
    skips = Ended("skipped", "overlap", "scheduled", 7, None, now, None, None)

    told = statistics([*ended, skips], Spent(0, 0), active=1, days=1, now=now)

    assert (told["success_rate"], told["total_executions"], told["skipped_count"]) == (66.7, 10, 7)
    assert told["time_series"] == [{"date": "2026-01-05", "total": 10, "success": 2, "error": 1}]
