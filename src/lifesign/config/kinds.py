"""What objects of each kind may say in a file, judged as the server would, in the form that can be compared."""

from collections.abc import Callable, Mapping
from typing import TypeVar, cast

from lifesign.channels import config as channel_configs
from lifesign.channels.bodies import NewChannel
from lifesign.channels.rules import ChannelType
from lifesign.channels.targets import GuardPolicy
from lifesign.clock import rfc3339
from lifesign.config import bots
from lifesign.config.document import BadDocument, Document, Flaw, literal_paths, only, with_secrets
from lifesign.config.forms import AT_CREATION, FIELDS, config_form, steps_form, usual_left_out, window_form
from lifesign.config.items import KINDS, Form, Item, Kind, Reference, Wanted
from lifesign.faults import InvalidInput
from lifesign.heartbeats import bodies as heartbeat_bodies
from lifesign.heartbeats.bodies import NewHeartbeat
from lifesign.http.validation import validate
from lifesign.incidents.bodies import NewPolicy
from lifesign.maintenance import bodies as maintenance_bodies
from lifesign.maintenance.bodies import NewWindow
from lifesign.systems.bodies import NewSystem

T = TypeVar("T")

# The schedules of a bot stand under it.
_SECTIONS = ("project", *(kind for kind in KINDS if kind != "schedules"))
_S = 1000

_PINGS = tuple(heartbeat_bodies.Pings.model_fields)
# Private addresses are the server's to judge, which may allow them.
_GUARD = GuardPolicy(allow_private=True)


def wanted_of(document: Document, environment: Mapping[str, str]) -> Wanted:
    """What a document wants. Raises BadDocument with every fault that can be seen without a server."""
    flaws = [document.flaw(key, f"is not known; sections are {', '.join(_SECTIONS)}") for key in document.content]
    flaws = [flaw for flaw in flaws if flaw.path not in _SECTIONS]
    project = document.content.get("project")
    if project is not None and not isinstance(project, str):
        flaws.append(document.flaw("project", "must be the name or the id of a project"))
    items: dict[Kind, dict[str, Item]] = {kind: {} for kind in KINDS}
    warnings: list[str] = []
    for kind in KINDS:
        for name, raw, path in _entries(document, kind, flaws):
            try:
                item = _READERS[kind](document, name, raw, path, environment)
            except BadDocument as bad:
                flaws += bad.flaws
                continue
            if item.name in items[kind]:
                first = document.place_of(items[kind][item.name].path)
                flaws.append(document.flaw(path, f"has the prompt of another one, in {first}"))
                continue
            items[kind][item.name] = item
            warnings += _warnings(document, item, raw)
    flaws += _cycles(document, items["heartbeats"])
    if flaws:
        raise BadDocument(*flaws)
    return Wanted(project, items, tuple(warnings))


def _entries(document: Document, kind: Kind, flaws: list[Flaw]) -> list[tuple[str, Form, str]]:
    """Name, fields and path of each entry of a section."""
    if kind == "schedules":
        return bots.schedules_in(document, flaws)
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
    return only(document, raw, path, FIELDS[kind])


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
        said["pings"] = only(document, said["pings"], f"{path}.pings", _PINGS)
    body = _judged(document, path, lambda: validate(NewHeartbeat, {"name": name} | said | {"slug": name}))
    definition = _judged(document, path, lambda: heartbeat_bodies.definition_of(body))
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
    begins = {each: said[each] for each in AT_CREATION if each in said}
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
    form = {"type": body.type, "config": config_form(body.type, valid)}
    return Item("channels", name, path, form, shown=form | {"config": masked_config(form)})


def _policy(document: Document, name: str, raw: Form, path: str, _environment: Mapping[str, str]) -> Item:
    said = _known(document, "policies", raw, path)
    for position, step in enumerate(said["steps"] if isinstance(said.get("steps"), list) else ()):
        if isinstance(step, dict):
            only(document, step, f"{path}.steps[{position}]", ("channels", "wait", "message"))
    body = _judged(document, path, lambda: validate(NewPolicy, {"name": name} | said))
    steps = [step.model_dump(exclude_unset=True) for step in body.steps]
    form = {"steps": steps_form(steps), "repeatLastStep": body.repeatLastStep}
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


def _window(document: Document, name: str, raw: Form, path: str, _environment: Mapping[str, str]) -> Item:
    said = _known(document, "maintenance", raw, path)
    body = _judged(document, path, lambda: validate(NewWindow, said | {"name": name}))
    definition = _judged(document, path, lambda: maintenance_bodies.definition_of(body))
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
    return _item("maintenance", name, path, window_form(form), references=references)


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
    "bots": bots.bot,
    "schedules": bots.schedule,
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
    told = usual_left_out(kind, form)
    return Item(kind, name, path, told, told, at_creation or {}, references)


def _warnings(document: Document, item: Item, raw: Form) -> list[str]:
    """The secrets that stand in the file."""
    if item.kind == "bots":
        return [_warning(document, each) for each in bots.literal_secrets(document, item, raw)]
    if item.kind != "channels":
        return []
    secret = set(secret_paths(item.form))
    path = f"{item.path}.config"
    literal = [each for each in literal_paths(document, raw.get("config"), path) if each[len(path) + 1 :] in secret]
    return [_warning(document, each) for each in literal]


def _warning(document: Document, path: str) -> str:
    return str(document.flaw(path, "is a secret in plain text; write {env: NAME} or {file: PATH}"))


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
