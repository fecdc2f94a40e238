"""Traces derived from a clip: mean colours and the contact sensor, which may be kept where the faces may not."""

from pathlib import Path

import numpy as np

from lifesign.vitals.signal.params import FloatArray
from lifesign.vitals.signal.traces import Samples
from lifesign.vitals.video.regions import NAMES


def write_derived(path: Path, samples: Samples, ppg: FloatArray) -> None:
    """A file that `lifesign vitals bench DIR --layout traces` reads."""
    heading = ["t_ms", *(f"{name}_{channel}" for name in NAMES for channel in "rgb"), "face", "ppg"]
    lines = [",".join(heading)]
    faces = np.ones(len(samples.t_ms)) if samples.face is None else samples.face
    for index, t_ms in enumerate(samples.t_ms):
        colours = ["" if np.isnan(each) else f"{each:.4f}" for each in samples.rgb[index].reshape(-1)]
        lines.append(",".join([f"{t_ms:.3f}", *colours, f"{faces[index]:.3f}", f"{ppg[index]:.6g}"]))
    path.write_text("\n".join(lines) + "\n")
