"""A session as a waterfall: its spans below those that called them, and when each ran. Pure."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from lifesign.telemetry.store import Stored

WIDTH: Final = 1000
_DEEPEST: Final = 12
_THINNEST: Final = 3.0


class Row(NamedTuple):
    """A span, how deep it stands, and its bar. x, width: of WIDTH."""

    stored: Stored
    depth: int
    x: float
    width: float


def rows_of(records: Sequence[Stored]) -> list[Row]:
    """The spans in the order in which they are drawn: each before what it called, which goes by start.

    What was called by a span that is not among them stands by itself, as does whatever a ring of calls begins with.
    """
    if not records:
        return []
    by_id = {(each.record.trace_id, each.record.span_id): each for each in records}
    below: dict[tuple[str, str], list[Stored]] = {}
    tops: list[Stored] = []
    for each in sorted(records, key=lambda each: (each.record.start_ns, each.record.record_id)):
        parent = (each.record.trace_id, each.record.parent_id)
        if parent in by_id and by_id[parent] is not each:
            below.setdefault(parent, []).append(each)
        else:
            tops.append(each)
    placed = _placed(tops, below)
    seen = {id(stored) for stored, _ in placed}
    # Spans that call each other in a ring have no top.
    placed += [(each, 0) for each in records if id(each) not in seen]
    first = min(each.record.start_ns for each in records)
    length = max(max(each.record.end_ns, each.record.start_ns) for each in records) - first or 1
    return [_drawn(stored, depth, first, length) for stored, depth in placed]


def _placed(tops: Sequence[Stored], below: dict[tuple[str, str], list[Stored]]) -> list[tuple[Stored, int]]:
    placed: list[tuple[Stored, int]] = []
    waiting = [(each, 0) for each in reversed(tops)]
    while waiting:
        stored, depth = waiting.pop()
        placed.append((stored, depth))
        called = below.get((stored.record.trace_id, stored.record.span_id), [])
        waiting += [(each, min(depth + 1, _DEEPEST)) for each in reversed(called)]
    return placed


def _drawn(stored: Stored, depth: int, first: int, length: int) -> Row:
    record = stored.record
    width = max(_THINNEST, record.duration_ns / length * WIDTH)
    x = min((record.start_ns - first) / length * WIDTH, WIDTH - _THINNEST)
    return Row(stored, depth, round(x, 1), round(min(width, WIDTH - x), 1))
