"""What bots and their schedules may say in a file, judged as the Bots API would."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from lifesign.bots import bodies, timing
from lifesign.bots.bodies import BOT_OPTIONS, CREDIT_LIMITS, SCHEDULE_OPTIONS, Fields
from lifesign.bots.budget import credits_of
from lifesign.bots.rules import InvalidField, MissingField
from lifesign.channels.targets import GuardPolicy
from lifesign.clock import EpochMs
from lifesign.config.document import BadDocument, Document, Flaw, literal_paths, only, with_secrets
from lifesign.config.forms import FIELDS, bot_form, schedule_name
from lifesign.config.items import Form, Item, Reference

T = TypeVar("T")

# Private addresses are the server's to judge, which may allow them.
_GUARD = GuardPolicy(allow_private=True)
# Whether a pattern has dates does not depend on when a file is read.
_SOME_DAY = EpochMs(1_767_225_600_000)
_UNITS = {units: name for name, units in CREDIT_LIMITS.items()}


def _judged(document: Document, path: str, judge: Callable[[], T]) -> T:
    """What the API's own rules make of it. Raises BadDocument in the place of theirs."""
    try:
        return judge()
    except MissingField as missing:
        raise BadDocument(document.flaw(f"{path}.{missing.field}", "is required")) from None
    except InvalidField as invalid:
        told = str(invalid).removeprefix(f"{invalid.field}: ")
        raise BadDocument(document.flaw(f"{path}.{invalid.field}", told)) from None


def _options(document: Document, said: Form, path: str, names: frozenset[str]) -> Form:
    """What is said in `lifesign`, nothing in it being null."""
    raw = said.get("lifesign", {})
    if not isinstance(raw, dict):
        raise BadDocument(document.flaw(f"{path}.lifesign", "must be a mapping of fields"))
    options = only(document, raw, f"{path}.lifesign", sorted(names))
    return {name: _said(value) if isinstance(value, dict) else value for name, value in options.items()}


def _said(members: Mapping[str, Any]) -> Form:  # Any: what YAML can say
    return {name: value for name, value in members.items() if value is not None}


# Bots ---------------------------------------------------------------------------------------------------------------
def bot(document: Document, name: str, raw: Form, path: str, environment: Mapping[str, str]) -> Item:
    """A bot as a file wants it. at_creation: the secret of its runner. Raises BadDocument."""
    said = only(document, raw, path, FIELDS["bots"])
    options = _options(document, said, path, BOT_OPTIONS)
    if "runner" in options:
        place = f"{path}.lifesign.runner"
        options["runner"] = with_secrets(document, options["runner"], place, environment=environment)
    fields = Fields(said | {"name": name, "lifesign": options})
    own, extra = _judged(document, path, lambda: bodies.bot_of(fields, _GUARD, is_new=True))
    is_agreed = _judged(document, path, lambda: Fields(options, within="lifesign").flag("acknowledge_trifecta"))
    runner = dict(extra.get("runner", {}))
    secret = runner.pop("secret", None)
    form = {each: own.get(each) for each in ("model", "instruction", "max_reply_tokens", "top")}
    form["status"] = own.get("is_online", True)
    form["heartbeat"] = own.get("is_scheduling", False)
    form["lifesign"] = {
        "provider": extra.get("provider"),
        "fallback_models": list(extra.get("fallback_models", ())),
        "credits_per_1k_tokens": None if "units_per_1k" not in extra else credits_of(extra["units_per_1k"]),
        "runner": runner or None,
        "tools": list(extra.get("tools", ())),
        "approval_tools": list(extra.get("approval_tools", ())),
        "telemetry_content": extra.get("telemetry_content"),
        "acknowledge_trifecta": is_agreed,
    }
    told = bot_form("bots", form)
    return Item("bots", name, path, told, told, {} if secret is None else {"secret": secret})


def literal_secrets(document: Document, item: Item, raw: Form) -> Iterator[str]:
    """The paths of secrets of a bot that stand in the file itself."""
    if "secret" in item.at_creation:
        yield from literal_paths(document, raw["lifesign"]["runner"]["secret"], f"{item.path}.lifesign.runner.secret")


# Schedules ----------------------------------------------------------------------------------------------------------
def schedules_in(document: Document, flaws: list[Flaw]) -> list[tuple[str, Form, str]]:
    """Bot, fields and path of each schedule; what is wrong with the bots themselves has been told."""
    section = document.content.get("bots")
    found = []
    for name, raw in section.items() if isinstance(section, dict) else ():
        listed = raw.get("schedules") if isinstance(raw, dict) else None
        path = f"bots.{name}.schedules"
        if listed is not None and not isinstance(listed, list):
            flaws.append(document.flaw(path, "must be a list"))
            continue
        for position, each in enumerate(listed or ()):
            if isinstance(each, dict):
                found.append((name, each, f"{path}[{position}]"))
            else:
                flaws.append(document.flaw(f"{path}[{position}]", "must be a mapping of fields"))
    return found


def schedule(document: Document, owner: str, raw: Form, path: str, _environment: Mapping[str, str]) -> Item:
    """A schedule as a file wants it, of the bot of this name. Raises BadDocument."""
    said = only(document, raw, path, FIELDS["schedules"])
    options = _options(document, said, path, SCHEDULE_OPTIONS)
    fields = Fields(said | {"lifesign": _without_names(options)})
    prompt = _judged(document, path, lambda: bodies.prompt_of(fields, is_required=True)) or ""
    member = _judged(document, path, lambda: bodies.member_ref(fields))
    when = _judged(document, path, lambda: bodies.timing_of(fields, None, _SOME_DAY))
    own, extra = _judged(document, path, lambda: bodies.schedule_of(fields, _GUARD))
    if extra.get("catch_up") == "all" and when.cron is None:
        raise BadDocument(document.flaw(f"{path}.lifesign.catch_up", "all is for schedules by cron"))
    budget = own.get("budget")
    form: Form = {
        "prompt": prompt,
        "member_id": member,
        "enabled": own.get("is_enabled", False),
        **timing.shown(when),
        "credit_budget": None if budget is None else credits_of(budget),
        "max_consecutive_errors": own.get("max_errors"),
        "lifesign": _options_form(extra, options),
    }
    told = bot_form("schedules", form)
    name = schedule_name(owner, prompt, member)
    return Item("schedules", name, path, told, told, references=_references(told, path), owner=owner)


def _without_names(options: Form) -> Form:
    """The options as the API would take them: a policy's name may be longer than any id."""
    watch = options.get("watch")
    if not isinstance(watch, dict) or not isinstance(watch.get("policy"), str) or not watch["policy"]:
        return options
    return options | {"watch": watch | {"policy": "policy"}}


def _options_form(extra: Form, options: Form) -> Form:
    """Options as answers show them, with names in place of ids."""
    form: Form = {name: list(value) if isinstance(value, tuple) else value for name, value in extra.items()}
    limits = form.get("limits", {})
    form["limits"] = {_UNITS.get(name, name): credits_of(n) if name in _UNITS else n for name, n in limits.items()}
    if "channels" in form.get("notify", {}):
        form["notify"] = form["notify"] | {"channels": list(form["notify"]["channels"])}
    if form.get("watch") is not None:
        form["watch"] = form["watch"] | {"policy": options["watch"]["policy"]}
    return form


def _references(form: Form, path: str) -> tuple[Reference, ...]:
    own = form.get("lifesign", {})
    channels = own.get("notify", {}).get("channels", ())
    inside = f"{path}.lifesign"
    found = [Reference("channels", each, f"{inside}.notify.channels[{n}]") for n, each in enumerate(channels)]
    if "watch" in own:
        found.append(Reference("policies", own["watch"]["policy"], f"{inside}.watch.policy"))
    return tuple(found)
