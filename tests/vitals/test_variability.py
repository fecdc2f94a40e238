"""Pulse rate variability: the bare formulas against tables and another library, then the gates before them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from lifesign.vitals import analyze_traces, hrv_from_beats
from lifesign.vitals.signal.beats import usable_intervals
from lifesign.vitals.signal.params import DEFAULTS, FloatArray
from lifesign.vitals.signal.synth import Scene, synthetic


def beat_times(intervals_ms: list[float]) -> FloatArray:
    return np.concatenate([[0.0], np.cumsum(intervals_ms)]) / 1000


# Intervals in ms; then RMSSD, SDNN, pNN50 and the stress index, worked out by hand.
# 1: differences 50, -100, 50: RMSSD = sqrt(15000 / 3); deviations 0, 50, -50, 0: SDNN = sqrt(5000 / 3); one difference
#    above 50 among four intervals. Two of four intervals in [800, 850): 50 / (2 x 0.825 x 0.1).
# 2: differences 0, 60, 0, -60, 0; two above 50 among six intervals; mean 820, squares 4 x 400 + 2 x 1600 = 4800,
#    / 5 = 960. Four intervals in [800, 850), two in [850, 900): 66.66.. / (2 x 0.825 x 0.06).
# 3: a tie of two bins goes to the lower: 50 / (2 x 0.625 x 0.2).
_BY_HAND = [
    ([800, 850, 750, 800], 5000**0.5, (5000 / 3) ** 0.5, 25.0, 50 / (2 * 0.825 * 0.1)),
    ([800, 800, 860, 860, 800, 800], (7200 / 5) ** 0.5, 960**0.5, 100 / 3, (200 / 3) / (2 * 0.825 * 0.06)),
    ([600, 600, 800, 800], (40000 / 3) ** 0.5, (40000 / 3) ** 0.5, 25.0, 50 / (2 * 0.625 * 0.2)),
]


@pytest.mark.parametrize(("intervals", "rmssd", "sdnn", "pnn50", "stress"), _BY_HAND)
def test_the_formulas_give_what_a_hand_computes(
    intervals: list[float], rmssd: float, sdnn: float, pnn50: float, stress: float
) -> None:
    found = hrv_from_beats(beat_times(intervals))

    assert found["rmssd"] == pytest.approx(rmssd, rel=1e-9)
    assert found["sdnn"] == pytest.approx(sdnn, rel=1e-9)
    assert found["pnn50"] == pytest.approx(pnn50, rel=1e-9)
    assert found["stress_index"] == pytest.approx(stress, rel=1e-9)
    assert found["stress_sqrt"] == pytest.approx(stress**0.5, rel=1e-9)


def test_beats_that_are_all_alike_have_no_stress_index() -> None:
    found = hrv_from_beats(beat_times([800.0] * 60))

    assert (found["stress_index"], found["stress_sqrt"]) == (None, None)
    assert found["rmssd"] == pytest.approx(0, abs=1e-6)


def test_timing_noise_is_taken_away_in_squares() -> None:
    found = hrv_from_beats(beat_times([800, 850, 750, 800]), jitter_ms=10)

    assert found["rmssd_raw"] == pytest.approx(5000**0.5)
    assert found["rmssd"] == pytest.approx((5000 - 600) ** 0.5)
    assert found["sdnn"] == pytest.approx((5000 / 3 - 200) ** 0.5)
    assert hrv_from_beats(beat_times([800, 850, 750, 800]), jitter_ms=100)["rmssd"] == 0.0


@pytest.mark.parametrize("seed", range(16))
def test_another_library_computes_the_same(seed: int) -> None:
    random = np.random.default_rng(seed)
    count = int(random.integers(50, 400))
    wave = 1 + random.uniform(0, 0.1) * np.sin(np.arange(count) / 9)
    intervals = random.normal(random.uniform(450, 1200), random.uniform(1, 60), count)
    times = beat_times((intervals * wave).tolist())

    found = hrv_from_beats(times)

    expected = _by_neurokit(times)
    known = {name: value for name, value in expected.items() if not np.isnan(value)}
    assert {name: found[name] for name in known} == pytest.approx(known, rel=1e-6)
    assert [found[name] for name in expected if name not in known] == [None] * (5 - len(known))


def _by_neurokit(times: FloatArray) -> dict[str, float]:
    intervals, ends = np.diff(times) * 1000, times[1:]
    # All of pandas and matplotlib comes along: too much for every process of a test run to load.
    import neurokit2  # noqa: PLC0415 - see above

    in_time = neurokit2.hrv_time({"RRI": intervals, "RRI_Time": ends})
    curve, _, rate = neurokit2.intervals_process(
        intervals, ends, interpolate=True, interpolation_rate=4, detrend="polynomial", method="cubic"
    )
    power = neurokit2.signal_power(
        curve,
        frequency_band=[(0.04, 0.15), (0.15, 0.40)],
        sampling_rate=rate,
        method="welch",
        window=120,
        normalize=False,
    )
    low, high = power.to_numpy()[0]
    return {
        "rmssd": float(in_time["HRV_RMSSD"].iloc[0]),
        "sdnn": float(in_time["HRV_SDNN"].iloc[0]),
        "pnn50": float(in_time["HRV_pNN50"].iloc[0]),
        "lf": float(low),
        "hf": float(high),
    }


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([0.0, 1.0], "Too few beats"),
        ([0.0, 1.0, 1.0], "times must be strictly increasing"),
        ([0.0, 5e-324, 1e-323, 1.0, 2.0, 3.0], "times must be strictly increasing"),
        ([3.0, 2.0, 1.0], "times must be strictly increasing"),
        ([0.0, 1.0, 1e9], "times must span at most 1000000 s"),
        ([-1.7e308, 0.0, 1.7e308], "times must span at most 1000000 s"),
        ([0.0, 1.0, float("nan")], "times must be finite numbers"),
        (["a", "b", "c"], "times must be finite numbers"),
    ],
)
def test_beats_that_are_none_are_refused(times: Any, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{message}$"):
        hrv_from_beats(times)


# Gates --------------------------------------------------------------------------------------------------------------
def test_intervals_that_no_heart_makes_are_not_used() -> None:
    intervals = np.array([0.8, 0.82, 0.4, 1.2, 0.8, 0.79, 1.7, 0.8, 0.3, 0.8, 0.81])

    kept = usable_intervals(intervals, DEFAULTS)

    assert intervals[kept].tolist() == [0.8, 0.82, 0.8, 0.79, 0.8, 0.8, 0.81]


def _vitals(scene: Scene, **options: Any) -> dict[str, Any]:
    made = synthetic(scene)
    report: dict[str, Any] = analyze_traces(made.rgb, made.t_ms, **options).to_dict()
    return report


def test_variability_of_a_clear_pulse_is_what_its_beats_have() -> None:
    scene = Scene(seconds=150, noise=0.02, interval_sd_ms=25, seed=5)
    truth = hrv_from_beats(synthetic(scene).beats_s)

    report = _vitals(scene)

    found = report["vitals"]
    assert report["beats"]["jitter_ms"] < 25
    for name, within in (("rmssd", 12), ("sdnn", 8)):
        assert found[name]["value"] == pytest.approx(truth[name], abs=within)
    for name in ("lf", "hf", "stress_index", "stress_sqrt"):
        assert found[name]["reason"] is None
    assert "ultra_short" in report["warnings"]
    assert found["rmssd"]["raw"] >= found["rmssd"]["value"]


def test_a_noisy_pulse_has_a_rate_but_no_variability() -> None:
    report = _vitals(Scene(seconds=70, noise=0.8))

    assert report["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1)
    assert report["beats"]["jitter_ms"] > 25
    found = {name: report["vitals"][name]["reason"] for name in ("rmssd", "sdnn", "pnn50", "stress_index")}
    assert found == {"rmssd": "jitter", "sdnn": "jitter", "pnn50": "jitter", "stress_index": "jitter"}


# Seconds and a little more, and what is given from there on.
_FROM = {
    31: {"rmssd", "pnn50", "respiration_rate"},
    61: {"sdnn", "stress_index", "stress_sqrt"},
    121: {"lf", "hf", "lf_hf"},
}


def test_each_vital_is_given_once_there_is_as_much_as_it_takes() -> None:
    made = synthetic(Scene(seconds=122, fps=15, noise=0.02, interval_sd_ms=12, breath_per_minute=15, seed=2))
    needed: set[str] = set()
    for seconds, names in _FROM.items():
        for until_s, expected in ((seconds - 2.5, needed), (seconds, needed | names)):
            part = slice(0, round(until_s * 15))
            report = analyze_traces(made.rgb[part], made.t_ms[part]).to_dict()
            found = {
                name: each["reason"] for name, each in report["vitals"].items() if name not in {"heart_rate", "spo2"}
            }
            assert {name for name, reason in found.items() if reason is None} == expected, until_s
            assert {reason for reason in found.values() if reason is not None} <= {"too_short"}
        needed |= names


def test_stress_takes_fifty_beats_and_variability_twenty_five() -> None:
    slow = _vitals(Scene(seconds=62, bpm=45, noise=0.02, interval_sd_ms=12))["vitals"]
    slower = _vitals(Scene(seconds=31.5, bpm=45, noise=0.02, interval_sd_ms=12))["vitals"]

    # 46 beats, and 23.
    assert (slow["sdnn"]["reason"], slow["rmssd"]["reason"]) == (None, None)
    assert (slow["stress_index"]["reason"], slow["stress_sqrt"]["reason"]) == ("too_short", "too_short")
    assert (slower["rmssd"]["reason"], slower["pnn50"]["reason"]) == ("too_short", "too_short")
    assert slower["heart_rate"]["reason"] is None


def test_counting_large_differences_takes_beat_times_that_are_surer_than_their_spread_does() -> None:
    report = _vitals(Scene(seconds=70, noise=0.2, interval_sd_ms=12))

    assert 10 < report["beats"]["jitter_ms"] < 25
    assert report["vitals"]["pnn50"]["reason"] == "jitter"
    for name in ("rmssd", "sdnn", "stress_index"):
        assert report["vitals"][name]["value"] is not None


def test_a_long_recording_is_no_longer_ultra_short() -> None:
    scene = Scene(seconds=302, fps=10, noise=0.02, interval_sd_ms=12)

    assert "ultra_short" in _vitals(replace(scene, seconds=290))["warnings"]
    assert "ultra_short" not in _vitals(scene)["warnings"]


def test_a_heart_that_beats_anyhow_has_no_variability() -> None:
    report = _vitals(Scene(seconds=70, noise=0.05, interval_sd_ms=200, seed=3))

    assert report["beats"]["rejected"] > 0.2 * report["beats"]["detected"]
    assert {report["vitals"][name]["reason"] for name in ("rmssd", "sdnn", "stress_index")} == {"artefacts"}


def test_the_jitter_is_as_large_as_beats_are_wrong() -> None:
    for noise in (0.1, 0.3):
        made = synthetic(Scene(seconds=60, noise=noise))
        analysis = analyze_traces(made.rgb, made.t_ms)
        ends = analysis.tachogram.x
        wrong = np.array([made.beats_s[np.abs(made.beats_s - each).argmin()] - each for each in ends])

        true_ms = float(np.std(wrong)) * 1000
        told_ms = analysis.to_dict()["beats"]["jitter_ms"]

        assert 0.8 * true_ms < told_ms < 3 * true_ms


# Breathing and oxygen -----------------------------------------------------------------------------------------------
def test_breathing_that_baseline_and_intervals_agree_on_is_given() -> None:
    found = _vitals(Scene(seconds=60, noise=0.1, breath_per_minute=15))["vitals"]["respiration_rate"]

    assert found["value"] == pytest.approx(15, abs=1)
    assert found["reason"] is None


def test_without_breathing_none_is_made_up() -> None:
    given_rates = [
        _vitals(Scene(seconds=40, noise=0.3, seed=seed))["vitals"]["respiration_rate"]["value"] for seed in range(20)
    ]

    assert sum(each is not None for each in given_rates) <= 1


def test_oxygen_is_never_given_without_a_calibration_but_its_ratio_is() -> None:
    found = _vitals(Scene(seconds=30, noise=0.05))["vitals"]["spo2"]

    assert (found["value"], found["reason"], found["confidence"]) == (None, "not_calibrated", 0.0)
    # The made-up skin moves by 0.2 % in red and 0.35 % in blue.
    assert found["ratio"] == pytest.approx(0.2 / 0.35, abs=0.03)
    assert found["ratio_confidence"] > 0.9
