"""`lifesign runs`: runs of bots, started, looked at, followed, cancelled, approved."""

import time
from typing import Annotated

import typer

from lifesign.cli import options, output
from lifesign.cli.bot_api import MAX_PAGE, BotsApi, Project, Reference, fields_of
from lifesign.cli.bot_schedules import ScheduleId
from lifesign.cli.errors import CommandFailed
from lifesign.cli.output import print_fields, print_json, print_rows, relative, safe
from lifesign.cli.values import Json

app = typer.Typer(help="Runs of bots.", no_args_is_help=True)

_LOOK_S = 1.0
_GOING_ON = frozenset({"queued", "running"})
_ANSWER_SHOWN = 60

RunId = Annotated[str, typer.Argument(metavar="RUN", help="Id of the run, run_...")]


@app.command("trigger")
def trigger(
    *,
    bot: Reference,
    schedule: ScheduleId,
    is_followed: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the run to its end.")] = True,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Run a schedule now, and print what is said as it comes; 1 unless it is a success."""
    api = BotsApi(url, key, project)
    body: dict[str, Json] = {"bot_id": bot, "heartbeat_id": schedule}
    told = api.post("/heartbeat/trigger", body, **{"async": "true"})
    if not is_followed:
        if as_json:
            print_json(told)
        else:
            print(told["run"]["uuid"])
        return
    _follow(api, told["run"]["uuid"], as_json=as_json)


def _follow(api: BotsApi, run_id: str, *, as_json: bool) -> None:
    """Print a run's transcript as it grows, and how it ended; with JSON only the end. Raises CommandFailed."""
    shown = 0
    while True:
        run = api.get("/heartbeat/run", run_id=run_id)["run"]
        if not as_json:
            shown = _print_more(api, run_id, shown)
        if run["status"] not in _GOING_ON:
            break
        time.sleep(_LOOK_S)
    if as_json:
        print_json({"run": run})
    else:
        _print_run(run)
    if run["status"] != "success":
        raise CommandFailed(f"the run ended as {run['status']}: {run['error_message'] or run['lifesign']['reason']}")


def _print_more(api: BotsApi, run_id: str, shown: int) -> int:
    """Print what was said since; how much there is now."""
    entries = api.get("/heartbeat/transcript", run_id=run_id)["transcript"]
    for entry in entries[shown:]:
        print(f"[{entry['role']}] {safe(entry['content'])}", flush=True)
    return len(entries)


@app.command("list")
def list_runs(
    *,
    bot: Reference,
    schedule: Annotated[str | None, typer.Option("--schedule", metavar="ID", help="Of this schedule only.")] = None,
    status: Annotated[
        str | None, typer.Option("--status", help="success, error, skipped, cancelled, queued, running, ...")
    ] = None,
    limit: options.NewestLimit = 20,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List the runs of a bot that ended, the newest first; with --status also those that go on."""
    api = BotsApi(url, key, project)
    found = api.rows("/heartbeat/logs", "logs", limit, most=MAX_PAGE, bot_id=bot, heartbeat_id=schedule, status=status)
    if as_json:
        print_json(found)
        return
    columns: list[output.Column] = [
        ("status", lambda row: row["status"]),
        ("reason", lambda row: row["lifesign"]["reason"]),
        ("type", lambda row: row["type"]),
        ("times", lambda row: row["lifesign"]["count"] if row["lifesign"]["count"] > 1 else None),
        ("when", lambda row: relative(row["created_at"])),
        ("credits", lambda row: row["credits_charged"] or None),
        ("answer", lambda row: " ".join((row["response"] or row["error_message"] or "").split())[:_ANSWER_SHOWN]),
        ("id", lambda row: row["uuid"]),
    ]
    print_rows(found["logs"], columns, empty="no runs")
    if "next_cursor" in found:
        output.tell_more({"nextCursor": found["next_cursor"]})


@app.command("show")
def show_run(
    *,
    run: RunId,
    is_followed: Annotated[bool, typer.Option("--follow", help="Print what is said until it ends.")] = False,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show a run."""
    api = BotsApi(url, key, project)
    if is_followed:
        _follow(api, run, as_json=as_json)
        return
    _show(api.get("/heartbeat/run", run_id=run), as_json=as_json)


def _show(told: dict[str, Json], *, as_json: bool) -> None:
    if as_json:
        print_json(told)
    else:
        _print_run(told["run"])


def _print_run(run: dict[str, Json]) -> None:
    print_fields(
        [
            ("id", run["uuid"]),
            ("status", run["status"]),
            ("answer", run["response"]),
            ("error", run["error_message"]),
            ("tokens", run["tokens_used"]),
            ("credits", run["credits_charged"]),
            ("took ms", run["duration_ms"]),
            *((name.replace("_", " "), value) for name, value in fields_of(run["lifesign"])),
        ]
    )


@app.command("cancel")
def cancel_run(
    *,
    run: RunId,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """End a run: one that waits at once, one that goes on within five seconds."""
    _show(BotsApi(url, key, project).post("/heartbeat/cancel", {"run_id": run}), as_json=as_json)


@app.command("approve")
def approve_run(
    *,
    run: RunId,
    is_approved: Annotated[
        bool, typer.Option("--approve/--decline", help="Let the tool be called, or refuse that.")
    ] = True,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Let a run go on that waits for approval of a tool's call."""
    body: dict[str, Json] = {"run_id": run, "approve": is_approved}
    _show(BotsApi(url, key, project).post("/heartbeat/approve", body), as_json=as_json)


@app.command("transcript")
def show_transcript(
    *,
    run: RunId,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Print what was said in a run."""
    api = BotsApi(url, key, project)
    if as_json:
        print_json(api.get("/heartbeat/transcript", run_id=run))
        return
    _print_more(api, run, 0)
