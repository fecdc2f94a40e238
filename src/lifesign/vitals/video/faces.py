"""One face followed through the frames of a video, and what each frame says of it."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lifesign.vitals.signal.params import FloatArray
from lifesign.vitals.signal.traces import Samples
from lifesign.vitals.video.detector import Detector, Face, Image, face_around, overlap
from lifesign.vitals.video.regions import REGIONS, Colours, colours_of

_EVERY = 5
_FOUND, _LOST = 0.6, 0.4
_LOST_MS = 500.0
_IS_FACE = 0.5
_SMOOTHING = 0.5
_SAME = 0.3
_SIMILAR = 0.7


@dataclass(frozen=True, slots=True)
class Reading:
    """What one frame says. box: centre and width in pixels; is_crowded: another face of similar size is there."""

    colours: Colours
    score: float
    box: tuple[float, float, float]
    is_crowded: bool = False


class FaceReader:
    """Frames in their order. Not for two threads at once."""

    def __init__(self) -> None:
        self._detector = Detector()
        self._count = 0
        self._face: Face | None = None
        self._points: FloatArray | None = None
        self._seen_ms = 0.0
        self._box = (0.0, 0.0, 1.0)
        self._swapped = False

    def read(self, image: Image, t_ms: float) -> Reading:
        """The colours of the largest face in an image."""
        if self._face is None or self._count % _EVERY == 0:
            self._look(image, t_ms)
        self._count += 1
        if self._face is None:
            return self._nothing(0.0)
        mesh = self._detector.mesh(image, self._face)
        if mesh.score < _IS_FACE:
            self._face = self._points = None
            return self._nothing(mesh.score)
        smooth = mesh.points if self._points is None else _SMOOTHING * (mesh.points + self._points)
        self._points = smooth
        self._face = face_around(mesh)
        around = face_around(mesh._replace(points=smooth))
        self._box = (around.x, around.y, float(np.ptp(smooth[:, 0])))
        return Reading(colours_of(image, smooth), mesh.score, self._box, self._swapped)

    def _look(self, image: Image, t_ms: float) -> None:
        """See where faces are now; keep the one that is followed while it is the largest, or none is much larger."""
        faces = self._detector.faces(image, _LOST)
        followed = self._face
        same = [] if followed is None else [each for each in faces if overlap(each, followed) >= _SAME]
        if same:
            self._seen_ms = t_ms
        elif followed is not None and t_ms - self._seen_ms >= _LOST_MS:
            followed = self._face = self._points = None
        found = [each for each in faces if each.score >= _FOUND]
        if not found:
            self._swapped = False
            return
        largest = found[0]
        is_other = followed is not None and overlap(largest, followed) < _SAME
        self._swapped = bool(is_other and same and (same[0].size / largest.size) ** 2 > _SIMILAR)
        if followed is None or (is_other and not same) or is_other:
            self._face, self._points, self._seen_ms = largest, None, t_ms

    def _nothing(self, score: float) -> Reading:
        off = Colours(np.full((len(REGIONS), 3), np.nan), np.zeros(len(REGIONS)))
        return Reading(off, min(score, _IS_FACE - 1e-6), self._box)


@dataclass(slots=True)
class Gathered:
    """Readings in a row, which become samples."""

    times: list[float] = field(default_factory=list)
    readings: list[Reading] = field(default_factory=list)

    def add(self, t_ms: float, reading: Reading) -> None:
        """One more frame."""
        self.times.append(t_ms)
        self.readings.append(reading)

    def samples(self) -> Samples:
        """All of them as arrays."""
        column: Callable[[list[object]], FloatArray] = lambda values: np.array(values, np.float64)  # noqa: E731 - one word for five lines
        return Samples(
            column([*self.times]),
            column([each.colours.rgb for each in self.readings]),
            face=column([each.score for each in self.readings]),
            box=column([each.box for each in self.readings]),
            clipped=column([each.colours.clipped for each in self.readings]),
            crowded=np.array([each.is_crowded for each in self.readings], np.bool_),
        )
