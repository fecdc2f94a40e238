"""From a video, images or a camera to a report."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import cv2
import numpy as np
import numpy.typing as npt

from lifesign.vitals.analyze import analyze_samples, require_method, require_mode
from lifesign.vitals.rules import InvalidTraces
from lifesign.vitals.signal.params import DEFAULTS, Params, Warned
from lifesign.vitals.signal.report import Analysis
from lifesign.vitals.signal.slow import Calibration
from lifesign.vitals.signal.traces import MIN_SAMPLES, Numbers, Samples, require_increasing, times_of
from lifesign.vitals.video.faces import FaceReader, Gathered
from lifesign.vitals.video.files import Frame, opened

_IMAGE_DIMENSIONS = 4


def analyze_video(
    source: str | Path | BinaryIO,
    *,
    mode: str = "rest",
    method: str = "pos",
    calibration: Calibration | None = None,
    params: Params = DEFAULTS,
    debug: bool = False,
) -> Analysis:
    """The report of the largest face in a video file. Raises VideoError, ValueError, ModelError."""
    known_mode, known_method = require_mode(mode), require_method(method)
    warnings: list[Warned] = []
    with opened(source) as video:
        samples = read_faces(video.frames())
        if video.is_low_bitrate:
            warnings.append("low_bitrate")
        fps = video.fps
    return analyze_samples(
        samples,
        mode=known_mode,
        method=known_method,
        fps=fps,
        calibration=calibration,
        params=params,
        warnings=warnings,
        debug=debug,
    )


def analyze_frames(
    frames: Sequence[npt.NDArray[np.uint8]] | npt.NDArray[np.uint8],
    *,
    fps: float | None = None,
    t_ms: Numbers | None = None,
    mode: str = "rest",
    method: str = "pos",
    **options: Any,
) -> Analysis:
    """The report of images in their order: uint8 (n, height, width, 3), RGB; options as `analyze_video` has them.

    Raises ValueError, ModelError.
    """
    known_mode, known_method = require_mode(mode), require_method(method)
    images = np.asarray(frames)
    if images.ndim != _IMAGE_DIMENSIONS or images.shape[3] != 3 or images.dtype != np.uint8:  # noqa: PLR2004 - RGB
        raise InvalidTraces("frames must be images of one size, uint8 (n, height, width, 3), RGB")
    if len(images) < MIN_SAMPLES:
        raise InvalidTraces("Too few samples")
    times = times_of(t_ms, fps, len(images))
    require_increasing(times)
    samples = read_faces(Frame(float(at), image) for at, image in zip(times, images, strict=True))
    return analyze_samples(samples, mode=known_mode, method=known_method, fps=fps, **options)


def read_faces(frames: Iterable[Frame]) -> Samples:
    """The colours of the face in every frame. Raises ModelError."""
    # One core: the networks are small, and the threads that would share them cost more than they do.
    cv2.setNumThreads(1)
    reader, gathered = FaceReader(), Gathered()
    for frame in frames:
        gathered.add(frame.t_ms, reader.read(frame.image, frame.t_ms))
    return gathered.samples()
