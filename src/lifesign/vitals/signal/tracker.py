"""Which of several peaks is the heart's, given where it was a moment ago."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from lifesign.vitals.signal.params import Params
from lifesign.vitals.signal.spectrum import Peak

_SAME_BPM = 5.0
_BPM = 60.0


@dataclass(slots=True)
class Tracker:
    """The last accepted value, and the peak that has been the highest lately. Instants in seconds."""

    params: Params
    bpm: float | None = None
    accepted_at: float = 0.0
    _highest_bpm: float = 0.0
    _highest_since: float = 0.0
    _seen_at: float | None = None

    def chosen(self, peaks: Sequence[Peak], at: float) -> Peak:
        """One of the peaks, which come highest first."""
        highest = peaks[0]
        bpm = highest.hz * _BPM
        is_new = self._seen_at is None or at - self._seen_at > self.params.window_s
        if is_new or abs(bpm - self._highest_bpm) > _SAME_BPM:
            self._highest_since = at
        self._highest_bpm, self._seen_at = bpm, at
        if self.bpm is None or at - self._highest_since >= self.params.stubborn_s:
            return highest
        last, since = self.bpm, at - self.accepted_at
        return max(peaks, key=lambda peak: peak.amplitude * _nearness(peak.hz * _BPM - last, since))

    def accept(self, bpm: float, at: float) -> None:
        """Note a value that passed the gate."""
        self.bpm, self.accepted_at = bpm, at


def _nearness(distance_bpm: float, since_s: float) -> float:
    return math.exp(-((distance_bpm / (10 * since_s + 5)) ** 2))
