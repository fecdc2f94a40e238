"""The command line as a whole: which command stands where."""

from typing import Annotated

import typer

from lifesign import __version__
from lifesign.cli import (
    bot_runs,
    bots,
    channels,
    config,
    diagnose,
    doctor,
    heartbeats,
    importing,
    incidents,
    jobs,
    keys,
    maintenance,
    policies,
    projects,
    serve,
    systems,
    telemetry,
    users,
    vitals,
    vitals_keys,
)

app = typer.Typer(
    name="lifesign",
    help="Knows whether everything you run is alive, and makes sure somebody finds out when it is not.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong usage, 3 server not reachable, 4 refused by the server.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"lifesign {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Knows whether everything you run is alive, and makes sure somebody finds out when it is not."""


app.command("checkin")(jobs.checkin)
app.command("run")(jobs.run)
app.command("agent")(jobs.agent)
app.add_typer(heartbeats.app, name="heartbeats")
app.add_typer(systems.app, name="systems")
app.add_typer(maintenance.app, name="maintenance")
app.add_typer(bots.app, name="bots")
app.add_typer(bot_runs.app, name="runs")
app.add_typer(policies.app, name="policies")
app.add_typer(channels.app, name="channels")
app.add_typer(incidents.app, name="incidents")
app.add_typer(incidents.notifications, name="notifications")
app.command("apply")(config.apply)
app.command("export")(config.export)
app.add_typer(importing.app, name="import")
app.add_typer(telemetry.app, name="telemetry")
app.command("diagnose")(diagnose.diagnose)
app.add_typer(vitals.app, name="vitals")
vitals.app.add_typer(vitals_keys.app, name="keys")
app.command("serve")(serve.serve)
app.add_typer(projects.app, name="projects")
app.add_typer(users.app, name="users")
app.add_typer(keys.app, name="keys")
app.command("migrate")(serve.migrate)
app.command("doctor")(doctor.doctor)


@app.command("demo")
def demo(
    *,
    web: Annotated[
        bool, typer.Option("--web", help="Fill a server with a month of history, and show its pages.")
    ] = False,
    days: Annotated[int, typer.Option(min=1, max=31, help="With --web: how many days of history.")] = 30,
    port: Annotated[int, typer.Option(min=0, max=65535, help="With --web: where to listen; 0 for a free port.")] = 8080,
    browser: Annotated[bool, typer.Option(help="With --web: open the overview.")] = True,
) -> None:
    """Show an outage from silence to recovery, with a server and receivers that live for half a minute only."""
    if web:
        from lifesign.cli import demo_web

        demo_web.play(days=days, port=port, opens=browser)
        return
    from lifesign.cli.demo import play

    play()
