"""Frames out of video files and cameras, each with the instant at which it is shown."""

import logging
import os
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO, NamedTuple

import av
import cv2
import numpy as np
from av.error import FFmpegError

from lifesign.vitals.rules import VideoCode, VideoError, is_video
from lifesign.vitals.signal.traces import MAX_SAMPLES
from lifesign.vitals.video.detector import Image

MIN_WIDTH, MIN_HEIGHT = 160, 120
MAX_SIDE = 4096
MAX_SECONDS = 300.0
_MS = 1000.0
_LOSSY = frozenset({"h264", "vp8", "vp9"})
_LOW_BITS_PER_S = 2_000_000
_QUARTER = 90
_HEAD_BYTES = 16
_DEVICES = Path("/dev")

# What FFmpeg thinks of a file is told by the exception; its own lines would stand between those of the server.
av.logging.set_level(None)
logging.getLogger("libav").setLevel(logging.CRITICAL)


class Frame(NamedTuple):
    """An image and the instant at which it is shown."""

    t_ms: float
    image: Image


def _head(source: str | Path | BinaryIO) -> bytes:
    """The first bytes of a file; none where they cannot be had."""
    try:
        if isinstance(source, str | Path):
            with Path(source).open("rb") as file:
                return file.read(_HEAD_BYTES)
        source.seek(0)
        return source.read(_HEAD_BYTES)
    except OSError:
        return b""


def _code_of(source: str | Path | BinaryIO) -> VideoCode:
    """What is wrong with a file that cannot be opened as a video: what begins as one and is none is broken."""
    if isinstance(source, str | Path) and Path(source).is_dir():
        return "unsupported"
    head = _head(source)
    if head:
        return "decode_failed" if is_video(head) else "unsupported"
    return "empty"


class Video:
    """A video file that is open. Raises VideoError, at once or while its frames are read."""

    def __init__(self, source: str | Path | BinaryIO) -> None:
        try:
            self._container = av.open(str(source) if isinstance(source, str | Path) else source, mode="r")
        except FileNotFoundError:
            raise VideoError("not_found", f"{source}: no such file") from None
        except PermissionError:
            raise VideoError("not_found", f"{source}: no permission to read it") from None
        except (FFmpegError, OSError, ValueError) as error:
            raise VideoError(_code_of(source), f"not a video that can be read: {_words(error)}") from None
        try:
            self._stream = self._container.streams.video[0]
        except IndexError:
            self._container.close()
            raise VideoError("decode_failed", "there are no images in it") from None
        # Without a decoder a stream has none of what decoders tell.
        if not hasattr(self._stream, "width"):
            self._container.close()
            raise VideoError("decode_failed", "its images are coded in a way that is not known here")
        # One core for an analysis: the decoder would start a thread for each.
        self._stream.codec_context.thread_count = 1
        wide, high = self._stream.width, self._stream.height
        if wide < MIN_WIDTH or high < MIN_HEIGHT:
            self._container.close()
            raise VideoError(
                "unsupported", f"the image is {wide} x {high}, which is less than {MIN_WIDTH} x {MIN_HEIGHT}"
            )
        if max(wide, high) > MAX_SIDE:
            self._container.close()
            raise VideoError("unsupported", _too_large(wide, high))

    def close(self) -> None:
        """Let go of the file."""
        self._container.close()

    @property
    def is_low_bitrate(self) -> bool:
        """Whether it is compressed so much that little of a pulse is left."""
        bits = self._stream.bit_rate or self._container.bit_rate or 0
        return self._stream.codec_context.name in _LOSSY and 0 < bits < _LOW_BITS_PER_S

    @property
    def fps(self) -> float | None:
        """The frame rate that the file claims."""
        rate = self._stream.average_rate
        return float(rate) if rate else None

    def frames(self) -> Iterator[Frame]:
        """Images in the order in which they are shown, upright. Raises VideoError."""
        begin: float | None = None
        last_ms = -1.0
        count = 0
        try:
            for frame in self._container.decode(self._stream):
                # Without a time a frame says nothing of a rate. The library's types do not know of such frames.
                if frame.pts is None:
                    continue
                begin = frame.time if begin is None else begin
                t_ms = (frame.time - begin) * _MS
                # Some files show two frames at once; the second says nothing of time.
                if count and t_ms <= last_ms:
                    continue
                if t_ms > MAX_SECONDS * _MS:
                    raise VideoError("unsupported", f"the video is longer than {MAX_SECONDS / 60:g} minutes")
                if count >= MAX_SAMPLES:
                    raise VideoError("unsupported", f"the video has more than {MAX_SAMPLES:,} images")
                # Later ones may be larger than the first, as which the file announces them all.
                if max(frame.width, frame.height) > MAX_SIDE:
                    raise VideoError("unsupported", _too_large(frame.width, frame.height))
                count, last_ms = count + 1, t_ms
                image: Image = frame.to_ndarray(format="rgb24").astype(np.uint8, copy=False)
                yield Frame(t_ms, _upright(image, round(frame.rotation / _QUARTER) % 4))
        except FFmpegError as error:
            # What came before the damage may be long enough.
            if not count:
                raise VideoError("decode_failed", f"the images cannot be decoded: {_words(error)}") from None
        if not count:
            raise VideoError("empty", "there are no images in it")


def _too_large(wide: int, high: int) -> str:
    return f"the image is {wide} x {high}, which is more than {MAX_SIDE} a side"


def _upright(image: Image, turns: int) -> Image:
    """An image turned to the left by so many quarters."""
    return np.ascontiguousarray(np.rot90(image, turns)) if turns else image


def _words(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def camera_frames(number: int, seconds: float) -> Iterator[Frame]:
    """Images of a camera of this machine, for so many seconds by its own clock. Raises VideoError."""
    # What it tries in vain on its way is of no use to a person.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    camera = cv2.VideoCapture(number)
    try:
        if not camera.isOpened():
            raise VideoError("not_found", _why_no_camera(number))
        begin = cv2.getTickCount()
        last_ms = -1.0
        while True:
            is_there, image = camera.read()
            t_ms = (cv2.getTickCount() - begin) / cv2.getTickFrequency() * _MS
            if not is_there:
                raise VideoError("decode_failed", f"camera {number} stopped sending images after {t_ms / _MS:.1f} s")
            if t_ms > seconds * _MS:
                return
            if t_ms > last_ms:
                last_ms = t_ms
                yield Frame(t_ms, np.ascontiguousarray(image[..., ::-1]))
    finally:
        camera.release()


def _why_no_camera(number: int) -> str:
    """What keeps a camera from being opened, which OpenCV does not tell."""
    device = _DEVICES / f"video{number}"
    try:
        os.close(os.open(device, os.O_RDWR | os.O_NONBLOCK))
    except FileNotFoundError:
        return f"there is no camera {number}"
    except PermissionError:
        return f"camera {number} may not be used: {device} takes a permission that this user does not have"
    except OSError as error:
        return f"camera {number} cannot be opened: {error.strerror}"
    return f"camera {number} cannot be opened: it is used by another program, or is none"


def opened(source: str | Path | BinaryIO) -> closing[Video]:
    """A video that is closed at the end of a `with` block. Raises VideoError."""
    return closing(Video(source))
