"""What people send about bots, made into values; every fault is told with the field it is in.

Whatever is not known is left out, because the official client repeats members of earlier calls; except within the
object `lifesign`, which is ours. Source: spec/bots.md, sections 2 to 5.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from lifesign import schedule
from lifesign.bots import timing
from lifesign.bots.budget import PERIOD_KINDS, units_of
from lifesign.bots.rules import PLANS, InvalidField, MissingField
from lifesign.bots.timing import MAX_INTERVAL_MINUTES, Timing
from lifesign.bots.tools import CATALOGUE, LABELS, parted
from lifesign.channels.config import is_webhook_secret
from lifesign.channels.targets import GuardPolicy, check_at_save
from lifesign.clock import EpochMs, parse_timestamp
from lifesign.schedule import BadSchedule

# Any, throughout: JSON of the caller.
Json = Mapping[str, Any]

_ABSENT_TEXTS: Final = frozenset({"", "null", "undefined"})
_INTEGER = re.compile(r"-?[0-9]{1,18}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,12})?")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
_HEADER_VALUE = re.compile(r"[\x20-\x7e]{0,2000}")
_OWN_HEADERS: Final = frozenset({"host", "content-length", "content-type", "connection", "transfer-encoding", "accept"})
_MAX_HEADERS: Final = 20
MAX_PROMPT: Final = 50_000
_MAX_LIST: Final = 100
_LARGEST: Final = 2**53
_MAX_ORIGIN: Final = 64
_FIRST_AFTER: Final = 0
_LAST_AFTER: Final = parse_timestamp("9000-01-01T00:00:00Z")
_WINDOW_FIELDS: Final = ("active_hours_start", "active_hours_end", "active_days")


class Fields:
    """The members of an object. `null` is absent."""

    def __init__(self, members: Json, *, within: str = "", known: Collection[str] | None = None) -> None:
        """within: the object's own name. known: when others are refused."""
        self._members = members
        self._within = within
        if known is not None:
            unknown = next((name for name in members if name not in known), None)
            if unknown is not None:
                raise InvalidField(self.path(unknown), f"is not known; there are {', '.join(sorted(known))}")

    def path(self, name: str) -> str:
        """A member as messages name it."""
        return f"{self._within}.{name}" if self._within else name

    def refuse(self, name: str, why: str) -> InvalidField:
        """The exception for a member."""
        return InvalidField(self.path(name), why)

    def __contains__(self, name: str) -> bool:
        return self._members.get(name) is not None

    def is_null(self, name: str) -> bool:
        """Whether it was sent as null."""
        return name in self._members and self._members[name] is None

    def raw(self, name: str) -> Any:
        """The value as it came."""
        return self._members.get(name)

    def text(self, name: str, longest: int, *, least: int = 0) -> str | None:
        """A text; trimmed only when it must not be blank."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, str):
            raise self.refuse(name, "must be a string")
        if "\x00" in value:
            raise self.refuse(name, "must not contain U+0000")
        try:
            value.encode()
        except UnicodeEncodeError:
            raise self.refuse(name, "must be UTF-8 text") from None
        value = value.strip() if least else value
        if not least <= len(value) <= longest:
            raise self.refuse(name, f"must be {least} to {longest} characters")
        return value

    def flag(self, name: str) -> bool | None:
        """`true`, `1`, `"1"`, `"true"` and their opposites."""
        value = self._members.get(name)
        if value is None:
            return None
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and value in {0, 1}:
            return value == 1
        if isinstance(value, str) and value in {"0", "1", "true", "false"}:
            return value in {"1", "true"}
        raise self.refuse(name, "must be true or false, or 1 or 0")

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number, or its digits."""
        value = self._members.get(name)
        if value is None:
            return None
        found = integer_in(value)
        if found is None:
            raise self.refuse(name, "must be an integer")
        if not low <= found <= high:
            raise self.refuse(name, f"must be between {low} and {high}")
        return found

    def number(self, name: str, low: Decimal | int, high: Decimal | int) -> Decimal | None:
        """A number, or its digits."""
        value = self._members.get(name)
        if value is None:
            return None
        found = _number_in(value)
        if found is None:
            raise self.refuse(name, "must be a number")
        if not low <= found <= high:
            raise self.refuse(name, f"must be between {low} and {high}")
        return found

    def choice(self, name: str, choices: Sequence[str]) -> str | None:
        """One of some words."""
        value = self._members.get(name)
        if value is None:
            return None
        if value not in choices or not isinstance(value, str):
            raise self.refuse(name, f"must be one of {', '.join(choices)}")
        return value

    def texts(self, name: str, most: int = _MAX_LIST, longest: int = 200) -> tuple[str, ...] | None:
        """A list of texts, without repeats."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, str) and 0 < len(each) <= longest for each in value):
            raise self.refuse(name, f"must be a list of texts of 1 to {longest} characters")
        if len(value) > most:
            raise self.refuse(name, f"must have at most {most} entries")
        if any("\x00" in each for each in value):
            raise self.refuse(name, "must not contain U+0000")
        return tuple(dict.fromkeys(value))

    def object(self, name: str, known: Collection[str]) -> "Fields | None":
        """An object of which every member is known."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.refuse(name, "must be an object")
        return Fields(value, within=self.path(name), known=known)

    def objects(self, name: str, known: Collection[str], most: int = _MAX_LIST) -> list["Fields"] | None:
        """A list of such objects."""
        value = self._members.get(name)
        if value is None:
            return None
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value) or len(value) > most:
            raise self.refuse(name, f"must be a list of at most {most} objects")
        return [Fields(each, within=f"{self.path(name)}[{n}]", known=known) for n, each in enumerate(value)]

    def url(self, name: str, policy: GuardPolicy) -> str | None:
        """An address that the guard lets through."""
        value = self.text(name, 2048)
        if value is None:
            return None
        why = check_at_save(value, policy)
        if why is not None:
            raise self.refuse(name, why)
        return value


def integer_in(value: Any) -> int | None:
    """A whole number, or its digits; None for anything else."""
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return value if abs(value) < _LARGEST else None
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) < _LARGEST else None
    return int(value) if isinstance(value, str) and _INTEGER.fullmatch(value) else None


def _number_in(value: Any) -> Decimal | None:
    if isinstance(value, bool):
        return None
    if isinstance(value, int | float):
        try:
            found = Decimal(str(value))
        except InvalidOperation:
            return None
        return found if found.is_finite() else None
    return Decimal(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else None


def is_absent(value: Any) -> bool:
    """Whether a query parameter or an id was left out, in the ways the client leaves things out."""
    return value is None or (isinstance(value, str) and value in _ABSENT_TEXTS)


def text_of(value: Any) -> str:
    """An id that is a text; what could be none is one that nothing has."""
    return value if isinstance(value, str) and "\x00" not in value else ""


# Bots ---------------------------------------------------------------------------------------------------------------
BOT_OPTIONS: Final = frozenset(
    {
        "provider",
        "fallback_models",
        "credits_per_1k_tokens",
        "runner",
        "tools",
        "approval_tools",
        "telemetry_content",
        "acknowledge_trifecta",
    }
)
_RUNNERS: Final = {
    "builtin": frozenset({"kind"}),
    "http": frozenset({"kind", "url", "secret"}),
    "command": frozenset({"kind", "command"}),
    "pull": frozenset({"kind"}),
}


def bot_of(fields: Fields, policy: GuardPolicy, *, is_new: bool) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of a bot that were sent, and those among its options."""
    if is_new and "name" not in fields:
        raise MissingField("name")
    own = {
        "name": fields.text("name", 200, least=1),
        "model": fields.text("model", 200),
        "instruction": fields.text("instruction", 100_000),
        "max_reply_tokens": fields.integer("max_reply_tokens", 1, 131_072),
        "top": fields.integer("top", -_LARGEST, _LARGEST),
        "is_online": fields.flag("status"),
        "is_scheduling": fields.flag("heartbeat"),
    }
    extra = fields.object("lifesign", BOT_OPTIONS | {"origin"})
    if extra is None:
        return _given(own), {}
    # Who made a bot stays who made it, also for callers who send back what they read.
    return _given(own), _bot_options(extra, policy) | (_origin(extra) if is_new else {})


def _bot_options(fields: Fields, policy: GuardPolicy) -> dict[str, Any]:
    per_1k = fields.number("credits_per_1k_tokens", 0, 10_000)
    return _given(
        {
            "provider": fields.text("provider", 64, least=1),
            "fallback_models": fields.texts("fallback_models", 3),
            "units_per_1k": None if per_1k is None else units_of(per_1k),
            "runner": _runner(fields, policy),
            "tools": _tools(fields, "tools"),
            "approval_tools": _tools(fields, "approval_tools"),
            "telemetry_content": fields.flag("telemetry_content"),
        }
    )


def _origin(fields: Fields) -> dict[str, Any]:
    """Who makes it, in their own word."""
    origin = fields.text("origin", _MAX_ORIGIN, least=1)
    if origin is not None and not origin.isprintable():
        raise fields.refuse("origin", "must be printable, on one line")
    return _given({"origin": origin})


def _runner(fields: Fields, policy: GuardPolicy) -> dict[str, Any] | None:
    found = fields.object("runner", frozenset().union(*_RUNNERS.values()))
    if found is None:
        return None
    kind = found.choice("kind", tuple(_RUNNERS))
    if kind is None:
        raise MissingField(found.path("kind"))
    wrong = next((each for each in ("url", "secret", "command") if each in found and each not in _RUNNERS[kind]), None)
    if wrong is not None:
        raise found.refuse(wrong, f"is not known of a runner of kind {kind}")
    if kind == "http":
        if "url" not in found:
            raise MissingField(found.path("url"))
        return _given({"kind": kind, "url": found.url("url", policy), "secret": _webhook_secret(found)})
    if kind == "command":
        command = found.text("command", 64, least=1)
        if command is None:
            raise MissingField(found.path("command"))
        return {"kind": kind, "command": command}
    return {"kind": kind}


def _webhook_secret(fields: Fields) -> str | None:
    secret = fields.text("secret", 200, least=1)
    if secret is not None and not is_webhook_secret(secret):
        raise fields.refuse("secret", "must be whsec_ and the base64 of 24 to 64 bytes")
    return secret


def _tools(fields: Fields, name: str) -> tuple[str, ...] | None:
    tools = fields.texts(name)
    for tool in tools or ():
        if tool not in CATALOGUE and parted(tool) is None:
            known = ", ".join(sorted(CATALOGUE))
            raise fields.refuse(name, f"unknown tool {tool[:100]!r}; there are {known}, and mcp:<server>/<tool>")
    return tools


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


# Schedules ----------------------------------------------------------------------------------------------------------
SCHEDULE_OPTIONS: Final = frozenset(
    {
        "jitter_seconds",
        "overlap",
        "catch_up",
        "catch_up_window_seconds",
        "session",
        "limits",
        "notify",
        "precheck",
        "tools",
        "approval",
        "retry_lost",
        "watch",
    }
)
_LIMITS: Final = {
    "timeout_seconds": (10, 3600),
    "max_requests": (1, 200),
    "max_tool_calls": (0, 500),
    "max_output_tokens": (1, 131_072),
}
CREDIT_LIMITS: Final = {"max_credits_per_run": "max_units_per_run", "min_run_credits": "min_run_units"}
_NOTIFY: Final = ("mode", "channels", "cooldown_seconds")


def prompt_of(fields: Fields, *, is_required: bool) -> str | None:
    """The prompt, trimmed."""
    if "prompt" not in fields:
        if is_required:
            raise MissingField("prompt")
        return None
    return fields.text("prompt", MAX_PROMPT, least=1)


def member_ref(fields: Fields) -> str | int | None:
    """A member: its id, its number, or what the caller calls it."""
    value = fields.raw("member_id")
    if value is None or value == "":
        return None
    found = integer_in(value)
    if found is not None and 0 <= found < _LARGEST:
        return found
    if not isinstance(value, str):
        raise fields.refuse("member_id", "must be 1 to 128 characters, or an integer")
    return fields.text("member_id", 128, least=1)


def schedule_of(fields: Fields, policy: GuardPolicy) -> tuple[dict[str, Any], dict[str, Any]]:
    """What was sent of a schedule besides prompt, member and timing: fields, and options."""
    own = _given(
        {"is_enabled": fields.flag("enabled"), "max_errors": fields.integer("max_consecutive_errors", 0, 1000)}
    )
    if "credit_budget" in fields:
        budget = fields.number("credit_budget", 0, 10**9)
        own["budget"] = None if budget is None else units_of(budget)
    elif fields.is_null("credit_budget"):
        own["budget"] = None
    extra = fields.object("lifesign", SCHEDULE_OPTIONS | {"origin"})
    return own, {} if extra is None else _schedule_options(extra, policy) | _origin(extra)


def _schedule_options(fields: Fields, policy: GuardPolicy) -> dict[str, Any]:
    found = _given(
        {
            "jitter_seconds": fields.integer("jitter_seconds", 0, 3600),
            "overlap": fields.choice("overlap", ("skip", "queue_one", "cancel_previous")),
            "catch_up": fields.choice("catch_up", ("skip", "one", "all")),
            "catch_up_window_seconds": fields.integer("catch_up_window_seconds", 60, 604_800),
            "session": fields.choice("session", ("day", "run")),
            "approval": fields.choice("approval", ("deny", "park")),
            "retry_lost": fields.flag("retry_lost"),
            "limits": _limits(fields),
            "notify": _notify(fields),
            "precheck": _precheck(fields, policy),
            "tools": _tools(fields, "tools"),
            "watch": _watch(fields),
        }
    )
    # What may be unset again.
    return found | {
        name: None for name in ("tools", "precheck", "watch", "catch_up_window_seconds") if fields.is_null(name)
    }


def _limits(fields: Fields) -> dict[str, Any] | None:
    """Limits that were sent; None for one that shall be as usual again."""
    found = fields.object("limits", {*_LIMITS, *CREDIT_LIMITS})
    if found is None:
        return None
    whole = {name: found.integer(name, low, high) for name, (low, high) in _LIMITS.items()}
    credit = {name: found.number(name, Decimal("0.0001"), 1_000_000) for name in CREDIT_LIMITS}
    units = {CREDIT_LIMITS[name]: None if value is None else units_of(value) for name, value in credit.items()}
    unset = {CREDIT_LIMITS.get(name, name): None for name in (*_LIMITS, *CREDIT_LIMITS) if found.is_null(name)}
    return _given(whole | units) | unset


def _notify(fields: Fields) -> dict[str, Any] | None:
    """What was sent of notices; None for what shall be as usual, or as the project has it, again."""
    found = fields.object("notify", _NOTIFY)
    if found is None:
        return None
    given = {
        "mode": found.choice("mode", ("always", "noteworthy", "errors", "never")),
        "channels": found.texts("channels", 20),
        "cooldown_seconds": found.integer("cooldown_seconds", 0, 604_800),
    }
    return _given(given) | {name: None for name in _NOTIFY if found.is_null(name)}


def _precheck(fields: Fields, policy: GuardPolicy) -> dict[str, Any] | None:
    found = fields.object("precheck", {"url", "on_error"})
    if found is None:
        return None
    if "url" not in found:
        raise MissingField(found.path("url"))
    return {"url": found.url("url", policy), "on_error": found.choice("on_error", ("run", "error")) or "run"}


def _watch(fields: Fields) -> dict[str, Any] | None:
    found = fields.object("watch", {"policy", "grace_seconds", "errors"})
    if found is None:
        return None
    if "policy" not in found:
        raise MissingField(found.path("policy"))
    grace = found.integer("grace_seconds", 0, 86_400)
    return {
        "policy": found.text("policy", 64, least=1),
        "grace_seconds": 300 if grace is None else grace,
        "errors": bool(found.flag("errors")),
    }


# Timing -------------------------------------------------------------------------------------------------------------
def has_timing(fields: Fields) -> bool:
    """Whether anything about timing was sent."""
    names = ("interval_minutes", "cron_pattern", "timezone", *_WINDOW_FIELDS)
    return any(name in fields or (name in _WINDOW_FIELDS and fields.is_null(name)) for name in names)


def timing_of(fields: Fields, present: Timing | None, now: EpochMs) -> Timing:
    """The timing that was sent, the rest as it is, or as it is usual. Raises InvalidField."""
    zone = fields.text("timezone", 64)
    if zone is not None and not schedule.is_timezone(zone):
        raise fields.refuse("timezone", f"unknown time zone {zone!r}")
    zone = zone or (present.timezone if present else "UTC")
    minutes = fields.integer("interval_minutes", 1, MAX_INTERVAL_MINUTES)
    cron = fields.text("cron_pattern", 200)
    window_field = next((name for name in _WINDOW_FIELDS if name in fields), None)
    if cron is not None and minutes is not None:
        raise fields.refuse("cron_pattern", "give either cron_pattern or interval_minutes")
    was_cron = present.cron if present and minutes is None else None
    pattern = was_cron if cron is None else cron
    if pattern is not None and window_field is not None:
        raise fields.refuse(window_field, "active hours belong to interval schedules")
    if pattern is not None:
        return Timing(cron=_cron(fields, pattern, zone, now), timezone=zone)
    usual = present if present is not None and present.cron is None else Timing(30)
    start, end = _hours(fields, usual)
    made = Timing(minutes or usual.interval_minutes, None, zone, start, end, _days(fields, usual))
    try:
        timing.next_slot(made, now)
    except BadSchedule as error:
        raise fields.refuse("active_hours_start", error.reason) from error
    return made


def _cron(fields: Fields, pattern: str, zone: str, now: EpochMs) -> str:
    try:
        return timing.cron_of(pattern, zone, now)
    except BadSchedule as error:
        raise fields.refuse("cron_pattern", error.reason) from error


def _hours(fields: Fields, usual: Timing) -> tuple[int | None, int | None]:
    names = _WINDOW_FIELDS[:2]
    if not any(name in fields or fields.is_null(name) for name in names):
        return usual.window_start, usual.window_end
    missing = [name for name in names if name not in fields]
    if len(missing) == len(names):
        if all(fields.is_null(name) for name in names):
            return None, None
        # One null alone, as the client repeats what is unset: nothing changes where nothing is set.
        if usual.window_start is None:
            return None, None
    if missing:
        raise fields.refuse(missing[0], "active_hours_start and active_hours_end go together")
    start, end = (timing.minutes_of(value) if isinstance(value := fields.raw(name), str) else None for name in names)
    if start is None or start == timing.minutes_of("24:00"):
        raise fields.refuse(names[0], "must be HH:MM, from 00:00 to 23:59")
    if end is None:
        raise fields.refuse(names[1], "must be HH:MM, from 00:00 to 24:00")
    if start == end:
        raise fields.refuse(names[1], "must differ from active_hours_start")
    return start, end


def _days(fields: Fields, usual: Timing) -> tuple[int, ...]:
    if fields.is_null("active_days"):
        return ()
    if "active_days" not in fields:
        return usual.days
    value = fields.raw("active_days")
    days = timing.days_of(value) if isinstance(value, str) else None
    if days is None:
        raise fields.refuse("active_days", "must be numbers from 1 (Monday) to 7, comma-separated, none of them twice")
    return days


def after_of(fields: Fields, now: EpochMs) -> EpochMs:
    """From when on a preview looks."""
    value = fields.raw("after")
    if value is None:
        return now
    try:
        found = parse_timestamp(value)
    except ValueError as error:
        raise fields.refuse("after", str(error)) from error
    if not _FIRST_AFTER <= found < _LAST_AFTER:
        # Slots of centuries later must have a date, in every zone.
        raise fields.refuse("after", "must be from 1970 to 8999")
    return found


# Settings -----------------------------------------------------------------------------------------------------------
ADMIN_SETTINGS: Final = frozenset({"plan", "prices", "max_concurrent_runs", "max_runs_per_hour"})
_PRICE_FIELDS: Final = ("input_usd_per_million", "output_usd_per_million", "cached_input_usd_per_million")


def settings_of(fields: Fields, policy: GuardPolicy) -> dict[str, Any]:
    """The settings that were sent."""
    zone = fields.text("billing_timezone", 64)
    if zone is not None and not schedule.is_timezone(zone):
        raise fields.refuse("billing_timezone", f"unknown time zone {zone!r}")
    found = _given(
        {
            "plan": fields.choice("plan", tuple(PLANS)),
            "prices": _prices(fields),
            "max_concurrent_runs": fields.integer("max_concurrent_runs", 1, 1000),
            "max_runs_per_hour": fields.integer("max_runs_per_hour", 1, 1_000_000),
            "default_model": fields.text("default_model", 200, least=1),
            "providers": _providers(fields, policy),
            "mcp_servers": _mcp_servers(fields, policy),
            "budget_period": fields.choice("budget_period", PERIOD_KINDS),
            "billing_timezone": zone,
            "notify_channels": fields.texts("notify_channels", 20),
        }
    )
    return found | ({"default_model": None} if fields.is_null("default_model") else {})


def _prices(fields: Fields) -> tuple[dict[str, Any], ...] | None:
    entries = fields.objects("prices", {"model", *_PRICE_FIELDS}, most=1000)
    if entries is None:
        return None
    return _distinct(fields, "prices", [_price(each) for each in entries], "model")


def _price(fields: Fields) -> dict[str, Any]:
    model = fields.text("model", 200, least=1)
    if model is None:
        raise MissingField(fields.path("model"))
    found: dict[str, Any] = {"model": model}
    for name in _PRICE_FIELDS:
        usd = fields.number(name, 0, 1_000_000)
        if usd is not None:
            found[name] = str(usd)
        elif not name.startswith("cached"):
            raise MissingField(fields.path(name))
    return found


def _providers(fields: Fields, policy: GuardPolicy) -> tuple[dict[str, Any], ...] | None:
    entries = fields.objects("providers", {"name", "kind", "base_url", "api_key"}, most=20)
    if entries is None:
        return None
    return _distinct(fields, "providers", [_provider(each, policy) for each in entries], "name")


def _provider(fields: Fields, policy: GuardPolicy) -> dict[str, Any]:
    name, kind = fields.text("name", 64, least=1), fields.choice("kind", ("openai", "anthropic"))
    if name is None or kind is None:
        raise MissingField(fields.path("name" if name is None else "kind"))
    if _NAME.fullmatch(name) is None or name == "default":
        raise fields.refuse("name", "must be 1 to 64 letters, digits, '.', '_' and '-', and not default")
    base = fields.url("base_url", policy)
    return _given({"name": name, "kind": kind, "base_url": base, "api_key": fields.text("api_key", 1000, least=1)})


def _mcp_servers(fields: Fields, policy: GuardPolicy) -> tuple[dict[str, Any], ...] | None:
    entries = fields.objects("mcp_servers", {"name", "url", "headers", "labels"}, most=20)
    if entries is None:
        return None
    return _distinct(fields, "mcp_servers", [_mcp_server(each, policy) for each in entries], "name")


def _mcp_server(fields: Fields, policy: GuardPolicy) -> dict[str, Any]:
    name, url = fields.text("name", 64, least=1), fields.url("url", policy)
    if name is None or url is None:
        raise MissingField(fields.path("name" if name is None else "url"))
    if _NAME.fullmatch(name) is None:
        raise fields.refuse("name", "must be 1 to 64 letters, digits, '.', '_' and '-'")
    labels = fields.texts("labels")
    unknown = next((each for each in labels or () if each not in LABELS), None)
    if unknown is not None:
        raise fields.refuse("labels", f"unknown label {unknown[:100]!r}; there are {', '.join(LABELS)}")
    return _given({"name": name, "url": url, "headers": _headers(fields), "labels": labels})


def _headers(fields: Fields) -> dict[str, str] | None:
    told = fields.raw("headers")
    if told is None:
        return None
    if not isinstance(told, dict) or len(told) > _MAX_HEADERS:
        raise fields.refuse("headers", f"must be an object of at most {_MAX_HEADERS} texts")
    for name, value in told.items():
        if _HEADER.fullmatch(name) is None or name.lower() in _OWN_HEADERS:
            raise fields.refuse("headers", f"{name[:100]!r} cannot be set")
        if not isinstance(value, str) or not _HEADER_VALUE.fullmatch(value):
            raise fields.refuse("headers", f"{name[:100]} must be a text of at most 2,000 printable characters")
    return dict(told)


def _distinct(fields: Fields, name: str, entries: list[dict[str, Any]], key: str) -> tuple[dict[str, Any], ...]:
    seen: set[str] = set()
    for n, each in enumerate(entries):
        if each[key] in seen:
            raise fields.refuse(f"{name}[{n}].{key}", "stands in the list already")
        seen.add(each[key])
    return tuple(entries)
