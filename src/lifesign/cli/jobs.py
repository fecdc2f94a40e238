"""The options of `lifesign checkin`, `run` and `agent`; `quick` knows them as well, and a test compares the two."""

from typing import Annotated

import typer

from lifesign.cli import options
from lifesign.cli.quick import run_agent
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
    no_run: Annotated[
        bool, typer.Option("--no-run", help="Check in at the end only, and say nothing while it runs.")
    ] = False,
    lease: Annotated[
        str | None,
        typer.Option(
            "--lease",
            metavar="TIME",
            help="Silence while it runs that counts as its death, as in 5m; 1m when not given.",
        ),
    ] = None,
    url: options.Url = options.DEFAULT_URL,
    key: options.Key = None,
) -> int:
    """Run a command and check in for it: healthy when it exits with 0, unhealthy otherwise.

    One that takes longer than a second is a run, which reports while it goes on: a machine that dies is noticed.
    Output, input, signals and the exit code pass through unchanged. An absent server never fails or delays the command.
    """
    return run_and_tell(
        words or [], heartbeat=heartbeat, no_output=no_output, no_run=no_run, lease=lease, url=url, key=key
    )


def agent(
    *,
    url: Annotated[str | None, typer.Option("--url", envvar="LIFESIGN_URL", help="Address of the server.")] = None,
    system_id: Annotated[
        str | None, typer.Option("--system-id", metavar="ID", envvar="LIFESIGN_SYSTEM_ID", help="Id of this system.")
    ] = None,
    secret_file: Annotated[
        str | None,
        typer.Option(
            "--secret-file",
            metavar="FILE",
            envvar="LIFESIGN_SYSTEM_SECRET_FILE",
            help="File with its secret. Or the secret itself in LIFESIGN_SYSTEM_SECRET.",
        ),
    ] = None,
    interval: Annotated[
        str | None,
        typer.Option(
            "--interval", metavar="SECONDS", envvar="LIFESIGN_AGENT_INTERVAL", help="From beat to beat; 600 by default."
        ),
    ] = None,
    jitter: Annotated[
        str | None,
        typer.Option(
            "--jitter",
            metavar="SECONDS",
            envvar="LIFESIGN_AGENT_JITTER",
            help="Each beat may come so much sooner or later; 30 by default, at most a quarter of the interval.",
        ),
    ] = None,
    inventory: Annotated[
        str | None,
        typer.Option(
            "--inventory",
            metavar="on|off",
            envvar="LIFESIGN_AGENT_INVENTORY",
            help="Send what the machine consists of, at the start and every day; off by default.",
        ),
    ] = None,
    ca_file: Annotated[
        str | None, typer.Option("--ca-file", metavar="FILE", help="PEM file of further roots that TLS trusts.")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="One beat, then exit.")] = False,
    print_unit: Annotated[bool, typer.Option("--print-unit", help="Print a systemd unit and exit.")] = False,
    print_curl: Annotated[
        bool, typer.Option("--print-curl", help="Print a line for the crontab of machines without Python, and exit.")
    ] = False,
) -> int:
    """Tell the server that this machine is alive, for as long as it is.

    Never ends because of an error. Exit codes with --once: 0 acknowledged, 1 refused, 2 wrong usage, 3 not reachable.
    """
    values = {
        "--url": url,
        "--system-id": system_id,
        "--secret-file": secret_file,
        "--interval": interval,
        "--jitter": jitter,
        "--inventory": inventory,
        "--ca-file": ca_file,
    }
    switches = {"--once": once, "--print-unit": print_unit, "--print-curl": print_curl}
    return run_agent(
        {name: value for name, value in values.items() if value is not None},
        {name for name, is_set in switches.items() if is_set},
    )
