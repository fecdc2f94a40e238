"""The heart rate of a recording, out of its windows, or the reason why there is none."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from lifesign.vitals.signal.gate import first_reason
from lifesign.vitals.signal.params import FloatArray, Params, Reason
from lifesign.vitals.signal.recording import Window

_TO_DEVIATION = 1.48
_FOLLOWING_S = 3.0
# What explains why most windows of a recording failed, where only some passed.
_EXPLAINING: frozenset[Reason] = frozenset(
    {"no_face", "multiple_faces", "gap", "overexposed", "low_light", "motion", "flicker"}
)


@dataclass(frozen=True, slots=True)
class HeartRate:
    """bpm and uncertainty are None exactly when there is a reason. windows: those that the value stands on."""

    bpm: float | None
    confidence: float
    reason: Reason | None
    uncertainty: float | None
    windows: tuple[Window, ...]
    is_provisional: bool = False


def heart_rate_of(windows: Sequence[Window], params: Params) -> HeartRate:
    """The confidence-weighted median of the windows that passed.  Source: spec "Vitals", section 2."""
    formed = [each for each in windows if each.is_full]
    if not formed:
        return _provisional(windows, params)
    accepted = [each for each in formed if each.bpm is not None]
    if not accepted:
        return _none(_common_reason(formed, params), accepted)
    if len(accepted) < params.min_accepted * len(formed):
        common = _common_reason([each for each in formed if each.bpm is None], params)
        return _none(common if common in _EXPLAINING else "unstable", accepted)
    if _disagreement_bpm(accepted) > params.unstable_bpm:
        return _none("unstable", accepted)
    values = np.array([each.bpm for each in accepted])
    weights = np.array([each.confidence for each in accepted])
    median = weighted_median(values, weights)
    deviation = float(np.median(np.abs(values - median)))
    return HeartRate(
        median,
        float(np.median(weights)),
        None,
        max(params.min_uncertainty_bpm, _TO_DEVIATION * deviation),
        tuple(accepted),
    )


def _provisional(windows: Sequence[Window], params: Params) -> HeartRate:
    """Less than one whole window: the last of what there is."""
    first_values = [each for each in windows if each.is_provisional]
    if not first_values:
        found = {each.reason for each in windows if each.reason is not None} or {"too_short"}
        return _none(first_reason(found), [])
    last = first_values[-1]
    if last.bpm is None:
        return _none(last.reason, [])
    return HeartRate(last.bpm, last.confidence, None, params.min_uncertainty_bpm, (last,), is_provisional=True)


def _none(reason: Reason | None, accepted: Sequence[Window]) -> HeartRate:
    return HeartRate(None, 0.0, reason or "low_snr", None, tuple(accepted))


def _common_reason(windows: Sequence[Window], params: Params) -> Reason | None:
    """The first of the order among reasons of many windows; of the most frequent, when none is of many."""
    counts = Counter(reason for each in windows for reason in each.reasons)
    many = {reason for reason, count in counts.items() if count >= params.min_accepted * len(windows)}
    return first_reason(many or {reason for reason, count in counts.items() if count == max(counts.values())})


def _disagreement_bpm(accepted: Sequence[Window]) -> float:
    """How far accepted windows are from the one before, in the median; a heart may change, but not jump about."""
    jumps = [
        abs((later.bpm or 0.0) - (earlier.bpm or 0.0))
        for earlier, later in pairwise(accepted)
        if later.at_s - earlier.at_s <= _FOLLOWING_S
    ]
    return float(np.median(jumps)) if jumps else 0.0


def weighted_median(values: FloatArray, weights: FloatArray) -> float:
    """The value at which half of the weight is reached; midway where it is reached exactly between two."""
    order = np.argsort(values, kind="stable")
    values, total = values[order], np.cumsum(weights[order])
    half = total[-1] / 2
    at = int(np.searchsorted(total, half))
    if at + 1 < len(values) and total[at] == half:
        return float((values[at] + values[at + 1]) / 2)
    return float(values[at])
