"""R8: an operation fails more often than in the window before, beyond chance."""

from collections import defaultdict
from collections.abc import Iterator
from typing import Final

from lifesign.diagnosis.findings import Finding, Groups, Rule, View
from lifesign.diagnosis.preparation import Placed
from lifesign.diagnosis.statistics import wilson
from lifesign.diagnosis.texts import percent

LEAST_RECORDS: Final = 20


def _findings(rule: Rule, _groups: Groups, now: View, before: View | None) -> Iterator[Finding]:
    if before is None:
        return
    failures, failures_before = _by_operation(now), _by_operation(before)
    for op_hash, operation in sorted(now.operations.items()):
        earlier = before.operations.get(op_hash)
        if earlier is None or min(operation.records, earlier.records) < LEAST_RECORDS:
            continue
        failed, failed_before = failures[op_hash], len(failures_before[op_hash])
        if wilson(len(failed), operation.records).low <= wilson(failed_before, earlier.records).high:
            continue
        yield Finding(
            rule,
            (operation.operation, operation.kind),
            len(failed),
            tuple(failed),
            op_hashes=frozenset({op_hash}),
            values={
                "before": percent(failed_before / earlier.records),
                "after": percent(len(failed) / operation.records),
            },
            baseline_count=failed_before,
        )


def _by_operation(view: View) -> dict[int, list[Placed]]:
    found: dict[int, list[Placed]] = defaultdict(list)
    for leaf in view.failures.leaves:
        found[leaf.record.op_hash].append(leaf)
    return found


RULE: Final = Rule(
    8,
    "error_rate_regression",
    "Compare {subject} before and after {first_seen}: failures rose from {before} % to {after} %.{discriminator}",
    of_operations=True,
    findings=_findings,
)
