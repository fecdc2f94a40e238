"""Single beats in a stretch of pulse: where they are, which intervals can be used, how uncertain their times are."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import interpolate, signal

from lifesign.vitals.signal import spectrum as spectra
from lifesign.vitals.signal.params import BoolArray, FloatArray, Params

_BPM = 60.0
_MS = 1000.0
_LOCAL = 5
_SHAPE_POINTS = 64
_MIN_SHAPES = 4
_OTHER_ROI_PERIODS = 0.25


@dataclass(frozen=True, slots=True)
class Stretch:
    """Beats without a hole between them.

    times_s: (n,); heights: (n,) of the pulse there; intervals_s: (n - 1,); is_usable: (n - 1,).
    """

    times_s: FloatArray
    heights: FloatArray
    intervals_s: FloatArray
    is_usable: BoolArray


@dataclass(frozen=True, slots=True)
class Beats:
    """All stretches of a recording. jitter_ms: how far off the time of a beat is, one standard deviation."""

    stretches: tuple[Stretch, ...]
    jitter_ms: float | None

    @property
    def detected(self) -> int:
        """Beats that were found."""
        return sum(len(each.times_s) for each in self.stretches)

    @property
    def rejected(self) -> int:
        """Beats that end an interval which cannot be used."""
        return sum(int((~each.is_usable).sum()) for each in self.stretches)

    @property
    def accepted(self) -> int:
        """The others."""
        return self.detected - self.rejected

    @property
    def usable_share(self) -> float:
        """The share of intervals that can be used."""
        count = sum(len(each.is_usable) for each in self.stretches)
        return sum(int(each.is_usable.sum()) for each in self.stretches) / count if count else 0.0


def band_around(bpm: float, params: Params) -> tuple[float, float]:
    """The band in which beats are looked for, Hz."""
    return params.beat_low * bpm / _BPM, params.beat_high * bpm / _BPM


def stretch_of(pulse: FloatArray, rate_hz: float, begin_s: float, bpm: float, params: Params) -> Stretch:
    """The beats in a filtered pulse, (frames,), that begins at `begin_s`."""
    times, heights = _peaks(pulse, rate_hz, bpm, params)
    intervals = np.diff(times)
    return Stretch(begin_s + times, heights, intervals, usable_intervals(intervals, params))


def _peaks(pulse: FloatArray, rate_hz: float, bpm: float, params: Params) -> tuple[FloatArray, FloatArray]:
    """Times (s, from the first frame) and heights of the peaks, by a cubic spline."""
    seconds = np.arange(len(pulse)) / rate_hz
    rate = params.beat_rate_hz
    fine = np.arange(int(seconds[-1] * rate) + 1) / rate
    curve = interpolate.CubicSpline(seconds, pulse)(fine)
    distance = max(1, int(params.beat_distance * _BPM / bpm * rate))
    found, _ = signal.find_peaks(curve, distance=distance)
    found = found[curve[found] > 0]
    left, middle, right = curve[found - 1], curve[found], curve[found + 1]
    bend = left - 2 * middle + right
    shift = np.divide(0.5 * (left - right), bend, out=np.zeros_like(bend), where=bend < 0)
    return (found + np.clip(shift, -0.5, 0.5)) / rate, middle


def usable_intervals(intervals_s: FloatArray, params: Params) -> BoolArray:
    """Which intervals are possible, and like those around them."""
    if not len(intervals_s):
        return np.zeros(0, np.bool_)
    half = _LOCAL // 2
    padded = np.pad(intervals_s, half, constant_values=np.nan)
    around = np.lib.stride_tricks.sliding_window_view(padded, _LOCAL)
    local = np.nanmedian(around, axis=1)
    is_possible = (intervals_s >= params.interval_min_s) & (intervals_s <= params.interval_max_s)
    usable: BoolArray = is_possible & (np.abs(intervals_s - local) <= params.interval_change * local)
    return usable


def roi_spread_ms(
    stretch: Stretch, pulses: FloatArray, *, rate_hz: float, begin_s: float, bpm: float, params: Params
) -> list[float]:
    """How far apart the regions see each beat, ms, without their lasting delay: one number per beat and pair."""
    period = _BPM / bpm
    seen = []
    for column in pulses.T:
        times = begin_s + _peaks(column, rate_hz, bpm, params)[0]
        if not len(times):
            return []
        nearest = times[np.abs(times[None, :] - stretch.times_s[:, None]).argmin(axis=1)]
        shift = nearest - stretch.times_s
        seen.append(np.where(np.abs(shift) <= _OTHER_ROI_PERIODS * period, shift, np.nan))
    found: list[float] = []
    for first in range(len(seen)):
        for second in range(first + 1, len(seen)):
            apart = seen[first] - seen[second]
            apart = apart[~np.isnan(apart)]
            if len(apart) > 1:
                found += ((apart - np.median(apart)) * _MS).tolist()
    return found


def shape_residual_ms(stretches: Sequence[tuple[Stretch, FloatArray, float, float]]) -> float | None:
    """How far beats stray from their mean shape, as time.

    Each beat, from midway to its neighbours, is brought to one length and one height; what remains beside the mean
    shape is noise, and noise of a size moves a peak by that size over the slope. stretches: beats, the pulse that they
    are of, its rate and begin. None for too few beats.
    """
    shapes, periods = [], []
    for stretch, pulse, rate_hz, begin_s in stretches:
        times = stretch.times_s
        seconds = begin_s + np.arange(len(pulse)) / rate_hz
        for index in range(1, len(times) - 1):
            if not (stretch.is_usable[index - 1] and stretch.is_usable[index]):
                continue
            before, after = (times[index] - times[index - 1]) / 2, (times[index + 1] - times[index]) / 2
            half = np.linspace(0, 1, _SHAPE_POINTS // 2, endpoint=False)
            at = np.concatenate([times[index] - before * (1 - half), times[index] + after * half])
            shapes.append(np.interp(at, seconds, pulse))
            periods.append(before + after)
    if len(shapes) < _MIN_SHAPES:
        return None
    beats = np.array(shapes)
    beats -= beats.mean(axis=1, keepdims=True)
    mean = beats.mean(axis=0)
    energy = float(mean @ mean)
    if energy <= 0:
        return None
    scale = beats @ mean / energy
    rest = beats - scale[:, None] * mean
    count = len(beats)
    noise = float(np.sqrt((rest**2).mean() * count / (count - 1)))
    step_s = float(np.mean(periods)) / _SHAPE_POINTS
    slope = float(np.sqrt((np.gradient(mean, step_s) ** 2).mean()))
    return noise / slope / 2**0.5 * _MS if slope > 0 else None


def fused_pulse(pulses: FloatArray, weights: FloatArray) -> FloatArray:
    """One pulse of all regions, by their weights."""
    return spectra.fused(pulses, weights / weights.sum())
