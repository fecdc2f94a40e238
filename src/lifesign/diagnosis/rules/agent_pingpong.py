"""R15: two agents hand over to each other and back."""

from collections.abc import Iterator, Sequence
from typing import Final

from lifesign.diagnosis.findings import Hit, Rule, View
from lifesign.diagnosis.preparation import Placed

LEAST: Final = 4
BETWEEN: Final = " <-> "


def _hits_in(steps: Sequence[Placed], _view: View) -> Iterator[Hit]:
    agents = [placed for placed in steps if placed.record.kind == "agent"]
    if len(agents) < LEAST:
        return
    alternating: list[Placed] = []
    for placed in agents:
        if not _goes_on(alternating, placed):
            yield from _hits(alternating)
            # The last one may begin another pair: the second `b` of `abab` in `ababcbcb`.
            alternating = [each for each in alternating[-1:] if each.record.agent != placed.record.agent]
        alternating.append(placed)
    yield from _hits(alternating)


def _goes_on(alternating: Sequence[Placed], placed: Placed) -> bool:
    """Whether it is another agent than the last one, and the same as the one before."""
    agents = [each.record.agent for each in alternating[-2:]]
    return not agents or (placed.record.agent != agents[-1] and agents[:-1] in ([], [placed.record.agent]))


def _hits(alternating: Sequence[Placed]) -> Iterator[Hit]:
    names = {placed.record.agent for placed in alternating}
    if len(alternating) < LEAST or None in names:
        return
    pair = BETWEEN.join(sorted(name for name in names if name is not None))
    yield from (Hit((pair,), placed) for placed in alternating)


RULE: Final = Rule(
    15,
    "agent_pingpong",
    "Decide which of {first} and {second} owns the step; they hand over to each other.",
    own=frozenset({"agent"}),
    hits_in=_hits_in,
)
