"""R14: a guardrail, or a person who was asked, said no."""

from collections.abc import Iterable, Iterator
from typing import Final

from lifesign.diagnosis.findings import Finding, Groups, Hit, Rule, View, counted
from lifesign.telemetry.records import BLOCKED

LEAST: Final = 2


def _hits(view: View) -> Iterator[Hit]:
    for placed in view.facts.rows:
        is_leaf = view.is_leaf(placed)
        is_failing_guardrail = placed.record.kind == "guardrail" and is_leaf
        is_blocked = placed.record.flags & BLOCKED and (is_leaf or not placed.record.is_failing)
        if is_failing_guardrail or is_blocked:
            yield Hit((view.operation(placed),), placed)


def _findings(rule: Rule, groups: Groups, _now: View, _before: View | None) -> Iterable[Finding]:
    return counted(rule, groups, least=LEAST)


RULE: Final = Rule(
    14,
    "guardrail_block",
    "Read the blocked inputs of {subject} and decide whether the block is right.",
    of_operations=True,
    hits=_hits,
    findings=_findings,
)
