"""What goes wrong with vitals in words that callers are told, who may try the demo, and when a pulse is a check-in."""

import re
import struct
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

VITALS_MISSING = 'Vitals support is not installed (pip install "lifesign[vitals]")'
VIDEO_MISSING = 'Video support is not installed (pip install "lifesign[vitals-video]")'

DEMO_S = 60
LEAST_STEP_MS = 0.0009
"""What is nearer to the instant before is not later: no camera is so quick, and arithmetic divides by it.

A tenth less than a thousandth: what is written with three decimals may be that much nearer.
"""

VideoCode = Literal["not_found", "unsupported", "decode_failed", "empty"]


class ExtraMissing(ImportError):
    """What was asked for needs an extra that is not installed; the message names it."""


class InvalidTraces(ValueError):
    """Traces that cannot be analysed. The message is for whoever sent them."""


class TooManySamples(InvalidTraces):
    """Traces of more samples than one analysis takes."""


class VideoError(Exception):
    """A file that is no video that can be read. `code`: why, for programs."""

    def __init__(self, code: VideoCode, message: str) -> None:
        super().__init__(message)
        self.code = code

    def __reduce__(self) -> tuple[type["VideoError"], tuple[VideoCode, str]]:
        # It comes out of other processes.
        return VideoError, (self.code, str(self))


class ModelError(Exception):
    """A model file is not the one that this version was made for."""


# Of requests --------------------------------------------------------------------------------------------------------
class FieldRefused(Exception):
    """A part of a request cannot be; the message is for whoever sent it."""


class UnsupportedMedia(Exception):
    """What was sent is neither an image nor a video of a known kind."""

    def __init__(self) -> None:
        super().__init__("Unsupported media type")


class NotEnoughFrames(Exception):
    """Too few images for a pulse to be in them."""

    def __init__(self, count: int) -> None:
        super().__init__(
            f"Not enough frames: a pulse cannot be read from {count} image(s). "
            "Send at least 8 frames per second over 10 seconds or more."
        )


class NoPulse(Exception):
    """There is no heart rate to be told. `reason`: as the report has it."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"No measurable pulse: {reason}")
        self.reason = reason


class ServerBusy(Exception):
    """As many analyses wait as may."""

    def __init__(self) -> None:
        super().__init__("Server is busy")


LEAST_BYTES_PER_S = 16 << 10
"""At which a recording has to come in, once it has begun to."""


class UploadTooSlow(Exception):
    """A recording comes so slowly that its place is given to others."""

    def __init__(self, total_s: float) -> None:
        super().__init__(
            f"The upload is too slow: it has to arrive within {total_s:g} s, at {LEAST_BYTES_PER_S >> 10} KiB per "
            "second or more. Send less, or over a better connection"
        )


class AnalysisDied(Exception):
    """A worker crashed or took too long, or too much memory, over what it was given."""

    def __init__(self) -> None:
        super().__init__("The recording cannot be analysed within the limits of this server")


class MeasurementNotFound(Exception):
    """The key has no measurement with this id."""


class StreamNotFound(Exception):
    """The key has no stream session with this id."""


class DemoSwitchedOff(Exception):
    """There is no demo on this server."""


class DemoLimitReached(Exception):
    """An address has tried the demo as often as it may within an hour."""

    def __init__(self, limit: int, retry_after_s: int) -> None:
        super().__init__(f"Demo limit reached: {limit} requests per hour. Request a free API key for more.")
        self.retry_after_s = retry_after_s


class WatchInvalid(Exception):
    """What is wanted of a heartbeat cannot be."""

    def __init__(self) -> None:
        super().__init__("Invalid watch")


class WatchNotAllowed(Exception):
    """Whoever wants a heartbeat to be checked in does not show a key that may."""

    def __init__(self) -> None:
        super().__init__("A key with scope checkins:write is required to watch a heartbeat")


class WatchedNotFound(Exception):
    """There is no such heartbeat in the project of the key."""

    def __init__(self) -> None:
        super().__init__("Heartbeat not found")


# Images and videos by their first bytes -----------------------------------------------------------------------------
_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
_MATROSKA, _RIFF, _AVI, _FTYP = b"\x1aE\xdf\xa3", b"RIFF", b"AVI ", b"ftyp"
_FRAMES_OF_JPEG = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Any number of bytes 255 may stand before the one that says what follows.
_MARKER = re.compile(rb"\xff++[^\xff]", re.DOTALL)
_MAX_SEGMENTS = 200


def is_image(content: bytes) -> bool:
    """Whether this begins as JPEG or PNG."""
    return content.startswith((_JPEG, _PNG))


def is_video(head: bytes) -> bool:
    """Whether this begins as MP4 or MOV, WebM or MKV, or AVI."""
    return head[4:8] == _FTYP or head.startswith(_MATROSKA) or (head.startswith(_RIFF) and head[8:12] == _AVI)


def image_side(content: bytes) -> int | None:
    """The longer side of a JPEG or PNG as its header says; None when it says nothing.

    Looks at no more than some segments of a JPEG: a file of millions of empty ones would take seconds.
    """
    try:
        if content.startswith(_PNG):
            wide, high = struct.unpack(">II", content[16:24])
            return max(int(wide), int(high))
        if not content.startswith(_JPEG):
            return None
        at = 2
        for _ in range(_MAX_SEGMENTS):
            found = _MARKER.match(content, at)
            if found is None:
                return None
            after = found.end()
            if content[after - 1] in _FRAMES_OF_JPEG:
                high, wide = struct.unpack(">HH", content[after + 3 : after + 7])
                return max(int(wide), int(high))
            at = after + int.from_bytes(content[after : after + 2], "big")
    except struct.error:
        pass
    return None


# The demo -----------------------------------------------------------------------------------------------------------
_HOUR_MS = 3_600_000


@dataclass(slots=True)
class DemoGate:
    """Who asked for the demo within the last hour. In memory: the demo stores nothing, and works without a database."""

    limit: int = 10
    networks: int = 10_000
    _asked: OrderedDict[str, deque[int]] = field(default_factory=OrderedDict)

    def admit(self, network: str, now_ms: int) -> None:
        """Count one request. Raises DemoLimitReached, which does not count."""
        times = self._asked.setdefault(network, deque())
        self._asked.move_to_end(network)
        while times and times[0] <= now_ms - _HOUR_MS:
            times.popleft()
        if len(times) >= self.limit:
            raise DemoLimitReached(self.limit, -(-(times[0] + _HOUR_MS - now_ms) // 1000))
        times.append(now_ms)
        if len(self._asked) > self.networks:
            self._asked.popitem(last=False)


# Watching a pulse ---------------------------------------------------------------------------------------------------
_MEDIAN_OF_S = 30.0
_MEDIAN_LEAST = 3
_SHORTEST_S, _LONGEST_S = 10, 3600
_LOWEST_BPM, _HIGHEST_BPM = 20, 300
_MAX_NAME = 200


@dataclass(frozen=True, slots=True)
class Watch:
    """A heartbeat that a pulse checks in: at most every `every_s`, with limits that make it unhealthy."""

    heartbeat: str
    every_s: int = 30
    min_bpm: float | None = None
    max_bpm: float | None = None
    include_value: bool = False

    def is_beyond(self, heart_rate: float) -> bool:
        """Whether a heart rate is outside the limits."""
        low, high = self.min_bpm, self.max_bpm
        return (low is not None and heart_rate < low) or (high is not None and heart_rate > high)


def watch_in(value: object) -> Watch:
    """The watch that a JSON value holds. Raises WatchInvalid."""
    if not isinstance(value, dict):
        raise WatchInvalid
    heartbeat, every_s = value.get("heartbeat"), value.get("every_s", 30)
    include_value = value.get("include_value", False)
    if not isinstance(heartbeat, str) or not isinstance(include_value, bool):
        raise WatchInvalid
    if not heartbeat.isprintable() or not 1 <= len(heartbeat) <= _MAX_NAME:
        # What no heartbeat is called, some databases cannot even be asked for.
        raise WatchInvalid
    if isinstance(every_s, bool) or not isinstance(every_s, int) or not _SHORTEST_S <= every_s <= _LONGEST_S:
        raise WatchInvalid
    low, high = _limit(value, "min_bpm"), _limit(value, "max_bpm")
    if low is not None and high is not None and low >= high:
        raise WatchInvalid
    return Watch(heartbeat, every_s, low, high, include_value)


def _limit(value: Mapping[str, Any], name: str) -> float | None:  # Any: JSON
    limit = value.get(name)
    if limit is None:
        return None
    if isinstance(limit, bool) or not isinstance(limit, int | float) or not _LOWEST_BPM <= limit <= _HIGHEST_BPM:
        raise WatchInvalid
    return float(limit)


@dataclass(frozen=True, slots=True)
class Beat:
    """A check-in to be made."""

    is_healthy: bool
    heart_rate: float
    confidence: float


@dataclass(slots=True)
class Remembered:
    """What whole recordings have checked in of late, so that many in a row check in as seldom as a stream would."""

    heartbeats: int = 10_000
    _sent: OrderedDict[tuple[str, str], tuple[float, bool]] = field(default_factory=OrderedDict)

    def due(self, of: tuple[str, str], watch: Watch, value: tuple[float, float], at_s: float) -> Beat | None:
        """The check-in that a heart rate and its confidence call for now; `sent` says when it was made.

        of: project and heartbeat.
        """
        heart_rate, confidence = value
        is_outside = watch.is_beyond(heart_rate)
        sent_at_s, was_outside = self._sent.get(of, (None, False))
        if is_outside == was_outside and sent_at_s is not None and (is_outside or at_s - sent_at_s < watch.every_s):
            return None
        return Beat(not is_outside, heart_rate, confidence)

    def sent(self, of: tuple[str, str], beat: Beat, at_s: float) -> None:
        """The check-in was made; one that failed is due again."""
        self._sent[of] = (at_s, not beat.is_healthy)
        self._sent.move_to_end(of)
        if len(self._sent) > self.heartbeats:
            self._sent.popitem(last=False)


@dataclass(slots=True)
class Watching:
    """What a watched pulse has said so far. Instants in seconds of signal.

    A refused value is never handed in: silence lets the deadline of the heartbeat do its work.
    """

    watch: Watch
    _given: deque[tuple[float, float]] = field(default_factory=deque)
    _sent_at_s: float | None = None
    _is_outside: bool = False

    def due(self, at_s: float, heart_rate: float, confidence: float) -> Beat | None:
        """The check-in that a given heart rate calls for now; `sent` says when it was made."""
        self._given.append((at_s, heart_rate))
        while self._given[0][0] <= at_s - _MEDIAN_OF_S:
            self._given.popleft()
        is_outside = self._is_beyond()
        if is_outside != self._is_outside:
            return Beat(not is_outside, heart_rate, confidence)
        if is_outside:
            return None
        is_time = self._sent_at_s is None or at_s - self._sent_at_s >= self.watch.every_s
        return Beat(is_healthy=True, heart_rate=heart_rate, confidence=confidence) if is_time else None

    def sent(self, beat: Beat, at_s: float) -> None:
        """The check-in was made; one that failed is due again."""
        self._sent_at_s = at_s
        self._is_outside = not beat.is_healthy

    def _is_beyond(self) -> bool:
        """Whether the median of what was given lately is outside the limits; as before, while there is too little."""
        if len(self._given) < _MEDIAN_LEAST:
            return self._is_outside
        values = sorted(value for _, value in self._given)
        half = len(values) // 2
        median = values[half] if len(values) % 2 else (values[half - 1] + values[half]) / 2
        return self.watch.is_beyond(median)
