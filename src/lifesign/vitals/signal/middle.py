"""The median, without what numpy's asks about axes and masks first: that takes ten times as long at our lengths."""

import numpy as np

from lifesign.vitals.signal.params import BoolArray, FloatArray


def median(values: FloatArray | BoolArray) -> float:
    """The middle of some values, or midway between the two in the middle; there is at least one."""
    ordered = np.sort(values, axis=None)
    half = len(ordered) // 2
    if len(ordered) % 2:
        return float(ordered[half])
    return float(ordered[half - 1] + ordered[half]) / 2
