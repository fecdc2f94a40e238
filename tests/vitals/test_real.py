"""Traces of two real clips with a contact sensor: the goals of spec "Vitals", section 10.

The clips themselves are not ours to ship: `tests/data/vitals` has what was derived from them, which `make realdata`
writes anew. Two adults with light skin and 12 seconds each are a regression test, and no evidence of accuracy.
"""

import pytest

from lifesign.vitals.bench import bench, recorded_cases
from lifesign.vitals.signal.params import DEFAULTS, Params
from tests.vitals.realdata import DERIVED

_PARAMS = Params(window_s=DEFAULTS.min_window_s)


@pytest.mark.parametrize(("number", "most_bpm"), [(1, 2.0), (2, 1.5)])
def test_real_clips_are_measured_as_near_as_promised(number: int, most_bpm: float) -> None:
    case = list(recorded_cases(DERIVED))[number - 1]

    found = bench([case], ["pos"], _PARAMS)["pos"]

    assert found["windows"] >= 4
    assert found["kept"]["mae"] < most_bpm


def test_both_together_are_as_near_as_promised() -> None:
    found = bench(recorded_cases(DERIVED), ["pos"], _PARAMS)["pos"]

    assert found["kept"]["mae"] < 1.5
