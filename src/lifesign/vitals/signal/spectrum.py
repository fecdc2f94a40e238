"""Where the power of a window lies: spectra of the regions, fused, with peaks, octaves and self-similarity."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from lifesign.vitals.signal.params import FloatArray, Params

_TINY = 1e-30
_SNR_FLOOR_DB = -30.0


@dataclass(frozen=True, slots=True)
class Grid:
    """The frequencies of a spectrum. taper: (frames,); band: indices first and last + 1 of the band."""

    taper: FloatArray
    size: int
    step_hz: float
    first: int
    last: int

    @property
    def hz(self) -> FloatArray:
        """The frequencies of the band."""
        return np.arange(self.first, self.last, dtype=np.float64) * self.step_hz


@dataclass(frozen=True, slots=True)
class Spectrum:
    """Fused power over frequency within the band, summing to 1, and what it was fused from.

    rois: (regions used, bins), each summing to 1; weights: (regions used,), summing to 1.
    """

    grid: Grid
    power: FloatArray
    rois: FloatArray
    weights: FloatArray


@dataclass(frozen=True, slots=True)
class Peak:
    """A local maximum. amplitude: the root of the power."""

    hz: float
    amplitude: float


@lru_cache(maxsize=64)
def grid_of(count: int, rate_hz: float, band: tuple[float, float], bin_bpm: float) -> Grid:
    """The grid for a window of `count` frames, padded with zeros to bins of at most `bin_bpm`."""
    size = fft.next_fast_len(max(count, int(np.ceil(rate_hz * 60 / bin_bpm))), real=True)
    step = rate_hz / size
    first, last = int(np.ceil(band[0] / step)), int(np.floor(band[1] / step)) + 1
    taper = np.hanning(count + 2)[1:-1]
    taper.flags.writeable = False
    return Grid(taper, size, step, first, last)


def spectrum_of(pulse: FloatArray, rate_hz: float, band: tuple[float, float], params: Params) -> Spectrum:
    """Power of the pulse over frequency. pulse: (frames, regions that are used), at least one.

    Source: spec "Vitals", section 2, "Spectrum".
    """
    grid = grid_of(len(pulse), rate_hz, band, params.bin_bpm)
    own = np.ascontiguousarray(pulse.T)
    shaped = (own - own.mean(axis=1, keepdims=True)) * grid.taper
    found = fft.rfft(shaped, grid.size)[:, grid.first : grid.last]
    power = found.real**2 + found.imag**2
    rois = power / np.maximum(power.sum(axis=1, keepdims=True), _TINY)
    snr = np.array([snr_db(each, grid, grid.first + int(each.argmax()), params) for each in rois])
    weights = np.maximum(params.min_weight, 10 ** (snr / 10))
    weights /= weights.sum()
    return Spectrum(grid, weights @ rois, rois, weights)


def snr_db(power: FloatArray, grid: Grid, index: int, params: Params) -> float:
    """Power near bin `index` of the whole spectrum and near its double, over the rest of the band, in dB."""
    reach = round(params.peak_hz / grid.step_hz)
    near = 0.0
    end = 0
    for centre in (index, 2 * index):
        start = max(centre - reach - grid.first, end)
        end = max(start, centre + reach + 1 - grid.first)
        near += float(power[start:end].sum())
    rest = float(power.sum()) - near
    if near <= 0:
        return _SNR_FLOOR_DB
    return 10 * math.log10(near / max(rest, near * 1e-6))


def peaks_of(spectrum: Spectrum, most: int) -> list[Peak]:
    """The highest local maxima, highest first, each refined by a parabola; none where there is no power."""
    power = spectrum.power
    if power.max(initial=0.0) <= 0:
        return []
    inner = power[1:-1]
    found = np.flatnonzero((inner > power[:-2]) & (inner >= power[2:])) + 1
    if not len(found):
        found = np.array([power.argmax()])
    highest = found[np.argsort(power[found], kind="stable")[::-1][:most]]
    return [_refined(spectrum, int(index)) for index in highest]


def _refined(spectrum: Spectrum, index: int) -> Peak:
    power, grid = spectrum.power, spectrum.grid
    shift = 0.0
    if 0 < index < len(power) - 1:
        left, middle, right = (math.log(max(each, _TINY)) for each in power[index - 1 : index + 2].tolist())
        bend = left - 2 * middle + right
        shift = 0.0 if bend >= 0 else min(max(0.5 * (left - right) / bend, -0.5), 0.5)
    return Peak((grid.first + index + shift) * grid.step_hz, math.sqrt(power[index]))


def amplitude_at(spectrum: Spectrum, hz: float, reach_hz: float) -> float:
    """The largest amplitude within `reach_hz` of a frequency; 0 outside the band."""
    grid = spectrum.grid
    first = max(round((hz - reach_hz) / grid.step_hz) - grid.first, 0)
    last = round((hz + reach_hz) / grid.step_hz) - grid.first + 1
    return float(np.sqrt(spectrum.power[first : max(last, first)].max(initial=0.0)))


def fused(pulse: FloatArray, weights: FloatArray) -> FloatArray:
    """One pulse out of those of the regions, each brought to unit variance first."""
    own = np.ascontiguousarray(pulse.T)
    centred = own - own.mean(axis=1, keepdims=True)
    spread = np.sqrt((centred * centred).mean(axis=1))
    one: FloatArray = (weights / np.where(spread > _TINY, spread, 1.0)) @ centred
    return one


def autocorrelation(values: FloatArray, lag: float) -> float:
    """The highest normalised autocorrelation within 10 % of a lag in frames, 0 where nothing is left to compare."""
    first, last = max(1, int(np.ceil(0.9 * lag))), int(np.floor(1.1 * lag))
    best = -1.0
    for shift in {*range(first, last + 1), max(1, round(lag))}:
        early, late = values[:-shift], values[shift:]
        if len(early) < shift // 2 + 2:
            continue
        energy = float(early @ early) * float(late @ late)
        if energy > 0:
            best = max(best, float(early @ late) / energy**0.5)
    return max(best, 0.0)


def without_octave(spectrum: Spectrum, pulse: FloatArray, rate_hz: float, peak: Peak, params: Params) -> Peak:
    """`peak`, or what lies at half its frequency when that is what repeats. The double is never taken."""
    half_hz = peak.hz / 2
    if half_hz < spectrum.grid.first * spectrum.grid.step_hz:
        return peak
    amplitude = amplitude_at(spectrum, half_hz, params.peak_hz)
    if amplitude < params.octave_amplitude * peak.amplitude:
        return peak
    lag = rate_hz / peak.hz
    if autocorrelation(pulse, 2 * lag) - autocorrelation(pulse, lag) < params.octave_gain:
        return peak
    grid = spectrum.grid
    near = round(half_hz / grid.step_hz) - grid.first
    reach = round(params.peak_hz / grid.step_hz)
    start = max(near - reach, 0)
    index = start + int(spectrum.power[start : near + reach + 1].argmax())
    return _refined(spectrum, index)
