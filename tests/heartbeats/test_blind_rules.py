"""Which heartbeats are waited for after a time in which nobody listened, and for how long."""

import pytest

from lifesign.clock import EpochMs
from lifesign.heartbeats.rules import Blindness, held_until, was_held
from tests.heartbeats.test_rules import NOON, blank

S = 1000
# Nobody listened from 30 s to 60 s after noon.
BLIND = Blindness(EpochMs(NOON + 30 * S), EpochMs(NOON + 60 * S), 10 * S, 120 * S)


@pytest.mark.parametrize(("grace_s", "hold_s"), [(0, 10), (10, 10), (45, 45), (120, 120), (3600, 120)])
def test_the_hold_is_the_grace_within_its_limits(grace_s: int, hold_s: int) -> None:
    due_in_it = blank(grace_ms=grace_s * S, armed_at=NOON, fires_at=EpochMs(NOON + 40 * S))

    assert held_until(due_in_it, BLIND) == NOON + 60 * S + hold_s * S


@pytest.mark.parametrize(
    ("armed_s", "fires_s", "is_held"),
    [
        (0, 29.999, False),  # due while somebody listened
        (0, 30, True),
        (0, 69.999, True),  # had less than its hold to be heard
        (0, 70, False),  # the end of the hold itself: what was moved is not moved again
        (59.999, 65, True),
        (60, 65, False),  # checked in since
    ],
)
def test_only_what_nobody_could_hear_is_held(armed_s: float, fires_s: float, *, is_held: bool) -> None:
    heartbeat = blank(
        grace_ms=5 * S, armed_at=EpochMs(NOON + round(armed_s * S)), fires_at=EpochMs(NOON + round(fires_s * S))
    )

    assert held_until(heartbeat, BLIND) == (NOON + 70 * S if is_held else None)


@pytest.mark.parametrize(("armed_s", "fires_s", "held"), [(0, 70, True), (0, 71, False), (60, 70, False)])
def test_a_firing_at_the_end_of_a_hold_is_known_as_one(armed_s: int, fires_s: int, *, held: bool) -> None:
    heartbeat = blank(grace_ms=5 * S, armed_at=EpochMs(NOON + armed_s * S), fires_at=EpochMs(NOON + fires_s * S))

    assert was_held(heartbeat, BLIND) is held
