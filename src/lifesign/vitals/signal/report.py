"""What comes out: every vital with its value or the reason why there is none."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from lifesign.vitals.signal import beats as beating
from lifesign.vitals.signal import heart, slow, variability
from lifesign.vitals.signal import pulse as pulses
from lifesign.vitals.signal.beats import Beats, Stretch
from lifesign.vitals.signal.gate import first_reason
from lifesign.vitals.signal.heart import HeartRate
from lifesign.vitals.signal.params import (
    DISCLAIMER,
    UNITS,
    VERSION,
    WARNINGS,
    FloatArray,
    Params,
    Reason,
    Warned,
)
from lifesign.vitals.signal.recording import Recording, Window
from lifesign.vitals.signal.slow import Calibration
from lifesign.vitals.signal.spectrum import spectrum_of
from lifesign.vitals.signal.variability import Corrected

_MS = 1000.0
_BPM = 60.0
_LONG_ENOUGH_S = 300.0
# Seconds and beats that must be accepted.
_NEEDS: Mapping[str, tuple[float, int]] = {
    "rmssd": (30.0, 25),
    "pnn50": (30.0, 25),
    "sdnn": (60.0, 0),
    "lf": (120.0, 0),
    "hf": (120.0, 0),
    "lf_hf": (120.0, 0),
    "stress_index": (60.0, 50),
    "stress_sqrt": (60.0, 50),
    "respiration_rate": (30.0, 0),
    "spo2": (20.0, 0),
}
_TWO_DECIMALS = frozenset({"lf_hf"})
_EASE = 1e-6


@dataclass(frozen=True, slots=True)
class Vital:
    """One vital of a report: a value, or a reason. window_s: of how many seconds of signal it speaks."""

    value: float | None = None
    confidence: float = 0.0
    reason: Reason | None = None
    window_s: float = 0.0
    uncertainty: float | None = None
    raw: float | None = None
    beside: Mapping[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Curve:
    """Something over something else, for people to look at."""

    x: FloatArray
    y: FloatArray


_NOTHING = Curve(np.zeros(0), np.zeros(0))


@dataclass(frozen=True, slots=True)
class Analysis:
    """A report, and what it was read from. `to_dict` is the report of spec "Vitals", section 1.

    pulse: over seconds since the first frame; power: over beats per minute; tachogram: intervals in ms over seconds;
    frames: seconds since the first frame, and `rgb` the colours of the regions' mean there.
    """

    report: dict[str, Any]  # Any: JSON
    pulse: Curve = _NOTHING
    power: Curve = _NOTHING
    tachogram: Curve = _NOTHING
    rgb: FloatArray = field(default_factory=lambda: np.zeros((0, 3)))

    def to_dict(self) -> dict[str, Any]:  # Any: JSON
        """The report as JSON has it."""
        return self.report

    @property
    def heart_rate(self) -> float | None:
        """Beats per minute; None when refused."""
        value: float | None = self.report["vitals"]["heart_rate"]["value"]
        return value

    @property
    def reason(self) -> str | None:
        """Why there is no heart rate."""
        reason: str | None = self.report["vitals"]["heart_rate"]["reason"]
        return reason


@dataclass(frozen=True, slots=True)
class _Signal:
    """A stretch of accepted signal. rgb: (frames, regions used, 3); pulse: (frames,)."""

    begin_s: float
    rate_hz: float
    rgb: FloatArray
    pulse: FloatArray
    pulses: FloatArray
    beats: Stretch

    @property
    def seconds(self) -> float:
        return len(self.rgb) / self.rate_hz


def analysis_of(
    recording: Recording,
    *,
    fps: float | None = None,
    calibration: Calibration | None = None,
    warnings: Sequence[Warned] = (),
    debug: bool = False,
) -> Analysis:
    """Everything that a recording tells. fps: what its sender says of it.

    warnings: known of it from elsewhere; debug: tell, under `debug`, what refused values would have been.
    """
    with np.errstate(all="ignore"):
        return _analysis(recording, fps, calibration, set(warnings), debug=debug)


def _analysis(
    recording: Recording, fps: float | None, calibration: Calibration | None, warned: set[Warned], *, debug: bool
) -> Analysis:
    params = recording.params
    found = heart.heart_rate_of(recording.windows, params)
    if not recording.windows:
        found = replace(found, reason=_why_no_window(recording))
    signals = _signals(recording, found) if found.bpm is not None else []
    beats = _beats(signals, found, params)
    vitals = _vitals(recording, found, signals, beats, calibration)
    warned |= _warnings(recording, found, vitals, fps)
    report = {
        "duration_ms": round(recording.duration_ms),
        "samples": recording.samples,
        "fps": round(_fps(recording), 2),
        "mode": recording.mode,
        "method": recording.method,
        "vitals": {name: _shown(name, vitals[name]) for name in UNITS},
        "series": [_step(each) for each in recording.windows if each.reason != "too_short"],
        "beats": {
            "detected": beats.detected,
            "accepted": beats.accepted,
            "rejected": beats.rejected,
            "jitter_ms": _rounded(beats.jitter_ms, 1),
        },
        "quality": quality(found.windows or recording.windows),
        "warnings": [each for each in WARNINGS if each in warned],
        "disclaimer": DISCLAIMER,
        "version": VERSION,
    }
    if debug:
        report["debug"] = _debug(recording, beats)
    return _with_curves(report, recording, signals)


def _why_no_window(recording: Recording) -> Reason:
    step_ms = recording.step_ms
    return "frame_rate" if step_ms > _MS / recording.params.min_rate_hz + _EASE else "too_short"


def _fps(recording: Recording) -> float:
    step_ms = recording.step_ms
    return _MS / step_ms if step_ms > 0 else 0.0


# Signals and beats --------------------------------------------------------------------------------------------------
def _signals(recording: Recording, found: HeartRate) -> list[_Signal]:
    """The stretches in which windows passed, with beats looked for around the heart rate."""
    params = recording.params
    signals: list[_Signal] = []
    for number, piece in enumerate(recording.pieces):
        own = [each for each in found.windows if each.piece == number]
        spans = _merged([each.span for each in own])
        if not spans or not piece.count:
            continue
        weights = np.mean([each.weights for each in own if each.weights is not None], axis=0)
        used = np.array([each.weights for each in own if each.weights is not None]) > 0
        usable = used.mean(axis=0) >= 0.5  # noqa: PLR2004 - most of the time
        if not usable.any():
            usable = weights > 0
        frames = np.nan_to_num(piece.frames()[:, usable])
        band = beating.band_around(found.bpm or 0.0, params)
        columns = pulses.pulse_of(frames, piece.rate_hz, method=recording.method, band=band, params=params)
        one = beating.fused_pulse(columns, weights[usable])
        offset_s = (piece.begin_ms - (recording.begin_ms or 0.0)) / _MS
        for start, stop in spans:
            part = slice(max(start - piece.first, 0), stop - piece.first)
            if part.stop - part.start < params.min_window_s * piece.rate_hz:
                continue
            begin_s = offset_s + (piece.first + part.start) / piece.rate_hz
            stretch = beating.stretch_of(one[part], piece.rate_hz, begin_s, found.bpm or 0.0, params)
            signals.append(_Signal(begin_s, piece.rate_hz, frames[part], one[part], columns[part], stretch))
    return signals


def _merged(spans: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    merged: list[tuple[int, int]] = []
    for start, stop in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(stop, merged[-1][1]))
        else:
            merged.append((start, stop))
    return merged


def _beats(signals: Sequence[_Signal], found: HeartRate, params: Params) -> Beats:
    apart: list[float] = []
    for each in signals:
        if each.pulses.shape[1] > 1:
            apart += beating.roi_spread_ms(
                each.beats, each.pulses, rate_hz=each.rate_hz, begin_s=each.begin_s, bpm=found.bpm or 0.0, params=params
            )
    residual = beating.shape_residual_ms([(each.beats, each.pulse, each.rate_hz, each.begin_s) for each in signals])
    spread = float(np.std(apart)) / 2**0.5 if apart else None
    known = [each for each in (spread, residual) if each is not None]
    return Beats(tuple(each.beats for each in signals), max(known) if known else None)


# Vitals -------------------------------------------------------------------------------------------------------------
def _vitals(
    recording: Recording,
    found: HeartRate,
    signals: Sequence[_Signal],
    beats: Beats,
    calibration: Calibration | None,
) -> dict[str, Vital]:
    params = recording.params
    seconds = sum(each.seconds for each in signals)
    window_s = seconds or recording.duration_ms / _MS
    vitals = {
        "heart_rate": Vital(
            found.bpm, found.confidence, found.reason, _heart_window_s(recording, found, seconds), found.uncertainty
        )
    }
    open_names: list[str] = []
    for name, (needed_s, _) in _NEEDS.items():
        reason = _refusal(name, recording, found, signals, beats)
        if reason is None:
            open_names.append(name)
        else:
            longest = max((each.seconds for each in signals), default=0.0)
            is_of_longest = needed_s >= _NEEDS["lf"][0] and longest > 0
            vitals[name] = Vital(reason=reason, window_s=longest if is_of_longest else window_s)
    vitals |= _variability(open_names, signals, beats, found, window_s)
    if "respiration_rate" in open_names:
        vitals["respiration_rate"] = _respiration(signals, found, params)
    vitals["spo2"] = _oxygen(vitals.get("spo2"), signals, found, calibration, params=params, window_s=window_s)
    return vitals


def _heart_window_s(recording: Recording, found: HeartRate, seconds: float) -> float:
    if seconds:
        return seconds
    duration_s = recording.duration_ms / _MS
    return min(duration_s, recording.params.window_s) if found.bpm is not None else duration_s


def _refusal(
    name: str, recording: Recording, found: HeartRate, signals: Sequence[_Signal], beats: Beats
) -> Reason | None:
    params = recording.params
    needed_s, needed_beats = _NEEDS[name]
    reasons: set[Reason] = set() if found.reason is None else {found.reason}
    if recording.duration_ms / _MS + _EASE < needed_s:
        reasons.add("too_short")
    if reasons:
        return first_reason(reasons)
    is_of_longest = needed_s >= _NEEDS["lf"][0]
    lengths = [each.seconds for each in signals]
    have_s = max(lengths, default=0.0) if is_of_longest else sum(lengths)
    # Windows end on whole seconds, which leaves up to one of them out.
    if have_s + 1.0 < needed_s:
        return "too_short"
    if name == "spo2":
        return None
    if beats.usable_share < params.beats_accepted:
        return "artefacts"
    if beats.accepted < needed_beats:
        return "too_short"
    if name == "respiration_rate":
        return None
    limit = params.jitter_pnn50_ms if name == "pnn50" else params.jitter_ms
    return "jitter" if beats.jitter_ms is None or beats.jitter_ms > limit else None


def _variability(
    names: Sequence[str], signals: Sequence[_Signal], beats: Beats, found: HeartRate, window_s: float
) -> dict[str, Vital]:
    vitals: dict[str, Vital] = {}
    confidence = found.confidence * beats.usable_share
    jitter = beats.jitter_ms or 0.0
    intervals = (
        np.concatenate([each.beats.intervals_s[each.beats.is_usable] for each in signals] or [np.zeros(0)]) * _MS
    )
    differences = np.concatenate([_successive_ms(each.beats) for each in signals] or [np.zeros(0)])

    def give(name: str, value: float | Corrected | None, of_s: float) -> None:
        if name not in names:
            return
        if value is None:
            vitals[name] = Vital(reason="too_short", window_s=of_s)
        elif isinstance(value, Corrected):
            vitals[name] = Vital(value.value, confidence, None, of_s, value.uncertainty, value.raw)
        else:
            vitals[name] = Vital(value, confidence, None, of_s)

    if len(differences):
        give("rmssd", variability.rmssd(differences, jitter), window_s)
        give("pnn50", variability.pnn50(differences), window_s)
    else:
        give("rmssd", None, window_s)
        give("pnn50", None, window_s)
    give("sdnn", variability.sdnn(intervals, jitter) if len(intervals) > 1 else None, window_s)
    index = variability.stress_index(intervals) if len(intervals) else None
    give("stress_index", index, window_s)
    give("stress_sqrt", None if index is None else index**0.5, window_s)
    if "lf" in names:
        longest = max(signals, key=lambda each: each.seconds)
        usable = longest.beats.is_usable
        low, high = variability.bands(longest.beats.times_s[1:][usable], longest.beats.intervals_s[usable] * _MS)
        give("lf", low, longest.seconds)
        give("hf", high, longest.seconds)
        give("lf_hf", variability.ratio(low, high), longest.seconds)
    return vitals


def _successive_ms(stretch: Stretch) -> FloatArray:
    """Differences of usable intervals that follow each other."""
    both = stretch.is_usable[1:] & stretch.is_usable[:-1]
    successive: FloatArray = np.diff(stretch.intervals_s)[both] * _MS
    return successive


def _respiration(signals: Sequence[_Signal], found: HeartRate, params: Params) -> Vital:
    longest = max(signals, key=lambda each: each.seconds)
    if longest.seconds + 1.0 < _NEEDS["respiration_rate"][0]:
        return Vital(reason="too_short", window_s=longest.seconds)
    green = longest.rgb[:, :, 1].mean(axis=1)
    said = slow.modulations(green, longest.rate_hz, longest.begin_s, longest.beats, params)
    agreed = slow.agreed(said, params)
    if agreed is None:
        return Vital(reason="disagreement", window_s=longest.seconds)
    rate, uncertainty, share = agreed
    return Vital(rate, found.confidence * share, None, longest.seconds, uncertainty)


def _oxygen(
    refused: Vital | None,
    signals: Sequence[_Signal],
    found: HeartRate,
    calibration: Calibration | None,
    *,
    params: Params,
    window_s: float,
) -> Vital:
    """Without calibration there is never a value; the ratio is told whenever there is a heart rate."""
    ratio = None
    if found.bpm is not None and signals:
        longest = max(signals, key=lambda each: each.seconds)
        ratio = slow.oxygen_ratio(longest.rgb.mean(axis=1), longest.rate_hz, found.bpm, params)
    beside = {"ratio": _rounded(ratio, 3), "ratio_confidence": _rounded(found.confidence, 2) if ratio else 0.0}
    if calibration is None:
        return Vital(reason="not_calibrated", window_s=window_s, beside=beside)
    if refused is not None:
        return replace(refused, beside=beside)
    if ratio is None:
        return Vital(reason="low_snr", window_s=window_s, beside=beside)
    percent = calibration.value(ratio)
    if percent is None:
        return Vital(reason="out_of_calibration", window_s=window_s, beside=beside)
    return Vital(percent, found.confidence, None, window_s, calibration.uncertainty, beside=beside)


# Showing ------------------------------------------------------------------------------------------------------------
def _shown(name: str, vital: Vital) -> dict[str, Any]:  # Any: JSON
    shown: dict[str, Any] = {
        "value": _rounded(vital.value, 2 if name in _TWO_DECIMALS else 1),
        "unit": UNITS[name],
        "confidence": round(vital.confidence, 2),
        "reason": vital.reason,
        "window_s": round(vital.window_s, 1),
        "uncertainty": _rounded(vital.uncertainty, 1),
    }
    if vital.raw is not None:
        shown["raw"] = round(vital.raw, 1)
    return shown | dict(vital.beside)


def _rounded(value: float | None, digits: int) -> float | None:
    # Without the zero that is below zero.
    return None if value is None else round(value, digits) + 0.0


def _step(window: Window) -> dict[str, Any]:  # Any: JSON
    return {
        "t_ms": round(window.at_s * _MS),
        "heart_rate": _rounded(window.bpm, 1),
        "confidence": round(window.confidence, 2),
        "reason": window.reason,
        "provisional": window.is_provisional,
    }


def quality(windows: Sequence[Window]) -> dict[str, float | None]:
    """What was measured on windows, in the median."""
    measured = [each.measured for each in windows if each.measured is not None]

    def median(name: str, digits: int) -> float | None:
        values = [getattr(each, name) for each in measured]
        return _rounded(float(np.median(values)), digits) if values else None

    return {
        "snr_db": median("snr_db", 1),
        "autocorrelation": median("autocorrelation", 2),
        "roi_agreement": median("agreement", 2),
        "motion": median("motion", 2),
        "luminance": median("luminance", 1),
        "clipped": median("clipped", 2),
        "frame_loss": median("loss", 2),
    }


def vitals_at(recording: Recording, window: Window) -> dict[str, Any]:  # Any: JSON
    """The heart rate of one window, as an update of a stream tells it."""
    begin, end = window.span
    length_s = (end - begin) / recording.pieces[window.piece].rate_hz if end > begin else 0.0
    uncertainty = None if window.bpm is None else recording.params.min_uncertainty_bpm
    return {
        "heart_rate": _shown("heart_rate", Vital(window.bpm, window.confidence, window.reason, length_s, uncertainty))
    }


def _warnings(recording: Recording, found: HeartRate, vitals: Mapping[str, Vital], fps: float | None) -> set[Warned]:
    params = recording.params
    warned: set[Warned] = set()
    measured_fps = _fps(recording)
    if fps is not None and measured_fps > 0 and abs(fps - measured_fps) > params.fps_tolerance * measured_fps:
        warned.add("fps_mismatch")
    losses = [each.measured.loss for each in recording.windows if each.measured is not None]
    if losses and float(np.median(losses)) > params.dropped_share:
        warned.add("dropped_frames")
    if not recording.has_faces:
        warned.add("face_not_reported")
    if any(each.measured is not None and each.measured.rois < params.min_rois for each in found.windows):
        warned.add("single_roi")
    if recording.crowded_samples:
        warned.add("multiple_faces")
    if vitals["lf"].value is not None and vitals["lf"].window_s < _LONG_ENOUGH_S:
        warned.add("ultra_short")
    if found.is_provisional:
        warned.add("provisional")
    return warned


def _debug(recording: Recording, beats: Beats) -> dict[str, Any]:  # Any: JSON
    """What refused values would have been, for whoever wants to know why."""
    guessed = [each.raw_bpm for each in recording.windows if each.raw_bpm is not None]
    intervals = np.concatenate([each.intervals_s[each.is_usable] for each in beats.stretches] or [np.zeros(0)]) * _MS
    differences = np.concatenate([_successive_ms(each) for each in beats.stretches] or [np.zeros(0)])
    raw: dict[str, float | None] = {
        "heart_rate": _rounded(float(np.median(guessed)), 1) if guessed else None,
        "rmssd": _rounded(variability.rmssd(differences, 0).raw, 1) if len(differences) else None,
        "sdnn": _rounded(variability.sdnn(intervals, 0).raw, 1) if len(intervals) > 1 else None,
        "pnn50": _rounded(variability.pnn50(differences), 1) if len(differences) else None,
    }
    steps = [
        {"t_ms": round(each.at_s * _MS), "heart_rate": _rounded(each.raw_bpm, 1), **quality([each])}
        for each in recording.windows
    ]
    return {"raw": raw, "windows": steps}


def _with_curves(report: dict[str, Any], recording: Recording, signals: Sequence[_Signal]) -> Analysis:
    """The report with what it was read from: the stretches that passed or, where none did, all there was."""
    params = recording.params
    if not signals:
        pieces = [each for each in recording.pieces if each.count]
        if not pieces:
            return Analysis(report)
        piece = max(pieces, key=lambda each: each.count)
        frames = np.nan_to_num(piece.frames())
        band = pulses.band_of(recording.mode, piece.rate_hz, params)
        columns = pulses.pulse_of(frames, piece.rate_hz, method=recording.method, band=band, params=params)
        begin_s = (piece.begin_ms - (recording.begin_ms or 0.0)) / _MS + piece.first / piece.rate_hz
        shown = [(begin_s, piece.rate_hz, frames.mean(axis=1), columns.mean(axis=1))]
    else:
        shown = [(each.begin_s, each.rate_hz, each.rgb.mean(axis=1), each.pulse) for each in signals]
    seconds = np.concatenate([begin + np.arange(len(pulse)) / rate for begin, rate, _, pulse in shown])
    begin_s, rate, _, pulse = max(shown, key=lambda each: len(each[3]))
    spectrum = spectrum_of(pulse[:, None], rate, pulses.band_of(recording.mode, rate, params), params)
    times = np.concatenate([each.beats.times_s[1:][each.beats.is_usable] for each in signals] or [np.zeros(0)])
    intervals = np.concatenate([each.beats.intervals_s[each.beats.is_usable] for each in signals] or [np.zeros(0)])
    return Analysis(
        report,
        Curve(seconds, np.concatenate([each[3] for each in shown])),
        Curve(spectrum.grid.hz * _BPM, spectrum.power),
        Curve(times, intervals * _MS),
        np.concatenate([each[2] for each in shown]),
    )
