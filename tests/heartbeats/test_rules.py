"""The pure rules of heartbeats, by the thousand: nothing that may happen, in any order, breaks an invariant."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from lifesign.clock import SET_BACK_MS, EpochMs
from lifesign.heartbeats import rules
from lifesign.heartbeats.rules import Heartbeat, Mode, StateRefused, Timing

NOON = EpochMs(1_767_614_400_000)  # 2026-01-05T12:00:00Z
MINUTE = 60_000
HOUR = 60 * MINUTE

_MODES: tuple[Mode, ...] = ("recurring", "scheduled", "oneshot")
modes = st.sampled_from(_MODES)
intervals = st.integers(1, 48 * 60).map(lambda minutes: minutes * MINUTE)
graces = st.sampled_from([0, 1, MINUTE, HOUR])
schedules = st.sampled_from(["* * * * *", "0 * * * *", "30 2 * * *", "0 9 * * MON", "*/7 */3 * * *"])
zones = st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"])
instants = st.integers(NOON, NOON + 366 * 24 * HOUR).map(EpochMs)


def blank(mode: Mode = "recurring", **changes: Any) -> Heartbeat:  # Any: fields of a heartbeat
    """A heartbeat made at noon that waits for nothing yet."""
    made = Heartbeat(
        id="hb_1",
        project_id="prj_1",
        name="Nightly Export",
        slug="nightly-export",
        mode=mode,
        interval_ms=None if mode == "scheduled" else HOUR,
        schedule="30 2 * * *" if mode == "scheduled" else None,
        timezone="UTC",
        grace_ms=MINUTE,
        policy_id=None,
        own_channels=(),
        namespace=None,
        description=None,
        tags=(),
        metadata=None,
        is_sticky_pause=True,
        status="active",
        is_armed=False,
        anchor_at=NOON,
        last_checkin_at=None,
        checkin_count=0,
        next_deadline=None,
        fires_at=None,
        armed_at=None,
        check_at=None,
        incident_id=None,
        paused_at=None,
        created_at=NOON,
        updated_at=None,
    )
    return replace(made, **changes)


@st.composite
def heartbeats(draw: st.DrawFn) -> Heartbeat:
    mode = draw(modes)
    made = blank(
        mode,
        interval_ms=None if mode == "scheduled" else draw(intervals),
        schedule=draw(schedules) if mode == "scheduled" else None,
        timezone=draw(zones),
        grace_ms=draw(graces),
        is_sticky_pause=draw(st.booleans()),
    )
    return rules.armed(made, NOON, NOON) if draw(st.booleans()) else made


def test_deadlines_are_counted_by_hand() -> None:
    timing = Timing("recurring", 90 * MINUTE, None, "UTC", MINUTE)
    assert rules.next_deadline(timing, NOON) == 1_767_619_800_000  # 13:30
    timing = Timing("scheduled", None, "30 2 * * *", "UTC", MINUTE)
    assert rules.next_deadline(timing, NOON) == 1_767_666_600_000  # 02:30 of the day after
    assert rules.next_deadline(timing, EpochMs(1_767_666_600_000)) == 1_767_753_000_000  # strictly after
    assert rules.next_deadline(timing, EpochMs(1_767_666_599_999)) == 1_767_666_600_000


@given(heartbeats(), instants)
def test_a_deadline_lies_after_its_anchor(heartbeat: Heartbeat, anchor: EpochMs) -> None:
    assert rules.next_deadline(heartbeat.timing, anchor) > anchor


@given(heartbeats(), instants, instants)
def test_a_later_anchor_never_gives_an_earlier_deadline(heartbeat: Heartbeat, one: EpochMs, other: EpochMs) -> None:
    early, late = sorted((one, other))

    assert rules.next_deadline(heartbeat.timing, early) <= rules.next_deadline(heartbeat.timing, late)


@given(
    heartbeats(),
    instants,
    st.lists(st.integers(0, SET_BACK_MS), min_size=2, max_size=6),
    st.randoms(use_true_random=False),
)
def test_the_order_in_which_check_ins_commit_changes_no_deadline(
    heartbeat: Heartbeat, first: EpochMs, later: list[int], luck: Any
) -> None:
    # What arrived together: nothing takes longer than this from its arrival to its commit.
    stamps = [EpochMs(first + each) for each in later]

    def after_all(order: list[EpochMs]) -> Heartbeat:
        state = heartbeat
        for stamp in order:
            state = rules.after_check_in(state, healthy=True, stamp=stamp, metadata=None).heartbeat
        return state

    shuffled = luck.sample(stamps, len(stamps))
    ordered, mixed = after_all(sorted(stamps)), after_all(shuffled)

    # An un-armed one is armed by whichever came first, so only then may its anchor be that of the first to commit.
    assert (mixed.next_deadline, mixed.fires_at) == (ordered.next_deadline, ordered.fires_at)
    assert mixed.last_checkin_at == ordered.last_checkin_at == max(stamps)
    assert mixed.checkin_count == ordered.checkin_count


@pytest.mark.parametrize(
    ("name", "slug", "ping_id", "shown"),
    [
        (" Nightly\r\nexport ", "nightly", "866e95cf-0000", "Nightly export"),
        ("\n ", "nightly", "866e95cf-0000", "nightly"),
        ("", None, "866e95cf-0000", "check 866e95cf"),
        ("", None, None, "hb_1"),
    ],
)
def test_pages_call_every_heartbeat_something(name: str, slug: str | None, ping_id: str | None, shown: str) -> None:
    assert rules.called("hb_1", name, slug, ping_id) == shown


def test_a_check_in_after_the_clock_was_set_back_counts_from_the_new_time() -> None:
    ahead = EpochMs(NOON + 24 * HOUR)
    seen = rules.after_check_in(rules.armed(blank(), NOON, NOON), healthy=True, stamp=ahead, metadata=None).heartbeat
    back = EpochMs(NOON + MINUTE)

    after = rules.after_check_in(seen, healthy=True, stamp=back, metadata=None).heartbeat

    # When it was last heard of never moves back, when it is waited for does.
    assert (after.anchor_at, after.last_checkin_at, after.next_deadline) == (back, ahead, back + HOUR)
    assert after.check_at is not None
    assert after.fires_at is not None
    assert after.check_at <= after.fires_at


@given(heartbeats(), st.booleans(), instants)
def test_a_check_in_changes_nothing_of_what_a_person_said(heartbeat: Heartbeat, healthy: bool, stamp: EpochMs) -> None:
    after = rules.after_check_in(heartbeat, healthy=healthy, stamp=stamp, metadata=None).heartbeat

    for name in ("id", "name", "slug", "mode", "interval_ms", "schedule", "grace_ms", "tags", "metadata", "policy_id"):
        assert getattr(after, name) == getattr(heartbeat, name)


@given(heartbeats(), heartbeats(), st.integers(0, 400 * 24 * 60))
def test_an_edit_never_makes_a_heartbeat_fire(before: Heartbeat, wanted: Heartbeat, minutes: int) -> None:
    now = EpochMs(NOON + minutes * MINUTE)
    timing = ("mode", "interval_ms", "schedule", "timezone", "grace_ms")
    edited = replace(before, **{name: getattr(wanted, name) for name in timing})

    after = rules.after_edit(before, edited, now)

    assert after.status == "active"
    if before.timing == edited.timing:
        assert after == edited
    elif after.fires_at is not None:
        assert after.fires_at > now


@pytest.mark.parametrize("mode", ["recurring", "scheduled"])
def test_an_ordinary_check_in_keeps_the_bound_so_that_no_index_is_touched(mode: Mode) -> None:
    waiting = rules.armed(blank(mode), NOON, NOON)

    after = rules.after_check_in(waiting, healthy=True, stamp=EpochMs(NOON + 48 * HOUR), metadata=None).heartbeat

    assert after.check_at == waiting.check_at
    assert after.fires_at is not None
    assert waiting.fires_at is not None
    assert after.fires_at > waiting.fires_at


class Life(RuleBasedStateMachine):
    """One heartbeat through everything that can happen to it, compared with a model that a reader can follow."""

    heartbeat: Heartbeat
    now: EpochMs
    # The model: what the table of section 6 says of the status.
    status: str

    @initialize(made=heartbeats())
    def begin(self, made: Heartbeat) -> None:
        self.heartbeat, self.now, self.status = made, NOON, "active"

    @property
    def is_oneshot(self) -> bool:
        return self.heartbeat.mode == "oneshot"

    def is_over(self) -> bool:
        return self.status == "resolved" and self.is_oneshot

    @rule(minutes=st.integers(0, 3 * 24 * 60))
    def time_passes(self, minutes: int) -> None:
        """And the sweep looks: only what has reached its moment fires."""
        self.now = EpochMs(self.now + minutes * MINUTE)
        if self.heartbeat.fires_at is not None and self.heartbeat.fires_at <= self.now:
            assert self.heartbeat.check_at is not None
            assert self.heartbeat.check_at <= self.now, "the sweep would not look at it"
            self.heartbeat = replace(rules.firing(self.heartbeat), incident_id="inc_1")
            self.status = "firing"

    @rule(healthy=st.booleans(), age_ms=st.integers(0, 2 * HOUR))
    def check_in(self, healthy: bool, age_ms: int) -> None:
        before, stamp = self.heartbeat, EpochMs(max(NOON, self.now - age_ms))
        outcome = rules.after_check_in(before, healthy=healthy, stamp=stamp, metadata=None)
        self.heartbeat = outcome.heartbeat
        assert self.heartbeat.checkin_count == before.checkin_count + 1
        stays_paused = self.status == "paused" and (before.is_sticky_pause or before.is_suspended)
        if self.is_over() or stays_paused:
            assert (outcome.fires, outcome.recovers, outcome.resumes) == (False, False, False)
            return
        assert outcome.resumes is (self.status == "paused")
        assert outcome.recovers is (healthy and self.status == "firing")
        assert outcome.fires is (not healthy and self.status != "firing")
        if outcome.fires:
            self.heartbeat = replace(self.heartbeat, incident_id="inc_1")
        self.status = "firing" if not healthy else "resolved" if self.is_oneshot else "active"
        if healthy and not self.is_oneshot and before.next_deadline is not None and not outcome.resumes:
            assert self.heartbeat.next_deadline is not None
            was_set_back = before.anchor_at - stamp > SET_BACK_MS
            assert self.heartbeat.next_deadline >= before.next_deadline or was_set_back

    @rule()
    def ack(self) -> None:
        if self.status != "firing":
            with pytest.raises(StateRefused):
                rules.acked(self.heartbeat, self.now)
            return
        self.heartbeat, self.status = rules.acked(self.heartbeat, self.now), "resolved"
        assert (self.heartbeat.next_deadline is None) is self.is_oneshot

    @rule()
    def pause(self) -> None:
        if self.status == "paused" or self.is_over():
            with pytest.raises(StateRefused):
                rules.paused(self.heartbeat, self.now)
            return
        self.heartbeat, self.status = rules.paused(self.heartbeat, self.now), "paused"
        assert self.heartbeat.paused_at == self.now

    @rule()
    def suspend(self) -> None:
        if self.is_over():
            with pytest.raises(StateRefused):
                rules.suspended(self.heartbeat, self.now)
            return
        self.heartbeat, self.status = rules.suspended(self.heartbeat, self.now), "paused"
        assert self.heartbeat.is_suspended

    @rule(by_owner=st.booleans())
    def resume(self, by_owner: bool) -> None:
        if self.status != "paused" or (self.heartbeat.is_suspended and not by_owner):
            with pytest.raises(StateRefused):
                rules.resumed(self.heartbeat, self.now, by_owner=by_owner)
            return
        self.heartbeat, self.status = rules.resumed(self.heartbeat, self.now, by_owner=by_owner), "active"
        assert self.heartbeat.next_deadline == rules.next_deadline(self.heartbeat.timing, self.now)

    @rule(interval_ms=intervals, grace_ms=graces, mode=modes, schedule=schedules)
    @precondition(lambda self: self.heartbeat.status != "firing")
    def edit(self, interval_ms: int, grace_ms: int, mode: Mode, schedule: str) -> None:
        before = self.heartbeat
        wanted = replace(
            before,
            mode=mode,
            interval_ms=None if mode == "scheduled" else interval_ms,
            schedule=schedule if mode == "scheduled" else None,
            grace_ms=grace_ms,
        )
        was_over = self.is_over()
        self.heartbeat = rules.after_edit(before, wanted, self.now)
        if before.timing == wanted.timing:
            assert self.heartbeat == before
            return
        if was_over or (self.status == "resolved" and mode == "oneshot"):
            self.status = "active"
        if self.heartbeat.fires_at is not None:
            assert self.heartbeat.fires_at > self.now

    @invariant()
    def the_status_is_what_the_table_says(self) -> None:
        assert self.heartbeat.status == self.status

    @invariant()
    def the_bound_is_never_later_than_the_moment_of_firing(self) -> None:
        if self.heartbeat.fires_at is None:
            assert self.heartbeat.check_at is None
        else:
            assert self.heartbeat.check_at is not None
            assert self.heartbeat.check_at <= self.heartbeat.fires_at

    @invariant()
    def grace_lies_between_deadline_and_firing(self) -> None:
        if self.heartbeat.next_deadline is None:
            assert self.heartbeat.fires_at is None
        else:
            assert self.heartbeat.fires_at == self.heartbeat.next_deadline + self.heartbeat.grace_ms

    @invariant()
    def it_waits_exactly_when_it_is_watched(self) -> None:
        watched = self.status in {"active", "resolved"} and self.heartbeat.is_armed and not self.is_over()
        assert (self.heartbeat.fires_at is not None) is watched

    @invariant()
    def an_incident_is_named_only_while_firing(self) -> None:
        assert (self.heartbeat.incident_id is not None) is (self.status == "firing")
        assert (self.heartbeat.paused_at is not None) is (self.status == "paused")
        assert self.status == "paused" or not self.heartbeat.is_suspended

    @invariant()
    def the_database_would_not_be_asked_to_hold_a_half_set_heartbeat(self) -> None:
        waits = {self.heartbeat.next_deadline is None, self.heartbeat.fires_at is None, self.heartbeat.armed_at is None}
        assert len(waits) == 1


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


@given(
    mode=modes,
    interval=intervals,
    grace=graces,
    schedule=schedules,
    zone=zones,
    anchor=instants,
    later=st.integers(-SET_BACK_MS, 72 * HOUR),
)
def test_the_quick_way_of_an_ordinary_check_in_decides_as_the_general_rule_does(
    *, mode: Mode, interval: int, grace: int, schedule: str, zone: str, anchor: EpochMs, later: int
) -> None:
    is_scheduled = mode == "scheduled"
    definition = blank(
        mode,
        interval_ms=None if is_scheduled else interval,
        schedule=schedule if is_scheduled else None,
        timezone=zone,
        grace_ms=grace,
    )
    before = rules.armed(definition, anchor, anchor)
    stamp = EpochMs(anchor + later)

    general = rules.after_check_in(before, healthy=True, stamp=stamp, metadata=None).heartbeat
    waiting = rules.waiting(before)
    quick = None if waiting is None else rules.after_ordinary_check_in(waiting, stamp)

    assert (quick is None) == (mode == "oneshot")
    assert quick == (None if quick is None else rules.waiting(general))
    # What the quick way writes besides is the stamp itself.
    assert quick is None or general.armed_at == stamp


def test_a_check_in_that_would_move_the_bound_forward_is_not_an_ordinary_one() -> None:
    late_bound = replace(rules.armed(blank(), NOON, NOON), check_at=EpochMs(NOON + 3 * HOUR))
    waiting = rules.waiting(late_bound)

    assert waiting is not None
    assert rules.after_ordinary_check_in(waiting, EpochMs(NOON + MINUTE)) is None
