"""What people type about bots and schedules, as the bodies of the API would have it, and back. Pure."""

from collections.abc import Mapping
from typing import Any, Final

from lifesign.bots import timing
from lifesign.bots.budget import credits_of
from lifesign.bots.records import Bot, ProjectSettings, Schedule
from lifesign.bots.rules import BotsRefusal
from lifesign.bots.timing import Timing

BOT_FIELDS: Final = (
    *("name", "model", "instruction", "max_reply_tokens", "provider", "fallback_models", "credits_per_1k_tokens"),
    *("runner", "url", "command", "tools", "approval_tools", "status", "heartbeat", "telemetry_content"),
)
_SWITCHES: Final = ("status", "heartbeat", "telemetry_content")
SCHEDULE_FIELDS: Final = (
    *("prompt", "when", "interval_minutes", "active_hours_start", "active_hours_end", "active_days", "cron_pattern"),
    *("timezone", "enabled", "credit_budget", "max_consecutive_errors", "overlap", "catch_up", "session", "approval"),
    *("jitter_seconds", "mode", "timeout_seconds", "max_credits_per_run", "policy", "errors"),
    *("member_id", "catch_up_window_seconds", "retry_lost", "max_requests", "max_tool_calls", "max_output_tokens"),
    *("min_run_credits", "tells", "channels", "cooldown_seconds", "url", "on_error", "tools", "grace_seconds"),
)
_WHOLE_LIMITS: Final = ("timeout_seconds", "max_requests", "max_tool_calls", "max_output_tokens")
_CREDIT_LIMITS: Final = {"max_credits_per_run": "max_units_per_run", "min_run_credits": "min_run_units"}
_NO_TOOLS: Final = "none"
_PROJECT: Final = "project"
SETTING_FIELDS: Final = (
    *("plan", "budget_period", "billing_timezone", "default_model", "max_concurrent_runs", "max_runs_per_hour"),
    "notify_channels",
)
NEW_BOT: Final[Mapping[str, str]] = dict.fromkeys(BOT_FIELDS, "") | {
    "provider": "default",
    "credits_per_1k_tokens": "1",
    "runner": "builtin",
    "status": "on",
    "heartbeat": "on",
}
NEW_SCHEDULE: Final[Mapping[str, str]] = dict.fromkeys(SCHEDULE_FIELDS, "") | {
    "when": "interval",
    "interval_minutes": "30",
    "timezone": "UTC",
    "enabled": "on",
    "max_consecutive_errors": "5",
    "overlap": "skip",
    "catch_up": "one",
    "session": "day",
    "approval": "deny",
    "jitter_seconds": "0",
    "mode": "noteworthy",
    "tells": _PROJECT,
    "on_error": "run",
}


# Bots ---------------------------------------------------------------------------------------------------------------
def bot_body(typed: Mapping[str, str]) -> dict[str, Any]:
    """The body that makes or changes a bot. Any, here and below: JSON."""
    runner = {"kind": typed["runner"]}
    if typed["runner"] in {"http", "command"}:
        name = "url" if typed["runner"] == "http" else "command"
        runner |= {name: typed[name]} if typed[name] else {}
    own: dict[str, Any] = {
        "provider": typed["provider"] or "default",
        "fallback_models": _words(typed["fallback_models"]),
        "tools": _words(typed["tools"]),
        "approval_tools": _words(typed["approval_tools"]),
        "runner": runner,
        "telemetry_content": bool(typed["telemetry_content"]),
        "credits_per_1k_tokens": typed["credits_per_1k_tokens"] or None,
    }
    return {
        "name": typed["name"] or None,
        "instruction": typed["instruction"] or None,
        # Empty: for a new bot the project's own model.
        "model": typed["model"] or None,
        "max_reply_tokens": typed["max_reply_tokens"] or None,
        "status": bool(typed["status"]),
        "heartbeat": bool(typed["heartbeat"]),
        "lifesign": own,
    }


def bot_changes(typed: Mapping[str, str]) -> dict[str, Any]:
    """As `bot_body` for a bot that exists: an instruction that is blank is taken away."""
    return bot_body(typed) | {"instruction": typed["instruction"]}


def bot_typed(bot: Bot) -> dict[str, str]:
    """The fields of the form from what a bot is."""
    options = bot.options
    switches = {"status": bot.is_online, "heartbeat": bot.is_scheduling, "telemetry_content": options.telemetry_content}
    return {
        "name": bot.name,
        "model": bot.model or "",
        "instruction": bot.instruction or "",
        "max_reply_tokens": _text(bot.max_reply_tokens),
        "provider": options.provider,
        "fallback_models": " ".join(options.fallback_models),
        "credits_per_1k_tokens": _text(credits_of(options.units_per_1k)),
        "runner": options.runner["kind"],
        "url": options.runner.get("url", ""),
        "command": options.runner.get("command", ""),
        "tools": " ".join(options.tools),
        "approval_tools": " ".join(options.approval_tools),
        **{name: "on" if switches[name] else "" for name in _SWITCHES},
    }


# Schedules ----------------------------------------------------------------------------------------------------------
def timing_body(typed: Mapping[str, str]) -> dict[str, Any]:
    """The timing alone; what belongs to the other kind may have been typed before it was chosen."""
    zone = {"timezone": typed["timezone"] or "UTC"}
    if typed["when"] == "cron":
        # Blank is refused as the pattern that it is.
        return zone | {"cron_pattern": typed["cron_pattern"] or " "}
    hours = ("active_hours_start", "active_hours_end", "active_days")
    return (
        zone | {"interval_minutes": typed["interval_minutes"] or "30"} | {name: typed[name] or None for name in hours}
    )


def schedule_body(typed: Mapping[str, str], present: Schedule | None) -> dict[str, Any]:
    """The body that makes a schedule, or changes the one that is there; what no field is for stays."""
    # Blank: as usual.
    limits = {name: typed[name] or None for name in (*_WHOLE_LIMITS, *_CREDIT_LIMITS)}
    own: dict[str, Any] = {
        name: typed[name] or None for name in ("overlap", "catch_up", "session", "approval", "jitter_seconds")
    }
    own |= {
        "limits": limits,
        "notify": _notify(typed),
        "retry_lost": bool(typed["retry_lost"]),
        "catch_up_window_seconds": typed["catch_up_window_seconds"] or None,
        "precheck": {"url": typed["url"], "on_error": typed["on_error"] or None} if typed["url"] else None,
        # Blank: all that the bot has.
        "tools": [] if typed["tools"] == _NO_TOOLS else _words(typed["tools"]) or None,
        "watch": None,
    }
    if typed["policy"]:
        grace = typed["grace_seconds"] or None
        own["watch"] = {"policy": typed["policy"], "grace_seconds": grace, "errors": bool(typed["errors"])}
    return {
        "prompt": typed["prompt"] or None,
        **timing_body(typed),
        "enabled": bool(typed["enabled"]),
        "credit_budget": typed["credit_budget"] or None,
        "max_consecutive_errors": typed["max_consecutive_errors"] or None,
        "lifesign": own,
        # Whose it is stays.
        **({"member_id": typed["member_id"] or None} if present is None else {"uuid": present.id}),
    }


def _notify(typed: Mapping[str, str]) -> dict[str, Any]:
    """Who is told of what; what is as usual is not kept, so that a schedule follows its project."""
    chosen = typed["channels"].split()
    follows = typed["tells"] == _PROJECT or (not typed["tells"] and not chosen)
    return {
        "mode": None if typed["mode"] in {"", NEW_SCHEDULE["mode"]} else typed["mode"],
        "channels": None if follows else chosen,
        "cooldown_seconds": typed["cooldown_seconds"] or None,
    }


def schedule_typed(schedule: Schedule) -> dict[str, str]:
    """The fields of the form from what a schedule is."""
    when, options = schedule.timing, schedule.options
    watch, precheck = options.watch or {}, options.precheck or {}
    return {
        "prompt": schedule.prompt,
        "when": "interval" if when.cron is None else "cron",
        "interval_minutes": _text(when.interval_minutes),
        "active_hours_start": "" if when.window_start is None else timing.time_of(when.window_start),
        "active_hours_end": "" if when.window_end is None else timing.time_of(when.window_end),
        "active_days": ",".join(str(each) for each in when.days),
        "cron_pattern": when.cron or "",
        "timezone": when.timezone,
        "enabled": "on" if schedule.is_enabled else "",
        "credit_budget": "" if schedule.budget is None else _text(credits_of(schedule.budget)),
        "max_consecutive_errors": _text(schedule.max_errors),
        "overlap": options.overlap,
        "catch_up": options.catch_up,
        "session": options.session,
        "approval": options.approval,
        "jitter_seconds": _text(options.jitter_seconds),
        "mode": options.notify.get("mode", "noteworthy"),
        **{name: _text(options.limits.get(name)) for name in _WHOLE_LIMITS},
        **{name: _credits(options.limits.get(kept)) for name, kept in _CREDIT_LIMITS.items()},
        "policy": watch.get("policy", ""),
        "grace_seconds": _text(watch.get("grace_seconds")),
        "errors": "on" if watch.get("errors") else "",
        "member_id": schedule.member_id,
        "catch_up_window_seconds": _text(options.catch_up_window_seconds),
        "retry_lost": "on" if options.retry_lost else "",
        "tells": "own" if "channels" in options.notify else _PROJECT,
        "channels": " ".join(options.notify.get("channels", ())),
        "cooldown_seconds": _text(options.notify.get("cooldown_seconds")),
        "url": precheck.get("url", ""),
        "on_error": precheck.get("on_error", "run"),
        "tools": _NO_TOOLS if options.tools == () else " ".join(options.tools or ()),
    }


def in_words(when: Timing) -> str:
    """When a schedule runs."""
    if when.cron is not None:
        return f"by cron {when.cron}, {when.timezone}"
    minutes = when.interval_minutes or 0
    told = f"every {minutes} min" if minutes % 60 else f"every {minutes // 60} h"
    if when.window_start is not None and when.window_end is not None:
        told += f", {timing.time_of(when.window_start)} to {timing.time_of(when.window_end)}"
    if when.days:
        told += ", " + " ".join(_DAYS[each - 1] for each in when.days)
    return f"{told}, {when.timezone}"


_DAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


# Settings -----------------------------------------------------------------------------------------------------------
def settings_body(typed: Mapping[str, str]) -> dict[str, Any]:
    """The body that changes the settings of a project's bots; a number that is blank stays as it is."""
    return {name: typed[name] for name in SETTING_FIELDS if typed[name]} | {
        "default_model": typed["default_model"] or None,
        "notify_channels": typed["notify_channels"].split(),
    }


def settings_typed(settings: ProjectSettings) -> dict[str, str]:
    """The fields of the form from what the settings are."""
    options = settings.options
    return {
        "plan": settings.plan,
        "budget_period": options.budget_period,
        "billing_timezone": options.billing_timezone,
        "default_model": options.default_model or "",
        "max_concurrent_runs": _text(options.max_concurrent_runs),
        "max_runs_per_hour": _text(options.max_runs_per_hour),
        "notify_channels": " ".join(options.notify_channels),
    }


# Faults -------------------------------------------------------------------------------------------------------------
def faults_of(error: BotsRefusal, fields: tuple[str, ...]) -> dict[str, str]:
    """What is wrong, by the field of the form; what none of them has stands under the empty name."""
    path = getattr(error, "field", "")
    name = path.rpartition(".")[2].partition("[")[0]
    text = str(error)
    if name in fields and text.startswith(f"{path}: "):
        return {name: text.removeprefix(f"{path}: ")}
    if name in fields and text.startswith(path):
        return {name: text.removeprefix(path).strip()}
    return {"": text}


def _words(text: str) -> list[str]:
    return text.replace(",", " ").split()


def _credits(units: int | None) -> str:
    return "" if units is None else _text(credits_of(units))


def _text(value: float | None) -> str:
    return "" if value is None else str(value)
