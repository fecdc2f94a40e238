"""Writing what a server has as a file: sorted, and the same bytes for the same project."""

import io
import re
from collections.abc import Mapping
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.representer import SafeRepresenter

from lifesign.config.forms import FIELDS
from lifesign.config.items import KINDS, Form, Kind, Present

_NOT_A_NAME = re.compile(r"[^A-Z0-9]+")
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
# What answers mask of a channel's settings, besides the values of headers.
_SECRETS = ("webhookUrl", "secret", "routingKey")
_HEAD = "# A Lifesign project. `lifesign apply -f FILE` makes a server so; secrets come from the environment.\n"


def exported(project: str, present: Present, now: str) -> tuple[str, list[str]]:
    """A project as YAML, and the variables its secrets are to be in. Raises Ambiguous.

    now: RFC 3339 as the server writes it; maintenance windows that were over then, or whose heartbeats are all gone,
    are left out.
    """
    variables = _Variables()
    content: Form = {"project": project}
    for kind in KINDS:
        forms = {name: _written(kind, name, present, variables) for name in sorted(present.rows[kind])}
        if kind == "maintenance":
            content[kind] = [{"name": name} | form for name, form in forms.items() if _is_to_be(form, now)]
        elif kind == "schedules":
            for name, form in forms.items():
                (row,) = present.rows[kind][name]
                bot = content["bots"][present.names["bots", row.owner]]
                bot.setdefault("schedules", []).append(form)
        else:
            content[kind] = forms
    return _HEAD + _yaml(content), variables.names


def _yaml(content: Form) -> str:
    stream = io.StringIO()
    writer = YAML(typ="safe", pure=True)
    writer.Representer = _Representer
    writer.default_flow_style = False
    writer.sort_base_mapping_type_on_output = False  # type: ignore[assignment]  # its stub says None only
    writer.allow_unicode = True
    writer.width = 10_000
    writer.dump(content, stream)
    return stream.getvalue()


class _Representer(SafeRepresenter):
    """Writes U+0085 as an escape, since it would be read as a line break; and no aliases."""

    def ignore_aliases(self, data: object) -> bool:
        """Whatever stands twice is written twice."""
        del data
        return True

    def represent_str(self, data: str) -> Any:  # Any: a node of YAML, which the library does not type
        if "\x85" in data:
            return self.represent_scalar("tag:yaml.org,2002:str", data, style='"')
        return super().represent_str(data)


_Representer.add_representer(str, _Representer.represent_str)


def _written(kind: Kind, name: str, present: Present, variables: "_Variables") -> Form:
    row = present.one(kind, name)
    assert row is not None  # noqa: S101 - the name came from there
    form = {each: row.form[each] for each in FIELDS[kind] if each in row.form}
    if kind == "heartbeats" and form.get("name") == name:
        del form["name"]
    if kind == "channels":
        form["config"] = _without_secrets(form["config"], name, variables)
    if kind == "bots" and form.get("lifesign", {}).get("runner", {}).get("kind") == "http":
        # It always has one, which is never shown.
        secret = {"secret": {"env": variables.named(f"{name} runner secret")}}
        form["lifesign"] = form["lifesign"] | {"runner": form["lifesign"]["runner"] | secret}
    return form


def _without_secrets(config: Form, path: str, variables: "_Variables") -> Form:
    written = dict(config)
    for key in _SECRETS:
        if key in config:
            written[key] = {"env": variables.named(f"{path} {key}")}
    if "headers" in config:
        written["headers"] = {
            key: {"env": variables.named(f"{path} header {key}")} for key in sorted(config["headers"])
        }
    return written


class _Variables:
    """Names for the variables that secrets are to be in: legal ones, each once."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def named(self, path: str) -> str:
        words = _NOT_A_NAME.sub("_", _CAMEL.sub("_", path).upper()).strip("_") or "SECRET"
        base = f"CHANNEL_{words}" if words[0].isdigit() else words
        name, number = base, 2
        while name in self.names:
            name, number = f"{base}_{number}", number + 1
        self.names.append(name)
        return name


def _is_to_be(window: Mapping[str, object], now: str) -> bool:
    """Whether a maintenance window will ever be again, of anybody."""
    ends_at = window.get("endsAt")
    is_over = isinstance(ends_at, str) and ends_at <= now
    return not is_over and not window.keys().isdisjoint(("heartbeats", "namespaces", "tags", "all"))
