"""Every number that decides, and the words of a report."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]

Mode = Literal["rest", "exercise"]
Method = Literal["pos", "chrom", "lgi", "omit", "pbv", "green"]
MODES: tuple[Mode, ...] = get_args(Mode)
METHODS: tuple[Method, ...] = get_args(Method)

Reason = Literal[
    "no_face",
    "multiple_faces",
    "frame_rate",
    "gap",
    "too_short",
    "overexposed",
    "low_light",
    "motion",
    "flicker",
    "low_snr",
    "unstable",
    "artefacts",
    "jitter",
    "disagreement",
    "not_calibrated",
    "out_of_calibration",
]
REASONS: tuple[Reason, ...] = get_args(Reason)
"""In the order in which one is given when several apply."""

Warned = Literal[
    "fps_mismatch",
    "dropped_frames",
    "face_not_reported",
    "single_roi",
    "multiple_faces",
    "low_bitrate",
    "ultra_short",
    "provisional",
    "auto_exposure",
]
WARNINGS: tuple[Warned, ...] = get_args(Warned)

UNITS: dict[str, str | None] = {
    "heart_rate": "bpm",
    "rmssd": "ms",
    "sdnn": "ms",
    "pnn50": "%",
    "lf": "ms2",
    "hf": "ms2",
    "lf_hf": None,
    "stress_index": None,
    "stress_sqrt": None,
    "respiration_rate": "1/min",
    "spo2": "%",
}
"""Every vital of a report, and its unit."""

DISCLAIMER = "Wellness estimate from camera images. Not a medical device. Not for diagnosis, treatment or emergencies."
VERSION = "1.0"


@dataclass(frozen=True, slots=True)
class Params:
    """The numbers of spec "Vitals", sections 2 to 4. Durations in seconds, rates in Hz unless the name says bpm."""

    # Time base
    rate_hz: float = 30.0
    min_rate_hz: float = 8.0
    gap_s: float = 0.5
    fps_tolerance: float = 0.05
    # Pulse
    running_mean_s: float = 1.6
    detrend_lambda: float = 100.0
    filter_order: int = 3
    low_hz: float = 0.7
    high_hz_rest: float = 3.0
    high_hz_exercise: float = 4.0
    # Windows
    segment_s: float = 30.0
    window_s: float = 10.0
    min_window_s: float = 8.0
    step_s: float = 1.0
    roi_off_share: float = 0.2
    # Spectrum
    bin_bpm: float = 0.5
    min_weight: float = 0.05
    octave_amplitude: float = 0.5
    octave_gain: float = 0.1
    peaks: int = 3
    stubborn_s: float = 5.0
    """A peak that stays the highest for so long is believed, wherever the last value was."""
    # Gate
    snr_db: float = 1.0
    autocorrelation: float = 0.5
    single_roi_snr_db: float = 3.0
    single_roi_autocorrelation: float = 0.6
    min_rois: int = 2
    agreement: float = 2 / 3
    agreement_bpm: float = 5.0
    peak_hz: float = 0.1
    motion: float = 0.15
    luminance: float = 15.0
    clipped: float = 0.2
    loss: float = 0.3
    face_score: float = 0.5
    flicker_db: float = 8.0
    flicker_correlation: float = 0.8
    flicker_balance: float = 0.25
    single_roi_cap: float = 0.8
    # The value of a recording
    min_accepted: float = 0.3
    min_uncertainty_bpm: float = 0.5
    unstable_bpm: float = 5.0
    """Accepted windows that follow each other differ by more, in the median: no value."""
    dropped_share: float = 0.05
    # Beats
    beat_low: float = 0.6
    beat_high: float = 2.2
    beat_rate_hz: float = 240.0
    beat_distance: float = 0.6
    interval_min_s: float = 0.33
    interval_max_s: float = 1.5
    interval_change: float = 0.2
    beats_accepted: float = 0.8
    jitter_ms: float = 25.0
    jitter_pnn50_ms: float = 10.0
    # Respiration
    breath_low_hz: float = 0.1
    breath_high_hz: float = 0.5
    breath_agreement: float = 2.0
    breath_share: float = 0.5
    """A modulation counts when so much of its power lies within 1.5 breaths a minute of its peak: less is noise."""

    def high_hz(self, mode: Mode) -> float:
        """The upper end of the band in which a pulse is looked for."""
        return self.high_hz_exercise if mode == "exercise" else self.high_hz_rest


DEFAULTS = Params()
