"""Findings that tell of the same records are told once. Spec "Diagnosis", section 5, "Folding"."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

from lifesign.diagnosis.findings import Finding, keys_of
from lifesign.diagnosis.preparation import Key, key_of

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
    places = _Places(findings)
    targets = [places.target(each) for each in findings]
    into: dict[int, list[Finding]] = defaultdict(list)
    for finding, target in zip(findings, targets, strict=True):
        if target is not None:
            into[target].append(finding)
    return [Kept(each, tuple(into[place])) for place, each in enumerate(findings) if targets[place] is None]


class _Places:
    """Where findings may go, by what they share, so that thousands of them are placed in one go."""

    def __init__(self, findings: Sequence[Finding]) -> None:
        self.findings = findings
        # A failure that counts is in one finding of R1 or R2 only.
        self.keeper_of: dict[Key, int] = {}
        self.keepers_of: dict[int, list[int]] = defaultdict(list)
        self.latency_of: dict[int, int] = {}
        for place, finding in enumerate(findings):
            if finding.rule.number in FAILURES:
                self.keeper_of.update((key_of(placed), place) for placed in finding.records)
                for op_hash in finding.op_hashes:
                    self.keepers_of[op_hash].append(place)
            if finding.rule.number == _LATENCY:
                self.latency_of.update((op_hash, place) for op_hash in finding.op_hashes)

    def target(self, finding: Finding) -> int | None:
        """The place of the finding that this one goes into; None when it stands by itself."""
        if finding.rule.number in _PATTERNS:
            shared = Counter(self.keeper_of.get(key_of(placed), -1) for placed in finding.records)
            del shared[-1]
            target = self._largest(shared)
            return target if target is not None and shared[target] * 2 >= len(finding.records) else None
        if finding.rule.number == _RATE:
            places = {place for op_hash in finding.op_hashes for place in self.keepers_of.get(op_hash, ())}
            return self._largest({place: self.findings[place].count for place in places})
        if finding.rule.number == _SLOW:
            latencies = {self.latency_of.get(op_hash) for op_hash in finding.op_hashes}
            return latencies.pop() if len(latencies) == 1 else None
        return None

    def _largest(self, sizes: Mapping[int, int]) -> int | None:
        """The largest, of equals the first by group."""
        order = {
            place: (-size, self.findings[place].rule.number, self.findings[place].parts)
            for place, size in sizes.items()
        }
        return min(order, key=order.__getitem__, default=None)
