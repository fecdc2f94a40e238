"""R12: answers of a model end where its output limit is."""

from collections.abc import Iterable, Iterator
from typing import Final

from lifesign.diagnosis.facts import CUT_REASONS, finish_reason_of
from lifesign.diagnosis.findings import Finding, Groups, Hit, Rule, View, counted, named

LEAST: Final = 2


def _hits(view: View) -> Iterator[Hit]:
    for placed in view.facts.rows:
        if placed.record.kind == "llm" and finish_reason_of(placed) in CUT_REASONS:
            yield Hit((named(placed.record.model),), placed)


def _findings(rule: Rule, groups: Groups, now: View, _before: View | None) -> Iterable[Finding]:
    calls = {name: model.records for name, model in now.models.items()}
    return counted(rule, groups, least=LEAST, share_of=calls)


RULE: Final = Rule(
    12,
    "output_truncated",
    "Raise the output limit of {subject} or ask for shorter output.",
    own=frozenset({"model"}),
    most="medium",
    hits=_hits,
    findings=_findings,
)
