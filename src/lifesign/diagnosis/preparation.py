"""Which failures count, and what they are called. Spec "Diagnosis", section 4."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from lifesign.telemetry.masks import masked
from lifesign.telemetry.records import Narrow

UNKNOWN: Final = "unknown"
OTHER: Final = "_OTHER"
_LONGEST_ERROR_TYPE: Final = 100
_LINES_READ: Final = 2
READ_CHARACTERS: Final = 4096
"""As much of a message is looked at."""
_REMEMBERED: Final = 4096
# Control characters, marks that turn the direction of text, and halves of characters, which cannot be sent.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Placed(NamedTuple):
    """A record, and the session that it belongs to."""

    session_id: str
    record: Narrow


Key = tuple[str, str]
"""Trace id and span id: what identifies a record within its project."""


def key_of(placed: Placed) -> Key:
    return placed.record.trace_id, placed.record.span_id


def order_of(placed: Placed) -> tuple[int, str, str]:
    """What records are sorted by wherever order matters."""
    return placed.record.start_ns, placed.record.trace_id, placed.record.span_id


def in_order(records: Iterable[Placed]) -> list[Placed]:
    return sorted(records, key=order_of)


def clean(text: str) -> str:
    """Text without what cannot be seen: it may stand in a title."""
    return _UNSEEN.sub("", text)


@lru_cache(maxsize=_REMEMBERED)
def masked_message(message: str) -> str:
    """The first two lines of a message, without what is particular to one occurrence."""
    lines = [line for line in message[:READ_CHARACTERS].splitlines() if line.strip()]
    return masked(clean(" ".join(" ".join(lines[:_LINES_READ]).split())))


@lru_cache(maxsize=_REMEMBERED)
def normal_error_type(error_type: str | None) -> str:
    """`httpx.ReadTimeout` and `ReadTimeout` are one; `_OTHER` when there is none."""
    if not error_type:
        return OTHER
    text = masked(clean(error_type))
    last = re.split(r"\.|::", text)[-1].strip()
    return (last or text)[:_LONGEST_ERROR_TYPE] or OTHER


# Leaf failures -------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Failures:
    """leaves: those that count, in order. ended_the_root: the leaves through which the whole trace failed."""

    leaves: tuple[Placed, ...]
    leaf_keys: frozenset[Key]
    ended_the_root: frozenset[Key]


def failures_of(rows: Iterable[Placed], recoveries: Iterable[Placed]) -> Failures:
    """The failures that are not just the failure of a child, told again by its parent.

    A child that was repeated later and then succeeded does not explain the failure of its parent.
    recoveries: as in `WindowFacts`.
    """
    failing = {key_of(placed): placed for placed in in_order(rows) if placed.record.is_failing}
    parents = _parents(failing)
    last_success = _last_successes(recoveries)
    propagated = {
        parent
        for key, parent in parents.items()
        if parent is not None and not _was_made_good(failing[key].record, last_success)
    }
    leaves = {key: placed for key, placed in failing.items() if key not in propagated}
    ending = _ending_in_a_root(failing, parents)
    return Failures(tuple(leaves.values()), frozenset(leaves), frozenset(key for key in leaves if ending[key]))


def _parents(failing: dict[Key, Placed]) -> dict[Key, Key | None]:
    """The failing parent of each failing record. A cycle is cut at its earliest record, which then has none."""
    parents: dict[Key, Key | None] = {}
    for (trace_id, span_id), placed in failing.items():
        parent = (trace_id, placed.record.parent_id)
        parents[trace_id, span_id] = parent if parent in failing else None
    done: set[Key] = set()
    for start in failing:
        path: dict[Key, None] = {}
        key: Key | None = start
        while key is not None and key not in done and key not in path:
            path[key] = None
            key = parents[key]
        if key is not None and key in path:
            cycle = list(path)[list(path).index(key) :]
            parents[min(cycle, key=lambda each: order_of(failing[each]))] = None
        done.update(path)
    return parents


def _last_successes(recoveries: Iterable[Placed]) -> dict[tuple[str, str, int], int]:
    latest: dict[tuple[str, str, int], int] = defaultdict(int)
    for placed in recoveries:
        record = placed.record
        group = (record.trace_id, record.parent_id, record.op_hash)
        latest[group] = max(latest[group], record.start_ns)
    return latest


def _was_made_good(record: Narrow, last_success: dict[tuple[str, str, int], int]) -> bool:
    latest = last_success.get((record.trace_id, record.parent_id, record.op_hash))
    return latest is not None and latest > record.start_ns


def _ending_in_a_root(failing: dict[Key, Placed], parents: dict[Key, Key | None]) -> dict[Key, bool]:
    """Whether a chain of failing parents leads from each failing record to the root of its trace."""
    ending: dict[Key, bool] = {}
    for start in failing:
        path, key = [], start
        while key not in ending and (parent := parents[key]) is not None:
            path.append(key)
            key = parent
        if key not in ending:
            ending[key] = failing[key].record.parent_id == ""
        for each in path:
            ending[each] = ending[key]
    return ending
