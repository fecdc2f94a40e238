"""Pulse rate variability and the Baevsky stress index (research), by the bare formulas."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import interpolate, signal

from lifesign.vitals.rules import InvalidTraces
from lifesign.vitals.signal.params import FloatArray

_MS = 1000.0
_RATE_HZ = 4.0
_SEGMENT_S = 120.0
_LF, _HF = (0.04, 0.15), (0.15, 0.40)
_PNN_MS = 50.0
_BIN_MS = 50.0
_MIN_BEATS = 3
_MIN_FOR_CUBIC = 5
_MAX_SPAN_S, _LEAST_INTERVAL_S = 1_000_000.0, 1e-6
# Times are sums of fractions that no binary number holds: 850 ms is 850 ms, whichever bin the last digit says.
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Corrected:
    """A number without what timing noise added. raw: with it; uncertainty: of `value`."""

    value: float
    raw: float
    uncertainty: float


def rmssd(differences_ms: FloatArray, jitter_ms: float) -> Corrected:
    """Root of the mean square of successive differences, ms."""
    raw = float(np.sqrt((differences_ms**2).mean()))
    return _corrected(raw, 6 * jitter_ms**2, len(differences_ms))


def sdnn(intervals_ms: FloatArray, jitter_ms: float) -> Corrected:
    """Sample standard deviation of intervals, ms."""
    return _corrected(float(intervals_ms.std(ddof=1)), 2 * jitter_ms**2, len(intervals_ms))


def _corrected(raw: float, noise: float, count: int) -> Corrected:
    value = max(0.0, raw**2 - noise) ** 0.5
    return Corrected(value, raw, abs(raw - value) / 2 + raw / (2 * count) ** 0.5)


def pnn50(differences_ms: FloatArray) -> float:
    """Successive differences of more than 50 ms, percent of the intervals that they are between."""
    above = int((np.abs(np.round(differences_ms, _DIGITS)) > _PNN_MS).sum())
    return above / (len(differences_ms) + 1) * 100


def bands(times_s: FloatArray, intervals_ms: FloatArray) -> tuple[float | None, float | None]:
    """LF and HF power, ms2, of intervals that end at `times_s`.

    Cubic at 4 Hz, without linear trend, Welch with Hann segments of 120 s that overlap by half; of half the recording
    when that is shorter. None for a band that is narrower than what so few seconds tell apart.
    Source: spec "Vitals", section 4.
    """
    grid = np.arange(times_s[0], times_s[-1] + 1 / _RATE_HZ, 1 / _RATE_HZ)
    curve = interpolate.CubicSpline(times_s, intervals_ms)(np.minimum(grid, times_s[-1]))
    size = min(int(_SEGMENT_S * _RATE_HZ), len(curve) // 2)
    hz, power = signal.welch(
        signal.detrend(curve), fs=_RATE_HZ, window="hann", nperseg=size, nfft=2 * size, detrend=False
    )
    return _power(hz, power, _LF), _power(hz, power, _HF)


def _power(hz: FloatArray, power: FloatArray, band: tuple[float, float]) -> float | None:
    within = (hz >= band[0]) & (hz < band[1])
    return float(np.trapezoid(power[within], hz[within])) if int(within.sum()) > 1 else None


def ratio(low: float | None, high: float | None) -> float | None:
    """LF over HF."""
    return low / high if low is not None and high else None


def stress_index(intervals_ms: FloatArray) -> float | None:
    """Baevsky's index: AMo / (2 Mo MxDMn), with bins of 50 ms; None when all intervals are alike."""
    rounded = np.round(intervals_ms, _DIGITS)
    span_s = float(rounded.max() - rounded.min()) / _MS
    if span_s <= 0:
        return None
    bins, counts = np.unique(np.floor(rounded / _BIN_MS), return_counts=True)
    fullest = int(counts.argmax())
    mode_s = (float(bins[fullest]) + 0.5) * _BIN_MS / _MS
    share = float(counts[fullest]) / len(rounded) * 100
    return share / (2 * mode_s * span_s)


def hrv_from_beats(times_s: Sequence[float] | FloatArray, jitter_ms: float = 0.0) -> dict[str, float | int | None]:
    """Everything of this module on given beats, raw and corrected, without asking whether they are enough.

    times_s: at least 3, ascending, seconds. Raises InvalidTraces.
    """
    try:
        times = np.asarray(times_s, np.float64)
    except (ValueError, TypeError):
        raise InvalidTraces("times must be finite numbers") from None
    if times.ndim != 1 or not np.isfinite(times).all():
        raise InvalidTraces("times must be finite numbers")
    if len(times) < _MIN_BEATS:
        raise InvalidTraces("Too few beats")
    # What the difference of numbers of this size cannot be, and what no beats are apart.
    if not float(times.max()) - float(times.min()) <= _MAX_SPAN_S:
        raise InvalidTraces(f"times must span at most {_MAX_SPAN_S:.0f} s")
    if (np.diff(times) < _LEAST_INTERVAL_S).any():
        raise InvalidTraces("times must be strictly increasing")
    if not (np.isfinite(jitter_ms) and jitter_ms >= 0):
        raise InvalidTraces("jitter_ms must be a finite number, 0 or more")
    intervals = np.diff(times) * _MS
    differences = np.diff(intervals)
    successive, spread = rmssd(differences, jitter_ms), sdnn(intervals, jitter_ms)
    low, high = bands(times[1:], intervals) if len(times) >= _MIN_FOR_CUBIC else (None, None)
    index = stress_index(intervals)
    return {
        "beats": len(times),
        "rmssd": successive.value,
        "rmssd_raw": successive.raw,
        "sdnn": spread.value,
        "sdnn_raw": spread.raw,
        "pnn50": pnn50(differences),
        "lf": low,
        "hf": high,
        "lf_hf": ratio(low, high),
        "stress_index": index,
        "stress_sqrt": None if index is None else index**0.5,
    }
