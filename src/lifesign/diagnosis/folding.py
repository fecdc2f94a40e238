"""Findings that tell of the same records are told once. Spec "Diagnosis", section 5, "Folding"."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from lifesign.diagnosis.findings import Finding, keys_of
from lifesign.diagnosis.preparation import key_of

FAILURES: Final = frozenset({1, 2})
_SLOW, _GUARDRAIL, _RATE, _LATENCY = 3, 14, 8, 9
_PATTERNS: Final = frozenset({5, 6, 7})


@dataclass(frozen=True, slots=True)
class Kept:
    """A finding that is listed, and those that went into it."""

    finding: Finding
    folded: tuple[Finding, ...] = ()

    @property
    def patterns(self) -> tuple[str, ...]:
        return tuple(sorted({each.rule.signal_type for each in self.folded}))

    @property
    def is_raised(self) -> bool:
        """Whether what went into it makes it worse by a level."""
        return any(each.rule.number in _PATTERNS for each in self.folded)

    def rate_rose_in_sessions(self) -> int:
        """In how many sessions the operation failed, when it fails more often than before; else 0."""
        rates = (each for each in self.folded if each.rule.number == _RATE)
        return max((len({placed.session_id for placed in each.records}) for each in rates), default=0)


def without_blocked(findings: Sequence[Finding]) -> list[Finding]:
    """What a guardrail blocked is no plain error as well."""
    blocked = keys_of(p for each in findings if each.rule.number == _GUARDRAIL and each.fires for p in each.records)
    kept = []
    for finding in findings:
        if finding.rule.number != 2:  # noqa: PLR2004 - R2
            kept.append(finding)
            continue
        records = tuple(placed for placed in finding.records if key_of(placed) not in blocked)
        if records:
            hashes = frozenset(placed.record.op_hash for placed in records)
            kept.append(replace(finding, records=records, count=len(records), op_hashes=hashes))
    return kept


def folded(findings: Sequence[Finding]) -> list[Kept]:
    """The findings that are listed, each with those that went into it."""
    keepers = [each for each in findings if each.rule.number in FAILURES]
    latencies = [each for each in findings if each.rule.number == _LATENCY]
    targets = {id(each): _target(each, keepers, latencies) for each in findings}
    into: dict[int, list[Finding]] = {id(each): [] for each in findings}
    for finding in findings:
        target = targets[id(finding)]
        if target is not None:
            into[id(target)].append(finding)
    return [Kept(each, tuple(into[id(each)])) for each in findings if targets[id(each)] is None]


def _target(finding: Finding, keepers: Sequence[Finding], latencies: Sequence[Finding]) -> Finding | None:
    if finding.rule.number in _PATTERNS:
        shared = [(_shared(finding, each), each) for each in keepers]
        most, keeper = _largest(shared)
        return keeper if most * 2 >= len(finding.records) else None
    if finding.rule.number == _RATE:
        return _largest([(each.count, each) for each in keepers if each.op_hashes & finding.op_hashes])[1]
    if finding.rule.number == _SLOW:
        return next((each for each in latencies if finding.op_hashes <= each.op_hashes), None)
    return None


def _shared(finding: Finding, keeper: Finding) -> int:
    return len(keys_of(finding.records) & keys_of(keeper.records))


def _largest(sized: Sequence[tuple[int, Finding]]) -> tuple[int, Finding | None]:
    """The largest, of equals the first by group."""
    return min(sized, key=lambda each: (-each[0], each[1].rule.number, each[1].parts), default=(-1, None))
