"""R9: an operation takes longer than in the window before: by much, for most, and beyond chance."""

from collections.abc import Iterator
from typing import Final

from lifesign.diagnosis.facts import OperationFacts
from lifesign.diagnosis.findings import Finding, Groups, Rule, Selector, View
from lifesign.diagnosis.statistics import discoveries, percentile_bucket, shift, upper_edge_ms

LEAST_RECORDS: Final = 30
Q: Final = 0.95
FACTOR: Final = 1.5
MORE_MS: Final = 100
CHANCE: Final = 0.001
DELTA: Final = 0.2
FALSE_DISCOVERIES: Final = 0.01


def _findings(rule: Rule, _groups: Groups, now: View, before: View | None) -> Iterator[Finding]:
    if before is None:
        return
    pairs = [
        (operation, before.operations[op_hash])
        for op_hash, operation in sorted(now.operations.items())
        if op_hash in before.operations
        and min(operation.succeeded, before.operations[op_hash].succeeded) >= LEAST_RECORDS
    ]
    shifts = [shift(operation.buckets, earlier.buckets) for operation, earlier in pairs]
    hold = discoveries([each.p for each in shifts], FALSE_DISCOVERIES)
    for (operation, earlier), moved, holds in zip(pairs, shifts, hold, strict=True):
        if holds and moved.p < CHANCE and moved.delta >= DELTA and _is_much_slower(operation, earlier):
            yield _finding(rule, operation, earlier)


def _is_much_slower(operation: OperationFacts, earlier: OperationFacts) -> bool:
    p95, p95_before = _p95_ms(operation), _p95_ms(earlier)
    return p95 >= FACTOR * p95_before and p95 >= p95_before + MORE_MS


def _finding(rule: Rule, operation: OperationFacts, earlier: OperationFacts) -> Finding:
    limit = percentile_bucket(earlier.buckets, Q)
    return Finding(
        rule,
        (operation.operation, operation.kind),
        sum(number for bucket, number in operation.buckets.items() if bucket > limit),
        selector=Selector("duration", op_hash=operation.op_hash, above_bucket=limit),
        op_hashes=frozenset({operation.op_hash}),
        values={"p95": f"{_p95_ms(operation):.0f}", "baseline_p95": f"{_p95_ms(earlier):.0f}"},
        baseline_count=sum(number for bucket, number in earlier.buckets.items() if bucket > limit),
    )


def _p95_ms(operation: OperationFacts) -> float:
    return upper_edge_ms(percentile_bucket(operation.buckets, Q))


RULE: Final = Rule(
    9,
    "latency_regression",
    "Profile {subject}: p95 is {p95} ms (baseline {baseline_p95}).{discriminator}",
    of_operations=True,
    findings=_findings,
)
