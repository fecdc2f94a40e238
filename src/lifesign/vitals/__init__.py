"""Vitals: the pulse of a person from a camera, or a refusal with its reason. Nothing is ever made up.

`signal` is the pure core over arrays; what reads files and images stands beside it. Everything but this module, `rules`
and `extras` needs the extra `vitals`, and `video` needs `vitals-video`: so the names below are looked up when they are
first used. Spec: "Vitals".
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lifesign.vitals.analyze import analyze_traces
    from lifesign.vitals.live import Stream
    from lifesign.vitals.signal.params import Params
    from lifesign.vitals.signal.variability import hrv_from_beats
    from lifesign.vitals.video.analyze import analyze_frames, analyze_video

__all__ = ["Params", "Stream", "analyze_frames", "analyze_traces", "analyze_video", "hrv_from_beats"]

_HOMES = {
    "Params": "signal.params",
    "Stream": "live",
    "analyze_frames": "video.analyze",
    "analyze_traces": "analyze",
    "analyze_video": "video.analyze",
    "hrv_from_beats": "signal.variability",
}


def __getattr__(name: str) -> Any:  # Any: whatever has this name
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415 - only when a name is asked for

    from lifesign.vitals.extras import require_video, require_vitals  # noqa: PLC0415 - as above

    home = _HOMES[name]
    (require_video if home.startswith("video.") else require_vitals)()
    return getattr(import_module(f"{__name__}.{home}"), name)
