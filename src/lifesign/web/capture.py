"""The files of the page that sees a pulse: its own, and what finds a face in the browser. Served from here only."""

import gzip
import hashlib
import json
from functools import cache
from importlib.resources import files
from typing import NamedTuple

_STATIC = files("lifesign.web") / "static"
_FOREIGN = _STATIC / "vitals"
_MODELS = files("lifesign.vitals") / "models"
_MODEL = "blaze_face_short_range.tflite"


class File(NamedTuple):
    """One of them, as it is kept. sha256: of its content, when it is not ours."""

    content: bytes
    media_type: str
    is_packed: bool = False
    sha256: str | None = None

    def unpacked(self) -> bytes:
        """Its content, for whoever cannot inflate it."""
        return gzip.decompress(self.content) if self.is_packed else self.content


_OWN = {
    "capture.css": "text/css",
    **dict.fromkeys(("capture.js", "copying.js", "measuring.js", "seeing.js", "words.js"), "text/javascript"),
}
_PARTS = {
    "vision_bundle.mjs": "text/javascript",
    "vision_wasm_internal.js": "text/javascript",
    "vision_wasm_internal.wasm": "application/wasm",
}
NAMES = frozenset({*_OWN, *_PARTS, _MODEL})


@cache
def file_of(name: str) -> File:
    """One of `NAMES`. Read when it is asked for: most servers never show this page."""
    if name in _OWN:
        return File((_STATIC / name).read_bytes(), _OWN[name])
    if name == _MODEL:
        listed = json.loads((_MODELS / "MODELS.json").read_text(encoding="utf-8"))
        return File((_MODELS / name).read_bytes(), "application/octet-stream", sha256=_sha256_in(listed, name))
    listed = json.loads((_FOREIGN / "PACKAGES.json").read_text(encoding="utf-8"))
    content = (_FOREIGN / f"{name}.gz").read_bytes()
    return File(content, _PARTS[name], is_packed=True, sha256=_sha256_in(listed, name))


def _sha256_in(listed: list[dict[str, str]], name: str) -> str:
    return next(each["sha256"] for each in listed if each["file"] == name)


@cache
def place() -> str:
    """Where they are; another place when any of them changed."""
    digest = hashlib.sha256()
    for name in sorted(NAMES):
        digest.update(file_of(name).content)
    return f"/static/vitals/{digest.hexdigest()[:12]}"
