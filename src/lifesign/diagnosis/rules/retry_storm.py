"""R6: the same is tried over and over."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from lifesign.diagnosis.facts import MANY_ATTEMPTS
from lifesign.diagnosis.findings import Hit, Rule, View
from lifesign.diagnosis.preparation import Placed

FAILING_SIBLINGS: Final = 3


def _hits(view: View) -> Iterator[Hit]:
    for placed in view.facts.rows:
        attempt = placed.record.attempt or 0
        if attempt >= MANY_ATTEMPTS and (view.is_leaf(placed) or not placed.record.is_failing):
            yield Hit((view.operation(placed),), placed, attempt)
    for siblings in _failing_siblings(view):
        yield from (Hit((view.operation(each),), each, len(siblings)) for each in siblings)


def _failing_siblings(view: View) -> Iterator[list[Placed]]:
    families: dict[tuple[str, str, int], list[Placed]] = defaultdict(list)
    for leaf in view.failures.leaves:
        record = leaf.record
        if record.parent_id:
            families[record.trace_id, record.parent_id, record.op_hash].append(leaf)
    yield from (each for each in families.values() if len(each) >= FAILING_SIBLINGS)


RULE: Final = Rule(
    6,
    "retry_storm",
    "Limit retries of {subject} and back off; the highest attempt was {n}.{discriminator}",
    of_operations=True,
    hits=_hits,
)
