"""Clips of a face with a planted pulse: a freely licensed photo whose skin is made to pulse."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import numpy.typing as npt
import skimage.data

Image = npt.NDArray[np.uint8]
SIDE = 320
CLIP_FPS = 10.0
"""Of the clip that several tests share."""
_SHARE = np.array([0.002, 0.006, 0.0035], np.float32)


def photo() -> Image:
    """The astronaut of scikit-image, in the public domain: her head, as 320 x 320."""
    image: Image = cv2.resize(
        skimage.data.astronaut()[20:220, 125:325], (SIDE, SIDE), interpolation=cv2.INTER_CUBIC
    ).astype(np.uint8)
    return image


def pulsing(
    times_s: npt.NDArray[np.float64], *, bpm: float = 72.0, strength: float = 1.0, noise: float = 2.0, seed: int = 1
) -> Iterator[Image]:
    """The photo at these instants; strength 0: the same without a pulse."""
    random = np.random.default_rng(seed)
    base = photo().astype(np.float32)
    red, green, blue = base[..., 0], base[..., 1], base[..., 2]
    skin = ((red > 95) & (red > blue + 15) & (red > green)).astype(np.float32)[..., None]
    # One piece of noise, moved about: to make it is most of the work.
    grain = random.standard_normal(base.size, dtype=np.float32) * noise
    for at in times_s:
        angle = 2 * np.pi * bpm / 60 * at
        wave = np.cos(angle) + 0.3 * np.cos(2 * angle)
        frame = base * (1 - skin * _SHARE * (strength * wave))
        frame += np.roll(grain, int(random.integers(base.size))).reshape(base.shape)
        yield np.clip(np.round(frame), 0, 255).astype(np.uint8)


def write_clip(path: Path, frames: Iterator[Image], times_s: npt.NDArray[np.float64], *, codec: str = "ffv1") -> Path:
    """Write a clip without loss (or as another codec does), each frame at its own instant."""
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=max(1, round(1 / float(np.median(np.diff(times_s))))))
        stream.width, stream.height = SIDE, SIDE
        stream.pix_fmt = "bgr0" if codec == "ffv1" else "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for at, image in zip(times_s, frames, strict=True):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = round(at * 1000)
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path
