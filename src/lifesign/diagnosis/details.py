"""What is fetched for the findings that fired: sums of records not looked at so far, messages, and value counts."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from lifesign.clock import EpochMs
from lifesign.diagnosis.findings import Field, Finding, Rank, Selector
from lifesign.diagnosis.preparation import READ_CHARACTERS, Key, Placed, in_order, key_of
from lifesign.telemetry.records import Narrow

FIELDS: Final[tuple[Field, ...]] = ("version", "environment", "agent", "model", "tool")
MOST_EVIDENCE: Final = 20
MOST_TRACES: Final = 10
MOST_VERSIONS: Final = 10

Values = Mapping[Field, Mapping[str, int]]
"""How many records have each value of a field."""

_RANKS: Final[dict[Rank, Callable[[Narrow], int]]] = {
    "duration": lambda record: record.duration_ns,
    "input_tokens": lambda record: record.input_tokens or 0,
    "cost": lambda record: record.cost_nano or 0,
}


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to fetch of the current window. op_hashes: whose values are counted; None stands for all records.

    messages: the records whose messages are read.
    """

    selectors: tuple[Selector, ...] = ()
    op_hashes: frozenset[int | None] = frozenset()
    messages: frozenset[Key] = frozenset()


@dataclass(frozen=True, slots=True)
class Selected:
    """Records in sum. top: the 20 best by rank, ties by (start_ns, trace_id, span_id). traces: 10, earliest first.

    versions: sorted, 10. agents and the like are in `values`.
    """

    count: int
    sessions: int
    first_seen: EpochMs
    last_seen: EpochMs
    top: tuple[Placed, ...]
    traces: tuple[str, ...]
    versions: tuple[str, ...]
    values: Values


@dataclass(frozen=True, slots=True)
class Details:
    """What was fetched. selected: without those selectors that nothing is behind. messages: as far as they are read."""

    selected: Mapping[Selector, Selected] = field(default_factory=dict)
    values: Mapping[int | None, Values] = field(default_factory=dict)
    messages: Mapping[Key, str] = field(default_factory=dict)


Fetch = Callable[[Wanted], Details]
"""Fetches the details of a window whose facts are known already."""


def wanted_of(findings: Iterable[Finding]) -> Wanted:
    """What these findings need to be told."""
    selectors: dict[Selector, None] = {}
    op_hashes: set[int | None] = set()
    messages: set[Key] = set()
    for finding in findings:
        if finding.selector is not None:
            selectors[finding.selector] = None
        op_hashes.update(finding.op_hashes or {None})
        messages.update(key_of(placed) for placed in finding.records if placed.record.is_failing)
    return Wanted(tuple(selectors), frozenset(op_hashes), frozenset(messages))


def details_of(records: Iterable[Placed], wanted: Wanted, messages: Mapping[Key, str]) -> Details:
    """The details of records in hand; what every store must answer."""
    ordered = in_order(records)
    selected = {each: [placed for placed in ordered if is_selected(placed, each)] for each in wanted.selectors}
    by_operation: dict[int | None, list[Placed]] = {each: [] for each in wanted.op_hashes}
    for placed in ordered:
        for op_hash in {None, placed.record.op_hash} & wanted.op_hashes:
            by_operation[op_hash].append(placed)
    return Details(
        {each: summed(found, each.rank) for each, found in selected.items() if found},
        {op_hash: values_of(found) for op_hash, found in by_operation.items()},
        {key: messages[key][:READ_CHARACTERS] for key in wanted.messages if key in messages},
    )


def is_selected(placed: Placed, selector: Selector) -> bool:
    """Whether a record is among those that a finding is about."""
    record = placed.record
    if selector.op_hash is not None:
        limit = selector.above_bucket
        return record.op_hash == selector.op_hash and not record.is_failing and (limit is None or record.bucket > limit)
    if record.kind != "llm":
        return False
    if selector.sessions is not None:
        return placed.session_id in selector.sessions
    return (record.model or "") == selector.model


def summed(ordered: list[Placed], rank: Rank | None = None) -> Selected:
    """The sum of some records, one at least, which are in order. Without a rank: no `top`."""
    received = [placed.record.received_at for placed in ordered]
    by_rank = [] if rank is None else sorted(ordered, key=lambda placed: -_RANKS[rank](placed.record))
    return Selected(
        len(ordered),
        len({placed.session_id for placed in ordered}),
        min(received),
        max(received),
        tuple(by_rank[:MOST_EVIDENCE]),
        tuple(dict.fromkeys(placed.record.trace_id for placed in ordered))[:MOST_TRACES],
        tuple(sorted({placed.record.version for placed in ordered if placed.record.version}))[:MOST_VERSIONS],
        values_of(ordered),
    )


def values_of(records: Iterable[Placed]) -> Values:
    """How many of these records have each value."""
    counts: dict[Field, Counter[str]] = {name: Counter() for name in FIELDS}
    for placed in records:
        for name in FIELDS:
            value = getattr(placed.record, name)
            if value:
                counts[name][value] += 1
    return counts
