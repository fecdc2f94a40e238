"""Which peak is the heart's, and what many windows say together: numbers by hand. Spec "Vitals", section 2."""

import math

import numpy as np
import pytest

from lifesign.vitals.signal import spectrum as spectra
from lifesign.vitals.signal.heart import heart_rate_of, weighted_median
from lifesign.vitals.signal.params import DEFAULTS, FloatArray, Reason
from lifesign.vitals.signal.recording import Window
from lifesign.vitals.signal.spectrum import Peak
from lifesign.vitals.signal.tracker import Tracker

_RATE_HZ = 30.0
_BAND = (0.7, 3.0)


def peak(bpm: float, amplitude: float) -> Peak:
    return Peak(bpm / 60, amplitude)


def chosen(tracker: Tracker, at: float, *peaks: Peak) -> float:
    """The rate of the one that is chosen, bpm."""
    return round(tracker.chosen(peaks, at).hz * 60, 6)


# The tracker --------------------------------------------------------------------------------------------------------
def test_the_highest_peak_is_the_first_to_be_believed() -> None:
    assert chosen(Tracker(DEFAULTS), 10, peak(100, 1.0), peak(72, 0.9)) == 100


def test_a_peak_near_the_last_value_wins_by_its_amplitude_times_how_near_it_is() -> None:
    # A second later 28 bpm weigh exp(-(28 / 15)^2) = 0.0307, and 2 bpm exp(-(2 / 15)^2) = 0.982.
    for amplitude, expected in ((0.0312 * 1.01, 74), (0.0312 * 0.99, 100)):
        tracker = Tracker(DEFAULTS)
        tracker.accept(72, 10)
        assert chosen(tracker, 11, peak(100, 1.0), peak(74, amplitude)) == expected
    assert math.exp(-((28 / 15) ** 2)) / math.exp(-((2 / 15) ** 2)) == pytest.approx(0.0312, abs=5e-5)


def test_the_longer_ago_the_last_value_was_the_farther_a_heart_may_be_from_it() -> None:
    tracker = Tracker(DEFAULTS)
    tracker.accept(72, 10)

    # After 30 s 28 bpm weigh 0.992.
    assert chosen(tracker, 40, peak(100, 1.0), peak(74, 0.99)) == 100


def test_a_peak_that_stays_the_highest_for_five_seconds_wins_wherever_it_is() -> None:
    tracker = Tracker(DEFAULTS)
    tracker.accept(72, 10)

    # It may move by five beats from step to step, and is the same.
    found = [chosen(tracker, at, peak(100 + 4 * (at - 11), 1.0), peak(73, 0.9)) for at in range(11, 17)]
    assert found == [73, 73, 73, 73, 73, 120]
    assert chosen(tracker, 17, peak(160, 1.0), peak(73, 0.9)) == 73


# Spectra ------------------------------------------------------------------------------------------------------------
def waves(**amplitude_at: float) -> FloatArray:
    """Ten seconds of sines; of each its amplitude, by its rate in bpm after an underline."""
    at = np.arange(300) / _RATE_HZ
    columns = [size * np.sin(2 * np.pi * float(name[1:]) / 60 * at) for name, size in amplitude_at.items()]
    summed: FloatArray = np.sum(columns, axis=0)[:, None]
    return summed


def found_bpm(pulse: FloatArray) -> float:
    spectrum = spectra.spectrum_of(pulse, _RATE_HZ, _BAND, DEFAULTS)
    [highest, *_] = spectra.peaks_of(spectrum, 3)
    one = spectra.fused(pulse, spectrum.weights)
    return spectra.without_octave(spectrum, one, _RATE_HZ, highest, DEFAULTS).hz * 60


def test_half_a_peak_is_taken_when_it_is_strong_and_what_repeats() -> None:
    # The wave of both repeats after the longer period; half the amplitude is asked for.
    assert found_bpm(waves(_54=0.6, _108=1.0)) == pytest.approx(54, abs=0.5)
    assert found_bpm(waves(_54=0.4, _108=1.0)) == pytest.approx(108, abs=0.5)
    assert found_bpm(waves(_54=1.0, _108=0.6)) == pytest.approx(54, abs=0.5)


def test_the_double_of_a_peak_is_never_taken() -> None:
    assert found_bpm(waves(_60=1.0, _120=0.99)) == pytest.approx(60, abs=0.5)


def test_half_a_peak_that_no_heart_beats_is_not_looked_for() -> None:
    assert found_bpm(waves(_35=0.9, _70=1.0)) == pytest.approx(70, abs=0.6)


def test_bins_are_half_a_beat_wide_at_most_and_a_parabola_finds_what_lies_between() -> None:
    grid = spectra.spectrum_of(waves(_72=1.0), _RATE_HZ, _BAND, DEFAULTS).grid

    assert grid.step_hz * 60 <= 0.5
    for bpm in (61.13, 88.87, 133.33):
        assert found_bpm(waves(**{f"_{bpm}": 1.0})) == pytest.approx(bpm, abs=0.1)


def test_the_signal_is_what_lies_near_the_peak_and_its_double() -> None:
    grid = spectra.grid_of(300, _RATE_HZ, _BAND, DEFAULTS.bin_bpm)
    power = np.zeros(grid.last - grid.first)
    for hz, share in ((1.2, 1.0), (1.29, 0.3), (2.4, 0.2), (1.8, 0.1), (1.31, 0.05)):
        power[round(hz / grid.step_hz) - grid.first] = share

    # 1 + 0.3 + 0.2 over 0.1 + 0.05.
    assert spectra.snr_db(power, grid, round(1.2 / grid.step_hz), DEFAULTS) == pytest.approx(10.0)


def test_regions_count_by_their_clearness() -> None:
    noise = np.random.default_rng(2).normal(0, 1, 300)[:, None]
    both = np.hstack([waves(_72=1.0), noise])

    spectrum = spectra.spectrum_of(both, _RATE_HZ, _BAND, DEFAULTS)

    grid = spectrum.grid
    clear, unclear = (spectra.snr_db(own, grid, int(own.argmax()) + grid.first, DEFAULTS) for own in spectrum.rois)
    assert clear > 10
    assert unclear < 0
    raw = [10 ** (clear / 10), max(0.05, 10 ** (unclear / 10))]
    assert spectrum.weights == pytest.approx(np.array(raw) / sum(raw))
    assert spectrum.rois.sum(axis=1) == pytest.approx([1, 1])
    assert spectrum.power == pytest.approx(spectrum.weights @ spectrum.rois)


def test_a_region_without_any_pulse_keeps_the_least_weight() -> None:
    nothing = np.zeros((300, 1))

    spectrum = spectra.spectrum_of(np.hstack([waves(_72=1.0), nothing]), _RATE_HZ, _BAND, DEFAULTS)

    clear = spectra.snr_db(spectrum.rois[0], spectrum.grid, round(1.2 / spectrum.grid.step_hz), DEFAULTS)
    assert spectrum.weights[1] == pytest.approx(0.05 / (0.05 + 10 ** (clear / 10)))


# Many windows -------------------------------------------------------------------------------------------------------
def window(at_s: float, bpm: float | None, confidence: float = 0.5, reason: Reason = "low_snr") -> Window:
    reasons: frozenset[Reason] = frozenset() if bpm is not None else frozenset({reason})
    return Window(at_s, bpm, confidence, None if bpm is not None else reason, reasons, is_full=True)


def test_the_value_is_the_median_by_confidence_with_its_spread() -> None:
    found = heart_rate_of([window(10, 70, 0.2), window(11, 71, 0.2), window(12, 74, 0.9)], DEFAULTS)

    # Half of 1.3 is reached at 74 only; from there the others are 4 and 3 away.
    assert (found.bpm, found.confidence) == (74, 0.2)
    assert found.uncertainty == pytest.approx(1.48 * 3)


def test_windows_that_agree_are_still_uncertain_by_half_a_beat() -> None:
    found = heart_rate_of([window(at, 70.1, 0.9) for at in range(10, 20)], DEFAULTS)

    assert (found.bpm, found.uncertainty) == (70.1, 0.5)


@pytest.mark.parametrize(("accepted", "reason"), [(3, None), (2, "unstable"), (0, "low_snr")])
def test_thirty_of_a_hundred_windows_have_to_pass(accepted: int, reason: Reason | None) -> None:
    windows = [window(10 + at, 70.0 if at < accepted else None) for at in range(10)]

    found = heart_rate_of(windows, DEFAULTS)

    assert (found.reason, found.bpm is None) == (reason, reason is not None)


def test_where_few_windows_pass_what_spoiled_the_others_is_told() -> None:
    windows = [window(10 + at, 70.0 if at < 2 else None, reason="motion") for at in range(10)]

    assert heart_rate_of(windows, DEFAULTS).reason == "motion"


def test_windows_that_jump_about_are_unstable_and_a_heart_that_rises_is_not() -> None:
    jumping = [window(10 + at, 70.0 + 12 * (at % 2)) for at in range(12)]
    rising = [window(10 + at, 70.0 + 3 * at) for at in range(12)]

    assert heart_rate_of(jumping, DEFAULTS).reason == "unstable"
    assert heart_rate_of(rising, DEFAULTS).bpm == pytest.approx(86.5)


def test_a_weighted_median_lies_between_two_that_share_the_weight() -> None:
    assert weighted_median(np.array([80.0, 60.0]), np.array([0.5, 0.5])) == 70
    assert weighted_median(np.array([80.0, 60.0, 70.0]), np.array([0.1, 0.1, 0.9])) == 70
