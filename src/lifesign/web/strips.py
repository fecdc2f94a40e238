"""Strips of marks: how the last periods went, as a drawing and in words. Pure."""

from collections.abc import Sequence
from typing import NamedTuple

from lifesign.heartbeats.past import MAX_PERIODS, Period

_STEP = 5
_HEIGHT = 18
# Told apart by their height as well as by their colour.
_TOPS: dict[Period, int] = {"on_time": 7, "late": 4, "missed": 0, "unknown": 14}
_WORDS: dict[Period, str] = {"on_time": "on time", "late": "late", "missed": "missed", "unknown": "unknown"}
WIDTH = MAX_PERIODS * _STEP


class Strip(NamedTuple):
    """paths: the lines of one kind of mark each, as the attribute `d` of an SVG path; words: the same to be read."""

    paths: list[tuple[Period, str]]
    words: str


def strip_of(periods: Sequence[Period]) -> Strip:
    """The marks of the last periods, oldest first; the newest stands at the right end."""
    start = (MAX_PERIODS - len(periods)) * _STEP + _STEP // 2
    paths = [
        (
            kind,
            "".join(f"M{start + n * _STEP} {_TOPS[kind]}V{_HEIGHT}" for n, each in enumerate(periods) if each == kind),
        )
        for kind in _TOPS
        if kind in periods
    ]
    counts = [f"{periods.count(kind)} {_WORDS[kind]}" for kind in _TOPS if kind in periods]
    return Strip(paths, ", ".join(counts) if counts else "nothing yet")
