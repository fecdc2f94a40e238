"""What holds for all bots of a project: providers, servers of tools, prices, limits, and what its plan allows.

Each change in the caller's transaction.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

import msgspec
from sqlalchemy import Connection

from lifesign.bots import bodies, rules, store, timing, tools
from lifesign.bots.asking import BOTS_SECRETS, Ask, Offers, changed, require_channels
from lifesign.bots.bodies import Fields
from lifesign.bots.records import Bot, BotOptions, ProjectSettings
from lifesign.bots.rules import (
    BelowPlanMinimum,
    EntryNotFound,
    HeartbeatDisabled,
    InvalidField,
    Plan,
    PlanForbids,
    PlanFull,
    Trifecta,
)
from lifesign.bots.store import Tally
from lifesign.bots.timing import Timing
from lifesign.channels.secrets import SecretBox
from lifesign.clock import EpochMs

_NAMED: Final = 5
_SECRET: Final = frozenset({"key", "hint", "headers"})
_SHOWN_KEY: Final = "****"


# Settings -----------------------------------------------------------------------------------------------------------
settings_of = store.settings_of


def change_settings(conn: Connection, ask: Ask, fields: Fields) -> ProjectSettings:
    """Change the settings that were sent. Raises InvalidField."""
    wanted = bodies.settings_of(fields, ask.guard)
    is_acknowledged = bool(fields.flag("acknowledge_trifecta")) and ask.is_admin
    before = store.lock_settings(conn, ask.project_id)
    if "notify_channels" in wanted:
        require_channels(conn, ask, fields, "notify_channels", wanted["notify_channels"])
    if "providers" in wanted:
        wanted["providers"] = _sealed_providers(ask, before.options.providers, wanted["providers"])
    if "mcp_servers" in wanted:
        wanted["mcp_servers"] = _sealed_servers(ask, before.options.mcp_servers, wanted["mcp_servers"])
    plan = wanted.pop("plan", before.plan)
    after = replace(before, plan=plan, options=changed(before.options, wanted))
    if after != before:
        _require_no_new_trifecta(conn, ask, is_acknowledged=is_acknowledged, before=before, after=after)
        store.save_settings(conn, after, ask.now)
    return after


ENTRIES: Final[Mapping[str, str]] = {"providers": "name", "mcp_servers": "name", "prices": "model"}
"""Settings that are lists, and by what their entries are told apart."""


def entries_of(settings: ProjectSettings, name: str) -> list[dict[str, Any]]:  # Any, here and below: JSON
    """A list of the settings as it may be sent: what is secret is left out, which keeps it."""
    entries: Sequence[Mapping[str, Any]] = getattr(settings.options, name)
    if name == "prices":
        return [{key: value if key == "model" else float(value) for key, value in each.items()} for each in entries]
    return [{key: value for key, value in each.items() if key not in _SECRET} for each in entries]


def entry_of(settings: ProjectSettings, name: str, key: str) -> Mapping[str, Any]:
    """One entry of a list, as it is stored. Raises EntryNotFound."""
    entries: Sequence[Mapping[str, Any]] = getattr(settings.options, name)
    found = next((each for each in entries if each[ENTRIES[name]] == key), None)
    if found is None:
        raise EntryNotFound
    return found


def put_entry(
    conn: Connection, ask: Ask, name: str, entry: Mapping[str, Any], *, place_of: str | None, acknowledges: bool = False
) -> ProjectSettings:
    """Put an entry into a list, in the place of another or at its end. Raises EntryNotFound, InvalidField."""
    settings = store.lock_settings(conn, ask.project_id)
    entries = entries_of(settings, name)
    if place_of is None:
        entries.append(dict(entry))
    else:
        entry_of(settings, name, place_of)
        entries = [dict(entry) if each[ENTRIES[name]] == place_of else each for each in entries]
    return change_settings(conn, ask, Fields({name: entries, "acknowledge_trifecta": acknowledges}))


def remove_entry(conn: Connection, ask: Ask, name: str, key: str) -> ProjectSettings:
    """Take an entry out of a list. Raises EntryNotFound, InvalidField."""
    settings = store.lock_settings(conn, ask.project_id)
    entry_of(settings, name, key)
    kept = [each for each in entries_of(settings, name) if each[ENTRIES[name]] != key]
    return change_settings(conn, ask, Fields({name: kept}))


def _require_no_new_trifecta(
    conn: Connection, ask: Ask, *, is_acknowledged: bool, before: ProjectSettings, after: ProjectSettings
) -> None:
    """Other labels of servers must not make of a bot's tools what would be refused if they were sent now."""
    labels, earlier = labels_by_server(after, ask.offers), labels_by_server(before, ask.offers)
    if labels == earlier:
        return
    found = [
        each
        for each in store.bots_of(conn, ask.project_id)
        if is_unsafe(each.options, each.options.tools, labels)
        and not is_unsafe(each.options, each.options.tools, earlier)
    ]
    if found and not is_acknowledged:
        schedules = store.tallies(conn, [each.id for each in found])
        raise Trifecta("mcp_servers", [_named(each, schedules.get(each.id)) for each in found[:_NAMED]])
    for each in found:
        store.save_bot(conn, replace(each, options=changed(each.options, {"has_acknowledged": True})))


def _named(bot: Bot, tally: Tally | None) -> str:
    return f"{bot.name!r} ({bot.id}, schedules: {0 if tally is None else tally.schedules})"


def is_unsafe(options: BotOptions, names: Sequence[str], labels: Mapping[str, frozenset[str]]) -> bool:
    """Whether a bot must not use these tools together. labels: of each server of tools."""
    return not options.has_acknowledged and tools.is_trifecta(names, options.approval_tools, labels)


def _sealed_providers(
    ask: Ask, before: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Providers as stored. One that is sent without its key keeps it while its address is the same."""
    known = {each["name"]: each for each in before}
    sealed = []
    for n, each in enumerate(wanted):
        entry = {name: value for name, value in each.items() if name != "api_key"}
        old = known.get(each["name"], {})
        # Sent back as it was shown, by somebody who read the settings and changed something else.
        is_shown = each.get("api_key", "").startswith(_SHOWN_KEY)
        if is_shown and ("hint" not in old or each["api_key"] != f"{_SHOWN_KEY}{old['hint']}"):
            raise InvalidField(f"providers[{n}].api_key", "is what is shown of a key, not the key")
        if "api_key" in each and not is_shown:
            entry["key"] = ask.box.seal(each["api_key"], ask.project_id, each["name"], kind=BOTS_SECRETS)
            entry["hint"] = each["api_key"][-4:] if len(each["api_key"]) > 8 else ""  # noqa: PLR2004 - twice the hint
        elif "key" in old and old.get("base_url") == each.get("base_url") and old["kind"] == each["kind"]:
            entry |= {"key": old["key"], "hint": old["hint"]}
        sealed.append(entry)
    return tuple(sealed)


def _sealed_servers(
    ask: Ask, before: Sequence[dict[str, Any]], wanted: Sequence[dict[str, Any]]
) -> tuple[dict[str, Any], ...]:
    """Servers of tools as stored. One that is sent without headers keeps them while its address is the same."""
    known = {each["name"]: each for each in before}
    sealed = []
    for each in wanted:
        entry = {name: value for name, value in each.items() if name != "headers"}
        old = known.get(each["name"], {})
        if each.get("headers"):
            text = msgspec.json.encode(each["headers"]).decode()
            entry["headers"] = ask.box.seal(text, ask.project_id, _server_place(each["name"]), kind=BOTS_SECRETS)
        elif "headers" not in each and "headers" in old and old["url"] == each["url"]:
            entry["headers"] = old["headers"]
        sealed.append(entry)
    return tuple(sealed)


def _server_place(name: str) -> str:
    return f"mcp.{name}"


def server_headers(box: SecretBox, project_id: str, server: Mapping[str, Any]) -> dict[str, str]:
    """The headers that requests to a server of tools carry. Raises SecretUnreadable."""
    if "headers" not in server:
        return {}
    text = box.open(server["headers"], project_id, _server_place(server["name"]), kind=BOTS_SECRETS)
    return msgspec.json.decode(text, type=dict[str, str])


def labels_by_server(settings: ProjectSettings, offers: Offers) -> dict[str, frozenset[str]]:
    """The labels of all servers of tools that a project may use; its own come before the operator's."""
    own = {
        each["name"]: frozenset(each["labels"]) if "labels" in each else tools.SERVER_LABELS
        for each in settings.options.mcp_servers
    }
    return {**offers.mcp_labels, **own}


# Plans --------------------------------------------------------------------------------------------------------------
def require_plan(settings: ProjectSettings) -> Plan:
    plan = rules.PLANS[settings.plan]
    if not plan.may_enable:
        raise PlanForbids(plan.name)
    return plan


def require_switches(conn: Connection, bot: Bot) -> Plan:
    """Raise PlanForbids, HeartbeatDisabled."""
    plan = require_plan(store.settings_of(conn, bot.project_id))
    if not bot.is_scheduling:
        raise HeartbeatDisabled
    return plan


def require_floor(plan: Plan, wanted: Timing, now: EpochMs) -> None:
    """Raise BelowPlanMinimum where a plan does not let schedules run this often."""
    if wanted.cron is None:
        if (wanted.interval_minutes or 0) < plan.interval_floor:
            raise BelowPlanMinimum("interval_minutes", plan.interval_floor)
    elif plan.cron_floor > 1 and timing.least_gap_minutes(wanted.cron, now) < plan.cron_floor:
        raise BelowPlanMinimum("cron_pattern", plan.cron_floor)


def require_room(conn: Connection, plan: Plan, bot: Bot) -> None:
    if plan.most_schedules is not None and store.count_schedules(conn, bot.id) >= plan.most_schedules:
        raise PlanFull(plan.name, plan.most_schedules)
