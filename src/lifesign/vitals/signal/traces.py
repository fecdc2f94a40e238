"""What comes in: one row of numbers per frame, checked once."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import numpy.typing as npt

from lifesign.vitals.rules import LEAST_STEP_MS, InvalidTraces, TooManySamples
from lifesign.vitals.signal.params import BoolArray, FloatArray

MIN_SAMPLES = 8
MAX_SAMPLES = 36_000
MAX_SPAN_S = 7200.0
"""Of a recording, and of a hole in one that goes on: there is a window for every second, of holes, too."""
MAX_ROIS = 8
TOO_LONG = f"t_ms must span at most {MAX_SPAN_S:g} s"
NOT_INCREASING = "t_ms must be strictly increasing"
_MS = 1000.0
_MAX_VALUE = 255.0
_MIN_FPS, _MAX_FPS = 5, 240
_BOX_PARTS = 3
_CHANNELS = 3
Numbers = npt.ArrayLike | Sequence[float]


@dataclass(frozen=True, slots=True)
class Samples:
    """Frames as numbers.

    t_ms: (n,), strictly increasing. rgb: (n, regions, 3) mean colours, 0 to 255, NaN where a region is off.
    face: (n,) score of the face; box: (n, 3) its centre and width in pixels; clipped: (n, regions) share of pixels
    without a usable value; crowded: (n,) whether a second face of similar size took its place. None: not reported.
    """

    t_ms: FloatArray
    rgb: FloatArray
    face: FloatArray | None = None
    box: FloatArray | None = None
    clipped: FloatArray | None = None
    crowded: BoolArray | None = None

    def part(self, which: slice) -> "Samples":
        """Some of the frames."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{name: each[which] for name, each in values.items() if each is not None})


def samples_of(
    rgb: Numbers,
    t_ms: Numbers | None = None,
    *,
    fps: float | None = None,
    face: Numbers | None = None,
    box: Numbers | None = None,
    clipped: Numbers | None = None,
    off: Numbers | None = None,
    crowded: Numbers | None = None,
) -> Samples:
    """Checked frames of a whole recording. off: (n, regions), true where a region was not seen.

    Raises InvalidTraces, TooManySamples.
    """
    colours = colours_of(rgb, off)
    count = len(colours)
    if count < MIN_SAMPLES:
        raise InvalidTraces("Too few samples")
    if count > MAX_SAMPLES:
        raise TooManySamples("Too many samples")
    if fps is not None and not (_is_number(fps) and _MIN_FPS <= fps <= _MAX_FPS):
        raise InvalidTraces(f"fps must be a number between {_MIN_FPS} and {_MAX_FPS}")
    times = times_of(t_ms, fps, count)
    require_increasing(times)
    if not float(times[-1]) - float(times[0]) <= MAX_SPAN_S * _MS:
        raise InvalidTraces(TOO_LONG)
    return beside(Samples(times, colours), face=face, box=box, clipped=clipped, crowded=crowded)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def colours_of(rgb: Numbers, off: Numbers | None = None) -> FloatArray:
    """(n, regions, 3) with NaN where a region is off. Raises InvalidTraces."""
    bad = "rgb values must be finite numbers between 0 and 255"
    array = _numbers(rgb, bad)
    if array.ndim == _CHANNELS - 1:
        array = array[:, None, :]
    if array.ndim != _CHANNELS or array.shape[2] != _CHANNELS or not 1 <= array.shape[1] <= MAX_ROIS:
        raise InvalidTraces(f"rgb must hold one [r, g, b], or 1 to {MAX_ROIS} of them, for every sample")
    hidden = np.zeros(array.shape[:2], np.bool_) if off is None else np.asarray(off, np.bool_)
    if hidden.shape != array.shape[:2]:
        raise InvalidTraces("off must have one value for every region of every sample")
    seen = ~hidden
    with np.errstate(invalid="ignore"):
        if not ((array >= 0) & (array <= _MAX_VALUE))[seen].all():
            raise InvalidTraces(bad)
    return np.where(seen[:, :, None], array, np.nan)


def times_of(t_ms: Numbers | None, fps: float | None, count: int) -> FloatArray:
    """The instant of every frame. Raises InvalidTraces."""
    if t_ms is None:
        if fps is None:
            raise InvalidTraces("t_ms or fps is required")
        return np.arange(count, dtype=np.float64) * (1000.0 / fps)
    times = _numbers(t_ms, NOT_INCREASING)
    if times.ndim != 1 or len(times) != count:
        raise InvalidTraces("t_ms and rgb must have the same length")
    if not np.isfinite(times).all():
        raise InvalidTraces(NOT_INCREASING)
    return times


def require_increasing(times: FloatArray) -> None:
    """Raises InvalidTraces unless every instant is later than the one before, by more than nothing."""
    if (np.diff(times) < LEAST_STEP_MS).any():
        raise InvalidTraces(NOT_INCREASING)


def beside(
    samples: Samples,
    *,
    face: Numbers | None,
    box: Numbers | None,
    clipped: Numbers | None,
    crowded: Numbers | None = None,
) -> Samples:
    """`samples` with what is reported beside their colours. Raises InvalidTraces."""
    count, rois = samples.rgb.shape[:2]
    return replace(
        samples,
        face=_shaped("face", face, (count,), 0.0, 1.0),
        box=_shaped("box", box, (count, _BOX_PARTS), -1e6, 1e6),
        clipped=_shaped("clipped", clipped, (count, rois), 0.0, 1.0),
        crowded=None if crowded is None else np.asarray(crowded, np.bool_),
    )


def _shaped(name: str, values: Numbers | None, shape: tuple[int, ...], low: float, high: float) -> FloatArray | None:
    if values is None:
        return None
    bad = f"{name} must hold finite numbers from {low:g} to {high:g}"
    array = _numbers(values, bad)
    if array.shape != shape:
        wanted = "one number" if len(shape) == 1 else f"{shape[1]} numbers"
        raise InvalidTraces(f"{name} must have {wanted} for every sample")
    # A comparison with what is no number is false.
    if not ((array >= low) & (array <= high)).all():
        raise InvalidTraces(bad)
    return array


def _numbers(values: Numbers, bad: str) -> FloatArray:
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError):
        raise InvalidTraces(bad) from None
    if array.dtype.kind not in "iuf":
        raise InvalidTraces(bad)
    return array.astype(np.float64)
