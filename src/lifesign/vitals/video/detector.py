"""Where faces are in an image, and where the points of a face are: the two networks and their arithmetic."""

from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from lifesign.vitals.signal.params import FloatArray
from lifesign.vitals.video.models import DETECTOR, LANDMARKS, network_of

Image = npt.NDArray[np.uint8]
"""(height, width, 3), RGB."""

_SIDE = 128
_MESH_SIDE = 192
_POINTS = 468
# Of the detector's grid: side, and boxes per place.
_GRIDS = ((16, 2), (8, 6))
_OVERLAP = 0.3
_MARGIN = 1.5
_LEFT_EYE, _RIGHT_EYE = 33, 263
_LARGEST_LOGIT = 80.0


class Face(NamedTuple):
    """A face in pixels: centre, side of the square around it, angle of the line through the eyes (radians), score."""

    x: float
    y: float
    size: float
    angle: float
    score: float


class Mesh(NamedTuple):
    """The points of a face, (468, 2) in pixels, and how sure it is that it is one."""

    points: FloatArray
    score: float


def _anchors() -> FloatArray:
    rows = []
    for side, boxes in _GRIDS:
        for row in range(side):
            for column in range(side):
                rows += [((column + 0.5) / side, (row + 0.5) / side)] * boxes
    return np.array(rows)


_ANCHORS = _anchors()


class Detector:
    """Both networks. Not for two threads at once."""

    def __init__(self) -> None:
        self._faces = network_of(DETECTOR)
        self._mesh = network_of(LANDMARKS)

    def faces(self, image: Image, least_score: float) -> list[Face]:
        """The faces in an image, the largest first."""
        height, width = image.shape[:2]
        side = max(height, width)
        scale = _SIDE / side
        small = cv2.resize(
            image, (max(1, round(width * scale)), max(1, round(height * scale))), interpolation=cv2.INTER_AREA
        )
        left, top = (_SIDE - small.shape[1]) // 2, (_SIDE - small.shape[0]) // 2
        square = np.zeros((_SIDE, _SIDE, 3), np.uint8)
        square[top : top + small.shape[0], left : left + small.shape[1]] = small
        self._faces.setInput(cv2.dnn.blobFromImage(square, 1 / 127.5, mean=(127.5, 127.5, 127.5)))
        scores, boxes = self._faces.forward(("classificators", "regressors"))
        chances = _chance(scores.reshape(-1))
        likely = np.flatnonzero(chances >= least_score)
        values = boxes.reshape(-1, 16)[likely].astype(np.float64) / _SIDE
        offset = np.array([left, top]) / _SIDE
        # Back to the image: what was added at the sides goes, then the unit is its longer side.
        centres = (values[:, 0:2] + _ANCHORS[likely] - offset) * side
        sizes = values[:, 2:4].max(axis=1) * side
        eyes = (values[:, 6:8] - values[:, 4:6]) * side
        found = [
            Face(float(x), float(y), float(size), float(np.arctan2(dy, dx)), float(score))
            for (x, y), size, (dx, dy), score in zip(centres, sizes, eyes, chances[likely], strict=True)
        ]
        return sorted(_distinct(found), key=lambda face: face.size, reverse=True)

    def mesh(self, image: Image, face: Face) -> Mesh:
        """The points of a face near where it is known to be."""
        side = face.size * _MARGIN
        scale = _MESH_SIDE / side
        cos, sin = np.cos(-face.angle) * scale, np.sin(-face.angle) * scale
        half = _MESH_SIDE / 2
        there = np.array(
            [
                [cos, -sin, half - cos * face.x + sin * face.y],
                [sin, cos, half - sin * face.x - cos * face.y],
            ]
        )
        crop = cv2.warpAffine(image, there, (_MESH_SIDE, _MESH_SIDE), flags=cv2.INTER_LINEAR)
        self._mesh.setInput(cv2.dnn.blobFromImage(crop, 1 / 255.0))
        outputs = self._mesh.forward(self._mesh.getUnconnectedOutLayersNames())
        score, points = sorted(outputs, key=lambda each: each.size)
        flat = points.reshape(_POINTS, 3)[:, :2].astype(np.float64)
        back = cv2.invertAffineTransform(there)
        return Mesh(flat @ back[:, :2].T + back[:, 2], float(_chance(score.reshape(-1))[0]))


def face_around(mesh: Mesh) -> Face:
    """The face that points belong to: where to look for them in the next frame."""
    low, high = mesh.points.min(axis=0), mesh.points.max(axis=0)
    centre = (low + high) / 2
    dx, dy = mesh.points[_RIGHT_EYE] - mesh.points[_LEFT_EYE]
    return Face(float(centre[0]), float(centre[1]), float((high - low).max()), float(np.arctan2(dy, dx)), mesh.score)


def overlap(one: Face, other: Face) -> float:
    """Intersection over union of the squares around two faces."""
    width = min(one.x + one.size / 2, other.x + other.size / 2) - max(one.x - one.size / 2, other.x - other.size / 2)
    height = min(one.y + one.size / 2, other.y + other.size / 2) - max(one.y - one.size / 2, other.y - other.size / 2)
    common = max(0.0, width) * max(0.0, height)
    return common / (one.size**2 + other.size**2 - common)


def _distinct(found: list[Face]) -> list[Face]:
    """Faces without those that are the same as one with a better score."""
    kept: list[Face] = []
    for face in sorted(found, key=lambda each: each.score, reverse=True):
        if all(overlap(face, other) < _OVERLAP for other in kept):
            kept.append(face)
    return kept


def _chance(logits: npt.NDArray[Any]) -> FloatArray:  # Any: of whatever width the network computes
    clipped = np.clip(logits.astype(np.float64), -_LARGEST_LOGIT, _LARGEST_LOGIT)
    chance: FloatArray = 1 / (1 + np.exp(-clipped))
    return chance
