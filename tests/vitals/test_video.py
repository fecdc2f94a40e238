"""Faces in images and videos: a planted pulse is found, and what is no video is told apart from what is broken."""

import io
import shutil
import wave
from pathlib import Path

import cv2
import numpy as np
import pytest

from lifesign.vitals import Stream, analyze_frames, analyze_video
from lifesign.vitals.rules import ModelError, VideoError
from lifesign.vitals.video import models
from lifesign.vitals.video.detector import Detector
from lifesign.vitals.video.files import opened
from tests.vitals.clips import CLIP_FPS, photo, pulsing, write_clip

_MODELS = Path(models.__file__).parents[1] / "models"


def test_a_planted_pulse_is_found_in_a_video(clip: Path) -> None:
    report = analyze_video(clip).to_dict()

    found = report["vitals"]["heart_rate"]
    assert found["value"] == pytest.approx(72, abs=1)
    assert found["confidence"] >= 0.7
    assert report["vitals"]["spo2"]["reason"] == "not_calibrated"
    assert report["fps"] == pytest.approx(CLIP_FPS, abs=0.2)
    assert report["warnings"] == []


def test_a_photo_without_a_pulse_has_no_heart_rate() -> None:
    times = np.arange(100) / 10
    frames = np.stack(list(pulsing(times, strength=0)))

    assert analyze_frames(frames, fps=10).heart_rate is None


def test_frames_of_uneven_times_are_read_at_their_times(tmp_path: Path) -> None:
    random = np.random.default_rng(4)
    times = np.round(np.cumsum(random.choice([0.05, 0.08, 0.14], 110)), 3)
    path = write_clip(tmp_path / "uneven.mkv", pulsing(times, bpm=84), times)

    assert analyze_video(path).heart_rate == pytest.approx(84, abs=1)


def test_single_images_may_be_pushed_as_they_come(clip: Path) -> None:
    stream = Stream()
    with opened(clip) as video:
        for frame in video.frames():
            stream.push_frame(frame.image, frame.t_ms)
            if frame.t_ms > 8000:
                break

    assert stream.result().heart_rate == pytest.approx(72, abs=2)


def test_flat_images_have_no_face() -> None:
    analysis = analyze_frames(np.full((100, 240, 320, 3), 128, np.uint8), fps=10)

    assert (analysis.heart_rate, analysis.reason) == (None, "no_face")


def test_the_largest_face_is_found_where_it_is() -> None:
    detector = Detector()
    image = photo()

    [face] = detector.faces(image, 0.6)
    mesh = detector.mesh(image, face)

    assert face.x == pytest.approx(163, abs=10)
    assert face.y == pytest.approx(175, abs=10)
    assert mesh.score > 0.9
    # The tip of the nose, and the corners of the eyes beside it.
    assert mesh.points[1] == pytest.approx([163, 168], abs=14)
    assert mesh.points[33][0] < mesh.points[1][0] < mesh.points[263][0]


def test_two_faces_of_one_size_are_two() -> None:
    image = photo()

    assert len(Detector().faces(np.concatenate([image, image], axis=1), 0.6)) == 2


# Files --------------------------------------------------------------------------------------------------------------
def _silence() -> bytes:
    content = io.BytesIO()
    with wave.open(content, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(b"\0" * 16_000)
    return content.getvalue()


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty"), (b"This is a text.\n" * 100, "unsupported"), (_silence(), "decode_failed")],
)
def test_what_is_no_video_is_told_by_a_code(tmp_path: Path, content: bytes, code: str) -> None:
    path = tmp_path / "file.mp4"
    path.write_bytes(content)

    with pytest.raises(VideoError) as refusal:
        analyze_video(path)

    assert refusal.value.code == code


def test_a_file_that_is_not_there_is_told_by_a_code(tmp_path: Path) -> None:
    for path, code in ((tmp_path / "nothing.mp4", "not_found"), (tmp_path, "unsupported")):
        with pytest.raises(VideoError) as refusal:
            analyze_video(path)
        assert refusal.value.code == code


def test_a_broken_video_gives_what_can_be_read_or_a_code(tmp_path: Path, clip: Path) -> None:
    half = tmp_path / "half.mkv"
    half.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    head = tmp_path / "head.mkv"
    head.write_bytes(clip.read_bytes()[:600])

    assert analyze_video(half).reason in {"too_short", "gap"}
    with pytest.raises(VideoError) as refusal:
        analyze_video(head)
    assert refusal.value.code in {"decode_failed", "empty", "unsupported"}


def test_small_images_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "small.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (120, 90))
    for _ in range(10):
        writer.write(np.zeros((90, 120, 3), np.uint8))
    writer.release()

    with pytest.raises(VideoError, match=r"120 x 90.*160 x 120"):
        analyze_video(path)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_a_video_that_was_filmed_sideways_is_turned_upright(tmp_path: Path, quarters: int) -> None:
    times = np.arange(3) / 10
    turned = (np.ascontiguousarray(np.rot90(each, -quarters)) for each in pulsing(times))
    path = write_clip(tmp_path / "turned.mp4", turned, times, codec="mpeg4")
    path.write_bytes(_with_rotation(path.read_bytes(), quarters))

    with opened(path) as video:
        image = next(iter(video.frames())).image

    [face] = Detector().faces(image, 0.6)
    assert abs(face.angle) < 0.5


def _with_rotation(content: bytes, quarters: int) -> bytes:
    """An MP4 that says: turn me to the left by so many quarters. The matrix stands in the header of the track."""
    at = content.index(b"tkhd") + 4
    matrix = at + 4 + 8 + 4 + 4 + 4 + 8 + 2 + 2 + 2 + 2
    one = 1 << 16
    cos, sin = [(one, 0), (0, one), (-one, 0), (0, -one)][quarters]
    rows = (cos, -sin, 0, sin, cos, 0, 0, 0, 1 << 30)
    packed = b"".join(each.to_bytes(4, "big", signed=True) for each in rows)
    return content[:matrix] + packed + content[matrix + len(packed) :]


def test_strong_compression_is_warned_of(tmp_path: Path) -> None:
    times = np.arange(100) / 10
    path = write_clip(tmp_path / "low.mp4", pulsing(times, noise=0), times, codec="libx264")

    assert "low_bitrate" in analyze_video(path).to_dict()["warnings"]


# Models -------------------------------------------------------------------------------------------------------------
def test_every_model_is_the_one_that_is_listed() -> None:
    known = models.known_models()

    assert {file: (each.sha256[:16], each.bytes, each.licence) for file, each in known.items()} == {
        "blaze_face_short_range.tflite": ("b4578f35940bf5a1", 229_746, "Apache-2.0"),
        "face_detection_short_range.tflite": ("3bc182eb9f33925d", 229_032, "Apache-2.0"),
        "face_landmark.tflite": ("2efcb4f4de43c761", 2_439_440, "Apache-2.0"),
    }
    for file in known:
        content = (_MODELS / file).read_bytes()
        assert models.checked(file, content) == content
    for file in (models.DETECTOR, models.LANDMARKS):
        assert models.network_of(file) is not None


def test_a_changed_model_is_refused(tmp_path: Path) -> None:
    copy = tmp_path / models.DETECTOR
    shutil.copy(_MODELS / models.DETECTOR, copy)
    changed = bytearray(copy.read_bytes())
    changed[1000] ^= 1

    with pytest.raises(ModelError, match=r"^model_hash_mismatch: face_detection_short_range\.tflite$"):
        models.checked(models.DETECTOR, bytes(changed))
