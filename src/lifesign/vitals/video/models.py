"""The models of faces that come with the package, checked before they are used."""

import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import cv2
import numpy as np

from lifesign.vitals.rules import ModelError

DETECTOR, LANDMARKS = "face_detection_short_range.tflite", "face_landmark.tflite"
_MODELS = files("lifesign.vitals") / "models"


class Model(NamedTuple):
    """One line of `MODELS.json`."""

    file: str
    sha256: str
    bytes: int
    licence: str
    origin: str


@cache
def known_models() -> dict[str, Model]:
    """The models that this version was made for, by file."""
    lines = json.loads((_MODELS / "MODELS.json").read_text(encoding="utf-8"))
    return {each["file"]: Model(**each) for each in lines}


def checked(file: str, content: bytes) -> bytes:
    """`content`, which is that of the model. Raises ModelError."""
    known = known_models()[file]
    if len(content) != known.bytes or hashlib.sha256(content).hexdigest() != known.sha256:
        raise ModelError(f"model_hash_mismatch: {file}")
    return content


@cache
def _content_of(file: str) -> bytes:
    try:
        content = (_MODELS / file).read_bytes()
    except OSError:
        content = b""
    return checked(file, content)


def network_of(file: str) -> cv2.dnn.Net:
    """A network of one's own: it keeps its last input, so no two threads may share it. Raises ModelError."""
    return cv2.dnn.readNetFromTFLite(np.frombuffer(_content_of(file), np.uint8))
