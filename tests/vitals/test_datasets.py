"""Data sets of others, as `lifesign vitals bench` reads them: small ones of the same shapes, made here."""

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from lifesign.cli import main
from lifesign.vitals.bench import rate_of_sensor
from lifesign.vitals.rules import InvalidTraces
from lifesign.vitals.video.datasets import LAYOUTS, cases_in
from tests.vitals.clips import pulsing, write_clip

_FPS = 10
_BEGIN_NS = 1_392_643_993_642_815_000


def _ubfc(folder: Path, *, seconds: int, bpm: float, sensor_bpm: float, name: str = "subject1") -> Path:
    subject = folder / name
    subject.mkdir()
    times = np.arange(seconds * _FPS) / _FPS
    write_clip(subject / "vid.avi", pulsing(times, bpm=bpm), times)
    sensor_s = np.arange(seconds * 60) / 60
    lines = [np.cos(2 * np.pi * sensor_bpm / 60 * sensor_s), np.full(len(sensor_s), sensor_bpm), sensor_s]
    (subject / "ground_truth.txt").write_text("\n".join(" ".join(f"{each: .7e}" for each in line) for line in lines))
    return subject


def _pure(folder: Path, *, silent_ms: int = 0) -> Path:
    inside = folder / "01-01" / "01-01"
    inside.mkdir(parents=True)
    for index, image in enumerate(pulsing(np.arange(20) / _FPS)):
        at_ns = _BEGIN_NS + index * 100_000_000
        cv2.imwrite(str(inside / f"Image{at_ns}.png"), np.ascontiguousarray(image[..., ::-1]))
    told = [
        {"Timestamp": _BEGIN_NS + ms * 1_000_000, "Value": {"pulseRate": 72, "waveform": ms, "o2saturation": 98}}
        for ms in range(silent_ms, 1800, 16)
    ]
    beside = folder / "01-01" / "01-01.json"
    beside.write_text(json.dumps({"/FullPackage": told, "/Image": []}))
    return beside


def test_films_are_measured_against_their_sensor(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    _ubfc(tmp_path, seconds=9, bpm=72, sensor_bpm=75)

    assert main(["vitals", "bench", str(tmp_path), "--layout", "ubfc", "--window", "8", "--json"]) == 0

    found = json.loads(capfd.readouterr().out)["recorded"]["pos"]
    assert (found["windows"], found["kept_pct"]) == (2, 100.0)
    assert found["kept"]["mae"] == pytest.approx(3, abs=0.6)


def test_images_and_a_sensor_that_began_later_have_one_clock(tmp_path: Path) -> None:
    _pure(tmp_path, silent_ms=480)

    [(samples, ppg)] = LAYOUTS["pure"](tmp_path)

    assert samples.t_ms == pytest.approx(np.arange(20) * 100)
    assert samples.face is not None
    assert samples.face.min() > 0.9
    # What the sensor says here is its own time; before it began and after it ended it said nothing.
    assert np.isnan(ppg).tolist() == [True] * 5 + [False] * 13 + [True] * 2
    assert ppg[5:18] == pytest.approx(samples.t_ms[5:18])


def test_a_sensor_without_times_spans_its_film(tmp_path: Path) -> None:
    times = np.arange(20) / _FPS
    write_clip(tmp_path / "sample_video_1.mp4", pulsing(times), times, codec="libx264")
    (tmp_path / "sample_vitals_1.csv").write_text("time,ppg\n" + "".join(f"0,{each}\n" for each in range(39)))

    [(samples, ppg)] = LAYOUTS["vitallens"](tmp_path)

    assert len(samples.t_ms) == 20
    assert ppg == pytest.approx(np.arange(20) * 2)


def test_a_window_in_which_the_sensor_was_silent_has_no_truth() -> None:
    t_ms = np.arange(600) * 1000 / 30
    ppg = np.cos(2 * np.pi * 1.2 * t_ms / 1000)
    ppg[:150] = np.nan

    truth = rate_of_sensor(t_ms, ppg)

    assert truth(10.0, 8.0) is None
    assert truth(14.0, 8.0) == pytest.approx(72, abs=0.3)


# What is wrong with them --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_folder_of_something_else_is_told(tmp_path: Path, layout: str) -> None:
    with pytest.raises(InvalidTraces, match=f"has no films as {layout} has them$"):
        list(cases_in(tmp_path, layout))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("1 2 3\n4 5 6\n", "ground_truth.txt: three lines of as many numbers are needed"),
        ("1 2 3\n4 5 6\n7 8\n", "ground_truth.txt: three lines of as many numbers are needed"),
        ("a b\n1 2\n3 4\n", "ground_truth.txt: could not convert string"),
        ("1 2\n1 2\n3 4\n", "vid.avi: .*no such file"),
    ],
)
def test_a_sensor_that_says_nonsense_is_told_with_its_file(tmp_path: Path, content: str, says: str) -> None:
    (tmp_path / "subject1").mkdir()
    (tmp_path / "subject1" / "ground_truth.txt").write_text(content)

    with pytest.raises(InvalidTraces, match=says):
        list(cases_in(tmp_path, "ubfc"))


@pytest.mark.parametrize(
    ("told", "says"),
    [
        ({}, "01-01.json: /FullPackage is missing"),
        ({"/FullPackage": [{"Timestamp": 1}]}, "01-01.json: Value is missing"),
        ({"/FullPackage": []}, "01-01.json: no images or nothing of a sensor"),
        ([], "01-01.json: "),
        (None, "01-01.json: "),
    ],
)
def test_a_list_that_lacks_something_is_told_with_its_file(tmp_path: Path, told: Any, says: str) -> None:
    (tmp_path / "01-01").mkdir()
    (tmp_path / "01-01" / "01-01.json").write_text("{" if told is None else json.dumps(told))

    with pytest.raises(InvalidTraces, match=says):
        list(cases_in(tmp_path, "pure"))


def test_a_film_without_its_sensor_is_told(tmp_path: Path) -> None:
    (tmp_path / "sample_video_1.mp4").touch()

    with pytest.raises(InvalidTraces, match=r"^cannot read .*sample_vitals_1\.csv: No such file"):
        list(cases_in(tmp_path, "vitallens"))
    (tmp_path / "sample_vitals_1.csv").write_text("time\n1\n")
    with pytest.raises(InvalidTraces, match=r"sample_vitals_1\.csv: ppg is missing$"):
        list(cases_in(tmp_path, "vitallens"))


def test_the_command_says_which_layouts_there_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["vitals", "bench", str(tmp_path), "--layout", "else"]) == 2
    assert "--layout must be synthetic, traces, vitallens, ubfc or pure" in capfd.readouterr().err
    assert main(["vitals", "bench", "--layout", "pure"]) == 2
    assert main(["vitals", "bench", str(tmp_path), "--layout", "pure"]) == 1
    assert "has no films as pure has them" in capfd.readouterr().err
