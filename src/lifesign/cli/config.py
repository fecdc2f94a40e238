"""`lifesign apply` and `lifesign export`: a project as a file."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lifesign.cli import options
from lifesign.cli.errors import CommandFailed, Refused, WrongUsage
from lifesign.cli.output import print_bytes, print_json, safe, whole_file
from lifesign.cli.values import Json

if TYPE_CHECKING:
    from lifesign.config.apply import Progress, Server
    from lifesign.config.document import Document
    from lifesign.config.items import Wanted
    from lifesign.config.rules import Change, Plan

_DIFFERS = 5
_FORBIDDEN = 403
_SIGNS = {"create": "+", "update": "~", "delete": "-"}
# So many changes take long enough to want to see them pass.
_MANY = 50

File = Annotated[
    Path, typer.Option("-f", "--file", metavar="PATH", help="The file, or a directory whose *.yaml files are joined.")
]


def apply(
    *,
    file: File,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete what an earlier apply made and the file no longer has.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do it without asking.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the plan and change nothing; ends with 5 when there is something.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the plan, and what was done, as JSON.")] = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> int:
    """Make a project as a file says: show the plan, ask, then do it."""
    from lifesign.config import document as documents
    from lifesign.config.kinds import wanted_of

    with _as_usage():
        document = documents.read(file)
        wanted = wanted_of(document, os.environ)
    for warning in wanted.warnings:
        print(f"lifesign: warning: {warning}", file=sys.stderr)
    with options.kept_api(url, key) as server:
        return _applied(server, document, wanted, prune=prune, yes=yes, dry_run=dry_run, as_json=as_json)


def export(
    *,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="PATH", help="Write to this file instead of standard output.")
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> None:
    """Write the project as a file that `lifesign apply` takes; secrets are left to the environment."""
    from lifesign.cli.output import now
    from lifesign.clock import EpochMs, rfc3339
    from lifesign.config import apply as applying
    from lifesign.config.export import exported
    from lifesign.config.items import KINDS

    kinds = set(KINDS)
    with options.kept_api(url, key) as server:
        own = applying.own(server)
        if own.lacks({"bots:read"}):
            # Who may see all but bots had exports before there were bots in them.
            print("lifesign: bots are not in the file: the key lacks bots:read", file=sys.stderr)
            kinds -= {"bots", "schedules"}
        _require(own.lacks(applying.scopes_to_read(kinds)))
        present = applying.read(server, kinds, own.project_id)
    with _as_usage():
        text, variables = exported(own.project, present, rfc3339(EpochMs(now())))
    if out is None:
        print_bytes(text.encode())
    else:
        with whole_file(out) as write:
            write(text.encode())
    if present.without_slug:
        left_out = ", ".join(present.without_slug)
        print(f"lifesign: without a slug, and so not in the file: {left_out}", file=sys.stderr)
    if variables:
        print(f"lifesign: set these before applying it: {', '.join(variables)}", file=sys.stderr)


def _applied(
    server: "Server",
    document: "Document",
    wanted: "Wanted",
    *,
    prune: bool,
    yes: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Compare, tell, and do; the exit code."""
    from lifesign.config import apply as applying
    from lifesign.config.rules import plan_of

    own = applying.own(server)
    if wanted.project not in {None, own.project, own.project_id}:
        flaw = document.flaw("project", f"is {wanted.project!r}, but the key belongs to {own.project!r}")
        raise WrongUsage(str(flaw))
    kinds = applying.kinds_of(wanted, prune=prune)
    _require(own.lacks(applying.scopes_to_read(kinds)))
    present = applying.read(server, kinds, own.project_id)
    with _as_usage():
        plan = plan_of(document, wanted, present, prune=prune, has_other_secrets=_secrets_asked(server, own.scopes))
    for name in plan.kept:
        words = "stays: schedules that no apply made would go with it"
        print(f"lifesign: warning: bot {safe(name)} {words}", file=sys.stderr)
    progress, shown = applying.Progress(), set[str]()
    if not as_json:
        _show(plan)
    if not plan.changes or dry_run:
        if as_json:
            _print_outcome(plan, progress)
        return _DIFFERS if plan.changes else 0
    _require(own.lacks(applying.scopes_to_write(plan)))
    _confirm(plan, yes=yes)
    try:
        with _bar(len(plan.changes), is_shown=not as_json) as advance:

            def tell() -> None:
                # At once: a secret that waited for the end would be lost with a command that is killed before.
                if not as_json:
                    _show_secrets(progress, shown)
                advance()

            applying.carry_out(server, plan, present, progress, tell, project_id=own.project_id)
    except CommandFailed as error:
        raise _stopped(error, plan, progress) from error
    finally:
        if as_json:
            _print_outcome(plan, progress)
        else:
            _show_secrets(progress, shown)
    if not as_json:
        print(_counted(plan, {"create": "created", "update": "changed", "delete": "deleted"}))
    return 0


@contextmanager
def _as_usage() -> Iterator[None]:
    """A bad file is told like a bad command line: nothing was sent."""
    from lifesign.config.document import BadDocument
    from lifesign.config.items import Ambiguous

    try:
        yield
    except (BadDocument, Ambiguous) as error:
        raise WrongUsage(safe_lines(str(error))) from error


def safe_lines(text: str) -> str:
    """Several lines, none of which can steer the terminal."""
    return "\n".join(safe(line) if not line.startswith("  ") else f"  {safe(line[2:])}" for line in text.split("\n"))


def _require(missing: list[str]) -> None:
    if missing:
        raise Refused(f"the key lacks {', '.join(missing)}; nothing was changed", status=_FORBIDDEN)


def _secrets_asked(server: "Server", scopes: frozenset[str]) -> "Callable[[Json, Json], bool]":
    from lifesign.auth.rules import allows
    from lifesign.config.apply import has_other_secrets

    if allows(scopes, "channels:write"):
        return has_other_secrets(server)

    def not_asked(item: Json, _row: Json) -> bool:
        # Only who may set them may compare them; what is shown of them is equal.
        words = "whether its secrets are others was not looked at: the key lacks channels:write"
        print(f"lifesign: warning: channel {safe(item.name)}: {words}", file=sys.stderr)
        return False

    return not_asked


def _confirm(plan: "Plan", *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise WrongUsage("say --yes to apply this without a terminal to ask on, or --dry-run to see it only")
    question = _counted(plan, {"create": "to create", "update": "to change", "delete": "to delete"})
    typer.confirm(f"{question}: go on?", abort=True)


# Telling ------------------------------------------------------------------------------------------------------------
def _show(plan: "Plan") -> None:
    if not plan.changes:
        print(f"nothing to do: {plan.untouched} as the file says")
    for change in plan.changes:
        print(f"{_SIGNS[change.action]} {safe(change.subject)}")
        for difference in change.differences:
            print(f"    {safe(str(difference))}")


def _counted(plan: "Plan", words: "Mapping[str, str]") -> str:
    counts = {action: sum(change.action == action for change in plan.changes) for action in words}
    return ", ".join(f"{count} {words[action]}" for action, count in counts.items() if count)


def _show_secrets(progress: "Progress", shown: set[str]) -> None:
    """Print the secrets that are not in `shown` yet, by what they are of."""
    for secret in progress.secrets:
        if secret.subject in shown:
            continue
        shown.add(secret.subject)
        print(f"{safe(secret.subject)}: shown this once")
        for name, value in secret.fields.items():
            print(f"    {name}: {value}", flush=True)


def _print_outcome(plan: "Plan", progress: "Progress") -> None:
    print_json(
        {
            "plan": [_told(change) for change in plan.changes],
            "untouched": plan.untouched,
            "done": len(progress.done),
            "secrets": [{"of": each.subject} | dict(each.fields) for each in progress.secrets],
        }
    )


def _told(change: "Change") -> Json:
    fields = [{"field": each.field, "old": each.old, "new": each.new} for each in change.differences]
    return {"action": change.action, "kind": change.kind, "name": change.name, "fields": fields}


def _stopped(error: CommandFailed, plan: "Plan", progress: "Progress") -> CommandFailed:
    """The same failure, with where it struck, what was done before, and that going on is safe."""
    count = len(progress.done)
    at = progress.at or plan.changes[count]
    told = f"{safe(at.subject)}: {error}\n  {count} of {len(plan.changes)} changes were made; apply again to go on"
    if isinstance(error, Refused):
        return Refused(told, status=error.status)
    return type(error)(told)


@contextmanager
def _bar(total: int, *, is_shown: bool) -> "Iterator[Callable[[], None]]":
    """A progress bar, on a terminal and for many changes."""
    if not (is_shown and total >= _MANY and sys.stderr.isatty()):
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    # What is printed meanwhile stays where it is sent: a secret is for standard output, wherever that leads.
    with Bar(console=Console(stderr=True), transient=True, redirect_stdout=False) as bar:
        task = bar.add_task("applying", total=total)
        yield lambda: bar.advance(task)
