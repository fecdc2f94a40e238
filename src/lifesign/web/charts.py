"""Charts as drawings that need no script: bars of days, and of how long something took. Pure.

A route makes one with `bars` or `lengths`, and a template draws it with the macro `chart` of `macros.html.j2`, which
also tells it in words and as a table to whoever cannot see it.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

HEIGHT = 48
_STEP = 24
_WIDTH = 18


class Bar(NamedTuple):
    """One part of one bar. look: how it is coloured, as states are; words: what it says when it is pointed at."""

    look: str
    x: int
    y: float
    height: float
    words: str


class Chart(NamedTuple):
    """width: of the drawing, whose height is `HEIGHT`; words: the whole in a sentence; rows: the same as a table."""

    width: int
    bars: list[Bar]
    words: str
    rows: list[tuple[str, ...]]
    marks: Sequence[tuple[str, float]] = ()
    """Lines across the drawing: what each is called, and how high it lies."""


class Length(NamedTuple):
    """One thing that took some time. words: what its bar says when it is pointed at; row: the same for the table."""

    ms: int
    look: str
    words: str
    row: tuple[str, ...]


def lengths(taken: Sequence[Length], marks: Mapping[str, int], words: str) -> Chart:
    """How long things took, side by side. marks: lengths in ms at which a line is drawn across, by name."""
    most = max([*(each.ms for each in taken), *marks.values()], default=0) or 1

    def height(ms: int) -> float:
        return max(2.0, round(ms / most * (HEIGHT - 4), 1))

    drawn = [
        Bar(
            each.look,
            number * _STEP + (_STEP - _WIDTH) // 2,
            round(HEIGHT - height(each.ms), 1),
            height(each.ms),
            each.words,
        )
        for number, each in enumerate(taken)
    ]
    lines = [(name, round(HEIGHT - height(ms), 1)) for name, ms in marks.items()]
    return Chart(len(taken) * _STEP, drawn, words, [each.row for each in taken], lines)


def bars(columns: Sequence[tuple[str, Mapping[str, int]]], looks: Mapping[str, str], words: str) -> Chart:
    """Bars side by side, each of parts that stand on each other.

    columns: what each is called, with the size of its parts by name; looks: by the same names, the lowest part first.
    """
    most = max((sum(parts.values()) for _, parts in columns), default=0) or 1
    drawn: list[Bar] = []
    for number, (name, parts) in enumerate(columns):
        base = float(HEIGHT)
        for part, look in looks.items():
            size = parts.get(part, 0)
            if not size:
                continue
            # However small, it is seen.
            height = max(2.0, round(size / most * (HEIGHT - 4), 1))
            base -= height
            drawn.append(
                Bar(look, number * _STEP + (_STEP - _WIDTH) // 2, round(base, 1), height, f"{name}: {size} {part}")
            )
    rows = [(name, *(str(parts.get(part, 0)) for part in looks)) for name, parts in columns]
    return Chart(len(columns) * _STEP, drawn, words, rows)
