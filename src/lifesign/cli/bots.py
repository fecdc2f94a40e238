"""`lifesign bots`: agents that run prompts on schedules, what holds for all of them, and the switch that stops them."""

from typing import Annotated

import typer

from lifesign.cli import bot_schedules, options, output, values
from lifesign.cli.bot_api import MAX_PAGE, BotsApi, Project, Reference, fields_of, print_bot
from lifesign.cli.errors import CommandFailed, WrongUsage
from lifesign.cli.operator import Operator
from lifesign.cli.output import print_json, print_rows, relative
from lifesign.cli.values import Json, given

app = typer.Typer(help="AI agents that run prompts on schedules.", no_args_is_help=True)
app.add_typer(bot_schedules.app, name="schedule")

Model = Annotated[str | None, typer.Option("--model", help="Name of the language model.")]
Instruction = Annotated[
    str | None, typer.Option("--instruction", metavar="TEXT", help="What it is and how it works; @FILE reads a file.")
]
MaxReplyTokens = Annotated[int | None, typer.Option("--max-reply-tokens", min=1, help="Longest answer, in tokens.")]
Options = Annotated[
    str | None,
    typer.Option("--options", metavar="JSON", help="Runner, tools and the like, as `lifesign` of the API; @FILE too."),
]


@app.command("create")
def create_bot(
    *,
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name.")],
    model: Model = None,
    instruction: Instruction = None,
    max_reply_tokens: MaxReplyTokens = None,
    is_on: Annotated[bool, typer.Option("--on/--off", help="Whether its schedules run.")] = True,
    more: Options = None,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Make a bot."""
    body = {"name": name, "heartbeat": int(is_on)} | _fields(model, instruction, max_reply_tokens, more)
    print_bot(BotsApi(url, key, project).post("/create", body), as_json=as_json)


def _fields(
    model: str | None, instruction: str | None, max_reply_tokens: int | None, more: str | None
) -> dict[str, Json]:
    if instruction is not None and instruction.startswith("@"):
        instruction = values.file_text(instruction[1:], "--instruction")
    return given(
        model=model,
        instruction=instruction,
        max_reply_tokens=max_reply_tokens,
        lifesign=None if more is None else values.json_object(more, "--options"),
    )


@app.command("list")
def list_bots(
    *,
    limit: options.Limit = None,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """List bots, the newest first."""
    found = BotsApi(url, key, project).rows("/readall", "bots", limit, most=MAX_PAGE)
    if as_json:
        print_json(found)
        return
    columns: list[output.Column] = [
        ("id", lambda row: row["id"]),
        ("name", lambda row: row["name"]),
        ("schedules run", lambda row: "yes" if row["heartbeat"] else "no"),
        ("online", lambda row: "yes" if row["status"] else "no"),
        ("model", lambda row: row["model"]),
        ("runner", lambda row: row["lifesign"]["runner"]["kind"]),
        ("created", lambda row: relative(row["created_at"])),
    ]
    print_rows(found["bots"], columns, empty="no bots; make one: lifesign bots create NAME")
    if "next_cursor" in found:
        output.tell_more({"nextCursor": found["next_cursor"]})


@app.command("show")
def show_bot(
    *,
    reference: Reference,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show a bot."""
    print_bot(BotsApi(url, key, project).get("/read", bot_id=reference), as_json=as_json)


@app.command("update")
def update_bot(
    *,
    reference: Reference,
    name: Annotated[str | None, typer.Option("--name", help="A new name.")] = None,
    model: Model = None,
    instruction: Instruction = None,
    max_reply_tokens: MaxReplyTokens = None,
    is_on: Annotated[bool | None, typer.Option("--on/--off", help="Whether its schedules run.")] = None,
    is_online: Annotated[
        bool | None, typer.Option("--online/--offline", help="Offline: slots are logged, and nothing runs.")
    ] = None,
    more: Options = None,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Change what is given and leave the rest."""
    changes = given(name=name, heartbeat=is_on, status=is_online)
    changes |= _fields(model, instruction, max_reply_tokens, more)
    if not changes:
        raise WrongUsage("nothing to change; 'lifesign bots update --help' lists what can be")
    api = BotsApi(url, key, project)
    changed = api.put("/update", {"bot_id": reference} | changes)
    if as_json:
        print_json(changed)
        return
    print_bot(api.get("/read", bot_id=reference), as_json=False)


@app.command("delete")
def delete_bot(
    *,
    reference: Reference,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without this nothing is deleted.")] = False,
    project: Project = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Delete a bot with its schedules and logs; its runs are cancelled."""
    if not yes:
        raise WrongUsage(f"deleting {reference} takes its schedules and logs with it; say --yes")
    BotsApi(url, key, project).delete("/delete", bot_id=reference)
    print(f"deleted {reference}")


@app.command("settings")
def bot_settings(
    *,
    change: Annotated[
        str | None, typer.Option("--set", metavar="JSON", help="Change these settings; @FILE reads a file.")
    ] = None,
    project: Project = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Show, or change, what holds for all bots of a project: plan, prices, limits, models, channels."""
    api = BotsApi(url, key, project)
    told = api.get("/settings") if change is None else api.put("/settings", values.json_object(change, "--set"))
    if as_json:
        print_json(told)
        return
    output.print_fields(fields_of(told["settings"]))


@app.command("stop")
def stop_bots(
    *,
    reason: Annotated[str | None, typer.Option("--reason", help="For those who ask why nothing runs.")] = None,
    keep_running: Annotated[bool, typer.Option("--keep-running", help="Let runs end that go on.")] = False,
    is_for_all: Annotated[
        bool, typer.Option("--all", help="All projects, by the operator: needs no key, but the data directory.")
    ] = False,
    project: Project = None,
    data_dir: options.DataDir = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Let no run begin, and cancel those that go on."""
    body = given(reason=reason, cancel_running=not keep_running)
    if is_for_all:
        told, whose = Operator(data_dir).call("POST", "/admin/bots/stop", body), "all bots"
    else:
        api = BotsApi(url, key, project)
        told, whose = api.post("/stop", body), f"the bots of {api.project_name}"
    print(f"stopped {whose}; {told['cancelled']} runs cancelled")


@app.command("resume")
def resume_bots(
    *,
    is_for_all: Annotated[bool, typer.Option("--all", help="All projects, by the operator.")] = False,
    project: Project = None,
    data_dir: options.DataDir = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Let runs begin again; slots that passed are not caught up."""
    if is_for_all:
        told, whose = Operator(data_dir).call("POST", "/admin/bots/resume"), "all bots"
    else:
        api = BotsApi(url, key, project)
        told, whose = api.post("/resume", {}), f"the bots of {api.project_name}"
    if told.get("stopped") != 0:
        raise CommandFailed("the server did not say that runs may begin again")
    print(f"resumed {whose}")
