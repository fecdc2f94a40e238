"""What is remembered of records that are counted for details, in whatever words a store has for texts and sessions."""

from collections import Counter
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import FIELDS, MOST_EVIDENCE, MOST_TRACES, MOST_VERSIONS, Selected, Values
from lifesign.diagnosis.findings import Rank
from lifesign.diagnosis.preparation import Placed

_CANDIDATES: Final = 1000

Texts = Callable[[Hashable], str | None]
"""The text that a value stands for."""


class Tally:
    """How many records have each value of each of FIELDS."""

    def __init__(self) -> None:
        self._counts: tuple[Counter[Hashable], ...] = tuple(Counter() for _ in FIELDS)

    def add(self, values: Iterable[Hashable], count: int = 1) -> None:
        """So many more have these values."""
        for counts, value in zip(self._counts, values, strict=True):
            counts[value] += count

    def seen(self) -> set[Any]:  # Any: values, in the words of the store
        """Every value that one has."""
        return {value for counts in self._counts for value in counts}

    def values(self, texts: Texts) -> Values:
        """The same by text; what has none is left out."""
        return {
            name: Counter({text: count for value, count in counts.items() if (text := texts(value))})
            for name, counts in zip(FIELDS, self._counts, strict=True)
        }


@dataclass(slots=True)
class Gathered:
    """What is remembered of the records behind a selector, however many there are."""

    count: int = 0
    first_seen: int = 0
    last_seen: int = 0
    sessions: set[Hashable] = field(default_factory=set)
    starts: dict[bytes | str, int] = field(default_factory=dict)
    best: list[tuple[Any, ...]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)

    # Any: a row of whichever store, which has the members of LOOKED_AT.
    def add(self, row: Any, rank: Rank) -> None:
        """One more record. Rows name it by `id`."""
        at = row.received_at
        self.first_seen = min(at, self.first_seen) if self.count else at
        self.last_seen = max(at, self.last_seen)
        self.count += 1
        self.sessions.add(row.session)
        start = self.starts.get(row.trace_id)
        if start is None or row.start_ns < start:
            self.starts[row.trace_id] = row.start_ns
        self.best.append((-_rank_of(row, rank), row.start_ns, row.trace_id, row.span_id, row.id))
        if len(self.best) >= _CANDIDATES:
            self._shorten()
        self.tally.add((row.version, row.environment, row.agent, row.model, row.tool))

    def _shorten(self) -> None:
        self.best.sort()
        del self.best[MOST_EVIDENCE:]

    def top(self) -> list[Any]:
        """The `id` of each of the best records, in order."""
        self._shorten()
        return [spot[-1] for spot in self.best]

    def told(self, top: Iterable[Placed], texts: Texts) -> Selected:
        """What it comes to. top: the best records, in order."""
        values = self.tally.values(texts)
        first = sorted((start, trace_id) for trace_id, start in self.starts.items())[:MOST_TRACES]
        return Selected(
            self.count,
            len(self.sessions),
            EpochMs(self.first_seen),
            EpochMs(self.last_seen),
            tuple(top),
            tuple(trace_id if isinstance(trace_id, str) else trace_id.hex() for _, trace_id in first),
            tuple(sorted(values["version"])[:MOST_VERSIONS]),
            values,
        )


LOOKED_AT: Final = (
    "trace_id",
    "span_id",
    "received_at",
    "start_ns",
    "end_ns",
    "op_hash",
    "bucket",
    "input_tokens",
    "cost_nano",
    "version",
    "environment",
    "agent",
    "model",
    "tool",
)
"""What rows have of a record; besides `id`, and `session`."""


def _rank_of(row: Any, rank: Rank) -> int:  # Any: as above
    match rank:
        case "duration":
            return max(0, int(row.end_ns - row.start_ns))
        case "input_tokens":
            return int(row.input_tokens or 0)
        case "cost":
            return int(row.cost_nano or 0)
