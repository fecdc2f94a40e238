"""What is true of inventories: what counts as a change, how grave it is, and which old ones are worth keeping.

Spec "Systems", section 6. Documents are JSON as Python values.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import islice
from typing import Any, Literal, NamedTuple, get_args

from lifesign.clock import EpochMs, to_datetime

# Any, throughout: JSON.
Op = Literal["added", "removed", "changed"]
Category = Literal[
    "os", "hardware", "network", "security", "backup", "features", "modules", "cluster", "nodes", "system"
]
Severity = Literal["critical", "high", "medium", "low"]
CATEGORIES: tuple[Category, ...] = get_args(Category)
SEVERITIES: tuple[Severity, ...] = get_args(Severity)

MAX_BYTES = 10 * 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 100_000
MAX_CHANGES = 5000
_DAY_MS = 24 * 3600 * 1000


class Overtaken(Exception):
    """Another inventory of the same system was stored meanwhile: this one has to be compared with that."""


class Change(NamedTuple):
    """One difference. `path`: JSON Pointer, by key where an array is compared by key."""

    path: str
    op: Op
    old: Any = None
    new: Any = None


# Size ---------------------------------------------------------------------------------------------------------------
def is_too_much(document: Any) -> bool:
    """Whether a document is nested too deeply or has too many values. Level by level: it may be hostile."""
    level, depth, values = [document], 0, 0
    while level:
        values += len(level)
        nested = [each for each in level if isinstance(each, dict | list)]
        depth += bool(nested)
        if values > MAX_VALUES or depth > MAX_DEPTH:
            return True
        level = [member for each in nested for member in (each.values() if isinstance(each, dict) else each)]
    return False


# What may change without notice -------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Volatile:
    """Globs over the JSON Pointer: `*` within one level, `**` across levels."""

    pattern: re.Pattern[str]

    @classmethod
    def of(cls, globs: str) -> "Volatile":
        """From globs separated by commas."""
        patterns = [_regex(glob.strip().removeprefix("/")) for glob in globs.split(",") if glob.strip()]
        return cls(re.compile("|".join(patterns) if patterns else r"(?!)", re.DOTALL))

    def matches(self, path: str) -> bool:
        """Whether what stands at `path` may change without notice."""
        return self.pattern.fullmatch(path, 1) is not None


_TOKENS = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}


def _regex(glob: str) -> str:
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return "".join(_TOKENS.get(part, re.escape(part)) for part in parts)


def steady(value: Any, volatile: Volatile, path: str = "") -> Any:
    """The document without what may change without notice."""
    if isinstance(value, dict):
        named = {key: f"{path}/{_escaped(key)}" for key in value}
        return {key: steady(value[key], volatile, at) for key, at in named.items() if not volatile.matches(at)}
    if isinstance(value, list):
        key = _array_key(value)
        if key is not None:
            paths = ((each, f"{path}/{_escaped(str(each[key]))}") for each in value)
            return [steady(each, volatile, at) for each, at in paths if not volatile.matches(at)]
        # What is left out of an array leaves its place behind, so that the others keep theirs.
        places = ((each, f"{path}/{position}") for position, each in enumerate(value))
        return [None if volatile.matches(at) else steady(each, volatile, at) for each, at in places]
    return value


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


# Differences --------------------------------------------------------------------------------------------------------
_ARRAY_KEYS = ("id", "uuid", "name", "mac", "device")


def _array_key(*arrays: Sequence[Any]) -> str | None:
    """The member by which the objects of all of these arrays are told apart; None when there is none."""
    if not all(isinstance(each, dict) for array in arrays for each in array) or not any(arrays):
        return None
    return next((key for key in _ARRAY_KEYS if all(_is_unique(key, array) for array in arrays)), None)


def _is_unique(key: str, array: Sequence[Mapping[str, Any]]) -> bool:
    values = [each.get(key) for each in array]
    return all(isinstance(each, str | int) for each in values) and len({str(each) for each in values}) == len(values)


def differences(old: Any, new: Any) -> list[Change]:
    """What is different in `new`; one entry for the whole when there is too much to tell."""
    found = list(islice(_differences(old, new, ""), MAX_CHANGES + 1))
    return found if len(found) <= MAX_CHANGES else [Change("", "changed", old, new)]


def _differences(old: Any, new: Any, path: str) -> Iterator[Change]:
    if isinstance(old, dict) and isinstance(new, dict):
        yield from _differing_members(old, new, path)
    elif isinstance(old, list) and isinstance(new, list):
        key = _array_key(old, new)
        yield from _differing_members(_by(key, old), _by(key, new), path)
    elif not _is_same(old, new):
        yield Change(path, "changed", old, new)


def _by(key: str | None, array: Sequence[Any]) -> dict[str, Any]:
    if key is None:
        return {str(position): each for position, each in enumerate(array)}
    return {str(each[key]): each for each in array}


def _differing_members(old: Mapping[str, Any], new: Mapping[str, Any], path: str) -> Iterator[Change]:
    for key, value in old.items():
        at = f"{path}/{_escaped(key)}"
        if key in new:
            yield from _differences(value, new[key], at)
        else:
            yield Change(at, "removed", old=value)
    for key, value in new.items():
        if key not in old:
            yield Change(f"{path}/{_escaped(key)}", "added", new=value)


def _is_same(old: Any, new: Any) -> bool:
    # To Python, true is 1.
    return bool(old == new) and isinstance(old, bool) == isinstance(new, bool)


# How grave ----------------------------------------------------------------------------------------------------------
_SEGMENTS: tuple[tuple[Category, tuple[str, ...]], ...] = (
    ("os", ("os", "kernel", "distro")),
    ("hardware", ("hardware", "cpu", "memory", "disk*", "pci", "dmi")),
    ("network", ("network*", "interfaces", "dns", "routes")),
    ("security", ("security", "users", "ssh", "firewall", "certificates")),
    ("backup", ("backup*",)),
    ("features", ("features", "packages", "services")),
    ("modules", ("modules", "containers")),
    ("cluster", ("cluster",)),
    ("nodes", ("nodes",)),
)
_NOTICED_FRACTION = 0.2


def category(path: str) -> Category:
    """What a change is about: told by the first part of its path that means something."""
    for segment in path.split("/")[1:]:
        for name, patterns in _SEGMENTS:
            if any(fnmatchcase(segment, pattern) for pattern in patterns):
                return name
    return "system"


def severity(change: Change, about: Category) -> Severity:
    """How grave a change is; the first rule that fits."""
    moved = _moved_by(change)
    if moved is not None and moved <= _NOTICED_FRACTION:
        return "low"
    if change.op == "removed" and about in {"security", "cluster"}:
        return "critical"
    if about in {"security", "os", "cluster", "nodes"} or (change.op == "removed" and about in {"hardware", "backup"}):
        return "high"
    return "medium" if moved is not None or about in {"hardware", "network", "backup"} else "low"


def _moved_by(change: Change) -> float | None:
    """By which part of itself a number moved; None when it is none."""
    if change.op != "changed" or not (_is_number(change.old) and _is_number(change.new)):
        return None
    distance: float = abs(change.new - change.old)
    return distance / abs(change.old) if change.old else float("inf")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# What is worth keeping ----------------------------------------------------------------------------------------------
_ALL_DAYS, _DAILY_DAYS, _WEEKLY_DAYS, _MONTHLY_DAYS = 7, 31, 93, 365


class Kept(NamedTuple):
    """A snapshot, as retention sees it."""

    id: str
    created_at: EpochMs


def surplus(snapshots: Sequence[Kept], now: EpochMs) -> list[str]:
    """Ids of snapshots of one system, oldest first, that are not worth keeping.

    All of 7 days, then the last of each day to 31 days, of each week to 93, of each month to 365, of each quarter
    beyond; the first and the latest always.
    """
    last_of: dict[tuple[object, ...], str] = {}
    for each in snapshots:
        last_of[_bucket(each, now)] = each.id
    kept = {*last_of.values(), *_ends(snapshots)}
    return [each.id for each in snapshots if each.id not in kept]


def _ends(snapshots: Sequence[Kept]) -> Iterable[str]:
    return (snapshots[0].id, snapshots[-1].id) if snapshots else ()


def _bucket(snapshot: Kept, now: EpochMs) -> tuple[object, ...]:
    days = (now - snapshot.created_at) / _DAY_MS
    day = to_datetime(snapshot.created_at).date()
    if days <= _ALL_DAYS:
        return ("all", snapshot.id)
    if days <= _DAILY_DAYS:
        return ("day", day)
    if days <= _WEEKLY_DAYS:
        return ("week", *day.isocalendar()[:2])
    if days <= _MONTHLY_DAYS:
        return ("month", day.year, day.month)
    return ("quarter", day.year, (day.month - 1) // 3)
