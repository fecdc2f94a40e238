"""The options of `lifesign checkin` and `lifesign run`; `quick` knows them as well, and a test compares the two."""

from typing import Annotated

import typer

from lifesign.cli import options
from lifesign.cli.report import check_in_once, run_and_tell


def checkin(
    *,
    reference: Annotated[str, typer.Argument(metavar="REF", help="Id or slug of the heartbeat.")],
    unhealthy: Annotated[bool, typer.Option("--unhealthy", help="Say that it went wrong: it fires at once.")] = False,
    metadata: Annotated[
        str | None,
        typer.Option(
            "--metadata", metavar="JSON", help="A JSON object kept with it; @FILE reads a file, - standard input."
        ),
    ] = None,
    idempotency_key: Annotated[
        str | None,
        typer.Option(
            "--idempotency-key",
            metavar="TEXT",
            help="A repeat with the same text counts once; new for each run by default.",
        ),
    ] = None,
    as_json: options.AsJson = False,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> int:
    """Check in once; tries again for up to 10 s when the server cannot be reached."""
    return check_in_once(
        reference,
        unhealthy=unhealthy,
        metadata=metadata,
        idempotency_key=idempotency_key,
        as_json=as_json,
        url=url,
        key=key,
    )


def run(
    *,
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[REF] -- COMMAND [ARGUMENT]...", help="What to run, after the two dashes."),
    ] = None,
    heartbeat: Annotated[
        str | None, typer.Option("--heartbeat", metavar="REF", help="Id or slug of the heartbeat, instead of REF.")
    ] = None,
    no_output: Annotated[
        bool,
        typer.Option(
            "--no-output", help="Keep the command's output out of the report; it writes to our own output directly."
        ),
    ] = False,
    lease: Annotated[
        str | None,
        typer.Option(
            "--lease",
            metavar="TIME",
            help="Report while it runs, as in 60s: a machine that dies half-way is noticed within that time.",
        ),
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> int:
    """Run a command and check in for it: healthy when it exits with 0, unhealthy otherwise.

    Output, input, signals and the exit code pass through unchanged. An absent server never fails or delays the command.
    """
    return run_and_tell(words or [], heartbeat=heartbeat, no_output=no_output, lease=lease, url=url, key=key)
