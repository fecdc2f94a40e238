"""What objects of each kind may say in a file, judged as the server would; and one form of both sides to compare.

The form: the fields of the API, names in place of ids, and nothing that is as it would be without being said.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeVar, cast

from lifesign.channels import config as channel_configs
from lifesign.channels.guard import GuardPolicy
from lifesign.channels.schemas import NewChannel
from lifesign.channels.sender import ChannelType
from lifesign.clock import rfc3339
from lifesign.config.document import BadDocument, Document, Flaw, literal_paths, with_secrets
from lifesign.config.items import DEFAULTS, KINDS, Form, Item, Kind, Present, Reference, Row, Wanted
from lifesign.faults import InvalidInput
from lifesign.heartbeats import schemas as heartbeat_schemas
from lifesign.heartbeats.schemas import NewHeartbeat
from lifesign.http.body import validate
from lifesign.http.fields import parse_timestamp
from lifesign.incidents.schemas import NewPolicy
from lifesign.maintenance import schemas as maintenance_schemas
from lifesign.maintenance.schemas import NewWindow
from lifesign.systems.schemas import NewSystem

T = TypeVar("T")

_SECTIONS = ("project", *KINDS, "bots")
_S = 1000

_HEARTBEAT_FIELDS = (
    *("name", "mode", "interval", "schedule", "timezone", "grace", "policy", "channels", "namespace", "tags"),
    *("description", "tolerance", "dependsOn", "stickyPause", "pings"),
)
_AT_CREATION = ("armed", "metadata")
"""What a heartbeat begins with and life changes: given when it is made, never compared."""
FIELDS: Mapping[Kind, tuple[str, ...]] = {
    "channels": ("type", "config"),
    "policies": ("steps", "repeatLastStep"),
    "heartbeats": (*_HEARTBEAT_FIELDS, *_AT_CREATION),
    "maintenance": (
        *("name", "startsAt", "endsAt", "schedule", "duration", "timezone"),
        *("heartbeats", "namespaces", "tags", "all"),
    ),
    "systems": ("type", "fqdn", "notes", "tags", "interval", "policy"),
}
_PINGS = tuple(heartbeat_schemas.Pings.model_fields)
# Private addresses are the server's to judge, which may allow them.
_GUARD = GuardPolicy(allow_private=True)


# What a file says ---------------------------------------------------------------------------------------------------
def wanted_of(document: Document, environment: Mapping[str, str]) -> Wanted:
    """What a document wants. Raises BadDocument with every fault that can be seen without a server."""
    flaws = [document.flaw(key, f"is not known; sections are {', '.join(_SECTIONS)}") for key in document.content]
    flaws = [flaw for flaw in flaws if flaw.path not in _SECTIONS]
    project = document.content.get("project")
    if project is not None and not isinstance(project, str):
        flaws.append(document.flaw("project", "must be the name of a project"))
    bots = document.content.get("bots")
    if bots not in (None, {}):
        flaws.append(document.flaw("bots", "this server has no bots"))
    items: dict[Kind, dict[str, Item]] = {kind: {} for kind in KINDS}
    warnings: list[str] = []
    for kind in KINDS:
        for name, raw, path in _entries(document, kind, flaws):
            try:
                item = _READERS[kind](document, name, raw, path, environment)
            except BadDocument as bad:
                flaws += bad.flaws
                continue
            items[kind][name] = item
            warnings += _warnings(document, item, raw)
    flaws += _cycles(document, items["heartbeats"])
    if flaws:
        raise BadDocument(*flaws)
    return Wanted(project, items, tuple(warnings))


def _entries(document: Document, kind: Kind, flaws: list[Flaw]) -> list[tuple[str, Form, str]]:
    """Name, fields and path of each entry of a section."""
    section = document.content.get(kind)
    if section is None:
        return []
    if kind == "maintenance":
        return _listed(document, section, flaws)
    if not isinstance(section, dict):
        flaws.append(document.flaw(kind, "must be a mapping of names"))
        return []
    found = []
    for name, raw in section.items():
        path = f"{kind}.{name}"
        if not isinstance(raw, dict):
            flaws.append(document.flaw(path, "must be a mapping of fields"))
        elif name != name.strip() or not name:
            flaws.append(document.flaw(path, "a name must not be empty, nor begin or end with blanks"))
        else:
            found.append((name, raw, path))
    return found


def _listed(document: Document, section: object, flaws: list[Flaw]) -> list[tuple[str, Form, str]]:
    """The same of maintenance windows, which are a list."""
    if not isinstance(section, list):
        # An empty mapping is as empty as an empty list.
        if section != {}:
            flaws.append(document.flaw("maintenance", "must be a list"))
        return []
    found: dict[str, tuple[str, Form, str]] = {}
    for position, raw in enumerate(section):
        path = f"maintenance[{position}]"
        name = raw.get("name") if isinstance(raw, dict) else None
        if not isinstance(raw, dict):
            flaws.append(document.flaw(path, "must be a mapping of fields"))
        elif not isinstance(name, str) or not name.strip():
            flaws.append(document.flaw(f"{path}.name", "is required"))
        elif name.strip() in found:
            first = document.place_of(found[name.strip()][2])
            flaws.append(document.flaw(f"{path}.name", f"is defined in {first} as well"))
        else:
            found[name.strip()] = (name.strip(), raw, path)
    return list(found.values())


def _known(document: Document, kind: Kind, raw: Form, path: str) -> Form:
    """The fields that are said, null being not said. Raises BadDocument for those that do not exist."""
    return _only(document, raw, path, FIELDS[kind])


def _only(document: Document, raw: Mapping[str, Any], path: str, names: Sequence[str]) -> Form:
    unknown = [name for name in raw if name not in names]
    if unknown:
        raise BadDocument(
            *(document.flaw(f"{path}.{name}", f"is not known; fields are {', '.join(names)}") for name in unknown)
        )
    return {name: value for name, value in raw.items() if value is not None}


def _judged(document: Document, path: str, judge: Callable[[], T]) -> T:
    """What the server's own rules make of it. Raises BadDocument in the place of InvalidInput."""
    try:
        return judge()
    except InvalidInput as refused:
        raise BadDocument(
            *(document.flaw(_inside(path, fault.field), _told(fault.message, fault.value)) for fault in refused.faults)
        ) from None


def _inside(path: str, field_name: str) -> str:
    return path if field_name == "body" else f"{path}.{field_name}"


def _told(message: str, value: object) -> str:
    return message if value is None else f"{message} (not {str(value)[:100]!r})"


def _heartbeat(document: Document, name: str, raw: Form, path: str, _environment: Mapping[str, str]) -> Item:
    said = _known(document, "heartbeats", raw, path)
    if isinstance(said.get("pings"), dict):
        said["pings"] = _only(document, said["pings"], f"{path}.pings", _PINGS)
    body = _judged(document, path, lambda: validate(NewHeartbeat, {"name": name} | said | {"slug": name}))
    definition = _judged(document, path, lambda: heartbeat_schemas.definition_of(body))
    form: Form = {
        "name": definition.name,
        "mode": definition.mode,
        "interval": definition.interval_ms and definition.interval_ms // _S,
        "schedule": definition.schedule,
        "timezone": definition.timezone,
        "grace": definition.grace_ms // _S,
        "policy": definition.policy_id,
        "channels": list(definition.own_channels),
        "namespace": definition.namespace,
        "tags": list(definition.tags),
        "description": definition.description,
        "tolerance": body.tolerance.model_dump() if "tolerance" in body.given() else None,
        "dependsOn": list(definition.depends_on),
        "stickyPause": definition.is_sticky_pause,
        "pings": body.pings.model_dump(exclude_defaults=True) if "pings" in body.given() else None,
    }
    if name in definition.depends_on:
        raise BadDocument(document.flaw(f"{path}.dependsOn", "names the heartbeat itself"))
    begins = {each: said[each] for each in _AT_CREATION if each in said}
    return _item("heartbeats", name, path, form, at_creation=begins, references=_of_heartbeat(form, path))


def _of_heartbeat(form: Form, path: str) -> tuple[Reference, ...]:
    found = [Reference("policies", form["policy"], f"{path}.policy")] if form["policy"] else []
    found += [Reference("channels", each, f"{path}.channels[{n}]") for n, each in enumerate(form["channels"])]
    found += [Reference("heartbeats", each, f"{path}.dependsOn[{n}]") for n, each in enumerate(form["dependsOn"])]
    return tuple(found)


def _channel(document: Document, name: str, raw: Form, path: str, environment: Mapping[str, str]) -> Item:
    said = _known(document, "channels", raw, path)
    config = with_secrets(document, said.get("config"), f"{path}.config", environment=environment)
    values = {"name": name} | said | ({"config": config} if "config" in said else {})
    body = _judged(document, path, lambda: validate(NewChannel, values, secret=["config"]))
    valid = _judged(document, path, lambda: channel_configs.validate(body.type, body.config, _GUARD))
    form = {"type": body.type, "config": _config_form(body.type, valid)}
    return Item("channels", name, path, form, shown=form | {"config": masked_config(form)})


def _config_form(channel_type: str, config: Mapping[str, Any]) -> Form:
    form = dict(config)
    if isinstance(form.get("to"), str):
        form["to"] = [form["to"]]
    if channel_type == "pagerduty" and form.get("severity") == channel_configs.SEVERITIES[0]:
        del form["severity"]
    if form.get("headers") == {}:
        del form["headers"]
    return form


def _policy(document: Document, name: str, raw: Form, path: str, _environment: Mapping[str, str]) -> Item:
    said = _known(document, "policies", raw, path)
    for position, step in enumerate(said["steps"] if isinstance(said.get("steps"), list) else ()):
        if isinstance(step, dict):
            _only(document, step, f"{path}.steps[{position}]", ("channels", "wait", "message"))
    body = _judged(document, path, lambda: validate(NewPolicy, {"name": name} | said))
    steps = [step.model_dump(exclude_unset=True) for step in body.steps]
    form = {"steps": _steps_form(steps), "repeatLastStep": body.repeatLastStep}
    references = tuple(
        Reference("channels", channel, f"{path}.steps[{n}].channels[{m}]")
        for n, step in enumerate(steps)
        for m, channel in enumerate(step["channels"])
    )
    repeated = [
        document.flaw(each.path, "stands twice in the step")
        for position, each in enumerate(references)
        if any(each.name == other.name and _parent(each.path) == _parent(other.path) for other in references[:position])
    ]
    if repeated:
        raise BadDocument(*repeated)
    return _item("policies", name, path, form, references=references)


def _parent(path: str) -> str:
    return path.rpartition("[")[0]


def _steps_form(steps: Iterable[Mapping[str, Any]]) -> list[Form]:
    """A wait of nothing is none."""
    return [{name: each for name, each in step.items() if each not in (0, None)} for step in steps]


def _window(document: Document, name: str, raw: Form, path: str, _environment: Mapping[str, str]) -> Item:
    said = _known(document, "maintenance", raw, path)
    body = _judged(document, path, lambda: validate(NewWindow, said | {"name": name}))
    definition = _judged(document, path, lambda: maintenance_schemas.definition_of(body))
    form: Form = {
        "startsAt": definition.starts_at and rfc3339(definition.starts_at),
        "endsAt": definition.ends_at and rfc3339(definition.ends_at),
        "schedule": definition.schedule,
        "duration": definition.duration_ms and definition.duration_ms // _S,
        "timezone": definition.timezone if definition.schedule is not None else None,
        definition.target: True if definition.target == "all" else list(definition.members),
    }
    references = (
        tuple(Reference("heartbeats", each, f"{path}.heartbeats[{n}]") for n, each in enumerate(definition.members))
        if definition.target == "heartbeats"
        else ()
    )
    return _item("maintenance", name, path, _window_form(form), references=references)


def _window_form(form: Form) -> Form:
    form = {name: value for name, value in form.items() if value is not None}
    for name in ("startsAt", "endsAt"):
        if name in form:
            form[name] = rfc3339(parse_timestamp(form[name]))
    if form.get("timezone") == "UTC":
        del form["timezone"]
    return form


def _system(document: Document, name: str, raw: Form, path: str, _environment: Mapping[str, str]) -> Item:
    said = _known(document, "systems", raw, path)
    body = _judged(document, path, lambda: validate(NewSystem, {"name": name} | said))
    form = body.model_dump(exclude_unset=True, exclude={"name"})
    if "tags" in form:
        form["tags"] = sorted(set(form["tags"]))
    references = (Reference("policies", form["policy"], f"{path}.policy"),) if form.get("policy") else ()
    return _item("systems", name, path, form, references=references)


_READERS: Mapping[Kind, Callable[[Document, str, Form, str, Mapping[str, str]], Item]] = {
    "channels": _channel,
    "policies": _policy,
    "heartbeats": _heartbeat,
    "maintenance": _window,
    "systems": _system,
}


def _item(
    kind: Kind,
    name: str,
    path: str,
    form: Form,
    *,
    at_creation: Form | None = None,
    references: tuple[Reference, ...] = (),
) -> Item:
    """An object without secrets."""
    told = _usual_left_out(kind, form)
    return Item(kind, name, path, told, told, at_creation or {}, references)


def _usual_left_out(kind: Kind, form: Form) -> Form:
    usual = DEFAULTS[kind]
    return {
        name: value
        for name, value in form.items()
        if value is not None and value not in ([], {}) and not (name in usual and value == usual[name])
    }


def _warnings(document: Document, item: Item, raw: Form) -> list[str]:
    """The secrets that stand in the file."""
    if item.kind != "channels":
        return []
    secret = set(secret_paths(item.form))
    path = f"{item.path}.config"
    literal = [each for each in literal_paths(document, raw.get("config"), path) if each[len(path) + 1 :] in secret]
    return [
        str(document.flaw(each, "is a secret in plain text; write {env: NAME} or {file: PATH}")) for each in literal
    ]


def secret_paths(form: Form) -> list[str]:
    """The places in the config of a channel's form that answers mask: `secret`, `headers.X-Key`."""
    config, shown = form["config"], masked_config(form)
    found = []
    for name, value in config.items():
        if isinstance(value, dict):
            found += [f"{name}.{each}" for each in value if value[each] != shown[name][each]]
        elif value != shown[name]:
            found.append(name)
    return found


def masked_config(form: Form) -> Form:
    """The config of a channel's form as answers show it."""
    return channel_configs.masked(cast("ChannelType", form["type"]), form["config"])


def _cycles(document: Document, items: Mapping[str, Item]) -> list[Flaw]:
    """Heartbeats of the file that depend on themselves by way of others."""
    state: dict[str, bool] = {}
    flaws: list[Flaw] = []
    for start in items:
        trail = [(start, iter(items[start].form.get("dependsOn", ())))]
        if start in state:
            continue
        state[start] = False
        while trail:
            name, left = trail[-1]
            following = next(left, None)
            if following is None:
                state[name] = True
                trail.pop()
            elif following not in items:
                continue
            elif following not in state:
                state[following] = False
                trail.append((following, iter(items[following].form.get("dependsOn", ()))))
            elif not state[following]:
                flaws.append(
                    document.flaw(f"{items[name].path}.dependsOn", f"{following} depends on this heartbeat already")
                )
    return flaws


# What a server says -------------------------------------------------------------------------------------------------
NameOf = Callable[[Kind, str], str]
"""The name of an object, by its kind and id."""


def form_of(kind: Kind, row: Form, name_of: NameOf) -> Form:
    """An object of the server in the form of the files; a channel's secrets stay masked."""
    return _FORMS[kind](row, name_of)


def _form_of_heartbeat(row: Form, name_of: NameOf) -> Form:
    form = {name: row[name] for name in _HEARTBEAT_FIELDS if name in row}
    if "policy" in form:
        form["policy"] = name_of("policies", form["policy"])
    for name, kind in (("channels", "channels"), ("dependsOn", "heartbeats")):
        if name in form:
            form[name] = [name_of(cast("Kind", kind), each) for each in form[name]]
    return _usual_left_out("heartbeats", form)


def _form_of_channel(row: Form, _name_of: NameOf) -> Form:
    return {"type": row["type"], "config": _config_form(row["type"], row["config"])}


def _form_of_policy(row: Form, name_of: NameOf) -> Form:
    named = partial(name_of, "channels")
    steps = [step | {"channels": [named(each) for each in step["channels"]]} for step in row["steps"]]
    return _usual_left_out("policies", {"steps": _steps_form(steps), "repeatLastStep": row["repeatLastStep"]})


def _form_of_window(row: Form, name_of: NameOf) -> Form:
    form = {name: row[name] for name in FIELDS["maintenance"] if name in row and name != "name"}
    if "heartbeats" in form:
        form["heartbeats"] = [name_of("heartbeats", each) for each in form["heartbeats"]]
    return _window_form(form)


def _form_of_system(row: Form, name_of: NameOf) -> Form:
    form = {name: row.get(name) for name in FIELDS["systems"]}
    if form["policy"] is not None:
        form["policy"] = name_of("policies", form["policy"])
    return _usual_left_out("systems", form)


_FORMS: Mapping[Kind, Callable[[Form, NameOf], Form]] = {
    "channels": _form_of_channel,
    "policies": _form_of_policy,
    "heartbeats": _form_of_heartbeat,
    "maintenance": _form_of_window,
    "systems": _form_of_system,
}


def name_in(kind: Kind, row: Form) -> str | None:
    """What a file calls an object of the server; None for one that a file cannot name, or must not."""
    if kind != "heartbeats":
        return str(row["name"])
    slug = row.get("slug")
    return None if slug is None or "managedBy" in row else str(slug)


def present_of(answers: Mapping[Kind, Iterable[Form]]) -> Present:
    """What a server has, from its lists."""
    listed = {kind: list(answers.get(kind, ())) for kind in KINDS}
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
                told = Row(row["id"], row.get("origin"), form_of(kind, row, name_of))
                rows[kind].setdefault(name, []).append(told)
    return Present(rows, names, {word: key for key, word in called.items()})
