"""What has to happen so that a server is as the files say: pure, and the same every time."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from lifesign.config.document import BadDocument, Document
from lifesign.config.items import DEFAULTS, KINDS, NOUNS, STAYING, Form, Item, Kind, Present, Row, Wanted

ORIGIN = "apply"
"""What an apply says of the objects it makes; only those it takes away again."""
MAX_SHOWN = 120

Action = Literal["create", "update", "delete"]


class Difference(NamedTuple):
    """A field that is to change. None: it is not said."""

    field: str
    old: Any  # JSON
    new: Any  # JSON

    @property
    def top(self) -> str:
        """The field of the object that it is in."""
        return self.field.partition("[")[0].partition(".")[0]

    def __str__(self) -> str:
        return f"{self.field}: {_shown(self.old)} -> {_shown(self.new)}"


def _shown(value: Any) -> str:  # Any: JSON
    if value is None:
        return "none"
    text = value if isinstance(value, str) and value.isprintable() else json.dumps(value, ensure_ascii=True)
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


@dataclass(frozen=True, slots=True)
class Change:
    """One object to make, change or delete. row: what the server has; item: what the files say."""

    action: Action
    kind: Kind
    name: str
    item: Item | None = None
    row: Row | None = None
    differences: tuple[Difference, ...] = ()

    @property
    def subject(self) -> str:
        """The object in a few words."""
        # A prompt may have pages.
        is_long = self.kind == "schedules" and len(self.name) > MAX_SHOWN
        return f"{NOUNS[self.kind]} {self.name[:MAX_SHOWN] + '...' if is_long else self.name}"


@dataclass(frozen=True, slots=True)
class Plan:
    """Changes, in the order in which they can be made. kept: bots that would have to go, but for others' schedules."""

    changes: tuple[Change, ...] = ()
    untouched: int = 0
    kinds: frozenset[Kind] = field(default_factory=frozenset)
    kept: tuple[str, ...] = ()


def plan_of(
    document: Document,
    wanted: Wanted,
    present: Present,
    *,
    prune: bool,
    has_other_secrets: Callable[[Item, Row], bool] = lambda _item, _row: False,
) -> Plan:
    """What makes `present` as `wanted`. has_other_secrets: asked of channels that look equal while they are masked.

    Raises BadDocument for a name that nothing has, Ambiguous.
    """
    _require_references(document, wanted, present)
    changes: list[Change] = []
    untouched = 0
    for kind in KINDS:
        made, edited = [], []
        for name, item in wanted.items[kind].items():
            row = present.one(kind, name)
            if row is None:
                made.append(Change("create", kind, name, item))
                continue
            differences = differences_of(item, row, has_other_secrets)
            if differences:
                edited.append(Change("update", kind, name, item, row, differences))
            else:
                untouched += 1
        changes += _by_dependency(made)
        changes += edited
    kept = _kept(wanted, present) if prune else {}
    if prune:
        changes += _deletions(wanted, present, kept)
    return Plan(tuple(changes), untouched, frozenset(change.kind for change in changes), tuple(kept.values()))


def _require_references(document: Document, wanted: Wanted, present: Present) -> None:
    flaws = []
    for kind in KINDS:
        for item in wanted.items[kind].values():
            for reference in item.references:
                if reference.name in wanted.items[reference.kind]:
                    continue
                if not present.knows(reference):
                    noun = NOUNS[reference.kind]
                    flaws.append(document.flaw(reference.path, f"no {noun} is named {reference.name!r}"))
    if flaws:
        raise BadDocument(*flaws)


def differences_of(
    item: Item, row: Row, has_other_secrets: Callable[[Item, Row], bool] = lambda _item, _row: False
) -> tuple[Difference, ...]:
    """The fields in which the server's object is not as the files say; secrets stay masked."""
    if item.kind == "channels":
        return _of_channel(item, row, has_other_secrets)
    if item.kind in {"bots", "schedules"}:
        return _of_bot(item, row)
    return _between(row.form, item.form, DEFAULTS[item.kind])


def _of_bot(item: Item, row: Row) -> tuple[Difference, ...]:
    """Of a bot, or of a schedule."""
    aside = {name for name in STAYING.get(item.kind, ()) if name not in item.form}
    if row.form.get("paused"):
        aside |= {"paused", "enabled"}
    old, new = (
        {name: value for name, value in _opened(form).items() if name not in aside} for form in (row.form, item.form)
    )
    return _between(old, new, _opened(DEFAULTS[item.kind]))


def _opened(form: Form) -> Form:
    """A form with the members of `lifesign` beside the others."""
    others = {name: value for name, value in form.items() if name != "lifesign"}
    return others | _flat("lifesign", form.get("lifesign", {}))


def _between(old: Form, new: Form, usual: Form) -> tuple[Difference, ...]:
    names = sorted({*old, *new})
    pairs = ((name, old.get(name, usual.get(name)), new.get(name, usual.get(name))) for name in names)
    return tuple(each for pair in pairs if pair[1] != pair[2] for each in _inside(*pair))


def _inside(name: str, old: Any, new: Any) -> Iterator[Difference]:  # Any: JSON
    """The step that differs rather than all of them, where there are as many as before."""
    is_list = isinstance(old, list) and isinstance(new, list)
    if not is_list or len(old) != len(new) or not all(isinstance(each, dict) for each in (*old, *new)):
        yield Difference(name, old, new)
        return
    for position, (before, after) in enumerate(zip(old, new, strict=True)):
        for each in _between(before, after, {}):
            yield Difference(f"{name}[{position}].{each.field}", each.old, each.new)


def _of_channel(item: Item, row: Row, has_other_secrets: Callable[[Item, Row], bool]) -> tuple[Difference, ...]:
    new, old = item.shown["config"], dict(row.form["config"])
    if item.form["type"] == row.form["type"] == "webhook" and "secret" not in new:
        # Left out, the one that was made for it stays.
        old.pop("secret", None)
    told = _between(
        {"type": row.form["type"]} | _flat("config", old), {"type": item.form["type"]} | _flat("config", new), {}
    )
    if not told and item.shown != item.form and has_other_secrets(item, row):
        return (Difference("config", "a secret", "another secret"),)
    return told


def _flat(path: str, value: Any) -> Form:  # Any: JSON
    if not isinstance(value, dict):
        return {path: value}
    return {name: each for key, inner in value.items() for name, each in _flat(f"{path}.{key}", inner).items()}


def _by_dependency(made: Sequence[Change]) -> list[Change]:
    """Whatever another one depends on comes first; the files hold no circle."""
    waiting = {change.name: change for change in made}
    ordered: dict[str, Change] = {}
    for start in waiting:
        trail = [start]
        while trail:
            name = trail[-1]
            item = waiting[name].item
            needed = [] if item is None else item.form.get("dependsOn", [])
            missing = [each for each in needed if each in waiting and each not in ordered]
            if name in ordered or not missing:
                ordered.setdefault(name, waiting[name])
                trail.pop()
            else:
                trail.append(missing[0])
    return list(ordered.values())


def _kept(wanted: Wanted, present: Present) -> dict[str, str]:
    """Bots that stay, by id, since schedules that no apply made would go with them."""
    others = {row.owner for rows in present.rows["schedules"].values() for row in rows if row.origin != ORIGIN}
    return {
        row.id: name
        for name in sorted(present.rows["bots"])
        if name not in wanted.items["bots"]
        for row in present.rows["bots"][name]
        if row.origin == ORIGIN and row.id in others
    }


def _deletions(wanted: Wanted, present: Present, kept: Mapping[str, str]) -> list[Change]:
    """Users before what they use."""
    return [
        Change("delete", kind, name, row=row)
        for kind in reversed(KINDS)
        for name in sorted(present.rows[kind])
        if name not in wanted.items[kind]
        for row in present.rows[kind][name]
        if row.origin == ORIGIN and row.id not in kept
    ]
