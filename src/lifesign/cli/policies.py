"""`lifesign policies`: whom to tell, and when to tell the next one."""

from typing import Annotated

import typer

from lifesign.cli import options, output, values
from lifesign.cli.errors import WrongUsage
from lifesign.cli.output import print_fields, print_json, print_rows, relative, short_span, tell_more
from lifesign.cli.remote import segment
from lifesign.cli.values import Json, given

app = typer.Typer(help="Whom to tell, and when to tell the next one.", no_args_is_help=True)

_PATH = "/v1/policies"

Id = Annotated[str, typer.Argument(metavar="ID", help="Id of the policy.")]
Steps = Annotated[
    list[str] | None,
    typer.Option(
        "--step",
        metavar="STEP",
        help="CHANNEL[,CHANNEL][:wait=5m][:message=TEXT]; repeatable, in order. The wait counts from the step before.",
    ),
]
JsonSteps = Annotated[
    str | None,
    typer.Option(
        "--json-steps", metavar="JSON", help="All steps as a JSON list; @FILE reads a file, - standard input."
    ),
]
Repeat = Annotated[
    bool | None, typer.Option("--repeat/--no-repeat", help="Whether the last step repeats until it is over.")
]


@app.command("list")
def list_policies(
    *,
    limit: options.Limit = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List policies."""
    body = options.api(url, key).rows(_PATH, "policies", limit)
    if as_json:
        print_json(body)
        return
    columns: list[output.Column] = [
        ("id", lambda row: row["id"]),
        ("name", lambda row: row["name"]),
        ("steps", lambda row: len(row["steps"])),
        ("repeats", lambda row: row["repeatLastStep"]),
        ("created", lambda row: relative(row["createdAt"])),
    ]
    print_rows(body["policies"], columns, empty="no policies; make one: lifesign policies create NAME --step CHANNEL")
    tell_more(body)


@app.command("get")
def get_policy(
    *, policy: Id, as_json: options.AsJson = False, url: options.Url = options.DEFAULT_URL, key: options.Key = None
) -> None:
    """Show a policy."""
    _show(options.api(url, key).get(f"{_PATH}/{segment(policy)}"), as_json=as_json)


@app.command("create")
def create_policy(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    step: Steps = None,
    json_steps: JsonSteps = None,
    repeat: Repeat = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Make a policy of one step or more."""
    steps = _steps(step, json_steps)
    if steps is None:
        raise WrongUsage(
            "give at least one step: --step CHANNEL, where 'lifesign channels list' shows the ids of channels"
        )
    body = {"name": name, "steps": steps} | given(repeatLastStep=repeat)
    _show(options.api(url, key).post(_PATH, body), as_json=as_json)


@app.command("update")
def update_policy(
    *,
    policy: Id,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    step: Steps = None,
    json_steps: JsonSteps = None,
    repeat: Repeat = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Change a policy; steps are replaced whole, and escalations that are running go on by the new ones."""
    changes = given(name=name, steps=_steps(step, json_steps), repeatLastStep=repeat)
    if not changes:
        raise WrongUsage("nothing to change; give --name, --step, --json-steps or --repeat")
    _show(options.api(url, key).patch(f"{_PATH}/{segment(policy)}", changes), as_json=as_json)


@app.command("delete")
def delete_policy(
    *, policy: Id, force: options.Force = False, url: options.Url = options.DEFAULT_URL, key: options.Key = None
) -> None:
    """Delete a policy."""
    options.api(url, key).delete(f"{_PATH}/{segment(policy)}", force="true" if force else None)
    print(f"deleted policy {policy}")


def _steps(texts: list[str] | None, as_json: str | None) -> Json:
    if texts and as_json is not None:
        raise WrongUsage("--step and --json-steps exclude each other")
    if as_json is None:
        return [values.step(text) for text in texts] if texts else None
    steps = values.json_value(as_json, "--json-steps")
    if not isinstance(steps, list) or not steps:
        raise WrongUsage('--json-steps: must be a list such as \'[{"channels": ["ID"], "wait": 300}]\'')
    return steps


def _show(row: dict[str, Json], *, as_json: bool) -> None:
    if as_json:
        print_json(row)
        return
    pairs: list[tuple[str, object]] = [(name, row[name]) for name in ("name", "id")]
    for number, step in enumerate(row["steps"], 1):
        wait = f"after {short_span(step['wait'])}" if step.get("wait") else "at once"
        message = f": {step['message']}" if "message" in step else ""
        pairs.append((f"step {number}", f"{wait} {', '.join(step['channels'])}{message}"))
    pairs.append(("repeats", row["repeatLastStep"]))
    pairs += [(name, f"{row[name]} ({relative(row[name])})") for name in ("createdAt", "updatedAt") if name in row]
    print_fields(pairs)
