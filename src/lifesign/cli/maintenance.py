"""`lifesign maintenance`: times in which silence is expected."""

from typing import Annotated

import typer

from lifesign.cli import options, output, values
from lifesign.cli.errors import WrongUsage
from lifesign.cli.output import print_json, print_rows, short_span, tell_more
from lifesign.cli.remote import segment
from lifesign.cli.values import Json, given

app = typer.Typer(help="Times in which silence is expected.", no_args_is_help=True)

_PATH = "/v1/maintenance"


@app.command("list")
def list_windows(
    *,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List maintenance windows, those that are over included."""
    body = options.api(url, key).rows(_PATH, "maintenance", limit)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("open", lambda row: "now" if row["active"] else None),
        ("id", lambda row: row["id"]),
        ("name", lambda row: row["name"]),
        ("when", _when),
        ("for", _for_whom),
    ]
    print_rows(body["maintenance"], columns, empty="no maintenance windows")
    tell_more(body)


@app.command("create")
def create_window(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    start: Annotated[
        str | None, typer.Option("--start", metavar="TIME", help="Once: from this time, or now when not given.")
    ] = None,
    duration: Annotated[str, typer.Option("--duration", metavar="DURATION", help="For so long: 30m, 2h, 1d.")],
    at: Annotated[
        str | None, typer.Option("--at", metavar="CRON", help="Again and again, at the times of a cron expression.")
    ] = None,
    timezone: Annotated[
        str | None, typer.Option("--timezone", metavar="ZONE", help="Time zone of --at; UTC by default.")
    ] = None,
    heartbeat: Annotated[
        list[str] | None, typer.Option("--heartbeat", metavar="REF", help="For this heartbeat; repeatable.")
    ] = None,
    namespace: Annotated[list[str] | None, typer.Option("--namespace", help="For this namespace; repeatable.")] = None,
    tag: Annotated[list[str] | None, typer.Option("--tag", help="For all with this tag; repeatable.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="For every heartbeat of the project.")] = False,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Announce a maintenance window: inside it silence opens no incident."""
    seconds = values.seconds(duration, "--duration")
    if at is not None and start is not None:
        raise WrongUsage("--start and --at exclude each other")
    when = given(schedule=at, duration=seconds, timezone=timezone) if at is not None else _once(start, seconds)
    whom = given(heartbeats=heartbeat, namespaces=namespace, tags=tag, all=everything or None)
    if len(whom) != 1:
        raise WrongUsage("say for whom: one of --heartbeat, --namespace, --tag and --all")
    body = options.api(url, key).post(_PATH, {"name": name} | when | whom)
    if as_json:
        print_json(body)
    else:
        print(f"made maintenance window {body['id']}: {_when(body)}, for {_for_whom(body)}")


@app.command("delete")
def delete_window(
    *,
    window: Annotated[str, typer.Argument(metavar="ID", help="Id of the window.")],
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Delete a maintenance window; one that is open ends now."""
    options.api(url, key).delete(f"{_PATH}/{segment(window)}")
    print(f"deleted maintenance window {window}")


def _once(start: str | None, seconds: int) -> dict[str, Json]:
    from lifesign.clock import EpochMs, parse_timestamp, rfc3339

    begins = values.moment("0s" if start is None else start, "--start")
    return {"startsAt": begins, "endsAt": rfc3339(EpochMs(parse_timestamp(begins) + seconds * 1000))}


def _when(row: dict[str, Json]) -> str:
    if "schedule" in row:
        return f"{row['schedule']} {row.get('timezone', '')} for {short_span(row['duration'])}"
    return f"{row['startsAt']} to {row['endsAt']}"


def _for_whom(row: dict[str, Json]) -> str:
    if "all" in row:
        return "everything"
    kind = next(name for name in ("heartbeats", "namespaces", "tags") if name in row)
    return f"{kind} {', '.join(row[kind])}"
