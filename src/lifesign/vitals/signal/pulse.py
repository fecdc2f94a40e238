"""Colour to pulse: the methods, the detrending and the filter. Every function works on all regions at once.

Colours come as (frames, regions, 3); a pulse is (frames, regions), up when there is more blood. In between, time is the
last axis.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
from scipy import linalg, signal

from lifesign.vitals.signal.params import FloatArray, Method, Mode, Params

_TINY = 1e-12
_DETREND_HZ = 30.0
_OF_NYQUIST = 0.95
# The channel that follows each: green, blue, red.
_AFTER = np.array([1, 2, 0])


def sums_over(values: FloatArray, width: int) -> FloatArray:
    """Sums of `width` values in a row, along the last axis; fewer by `width` - 1 than the values.

    Sums of twice as many are sums of two sums: some additions of whole rows take less than half the time of one running
    sum, in which every addition waits for the one before, and lose fewer digits.
    """
    if width == 1:
        return values.copy()
    # As one long row: sums that go over the end of a row are of no use, and leaving them out would cost more.
    row = np.ascontiguousarray(values).reshape(-1)
    one, other = np.empty_like(row), np.empty_like(row)
    held, length, size = row, 1, len(row)
    for digit in f"{width:b}"[1:]:
        size -= length
        np.add(held[:size], held[length : length + size], out=one[:size])
        length *= 2
        if digit == "1":
            size -= 1
            np.add(one[:size], row[length : length + size], out=one[:size])
            length += 1
        held, one, other = one, other, one
    sums: FloatArray = held.reshape(values.shape)[..., : values.shape[-1] - width + 1]
    return sums


def _means_over(values: FloatArray, width: int) -> FloatArray:
    return sums_over(values, width) * (1.0 / width)


def running_mean(values: FloatArray, width: int) -> FloatArray:
    """The mean over `width` frames around each frame, along the last axis; over those that there are near the ends."""
    half, count = width // 2, values.shape[-1]
    wide = np.zeros((*values.shape[:-1], count + width - 1))
    wide[..., half : half + count] = values
    mean = sums_over(wide, width)
    mean /= _held(count, half, width)
    return mean


@lru_cache(maxsize=64)
def _held(count: int, before: int, width: int) -> FloatArray:
    """How many of `width` frames, from so many before each of `count` on, there are."""
    at = np.arange(count)
    held: FloatArray = (np.minimum(at - before + width, count) - np.maximum(at - before, 0)).astype(np.float64)
    held.flags.writeable = False
    return held


def normalized(rgb: FloatArray, rate_hz: float, params: Params) -> FloatArray:
    """Each channel divided by its running mean: what remains is relative change around 1.

    rgb: (frames, regions, 3). Returns (3, regions, frames): what is summed over time lies side by side.
    """
    colours = np.ascontiguousarray(rgb.T)
    mean = running_mean(colours, max(2, round(params.running_mean_s * rate_hz)))
    return np.divide(colours, mean, out=np.ones_like(colours), where=mean > _TINY)


def pulse_of(
    rgb: FloatArray, rate_hz: float, *, method: Method, band: tuple[float, float], params: Params
) -> FloatArray:
    """The pulse of every region over a stretch of evenly spaced frames, detrended and filtered to `band` (Hz).

    Source: spec "Vitals", section 2; Wang et al. 2017 (POS), de Haan and Jeanne 2013 (CHROM), Pilz et al. 2018 (LGI),
    Casado and Lopez 2023 (OMIT), de Haan and van Leest 2014 (PBV).
    """
    return pulse_in(normalized(rgb, rate_hz, params), rate_hz, method=method, band=band, params=params)


def pulse_in(
    colours: FloatArray, rate_hz: float, *, method: Method, band: tuple[float, float], params: Params
) -> FloatArray:
    """The same of colours that are normalized. Returns (frames, regions)."""
    raw = _METHODS[method](colours, rate_hz, band, params)
    return band_passed(detrended(raw, rate_hz, params), rate_hz, band, params).T


def band_of(mode: Mode, rate_hz: float, params: Params) -> tuple[float, float]:
    """The band in which a pulse is looked for at this frame rate."""
    return params.low_hz, min(params.high_hz(mode), _OF_NYQUIST * rate_hz / 2)


def detrended(values: FloatArray, rate_hz: float, params: Params) -> FloatArray:
    """`values` without their slow part along the last axis, by smoothness priors.  Source: Tarvainen et al. 2002."""
    strength = params.detrend_lambda * (rate_hz / _DETREND_HZ) ** 2
    factor = _smoother(values.shape[-1], strength)
    trend = linalg.cho_solve_banded((factor, False), values.T, check_finite=False).T
    result: FloatArray = values - trend
    return result


@lru_cache(maxsize=16)
def _smoother(count: int, strength: float) -> FloatArray:
    """The Cholesky factor of I + strength^2 D2'D2, whose bands are all there is to it."""
    square = strength**2
    bands = np.zeros((3, count))
    bands[0, 2:] = square
    bands[1, 1:] = -4 * square
    bands[1, [1, -1]] = -2 * square
    bands[2] = 1 + 6 * square
    bands[2, [0, -1]] = 1 + square
    bands[2, [1, -2]] = 1 + 5 * square
    factor: FloatArray = linalg.cholesky_banded(bands, check_finite=False)
    factor.flags.writeable = False
    return factor


def band_passed(values: FloatArray, rate_hz: float, band: tuple[float, float], params: Params) -> FloatArray:
    """`values` within a band of frequencies, without delay, along the last axis.

    As scipy's `sosfiltfilt`, which works out for each call anew how a filter begins: half of its time at our lengths.
    """
    sections, begin = _filter(params.filter_order, *band, rate_hz)
    pad = min(3 * (2 * len(sections) + 1), values.shape[-1] - 1)
    wide = _odd_extended(values, pad)
    state = begin.reshape(len(sections), *(1,) * (values.ndim - 1), 2)
    there, _ = signal.sosfilt(sections, wide, zi=state * wide[..., :1])
    back, _ = signal.sosfilt(sections, there[..., ::-1], zi=state * there[..., -1:])
    result: FloatArray = back[..., ::-1][..., pad : pad + values.shape[-1]]
    return result


def _odd_extended(values: FloatArray, pad: int) -> FloatArray:
    """`values` with their beginning and end turned around their first and last value."""
    if not pad:
        return values
    before = 2 * values[..., :1] - values[..., pad:0:-1]
    after = 2 * values[..., -1:] - values[..., -2 : -pad - 2 : -1]
    return np.concatenate([before, values, after], axis=-1)


@lru_cache(maxsize=64)
def _filter(order: int, low_hz: float, high_hz: float, rate_hz: float) -> tuple[FloatArray, FloatArray]:
    high_hz = min(high_hz, _OF_NYQUIST * rate_hz / 2)
    sections = signal.butter(order, (low_hz, high_hz), "bandpass", fs=rate_hz, output="sos")
    return sections, signal.sosfilt_zi(sections)


# Methods ------------------------------------------------------------------------------------------------------------
def _pos(colours: FloatArray, rate_hz: float, _band: tuple[float, float], params: Params) -> FloatArray:
    """Plane orthogonal to skin, over overlapping windows of 1.6 s.

    In a window w the pulse is S1 + a S2 with S1 = G - B, S2 = G + B - 2 R of the colours divided by their means in w,
    and a = std(S1) / std(S2). It is a sum over the channels whose weights depend on w only; so the average over all
    windows that hold a frame is a sum over the channels, too, with weights averaged: no loop over windows is needed.
    colours: (3, regions, frames). Returns (regions, frames).
    """
    count = colours.shape[-1]
    width = min(count, max(2, round(params.running_mean_s * rate_hz)))
    # Three arrays instead of one of nine: what takes more than 128 KiB is fetched from the system and given back to it
    # each time, which takes longer than the arithmetic.
    change = colours - 1.0
    centre = _means_over(change, width)
    scale = 1.0 / np.maximum(1.0 + centre, _TINY)
    red, green, blue = (_means_over(change * change, width) - centre * centre) * (scale * scale)
    # Of red with green, green with blue, and blue with red.
    after = change.take(_AFTER, axis=0)
    covariance = _means_over(change * after, width) - centre * centre.take(_AFTER, axis=0)
    red_green, green_blue, blue_red = covariance * (scale * scale.take(_AFTER, axis=0))
    both, twice = green + blue, 2 * green_blue
    first = np.maximum(both - twice, 0.0)
    second = np.maximum(both + twice + 4 * (red - red_green - blue_red), 0.0)
    alpha = np.sqrt(np.divide(first, second, out=np.zeros_like(first), where=second > _TINY**2))
    # Of the windows that hold a frame: beyond both ends there are none.
    weights = np.zeros((3, *alpha.shape[:-1], count + width - 1))
    own = weights[..., width - 1 : count]
    np.multiply(alpha, -2.0, out=own[0])
    np.add(alpha, 1.0, out=own[1])
    np.subtract(alpha, 1.0, out=own[2])
    own *= scale
    covering = sums_over(weights, width)
    covering *= colours
    pulse: FloatArray = (covering[0] + covering[1] + covering[2]) / -_covered(count, width)
    return pulse


@lru_cache(maxsize=64)
def _covered(count: int, width: int) -> FloatArray:
    """How many windows of `width` hold each of `count` frames."""
    at = np.arange(count)
    covered: FloatArray = (np.minimum(at + 1, count - width + 1) - np.maximum(at - width + 1, 0)).astype(np.float64)
    covered.flags.writeable = False
    return covered


def _chrom(colours: FloatArray, rate_hz: float, band: tuple[float, float], params: Params) -> FloatArray:
    red, green, blue = colours
    x = band_passed(3 * red - 2 * green, rate_hz, band, params)
    y = band_passed(1.5 * red + green - 1.5 * blue, rate_hz, band, params)
    spread = y.std(axis=-1, keepdims=True)
    alpha = np.divide(x.std(axis=-1, keepdims=True), spread, out=np.zeros_like(spread), where=spread > _TINY)
    pulse: FloatArray = x - alpha * y
    return pulse


def _without_direction(colours: FloatArray, direction: FloatArray) -> FloatArray:
    """The green part of what is left when the part along `direction`, (regions, 3) of unit length, is taken away."""
    along = np.einsum("crn,rc->rn", colours, direction)
    pulse: FloatArray = along * direction[:, 1:2] - colours[1]
    return pulse


def _lgi(colours: FloatArray, _rate_hz: float, _band: tuple[float, float], _params: Params) -> FloatArray:
    _, vectors = np.linalg.eigh(np.einsum("irn,jrn->rij", colours, colours))
    return _without_direction(colours, vectors[..., -1])


def _omit(colours: FloatArray, _rate_hz: float, _band: tuple[float, float], _params: Params) -> FloatArray:
    first = colours[..., 0].T
    length = np.maximum(np.linalg.norm(first, axis=-1, keepdims=True), _TINY)
    return _without_direction(colours, first / length)


def _pbv(colours: FloatArray, rate_hz: float, band: tuple[float, float], params: Params) -> FloatArray:
    change = band_passed(colours - 1.0, rate_hz, band, params)
    signature = change.std(axis=-1).T
    signature /= np.maximum(np.linalg.norm(signature, axis=-1, keepdims=True), _TINY)
    weights = np.einsum("rij,rj->ri", np.linalg.pinv(np.einsum("irn,jrn->rij", change, change)), signature)
    scale = np.einsum("ri,ri->r", weights, signature)
    scale = np.where(np.abs(scale) > _TINY, scale, 1.0)
    pulse: FloatArray = -np.einsum("crn,rc->rn", change, weights) / scale[:, None]
    return pulse


def _green(colours: FloatArray, _rate_hz: float, _band: tuple[float, float], _params: Params) -> FloatArray:
    pulse: FloatArray = -colours[1]
    return pulse


_METHODS: Mapping[Method, Callable[[FloatArray, float, tuple[float, float], Params], FloatArray]] = {
    "pos": _pos,
    "chrom": _chrom,
    "lgi": _lgi,
    "omit": _omit,
    "pbv": _pbv,
    "green": _green,
}
