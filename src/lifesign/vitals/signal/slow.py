"""What is slower than the pulse or beside it: breathing, and the ratio behind oxygen saturation."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from scipy import fft, signal

from lifesign.vitals.signal.beats import Stretch
from lifesign.vitals.signal.params import FloatArray, Params
from lifesign.vitals.signal.pulse import band_passed

_RATE_HZ = 4.0
_PAD_TO_PER_MINUTE = 0.1
_NEAR_PER_MINUTE = 1.5
_PER_MINUTE = 60.0
_MIN_BEATS = 8
_AROUND_PULSE_HZ = 0.25
_BPM = 60.0
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Modulation:
    """A rate at which something rises and falls, 1/min, and the share of power that is near it."""

    rate: float
    share: float


def modulations(
    green: FloatArray, rate_hz: float, begin_s: float, stretch: Stretch, params: Params
) -> list[Modulation]:
    """What baseline, height and interval of the beats say, each where it says anything.

    green: (frames,) mean of the regions over the stretch, which begins at `begin_s`.
    """
    end_s = begin_s + (len(green) - 1) / rate_hz
    grid = np.arange(begin_s, end_s, 1 / _RATE_HZ)
    seconds = begin_s + np.arange(len(green)) / rate_hz
    # Smoothed over a quarter of a second, so that the pulse does not come back as a slow wave.
    width = max(1, round(rate_hz / _RATE_HZ))
    smooth = np.convolve(green / max(float(green.mean()), _TINY), np.ones(width) / width, mode="same")
    smooth[: width // 2 + 1], smooth[-(width // 2 + 1) :] = smooth[width // 2 + 1], smooth[-(width // 2 + 2)]
    curves = [np.interp(grid, seconds, smooth)]
    if len(stretch.times_s) >= _MIN_BEATS:
        inside = grid[(grid >= stretch.times_s[1]) & (grid <= stretch.times_s[-1])]
        curves.append(np.interp(inside, stretch.times_s, stretch.heights))
        usable = stretch.is_usable
        if int(usable.sum()) >= _MIN_BEATS:
            curves.append(np.interp(inside, stretch.times_s[1:][usable], stretch.intervals_s[usable]))
    found = [_modulation(each, params) for each in curves]
    return [each for each in found if each is not None and each.share >= params.breath_share]


def _modulation(curve: FloatArray, params: Params) -> Modulation | None:
    if len(curve) < round(10 * _RATE_HZ):
        return None
    shaped = signal.detrend(curve) * np.hanning(len(curve))
    size = fft.next_fast_len(round(_RATE_HZ * _PER_MINUTE / _PAD_TO_PER_MINUTE), real=True)
    power = np.abs(fft.rfft(shaped, max(size, len(shaped)))) ** 2
    per_minute = np.arange(len(power)) * (_RATE_HZ / max(size, len(shaped)) * _PER_MINUTE)
    low, high = params.breath_low_hz * _PER_MINUTE, params.breath_high_hz * _PER_MINUTE
    # What is slower than breathing counts against it: a drift has no peak of its own in the band.
    within = np.flatnonzero((per_minute >= low / 2) & (per_minute <= high))
    total = float(power[within].sum())
    at = int(within[power[within].argmax()])
    if total <= _TINY or not low <= per_minute[at] <= high:
        return None
    near = within[np.abs(per_minute[within] - per_minute[at]) <= _NEAR_PER_MINUTE]
    return Modulation(float(per_minute[at]), float(power[near].sum()) / total)


def agreed(found: Sequence[Modulation], params: Params) -> tuple[float, float, float] | None:
    """Rate, its uncertainty and a share of power: of the largest group that agrees; None when no two do."""
    for size in range(len(found), 1, -1):
        groups = [
            each
            for each in combinations(found, size)
            if max(one.rate for one in each) - min(one.rate for one in each) <= params.breath_agreement
        ]
        if groups:
            best = max(groups, key=lambda group: sum(one.share for one in group))
            rates = [one.rate for one in best]
            shares = [one.share for one in best]
            return sum(rates) / size, max(0.5, (max(rates) - min(rates)) / 2), sum(shares) / size
    return None


def oxygen_ratio(rgb: FloatArray, rate_hz: float, bpm: float, params: Params) -> float | None:
    """(AC red / DC red) / (AC blue / DC blue) of the regions' mean, (frames, 3), within 0.25 Hz of the pulse."""
    hz = bpm / _BPM
    level = rgb.mean(axis=0)
    if level[0] <= 0 or level[2] <= 0:
        return None
    waves = band_passed(rgb.T, rate_hz, (max(hz - _AROUND_PULSE_HZ, 0.1), hz + _AROUND_PULSE_HZ), params)
    strength = waves.std(axis=-1) / level
    return float(strength[0] / strength[2]) if strength[2] > _TINY else None


@dataclass(frozen=True, slots=True)
class Calibration:
    """SpO2 = a - b x ratio, within the spans of what it was made from."""

    a: float
    b: float
    residual: float
    ratios: tuple[float, float]
    percents: tuple[float, float]

    def value(self, ratio: float) -> float | None:
        """The saturation in percent; None outside what was calibrated."""
        percent = self.a - self.b * ratio
        low, high = self.percents
        if not self.ratios[0] <= ratio <= self.ratios[1] or not low - _TINY <= percent <= high + _TINY:
            return None
        return percent

    @property
    def uncertainty(self) -> float:
        """Percent; never less than what no camera does better than."""
        return max(4.0, 2 * self.residual)


def calibration_of(pairs: Sequence[tuple[float, float]]) -> Calibration:
    """The line through pairs of ratio and saturation, of which there are two or more with different ratios."""
    ratios = np.array([each[0] for each in pairs])
    percents = np.array([each[1] for each in pairs])
    centred = ratios - ratios.mean()
    slope = float(centred @ (percents - percents.mean()) / (centred @ centred))
    a = float(percents.mean() - slope * ratios.mean())
    rest = percents - (a + slope * ratios)
    residual = float(np.sqrt((rest**2).mean()))
    return Calibration(
        a,
        -slope,
        residual,
        (float(ratios.min()), float(ratios.max())),
        (float(percents.min()), float(percents.max())),
    )
