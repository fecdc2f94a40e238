"""Made-up faces as numbers: a pulse of a known rate on skin of a known colour, and whatever spoils it.

For tests, benchmarks and `lifesign vitals synth`; nothing here is used to analyse anything. The same arguments give
the same numbers.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from lifesign.vitals.signal.params import FloatArray

Skin = Literal["light", "medium", "dark"]
SKINS: tuple[Skin, ...] = get_args(Skin)
_SKIN_RGB: dict[Skin, tuple[float, float, float]] = {
    "light": (190.0, 145.0, 125.0),
    "medium": (140.0, 100.0, 80.0),
    "dark": (70.0, 45.0, 35.0),
}
_PULSE_SHARE = np.array([0.002, 0.006, 0.0035])
_ROI_STRENGTH = np.array([1.0, 0.9, 0.85])
_ROI_DELAY_S = np.array([0.0, 0.008, 0.012])
_SECOND_HARMONIC = 0.3
_BREATH_SHARE = 0.004
_BPM = 60.0


@dataclass(frozen=True, slots=True)
class Scene:
    """What is simulated. Shares are relative, noise in units of 0 to 255, rates in Hz unless the name says bpm.

    bpm_end: a chirp to this rate; bpm_step: a jump to it in the middle. breath_per_minute: 0 for none. drop: share of
    frames that are missing; jitter_ms: of their times. flicker: strength of a light that flickers; motion: of a head
    that moves, as changes of brightness. light: 1 is a bright room.
    """

    bpm: float = 72.0
    seconds: float = 30.0
    fps: float = 30.0
    noise: float = 0.25
    skin: Skin = "light"
    seed: int = 1
    bpm_end: float | None = None
    bpm_step: float | None = None
    interval_sd_ms: float = 0.0
    breath_per_minute: float = 0.0
    pulse: float = 1.0
    drop: float = 0.0
    jitter_ms: float = 0.0
    flicker: float = 0.0
    flicker_hz: float = 1.9
    motion: float = 0.0
    light: float = 1.0
    rois: int = 3


@dataclass(frozen=True, slots=True)
class Synthetic:
    """t_ms: (n,); rgb: (n, regions, 3); beats_s: when the pulse peaks, in the first region."""

    t_ms: FloatArray
    rgb: FloatArray
    beats_s: FloatArray


def synthetic(scene: Scene) -> Synthetic:
    """The frames of a scene."""
    random = np.random.default_rng(scene.seed)
    count = round(scene.seconds * scene.fps)
    times = np.arange(count) / scene.fps
    if scene.jitter_ms:
        times = np.sort(times + random.normal(0, scene.jitter_ms / 1000, count))
        times = np.maximum.accumulate(times + np.arange(count) * 1e-6)
    if scene.drop:
        kept = random.random(count) >= scene.drop
        kept[[0, -1]] = True
        times = times[kept]
    phase_at, phases, beats = _phase(scene, random)
    rgb = np.empty((len(times), scene.rois, 3))
    common = np.ones(len(times))
    if scene.flicker:
        common *= 1 + scene.flicker * np.sin(2 * np.pi * scene.flicker_hz * times)
    if scene.breath_per_minute:
        common *= 1 + _BREATH_SHARE * np.sin(2 * np.pi * scene.breath_per_minute / _BPM * times)
    if scene.motion:
        common *= 1 + scene.motion * _wander(times, random)
    base = np.array(_SKIN_RGB[scene.skin]) * scene.light
    for roi in range(scene.rois):
        delay = _ROI_DELAY_S[roi % len(_ROI_DELAY_S)]
        wave = _wave(np.interp(times - delay, phase_at, phases))
        strength = scene.pulse * _ROI_STRENGTH[roi % len(_ROI_STRENGTH)]
        colour = base * (1 - strength * _PULSE_SHARE * wave[:, None]) * common[:, None]
        rgb[:, roi] = colour + random.normal(0, scene.noise, (len(times), 3))
    return Synthetic(times * 1000.0, np.clip(rgb, 0, 255), beats[(beats >= 0) & (beats <= times[-1])])


def _phase(scene: Scene, random: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Cycles over seconds, from before the first frame on, and the instants of whole cycles."""
    beats = [-2.0]
    number = 0
    breath_hz = scene.breath_per_minute / _BPM
    while beats[-1] < scene.seconds + 2:
        now = beats[-1]
        share = float(np.clip(now / scene.seconds, 0, 1))
        bpm = scene.bpm
        if scene.bpm_end is not None:
            bpm += (scene.bpm_end - scene.bpm) * share
        if scene.bpm_step is not None and now >= scene.seconds / 2:
            bpm = scene.bpm_step
        interval = _BPM / bpm
        if breath_hz:
            interval *= 1 + 0.03 * np.sin(2 * np.pi * breath_hz * now)
        if scene.interval_sd_ms:
            interval += float(random.normal(0, scene.interval_sd_ms / 1000))
        beats.append(now + max(interval, 0.2))
        number += 1
    at = np.array(beats)
    return at, np.arange(len(at), dtype=np.float64), at


def _wave(phase: FloatArray) -> FloatArray:
    """A pulse with a second harmonic, highest where the phase is whole; from about -1 to 1."""
    angle = 2 * np.pi * phase
    wave: FloatArray = np.cos(angle) + _SECOND_HARMONIC * np.cos(2 * angle)
    return wave


def _wander(times: FloatArray, random: np.random.Generator) -> FloatArray:
    """A slow random walk with jerks, of unit size."""
    steps = np.cumsum(random.normal(0, 1, len(times)))
    steps -= np.linspace(steps[0], steps[-1], len(steps))
    size = float(np.abs(steps).max()) or 1.0
    shaken: FloatArray = steps / size + 0.5 * np.sin(2 * np.pi * 1.3 * times + random.uniform(0, 6))
    return shaken


def noise_trace(seconds: float, fps: float, seed: int, size: float = 1.0) -> Synthetic:
    """White noise on three regions, without any pulse."""
    return synthetic(Scene(seconds=seconds, fps=fps, seed=seed, noise=size, pulse=0.0))
