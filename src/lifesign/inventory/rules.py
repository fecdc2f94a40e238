"""What is true of inventories: what counts as a change, how grave it is, and which old ones are worth keeping.

Spec "Systems", section 6. Documents are JSON as Python values.
"""

import marshal
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
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
    """Globs over the JSON Pointer: `*` and `?` within one part of it, `**` for any number of parts."""

    globs: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, globs: str) -> "Volatile":
        """From globs separated by commas."""
        texts = [glob.strip().strip("/") for glob in globs.split(",")]
        return cls(tuple(tuple(text.split("/")) for text in texts if text))

    def matches(self, path: str) -> bool:
        """Whether what stands at `path`, or anything above it, may change without notice."""
        place = _Place.root(self)
        for part in path.split("/")[1:]:
            place = place.below(part)
            if place.is_volatile:
                return True
        return False


class _Place:
    """How far each glob has come at some place of a document: a state of the automaton that the globs are.

    Most names mean nothing to any glob, and one pattern tells so at once.
    """

    def __init__(self, globs: Sequence[tuple[str, ...]], reached: Iterable[tuple[int, int]]) -> None:
        self._globs = globs
        # Behind a `**` as well, which may stand for nothing.
        self._reached = {each for index, at in reached for each in self._behind(index, at)}
        self.is_volatile = any(at == len(globs[index]) for index, at in self._reached)
        self._staying = [each for each in self._reached if self._part(each) == "**"]
        moving = {self._part(each) for each in self._reached} - {"**", None}
        self._pattern = re.compile(
            "|".join(_regex(part) for part in sorted(filter(None, moving))) or r"(?!)", re.DOTALL
        )
        self._otherwise: _Place | None = None
        self._known: dict[str, _Place] = {}

    @classmethod
    def root(cls, volatile: Volatile) -> "_Place":
        return cls(volatile.globs, [(index, 0) for index in range(len(volatile.globs))])

    def _part(self, position: tuple[int, int]) -> str | None:
        index, at = position
        return self._globs[index][at] if at < len(self._globs[index]) else None

    def _behind(self, index: int, at: int) -> Iterator[tuple[int, int]]:
        yield index, at
        while self._part((index, at)) == "**":
            at += 1
            yield index, at

    def below(self, name: str) -> "_Place":
        """The place of a member of this name."""
        if self._pattern.fullmatch(name) is None:
            if self._otherwise is None:
                self._otherwise = self._after(self._staying)
            return self._otherwise
        if name not in self._known:
            moved = [
                (index, at + 1)
                for index, at in self._reached
                if (part := self._part((index, at))) not in {None, "**"}
                and re.fullmatch(_regex(part or ""), name, re.DOTALL)
            ]
            self._known[name] = self._after([*self._staying, *moved])
        return self._known[name]

    def _after(self, reached: Collection[tuple[int, int]]) -> "_Place":
        # Where every glob waits for the first name it knows, which is nearly everywhere, nothing is made anew.
        return self if self._is_as_far(reached) else _Place(self._globs, reached)

    def _is_as_far(self, reached: Collection[tuple[int, int]]) -> bool:
        return {each for index, at in reached for each in self._behind(index, at)} == self._reached


def _regex(part: str) -> str:
    return "".join({"*": ".*", "?": "."}.get(each, re.escape(each)) for each in part)


def steady(document: Any, volatile: Volatile) -> Any:
    """The document without what may change without notice."""
    return _steady(document, _Place.root(volatile))


def _steady(value: Any, at: _Place) -> Any:
    if isinstance(value, dict):
        kept: dict[str, Any] = {}
        for key, each in value.items():
            below = at.below(_escaped(key))
            if not below.is_volatile:
                kept[key] = _steady(each, below) if isinstance(each, dict | list) else each
        return kept
    if isinstance(value, list):
        key = _array_key(value)
        left: list[Any] = []
        for place, each in enumerate(value):
            below = at.below(str(place) if key is None else _escaped(str(each[key])))
            if not below.is_volatile:
                left.append(_steady(each, below))
            elif key is None:
                # It leaves its place behind, so that the others keep theirs.
                left.append(None)
        return left
    return value


def _escaped(key: str) -> str:
    return key.replace("~", "~0").replace("/", "~1") if "~" in key or "/" in key else key


# Differences --------------------------------------------------------------------------------------------------------
# The last format that writes equal values equally.
_WITHOUT_REFERENCES = 2
_ARRAY_KEYS = ("id", "uuid", "name", "mac", "device")


def _array_key(*arrays: Sequence[Any]) -> str | None:
    """The member by which the objects of all of these arrays are told apart; None when there is none."""
    if not all(isinstance(each, dict) for array in arrays for each in array) or not any(arrays):
        return None
    return next((key for key in _ARRAY_KEYS if all(_is_unique(key, array) for array in arrays)), None)


def _is_unique(key: str, array: Sequence[Mapping[str, Any]]) -> bool:
    seen: set[str] = set()
    for each in array:
        value = each.get(key)
        if not isinstance(value, str | int) or (name := str(value)) in seen:
            return False
        seen.add(name)
    return True


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
        if key not in new:
            yield Change(at, "removed", old=value)
        elif not _is_plainly_same(value, new[key]):
            yield from _differences(value, new[key], at)
    for key, value in new.items():
        if key not in old:
            yield Change(f"{path}/{_escaped(key)}", "added", new=value)


def _is_plainly_same(old: Any, new: Any) -> bool:
    """Whether two values are the same to the letter: told in one step, where walking through them takes hundreds."""
    return marshal.dumps(old, _WITHOUT_REFERENCES) == marshal.dumps(new, _WITHOUT_REFERENCES)


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
