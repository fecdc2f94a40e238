"""What the settings of each channel type may be, what of them is secret, and how they are masked, kept and sealed.

Pure but for the random bytes of a new secret or nonce. Source: spec "Heartbeats", section 9.
"""

import base64
import binascii
import re
import secrets
import unicodedata
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, assert_never

from lifesign.channels.mailbox import can_carry
from lifesign.channels.rules import ChannelType, SecretUnreadable
from lifesign.channels.targets import GuardPolicy, check_at_save
from lifesign.faults import Fault, InvalidInput

MAX_ADDRESSES: Final = 10
MAX_EMAIL_CHARACTERS: Final = 254
MAX_HEADERS: Final = 20
MAX_HEADER_NAME_CHARACTERS: Final = 100
MAX_HEADER_VALUE_CHARACTERS: Final = 2000
SEVERITIES: Final = ("critical", "error", "warning", "info")

_MASK: Final = "****"
_SHOWN_CHARACTERS: Final = 4
_MIN_CHARACTERS_TO_SHOW: Final = 12
_SECRET_PREFIX: Final = "whsec_"  # noqa: S105 - how a secret begins, not one
_SECRET_BYTES: Final = range(24, 65)
_NEW_SECRET_BYTES: Final = 32
_HEADER: Final = "headers."

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS: Final = frozenset({"host", "content-length", "content-type", "connection", "transfer-encoding"})
_ROUTING_KEY = re.compile(r"[A-Za-z0-9]{32}")
_E164 = re.compile(r"\+[0-9]{7,15}")
_URL_START = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*")
_MASKED_URL_START = re.compile(r"(?:[A-Za-z][A-Za-z0-9+.-]*://[^/?#]*/)?\*{4}")

# By type: the keys that must be there, and those that may be.
_KEYS: Final[Mapping[ChannelType, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "email": (("to",), ()),
    "slack": (("webhookUrl",), ()),
    "webhook": (("url",), ("secret", "headers")),
    "pagerduty": (("routingKey",), ("severity",)),
    "sms": (("to",), ()),
}

# Any: settings are JSON of a shape that `validate` finds out.
Json = Any
Config = Mapping[str, Json]


class Box(Protocol):
    """What seals: `channels.secrets.SecretBox`."""

    def seal(self, text: str, channel_id: str, path: str) -> str:
        """`text`, bound to this field of this channel."""
        ...

    def open(self, token: str, channel_id: str, path: str) -> str:
        """What `seal` was given. Raises SecretUnreadable."""
        ...


def validate(channel_type: ChannelType, config: Json, policy: GuardPolicy) -> dict[str, Json]:
    """Return the settings as they are stored, or raise InvalidInput with every fault, each on `config.<key>`.

    Faults of secrets do not carry the refused value.
    """
    if not isinstance(config, Mapping):
        raise InvalidInput(Fault("config", "must be an object"))
    required, optional = _KEYS[channel_type]
    known = (*required, *optional)
    faults = [
        Fault(f"config.{key}", f"unknown key; {channel_type} channels have " + ", ".join(known))
        for key in config
        if key not in known
    ]
    faults += [Fault(f"config.{key}", "is required") for key in required if key not in config]
    for key in known:
        if key in config:
            faults += _faults_of(channel_type, key, config[key], policy)
    if faults:
        raise InvalidInput(*faults)
    return {key: _copy(config[key]) for key in known if key in config}


def generate_webhook_secret() -> str:
    """Make a signing secret for a webhook channel that was created without one."""
    return _SECRET_PREFIX + base64.b64encode(secrets.token_bytes(_NEW_SECRET_BYTES)).decode("ascii")


def masked(channel_type: ChannelType, config: Config) -> dict[str, Json]:
    """Return the settings as every answer shows them. The URL of a webhook is sealed at rest but shown."""
    return _mapped(config, _masked_paths(channel_type, config), _mask)


def merge(channel_type: ChannelType, old_config: Config, new_config: Json) -> Json:
    """Return the settings a PATCH means, still to be validated: masks that were sent back become the stored secrets.

    old_config: in clear, of the same type; `{}` when the type changes.
    Raises InvalidInput for a value that looks like a mask but is not the present one.
    """
    if not isinstance(new_config, Mapping):
        return new_config
    stored = {path: _at(old_config, path) for path in _masked_paths(channel_type, old_config)}
    kept: dict[str, str] = {}
    faults = []
    for path in _masked_paths(channel_type, new_config):
        value, before = _at(new_config, path), _stored_at(stored, path)
        if before is not None and value == _mask(path, before):
            kept[path] = before
        elif _looks_masked(path, value):
            faults.append(Fault(_field(path), "is a masked value, but not the one of the present secret"))
    if faults:
        raise InvalidInput(*faults)
    merged = _mapped(new_config, list(kept), lambda path, _: kept[path])
    if channel_type == "webhook" and "secret" not in merged and "secret" in old_config:
        merged["secret"] = old_config["secret"]
    return merged


def secret_paths(channel_type: ChannelType, config: Config) -> list[str]:
    """Return the places of the settings that are sealed at rest; each header value has its own, `headers.X-Team`."""
    paths = _masked_paths(channel_type, config)
    return [*paths, "url"] if channel_type == "webhook" and "url" in config else paths


def seal_config(box: Box, channel_id: str, channel_type: ChannelType, config: Config) -> dict[str, Json]:
    """Return the settings as they go to the database."""
    paths = secret_paths(channel_type, config)
    return _mapped(config, paths, lambda path, value: box.seal(value, channel_id, path))


def open_config(box: Box, channel_id: str, channel_type: ChannelType, config: Config) -> dict[str, Json]:
    """Return the settings in clear, for one send or one answer. Raises SecretUnreadable."""
    paths = secret_paths(channel_type, config)
    return _mapped(config, paths, lambda path, value: box.open(value, channel_id, path))


def masked_sealed(box: Box, channel_id: str, channel_type: ChannelType, config: Config) -> dict[str, Json]:
    """Return stored settings as answers show them; a secret that cannot be opened is all mask, the rest is readable."""

    def shown(path: str, value: str) -> str:
        try:
            clear = box.open(value, channel_id, path)
        except SecretUnreadable:
            return _MASK
        return clear if path == "url" else _mask(path, clear)

    return _mapped(config, secret_paths(channel_type, config), shown)


def addresses(channel_type: ChannelType, config: Config) -> list[str]:
    """Return the addresses that each get a notification of their own; none for types with a single target."""
    match channel_type:
        case "email" | "sms":
            to = config["to"]
            return [to] if isinstance(to, str) else list(dict.fromkeys(to))
        case "slack" | "webhook" | "pagerduty":
            return []
        case _:
            assert_never(channel_type)


def _faults_of(channel_type: ChannelType, key: str, value: Json, policy: GuardPolicy) -> list[Fault]:
    match channel_type, key:
        case "email", "to":
            return _address_faults(value, _is_email, "an e-mail address", distinct=True)
        case "sms", "to":
            return _address_faults(value, _is_e164, "a number like +15550100200", distinct=False)
        case "slack", "webhookUrl":
            return _url_faults(key, value, policy, ("https", "http") if policy.allow_private else ("https",))
        case "webhook", "url":
            return _url_faults(key, value, policy, ("http", "https"))
        case "webhook", "secret":
            bad = not isinstance(value, str) or not is_webhook_secret(value)
            return [Fault("config.secret", "must be whsec_ and the base64 of 24 to 64 bytes")] if bad else []
        case "webhook", "headers":
            return _header_faults(value)
        case "pagerduty", "routingKey":
            bad = not isinstance(value, str) or not _ROUTING_KEY.fullmatch(value)
            return [Fault("config.routingKey", "must be 32 letters and digits")] if bad else []
        case "pagerduty", "severity":
            if isinstance(value, str) and value in SEVERITIES:
                return []
            return [Fault("config.severity", "must be one of " + ", ".join(SEVERITIES), value, has_value=True)]
        case _:  # unreachable: the keys come from _KEYS
            raise AssertionError(channel_type, key)


def _address_faults(value: Json, is_good: Callable[[str], bool], noun: str, *, distinct: bool) -> list[Fault]:
    entries = value if isinstance(value, list) else [value]
    if not 1 <= len(entries) <= MAX_ADDRESSES:
        return [Fault("config.to", f"must have 1 to {MAX_ADDRESSES} addresses")]
    faults = [
        Fault("config.to", f"must be {noun}, or a list of them", entry, has_value=True)
        for entry in entries
        if not isinstance(entry, str) or not is_good(entry)
    ]
    if not faults and distinct and len({entry.casefold() for entry in entries}) < len(entries):
        faults.append(Fault("config.to", "must not have the same address twice"))
    return faults


def _is_email(text: str) -> bool:
    local, at, domain = text.partition("@")
    if not (local and at and domain) or "@" in domain or len(text) > MAX_EMAIL_CHARACTERS:
        return False
    return _is_plain(text) and can_carry(text)


def _is_e164(text: str) -> bool:
    return _E164.fullmatch(text) is not None


def is_webhook_secret(text: str) -> bool:
    try:
        raw = base64.b64decode(text.removeprefix(_SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        return False
    return text.startswith(_SECRET_PREFIX) and len(raw) in _SECRET_BYTES


def _url_faults(key: str, value: Json, policy: GuardPolicy, schemes: tuple[str, ...]) -> list[Fault]:
    if not isinstance(value, str):
        return [Fault(f"config.{key}", "must be a URL")]
    wrong = check_at_save(value, policy, schemes=schemes)
    return [] if wrong is None else [Fault(f"config.{key}", wrong)]


def _header_faults(value: Json) -> list[Fault]:
    if not isinstance(value, Mapping):
        return [Fault("config.headers", "must be an object of header names and values")]
    if len(value) > MAX_HEADERS:
        return [Fault("config.headers", f"must have at most {MAX_HEADERS} names")]
    faults = [Fault("config.headers", wrong) for name, text in value.items() if (wrong := _header_fault(name, text))]
    if not faults and len({name.lower() for name in value}) < len(value):
        faults.append(Fault("config.headers", "must not have the same name twice"))
    return faults


def _header_fault(name: str, text: Json) -> str | None:
    if len(name) > MAX_HEADER_NAME_CHARACTERS or not _HEADER_NAME.fullmatch(name):
        return f"must have names of 1 to {MAX_HEADER_NAME_CHARACTERS} letters, digits and !#$%&'*+-.^_`|~"
    if name.lower() in _OWN_HEADERS or name.lower().startswith("webhook-"):
        return f"must not set {name}: Lifesign sets it"
    if not isinstance(text, str) or len(text) > MAX_HEADER_VALUE_CHARACTERS or not _is_plain(text):
        return f"must have at most {MAX_HEADER_VALUE_CHARACTERS} characters and no control characters as {name}"
    return None


def _is_plain(text: str) -> bool:
    """No control characters, and no lone surrogates, which no wire can carry. Tabs are legal in headers."""
    return not any(unicodedata.category(character) in ("Cc", "Cs") for character in text if character != "\t")


def _masked_paths(channel_type: ChannelType, config: Config) -> list[str]:
    match channel_type:
        case "slack":
            keys = ["webhookUrl"]
        case "webhook":
            keys = ["secret"]
        case "pagerduty":
            keys = ["routingKey"]
        case "email" | "sms":
            keys = []
        case _:
            assert_never(channel_type)
    paths = [key for key in keys if isinstance(config.get(key), str)]
    headers = config.get("headers")
    if channel_type == "webhook" and isinstance(headers, Mapping):
        paths += [f"{_HEADER}{name}" for name, value in headers.items() if isinstance(value, str)]
    return paths


def _mask(path: str, value: str) -> str:
    start = _URL_START.match(value) if path == "webhookUrl" else None
    shown = value[-_SHOWN_CHARACTERS:] if len(value) >= _MIN_CHARACTERS_TO_SHOW else ""
    return f"{start[0]}/{_MASK}{shown}" if start else _MASK + shown


def _looks_masked(path: str, value: str) -> bool:
    return bool(_MASKED_URL_START.match(value)) if path == "webhookUrl" else value.startswith(_MASK)


def _stored_at(stored: Mapping[str, str], path: str) -> str | None:
    """The stored secret of a path; header names mean the same in any case."""
    if path.startswith(_HEADER):
        return next((value for key, value in stored.items() if key.lower() == path.lower()), None)
    return stored.get(path)


def _field(path: str) -> str:
    return "config.headers" if path.startswith(_HEADER) else f"config.{path}"


def _at(config: Config, path: str) -> str:
    value = config["headers"][path.removeprefix(_HEADER)] if path.startswith(_HEADER) else config[path]
    return str(value)


def _mapped(config: Config, paths: list[str], change: Callable[[str, str], str]) -> dict[str, Json]:
    """Return a copy of the settings with the text at every path changed."""
    result = {key: _copy(value) for key, value in config.items()}
    for path in paths:
        if path.startswith(_HEADER):
            name = path.removeprefix(_HEADER)
            result["headers"][name] = change(path, result["headers"][name])
        else:
            result[path] = change(path, result[path])
    return result


def _copy(value: Json) -> Json:
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, list) else value
