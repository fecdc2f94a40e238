"""Data sets of other people: films of faces, each with what a contact sensor said meanwhile.

None of them comes with Lifesign. Whoever has one, under the terms of those who made it, names its folder.
"""

import csv
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import orjson

from lifesign.vitals.bench import Case, rate_of_sensor
from lifesign.vitals.rules import InvalidTraces, VideoError
from lifesign.vitals.signal.params import FloatArray
from lifesign.vitals.signal.traces import Samples
from lifesign.vitals.video.analyze import read_faces
from lifesign.vitals.video.files import Frame, opened

_MS = 1000.0
_NS_PER_MS = 1e6
_UBFC_LINES = 3
Found = tuple[Samples, FloatArray]
"""The colours of a film, and the sensor at the instants of its images: NaN where it was silent."""


def cases_in(folder: Path, layout: str) -> Iterator[Case]:
    """What a data set holds, film by film. Raises InvalidTraces, which names the file, ModelError."""
    is_empty = True
    for samples, ppg in LAYOUTS[layout](folder):
        is_empty = False
        yield Case(samples, rate_of_sensor(samples.t_ms, ppg))
    if is_empty:
        raise InvalidTraces(f"{folder} has no films as {layout} has them")


def spread_over(ppg: FloatArray, count: int) -> FloatArray:
    """A sensor without times of its own, over so many images from the first to the last."""
    spread: FloatArray = np.interp(np.linspace(0, 1, count), np.linspace(0, 1, len(ppg)), ppg)
    return spread


def _vitallens(folder: Path) -> Iterator[Found]:
    """`sample_video_1.mp4`, and beside it `sample_vitals_1.csv` with a column `ppg`."""
    for film in sorted(folder.glob("*video*.mp4")):
        beside = film.with_name(film.name.replace("video", "vitals")).with_suffix(".csv")
        with _told(beside):
            rows = list(csv.DictReader(beside.read_text(encoding="utf-8-sig").splitlines()))
            ppg = np.array([float(row["ppg"]) for row in rows])
            if not len(ppg):
                raise ValueError("nothing is in it")
        samples = _filmed(film)
        yield samples, spread_over(ppg, len(samples.t_ms))


def _ubfc(folder: Path) -> Iterator[Found]:
    """UBFC-rPPG, data set 2: `subject1/vid.avi`, and `ground_truth.txt` with lines of pulse, rate and seconds."""
    for beside in sorted(folder.glob("*/ground_truth.txt")):
        with _told(beside):
            lines = [line.split() for line in beside.read_text(encoding="utf-8").splitlines() if line.strip()]
            if len(lines) < _UBFC_LINES or len({len(line) for line in lines[:_UBFC_LINES]}) != 1:
                raise ValueError("three lines of as many numbers are needed")
            ppg, _, seconds = (np.array(line, np.float64) for line in lines[:_UBFC_LINES])
        samples = _filmed(beside.with_name("vid.avi"))
        yield samples, _at(samples.t_ms, seconds * _MS, ppg)


def _pure(folder: Path) -> Iterator[Found]:
    """PURE: `01-01/01-01.json`, and `01-01/01-01/Image<ns>.png`; the sensor has instants of the same clock."""
    for beside in sorted(folder.glob("*/*.json")):
        with _told(beside):
            told = orjson.loads(beside.read_bytes())["/FullPackage"]
            at_ns = np.array([each["Timestamp"] for each in told], np.float64)
            ppg = np.array([each["Value"]["waveform"] for each in told], np.float64)
            images = sorted((int(each.stem.removeprefix("Image")), each) for each in _images_of(beside))
            if not images or not len(ppg):
                raise ValueError("no images or nothing of a sensor is with it")
        begin_ns = images[0][0]
        samples = read_faces(_shown(images, begin_ns))
        yield samples, _at(samples.t_ms, (at_ns - begin_ns) / _NS_PER_MS, ppg)


def _images_of(beside: Path) -> Iterator[Path]:
    return beside.with_suffix("").glob("Image*.png")


def _shown(images: list[tuple[int, Path]], begin_ns: int) -> Iterator[Frame]:
    for at_ns, path in images:
        image = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if image is None:
            raise InvalidTraces(f"{path}: not an image that can be read")
        yield Frame((at_ns - begin_ns) / _NS_PER_MS, np.ascontiguousarray(image[..., ::-1]))


LAYOUTS: Mapping[str, Callable[[Path], Iterator[Found]]] = {"vitallens": _vitallens, "ubfc": _ubfc, "pure": _pure}


def _filmed(path: Path) -> Samples:
    try:
        with opened(path) as film:
            return read_faces(film.frames())
    except VideoError as error:
        raise InvalidTraces(f"{path}: {error}") from None


def _at(t_ms: FloatArray, sensor_ms: FloatArray, ppg: FloatArray) -> FloatArray:
    """A sensor at other instants than its own; what lies before it began or after it ended is not known."""
    order = np.argsort(sensor_ms, kind="stable")
    at: FloatArray = np.interp(t_ms, sensor_ms[order], ppg[order], left=np.nan, right=np.nan)
    return at


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Whatever is wrong with what a file says is told with its name."""
    try:
        yield
    except OSError as error:
        raise InvalidTraces(f"cannot read {path}: {error.strerror}") from None
    except KeyError as error:
        raise InvalidTraces(f"{path}: {error.args[0]} is missing") from None
    except (ValueError, TypeError) as error:
        raise InvalidTraces(f"{path}: {error}") from None
