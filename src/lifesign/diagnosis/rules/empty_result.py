"""R16: a tool found nothing, was asked again, and found nothing again."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final

from lifesign.diagnosis.facts import TWO_EMPTY
from lifesign.diagnosis.findings import Hit, Rule, View, named
from lifesign.diagnosis.preparation import Placed
from lifesign.telemetry.records import EMPTY_RESULT


def _hits_in(steps: Sequence[Placed], _view: View) -> Iterator[Hit]:
    if sum(placed.record.flags & EMPTY_RESULT for placed in steps) < TWO_EMPTY * EMPTY_RESULT:
        return
    by_tool: dict[str, list[Placed]] = defaultdict(list)
    for placed in steps:
        if placed.record.kind == "tool" and placed.record.args_hash is not None:
            by_tool[named(placed.record.tool)].append(placed)
    for tool, calls in by_tool.items():
        empty = [placed for placed in calls if placed.record.flags & EMPTY_RESULT]
        # Called again after the second empty result, not only after the first.
        if len(empty) >= TWO_EMPTY and calls[-1] is not empty[TWO_EMPTY - 1]:
            yield from (Hit((tool,), placed) for placed in empty)


RULE: Final = Rule(
    16,
    "empty_result",
    "Check the query of {subject}: empty results are repeated.",
    own=frozenset({"tool"}),
    most="medium",
    hits_in=_hits_in,
)
