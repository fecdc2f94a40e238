"""One form of both sides to compare, and what a server has in it.

The form: the fields of the API, names in place of ids, and nothing that is as it would be without being said.
"""

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial
from typing import Any, cast

from lifesign.channels import config as channel_configs
from lifesign.clock import parse_timestamp, rfc3339
from lifesign.config.items import DEFAULTS, KINDS, Form, Kind, Present, Row
from lifesign.http.fields import one_line

_HEARTBEAT_FIELDS = (
    *("name", "mode", "interval", "schedule", "timezone", "grace", "policy", "channels", "namespace", "tags"),
    *("description", "tolerance", "dependsOn", "stickyPause", "pings"),
)
AT_CREATION = ("armed", "metadata")
"""What a heartbeat begins with and life changes: given when it is made, never compared."""
FIELDS: Mapping[Kind, tuple[str, ...]] = {
    "channels": ("type", "config"),
    "policies": ("steps", "repeatLastStep"),
    "heartbeats": (*_HEARTBEAT_FIELDS, *AT_CREATION),
    "maintenance": (
        *("name", "startsAt", "endsAt", "schedule", "duration", "timezone"),
        *("heartbeats", "namespaces", "tags", "all"),
    ),
    "systems": ("type", "fqdn", "notes", "tags", "interval", "policy"),
    "bots": ("model", "instruction", "max_reply_tokens", "top", "status", "heartbeat", "lifesign", "schedules"),
    "schedules": (
        *(
            "prompt",
            "member_id",
            "enabled",
            "interval_minutes",
            "active_hours_start",
            "active_hours_end",
            "active_days",
        ),
        *("cron_pattern", "timezone", "credit_budget", "max_consecutive_errors", "lifesign"),
    ),
}
_SWITCHES = ("status", "heartbeat", "enabled")
# What only Lifesign has of them, as far as a file says it.
OPTIONS: Mapping[Kind, tuple[str, ...]] = {
    "bots": tuple(DEFAULTS["bots"]["lifesign"]),
    "schedules": (*DEFAULTS["schedules"]["lifesign"], "catch_up_window_seconds", "precheck", "tools", "watch"),
}


def config_form(channel_type: str, config: Mapping[str, Any]) -> Form:
    form = dict(config)
    if isinstance(form.get("to"), str):
        form["to"] = [form["to"]]
    if channel_type == "pagerduty" and form.get("severity") == channel_configs.SEVERITIES[0]:
        del form["severity"]
    if form.get("headers") == {}:
        del form["headers"]
    return form


def steps_form(steps: Iterable[Mapping[str, Any]]) -> list[Form]:
    """A wait of nothing is none."""
    return [{name: each for name, each in step.items() if each not in (0, None)} for step in steps]


def window_form(form: Form) -> Form:
    form = {name: value for name, value in form.items() if value is not None}
    for name in ("startsAt", "endsAt"):
        if name in form:
            form[name] = rfc3339(parse_timestamp(form[name]))
    if form.get("timezone") == "UTC":
        del form["timezone"]
    return form


def usual_left_out(kind: Kind, form: Form) -> Form:
    usual = DEFAULTS[kind]
    return {
        name: value
        for name, value in form.items()
        if value is not None and value not in ([], {}) and not (name in usual and value == usual[name])
    }


def bot_form(kind: Kind, form: Form) -> Form:
    """The form of a bot or of a schedule; within `lifesign` an empty list can be a choice."""
    usual = DEFAULTS[kind]["lifesign"]
    own = form["lifesign"]
    chosen = {name: own[name] for name in OPTIONS[kind] if own.get(name) is not None and own[name] != usual.get(name)}
    switched = {name: bool(form[name]) for name in _SWITCHES if name in form}
    told = {name: value for name, value in form.items() if value != ""}
    return usual_left_out(kind, told | switched | {"lifesign": chosen})


def schedule_name(bot: str, prompt: str, member: str | int | None) -> str:
    """What tells a schedule from all others: the prompt is what it is known by, for each member anew."""
    name = f"{bot}: {json.dumps(prompt, ensure_ascii=False)}"
    return name if member is None else f"{name} of {json.dumps(member, ensure_ascii=False)}"


NameOf = Callable[[Kind, str], str]
"""The name of an object, by its kind and id."""


def form_of(kind: Kind, row: Form, name_of: NameOf) -> Form:
    """An object of the server in the form of the files; a channel's secrets stay masked."""
    return _FORMS[kind](row, name_of)


def _form_of_heartbeat(row: Form, name_of: NameOf) -> Form:
    form = {name: row[name] for name in _HEARTBEAT_FIELDS if name in row}
    # Clients of Healthchecks give checks several lines for a name, or none at all.
    form["name"] = one_line(form["name"]) or row.get("slug")
    if "policy" in form:
        form["policy"] = name_of("policies", form["policy"])
    for name, kind in (("channels", "channels"), ("dependsOn", "heartbeats")):
        if name in form:
            form[name] = [name_of(cast("Kind", kind), each) for each in form[name]]
    return usual_left_out("heartbeats", form)


def _form_of_channel(row: Form, _name_of: NameOf) -> Form:
    return {"type": row["type"], "config": config_form(row["type"], row["config"])}


def _form_of_policy(row: Form, name_of: NameOf) -> Form:
    named = partial(name_of, "channels")
    steps = [step | {"channels": [named(each) for each in step["channels"]]} for step in row["steps"]]
    return usual_left_out("policies", {"steps": steps_form(steps), "repeatLastStep": row["repeatLastStep"]})


def _form_of_window(row: Form, name_of: NameOf) -> Form:
    form = {name: row[name] for name in FIELDS["maintenance"] if name in row and name != "name"}
    if "heartbeats" in form:
        form["heartbeats"] = [name_of("heartbeats", each) for each in form["heartbeats"]]
    return window_form(form)


def _form_of_system(row: Form, name_of: NameOf) -> Form:
    form = {name: row.get(name) for name in FIELDS["systems"]}
    if form["policy"] is not None:
        form["policy"] = name_of("policies", form["policy"])
    return usual_left_out("systems", form)


def _form_of_bot(row: Form, _name_of: NameOf) -> Form:
    return bot_form("bots", {name: row.get(name) for name in FIELDS["bots"]})


def _form_of_schedule(row: Form, name_of: NameOf) -> Form:
    form = {name: row.get(name) for name in FIELDS["schedules"]}
    own = dict(row["lifesign"])
    # A pause of the server's is how it lives: enabled all the same, and nothing to compare.
    form |= {"enabled": True, "paused": True} if own.get("paused_by") == "system" else {}
    if "channels" in own["notify"]:
        own["notify"] = own["notify"] | {"channels": [name_of("channels", each) for each in own["notify"]["channels"]]}
    if own.get("watch") is not None:
        own["watch"] = own["watch"] | {"policy": name_of("policies", own["watch"]["policy"])}
    return bot_form("schedules", form | {"lifesign": own})


_FORMS: Mapping[Kind, Callable[[Form, NameOf], Form]] = {
    "channels": _form_of_channel,
    "policies": _form_of_policy,
    "heartbeats": _form_of_heartbeat,
    "maintenance": _form_of_window,
    "systems": _form_of_system,
    "bots": _form_of_bot,
    "schedules": _form_of_schedule,
}


def name_in(kind: Kind, row: Form) -> str | None:
    """What a file calls an object of the server; None for one that a file cannot name, or must not."""
    if kind == "schedules":
        return schedule_name(row["bot"], row["prompt"], row["member_id"])
    if kind != "heartbeats":
        return str(row["name"])
    slug = row.get("slug")
    return None if slug is None or "managedBy" in row else str(slug)


def _of_living(window: Form, living: Collection[str]) -> Form:
    """A window without the heartbeats that were deleted since, which a file could not name."""
    members = [each for each in window.get("heartbeats", ()) if each in living]
    others = {name: value for name, value in window.items() if name != "heartbeats"}
    return others | {"heartbeats": members} if members else others


def _telling_living(schedule: Form, living: Collection[str]) -> Form:
    """A schedule that tells none of the channels that were deleted since."""
    own = schedule["lifesign"]
    if "channels" not in own["notify"]:
        return schedule
    left = [each for each in own["notify"]["channels"] if each in living]
    return schedule | {"lifesign": own | {"notify": own["notify"] | {"channels": left}}}


def present_of(answers: Mapping[Kind, Iterable[Form]]) -> Present:
    """What a server has, from its lists."""
    listed = {kind: list(answers.get(kind, ())) for kind in KINDS}
    living = {row["id"] for row in listed["heartbeats"]}
    listed["maintenance"] = [_of_living(row, living) for row in listed["maintenance"]]
    channels = {row["id"] for row in listed["channels"]}
    listed["schedules"] = [_telling_living(row, channels) for row in listed["schedules"]]
    names = {
        (kind, row["id"]): name for kind in KINDS for row in listed[kind] if (name := name_in(kind, row)) is not None
    }
    called = {
        row["id"]: str(row.get("slug", row["id"]))
        for row in listed["heartbeats"]
        if ("heartbeats", row["id"]) not in names
    }

    def name_of(kind: Kind, key: str) -> str:
        return names.get((kind, key)) or called.get(key, key)

    rows: dict[Kind, dict[str, list[Row]]] = {kind: {} for kind in KINDS}
    for kind in KINDS:
        for row in listed[kind]:
            name = names.get((kind, row["id"]))
            if name is not None:
                told = Row(row["id"], row.get("origin"), form_of(kind, row, name_of), row.get("bot_uuid", ""))
                rows[kind].setdefault(name, []).append(told)
    return Present(rows, names, {word: key for key, word in called.items()})
