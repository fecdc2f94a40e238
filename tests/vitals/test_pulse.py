"""What makes colours a pulse, against the same written out as the papers have it, step by step."""

import numpy as np
import pytest
from scipy import signal

from lifesign.vitals.signal.params import DEFAULTS, FloatArray
from lifesign.vitals.signal.pulse import band_of, band_passed, detrended, normalized, pulse_in, running_mean, sums_over
from lifesign.vitals.signal.synth import Scene, synthetic

_RATE_HZ = 30.0
_BAND = band_of("rest", _RATE_HZ, DEFAULTS)


@pytest.mark.parametrize(("count", "width"), [(1, 1), (5, 5), (64, 32), (97, 48), (97, 63), (901, 48)])
def test_sums_over_are_sums(count: int, width: int) -> None:
    values = np.random.default_rng(count).normal(size=(3, 2, count))

    plain = np.stack([values[..., at : at + width].sum(axis=-1) for at in range(count - width + 1)], axis=-1)

    assert sums_over(values, width) == pytest.approx(plain, rel=1e-12, abs=1e-12)


def test_sums_over_leave_the_values_as_they_are() -> None:
    values = np.arange(12.0).reshape(2, 6)

    sums_over(values, 1)[...] = 0.0
    sums_over(values, 2)[...] = 0.0

    assert values.tolist() == [[0.0, 1.0, 2.0, 3.0, 4.0, 5.0], [6.0, 7.0, 8.0, 9.0, 10.0, 11.0]]


def test_a_running_mean_is_of_what_there_is_near_the_ends() -> None:
    assert running_mean(np.array([3.0, 5.0, 10.0, 2.0]), 3).tolist() == [4.0, 6.0, 17 / 3, 6.0]
    assert running_mean(np.array([3.0, 5.0]), 6).tolist() == [4.0, 4.0]


def _pos_by_the_paper(colours: FloatArray, width: int) -> FloatArray:
    """(3, frames) to a pulse: window after window, added where they overlap, and divided by how many were added."""
    count = colours.shape[-1]
    pulse, added = np.zeros(count), np.zeros(count)
    for begin in range(count - width + 1):
        part = colours[:, begin : begin + width]
        red, green, blue = part / part.mean(axis=1, keepdims=True)
        one, other = green - blue, green + blue - 2 * red
        pulse[begin : begin + width] += one + one.std() / other.std() * other
        added[begin : begin + width] += 1
    # Up when there is more blood, which is when there is less light.
    return -pulse / added


@pytest.mark.parametrize("seconds", [2, 30])
def test_pos_is_what_its_paper_says(seconds: int) -> None:
    colours = normalized(synthetic(Scene(seconds=seconds, noise=0.4)).rgb, _RATE_HZ, DEFAULTS)

    found = pulse_in(colours, _RATE_HZ, method="pos", band=_BAND, params=DEFAULTS)

    width = round(DEFAULTS.running_mean_s * _RATE_HZ)
    for region in range(colours.shape[1]):
        raw = _pos_by_the_paper(colours[:, region], width)
        expected = band_passed(detrended(raw, _RATE_HZ, DEFAULTS), _RATE_HZ, _BAND, DEFAULTS)
        assert found[:, region] == pytest.approx(expected, rel=1e-7, abs=1e-10)
        assert expected.std() > 1e-4


def test_detrending_solves_the_equations_of_its_paper() -> None:
    values = np.cumsum(np.random.default_rng(4).normal(size=200))

    second = np.diff(np.eye(200), n=2, axis=0)
    slow = np.linalg.solve(np.eye(200) + DEFAULTS.detrend_lambda**2 * second.T @ second, values)

    assert detrended(values, _RATE_HZ, DEFAULTS) == pytest.approx(values - slow, abs=1e-7)


def test_the_filter_has_no_delay_and_begins_as_scipys_does() -> None:
    values = np.random.default_rng(5).normal(size=(2, 300))
    sections = signal.butter(DEFAULTS.filter_order, _BAND, "bandpass", fs=_RATE_HZ, output="sos")

    assert band_passed(values, _RATE_HZ, _BAND, DEFAULTS) == pytest.approx(
        signal.sosfiltfilt(sections, values), abs=1e-9
    )
