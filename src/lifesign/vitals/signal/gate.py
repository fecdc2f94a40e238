"""Whether a window carries a pulse: what is measured on it, and the first reason why it does not."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import fft

from lifesign.vitals.signal import pulse as pulses
from lifesign.vitals.signal.middle import median
from lifesign.vitals.signal.params import REASONS, FloatArray, Params, Reason

_LUMA = np.array([0.299, 0.587, 0.114])
_TINY = 1e-12
_SURROUNDINGS_HZ = 0.6
_PEAK_HZ = 0.15
_FLICKER_BAND = (0.7, 4.0)


@dataclass(frozen=True, slots=True)
class Measured:
    """What the gate looks at, of one window. face: the median score, None where faces are not reported."""

    snr_db: float
    autocorrelation: float
    agreement: float
    motion: float
    luminance: float
    clipped: float
    loss: float
    rois: int
    face: float | None = None
    is_crowded: bool = False
    is_flickering: bool = False
    is_face_lost: bool = False
    """Frames are missing because they show no face, not because they did not come."""


def reasons(measured: Measured, params: Params) -> set[Reason]:
    """Everything that speaks against a value. `low_snr` only when nothing else explains it."""
    found: set[Reason] = set()
    if measured.loss > params.loss:
        found.add("no_face" if measured.is_face_lost else "gap")
    if measured.face is not None and measured.face < params.face_score:
        found.add("no_face")
    if measured.is_crowded:
        found.add("multiple_faces")
    if measured.clipped > params.clipped:
        found.add("overexposed")
    if measured.luminance < params.luminance:
        found.add("low_light")
    if measured.motion >= params.motion:
        found.add("motion")
    if measured.is_flickering:
        found.add("flicker")
    if not found and not _is_clear(measured, params):
        found.add("low_snr")
    return found


def _is_clear(measured: Measured, params: Params) -> bool:
    if measured.rois < params.min_rois:
        return (
            measured.rois > 0
            and measured.snr_db > max(params.single_roi_snr_db, params.snr_db)
            and measured.autocorrelation > max(params.single_roi_autocorrelation, params.autocorrelation)
        )
    return (
        measured.snr_db > params.snr_db
        and measured.autocorrelation > params.autocorrelation
        and measured.agreement >= params.agreement - _TINY
    )


def first_reason(found: set[Reason]) -> Reason | None:
    """The one that is given when several apply."""
    return min(found, key=REASONS.index, default=None)


def confidence(measured: Measured, params: Params) -> float:
    """How far a value that passed may be believed, 0 to 1.  Source: spec "Vitals", section 3."""
    clear = min(max((measured.snr_db + 1) / 7, 0.0), 1.0)
    regular = min(max((measured.autocorrelation - 0.3) / 0.5, 0.0), 1.0)
    still = max(0.0, 1 - measured.motion / 0.3)
    value = (0.4 * clear + 0.35 * regular + 0.25 * measured.agreement) * still * (1 - measured.loss)
    return min(value, params.single_roi_cap) if measured.rois < params.min_rois else value


def luminance_of(rgb: FloatArray) -> FloatArray:
    """The brightness of colours, in their unit."""
    brightness: FloatArray = rgb @ _LUMA
    return brightness


@lru_cache(maxsize=64)
def _taper(count: int) -> FloatArray:
    taper = np.hanning(count)
    taper.flags.writeable = False
    return taper


def is_flickering(colours: FloatArray, pulse: FloatArray, *, rate_hz: float, params: Params) -> bool:
    """Whether the pulse of a window is the light's and not the skin's.

    colours: (3, regions, frames), normalised, of the segment; pulse: (frames of the window,), fused. True when the
    common brightness has a peak that stands out, the pulse goes with the brightness, and all three channels change
    alike there, as skin's do not.
    """
    window = len(pulse)
    part = colours[..., -window:].mean(axis=1)
    part -= part.mean(axis=-1, keepdims=True)
    light = _LUMA @ part
    size = fft.next_fast_len(4 * window, real=True)
    taper = _taper(window)
    step_hz = rate_hz / size
    first, last = int(np.ceil(_FLICKER_BAND[0] / step_hz)), int(_FLICKER_BAND[1] / step_hz) + 1
    power = np.abs(fft.rfft(light * taper, size)[first:last]) ** 2
    at = int(power.argmax())
    distance = np.abs(np.arange(len(power)) - at) * step_hz
    floor = median(power[(distance > _PEAK_HZ) & (distance <= _SURROUNDINGS_HZ)])
    if power[at] <= _TINY**2 or power[at] < floor * 10 ** (params.flicker_db / 10):
        return False
    wave = np.exp(-2j * np.pi * (first + at) * step_hz * np.arange(window) / rate_hz) * taper
    channels = np.abs(part @ wave)
    if channels.min() < channels.max() / (1 + params.flicker_balance):
        return False
    band = (_FLICKER_BAND[0], min(_FLICKER_BAND[1], 0.45 * rate_hz))
    filtered = pulses.band_passed(_LUMA @ colours.mean(axis=1), rate_hz, band, params)[-window:]
    return abs(_correlation(filtered, pulse)) > params.flicker_correlation


def _correlation(one: FloatArray, other: FloatArray) -> float:
    one, other = one - one.mean(), other - other.mean()
    energy = float(one @ one) * float(other @ other)
    return float(one @ other) / energy**0.5 if energy > 0 else 0.0
