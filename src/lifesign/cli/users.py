"""`lifesign users`: an operator's commands, which need no key but the data directory."""

from typing import Annotated

import typer

from lifesign.cli import options, output
from lifesign.cli.errors import Refused
from lifesign.cli.operator import Operator
from lifesign.cli.output import print_json, print_rows, relative, tell_more

app = typer.Typer(
    help="People of the web interface. Run this on the server's machine; it needs no key.", no_args_is_help=True
)

_PATH = "/admin/users"
_DEFAULT_PROJECT = "default"
_NOT_FOUND = 404

Email = Annotated[str, typer.Argument(metavar="EMAIL", help="Address the person signs in with.")]


@app.command("add")
def add_user(
    *,
    email: Email,
    project: Annotated[
        str, typer.Option("--project", help="Project they are let into, by id or name.")
    ] = _DEFAULT_PROJECT,
    role: Annotated[
        str, typer.Option("--role", help="owner; editor: all but keys; viewer: sees and changes nothing.")
    ] = "editor",
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """Let somebody into a project, and print the link by which they choose a password, this once.

    For somebody with a password it adds a project, or changes their role in it; there is no link then.
    """
    made = Operator(data_dir, project).call("POST", _PATH, {"email": email, "role": role})
    if as_json:
        print_json(made)
    else:
        print(made.get("link", f"{made['email']} is {role} of {project}"))


@app.command("reset")
def reset_user(*, email: Email, as_json: options.AsJson = False, data_dir: options.DataDir = None) -> None:
    """Sign somebody out everywhere, and print the link by which they choose another password, this once."""
    try:
        made = Operator(data_dir).call("POST", f"{_PATH}/reset", {"email": email})
    except Refused as error:
        if error.status != _NOT_FOUND:
            raise
        # The path, which other refusals name, does not tell who it was about.
        raise Refused(f"no account has the address {email}", status=error.status) from error
    if as_json:
        print_json(made)
    else:
        print(made["link"])


@app.command("list")
def list_users(
    *,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """List who may sign in, and what they may do in which project."""
    body = Operator(data_dir).rows(_PATH, "users", limit)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("id", lambda row: row["id"]),
        ("e-mail", lambda row: row["email"]),
        ("projects", lambda row: [f"{each['name']} ({each['role']})" for each in row["projects"]]),
        ("password", lambda row: "chosen" if row["hasPassword"] else "not yet"),
        ("created", lambda row: relative(row["createdAt"])),
    ]
    print_rows(body["users"], columns, empty="no users; add one: lifesign users add EMAIL")
    tell_more(body)
