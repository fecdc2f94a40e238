"""Made-up faces: every number that a scene has does what it says, and the command passes on those that it offers."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lifesign.cli import main
from lifesign.vitals.signal.params import FloatArray
from lifesign.vitals.signal.synth import Scene, Skin, Synthetic, noise_trace, synthetic

# Without noise, so that what is left is what a number did.
_CLEAN = Scene(noise=0.0)
_LIGHT = (190.0, 145.0, 125.0)


def made(**changed: Any) -> Synthetic:
    return synthetic(replace(_CLEAN, **changed))


def intervals_s(of: Synthetic) -> FloatArray:
    return np.diff(of.beats_s)


def strongest_hz(values: FloatArray, fps: float = 30.0) -> float:
    power = np.abs(np.fft.rfft(values - values.mean(), 64 * len(values)))
    return float(power.argmax()) * fps / (64 * len(values))


def amplitude_at(values: FloatArray, hz: float, fps: float = 30.0) -> float:
    """Of the sine of one frequency, of which there are whole cycles."""
    at = np.arange(len(values)) / fps
    return float(2 * np.abs(np.mean((values - values.mean()) * np.exp(-2j * np.pi * hz * at))))


# The pulse ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("bpm", [45.0, 72.0, 150.0])
def test_a_pulse_has_its_rate(bpm: float) -> None:
    found = made(bpm=bpm)

    assert intervals_s(found) == pytest.approx(60 / bpm, abs=1e-9)
    assert strongest_hz(found.rgb[:, 0, 1]) == pytest.approx(bpm / 60, abs=0.01)


def test_a_pulse_moves_each_channel_by_its_share_and_has_a_second_harmonic() -> None:
    rgb = made(seconds=10, bpm=60).rgb[:, 0]

    for channel, share in enumerate((0.002, 0.006, 0.0035)):
        base = _LIGHT[channel]
        assert amplitude_at(rgb[:, channel], 1.0) == pytest.approx(share * base, rel=1e-3)
        assert amplitude_at(rgb[:, channel], 2.0) == pytest.approx(0.3 * share * base, rel=1e-3)


def test_less_light_comes_back_when_there_is_more_blood() -> None:
    found = made(bpm=60, seconds=10)

    at_beats = np.interp(found.beats_s, found.t_ms / 1000, found.rgb[:, 0, 1])
    # The wave is 1 + 0.3 there.
    assert at_beats[1:-1] == pytest.approx(145 * (1 - 1.3 * 0.006), abs=0.02)


def test_each_region_sees_it_a_little_weaker_and_later() -> None:
    rgb = made(bpm=60, seconds=10, rois=4).rgb
    assert rgb.shape == (300, 4, 3)

    phases = [np.angle(np.mean(rgb[:, roi, 1] * np.exp(-2j * np.pi * np.arange(300) / 30))) for roi in range(4)]
    strengths = [amplitude_at(rgb[:, roi, 1], 1.0) / (145 * 0.006) for roi in range(4)]
    assert strengths == pytest.approx([1.0, 0.9, 0.85, 1.0], rel=1e-3)
    delays_ms = [(phases[0] - each) / (2 * np.pi) * 1000 % 1000 for each in phases]
    assert delays_ms == pytest.approx([0, 8, 12, 0], abs=0.1)


def test_a_pulse_may_be_weaker_or_away() -> None:
    half = amplitude_at(made(pulse=0.5, bpm=60, seconds=10).rgb[:, 0, 1], 1.0)

    assert half == pytest.approx(0.5 * 145 * 0.006, rel=1e-3)
    assert made(pulse=0.0).rgb == pytest.approx(np.broadcast_to(_LIGHT, (900, 3, 3)))


def test_a_heart_may_speed_up_and_may_jump() -> None:
    chirp, step = intervals_s(made(bpm=60, bpm_end=90, seconds=60)), made(bpm=65, bpm_step=100, seconds=60)

    assert (60 / chirp[0], 60 / chirp[-1]) == (pytest.approx(60, abs=1), pytest.approx(90, abs=1))
    assert (np.diff(chirp) < 0).all()
    rates = 60 / intervals_s(step)
    assert rates[step.beats_s[:-1] < 29.9] == pytest.approx(65)
    assert rates[step.beats_s[:-1] >= 30] == pytest.approx(100)


def test_intervals_may_vary_and_never_stop() -> None:
    varied = intervals_s(made(interval_sd_ms=40, seconds=300))

    assert varied.std() * 1000 == pytest.approx(40, rel=0.15)
    assert intervals_s(made(interval_sd_ms=2000, seconds=60)).min() >= 0.2 - 1e-9


def test_breath_moves_the_light_and_the_beats() -> None:
    found = made(breath_per_minute=15, seconds=60, pulse=0.0)

    assert strongest_hz(found.rgb[:, 0, 1]) == pytest.approx(0.25, abs=0.005)
    assert amplitude_at(found.rgb[:, 0, 1], 0.25) == pytest.approx(145 * 0.004, rel=1e-3)
    breathed = intervals_s(found)
    assert np.ptp(breathed) == pytest.approx(2 * 0.03 * 60 / 72, rel=0.05)


# Time ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("seconds", "fps", "count"), [(30.0, 30.0, 900), (1.0, 5.0, 5), (12.0, 24.0, 288)])
def test_frames_come_as_often_and_for_as_long_as_is_said(seconds: float, fps: float, count: int) -> None:
    found = made(seconds=seconds, fps=fps)

    assert found.t_ms == pytest.approx(np.arange(count) * 1000 / fps)
    assert found.rgb.shape == (count, 3, 3)


def test_frames_may_be_missing_but_not_the_first_and_the_last() -> None:
    found = made(drop=0.2, seconds=60)

    assert len(found.t_ms) == pytest.approx(0.8 * 1800, rel=0.05)
    assert set(found.t_ms) < set(made(seconds=60).t_ms)
    assert (found.t_ms[0], found.t_ms[-1]) == (0, pytest.approx(1799 / 30 * 1000))


def test_times_may_be_uneven_and_still_go_on() -> None:
    found = made(jitter_ms=8, seconds=60)

    assert (found.t_ms - made(seconds=60).t_ms).std() == pytest.approx(8, rel=0.1)
    assert (np.diff(made(jitter_ms=200, seconds=60).t_ms) > 0).all()


# What spoils it -----------------------------------------------------------------------------------------------------
def test_noise_is_as_strong_as_is_said_and_its_own_in_every_number() -> None:
    found = made(noise=0.7, pulse=0.0, seconds=60).rgb - np.array(_LIGHT)

    assert found.std() == pytest.approx(0.7, rel=0.02)
    flat = found.reshape(len(found), 9)
    assert np.abs(np.corrcoef(flat.T) - np.eye(9)).max() < 0.1


def test_flicker_changes_all_colours_alike() -> None:
    rgb = made(flicker=0.02, flicker_hz=1.5, pulse=0.0, seconds=10).rgb

    shares = rgb / np.array(_LIGHT)
    assert np.ptp(shares, axis=(1, 2)).max() < 1e-9
    assert amplitude_at(shares[:, 0, 0], 1.5) == pytest.approx(0.02, rel=1e-3)


def test_motion_changes_the_brightness_in_all_regions_alike() -> None:
    shares = made(motion=0.05, pulse=0.0).rgb / np.array(_LIGHT)

    assert np.ptp(shares, axis=(1, 2)).max() < 1e-9
    # A walk of unit size, and jerks of half of it.
    assert 0.04 < np.abs(shares - 1).max() <= 0.075


@pytest.mark.parametrize(("skin", "rgb"), [("light", _LIGHT), ("medium", (140, 100, 80)), ("dark", (70, 45, 35))])
def test_skin_has_its_colour_and_light_its_strength(skin: Skin, rgb: tuple[float, float, float]) -> None:
    for light in (1.0, 0.25):
        assert made(skin=skin, light=light, pulse=0.0).rgb[0, 0] == pytest.approx(np.array(rgb) * light)


def test_a_camera_knows_no_more_than_255_and_no_less_than_nothing() -> None:
    found = made(noise=150.0, seconds=10).rgb

    assert (found.min(), found.max()) == (0.0, 255.0)


def test_the_same_scene_is_the_same_and_another_seed_another() -> None:
    one, same, other = (made(noise=0.3, jitter_ms=3, drop=0.1, seed=seed) for seed in (5, 5, 6))

    assert (one.rgb.tobytes(), one.t_ms.tobytes()) == (same.rgb.tobytes(), same.t_ms.tobytes())
    assert one.rgb.shape != other.rgb.shape or not np.array_equal(one.rgb, other.rgb)


def test_noise_alone_has_no_pulse() -> None:
    found = noise_trace(10, 20, 3, size=2.0)

    assert found.rgb.shape == (200, 3, 3)
    assert (found.rgb - np.array(_LIGHT)).std() == pytest.approx(2.0, rel=0.05)


# The command --------------------------------------------------------------------------------------------------------
def written(path: Path, *options: str) -> dict[str, Any]:
    assert main(["vitals", "synth", str(path), *options]) == 0
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_the_command_passes_on_what_it_is_told(tmp_path: Path) -> None:
    plain = written(tmp_path / "plain.json")
    told = ("--bpm", "90", "--seconds", "12", "--fps", "20", "--noise", "0.5", "--skin", "dark", "--seed", "7")
    found = written(tmp_path / "told.json", *told)

    assert (plain["fps"], plain["rois"]) == (30, ["forehead", "cheek_l", "cheek_r"])
    usual = synthetic(Scene(bpm=72, seconds=30, fps=30, noise=0.25, skin="light", seed=1))
    assert np.array(plain["rgb"]) == pytest.approx(usual.rgb, abs=5.1e-5)
    assert plain["t_ms"] == pytest.approx(usual.t_ms.tolist(), abs=5.1e-4)
    wanted = synthetic(Scene(bpm=90, seconds=12, fps=20, noise=0.5, skin="dark", seed=7))
    assert (found["fps"], len(found["rgb"])) == (20, 240)
    assert np.array(found["rgb"]) == pytest.approx(wanted.rgb, abs=5.1e-5)


@pytest.mark.parametrize(
    "options",
    [
        ["--bpm", "29"],
        ["--bpm", "241"],
        ["--bpm", "nan"],
        ["--seconds", "0.5"],
        ["--seconds", "301"],
        ["--seconds", "nan"],
        ["--fps", "4"],
        ["--fps", "121"],
        ["--fps", "nan"],
        ["--noise", "-1"],
        ["--noise", "101"],
        ["--noise", "nan"],
        ["--seed", "-1"],
        ["--seed", "x"],
        ["--skin", "green"],
    ],
)
def test_what_no_scene_has_is_wrong_usage_and_writes_nothing(
    tmp_path: Path, options: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "out.json"

    assert main(["vitals", "synth", str(path), *options]) == 2
    assert options[0] in capfd.readouterr().err
    assert not path.exists()


def test_a_folder_that_is_not_there_is_told(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["vitals", "synth", str(tmp_path / "no" / "out.json")]) == 1
    assert capfd.readouterr().err.startswith(f"lifesign: cannot write {tmp_path}/no/out.json: ")
