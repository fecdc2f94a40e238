"""`lifesign incidents` and `lifesign notifications`: what went wrong, and who was told of it."""

from typing import Annotated

import typer

from lifesign.cli import options, output
from lifesign.cli.output import print_fields, print_json, print_rows, relative, tell_more
from lifesign.cli.remote import segment
from lifesign.cli.values import Json

app = typer.Typer(help="What went wrong.", no_args_is_help=True)
notifications = typer.Typer(help="Who was told, and what became of the message.", no_args_is_help=True)


@app.command("list")
def list_incidents(
    *,
    status: Annotated[str | None, typer.Option("--status", help="open or resolved.")] = None,
    heartbeat: Annotated[
        str | None, typer.Option("--heartbeat", metavar="REF", help="Of this heartbeat only: its id or slug.")
    ] = None,
    limit: options.NewestLimit = 50,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List incidents, newest first."""
    api = options.api(url, key)
    if heartbeat is not None and not heartbeat.startswith("hb_"):
        heartbeat = api.get(f"/v1/heartbeats/{segment(heartbeat)}")["id"]
    body = api.rows("/v1/incidents", "incidents", limit, status=status, heartbeat=heartbeat)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("status", lambda row: row["status"]),
        ("id", lambda row: row["id"]),
        ("heartbeat", lambda row: row["heartbeat"]),
        ("reason", lambda row: row["reason"]),
        ("opened", lambda row: relative(row["openedAt"])),
        ("resolved", lambda row: relative(row.get("resolvedAt"))),
        ("by", lambda row: row.get("resolution")),
        ("steps run", lambda row: row.get("escalationStep")),
    ]
    print_rows(body["incidents"], columns, empty="no incidents")
    tell_more(body)


@app.command("get")
def get_incident(
    *,
    incident: Annotated[str, typer.Argument(metavar="ID", help="Id of the incident.")],
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show an incident with every message about it and every attempt to deliver those."""
    body = options.api(url, key).get(f"/v1/incidents/{segment(incident)}")
    if as_json:
        print_json(body)
        return
    print_fields((name, _with_distance(name, value)) for name, value in body.items() if name != "notifications")
    print()
    print_rows(body.get("notifications", []), _COLUMNS, empty="nobody was told")


@notifications.command("list")
def list_notifications(
    *,
    status: Annotated[
        str | None, typer.Option("--status", help="pending, held, sending, sent, delivered, dead, canceled or bundled.")
    ] = None,
    channel: Annotated[str | None, typer.Option("--channel", metavar="ID", help="Of this channel only.")] = None,
    limit: options.NewestLimit = 50,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List messages, newest first."""
    body = options.api(url, key).rows("/v1/notifications", "notifications", limit, status=status, channel=channel)
    if as_json:
        print_json(body)
        return
    print_rows(body["notifications"], _COLUMNS, empty="no notifications")
    tell_more(body)


@notifications.command("retry")
def retry_notification(
    *,
    notification: Annotated[str, typer.Argument(metavar="ID", help="Id of a dead notification.")],
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Send a dead message again: at once, and for another 24 hours."""
    row = options.api(url, key).post(f"/v1/notifications/{segment(notification)}/retry")
    if as_json:
        print_json(row)
    else:
        print(f"{row['id']} is {row['status']}")


def _last_error(row: dict[str, Json]) -> object:
    attempts = row.get("attempts") or [{}]
    return attempts[-1].get("error")


def _with_distance(name: str, value: Json) -> object:
    return f"{value} ({relative(value)})" if name.endswith("At") and value else value


_COLUMNS: list[output.Column] = [
    ("status", lambda row: row["status"]),
    ("kind", lambda row: row["kind"]),
    ("step", lambda row: row.get("step")),
    ("channel", lambda row: row.get("channel")),
    ("incident", lambda row: row.get("incident")),
    ("created", lambda row: relative(row["createdAt"])),
    ("attempts", lambda row: len(row.get("attempts", []))),
    ("last error", _last_error),
]
