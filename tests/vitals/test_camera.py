"""Cameras of this machine: what comes of one that works, one that stops, and all the ways in which there is none.

There is no camera where tests run. OpenCV reads a file in its place, by the same calls and with the same answers; the
rest is what a system says of devices.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest

from lifesign.cli import main
from lifesign.vitals.rules import VideoError
from lifesign.vitals.video import files
from lifesign.vitals.video.files import camera_frames
from tests.vitals.clips import CLIP_FPS, pulsing

_OpenedByNumber = cv2.VideoCapture


@pytest.fixture
def plugged_in(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Camera 3 sends what was recorded, each image when it is asked for one; then it is pulled out."""

    def opened(number: int) -> cv2.VideoCapture:
        return _OpenedByNumber(str(clip)) if number == 3 else _OpenedByNumber(number)

    monkeypatch.setattr(cv2, "VideoCapture", opened)


@pytest.fixture
def on_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each look at the machine's clock is a tenth of a second after the one before."""
    ticks = iter(range(10_000))
    monkeypatch.setattr(cv2, "getTickCount", lambda: next(ticks))
    monkeypatch.setattr(cv2, "getTickFrequency", lambda: CLIP_FPS)


def run(capfd: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = main(["vitals", "analyze", *arguments])
    printed = capfd.readouterr()
    return code, printed.out, printed.err


@pytest.mark.usefixtures("plugged_in", "on_time")
def test_a_camera_is_looked_through_for_as_long_as_was_said(capfd: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capfd, "--camera", "3", "--seconds", "8.2")

    assert code == 0
    rate = out.splitlines()[0].split()
    assert rate[:2] == ["heart", "rate"]
    assert float(rate[2]) == pytest.approx(72, abs=2)


@pytest.mark.usefixtures("plugged_in", "on_time")
def test_images_come_with_their_instants_and_in_the_order_of_colours_that_is_expected() -> None:
    frames = list(camera_frames(3, 0.35))

    assert [each.t_ms for each in frames] == [100, 200, 300]
    first = next(pulsing(np.zeros(1)))
    assert np.abs(frames[0].image.astype(int) - first).max() <= 1


@pytest.mark.usefixtures("plugged_in", "on_time")
def test_a_camera_that_is_pulled_out_is_told_with_the_second() -> None:
    frames = camera_frames(3, 30)

    with pytest.raises(VideoError, match=r"^camera 3 stopped sending images after 12\.1 s$"):
        assert [round(each.t_ms) for each in frames] == []


@pytest.mark.usefixtures("plugged_in")
def test_images_of_one_instant_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    ticks = iter([0, 1, 1, 2, 2, 2, 5])
    monkeypatch.setattr(cv2, "getTickCount", lambda: next(ticks))
    monkeypatch.setattr(cv2, "getTickFrequency", lambda: CLIP_FPS)

    assert [each.t_ms for each in camera_frames(3, 0.4)] == [100, 200]


# None ---------------------------------------------------------------------------------------------------------------
def test_a_camera_that_is_not_there_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    assert run(capfd, "--camera", "63") == (1, "", "lifesign: there is no camera 63\n")


@contextmanager
def nobody() -> Iterator[None]:
    """As a user who may open nothing: to root no permission is missing."""
    if os.geteuid() == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if os.getuid() == 0:
            os.seteuid(0)


def test_a_camera_that_may_not_be_used_is_another_mistake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_DEVICES", tmp_path)
    (tmp_path / "video9").touch(mode=0o000)
    (tmp_path / "video8").touch()
    (tmp_path / "video7").mkdir()

    with nobody(), pytest.raises(VideoError) as refusal:
        next(camera_frames(9, 10))
    assert str(refusal.value) == (
        f"camera 9 may not be used: {tmp_path}/video9 takes a permission that this user does not have"
    )
    with pytest.raises(VideoError, match=r"^camera 8 cannot be opened: it is used by another program, or is none$"):
        next(camera_frames(8, 10))
    with pytest.raises(VideoError, match=r"^camera 7 cannot be opened: Is a directory$"):
        next(camera_frames(7, 10))


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--camera", "-1"], "--camera"),
        (["--camera", "first"], "--camera"),
        (["--camera", "0", "--seconds", "7.9"], "--seconds"),
        (["--camera", "0", "--seconds", "301"], "--seconds"),
        (["--camera", "0", "--seconds", "nan"], "--seconds"),
        (["--camera", "0", "clip.mp4"], "--camera"),
    ],
)
def test_what_no_camera_can_do_is_wrong_usage(
    capfd: pytest.CaptureFixture[str], arguments: list[str], word: str
) -> None:
    code, _, err = run(capfd, *arguments)

    assert code == 2
    assert word in err


@pytest.mark.parametrize(("option", "says"), [("--mode", "Unknown mode"), ("--method", "Unknown method")])
def test_a_wrong_word_is_told_before_a_camera_is_opened(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, option: str, says: str
) -> None:
    opened: list[int] = []
    monkeypatch.setattr(cv2, "VideoCapture", opened.append)

    assert run(capfd, "--camera", "0", option, "best") == (1, "", f"lifesign: {says}\n")
    assert opened == []
