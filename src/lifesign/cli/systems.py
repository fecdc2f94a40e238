"""`lifesign systems`: machines with credentials of their own."""

from collections.abc import Callable
from typing import Annotated

import typer

from lifesign.cli import options, output, values
from lifesign.cli.errors import CommandFailed, Refused, WrongUsage
from lifesign.cli.output import print_fields, print_json, print_rows, relative, short_span
from lifesign.cli.remote import Api, segment
from lifesign.cli.values import Json, given

app = typer.Typer(help="Machines that report with credentials of their own.", no_args_is_help=True)

_PATH = "/api/systems"
_MAX_PAGE = 500
_MAX_SNAPSHOTS = 200
_CLEARABLE = ("type", "fqdn", "notes", "tags", "interval", "policy")
_EMPTY: dict[str, Json] = {"tags": [], "interval": None, "policy": None}

Reference = Annotated[str, typer.Argument(metavar="REF", help="Id or key of the system.")]
Type = Annotated[str | None, typer.Option("--type", help="Free text: server, firewall, ...")]
Fqdn = Annotated[str | None, typer.Option("--fqdn", help="Its name in the network.")]
Notes = Annotated[str | None, typer.Option("--notes", help="Free text for people.")]
Tags = Annotated[list[str] | None, typer.Option("--tag", help="A tag; repeatable.")]
Interval = Annotated[
    str | None,
    typer.Option("--interval", metavar="DURATION", help="Between its reports: 60, 5m, 1h; as the server says if not."),
]
Policy = Annotated[str | None, typer.Option("--policy", metavar="ID", help="Policy for when it falls silent.")]


@app.command("create")
def create_system(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    of_type: Type = None,
    fqdn: Fqdn = None,
    notes: Notes = None,
    tag: Tags = None,
    interval: Interval = None,
    policy: Policy = None,
    system_id: Annotated[str | None, typer.Option("--id", metavar="UUID", help="An id it has already.")] = None,
    secret_stdin: Annotated[
        bool, typer.Option("--secret-stdin", help="Read a secret that it has already from standard input.")
    ] = False,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Register a machine and print its secret, this once."""
    body = given(
        name=name,
        type=of_type,
        fqdn=fqdn,
        notes=notes,
        tags=tag,
        interval=_seconds(interval),
        policy=policy,
        id=system_id,
        secret=values.file_text("-", "--secret-stdin").strip("\r\n") if secret_stdin else None,
    )
    made = _asked(url, key, lambda api: api.post(_PATH, body))
    if as_json:
        print_json(made)
        return
    print_fields([("id", made["id"]), ("key", made["key"]), ("name", made["name"])])
    print(made["secret"])


@app.command("list")
def list_systems(
    *,
    status: Annotated[str | None, typer.Option("--status", help="alive, dead or zombie.")] = None,
    search: Annotated[str | None, typer.Option("--search", help="Part of name, fqdn, key or id.")] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="With this tag.")] = None,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List systems, the newest first."""
    query = given(status=status, search=search, tag=tag)
    found = _asked(url, key, lambda api: _rows(api, _PATH, "systems", limit=limit, most=_MAX_PAGE, query=query))
    if as_json:
        print_json(found)
        return
    columns: list[output.Column] = [
        ("status", lambda row: "suspended" if row["suspended"] else row["status"]),
        ("name", lambda row: row["name"]),
        ("last heartbeat", lambda row: relative(row["last_heartbeat"])),
        ("type", lambda row: row["type"]),
        ("fqdn", lambda row: row["fqdn"]),
        ("tags", lambda row: row["tags"]),
        ("key", lambda row: row["key"]),
        ("id", lambda row: row["id"]),
    ]
    print_rows(found["systems"], columns, empty="no systems; make one: lifesign systems create NAME")
    _tell_more(found)


@app.command("show")
def show_system(
    *,
    reference: Reference,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show a system."""
    _show(_asked(url, key, lambda api: api.get(_path(reference))), as_json=as_json)


@app.command("update")
def update_system(
    *,
    reference: Reference,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    of_type: Type = None,
    fqdn: Fqdn = None,
    notes: Notes = None,
    tag: Tags = None,
    interval: Interval = None,
    policy: Policy = None,
    clear: Annotated[
        list[str] | None,
        typer.Option("--clear", metavar="FIELD", help=f"Empty a field, one of {', '.join(_CLEARABLE)}; repeatable."),
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Change what is given and leave the rest; tags are replaced whole."""
    changes = given(
        name=name, type=of_type, fqdn=fqdn, notes=notes, tags=tag, interval=_seconds(interval), policy=policy
    )
    for field in clear or []:
        if field not in _CLEARABLE:
            raise WrongUsage(f"--clear: knows {', '.join(_CLEARABLE)}, not {field}")
        if field in changes:
            raise WrongUsage(f"--clear: {field} cannot be given and cleared at once")
        changes[field] = _EMPTY.get(field, "")
    if not changes:
        raise WrongUsage("nothing to change; 'lifesign systems update --help' lists what can be")
    _show(_asked(url, key, lambda api: api.patch(_path(reference), changes)), as_json=as_json)


@app.command("regenerate-secret")
def regenerate_secret(
    *,
    reference: Reference,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Give a system a new secret and print it, this once; the old one is dead at once."""
    made = _asked(url, key, lambda api: api.post(f"{_path(reference)}/regenerate-secret"))
    if as_json:
        print_json(made)
    else:
        print(made["secret"])


@app.command("suspend")
def suspend_system(
    *,
    reference: Reference,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Refuse a system's reports and stop waiting for them; an open incident closes."""
    body = _asked(url, key, lambda api: api.post(f"{_path(reference)}/suspend"))
    _tell(body, f"suspended {reference}", as_json=as_json)


@app.command("reactivate")
def reactivate_system(
    *,
    reference: Reference,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Take a suspended system's reports again."""
    body = _asked(url, key, lambda api: api.post(f"{_path(reference)}/reactivate"))
    _tell(body, f"reactivated {reference}", as_json=as_json)


@app.command("delete")
def delete_system(
    *,
    reference: Reference,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is deleted.")] = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Delete a system with its credentials, its heartbeat and its inventory."""
    if not yes:
        raise WrongUsage(f"this deletes {reference} with its credentials and its inventory; say --yes to do it")
    _asked(url, key, lambda api: api.call("DELETE", _path(reference)))
    print(f"deleted system {reference}")


@app.command("totals")
def show_totals(
    *,
    timeout: Annotated[
        int | None, typer.Option("--timeout", metavar="MINUTES", help="Silent for so long counts as dead.")
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Count systems by state."""
    body = _asked(url, key, lambda api: api.get(f"{_PATH}/totals", timeout=timeout))
    if as_json:
        print_json(body)
        return
    names = ("total", "alive", "dead", "zombie", "suspended")
    print_fields(
        [*((name, str(body[f"{name}_systems"])) for name in names), ("dead after", f"{body['timeout_minutes']}m")]
    )


@app.command("trend")
def show_trend(
    *,
    period: Annotated[str | None, typer.Option("--period", metavar="DAYS", help="7, 30, 180 or 365.")] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show how many systems there were over time."""
    body = _asked(url, key, lambda api: api.get(f"{_PATH}/trend", period=period))
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [("date", lambda row: row["date"]), ("systems", lambda row: str(row["count"]))]
    print_rows(body["data_points"], columns, empty="no points")
    print(
        f"{body['current_total']} now, {body['delta']:+d} ({body['delta_percentage']:+g} %) in {body['period_label']}"
    )


@app.command("inventory")
def show_inventory(
    *,
    reference: Reference,
    latest: Annotated[bool, typer.Option("--latest", help="The newest inventory itself, as JSON.")] = False,
    limit: options.NewestLimit = 20,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List the inventories of a system that are kept, or show the newest."""
    path = f"{_path(reference)}/inventory"
    if latest:
        body = _asked(url, key, lambda api: api.get(f"{path}/latest"))
        print_json(body if as_json else body["inventory"])
        return
    body = _asked(url, key, lambda api: _rows(api, path, "snapshots", limit=limit, most=_MAX_SNAPSHOTS))
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("first seen", lambda row: relative(row["timestamp"])),
        ("last seen", lambda row: relative(row["last_seen"])),
        ("changes", lambda row: str(row["changes"])),
        ("bytes", lambda row: str(row["data_size"])),
        ("id", lambda row: row["id"]),
    ]
    print_rows(body["snapshots"], columns, empty="no inventory yet; the agent sends one with --inventory on")
    _tell_more(body)


@app.command("changes")
def list_changes(
    *,
    reference: Reference,
    category: Annotated[str | None, typer.Option("--category", help="Such as security, os or hardware.")] = None,
    severity: Annotated[str | None, typer.Option("--severity", help="critical, high, medium or low.")] = None,
    since: Annotated[str | None, typer.Option("--since", metavar="TIME", help="No older than this, RFC 3339.")] = None,
    limit: options.NewestLimit = 100,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List what changed in a system, the newest first."""
    query = given(category=category, severity=severity, since=since)
    path = f"{_path(reference)}/inventory/changes"
    body = _asked(url, key, lambda api: _rows(api, path, "changes", limit=limit, most=_MAX_PAGE, query=query))
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("when", lambda row: relative(row["timestamp"])),
        ("severity", lambda row: row["severity"]),
        ("category", lambda row: row["category"]),
        ("change", lambda row: row["op"]),
        ("path", lambda row: row["path"]),
        ("old", lambda row: row["old"]),
        ("new", lambda row: row["new"]),
    ]
    print_rows(body["changes"], columns, empty="no changes")
    _tell_more(body)


# Asking and showing -------------------------------------------------------------------------------------------------
def _asked(url: str, key: str | None, ask: Callable[[Api], dict[str, Json]]) -> dict[str, Json]:
    """The `data` of an answer. Raises CommandFailed, with exit code 1, also for what the server refuses."""
    try:
        body = ask(options.api(url, key))
    except Refused as error:
        raise CommandFailed(str(error)) from error
    data: dict[str, Json] = body.get("data") or {}
    return data


def _rows(
    api: Api, path: str, name: str, *, limit: int | None, most: int, query: dict[str, Json] | None = None
) -> dict[str, Json]:
    """Up to `limit` rows (None: all) of a list, page after page, in the shape of one answer."""
    rows: list[Json] = []
    cursor = None
    while True:
        size = most if limit is None else min(limit - len(rows), most)
        page = api.get(path, **(query or {}), limit=size, cursor=cursor)["data"]
        rows += page[name]
        cursor = page.get("next_cursor")
        if cursor is None:
            return {"data": {name: rows}}
        if limit is not None and len(rows) >= limit:
            return {"data": {name: rows, "next_cursor": cursor}}


def _tell_more(body: dict[str, Json]) -> None:
    output.tell_more({"nextCursor": body["next_cursor"]} if "next_cursor" in body else {})


def _path(reference: str) -> str:
    return f"{_PATH}/{segment(reference)}"


def _seconds(interval: str | None) -> int | None:
    return None if interval is None else values.seconds(interval, "--interval")


def _tell(body: dict[str, Json], sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(body)
    else:
        print(sentence)


def _show(body: dict[str, Json], *, as_json: bool) -> None:
    if as_json:
        print_json(body)
        return
    print_fields(
        [
            ("id", body["id"]),
            ("key", body["key"]),
            ("name", body["name"]),
            ("status", body["status"]),
            ("suspended", relative(body["suspended_at"])),
            ("last heartbeat", relative(body["last_heartbeat"])),
            ("interval", short_span(body["interval"]) if body["interval"] else None),
            ("type", body["type"]),
            ("fqdn", body["fqdn"]),
            ("tags", body["tags"]),
            ("notes", body["notes"]),
            ("policy", body["policy"]),
            ("heartbeat", f"{body['heartbeat_id']} ({body['heartbeat_status']})"),
            ("secret ends in", body["secret_hint"]),
            ("made", relative(body["created_at"])),
        ]
    )
