"""What rules are made of: hits in, findings out.

A rule that looks at records says which ones it hits and in which group; a rule that compares windows makes its
findings itself. Spec "Diagnosis", section 5.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple

from lifesign.diagnosis.facts import ModelFacts, OperationFacts, WindowFacts
from lifesign.diagnosis.preparation import UNKNOWN, Failures, Key, Placed, clean, in_order, key_of
from lifesign.telemetry.masks import masked_operation

Field = Literal["version", "environment", "agent", "model", "tool"]
Rank = Literal["duration", "input_tokens", "cost"]
Level = Literal["critical", "high", "medium", "low"]


class Hit(NamedTuple):
    """A record that a rule hits. parts: of the group, the first is what the title names. number: for the text."""

    parts: tuple[str, ...]
    placed: Placed
    number: int = 0


@dataclass(frozen=True, slots=True)
class Selector:
    """Records of the current window that a finding is about and nobody has looked at yet.

    op_hash with above_bucket: those that do not fail and are slower. kind `llm`: of one model, or of some sessions.
    rank: what the best evidence has most of.
    """

    rank: Rank
    op_hash: int | None = None
    above_bucket: int | None = None
    model: str | None = None
    sessions: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """A group in which a rule fired, or would with more records (`fires` false).

    count: what the issue counts. records: those hit, in order; with a selector the store has them instead.
    op_hashes: the operation keys that it is measured against; empty: the project. values: for the text.
    failed: the failing records, when the rule is about failures.
    """

    rule: "Rule"
    parts: tuple[str, ...]
    count: int
    records: tuple[Placed, ...] = ()
    selector: Selector | None = None
    op_hashes: frozenset[int] = frozenset()
    values: Mapping[str, str] = field(default_factory=dict)
    baseline_count: int | None = None
    fires: bool = True

    @property
    def subject(self) -> str:
        """The operation, agent, tool or model that it is about."""
        return self.parts[0]

    @property
    def error_type(self) -> str | None:
        return self.parts[1] if self.rule.has_error_type else None


class View:
    """A window as rules see it: its facts, which failures count, and the names of its operations."""

    def __init__(self, facts: WindowFacts, failures: Failures) -> None:
        self.facts = facts
        self.failures = failures
        self.operations: dict[int, OperationFacts] = {each.op_hash: each for each in facts.operations}
        # In order: one may be called `unknown`, and stores tell of models in any order.
        in_order_of_names = sorted(facts.models, key=lambda each: each.model)
        self.models: dict[str, ModelFacts] = {each.model or UNKNOWN: each for each in in_order_of_names}

    @cached_property
    def called(self) -> Mapping[str, Sequence[OperationFacts]]:
        """The operations by their names as issues have them; there may be a hundred thousand."""
        found: dict[str, list[OperationFacts]] = defaultdict(list)
        for each in self.facts.operations:
            found[clean(each.operation)].append(each)
        return found

    def operation(self, placed: Placed) -> str:
        """The masked operation of a record."""
        known = self.operations.get(placed.record.op_hash)
        return masked_operation(placed.record.operation) if known is None else known.operation

    def is_leaf(self, placed: Placed) -> bool:
        """Whether it is a failure that counts."""
        return key_of(placed) in self.failures.leaf_keys


Groups = Mapping[tuple[str, ...], Sequence[Hit]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule, as a module of `rules` has it.

    next_action: a template. own: what the group is of, which is no news to a discriminator. of_operations: whether it
    is measured against its operation keys rather than the project. hits: among the rows. hits_in: in one trace of
    interest, whole and in order. findings: of the hits, unless they are plainly counted; `before` is None when the
    window is itself the baseline. most: the highest severity.
    """

    number: int
    signal_type: str
    next_action: str
    own: frozenset[Field] = frozenset()
    of_operations: bool = False
    has_error_type: bool = False
    most: Level = "critical"
    hits: Callable[[View], Iterable[Hit]] | None = None
    hits_in: Callable[[Sequence[Placed], View], Iterable[Hit]] | None = None
    findings: Callable[["Rule", Groups, View, View | None], Iterable[Finding]] | None = None

    def title(self, subject: str) -> str:
        return f"{self.signal_type} on {subject}"


def counted(rule: Rule, groups: Groups, *, least: int = 1, share_of: Mapping[str, int] | None = None) -> list[Finding]:
    """One finding for each group. least: records it takes to fire. share_of: and one percent of that many."""
    findings = []
    for parts, hits in sorted(groups.items()):
        records = tuple(in_order({key_of(hit.placed): hit.placed for hit in hits}.values()))
        whole = 0 if share_of is None else share_of.get(parts[0], 0)
        findings.append(
            Finding(
                rule,
                parts,
                len(records),
                records,
                op_hashes=frozenset(p.record.op_hash for p in records) if rule.of_operations else frozenset(),
                values={"n": str(max(hit.number for hit in hits))},
                fires=len(records) >= least and len(records) * 100 >= whole,
            )
        )
    return findings


def grouped(hits: Iterable[Hit]) -> dict[tuple[str, ...], list[Hit]]:
    groups: dict[tuple[str, ...], list[Hit]] = defaultdict(list)
    for hit in hits:
        groups[hit.parts].append(hit)
    return groups


def named(name: str | None) -> str:
    """An agent, a model or a tool in a group."""
    return name or UNKNOWN


def keys_of(records: Iterable[Placed]) -> set[Key]:
    return {key_of(placed) for placed in records}
