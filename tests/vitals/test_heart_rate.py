"""The heart rate of made-up recordings: found when it is there, refused when it is not."""

import json
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lifesign.vitals import Params, Stream, analyze_traces
from lifesign.vitals.signal.params import DISCLAIMER, METHODS, REASONS, UNITS
from lifesign.vitals.signal.report import Analysis
from lifesign.vitals.signal.synth import SKINS, Scene, noise_trace, synthetic


def analysed(scene: Scene, **options: Any) -> Analysis:
    made = synthetic(scene)
    return analyze_traces(made.rgb, made.t_ms, **options)


def vital(analysis: Analysis, name: str = "heart_rate") -> dict[str, Any]:
    found: dict[str, Any] = analysis.to_dict()["vitals"][name]
    return found


def measured(scene: Scene, **options: Any) -> float:
    value = vital(analysed(scene, **options))["value"]
    assert value is not None
    return float(value)


@pytest.mark.parametrize(
    ("bpm", "within"), [(45, 1.0), (60, 0.5), (72, 0.5), (90, 0.5), (120, 0.5), (150, 1.0), (170, 1.0)]
)
def test_a_steady_pulse_is_measured(bpm: float, within: float) -> None:
    assert measured(Scene(bpm=bpm, seconds=20)) == pytest.approx(bpm, abs=within)


def test_exercise_reaches_faster_hearts() -> None:
    assert measured(Scene(bpm=200, seconds=20), mode="exercise") == pytest.approx(200, abs=1)


@settings(max_examples=25, deadline=None)
@given(
    bpm=st.floats(50, 150),
    fps=st.sampled_from([10.0, 15.0, 24.0, 30.0, 60.0]),
    skin=st.sampled_from(SKINS),
    noise=st.floats(0.05, 3.0),
    drop=st.floats(0, 0.35),
    jitter_ms=st.floats(0, 12),
    motion=st.floats(0, 0.05),
    flicker=st.floats(0, 0.02),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_given_is_right_however_bad_the_recording(seed: int, **spoiled: Any) -> None:
    analysis = analysed(Scene(seconds=16, seed=seed, **spoiled))

    given_values = [each["heart_rate"] for each in analysis.to_dict()["series"] if each["heart_rate"] is not None]
    assert [each for each in given_values if abs(each - spoiled["bpm"]) > 5] == []
    if analysis.heart_rate is not None:
        assert analysis.heart_rate == pytest.approx(spoiled["bpm"], abs=5)


@pytest.mark.parametrize(("fps", "within"), [(8.0, 1.5), (10.0, 1.5), (15.0, 1.0), (24.0, 0.5), (60.0, 0.5)])
def test_slower_and_faster_cameras_do(fps: float, within: float) -> None:
    assert measured(Scene(fps=fps, seconds=20)) == pytest.approx(72, abs=within)


def test_five_frames_a_second_are_refused() -> None:
    analysis = analysed(Scene(fps=5, seconds=20))

    assert {name: vital(analysis, name)["reason"] for name in ("heart_rate", "rmssd", "spo2")} == {
        "heart_rate": "frame_rate",
        "rmssd": "frame_rate",
        "spo2": "not_calibrated",
    }


@pytest.mark.parametrize("method", METHODS)
def test_every_method_reads_a_clear_pulse(method: str) -> None:
    assert measured(Scene(bpm=66, seconds=15), method=method) == pytest.approx(66, abs=0.5)


def test_dropped_frames_with_true_times_do_no_harm() -> None:
    analysis = analysed(Scene(drop=0.2))

    assert vital(analysis)["value"] == pytest.approx(72, abs=0.5)
    assert analysis.to_dict()["warnings"] == ["dropped_frames", "face_not_reported"]
    assert analysis.to_dict()["quality"]["frame_loss"] == pytest.approx(0.2, abs=0.03)


def test_times_win_over_a_rate_that_lies() -> None:
    analysis = analysed(Scene(drop=0.2), fps=25)

    assert vital(analysis)["value"] == pytest.approx(72, abs=0.5)
    assert "fps_mismatch" in analysis.to_dict()["warnings"]


def test_two_hundred_traces_of_noise_pass_twice_at_most() -> None:
    passed = [seed for seed in range(200) if analysed_noise(seed).heart_rate is not None]

    assert len(passed) <= 2


def analysed_noise(seed: int) -> Analysis:
    made = noise_trace(10, 30, seed)
    return analyze_traces(made.rgb, made.t_ms)


def test_noise_that_all_regions_share_does_not_pass_either() -> None:
    passed = 0
    for seed in range(100):
        common = np.random.default_rng(seed).normal(0, 1, (300, 1, 3))
        passed += analyze_traces(np.repeat(140 + common, 3, axis=1), fps=30).heart_rate is not None

    assert passed <= 1


def test_a_constant_trace_has_no_value_and_makes_no_noise() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        analysis = analyze_traces(np.full((600, 3, 3), 100.0), fps=30)

    assert {vital(analysis, name)["value"] for name in UNITS} == {None}
    assert {vital(analysis, name)["reason"] for name in UNITS} <= set(REASONS)


def test_flicker_of_the_light_is_no_heart() -> None:
    scene = Scene(flicker=0.02, flicker_hz=1.9)

    assert measured(scene) == pytest.approx(72, abs=1)
    green = analysed(scene, method="green")
    assert (green.heart_rate, green.reason) == (None, "flicker")


def test_flicker_alone_is_refused_by_every_method() -> None:
    for method in METHODS:
        assert analysed(Scene(flicker=0.02, pulse=0), method=method).heart_rate is None


def test_a_heart_that_speeds_up_is_followed() -> None:
    series = analysed(Scene(bpm=60, bpm_end=90, seconds=60)).to_dict()["series"]

    behind = [each["heart_rate"] - (60 + 30 * each["t_ms"] / 60_000) for each in series if each["t_ms"] > 12_000]
    assert len(behind) > 45
    assert max(map(abs, behind)) < 3


def test_a_heart_that_jumps_is_found_again_within_twelve_seconds() -> None:
    series = analysed(Scene(bpm=65, bpm_step=100, seconds=60)).to_dict()["series"]

    settled = [each["heart_rate"] for each in series if each["t_ms"] >= 42_000]
    assert settled
    assert settled == pytest.approx([100] * len(settled), abs=1)


# Refusals -----------------------------------------------------------------------------------------------------------
def test_less_than_eight_seconds_are_too_short() -> None:
    analysis = analysed(Scene(seconds=6))

    assert (analysis.heart_rate, analysis.reason) == (None, "too_short")
    assert analysis.to_dict()["series"] == []


def test_nine_seconds_give_a_provisional_value() -> None:
    analysis = analysed(Scene(seconds=9.3))

    assert analysis.heart_rate == pytest.approx(72, abs=1.5)
    assert "provisional" in analysis.to_dict()["warnings"]
    assert {each["provisional"] for each in analysis.to_dict()["series"]} == {True}


def test_twelve_seconds_say_nothing_of_variability() -> None:
    analysis = analysed(Scene(seconds=12))

    assert analysis.heart_rate == pytest.approx(72, abs=0.5)
    assert {vital(analysis, name)["reason"] for name in ("rmssd", "sdnn", "lf_hf", "stress_index")} == {"too_short"}


def test_holes_leave_no_window() -> None:
    made = synthetic(Scene(seconds=30))
    kept = (made.t_ms % 6000) > 600

    analysis = analyze_traces(made.rgb[kept], made.t_ms[kept])

    assert (analysis.heart_rate, analysis.reason) == (None, "gap")


def test_no_window_spans_a_hole() -> None:
    made = synthetic(Scene(seconds=40))
    kept = (made.t_ms < 15_000) | (made.t_ms > 16_000)

    series = analyze_traces(made.rgb[kept], made.t_ms[kept]).to_dict()["series"]

    given_at = [each["t_ms"] for each in series if each["heart_rate"] is not None]
    assert max(t for t in given_at if t < 20_000) == 15_000
    assert min(t for t in given_at if t > 16_000) == 24_000


def test_frames_without_a_face_are_a_hole() -> None:
    made = synthetic(Scene(seconds=20))
    face = np.where(made.t_ms % 7000 < 1000, 0.2, 0.95)

    analysis = analyze_traces(made.rgb, made.t_ms, face=face)

    assert (analysis.heart_rate, analysis.reason) == (None, "no_face")
    assert "face_not_reported" not in analysis.to_dict()["warnings"]


@pytest.mark.parametrize(
    ("scene", "reason"),
    [
        (Scene(light=0.05), "low_light"),
        (Scene(noise=200), "overexposed"),
        (Scene(noise=20), "low_snr"),
        (Scene(pulse=0), "low_snr"),
    ],
)
def test_a_refusal_says_why(scene: Scene, reason: str) -> None:
    analysis = analysed(replace(scene, seconds=15))

    assert vital(analysis) == {
        "value": None,
        "unit": "bpm",
        "confidence": 0.0,
        "reason": reason,
        "window_s": 15.0,
        "uncertainty": None,
    }


def test_a_face_that_moves_is_refused_though_its_pulse_can_be_seen() -> None:
    made = synthetic(Scene(seconds=15))
    still = np.column_stack([320 + 0 * made.t_ms, 240 + 0 * made.t_ms, 180 + 0 * made.t_ms])
    moving = still + np.column_stack([made.t_ms * 0.05, 0 * made.t_ms, 0 * made.t_ms])

    assert analyze_traces(made.rgb, made.t_ms, box=still).heart_rate is not None
    assert analyze_traces(made.rgb, made.t_ms, box=moving).reason == "motion"


def test_a_face_that_keeps_still_may_be_found_a_pixel_beside_where_it_was_and_one_that_shakes_may_not() -> None:
    made = synthetic(Scene(seconds=15))
    uncertain = np.random.default_rng(3).normal(0, 1.2, (len(made.t_ms), 2))
    shaking = np.column_stack([20 * np.sin(2 * np.pi * 2 * made.t_ms / 1000), 0 * made.t_ms])
    around = np.column_stack([320 + 0 * made.t_ms, 240 + 0 * made.t_ms])
    wide = np.full((len(made.t_ms), 1), 220.0)

    still = analyze_traces(made.rgb, made.t_ms, box=np.hstack([around + uncertain, wide]))

    assert vital(still)["value"] == pytest.approx(72, abs=0.5)
    assert still.to_dict()["quality"]["motion"] < 0.1
    assert analyze_traces(made.rgb, made.t_ms, box=np.hstack([around + shaking, wide])).reason == "motion"


def test_light_and_motion_come_in_the_order_of_the_table() -> None:
    made = synthetic(Scene(seconds=15, light=0.05))
    box = np.column_stack([made.t_ms * 0.05, 0 * made.t_ms, 180 + 0 * made.t_ms])

    assert analyze_traces(made.rgb, made.t_ms, box=box).reason == "low_light"


# Regions ------------------------------------------------------------------------------------------------------------
def test_one_region_is_enough_when_it_is_clear_and_is_believed_less() -> None:
    made = synthetic(Scene(seconds=20))

    analysis = analyze_traces(made.rgb[:, 0], made.t_ms)

    assert vital(analysis)["value"] == pytest.approx(72, abs=0.5)
    assert vital(analysis)["confidence"] == 0.8
    assert "single_roi" in analysis.to_dict()["warnings"]


def test_a_region_that_is_off_is_left_out() -> None:
    made = synthetic(Scene(seconds=20))
    off = np.zeros(made.rgb.shape[:2], bool)
    off[:, 0] = made.t_ms % 1000 < 300
    spoiled = made.rgb.copy()
    spoiled[off] = 0.0

    analysis = analyze_traces(spoiled, made.t_ms, off=off, debug=True)

    assert vital(analysis)["value"] == pytest.approx(72, abs=0.5)
    assert analysis.to_dict()["quality"]["roi_agreement"] == 1.0


def test_regions_that_disagree_give_no_value() -> None:
    rates = (58, 80, 112)
    parts = [synthetic(Scene(bpm=bpm, seconds=20, seed=bpm, noise=0.05)).rgb[:, 0] for bpm in rates]

    assert analyze_traces(np.stack(parts, axis=1), fps=30).heart_rate is None


# Reports ------------------------------------------------------------------------------------------------------------
def test_the_same_input_gives_the_same_bytes() -> None:
    one, other = (json.dumps(analysed(Scene(seconds=40)).to_dict()) for _ in range(2))

    assert one == other


@pytest.mark.parametrize("portion", [1, 7, 15, 300])
def test_a_stream_says_what_the_whole_recording_says(portion: int) -> None:
    made = synthetic(Scene(seconds=31, interval_sd_ms=20, jitter_ms=4))
    stream = Stream()
    for start in range(0, len(made.t_ms), portion):
        stream.push_rgb(made.rgb[start : start + portion], made.t_ms[start : start + portion])

    assert stream.result().to_dict() == analyze_traces(made.rgb, made.t_ms).to_dict()


def test_single_frames_may_be_pushed_as_they_are() -> None:
    made = synthetic(Scene(seconds=12))
    stream = Stream()
    for t_ms, rgb in zip(made.t_ms, made.rgb, strict=True):
        stream.push_rgb(rgb, t_ms, face=0.9)

    assert stream.result().heart_rate == pytest.approx(72, abs=0.5)
    with pytest.raises(ValueError, match=r"^t_ms must be strictly increasing$"):
        stream.push_rgb(made.rgb[0], 0.0)


def test_a_long_stream_remembers_five_minutes_only() -> None:
    made = synthetic(Scene(seconds=60, fps=20))
    stream = Stream(keep_s=20)
    for turn in range(5):
        stream.push_rgb(made.rgb, made.t_ms + turn * 60_000)

    recording = stream.recording
    assert sum(each.count for each in recording.pieces) <= 20 * 20 * 1.5
    assert stream.result().heart_rate == pytest.approx(72, abs=0.5)
    assert stream.result().to_dict()["samples"] == 6000


def test_a_long_stream_with_holes_remembers_no_more_than_one_without() -> None:
    made = synthetic(Scene(seconds=14, fps=15))
    stream = Stream(keep_s=20)
    for turn in range(10):
        # A second is missing after each fourteen.
        stream.push_rgb(made.rgb, made.t_ms + turn * 15_000)

    recording = stream.recording
    assert len(recording.pieces) == 10
    # What ended twenty seconds ago is gone; the piece in which that was may still be whole.
    assert [each.count > 0 for each in recording.pieces] == [False] * 8 + [True] * 2
    report = stream.result().to_dict()
    assert report["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=0.5)
    assert report["samples"] == 10 * len(made.t_ms)
    assert {each["heart_rate"] for each in report["series"]} != {None}


def test_every_report_has_all_vitals_a_disclaimer_and_a_version() -> None:
    for analysis in (analysed(Scene(seconds=10)), analysed(Scene(seconds=2)), analysed_noise(1)):
        report = analysis.to_dict()
        assert list(report["vitals"]) == list(UNITS)
        assert (report["disclaimer"], report["version"]) == (DISCLAIMER, "1.0")
        assert all((each["value"] is None) == isinstance(each["reason"], str) for each in report["vitals"].values())


def test_numbers_of_a_report_are_rounded() -> None:
    report = analysed(Scene(seconds=70), debug=False).to_dict()

    for name, each in report["vitals"].items():
        digits = 2 if name == "lf_hf" else 1
        assert each["value"] is None or each["value"] == round(each["value"], digits)
        assert each["confidence"] == round(each["confidence"], 2)
        assert each["uncertainty"] is None or each["uncertainty"] == round(each["uncertainty"], digits)
    assert report["vitals"]["heart_rate"]["value"] is not None
    for each in report["series"]:
        assert (each["heart_rate"], each["confidence"]) == (round(each["heart_rate"], 1), round(each["confidence"], 2))
    assert report["quality"]["snr_db"] == round(report["quality"]["snr_db"], 1)
    assert report["quality"]["autocorrelation"] == round(report["quality"]["autocorrelation"], 2)


def test_what_refused_values_would_have_been_is_told_on_demand_only() -> None:
    scene = Scene(pulse=0, seconds=15)

    assert "debug" not in analysed(scene).to_dict()
    assert analysed(scene, debug=True).to_dict()["debug"]["raw"]["heart_rate"] is not None


def test_a_looser_gate_gives_no_value_without_its_confidence() -> None:
    strict, loose = Params(), replace(Params(), snr_db=-20.0, autocorrelation=0.0)
    scene = Scene(noise=1.3, seconds=20)

    assert vital(analysed(scene, params=strict))["value"] is None
    given_anyway = vital(analysed(scene, params=loose))
    assert given_anyway["value"] is not None
    assert 0 < given_anyway["confidence"] < 0.6
