"""`lifesign bots schedule`: when bots run, and with which prompts."""

from typing import Annotated

import typer

from lifesign.cli import options, output, values
from lifesign.cli.bot_api import MAX_SCHEDULES, BotsApi, Project, Reference, fields_of
from lifesign.cli.errors import WrongUsage
from lifesign.cli.numbers import finite
from lifesign.cli.output import print_fields, print_json, print_rows, relative
from lifesign.cli.values import Json, given

app = typer.Typer(help="When bots run, and with which prompts.", no_args_is_help=True)

_PROMPT_SHOWN = 40

ScheduleId = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Id of the schedule, sch_...")]


@app.command("create")
def create_schedule(
    *,
    bot: Reference,
    prompt: Annotated[str, typer.Argument(metavar="PROMPT", help="What it is asked each time; @FILE reads a file.")],
    every: Annotated[
        str | None, typer.Option("--every", metavar="DURATION", help="Between its runs: 30m, 2h, 1d; whole minutes.")
    ] = None,
    cron: Annotated[str | None, typer.Option("--cron", metavar="PATTERN", help="Five fields, or @daily.")] = None,
    timezone: Annotated[str | None, typer.Option("--timezone", help="Of IANA; UTC when not given.")] = None,
    hours: Annotated[
        str | None, typer.Option("--hours", metavar="FROM-TO", help="Only within these hours: 09:00-17:00.")
    ] = None,
    days: Annotated[str | None, typer.Option("--days", help="Only on these days: 1,2,3; 1 is Monday.")] = None,
    budget: Annotated[float | None, typer.Option("--budget", min=0, callback=finite, help="Credits a period.")] = None,
    member: Annotated[str | None, typer.Option("--member", metavar="ID", help="The subscriber it is for.")] = None,
    is_enabled: Annotated[bool, typer.Option("--enable/--no-enable", help="Whether it runs from now on.")] = True,
    tells: Annotated[
        str | None,
        typer.Option(
            "--tell", metavar="CHANNELS", help="Ids with commas, none, or project: the channels of its settings."
        ),
    ] = None,
    more: Annotated[
        str | None,
        typer.Option("--options", metavar="JSON", help="Jitter, overlap and the like, as `lifesign` of the API."),
    ] = None,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Make a schedule, or change the one of the same bot, member and prompt."""
    if prompt.startswith("@"):
        prompt = values.file_text(prompt[1:], "PROMPT")
    start, end = _hours(hours)
    body = given(
        bot_id=bot,
        prompt=prompt,
        interval_minutes=None if every is None else _minutes(every),
        cron_pattern=cron,
        timezone=timezone,
        active_hours_start=start,
        active_hours_end=end,
        active_days=days,
        credit_budget=budget,
        member_id=member,
        enabled=is_enabled,
        lifesign=_options(more, tells),
    )
    _show(BotsApi(url, key, project).post("/heartbeat/configure", body), as_json=as_json)


def _options(more: str | None, tells: str | None) -> dict[str, Json] | None:
    found = None if more is None else values.json_object(more, "--options")
    if tells is None:
        return found
    notify = (found or {}).get("notify") or {}
    if not isinstance(notify, dict) or "channels" in notify:
        raise WrongUsage("give the channels either with --tell or as notify.channels of --options")
    named = tells.replace(",", " ").split()
    if not named:
        raise WrongUsage("--tell: names no channel; write none for nobody, or project for what the project has")
    # null: what the project has; a list: these and no others.
    chosen = None if named == ["project"] else [] if named == ["none"] else named
    return (found or {}) | {"notify": notify | {"channels": chosen}}


def _minutes(text: str) -> int:
    minutes, rest = divmod(values.seconds(text, "--every"), 60)
    if rest or not minutes:
        raise WrongUsage(f"--every: {text} is no number of whole minutes; write for example 30m")
    return minutes


def _hours(text: str | None) -> tuple[str | None, str | None]:
    if text is None:
        return None, None
    start, dash, end = text.partition("-")
    if not dash:
        raise WrongUsage(f"--hours: {text!r} has no end; write for example 09:00-17:00")
    return start.strip(), end.strip()


@app.command("list")
def list_schedules(
    *,
    bot: Reference,
    member: Annotated[str | None, typer.Option("--member", metavar="ID", help="Of this subscriber only.")] = None,
    limit: options.Limit = None,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List the schedules of a bot in the order in which they were made."""
    api = BotsApi(url, key, project)
    found = api.rows("/heartbeat/readall", "heartbeats", limit, most=MAX_SCHEDULES, bot_id=bot, member_id=member)
    if as_json:
        print_json(found)
        return
    columns: list[output.Column] = [
        ("enabled", lambda row: "yes" if row["enabled"] else "no"),
        ("when", _when),
        ("next run", lambda row: relative(row["lifesign"]["next_run_at"])),
        ("last", lambda row: row["last_status"]),
        ("errors", lambda row: row["error_count"] or None),
        ("credits", lambda row: row["credits_used"] or None),
        ("prompt", lambda row: " ".join(row["prompt"].split())[:_PROMPT_SHOWN]),
        ("id", lambda row: row["uuid"]),
    ]
    print_rows(found["heartbeats"], columns, empty="no schedules; make one: lifesign bots schedule create BOT PROMPT")
    if "next_cursor" in found:
        output.tell_more({"nextCursor": found["next_cursor"]})


def _when(row: dict[str, Json]) -> str:
    if row["cron_pattern"]:
        return f"{row['cron_pattern']} {row['timezone']}"
    hours = f" {row['active_hours_start']}-{row['active_hours_end']}" if row["active_hours_start"] else ""
    days = f" on {row['active_days']}" if row["active_days"] else ""
    zone = f" {row['timezone']}" if hours or days else ""
    return f"every {output.short_span(row['interval_minutes'] * 60)}{hours}{days}{zone}"


@app.command("show")
def show_schedule(
    *,
    bot: Reference,
    schedule: ScheduleId,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show a schedule, with its next runs."""
    told = BotsApi(url, key, project).get("/heartbeat/read", bot_id=bot, heartbeat_id=schedule)
    _show(told, as_json=as_json)


def _show(told: dict[str, Json], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
        return
    found = told["heartbeat"]
    own = found["lifesign"]
    print_fields(
        [
            ("id", found["uuid"]),
            ("enabled", "yes" if found["enabled"] else "no"),
            ("when", _when(found)),
            ("prompt", found["prompt"]),
            ("runs", found["execution_count"]),
            ("last", found["last_status"]),
            ("budget", found["credit_budget"]),
            ("credits used", found["credits_used"]),
            *((name.replace("_", " "), value) for name, value in fields_of(own)),
        ]
    )


@app.command("enable")
def enable_schedule(
    *,
    bot: Reference,
    schedule: ScheduleId,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Let a schedule run; one that was paused begins anew."""
    body: dict[str, Json] = {"bot_id": bot, "heartbeat_id": schedule}
    _show(BotsApi(url, key, project).post("/heartbeat/enable", body), as_json=as_json)


@app.command("disable")
def disable_schedule(
    *,
    bot: Reference,
    schedule: ScheduleId,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Let a schedule rest; a run that goes on finishes."""
    body: dict[str, Json] = {"bot_id": bot, "heartbeat_id": schedule}
    _show(BotsApi(url, key, project).post("/heartbeat/disable", body), as_json=as_json)


@app.command("delete")
def delete_schedule(
    *,
    bot: Reference,
    schedule: ScheduleId,
    project: Project = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Delete a schedule; its runs are cancelled, its logs stay."""
    BotsApi(url, key, project).delete("/heartbeat/delete", bot_id=bot, heartbeat_id=schedule)
    print(f"deleted {schedule}")
