"""A recording that is still going on."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from lifesign.vitals.analyze import require_method, require_mode
from lifesign.vitals.extras import require_video
from lifesign.vitals.rules import InvalidTraces
from lifesign.vitals.signal import report, traces
from lifesign.vitals.signal.params import DEFAULTS, Params
from lifesign.vitals.signal.recording import Recording, Window
from lifesign.vitals.signal.report import Analysis
from lifesign.vitals.signal.slow import Calibration
from lifesign.vitals.signal.traces import Numbers, Samples

if TYPE_CHECKING:
    from lifesign.vitals.video.faces import FaceReader

REMEMBERED_S = 300.0
_MS = 1000.0


class Stream:
    """Takes frames as they come; `result` is the report of all that came, in whatever portions.

    keep_s: seconds of signal that are remembered for what needs more than a window; None: all of it.
    """

    def __init__(
        self,
        *,
        mode: str = "rest",
        method: str = "pos",
        fps: float | None = None,
        calibration: Calibration | None = None,
        params: Params = DEFAULTS,
        keep_s: float | None = REMEMBERED_S,
    ) -> None:
        self._recording = Recording(params, require_mode(mode), require_method(method), keep_s)
        self._fps = fps
        self._calibration = calibration
        self._faces: FaceReader | None = None

    @property
    def recording(self) -> Recording:
        """What came in so far."""
        return self._recording

    def push_rgb(
        self,
        rgb: Numbers,
        t_ms: float | Numbers,
        face: float | Numbers | None = None,
        *,
        box: Numbers | None = None,
        clipped: Numbers | None = None,
        off: Numbers | None = None,
        until_s: float | None = None,
    ) -> Sequence[Window]:
        """Take one frame, (regions, 3) at an instant, or many, (n, regions, 3) at as many; the windows they ended.

        until_s: nothing that is later than so many seconds after the very first frame is taken.
        Raises ValueError with the words of spec "Vitals", section 5.3; then nothing of them was taken.
        """
        if np.ndim(t_ms) == 0:
            one = np.atleast_2d(np.asarray(rgb))
            rgb, t_ms = one[None], np.atleast_1d(np.asarray(t_ms))
            face = None if face is None else np.atleast_1d(np.asarray(face))
            box, clipped, off = (None if each is None else np.asarray(each)[None] for each in (box, clipped, off))
        colours = traces.colours_of(rgb, off)
        times = traces.times_of(t_ms, None, len(colours))
        samples = traces.beside(Samples(times, colours), face=face, box=box, clipped=clipped)
        if until_s is not None and len(times):
            begin_ms = times[0] if self._recording.begin_ms is None else self._recording.begin_ms
            late = np.flatnonzero(times - begin_ms > until_s * _MS)
            samples = samples.part(slice(int(late[0]) if len(late) else None))
        return self.push(samples)

    def push_frame(self, image: npt.NDArray[np.uint8], t_ms: float) -> Sequence[Window]:
        """Take an image, uint8 (height, width, 3), RGB. Raises ValueError, ModelError, ExtraMissing."""
        require_video()
        from lifesign.vitals.video.faces import FaceReader, Gathered  # noqa: PLC0415 - needs another extra

        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:  # noqa: PLR2004 - RGB
            raise InvalidTraces("an image must be uint8 (height, width, 3), RGB")
        self._faces = self._faces or FaceReader()
        gathered = Gathered()
        gathered.add(t_ms, self._faces.read(image, t_ms))
        return self.push(gathered.samples())

    def push(self, samples: Samples) -> Sequence[Window]:
        """Take frames whose values were checked. Raises InvalidTraces when they do not go on from those before."""
        known = self._recording
        times = samples.t_ms if known.begin_ms is None else np.append(known.end_ms, samples.t_ms)
        traces.require_increasing(times)
        if (np.diff(times) > traces.MAX_SPAN_S * _MS).any():
            raise InvalidTraces(traces.TOO_LONG)
        if known.begin_ms is not None and samples.rgb.shape[1] != known.rois:
            raise InvalidTraces("rgb must have the same regions in every sample")
        return known.push(samples)

    def result(self, *, debug: bool = False) -> Analysis:
        """The report of everything so far."""
        return report.analysis_of(self._recording, fps=self._fps, calibration=self._calibration, debug=debug)
