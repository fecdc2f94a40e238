"""Making a server as a plan says, one object at a time, so that a failure leaves whole objects and a known rest."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

from lifesign.auth.rules import allows
from lifesign.config import bots_api
from lifesign.config.bots_api import Bots
from lifesign.config.forms import present_of
from lifesign.config.items import DEFAULTS, KINDS, Form, Item, Kind, Present, Row, Wanted
from lifesign.config.rules import ORIGIN, Change, Plan

# Any, throughout: JSON.
_PATHS: Mapping[Kind, str] = {
    "channels": "/v1/channels",
    "policies": "/v1/policies",
    "heartbeats": "/v1/heartbeats",
    "maintenance": "/v1/maintenance",
    "systems": "/api/systems",
}
_NOUN_OF_SCOPE: Mapping[Kind, str] = {
    "channels": "channels",
    "policies": "policies",
    "heartbeats": "heartbeats",
    "maintenance": "heartbeats",
    "systems": "systems",
    "bots": "bots",
    "schedules": "bots",
}
_NAMED_BY: Mapping[Kind, frozenset[Kind]] = {
    "channels": frozenset(),
    "policies": frozenset({"channels"}),
    "heartbeats": frozenset({"channels", "policies"}),
    "maintenance": frozenset({"heartbeats"}),
    "systems": frozenset({"policies"}),
    "bots": frozenset(),
    "schedules": frozenset({"channels", "policies", "bots"}),
}
_OF_BOTS: frozenset[Kind] = frozenset({"bots", "schedules"})
_SYSTEMS_PAGE = 500
# Fields whose absence a PATCH says with null; the others go back to what is usual.
_NULLABLE = {
    "heartbeats": {"policy", "namespace", "description", "tags", "channels", "tolerance", "dependsOn", "pings"},
    "systems": {"interval", "policy"},
}


class Server(bots_api.Server, Protocol):
    """A server's API, as this package asks it. Every method raises as the client does that stands behind it."""

    def patch(self, path: str, body: Any) -> dict[str, Any]:
        """PATCH."""

    def rows(self, path: str, name: str, limit: int | None) -> dict[str, Any]:
        """Every page of a list, as one."""


class Own(NamedTuple):
    """The key that is used: its project, and what it may do."""

    project: str
    project_id: str
    scopes: frozenset[str]

    def lacks(self, wanted: set[str]) -> list[str]:
        """Those of `wanted` that it may not."""
        return sorted(scope for scope in wanted if not allows(self.scopes, scope))


def own(server: Server) -> Own:
    """What the server says of the key."""
    told = server.get("/v1/whoami")
    return Own(told["project"], told["projectId"], frozenset(told["scopes"]))


def scopes_to_read(kinds: set[Kind]) -> set[str]:
    """What a key needs to look at objects of these kinds."""
    return {f"{_NOUN_OF_SCOPE[kind]}:read" for kind in kinds}


def scopes_to_write(plan: Plan) -> set[str]:
    """What a key needs to do what a plan says."""
    found = {f"{_NOUN_OF_SCOPE[kind]}:write" for kind in plan.kinds}
    return found | ({"bots:admin"} if any(bots_api.needs_admin(each) for each in plan.changes) else set())


def kinds_of(wanted: Wanted, *, prune: bool) -> set[Kind]:
    """The kinds that have to be looked at: those that are wanted, or named, or may have to go."""
    if prune:
        return set(KINDS)
    found: set[Kind] = {kind for kind in KINDS if wanted.items[kind]}
    return found.union(*(_NAMED_BY[kind] for kind in found))


def read(server: Server, kinds: set[Kind], project_id: str) -> Present:
    """What a server has of these kinds."""
    found = {kind: _listed(server, kind) for kind in KINDS if kind in kinds - _OF_BOTS}
    bots = Bots(server, project_id)
    if "bots" in kinds:
        found["bots"] = bots.listed()
    if "schedules" in kinds:
        found["schedules"] = bots.schedules(found["bots"])
    return present_of(found)


def _listed(server: Server, kind: Kind) -> list[Form]:
    if kind != "systems":
        found: list[Form] = server.rows(_PATHS[kind], kind, None)[kind]
        return found
    return list(_systems(server))


def _systems(server: Server) -> Iterator[Form]:
    cursor = None
    while True:
        page = server.get(_PATHS["systems"], limit=_SYSTEMS_PAGE, cursor=cursor)["data"]
        yield from page["systems"]
        cursor = page.get("next_cursor")
        if cursor is None:
            return


def has_other_secrets(server: Server) -> Callable[[Item, Row], bool]:
    """Asks the server whether a channel has other secrets than the files say: it alone can see them."""

    def ask(item: Item, row: Row) -> bool:
        return not server.post(f"{_path('channels', row.id)}/compare", item.form)["equal"]

    return ask


def _path(kind: Kind, key: str) -> str:
    return f"{_PATHS[kind]}/{quote(key, safe='')}"


# Doing --------------------------------------------------------------------------------------------------------------
class Secret(NamedTuple):
    """A secret that the server has made, which it shows once. fields: by name, in the order to show them."""

    subject: str
    fields: Mapping[str, str]


@dataclass(slots=True)
class Progress:
    """What was done so far. at: what is being done; a failure is one of it."""

    done: list[Change] = field(default_factory=list)
    at: Change | None = None
    secrets: list[Secret] = field(default_factory=list)


def carry_out(
    server: Server, plan: Plan, present: Present, progress: Progress, tell: Callable[[], None], *, project_id: str
) -> None:
    """Do what a plan says, in its order. tell: called after each change, before the next begins."""
    bots = Bots(server, project_id)
    resting = _resting(plan, present)
    ids = {(kind, name): rows[0].id for kind in KINDS for name, rows in present.rows[kind].items()}
    ids |= {("heartbeats", word): key for word, key in present.others.items()}
    is_loose = False
    for change in plan.changes:
        progress.at = change
        if not is_loose and change.action == "update" and change.kind == "heartbeats":
            _loosen(server, plan, ids, progress)
            progress.at, is_loose = change, True
        match change.action:
            case _ if change.kind in _OF_BOTS:
                with _awake(bots, change, ids, resting):
                    _of_bots(bots, change, ids, progress)
            case "create":
                _create(server, change, ids, progress)
            case "update":
                _update(server, change, ids)
            case "delete":
                _delete(server, change)
        progress.done.append(change)
        tell()


def _loosen(server: Server, plan: Plan, ids: Mapping[tuple[Kind, str], str], progress: Progress) -> None:
    """Take dependencies away before others are added: two that change places would be a circle in between.

    As late as can be: until its own turn a heartbeat would be without them if something failed.
    """
    for change in plan.changes:
        if change.action != "update" or change.kind != "heartbeats" or change.item is None or change.row is None:
            continue
        old, new = change.row.form.get("dependsOn", []), change.item.form.get("dependsOn", [])
        kept = [each for each in old if each in new]
        if kept != old:
            progress.at = change
            body = {"dependsOn": [ids.get(("heartbeats", each), each) for each in kept] or None}
            server.patch(_path("heartbeats", change.row.id), body)


def _create(server: Server, change: Change, ids: dict[tuple[Kind, str], str], progress: Progress) -> None:
    item = _item_of(change)
    body = _with_ids(item.kind, item.form, ids) | item.at_creation | {"origin": ORIGIN}
    body |= {"slug": item.name} if item.kind == "heartbeats" else {"name": item.name}
    answer = server.post(_PATHS[item.kind], body)
    made = answer["data"] if item.kind == "systems" else answer
    ids[item.kind, item.name] = made["id"]
    if item.kind == "systems":
        told = {name: str(made[name]) for name in ("id", "key", "secret")}
        progress.secrets.append(Secret(change.subject, told))
    elif item.form.get("type") == "webhook" and "secret" not in item.form["config"]:
        progress.secrets.append(Secret(change.subject, {"secret": str(made["config"]["secret"])}))


def _update(server: Server, change: Change, ids: Mapping[tuple[Kind, str], str]) -> None:
    item = _item_of(change)
    assert change.row is not None  # noqa: S101 - an update is of something
    form = _with_ids(item.kind, item.form, ids)
    if item.kind == "channels":
        body = form
    elif item.kind == "maintenance":
        # When and whom go together.
        body = form | ({"timezone": "UTC"} if "schedule" in form and "timezone" not in form else {})
    else:
        names = {each.top for each in change.differences}
        body = {name: _value(item.kind, name, form) for name in sorted(names) if _is_sent(name, form)}
        if "mode" in names:
            body |= {name: form[name] for name in ("mode", "interval", "schedule") if name in form}
    server.patch(_path(item.kind, change.row.id), body)


def _is_sent(name: str, form: Form) -> bool:
    """A period goes by itself when the mode has none; a system's is cleared."""
    return name not in {"interval", "schedule"} or name in form or "mode" not in form


def _value(kind: Kind, name: str, form: Form) -> Any:
    if name in form:
        return form[name]
    return None if name in _NULLABLE.get(kind, ()) else DEFAULTS[kind].get(name)


def _delete(server: Server, change: Change) -> None:
    assert change.row is not None  # noqa: S101 - a deletion is of something
    server.delete(_path(change.kind, change.row.id))


def _resting(plan: Plan, present: Present) -> Mapping[str, bool]:
    """The bots whose schedules do not run, by name, and whether they are online."""
    forms = {name: rows[0].form for name, rows in present.rows["bots"].items()}
    forms |= {each.name: each.item.form for each in plan.changes if each.kind == "bots" and each.item is not None}
    return {name: form.get("status", True) for name, form in forms.items() if not form.get("heartbeat")}


def _awake(
    bots: Bots, change: Change, ids: Mapping[tuple[Kind, str], str], resting: Mapping[str, bool]
) -> AbstractContextManager[None]:
    """What lets a change of a schedule through."""
    owner = "" if change.item is None else change.item.owner
    if owner not in resting:
        return nullcontext()
    return bots.switched_on(ids["bots", owner], is_online=resting[owner])


def _of_bots(bots: Bots, change: Change, ids: dict[tuple[Kind, str], str], progress: Progress) -> None:
    """The same, of a bot or a schedule."""

    def key(kind: Kind, name: str) -> str:
        return ids.get((kind, name), name)

    if change.action == "delete":
        assert change.row is not None  # noqa: S101 - a deletion is of something
        bots.delete(change.kind, change.row)
        return
    item = _item_of(change)
    answer = bots.create(item, key) if change.row is None else bots.update(change, item, change.row, key)
    ids[item.kind, item.name] = answer["uuid"]
    made = answer.get("lifesign", {}).get("runner", {}).get("secret")
    if made is not None:
        progress.secrets.append(Secret(change.subject, {"secret": str(made)}))


def _item_of(change: Change) -> Item:
    assert change.item is not None  # noqa: S101 - only deletions have none
    return change.item


def _with_ids(kind: Kind, form: Form, ids: Mapping[tuple[Kind, str], str]) -> Form:
    """A form as the API takes it."""

    def key(of: Kind, name: str) -> str:
        return ids.get((of, name), name)

    body = dict(form)
    if kind == "policies":
        body["steps"] = [
            step | {"channels": [key("channels", each) for each in step["channels"]]} for step in form["steps"]
        ]
    if kind in {"heartbeats", "systems"} and "policy" in form:
        body["policy"] = key("policies", form["policy"])
    if kind == "heartbeats" and "channels" in form:
        body["channels"] = [key("channels", each) for each in form["channels"]]
    if kind == "heartbeats" and "dependsOn" in form:
        body["dependsOn"] = [key("heartbeats", each) for each in form["dependsOn"]]
    if kind == "maintenance" and "heartbeats" in form:
        body["heartbeats"] = [key("heartbeats", each) for each in form["heartbeats"]]
    return body
