"""R13: a model, or what guards it, would not answer."""

from collections.abc import Iterable, Iterator
from typing import Final

from lifesign.diagnosis.facts import REFUSAL_REASONS, finish_reason_of
from lifesign.diagnosis.findings import Finding, Groups, Hit, Rule, View, counted, named

LEAST: Final = 2


def _hits(view: View) -> Iterator[Hit]:
    for placed in view.facts.rows:
        if placed.record.kind == "llm" and finish_reason_of(placed) in REFUSAL_REASONS:
            yield Hit((named(placed.record.model),), placed)


def _findings(rule: Rule, groups: Groups, _now: View, _before: View | None) -> Iterable[Finding]:
    return counted(rule, groups, least=LEAST)


RULE: Final = Rule(
    13,
    "refusal",
    "Read the blocked inputs of {subject} and decide whether the block is right.",
    own=frozenset({"model"}),
    hits=_hits,
    findings=_findings,
)
