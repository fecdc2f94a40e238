"""The benchmark counts right, and what it measures on made-up faces is as good as promised."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from lifesign.cli import main
from lifesign.vitals.bench import (
    CLEAN,
    DEGRADED,
    Case,
    bench,
    missed_goals,
    rate_of_sensor,
    recorded_cases,
    synthetic_cases,
)
from lifesign.vitals.rules import InvalidTraces
from lifesign.vitals.signal.params import DEFAULTS
from lifesign.vitals.signal.synth import Scene, synthetic
from lifesign.vitals.signal.traces import Samples
from tests.vitals.derived import write_derived


def test_no_window_that_is_kept_is_far_off() -> None:
    found = bench(synthetic_cases(DEGRADED[::2]), ["pos"], DEFAULTS)["pos"]

    assert found["windows"] > 300
    assert 30 < found["kept_pct"] < 95
    assert found["kept"]["over_5_pct"] == 0.0
    # Without the gate some would be: the scenes are bad enough to say something.
    assert found["ungated"]["over_5_pct"] > 3


def test_clean_pulses_are_all_kept_and_near() -> None:
    found = bench(synthetic_cases(CLEAN), ["pos"], DEFAULTS)["pos"]

    assert found["kept_pct"] == 100.0
    assert found["kept"]["mae"] < 0.5


def _recorded(folder: Path, *, bpm: float, sensor_bpm: float) -> None:
    made = synthetic(Scene(bpm=bpm, seconds=20))
    lines = ["t_ms,a_r,a_g,a_b,b_r,b_g,b_b,ppg"]
    for t_ms, rgb in zip(made.t_ms, made.rgb, strict=True):
        ppg = np.cos(2 * np.pi * sensor_bpm / 60 * t_ms / 1000)
        lines.append(",".join(map(str, [t_ms, *rgb[0], *rgb[1], ppg])))
    (folder / "trace.csv").write_text("\n".join(lines) + "\n")


def test_recorded_traces_are_measured_against_their_sensor(tmp_path: Path) -> None:
    _recorded(tmp_path, bpm=70, sensor_bpm=73)

    found = bench(recorded_cases(tmp_path), ["pos"], replace(DEFAULTS, window_s=8.0))["pos"]

    assert found["windows"] >= 12
    assert found["kept"]["mae"] == pytest.approx(3, abs=0.3)


def test_a_folder_without_traces_is_told(tmp_path: Path) -> None:
    with pytest.raises(InvalidTraces, match=r"has no \.csv files"):
        list(recorded_cases(tmp_path))
    (tmp_path / "trace.csv").write_text("t_ms,r,g,b\n" + "".join(f"{at},1,1,1\n" for at in range(9)))
    with pytest.raises(InvalidTraces, match=r"^trace\.csv: the column ppg"):
        list(recorded_cases(tmp_path))


def test_missed_goals_are_named() -> None:
    good = {"kept": {"mae": 0.2, "over_5_pct": 0.0}}
    report = {
        "clean": {"pos": good},
        "degraded": {"pos": {"kept": {"mae": 0.2, "over_5_pct": 0.5}}},
        "false_accepts": {"pos": {"traces": 200, "accepted": 3}},
        "speed": {"trace_60s_ms": 151, "pos_30s_ms": 1, "stream_update_ms": 1},
    }

    assert [each.partition(":")[0] for each in missed_goals(report, "pos")] == ["degraded pulses", "noise", "speed"]


def test_the_command_prints_tables_and_json(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    _recorded(tmp_path, bpm=70, sensor_bpm=70)

    assert main(["vitals", "bench", str(tmp_path), "--layout", "traces", "--window", "8"]) == 0
    assert capfdbinary.readouterr().out.decode().splitlines()[1].split()[:3] == ["method", "windows", "kept"]
    assert main(["vitals", "bench", str(tmp_path), "--layout", "traces", "--json", "--methods", "pos,green"]) == 0
    assert set(json.loads(capfdbinary.readouterr().out)["recorded"]) == {"pos", "green"}
    assert main(["vitals", "bench", str(tmp_path)]) == 2
    assert main(["vitals", "bench", "--layout", "else"]) == 2
    assert main(["vitals", "bench", str(tmp_path), "--layout", "traces", "--methods", "x"]) == 1


def test_traces_that_are_kept_of_a_clip_say_the_same_as_the_clip(tmp_path: Path) -> None:
    made = synthetic(Scene(bpm=70, seconds=20))
    rgb = made.rgb.copy()
    rgb[100:120, 1] = np.nan
    samples = Samples(made.t_ms, rgb, face=np.full(len(rgb), 0.9))
    ppg = np.cos(2 * np.pi * 70 / 60 * made.t_ms / 1000)
    write_derived(tmp_path / "clip.csv", samples, ppg)

    kept = bench(recorded_cases(tmp_path), ["pos"], DEFAULTS)
    direct = bench([Case(samples, rate_of_sensor(samples.t_ms, ppg))], ["pos"], DEFAULTS)

    assert kept == direct
    assert kept["pos"]["kept"]["mae"] < 0.5
