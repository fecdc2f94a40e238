"""How long a pulse takes: a minute of traces, many streams at once, and a video; in processor time, on one core."""

import gc
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from scipy import fft

from benchmarks.report import Figure, Goal
from benchmarks.stage import Options
from lifesign.vitals import Stream, analyze_traces, analyze_video
from lifesign.vitals.signal import pulse as pulses
from lifesign.vitals.signal.params import DEFAULTS
from lifesign.vitals.signal.synth import Scene, synthetic
from tests.vitals.clips import pulsing

_FPS = 30
_STREAMS = 50
_BATCH = 15
_CLIP_S = 6
_TRACE_GOAL = Goal(150)
_POS_GOAL = Goal(40)
_UPDATE_GOAL = Goal(50)
_STREAMS_GOAL = Goal(_STREAMS, is_floor=True)
_VIDEO_GOAL = Goal(2, is_floor=True)
_REFERENCE = "the same sums and transforms, of noise, on this machine"


def run(options: Options) -> list[Figure]:
    # Several threads would take more of the processor to be done sooner.
    cv2.setNumThreads(1)
    minute = synthetic(Scene(seconds=60, fps=_FPS))
    half = synthetic(Scene(seconds=30, fps=_FPS)).rgb
    band = pulses.band_of("rest", _FPS, DEFAULTS)
    return [
        _figure(
            "60 s of traces to a report", options, lambda: analyze_traces(minute.rgb, minute.t_ms), goal=_TRACE_GOAL
        ),
        _figure(
            "POS and filters over 30 s",
            options,
            lambda: pulses.pulse_of(half, _FPS, method="pos", band=band, params=DEFAULTS),
            goal=_POS_GOAL,
        ),
        *_streams(options),
        _video(options),
    ]


def _took_ms(act: Callable[[], object]) -> float:
    gc.collect()
    began = time.process_time()
    act()
    return (time.process_time() - began) * 1000


def _figure(name: str, options: Options, act: Callable[[], object], goal: Goal) -> Figure:
    act()
    values, reference = [], []
    for _ in range(options.rounds):
        values.append(_took_ms(act))
        reference.append(_took_ms(_known_work))
    return Figure(name, values, "ms of processor time", goal, reference, _REFERENCE)


def _known_work() -> None:
    """About as much arithmetic of the same kind as a minute of traces takes, which no change of ours makes quicker."""
    values = np.random.default_rng(1).standard_normal((9, 3, 900))
    for _ in range(60):
        sums = np.cumsum(values, axis=-1)
        for _ in range(12):
            sums = np.sqrt(np.abs(sums * values + values))
        np.abs(fft.rfft(values[0], 3600, axis=-1)) ** 2


def _streams(options: Options) -> list[Figure]:
    """Fifty people at once: how many one core serves, and how long the slowest update is, once segments are full."""
    made = synthetic(Scene(seconds=31 + 4 * options.rounds, fps=_FPS))
    streams = [Stream() for _ in range(_STREAMS)]
    full = 30 * _FPS
    for stream in streams:
        stream.push_rgb(made.rgb[:full], made.t_ms[:full])
    served, slowest, reference = [], [], []
    for number in range(options.rounds):
        since, updates = full + number * 4 * _FPS, []
        began = time.process_time()
        for at in range(since, since + 4 * _FPS, _BATCH):
            for stream in streams:
                pushed = time.process_time()
                judged = stream.push_rgb(made.rgb[at : at + _BATCH], made.t_ms[at : at + _BATCH])
                if judged:
                    updates.append((time.process_time() - pushed) * 1000)
        served.append(_STREAMS * 4 / (time.process_time() - began))
        slowest.append(float(np.quantile(updates, 0.99)))
        reference.append(_took_ms(_known_work))
    return [
        Figure("streams of 30 images a second", served, "streams a core serves", _STREAMS_GOAL),
        Figure("an update of a stream, p99", slowest, "ms of processor time", _UPDATE_GOAL, reference, _REFERENCE),
    ]


def _video(options: Options) -> Figure:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "clip.mp4"
        write_clip(path, _CLIP_S)
        values = [_CLIP_S * 1000 / _took_ms(lambda: analyze_video(path)) for _ in range(options.rounds)]
    return Figure("video of 640 x 480, decoded and analysed", values, "times real time", _VIDEO_GOAL)


def write_clip(path: Path, seconds: int) -> None:
    """A face with a pulse, as cameras and phones write it."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("libx264", rate=_FPS)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 640, 480, "yuv420p", 4_000_000
        stream.time_base = stream.codec_context.time_base = Fraction(1, _FPS)
        for index, image in enumerate(pulsing(np.arange(seconds * _FPS) / _FPS)):
            scene = np.full((480, 640, 3), 90, np.uint8)
            scene[:, 80:560] = cv2.resize(image, (480, 480), interpolation=cv2.INTER_LINEAR)
            frame = av.VideoFrame.from_ndarray(scene, format="rgb24")
            frame.pts, frame.time_base = index, Fraction(1, _FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
