"""Three regions of skin, and their mean colours."""

from typing import NamedTuple

import cv2
import numpy as np

from lifesign.vitals.signal.params import FloatArray
from lifesign.vitals.video.detector import Image

# Points of the mesh: the forehead between hair and brows, and both cheeks beside the nose, without eyes and mouth.
FOREHEAD = (67, 109, 10, 338, 297, 299, 337, 9, 108, 69)
CHEEK_L = (117, 118, 119, 100, 36, 206, 207, 187, 147, 123)
CHEEK_R = (346, 347, 348, 329, 266, 426, 427, 411, 376, 352)
REGIONS = (FOREHEAD, CHEEK_L, CHEEK_R)
NAMES = ("forehead", "cheek_l", "cheek_r")

_DARK, _BRIGHT = 15, 250
_MIN_PIXELS = 400
_MAX_CLIPPED = 0.2


class Colours(NamedTuple):
    """rgb: (regions, 3), NaN where a region is off; clipped: (regions,) share of pixels too dark or too bright."""

    rgb: FloatArray
    clipped: FloatArray


def colours_of(image: Image, points: FloatArray) -> Colours:
    """The mean colours of the three regions of a face."""
    rgb = np.full((len(REGIONS), 3), np.nan)
    clipped = np.ones(len(REGIONS))
    for index, region in enumerate(REGIONS):
        pixels = _pixels_within(image, points[list(region)])
        if not len(pixels):
            continue
        brightest = pixels.max(axis=1)
        usable = (brightest > _DARK) & (brightest < _BRIGHT)
        count = int(usable.sum())
        clipped[index] = 1 - count / len(pixels)
        if count >= _MIN_PIXELS and clipped[index] <= _MAX_CLIPPED:
            rgb[index] = pixels[usable].mean(axis=0, dtype=np.float64)
    return Colours(rgb, clipped)


def _pixels_within(image: Image, outline: FloatArray) -> Image:
    """(n, 3): the pixels of an image within the convex hull of some points."""
    height, width = image.shape[:2]
    corners = np.round(outline).astype(np.int32)
    left, top = np.maximum(corners.min(axis=0), 0)
    right, bottom = np.minimum(corners.max(axis=0) + 1, [width, height])
    if right <= left or bottom <= top:
        return np.zeros((0, 3), np.uint8)
    mask = np.zeros((bottom - top, right - left), np.uint8)
    cv2.fillConvexPoly(mask, cv2.convexHull(corners - np.array([left, top], np.int32)), 1)
    pixels: Image = image[top:bottom, left:right][mask > 0]
    return pixels
