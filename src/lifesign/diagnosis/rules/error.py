"""R2: anything but a tool failed, and not because of what it called."""

from collections.abc import Iterator
from typing import Final

from lifesign.diagnosis.findings import Hit, Rule, View
from lifesign.diagnosis.preparation import normal_error_type


def _hits(view: View) -> Iterator[Hit]:
    for leaf in view.failures.leaves:
        if leaf.record.kind != "tool":
            yield Hit((view.operation(leaf), normal_error_type(leaf.record.error_type)), leaf)


RULE: Final = Rule(
    2,
    "error",
    "Open {evidence} and fix the cause of {error_type} in {subject}.{discriminator}",
    of_operations=True,
    has_error_type=True,
    hits=_hits,
)
