"""Two real clips with a contact sensor, where somebody has put them: they are not ours to ship.

LIFESIGN_TEST_CLIPS names a folder with sample_video_1.mp4, sample_vitals_1.csv and the same of 2, as the source
distribution of the MIT-licensed package `vitallens` 0.1.2 has them under `examples/`. Two adults with light skin and 24
seconds each are a regression test, and no evidence of accuracy.
"""

import csv
import os
from pathlib import Path

import numpy as np
import pytest

from lifesign.vitals.bench import Case, bench, rate_of_sensor
from lifesign.vitals.signal.params import DEFAULTS, FloatArray, Params
from lifesign.vitals.video.analyze import read_faces
from lifesign.vitals.video.files import opened
from tests.vitals.derived import write_derived

_CLIPS = os.environ.get("LIFESIGN_TEST_CLIPS")

needs_clips = pytest.mark.skipif(
    _CLIPS is None,
    reason="LIFESIGN_TEST_CLIPS names no folder with the two real clips: accuracy on them is not checked",
)


def _sensor(path: Path, t_ms: FloatArray) -> FloatArray:
    """The contact sensor at the instants of the frames; without times of its own it spans the clip evenly."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    ppg = np.array([float(row["ppg"]) for row in rows])
    if len(ppg) == len(t_ms):
        return ppg
    spread: FloatArray = np.interp(np.linspace(0, 1, len(t_ms)), np.linspace(0, 1, len(ppg)), ppg)
    return spread


@needs_clips
@pytest.mark.parametrize(("number", "most_bpm"), [(1, 2.0), (2, 1.5)])
def test_real_clips_are_measured_as_near_as_promised(number: int, most_bpm: float, tmp_path: Path) -> None:
    folder = Path(str(_CLIPS))
    with opened(folder / f"sample_video_{number}.mp4") as video:
        samples = read_faces(video.frames())
    ppg = _sensor(folder / f"sample_vitals_{number}.csv", samples.t_ms)
    write_derived(tmp_path / f"clip_{number}.csv", samples, ppg)

    params = Params(window_s=DEFAULTS.min_window_s)
    found = bench([Case(samples, rate_of_sensor(samples.t_ms, ppg))], ["pos"], params)["pos"]

    assert found["kept"]["mae"] < most_bpm
