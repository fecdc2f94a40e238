"""R3: records that took longer than their kind may take."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from lifesign.diagnosis.findings import Finding, Groups, Hit, Rule, View, counted
from lifesign.diagnosis.statistics import percentile_bucket, upper_edge_ms


def _hits(view: View) -> Iterator[Hit]:
    for placed in view.facts.rows:
        if placed.record.signal_type == "slow_operation":
            yield Hit((view.operation(placed),), placed)


def _findings(rule: Rule, groups: Groups, now: View, before: View | None) -> Iterable[Finding]:
    for finding in counted(rule, groups):
        values = {"p95": _p95(now, finding.op_hashes), "baseline_p95": _p95(before, finding.op_hashes)}
        yield replace(finding, values=values)


def _p95(view: View | None, op_hashes: Iterable[int]) -> str:
    buckets: Counter[int] = Counter()
    for op_hash in op_hashes:
        if view is not None and op_hash in view.operations:
            buckets.update(view.operations[op_hash].buckets)
    return f"{upper_edge_ms(percentile_bucket(buckets, 0.95)):.0f}" if buckets else "unknown"


RULE: Final = Rule(
    3,
    "slow_operation",
    "Profile {subject}: p95 is {p95} ms (baseline {baseline_p95}).{discriminator}",
    of_operations=True,
    most="medium",
    hits=_hits,
    findings=_findings,
)
