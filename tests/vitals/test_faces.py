"""Following a face through images, and the colours of its places. Spec "Vitals", section 2."""

import cv2
import numpy as np
import pytest

from lifesign.vitals.signal.params import FloatArray
from lifesign.vitals.video.detector import Image
from lifesign.vitals.video.faces import FaceReader
from lifesign.vitals.video.regions import CHEEK_L, CHEEK_R, FOREHEAD, colours_of
from tests.vitals.clips import photo

_GREY = np.full((320, 320, 3), 128, np.uint8)


def _of_size(side: int) -> Image:
    """The face so large, in the middle of grey."""
    image = _GREY.copy()
    begin = (320 - side) // 2
    image[begin : begin + side, begin : begin + side] = cv2.resize(photo(), (side, side), interpolation=cv2.INTER_AREA)
    return image


def _beside(left: Image, right: Image) -> Image:
    return np.ascontiguousarray(np.concatenate([left, right], axis=1))


# Following ----------------------------------------------------------------------------------------------------------
def test_a_face_has_its_place_and_its_colours() -> None:
    reading = FaceReader().read(_beside(_GREY, photo()), 0.0)

    x, y, wide = reading.box
    assert x == pytest.approx(320 + 163, abs=15)
    assert y == pytest.approx(175, abs=25)
    assert 90 < wide < 180
    assert reading.score > 0.9
    assert not reading.is_crowded
    # Skin is red before it is green, and green before it is blue.
    assert (np.diff(reading.colours.rgb, axis=1) < 0).all()
    assert (reading.colours.clipped <= 0.2).all()


def test_a_second_face_that_becomes_the_larger_of_two_alike_makes_a_crowd() -> None:
    reader = FaceReader()
    # The left one is followed; at the next look the right one is a little larger.
    for index in range(5):
        assert not reader.read(_beside(photo(), _of_size(280)), index * 100.0).is_crowded
    swapped = reader.read(_beside(_of_size(290), photo()), 500.0)

    assert swapped.is_crowded
    assert swapped.box[0] == pytest.approx(320 + 163, abs=25)


def test_a_face_that_is_much_larger_is_followed_instead_and_is_no_crowd() -> None:
    reader = FaceReader()
    for index in range(5):
        reader.read(_beside(_of_size(180), _GREY), index * 100.0)
    taken_over = reader.read(_beside(_of_size(180), photo()), 500.0)

    assert not taken_over.is_crowded
    assert taken_over.box[0] == pytest.approx(320 + 163, abs=25)


def test_without_a_face_there_is_no_colour_and_no_score_that_would_count() -> None:
    reader = FaceReader()
    reader.read(photo(), 0.0)

    gone = [reader.read(_GREY, at) for at in (100.0, 200.0, 900.0)]
    back = reader.read(photo(), 1000.0)

    assert all(each.score < 0.5 for each in gone)
    assert all(np.isnan(each.colours.rgb).all() for each in gone)
    # At once, though five images have not passed.
    assert back.score > 0.9
    assert not np.isnan(back.colours.rgb).any()


# Colours ------------------------------------------------------------------------------------------------------------
def _points(forehead: tuple[int, int, int, int]) -> FloatArray:
    """A mesh whose forehead is a rectangle (left, top, right, bottom); its cheeks are out of the picture."""
    points = np.full((468, 2), -50.0)
    left, top, right, bottom = forehead
    corners = [(left, top), (right, top), (right, bottom), (left, bottom)]
    for index, point in enumerate(FOREHEAD):
        points[point] = corners[index % 4]
    return points


def test_a_region_is_what_lies_within_its_outline() -> None:
    image = np.full((100, 100, 3), 90, np.uint8)
    image[10:30, 10:40] = (200, 150, 120)

    colours = colours_of(image, _points((10, 10, 39, 29)))

    assert colours.rgb[0].tolist() == [200, 150, 120]
    assert np.isnan(colours.rgb[1:]).all()
    assert colours.clipped.tolist() == [0, 1, 1]
    assert not set(FOREHEAD) & (set(CHEEK_L) | set(CHEEK_R))


def test_pixels_that_are_too_dark_or_too_bright_do_not_count() -> None:
    image = np.full((100, 100, 3), 100, np.uint8)
    # Of 600 pixels 120 are left out, a fifth; those beside the limits are not.
    for row, colour in enumerate([(15, 3, 0), (250, 9, 9), (0, 0, 255), (15, 15, 15)]):
        image[10 + row, 10:40] = colour
    image[14, 10:40] = (16, 0, 0)
    image[15, 10:40] = (0, 249, 0)

    colours = colours_of(image, _points((10, 10, 39, 29)))

    assert colours.clipped[0] == pytest.approx(0.2)
    # 420 of 100, 30 of 16 or 0, 30 of 0 or 249, of 480.
    assert colours.rgb[0] == pytest.approx([(42_000 + 480) / 480, (42_000 + 7470) / 480, 42_000 / 480])
    image[16, 10] = (255, 255, 255)
    assert np.isnan(colours_of(image, _points((10, 10, 39, 29))).rgb[0]).all()


def test_a_region_of_less_than_four_hundred_pixels_is_off() -> None:
    image = np.full((100, 100, 3), 100, np.uint8)

    assert not np.isnan(colours_of(image, _points((10, 10, 29, 29))).rgb[0]).any()
    assert np.isnan(colours_of(image, _points((10, 10, 29, 28))).rgb[0]).all()
    # Half of it lies outside the picture.
    assert np.isnan(colours_of(image, _points((-10, 10, 9, 29))).rgb[0]).all()
    assert not np.isnan(colours_of(image, _points((-20, 10, 19, 29))).rgb[0]).any()
