"""What worker processes do: bytes in, JSON out. Loaded there only, since it needs the extras."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from lifesign.vitals import bodies
from lifesign.vitals.analyze import analyze_samples, require_method, require_mode
from lifesign.vitals.extras import require_video
from lifesign.vitals.rules import ExtraMissing, InvalidTraces
from lifesign.vitals.signal.params import DEFAULTS, Params
from lifesign.vitals.signal.report import Analysis

if TYPE_CHECKING:
    from lifesign.vitals.video.files import Frame

MOST_RECORDINGS = 50
BAD_RECORDINGS = f"recordings must be an array of 1 to {MOST_RECORDINGS} recordings"


class Gate(NamedTuple):
    """How strict the server is: settings, as jobs take them."""

    snr_db: float
    autocorrelation: float

    @property
    def params(self) -> Params:
        """All numbers, these among them."""
        return replace(DEFAULTS, snr_db=self.snr_db, autocorrelation=self.autocorrelation)


class Reported(NamedTuple):
    """One recording: its report, or what is wrong with it."""

    report: dict[str, Any] | None  # Any: JSON
    error: str | None = None
    is_kept: bool = False


def load() -> None:
    """Load everything that a job may need, so that it is there before the memory of a job is counted."""
    with contextlib.suppress(ExtraMissing):
        require_video()
        import lifesign.vitals.video.analyze  # noqa: F401, PLC0415 - of another extra, which may not be there


def of_traces(document: dict[str, Any], gate: Gate) -> Reported:
    """The report of one recording in JSON. Raises InvalidTraces, TooManySamples."""
    wanted = bodies.recording_in(document)
    analysis = analyze_samples(
        wanted.samples,
        mode=wanted.mode,
        method=wanted.method,
        fps=wanted.fps,
        calibration=wanted.calibration,
        params=gate.params,
        debug=wanted.debug,
    )
    return Reported(analysis.to_dict(), is_kept=wanted.store)


def analyze_body(raw: bytes, gate: Gate, *, is_trial: bool = False) -> tuple[list[Reported], bool]:
    """The recordings in a body, and whether it held several; a trial is of one, and short.

    Raises InvalidTraces, TooManySamples.
    """
    document = bodies.document_in(raw)
    if is_trial:
        bodies.require_short(document)
    many = document.get("recordings")
    if many is None:
        return [of_traces(document, gate)], False
    if not isinstance(many, list) or not 1 <= len(many) <= MOST_RECORDINGS:
        raise InvalidTraces(BAD_RECORDINGS)
    return [_one_of_many(each, gate) for each in many], True


def _one_of_many(document: Any, gate: Gate) -> Reported:  # Any: JSON
    try:
        return of_traces(document, gate)
    except InvalidTraces as error:
        return Reported(None, str(error))


def analyze_file(path: str, options: dict[str, Any], gate: Gate, *, has_raw: bool = False) -> dict[str, Any]:
    """The report of a video file, and under `raw` what it was read from. Raises VideoError, InvalidTraces."""
    require_video()
    from lifesign.vitals.video.analyze import analyze_video  # noqa: PLC0415 - of another extra

    analysis = analyze_video(
        path,
        mode=require_mode(options.get("mode", "rest")),
        method=require_method(options.get("method", "pos")),
        calibration=bodies.calibration_in(options.get("calibration")),
        params=gate.params,
        debug=bool(options.get("debug")),
    )
    return _told(analysis, has_raw=has_raw)


def measure_images(images: Sequence[bytes], times_ms: Sequence[float], gate: Gate, *, has_raw: bool) -> dict[str, Any]:
    """The report of encoded images at these instants; one that cannot be decoded is a lost frame."""
    require_video()
    from lifesign.vitals.video.analyze import read_faces  # noqa: PLC0415 - of another extra

    samples = read_faces(decoded(images, times_ms))
    return _told(analyze_samples(samples, params=gate.params), has_raw=has_raw)


def decoded(images: Sequence[bytes], times_ms: Sequence[float]) -> "Iterator[Frame]":
    """Those of some encoded images that can be decoded, upright, each at its instant."""
    import cv2  # noqa: PLC0415 - of another extra
    import numpy as np  # noqa: PLC0415 - as above

    from lifesign.vitals.video.files import Frame  # noqa: PLC0415 - as above

    for at, content in zip(times_ms, images, strict=True):
        with contextlib.suppress(cv2.error):
            image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
            if image is not None:
                yield Frame(at, np.ascontiguousarray(image[..., ::-1]))


def _told(analysis: Analysis, *, has_raw: bool) -> dict[str, Any]:  # Any: JSON
    told: dict[str, Any] = {"report": analysis.to_dict()}
    if has_raw:
        told["raw"] = {
            "t_ms": (analysis.pulse.x * 1000).round(1).tolist(),
            "rgb": analysis.rgb.round(3).tolist(),
            "pulse": analysis.pulse.y.round(6).tolist(),
        }
    return told
