"""The objects of a project, as a file wants them and as a server has them, in one form that can be compared."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, get_args

Kind = Literal["channels", "policies", "heartbeats", "maintenance", "systems", "bots", "schedules"]
KINDS: tuple[Kind, ...] = get_args(Kind)
"""In the order in which they are made: whatever is named comes before what names it."""
NOUNS: Mapping[Kind, str] = {
    "channels": "channel",
    "policies": "policy",
    "heartbeats": "heartbeat",
    "maintenance": "maintenance window",
    "systems": "system",
    "bots": "bot",
    "schedules": "schedule",
}

# Any, throughout: what a file or an answer says.
Form = dict[str, Any]

# What a member is when it is not said.
DEFAULTS: Mapping[Kind, Form] = {
    "channels": {},
    "policies": {"repeatLastStep": False},
    "heartbeats": {"grace": 60, "timezone": "UTC", "stickyPause": True},
    "maintenance": {},
    "systems": {"type": "", "fqdn": "", "notes": "", "tags": []},
    "bots": {
        "status": True,
        "heartbeat": False,
        "lifesign": {
            "provider": "default",
            "fallback_models": [],
            "credits_per_1k_tokens": 1,
            "runner": {"kind": "builtin"},
            "tools": [],
            "approval_tools": [],
            "telemetry_content": False,
            "acknowledge_trifecta": False,
        },
    },
    "schedules": {
        "enabled": False,
        "timezone": "UTC",
        "max_consecutive_errors": 5,
        "lifesign": {
            "jitter_seconds": 0,
            "overlap": "skip",
            "catch_up": "one",
            "session": "day",
            "limits": {},
            "notify": {},
            "approval": "deny",
            "retry_lost": False,
        },
    },
}
STAYING: Mapping[Kind, tuple[str, ...]] = {"bots": ("model", "max_reply_tokens", "top")}
"""What stays as the server has it while a file says nothing of it, as no call takes it back."""


class Ambiguous(Exception):
    """Several objects of the server have the name by which a file means one."""

    def __init__(self, kind: Kind, name: str, ids: Sequence[str]) -> None:
        super().__init__(
            f"the server has {len(ids)} {kind} named {name!r}: {', '.join(ids)}; rename or delete all but one"
        )
        self.kind = kind
        self.name = name
        self.ids = tuple(ids)


class Reference(NamedTuple):
    """That something is named: of which kind, by which name, at which path."""

    kind: Kind
    name: str
    path: str


@dataclass(frozen=True, slots=True)
class Item:
    """One object as a file wants it.

    shown: its form as answers show it, secrets masked; at_creation: what it begins with besides; owner: the name of the
    bot that a schedule is of.
    """

    kind: Kind
    name: str
    path: str
    form: Form
    shown: Form
    at_creation: Form = field(default_factory=dict)
    references: tuple[Reference, ...] = ()
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the files want. warnings: what is accepted, but not good."""

    project: str | None
    items: Mapping[Kind, Mapping[str, Item]]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Row:
    """An object that a server has. owner: the id of the bot that a schedule is of."""

    id: str
    origin: str | None
    form: Form
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Present:
    """What a server has, by kind and name; what a file cannot name is left out.

    others: heartbeats that a file cannot hold and may refer to, by what they are called there: those of a system by
    slug, those without a slug by id.
    """

    rows: Mapping[Kind, Mapping[str, Sequence[Row]]]
    names: Mapping[tuple[Kind, str], str]
    others: Mapping[str, str] = field(default_factory=dict)

    @property
    def without_slug(self) -> list[str]:
        """Ids of the heartbeats that have no slug, by which a file would name them."""
        return sorted(key for word, key in self.others.items() if word == key)

    def knows(self, reference: Reference) -> bool:
        """Whether there is something of this name. Raises Ambiguous."""
        if self.one(reference.kind, reference.name) is not None:
            return True
        return reference.kind == "heartbeats" and reference.name in self.others

    def one(self, kind: Kind, name: str) -> Row | None:
        """The object of this name; None when there is none. Raises Ambiguous."""
        found = self.rows[kind].get(name, ())
        if len(found) > 1:
            raise Ambiguous(kind, name, [row.id for row in found])
        return found[0] if found else None
