"""R7: a tool failed, the model went on, and the run ended as if nothing had happened."""

from collections.abc import Iterator, Sequence
from typing import Final

from lifesign.diagnosis.findings import Hit, Rule, View, named
from lifesign.diagnosis.preparation import Placed

LATER_CALLS: Final = 2


def _hits_in(steps: Sequence[Placed], view: View) -> Iterator[Hit]:
    roots = [placed.record for placed in steps if placed.record.parent_id == ""]
    if not roots or any(root.is_failing for root in roots):
        return
    calls = [placed.record.start_ns for placed in steps if placed.record.kind == "llm"]
    if len(calls) < LATER_CALLS:
        return
    last_success = {
        record.tool: record.start_ns for _, record in steps if record.kind == "tool" and not record.is_failing
    }
    for placed in steps:
        start_ns = placed.record.start_ns
        is_made_good = last_success.get(placed.record.tool, start_ns) > start_ns
        if (
            placed.record.kind == "tool"
            and view.is_leaf(placed)
            and not is_made_good
            and calls[-LATER_CALLS] > start_ns
        ):
            yield Hit((named(placed.record.tool),), placed)


RULE: Final = Rule(
    7,
    "ignored_error",
    "Make the agent handle a failed {subject} before it goes on.{discriminator}",
    own=frozenset({"tool"}),
    hits_in=_hits_in,
)
