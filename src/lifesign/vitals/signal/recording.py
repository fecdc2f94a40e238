"""What happens once a second: a recording takes samples in, in any portions, and judges a window at every step.

Batch and stream are the same code: every window sees only the samples up to its instant, so that it does not matter
how many came later or in which portions they came.
"""

from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from lifesign.vitals.signal import gate
from lifesign.vitals.signal import pulse as pulses
from lifesign.vitals.signal import spectrum as spectra
from lifesign.vitals.signal.gate import Measured
from lifesign.vitals.signal.middle import median
from lifesign.vitals.signal.params import BoolArray, FloatArray, Method, Mode, Params, Reason
from lifesign.vitals.signal.traces import Samples
from lifesign.vitals.signal.tracker import Tracker

Indices = npt.NDArray[np.intp]
Kept = npt.NDArray[np.float32]
_MS = 1000.0
_STEP_MS = 200.0
_BPM = 60.0
# Frames wanted for the last instant of a step may come a little early: 10 s at 30 fps end after 9.97 s.
_EARLY_MS = 125.0
_RAW_SLACK_S = 5.0
_CLIPPED_AT = 250.0
_CROWDED_SHARE = 0.2
_EASE = 1e-6
_MOST_STEPS = 36_000


@dataclass(frozen=True, slots=True)
class Window:
    """One step. at_s: since the first sample. bpm: None when refused; raw_bpm: what would have been said.

    is_full: there was a whole window of signal; is_provisional: there was enough for a first value.
    span: first and last frame within `piece`, whose pulse was looked at; weights: of all regions, 0 where unused.
    """

    at_s: float
    bpm: float | None
    confidence: float
    reason: Reason | None
    reasons: frozenset[Reason]
    is_full: bool = False
    is_provisional: bool = False
    raw_bpm: float | None = None
    measured: Measured | None = None
    weights: FloatArray | None = None
    piece: int = 0
    span: tuple[int, int] = (0, 0)


@dataclass(slots=True)
class Piece:
    """A stretch without a hole, resampled evenly. first: how many of its frames were forgotten.

    kept: the others, and room for more. As single floats, which tell 255 from what is a hundred thousandth less: a
    stream keeps five minutes of them.
    """

    begin_ms: float
    rate_hz: float
    kept: Kept
    count: int = 0
    first: int = 0

    def append(self, rows: FloatArray, *, keep: int | None) -> None:
        """Add frames; more than `keep` and a fifth are cut to `keep`."""
        needed = self.count + len(rows)
        if keep is not None and needed > keep * 6 // 5:
            forgotten = min(needed - keep, self.count)
            # In its place: what moves forward is read before anything is written over it.
            self.kept[: self.count - forgotten] = self.kept[forgotten : self.count]
            self.count -= forgotten
            self.first += forgotten
            needed = self.count + len(rows)
        if needed > len(self.kept):
            most = needed if keep is None else max(needed, keep * 6 // 5)
            grown = np.empty((max(needed, min(2 * len(self.kept), most)), *rows.shape[1:]), np.float32)
            grown[: self.count] = self.kept[: self.count]
            self.kept = grown
        self.kept[self.count : needed] = rows
        self.count = needed

    def forget(self) -> None:
        """Keep none of its frames."""
        self.first += self.count
        self.count = 0
        self.kept = self.kept[:0].copy()

    def frames(self, last: int | None = None) -> FloatArray:
        """(frames, regions, 3) that are remembered, or so many of them from the end."""
        first = 0 if last is None else max(0, self.count - last)
        return self.kept[first : self.count].astype(np.float64)

    @property
    def end_ms(self) -> float:
        """The instant of its last frame."""
        return self.begin_ms + (self.first + self.count - 1) / self.rate_hz * _MS


@dataclass(slots=True)
class Recording:
    """Samples of one person, and the windows judged so far.

    keep_s: how much signal is remembered for what needs more than a window; None: all of it.
    """

    params: Params
    mode: Mode = "rest"
    method: Method = "pos"
    keep_s: float | None = None
    windows: list[Window] = field(default_factory=list)
    pieces: list[Piece] = field(default_factory=list)
    samples: int = 0
    valid_samples: int = 0
    begin_ms: float | None = None
    end_ms: float = 0.0
    has_faces: bool = False
    crowded_samples: int = 0
    rois: int = 0
    _steps: "array[float]" = field(default_factory=lambda: array("d"))
    _raw: Samples | None = None
    _pending: list[Samples] = field(default_factory=list)
    _is_valid: BoolArray = field(default_factory=lambda: np.zeros(0, np.bool_))
    _piece_begin_ms: float | None = None
    _tracker: Tracker | None = None
    _next: int = 1

    def push(self, samples: Samples) -> list[Window]:
        """Take samples in; the windows that came to their end with them. Their times go on from those before."""
        times = samples.t_ms
        if not len(times):
            return []
        if self.begin_ms is None:
            self.begin_ms = float(times[0])
            self.rois = samples.rgb.shape[1]
            self._steps.frombytes(np.diff(times).tobytes())
        else:
            self._steps.frombytes(np.diff(times, prepend=self.end_ms).tobytes())
        del self._steps[:-_MOST_STEPS]
        self.end_ms = float(times[-1])
        self.samples += len(times)
        self.has_faces = self.has_faces or samples.face is not None
        if samples.crowded is not None:
            self.crowded_samples += int(samples.crowded.sum())
        self._pending.append(samples)
        if self.end_ms < self._due():
            return []
        self._settle()
        with np.errstate(all="ignore"):
            judged = list(self._judge())
        self.windows += judged
        self._forget()
        return judged

    @property
    def duration_ms(self) -> float:
        """From the first sample to the end of the last."""
        if self.begin_ms is None:
            return 0.0
        return self.end_ms - self.begin_ms + self.step_ms

    @property
    def step_ms(self) -> float:
        """The usual time from one sample to the next; 0 while there is only one."""
        return median(np.array(self._steps)) if self._steps else 0.0

    def _due(self) -> float:
        return (self.begin_ms or 0.0) + self._next * self.params.step_s * _MS - _EARLY_MS

    def _settle(self) -> None:
        """Bring what came into one array."""
        parts = ([] if self._raw is None else [self._raw]) + self._pending
        self._pending = []
        if len(parts) > 1:
            self._raw = _joined(parts)
        else:
            self._raw = parts[0]
        self._is_valid = _valid(self._raw, self.params)

    def _forget(self) -> None:
        """Keep of the samples as they came only what a segment may need, and no pieces that ended too long ago."""
        if self._raw is None:
            return
        if self.keep_s is not None:
            for piece in self.pieces[:-1]:
                if piece.count and piece.end_ms < self.end_ms - self.keep_s * _MS:
                    piece.forget()
        after = self.end_ms - (self.params.segment_s + _RAW_SLACK_S) * _MS
        first = int(np.searchsorted(self._raw.t_ms, after))
        if first > len(self._raw.t_ms) // 4:
            self._raw = _copied(self._raw.part(slice(first, None)))
            self._is_valid = self._is_valid[first:].copy()

    # One step -------------------------------------------------------------------------------------------------------
    def _judge(self) -> Iterator[Window]:
        raw = self._raw
        if raw is None:
            return
        while self.end_ms >= self._due():
            due = self._due()
            last = int(np.searchsorted(raw.t_ms, due))
            at_s = self._next * self.params.step_s
            yield self._window(raw, last, due, at_s)
            self._next += 1

    def _window(self, raw: Samples, last: int, due: float, at_s: float) -> Window:
        params = self.params
        gap_ms = params.gap_s * _MS
        now = float(raw.t_ms[last])
        if now - due > gap_ms:
            return _refused(at_s, "gap")
        begin = int(np.searchsorted(raw.t_ms, now - params.segment_s * _MS - _EASE))
        times = raw.t_ms[begin : last + 1]
        step = median(np.diff(times)) if len(times) > 1 else 0.0
        if step > _MS / params.min_rate_hz + _EASE:
            return _refused(at_s, "frame_rate")
        valid = begin + np.flatnonzero(self._is_valid[begin : last + 1])
        if not len(valid) or now - raw.t_ms[valid[-1]] > gap_ms:
            return _refused(at_s, "no_face")
        piece = self._piece_of(raw, valid, step)
        if piece is None:
            return _refused(at_s, self._why_short(raw, begin, last, at_s))
        segment = min(piece.count, round(params.segment_s * piece.rate_hz) + 1)
        length = piece.count / piece.rate_hz
        frames = min(round(params.window_s * piece.rate_hz), piece.count)
        is_full = piece.first > 0 or length + _EARLY_MS / _MS >= params.window_s
        return self._judged(
            raw, slice(begin, last + 1), piece, segment=segment, frames=frames, step=step, at_s=at_s, is_full=is_full
        )

    def _why_short(self, raw: Samples, begin: int, last: int, at_s: float) -> Reason:
        """Nothing but time is missing at the start; later there was a hole."""
        if at_s <= self.params.min_window_s + _EASE and self._is_valid[begin : last + 1].all():
            return "too_short"
        since = raw.t_ms[last] - self.params.min_window_s * _MS
        recent = slice(int(np.searchsorted(raw.t_ms, since)), last + 1)
        if not self._is_valid[recent].all():
            return "no_face"
        is_whole = bool((np.diff(raw.t_ms[recent]) <= self.params.gap_s * _MS).all())
        return "too_short" if is_whole and at_s <= self.params.min_window_s + 1 else "gap"

    def _piece_of(self, raw: Samples, valid: Indices, step: float) -> Piece | None:
        """The evenly spaced frames up to now; None while they are too few for a window."""
        params = self.params
        times = raw.t_ms[valid]
        holes = np.flatnonzero(np.diff(times) > params.gap_s * _MS)
        begin_ms = float(times[holes[-1] + 1]) if len(holes) else float(times[0])
        known = self.pieces[-1] if self.pieces else None
        is_known = known is not None and (
            begin_ms == known.begin_ms
            or (not len(holes) and known.begin_ms <= begin_ms and self._went_on(known, times))
        )
        if known is None or not is_known:
            span_s = (float(times[-1]) - begin_ms + step) / _MS
            if span_s + _EARLY_MS / _MS < params.min_window_s:
                return None
            rate = min(params.rate_hz, float(np.ceil(_MS / step - 0.05)))
            known = Piece(begin_ms, max(rate, params.min_rate_hz), np.empty((0, self.rois, 3), np.float32))
            self.pieces.append(known)
        self._extend(known, raw, valid)
        return known

    def _went_on(self, piece: Piece, times: FloatArray) -> bool:
        """Whether a piece whose first samples are forgotten reaches into these times without a hole."""
        return bool(float(times[0]) - piece.end_ms <= self.params.gap_s * _MS)

    def _extend(self, piece: Piece, raw: Samples, valid: Indices) -> None:
        done = piece.first + piece.count
        step = _MS / piece.rate_hz
        total = int((float(raw.t_ms[valid[-1]]) - piece.begin_ms + _EASE) / step) + 1
        if total <= done:
            return
        grid: FloatArray = piece.begin_ms + np.arange(done, total, dtype=np.float64) * step
        start = max(0, int(np.searchsorted(raw.t_ms[valid], grid[0] - self.params.gap_s * _MS * 2)) - 1)
        used = valid[start:]
        rows = _interpolated(grid, raw.t_ms[used], raw.rgb[used])
        if piece.count:
            # A region that is off all the while keeps the last colour that was seen; one that was never seen before
            # gets its first colour for all the time before, or its appearance would ring through the filters.
            last = piece.frames(1)[0]
            rows = np.where(np.isnan(rows), last, rows)
            unseen = np.isnan(last[:, 0])
            piece.kept[: piece.count, unseen] = rows[0, unseen]
        keep = None if self.keep_s is None else round(self.keep_s * piece.rate_hz)
        piece.append(rows, keep=keep)

    def _judged(
        self,
        raw: Samples,
        within: slice,
        piece: Piece,
        *,
        segment: int,
        frames: int,
        step: float,
        at_s: float,
        is_full: bool,
    ) -> Window:
        params, rate = self.params, piece.rate_hz
        end_ms = float(raw.t_ms[within.stop - 1])
        since = end_ms - frames / rate * _MS
        part = slice(within.start + int(np.searchsorted(raw.t_ms[within], since + _EASE)), within.stop)
        usable = self._usable(raw, part)
        band = pulses.band_of(self.mode, rate, params)
        basics = self._basics(raw, part, usable, step=step, seconds=frames / rate)
        position = piece.first + piece.count
        known: dict[str, Any] = {  # Any: fields of a window
            "at_s": at_s,
            "is_full": is_full,
            "is_provisional": not is_full,
            "piece": len(self.pieces) - 1,
            "span": (position - frames, position),
        }
        if not usable.any():
            found = gate.reasons(Measured(0, 0, 0, **basics), params)
            return Window(bpm=None, confidence=0.0, reason=gate.first_reason(found), reasons=frozenset(found), **known)
        frames_seen = piece.frames(segment)
        if not usable.all():
            frames_seen = frames_seen[:, usable]
        if np.isnan(frames_seen).any():
            frames_seen = np.nan_to_num(frames_seen)
        colours = pulses.normalized(frames_seen, rate, params)
        pulse = pulses.pulse_in(colours, rate, method=self.method, band=band, params=params)
        window = pulse[-frames:]
        spectrum = spectra.spectrum_of(window, rate, band, params)
        peaks = spectra.peaks_of(spectrum, params.peaks)
        if not peaks:
            found = gate.reasons(Measured(-30.0, 0, 0, **basics), params)
            return Window(bpm=None, confidence=0.0, reason=gate.first_reason(found), reasons=frozenset(found), **known)
        tracker = self._tracker = self._tracker or Tracker(params)
        one = spectra.fused(window, spectrum.weights)
        peak = spectra.without_octave(spectrum, one, rate, tracker.chosen(peaks, at_s), params)
        bpm = peak.hz * _BPM
        grid = spectrum.grid
        own_bpm = (grid.first + spectrum.rois.argmax(axis=1)) * grid.step_hz * _BPM
        flickers = gate.is_flickering(
            colours,
            one,
            rate_hz=rate,
            params=params,
        )
        measured = Measured(
            spectra.snr_db(spectrum.power, grid, round(peak.hz / grid.step_hz), params),
            spectra.autocorrelation(one, rate / peak.hz),
            float((np.abs(own_bpm - bpm) <= params.agreement_bpm).mean()),
            is_flickering=flickers,
            **basics,
        )
        found = gate.reasons(measured, params)
        if not found:
            tracker.accept(bpm, at_s)
        weights = np.zeros(self.rois)
        weights[usable] = spectrum.weights
        return Window(
            bpm=None if found else bpm,
            confidence=0.0 if found else gate.confidence(measured, params),
            reason=gate.first_reason(found),
            reasons=frozenset(found),
            raw_bpm=bpm,
            measured=measured,
            weights=weights,
            **known,
        )

    def _usable(self, raw: Samples, part: slice) -> BoolArray:
        valid = self._is_valid[part]
        off = np.isnan(raw.rgb[part, :, 0])[valid]
        return np.asarray(off.mean(axis=0) <= self.params.roi_off_share, np.bool_)

    def _basics(self, raw: Samples, part: slice, usable: BoolArray, *, step: float, seconds: float) -> dict[str, Any]:
        valid = self._is_valid[part]
        rgb = raw.rgb[part] if valid.all() else raw.rgb[part][valid]
        seen = rgb[:, usable] if usable.any() and not usable.all() else rgb
        brightness = _mean_seen(gate.luminance_of(seen))
        wanted = max(1, round(seconds * _MS / step))
        expected = max(wanted, len(valid))
        lost = 1.0 - int(valid.sum()) / expected
        if raw.clipped is not None:
            clipped = float(raw.clipped[part].mean())
        else:
            # A region that is off is not clipped: nothing compares with NaN.
            bright = seen >= _CLIPPED_AT
            clipped = float(bright.any(axis=2).mean()) if bright.any() else 0.0
        face = None if raw.face is None else median(raw.face[part][valid])
        return {
            "motion": self._motion(raw, part, brightness),
            "luminance": float(brightness.mean()),
            "clipped": clipped,
            "loss": max(0.0, lost),
            "rois": int(usable.sum()),
            "face": face,
            "is_crowded": raw.crowded is not None and float(raw.crowded[part].mean()) > _CROWDED_SHARE,
            "is_face_lost": not valid.all(),
        }

    def _motion(self, raw: Samples, part: slice, brightness: FloatArray) -> float:
        valid = self._is_valid[part]
        if raw.box is not None:
            box, times = raw.box[part][valid], raw.t_ms[part][valid]
            # Over a fifth of a second: from one image to the next a face that keeps still, too, is found a pixel or two
            # beside where it was, which at 30 images a second looks like the speed of one that turns away.
            later = np.searchsorted(times, times + _STEP_MS)
            earlier = np.flatnonzero(later < len(times))
            later = later[earlier]
            distance = np.hypot(*(box[later, :2] - box[earlier, :2]).T) / np.maximum(box[later, 2], 1.0)
            speed = distance / (times[later] - times[earlier]) * _MS
            return median(speed) if len(speed) else 0.0
        change = np.diff(brightness) / np.maximum(brightness[:-1], 1.0)
        return float(change.std()) if len(change) else 0.0


def _mean_seen(values: FloatArray) -> FloatArray:
    """The mean of each row over what is no NaN; where nothing is, the one of the row before."""
    mean: FloatArray = values.mean(axis=1)
    there = ~np.isnan(values)
    if there.all():
        return mean
    count = there.sum(axis=1)
    mean = np.where(there, values, 0.0).sum(axis=1) / np.maximum(count, 1)
    if count.all():
        return mean
    known = np.flatnonzero(count)
    if not len(known):
        return np.zeros(len(values))
    before = np.clip(np.searchsorted(known, np.arange(len(values)), side="right") - 1, 0, None)
    return mean[known[before]]


def _refused(at_s: float, reason: Reason) -> Window:
    return Window(at_s, None, 0.0, reason, frozenset({reason}))


def _valid(raw: Samples, params: Params) -> BoolArray:
    seen: BoolArray = np.asarray(~np.isnan(raw.rgb[:, :, 0]).all(axis=1), np.bool_)
    return seen if raw.face is None else seen & (raw.face >= params.face_score)


def _interpolated(grid: FloatArray, times: FloatArray, rgb: FloatArray) -> FloatArray:
    """Colours at the instants of `grid`; NaN for regions without a single colour."""
    flat = rgb.reshape(len(rgb), -1)
    missing = np.isnan(flat)
    if not missing.any():
        return _linear(grid, times, flat).reshape(len(grid), *rgb.shape[1:])
    result = np.full((len(grid), flat.shape[1]), np.nan)
    for column in range(flat.shape[1]):
        there = ~missing[:, column]
        if there.any():
            result[:, column] = np.interp(grid, times[there], flat[there, column])
    return result.reshape(len(grid), *rgb.shape[1:])


def _linear(grid: FloatArray, times: FloatArray, values: FloatArray) -> FloatArray:
    if len(times) == 1:
        return np.repeat(values, len(grid), axis=0)
    right = np.clip(np.searchsorted(times, grid), 1, len(times) - 1)
    left = right - 1
    share = np.clip((grid - times[left]) / (times[right] - times[left]), 0.0, 1.0)[:, None]
    result: FloatArray = values[left] * (1 - share) + values[right] * share
    return result


def _joined(parts: list[Samples]) -> Samples:
    """Samples in a row. What some of them report and others do not is not reported."""

    def column(name: str) -> Any:  # Any: an array or None, as the field has it
        values = [getattr(each, name) for each in parts]
        return None if any(each is None for each in values) else np.concatenate(values)

    return Samples(**{name: column(name) for name in ("t_ms", "rgb", "face", "box", "clipped", "crowded")})


def _copied(samples: Samples) -> Samples:
    return _joined([samples])
