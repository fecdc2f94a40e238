"""Bots and their schedules on a server: listed, made, changed and removed by the Bots API."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from lifesign.bots.bodies import integer_in
from lifesign.config.items import DEFAULTS, Form, Item, Kind, Row
from lifesign.config.rules import ORIGIN, Change

# Any, throughout: JSON.
_PATH = "/v1/bot"
_BOTS_PAGE, _SCHEDULES_PAGE = 100, 1000
_TOOLS = ("tools", "approval_tools", "acknowledge_trifecta")
_TIMING = (
    *("interval_minutes", "cron_pattern", "timezone"),
    *("active_hours_start", "active_hours_end", "active_days"),
)

NameOf = Callable[[Kind, str], str]
"""The id of an object, by its kind and name."""


class Server(Protocol):
    """A server's API, as far as bots need it."""

    def get(self, path: str, **query: Any) -> dict[str, Any]:
        """GET."""

    def post(self, path: str, body: Any = None) -> dict[str, Any]:
        """POST."""

    def put(self, path: str, body: Any) -> dict[str, Any]:
        """PUT."""

    def delete(self, path: str, **query: Any) -> None:
        """DELETE."""


class Bots:
    """The bots of a project, with names for what has ids."""

    def __init__(self, server: Server, project_id: str) -> None:
        self._server = server
        self._project: Form = {"project_id": project_id}
        self._called: Mapping[int, str] | None = None

    # Looking --------------------------------------------------------------------------------------------------------
    def listed(self) -> list[Form]:
        """Every bot; `id` is its uuid."""
        return [
            each | {"id": each["uuid"], "origin": each["lifesign"].get("origin")}
            for each in self._pages("/readall", "bots", _BOTS_PAGE)
        ]

    def schedules(self, bots: Sequence[Form]) -> list[Form]:
        """Every schedule of these bots, with its bot's name and its subscriber as callers know them."""
        return [
            self._schedule(bot, each)
            for bot in bots
            for each in self._pages("/heartbeat/readall", "heartbeats", _SCHEDULES_PAGE, bot_id=bot["id"])
        ]

    def _schedule(self, bot: Form, row: Form) -> Form:
        own = row["lifesign"]
        told = {"id": row["uuid"], "bot": bot["name"], "bot_uuid": bot["id"], "origin": own.get("origin")}
        member = row["member_id"]
        return row | told | ({} if member is None else {"member_id": self._members().get(member, member)})

    def _members(self) -> Mapping[int, str]:
        """What the project calls its subscribers, by number; a name that reads as a number would mean that one."""
        if self._called is None:
            rows = self._pages("/subscriber/readall", "subscribers", _BOTS_PAGE)
            names = {each["id"]: each["external_id"] for each in rows}
            self._called = {key: name for key, name in names.items() if name and integer_in(name) is None}
        return self._called

    def _pages(self, path: str, name: str, size: int, **query: Any) -> Iterator[Form]:
        cursor = None
        while True:
            page = self._server.get(_PATH + path, **self._project, **query, limit=size, cursor=cursor)
            yield from page[name]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    # Doing ----------------------------------------------------------------------------------------------------------
    def create(self, item: Item, key: NameOf) -> Form:
        """Make a bot or a schedule; what the server has then, its `uuid` among it."""
        own = _with_ids(item.form.get("lifesign", {}), key) | {"origin": ORIGIN}
        body = self._project | item.form
        if item.kind == "bots":
            sent = body | {"name": item.name, "lifesign": _with_secret(own, item)}
            return dict(self._server.post(f"{_PATH}/create", sent)["bot"])
        sent = body | {"bot_id": key("bots", item.owner), "lifesign": own}
        return dict(self._server.post(f"{_PATH}/heartbeat/configure", sent)["heartbeat"])

    def update(self, change: Change, item: Item, row: Row, key: NameOf) -> Form:
        """Change what differs; the server's answer, which of a bot has what changed."""
        fields = [each.field.split(".") for each in change.differences]
        names = {names[0] for names in fields} - {"lifesign"}
        options = {names[1] for names in fields if names[0] == "lifesign"}
        if item.kind == "bots":
            own = _with_secret(_changes(item, row, options | _also(options)), item)
            said = {name: item.form.get(name, DEFAULTS["bots"].get(name, "")) for name in names}
            body = self._project | {"bot_id": row.id} | said | ({"lifesign": own} if own else {})
            return dict(self._server.put(f"{_PATH}/update", body)["bot"])
        own = _with_ids(_changes(item, row, options), key)
        names |= set(_TIMING) if names & set(_TIMING) else set()
        said = {name: item.form.get(name, DEFAULTS["schedules"].get(name)) for name in names}
        body = self._project | {"bot_id": row.owner, "uuid": row.id} | said | ({"lifesign": own} if own else {})
        return dict(self._server.post(f"{_PATH}/heartbeat/configure", body)["heartbeat"])

    @contextmanager
    def switched_on(self, bot_id: str, *, is_online: bool) -> Iterator[None]:
        """Lets schedules of a bot be made and changed whose own switch is off, as the API takes them of no other.

        Offline meanwhile, nothing of it runs; should the rest not come, the next apply finds both to be otherwise.
        """
        self._switch(bot_id, heartbeat=True, status=False)
        try:
            yield
        finally:
            self._switch(bot_id, heartbeat=False, status=is_online)

    def _switch(self, bot_id: str, **switches: bool) -> None:
        self._server.put(f"{_PATH}/update", self._project | {"bot_id": bot_id} | switches)

    def delete(self, kind: Kind, row: Row) -> None:
        """Remove a bot or a schedule."""
        if kind == "bots":
            self._server.delete(f"{_PATH}/delete", **self._project, bot_id=row.id)
        else:
            self._server.delete(f"{_PATH}/heartbeat/delete", **self._project, bot_id=row.owner, heartbeat_id=row.id)


def needs_admin(change: Change) -> bool:
    """Whether a change lets a bot have tools that are dangerous together."""
    if change.item is None or change.kind != "bots":
        return False
    if not change.item.form.get("lifesign", {}).get("acknowledge_trifecta"):
        return False
    return change.action == "create" or any(
        each.field.removeprefix("lifesign.") in _TOOLS for each in change.differences
    )


def _also(options: set[str]) -> set[str]:
    """Tools are judged together, by what is said with them."""
    return set(_TOOLS) if options & set(_TOOLS) else set()


def _changes(item: Item, row: Row, names: set[str]) -> Form:
    """Members of `lifesign` as they shall be; null within an object, and of one, is as usual."""
    old, new, usual = (form.get("lifesign", {}) for form in (row.form, item.form, DEFAULTS[item.kind]))
    body = {}
    for name in sorted(names):
        wanted = new.get(name, usual.get(name))
        if name in {"limits", "notify"}:
            wanted = {each: wanted.get(each) for each in sorted({*old.get(name, {}), *wanted})}
        body[name] = wanted
    return body


def _with_secret(own: Form, item: Item) -> Form:
    """A runner goes with its secret, if the file has one."""
    if "runner" not in own or "secret" not in item.at_creation:
        return own
    return own | {"runner": own["runner"] | {"secret": item.at_creation["secret"]}}


def _with_ids(own: Form, key: NameOf) -> Form:
    body = dict(own)
    told = own.get("notify", {})
    if told.get("channels") is not None:
        body["notify"] = told | {"channels": [key("channels", each) for each in told["channels"]]}
    if own.get("watch") is not None:
        body["watch"] = own["watch"] | {"policy": key("policies", own["watch"]["policy"])}
    return body
