"""From arrays to a report: what Python programs, the command line and the routes all call."""

from collections.abc import Sequence

from lifesign.vitals.rules import InvalidTraces
from lifesign.vitals.signal import report, traces
from lifesign.vitals.signal.params import DEFAULTS, METHODS, MODES, Method, Mode, Params, Warned
from lifesign.vitals.signal.recording import Recording
from lifesign.vitals.signal.report import Analysis
from lifesign.vitals.signal.slow import Calibration
from lifesign.vitals.signal.traces import Numbers, Samples


def require_method(method: str) -> Method:
    """`method`, known. Raises InvalidTraces."""
    found = next((each for each in METHODS if each == method), None)
    if found is None:
        raise InvalidTraces("Unknown method")
    return found


def require_mode(mode: str) -> Mode:
    """`mode`, known. Raises InvalidTraces."""
    found = next((each for each in MODES if each == mode), None)
    if found is None:
        raise InvalidTraces("Unknown mode")
    return found


def analyze_traces(
    rgb: Numbers,
    t_ms: Numbers | None = None,
    *,
    fps: float | None = None,
    face: Numbers | None = None,
    box: Numbers | None = None,
    clipped: Numbers | None = None,
    off: Numbers | None = None,
    mode: str = "rest",
    method: str = "pos",
    calibration: Calibration | None = None,
    params: Params = DEFAULTS,
    debug: bool = False,
) -> Analysis:
    """The report of mean skin colours over time.

    rgb: (n, 3), or (n, regions, 3), 0 to 255; t_ms: (n,), strictly increasing, or `fps` for evenly spaced frames.
    face, box, clipped: as `lifesign.vitals.signal.traces.Samples` has them; off: (n, regions), true where a region
    was not seen. Raises ValueError with the words of spec "Vitals", section 5.3.
    """
    samples = traces.samples_of(rgb, t_ms, fps=fps, face=face, box=box, clipped=clipped, off=off)
    return analyze_samples(
        samples,
        mode=require_mode(mode),
        method=require_method(method),
        fps=fps,
        calibration=calibration,
        params=params,
        debug=debug,
    )


def analyze_samples(
    samples: Samples,
    *,
    mode: Mode = "rest",
    method: Method = "pos",
    fps: float | None = None,
    calibration: Calibration | None = None,
    params: Params = DEFAULTS,
    warnings: Sequence[Warned] = (),
    debug: bool = False,
) -> Analysis:
    """The report of samples that were checked. warnings: known of them from elsewhere."""
    recording = Recording(params, mode, method)
    recording.push(samples)
    return report.analysis_of(recording, fps=fps, calibration=calibration, warnings=warnings, debug=debug)
