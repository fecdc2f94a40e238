"""What people type about providers, servers of tools and prices of bots, as the API would have it, and back. Pure."""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any, Final, NamedTuple

from lifesign.bots.rules import BotsRefusal, InvalidField
from lifesign.bots.tools import LABELS, SERVER_LABELS
from lifesign.web.bot_forms import faults_of

Typed = Mapping[str, str]
Json = dict[str, Any]  # Any: JSON


class Kind(NamedTuple):
    """One of the lists. setting: what the API calls it. key: the field that names an entry. scope: to change it."""

    setting: str
    key: str
    scope: str
    fields: tuple[str, ...]
    new: Typed
    entry: Callable[[Typed], Json]
    typed: Callable[[Mapping[str, Any]], dict[str, str]]


# Providers ----------------------------------------------------------------------------------------------------------
def _provider(typed: Typed) -> Json:
    return {name: typed[name] or None for name in ("name", "kind", "base_url", "api_key")}


def _provider_typed(stored: Mapping[str, Any]) -> dict[str, str]:
    return {"name": stored["name"], "kind": stored["kind"], "base_url": stored.get("base_url", ""), "api_key": ""}


# Servers of tools ---------------------------------------------------------------------------------------------------
def _server(typed: Typed) -> Json:
    found: Json = {"name": typed["name"] or None, "url": typed["url"] or None}
    found["labels"] = [each for each in LABELS if typed[each]]
    if typed["forgets"]:
        found["headers"] = {}
    elif typed["headers"]:
        found["headers"] = _headers(typed["headers"])
    return found


def _headers(text: str) -> dict[str, str]:
    lines = [each.partition(":") for each in text.splitlines() if each.strip()]
    if not all(colon for _, colon, _ in lines):
        raise InvalidField("mcp_servers.headers", "must have a name, a colon and a value on each line")
    return {name.strip(): value.strip() for name, _, value in lines}


def _server_typed(stored: Mapping[str, Any]) -> dict[str, str]:
    labels = stored.get("labels", SERVER_LABELS)
    told = {"name": stored["name"], "url": stored["url"], "headers": "", "forgets": "", "acknowledges": ""}
    return told | {each: "on" if each in labels else "" for each in LABELS}


# Prices -------------------------------------------------------------------------------------------------------------
_PRICES: Final = ("input_usd_per_million", "output_usd_per_million", "cached_input_usd_per_million")


def _price(typed: Typed) -> Json:
    return {name: typed[name] or None for name in ("model", *_PRICES)}


def _price_typed(stored: Mapping[str, Any]) -> dict[str, str]:
    prices = {name: format(Decimal(stored[name]), "f") if name in stored else "" for name in _PRICES}
    return {"model": stored["model"]} | prices


# All of them --------------------------------------------------------------------------------------------------------
_PROVIDER_FIELDS: Final = ("name", "kind", "base_url", "api_key")
_SERVER_FIELDS: Final = ("name", "url", "headers", *LABELS, "forgets", "acknowledges")
_PRICE_FIELDS: Final = ("model", *_PRICES)
KINDS: Final[Mapping[str, Kind]] = {
    "providers": Kind(
        "providers",
        "name",
        "bots:write",
        _PROVIDER_FIELDS,
        dict.fromkeys(_PROVIDER_FIELDS, "") | {"kind": "openai"},
        _provider,
        _provider_typed,
    ),
    "servers": Kind(
        "mcp_servers",
        "name",
        "bots:write",
        _SERVER_FIELDS,
        dict.fromkeys(_SERVER_FIELDS, "") | dict.fromkeys(SERVER_LABELS, "on"),
        _server,
        _server_typed,
    ),
    "prices": Kind(
        "prices", "model", "bots:admin", _PRICE_FIELDS, dict.fromkeys(_PRICE_FIELDS, ""), _price, _price_typed
    ),
}


def faults(kind: Kind, error: BotsRefusal, at: int) -> dict[str, str]:
    """What is wrong, by field of the form. at: where the entry that was sent stands in its list."""
    path = getattr(error, "field", "")
    if not path.startswith((f"{kind.setting}[{at}].", f"{kind.setting}.")):
        return {"": str(error)}
    return faults_of(error, kind.fields)
