"""`lifesign projects`: an operator's commands, which need no key but the data directory."""

from typing import Annotated

import typer

from lifesign.cli import options, output
from lifesign.cli.operator import Operator
from lifesign.cli.output import print_fields, print_json, print_rows, relative, tell_more
from lifesign.cli.remote import segment
from lifesign.cli.values import Json, given

app = typer.Typer(
    help="Projects, those that made themselves as well. Run this on the server's machine; it needs no key.",
    no_args_is_help=True,
)

_PATH = "/admin/projects"

Project = Annotated[str, typer.Argument(metavar="PROJECT", help="Id or name of the project.")]


@app.command("list")
def list_projects(
    *,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """List the projects of every tenant."""
    body = Operator(data_dir).rows(_PATH, "projects", limit)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("id", lambda row: row["id"]),
        ("name", lambda row: row["name"]),
        ("tenant", lambda row: row["tenant"]),
        ("plan", lambda row: row["plan"]),
        ("quota", lambda row: row["quotaSpans"] or None),
        ("created", lambda row: relative(row["createdAt"])),
        ("expires", lambda row: relative(row["expiresAt"])),
    ]
    print_rows(body["projects"], columns, empty="no projects")
    tell_more(body)


@app.command("create")
def create_project(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="What to call it.")],
    tenant: Annotated[
        str | None, typer.Option("--tenant", help="Whose it is; any but sandbox, default when not given.")
    ] = None,
    quota: Annotated[
        int | None,
        typer.Option(
            "--quota", min=0, metavar="N", help="Distinct records a month, 0: any number; as the server says if not."
        ),
    ] = None,
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """Make a project that stays, and print its two keys, this once."""
    made = Operator(data_dir).call("POST", _PATH, given(name=name, tenant=tenant, quotaSpans=quota))
    if as_json:
        print_json(made)
        return
    print_fields([("id", made["id"]), ("producer key", made["producerKey"]), ("agent key", made["agentKey"])])


@app.command("extend")
def extend_project(
    *,
    project: Project,
    days: Annotated[int, typer.Option("--days", min=1, max=3650, metavar="N", help="For how many days more.")],
    as_json: options.AsJson = False,
    data_dir: options.DataDir = None,
) -> None:
    """Let a sandbox stay for longer: from its end, or from now when that is over."""
    extended = Operator(data_dir).call("POST", f"{_PATH}/{segment(project)}/extend", {"days": days})
    if as_json:
        print_json(extended)
    else:
        print(f"project {extended['id']} expires at {extended['expiresAt']}")


@app.command("upgrade-code")
def upgrade_code(*, project: Project, as_json: options.AsJson = False, data_dir: options.DataDir = None) -> None:
    """Print the code with which the owner of a sandbox lets it stay for good."""
    told: dict[str, Json] = Operator(data_dir).call("GET", f"{_PATH}/{segment(project)}/upgrade-code")
    if as_json:
        print_json(told)
    else:
        print(told["upgradeCode"])


@app.command("delete")
def delete_project(*, project: Project, data_dir: options.DataDir = None) -> None:
    """Delete a project, its keys and everything it has."""
    Operator(data_dir).call("DELETE", f"{_PATH}/{segment(project)}")
    print(f"deleted project {project}")
