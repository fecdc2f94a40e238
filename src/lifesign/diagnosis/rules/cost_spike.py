"""R11: a model costs twice what it did in the window before, and a dollar more."""

from collections.abc import Iterator
from typing import Final

from lifesign.diagnosis.findings import Finding, Groups, Rule, Selector, View
from lifesign.telemetry.records import NANO_USD

LEAST_RECORDS: Final = 20
FACTOR: Final = 2
MORE_NANO: Final = NANO_USD


def _findings(rule: Rule, _groups: Groups, now: View, before: View | None) -> Iterator[Finding]:
    if before is None:
        return
    for name, model in sorted(now.models.items()):
        earlier = before.models.get(name)
        if earlier is None or min(model.records, earlier.records) < LEAST_RECORDS:
            continue
        if model.cost_nano is None or earlier.cost_nano is None:
            continue
        if model.cost_nano < max(FACTOR * earlier.cost_nano, earlier.cost_nano + MORE_NANO):
            continue
        yield Finding(
            rule,
            (name,),
            model.records,
            selector=Selector("cost", model=model.model),
            values={"before": _usd(earlier.cost_nano), "after": _usd(model.cost_nano)},
            baseline_count=earlier.records,
        )


def _usd(nano: int) -> str:
    return f"{nano // NANO_USD}.{nano % NANO_USD * 100 // NANO_USD:02}"


RULE: Final = Rule(
    11,
    "cost_spike",
    "Check calls, tokens per call and cache use of {subject}: cost rose from {before} to {after} USD.",
    own=frozenset({"model"}),
    findings=_findings,
)
