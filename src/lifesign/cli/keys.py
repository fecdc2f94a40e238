"""`lifesign keys`: an operator's commands, which need no key but the data directory."""

from typing import Annotated

import typer

from lifesign.cli import options, output, values
from lifesign.cli.operator import Operator
from lifesign.cli.output import print_json, print_rows, relative, tell_more
from lifesign.cli.remote import segment
from lifesign.cli.values import given

app = typer.Typer(help="API keys. Run this on the server's machine; it needs no key.", no_args_is_help=True)

_PATH = "/v1/keys"

Project = Annotated[str, typer.Option("--project", help="Project the keys belong to, by id or name.")]
_DEFAULT_PROJECT = "default"


@app.command("create")
def create_key(
    *,
    name: Annotated[str, typer.Option("--name", help="Whose key it is, or what for.")],
    project: Project = _DEFAULT_PROJECT,
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", help="What it allows, such as checkins:write; repeatable, everything by default."),
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="WHEN", help="RFC 3339, or a duration such as 30d; never by default."),
    ] = None,
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """Make a key and print it, this once."""
    body = given(name=name, scopes=scope, expiresAt=None if expires is None else values.moment(expires, "--expires"))
    made = Operator(data_dir, project).call("POST", _PATH, body)
    if as_json:
        print_json(made)
    else:
        print(made["token"])


@app.command("list")
def list_keys(
    *,
    project: Project = _DEFAULT_PROJECT,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """List keys; the keys themselves are not kept, only their first characters."""
    body = Operator(data_dir, project).rows(_PATH, "keys", limit)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("id", lambda row: row["id"]),
        ("name", lambda row: row["name"]),
        ("prefix", lambda row: row["prefix"]),
        ("scopes", lambda row: row["scopes"]),
        ("created", lambda row: relative(row["createdAt"])),
        ("last used", lambda row: relative(row.get("lastUsedAt"))),
        ("expires", lambda row: relative(row.get("expiresAt"))),
    ]
    print_rows(body["keys"], columns, empty="no keys; make one: lifesign keys create --name NAME")
    tell_more(body)


@app.command("revoke")
def revoke_key(
    *,
    key: Annotated[str, typer.Argument(metavar="ID", help="Id of the key.")],
    project: Project = _DEFAULT_PROJECT,
    data_dir: options.DataDir = None,
) -> None:
    """Revoke a key, from the next request on."""
    Operator(data_dir, project).call("DELETE", f"{_PATH}/{segment(key)}")
    print(f"revoked key {key}")
