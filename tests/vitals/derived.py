"""Traces derived from a clip: mean colours and the contact sensor, which may be kept where the faces may not."""

import csv
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


def sensor_of(path: Path, t_ms: FloatArray) -> FloatArray:
    """The contact sensor at the instants of the frames; without times of its own it spans the clip evenly."""
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    ppg = np.array([float(row["ppg"]) for row in rows])
    if len(ppg) == len(t_ms):
        return ppg
    spread: FloatArray = np.interp(np.linspace(0, 1, len(t_ms)), np.linspace(0, 1, len(ppg)), ppg)
    return spread
