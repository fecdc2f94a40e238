"""`lifesign vitals keys`: an operator's commands, which need no key but the data directory."""

from typing import Annotated

import typer

from lifesign.cli import options, output
from lifesign.cli.operator import Operator
from lifesign.cli.output import print_json, print_rows, relative, tell_more
from lifesign.cli.remote import segment

app = typer.Typer(
    help="Keys of the Vitals API, which people take themselves. Run this on the server's machine; it needs no key.",
    no_args_is_help=True,
)

_PATH = "/admin/vitals/keys"


@app.command("list")
def list_keys(
    *,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """List keys, revoked ones too; the keys themselves are not kept, only their first characters."""
    body = Operator(data_dir).rows(_PATH, "keys", limit)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("id", lambda row: row["id"]),
        ("prefix", lambda row: row["prefix"]),
        ("name", lambda row: row["name"]),
        ("e-mail", lambda row: row["email"]),
        ("created", lambda row: relative(row["createdAt"])),
        ("last used", lambda row: relative(row["lastUsedAt"])),
        ("requests", lambda row: row["requests"]),
        ("revoked", lambda row: relative(row["revokedAt"])),
    ]
    print_rows(body["keys"], columns, empty="no keys; people take them with POST /api/keys")
    tell_more(body)


@app.command("revoke")
def revoke_key(
    *, key: Annotated[int, typer.Argument(metavar="ID", help="Id of the key.")], data_dir: options.DataDir = None
) -> None:
    """Revoke a key, from the next request on. It still counts among those of its address."""
    Operator(data_dir).call("DELETE", f"{_PATH}/{segment(str(key))}")
    print(f"revoked key {key}")


@app.command("allow")
def allow_keys(
    *,
    email: Annotated[str, typer.Argument(metavar="EMAIL", help="The address.")],
    keys: Annotated[int, typer.Argument(metavar="N", help="How many keys it may have, those it had included.")],
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """Let an address have another number of keys than three in its life."""
    allowed = Operator(data_dir).call("POST", "/admin/vitals/allowances", {"email": email, "keys": keys})
    if as_json:
        print_json(allowed)
    else:
        print(f"{allowed['email']} may have {allowed['keys']} keys")
