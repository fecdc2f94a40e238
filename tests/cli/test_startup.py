"""What jobs call every minute must start quickly: nothing of the server is loaded for it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer

from lifesign.cli import quick
from lifesign.cli.app import app
from tests.cli.conftest import environment

# Each takes longer to load than the whole check-in takes to travel.
HEAVY = [
    *("aiosmtplib", "alembic", "asyncio", "cryptography", "fastapi", "httpx2", "jinja2", "msgspec", "pydantic"),
    *("pydantic_settings", "rich", "sqlalchemy", "starlette", "structlog", "typer", "uvicorn"),
]
PROJECT = """
channels: {ops: {type: webhook, config: {url: "https://example.org/hook"}}, mail: {type: email, config: {to: a@b.de}}}
policies: {critical: {steps: [{channels: [ops]}]}}
heartbeats: {nightly: {mode: scheduled, schedule: "0 2 * * *", policy: critical}}
maintenance: [{name: reboot, startsAt: "2030-01-01T00:00:00Z", endsAt: "2030-01-02T00:00:00Z", all: true}]
systems: {db1: {interval: 60}}
"""


def loaded_by(arguments: list[str]) -> list[str]:
    """The heavy modules that one command has loaded."""
    told = (
        "import sys\nfrom lifesign.cli import main\n"
        f"main({arguments!r})\nprint(*[name for name in {HEAVY!r} if name in sys.modules])"
    )
    env = environment(LIFESIGN_URL="http://127.0.0.1:9", LIFESIGN_KEY="lsk_test")
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, env=env, timeout=60, check=True)
    return done.stdout.splitlines()[-1].split()


@pytest.mark.parametrize("arguments", [["checkin", "job"], ["run", "job", "--", "true"]])
def test_what_jobs_call_loads_nothing_heavy(arguments: list[str]) -> None:
    assert loaded_by(arguments) == []


def test_a_client_command_loads_nothing_of_the_server() -> None:
    # The full parser brings pydantic along.
    assert loaded_by(["heartbeats", "list"]) == ["pydantic", "typer"]


def test_an_apply_judges_every_kind_without_the_server(tmp_path: Path) -> None:
    (tmp_path / "project.yaml").write_text(PROJECT)

    # Models to judge by, and a client that keeps its connection: nothing else.
    assert loaded_by(["apply", "-f", str(tmp_path)]) == ["asyncio", "httpx2", "msgspec", "pydantic", "typer"]


def test_an_export_loads_nothing_of_the_server() -> None:
    assert loaded_by(["export"]) == ["asyncio", "httpx2", "msgspec", "pydantic", "typer"]


@pytest.mark.parametrize("name", ["checkin", "run", "agent"])
def test_the_short_way_knows_the_options_of_the_full_parser(name: str) -> None:
    root: Any = typer.main.get_command(app)  # Any: the classes of the parser have no public names
    options = [each for each in root.commands[name].params if each.param_type_name == "option"]

    assert sorted(quick.SWITCHES[name]) == sorted(each.opts[0] for each in options if each.is_flag)
    assert sorted(quick.VALUES[name]) == sorted(each.opts[0] for each in options if not each.is_flag)
    assert [each.opts for each in options if len(each.opts + each.secondary_opts) != 1] == []


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["job"], quick.Words(["job"], set(), {})),
        (["job", "--", "cmd", "--url", "x"], quick.Words(["job", "cmd", "--url", "x"], set(), {})),
        (["--key=a=b", "job", "--no-output"], quick.Words(["job"], {"--no-output"}, {"--key": "a=b"})),
        (["--heartbeat", "-x", "--", "-"], quick.Words(["-"], set(), {"--heartbeat": "-x"})),
        (["-", "--", "--"], quick.Words(["-", "--"], set(), {})),
    ],
)
def test_a_plain_command_line_is_taken_apart(arguments: list[str], wanted: quick.Words) -> None:
    assert quick.parted("run", arguments) == wanted


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["job", "--nope"], ["job", "--key"], ["--no-output=1"], ["-x"]]
)
def test_what_is_not_plain_is_left_to_the_full_parser(arguments: list[str]) -> None:
    assert quick.parted("run", arguments) is None


@pytest.mark.parametrize("arguments", [[], ["checkin"], ["checkin", "a", "b"], ["heartbeats", "list"], ["--version"]])
def test_other_commands_are_left_to_the_full_parser(arguments: list[str]) -> None:
    assert quick.command_of(arguments) is None
