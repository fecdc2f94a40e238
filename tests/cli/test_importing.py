"""`lifesign import healthchecks`, from a second server of ours and from one that answers as a test says."""

import http.server
import json
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import COMMAND, Ran, Server, environment, lifesign_command, listening, running_server
from tests.cli.test_config import a_server, new_key
from tests.faults.server import until
from tests.postgres import Cluster

KEY = "key-of-the-source-server"


@dataclass(slots=True)
class Healthchecks:
    """A server that answers as Healthchecks does, with what a test gives it. busy: how often it is too busy first."""

    url: str = ""
    answers: dict[str, Any] = field(default_factory=dict)  # Any: JSON
    busy: int = 0
    asked: list[str] = field(default_factory=list)


@pytest.fixture
def foreign() -> Iterator[Healthchecks]:
    stage = Healthchecks()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            stage.asked.append(self.path)
            status, answer = 200, stage.answers.get(self.path)
            if self.headers["x-api-key"] != KEY:
                status, answer = 401, {"error": "wrong api key"}
            elif stage.busy:
                stage.busy -= 1
                status, answer = 429, {"error": "slow down"}
            elif answer is None:
                status, answer = 404, {"error": "not found"}
            content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.send_header("retry-after", "1")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as stage.url:
        yield stage


def check(number: int, **fields: Any) -> dict[str, Any]:  # Any: JSON
    uuid = f"0b7b1f6e-9c5e-4b8a-9d5e-{number:012x}"
    usual = {
        "name": f"Check {number}",
        "slug": f"check-{number}",
        "tags": "",
        "desc": "",
        "grace": 3600,
        "status": "up",
        "last_ping": "2026-01-05T11:00:00+00:00",
        "timeout": 86400,
        "uuid": uuid,
        "channels": "",
    }
    return usual | fields


def imported(server: Server, url: str, *options: str, key: str = KEY) -> Ran:
    env = server.env | {"HEALTHCHECKS_API_KEY": key}
    return lifesign_command("import", "healthchecks", "--url", url, *options, env=env)


def heartbeats(server: Server) -> dict[str, Any]:
    return {each["slug"]: each for each in server.told("heartbeats", "list")["heartbeats"]}


# From a whole server ------------------------------------------------------------------------------------------------
@contextmanager
def a_source(directory: Path, count: int) -> Iterator[Server]:
    """A server with `count` checks of all three kinds."""
    directory.mkdir()
    with running_server(directory / "data", LIFESIGN_ADMIN_KEY=KEY) as source:
        for number in range(count):
            body: dict[str, Any] = {"name": f"Job {number}", "slug": f"job-{number}", "tags": "a b", "grace": 120}
            match number % 3:
                case 0:
                    body |= {"timeout": 3600 + number}
                case 1:
                    body |= {"schedule": f"{number % 60} 2 * * *", "tz": "Europe/Berlin"}
                case _:
                    body |= {"schedule": f"Mon..Fri 06:{number % 60:02}", "tz": "America/New_York"}
            asked(source.url, "/api/v3/checks/", body)
        yield source


def asked(url: str, path: str, body: dict[str, Any] | None = None) -> Any:
    content = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, content, {"X-Api-Key": KEY})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read() or b"{}")


@pytest.mark.parametrize("stores", ["sqlite", "postgresql"])
def test_three_hundred_checks_are_taken_over_though_the_command_is_killed(
    request: pytest.FixtureRequest, stores: str, tmp_path: Path
) -> None:
    cluster: Cluster | None = None if stores == "sqlite" else request.getfixturevalue("cluster")
    state = tmp_path / "state.json"
    with a_source(tmp_path / "source", 300) as source, a_server(tmp_path, cluster) as server:
        checks = asked(source.url, "/api/v3/checks/")["checks"]
        asked(source.url, f"/api/v3/checks/{checks[5]['uuid']}/pause", {})
        process = subprocess.Popen(
            [*COMMAND, "import", "healthchecks", "--url", source.url, "--resume", str(state)],
            env=environment(**server.env, HEALTHCHECKS_API_KEY=KEY),
            stdout=subprocess.DEVNULL,
        )
        until(lambda: process.poll() is not None or (state.exists() and len(state.read_text().splitlines()) > 100))
        assert process.poll() is None
        process.kill()
        process.wait()
        assert 100 <= len(heartbeats(server)) < 300

        again = imported(server, source.url, "--resume", str(state))
        third = imported(server, source.url, "--resume", str(state))
        fourth = imported(server, source.url)

        assert again.code == 0, again.err
        assert third.text == fourth.text == "0 created, 300 already there\n"
        made = heartbeats(server)
        assert len(made) == 300
        for each in checks:
            ours = made[each["slug"]]
            assert ours["pingUrl"].endswith(each["uuid"])
            assert (ours["grace"], ours["tags"]) == (120, ["a", "b"])
            if "schedule" in each:
                assert (ours["schedule"], ours["timezone"]) == (each["schedule"], each["tz"])
            else:
                assert ours["interval"] == each["timeout"]
        assert made[checks[5]["slug"]]["status"] == "paused"
        assert [each["status"] for each in made.values()].count("active") == 299
        # An old ping URL, at the new address.
        with urllib.request.urlopen(f"{server.url}/ping/{checks[7]['uuid']}", timeout=20) as answer:
            assert answer.status == 200
        assert "lastCheckin" in heartbeats(server)[checks[7]["slug"]]
        assert "lastCheckin" not in heartbeats(server)[checks[8]["slug"]]


# From one that answers as a test says -------------------------------------------------------------------------------
def test_channels_of_the_same_name_are_used_and_the_others_listed(server: Server, foreign: Healthchecks) -> None:
    channel = server.told("channels", "create", "email", "--name", "on call (hc)", "--to", "a@example.org")
    policy = server.told("policies", "create", "hc standard", "--step", channel["id"])
    foreign.answers = {
        "/api/v3/checks/": {"checks": [check(1, channels="c-1,c-2")]},
        "/api/v3/channels/": {
            "channels": [
                {"id": "c-1", "name": "on call (hc)", "kind": "email"},
                {"id": "c-2", "name": "", "kind": "slack"},
            ]
        },
    }

    ran = imported(server, foreign.url, "--policy", "hc standard")

    assert ran.code == 0, ran.err
    assert ran.text == (
        "1 created, 0 already there\nchannels that have no counterpart of the same name here:\n  slack\n"
    )
    made = heartbeats(server)["check-1"]
    assert (made["channels"], made["policy"], made["origin"]) == ([channel["id"]], policy["id"], "import")


def test_history_comes_along_once(server: Server, foreign: Healthchecks) -> None:
    one = check(2)
    flips = [
        {"timestamp": "2026-01-02T11:00:00+00:00", "up": 1},
        {"timestamp": "2026-01-02T10:00:00+00:00", "up": 0},
    ]
    foreign.answers = {
        "/api/v3/checks/": {"checks": [one]},
        "/api/v3/channels/": {"channels": []},
        f"/api/v3/checks/{one['uuid']}/flips/": flips,
    }

    first, second = (imported(server, foreign.url, "--history") for _ in range(2))

    assert first.text == "1 created, 0 already there, 2 events of history\n"
    assert second.text == "0 created, 1 already there\n"
    told = server.told("heartbeats", "events", "check-2")["events"]
    assert [(each["type"], each["metadata"].get("imported")) for each in told] == [
        ("resolved", True),
        ("firing", True),
        ("created", None),
    ]


def test_what_is_in_the_way_is_listed_and_left_alone(server: Server, foreign: Healthchecks) -> None:
    server.told("heartbeats", "create", "Check 3", "--every", "1h")
    before = heartbeats(server)["check-3"]
    foreign.answers = {
        "/api/v3/checks/": {"checks": [check(3), check(4), check(5, slug="check-4"), check(6, tags="x" * 101)]},
        "/api/v3/channels/": {"channels": []},
    }

    ran = imported(server, foreign.url)

    assert ran.code == 4
    assert ran.err == "lifesign: 3 of 4 checks were not taken over\n"
    lines = ran.text.splitlines()
    assert lines[:4] == [
        "1 created, 0 already there",
        "not taken over:",
        "  Check 3: its slug check-3 is taken",
        "  Check 5: its slug check-4 is taken",
    ]
    assert lines[4] == "refused:"
    assert lines[5].startswith("  Check 6: Invalid request: tags[0] must be 1 to 100 characters without whitespace")
    assert heartbeats(server)["check-3"] == before


def test_a_dry_run_makes_nothing(server: Server, foreign: Healthchecks, tmp_path: Path) -> None:
    foreign.answers = {"/api/v3/checks/": {"checks": [check(7)]}, "/api/v3/channels/": {"channels": []}}
    state = tmp_path / "state"

    ran = imported(server, foreign.url, "--dry-run", "--history", "--resume", str(state))

    assert (ran.code, ran.text) == (0, "+ heartbeat Check 7\n1 to create, 0 already there\n")
    assert "check-7" not in heartbeats(server)
    assert not state.exists()


def test_a_server_of_the_first_version_that_is_busy_is_waited_for(server: Server, foreign: Healthchecks) -> None:
    old = {name: value for name, value in check(8).items() if name not in {"uuid", "slug"}}
    uuid = check(8)["uuid"]
    foreign.answers = {
        "/api/v1/checks/": {"checks": [old | {"ping_url": f"https://hc.example.org/{uuid}"}]},
        "/api/v1/channels/": {"channels": []},
    }
    foreign.busy = 1

    ran = imported(server, foreign.url)

    assert ran.code == 0, ran.err
    assert heartbeats(server)["check-8"]["pingUrl"].endswith(uuid)
    assert foreign.asked == ["/api/v3/checks/", "/api/v3/checks/", "/api/v1/checks/", "/api/v1/channels/"]


@pytest.mark.parametrize(
    ("checks", "code", "words"),
    [
        ({"checks": [{**check(9), "uuid": None, "unique_key": "a6c7"}]}, 2, "the API key may only read"),
        ({"checks": [{**check(9), "grace": "long"}]}, 1, "does not answer as Healthchecks does: grace is not a number"),
        ({"hello": "world"}, 1, "does not answer as Healthchecks does: there is no list of checks"),
        (b"<html>", 1, "is not JSON"),
        (None, 1, "answers checks/ with status 404"),
    ],
)
def test_an_answer_that_cannot_be_taken_over_is_told(
    server: Server, foreign: Healthchecks, checks: object, code: int, words: str
) -> None:
    foreign.answers = {"/api/v3/checks/": checks, "/api/v3/channels/": {"channels": []}}

    ran = imported(server, foreign.url)

    assert ran.code == code
    assert words in ran.err
    assert "check-9" not in heartbeats(server)


def test_wrong_keys_and_absent_servers_are_told(server: Server, foreign: Healthchecks) -> None:
    assert imported(server, foreign.url, key="wrong").code == 4
    without = lifesign_command("import", "healthchecks", "--url", "http://x", env=server.env)
    assert "set HEALTHCHECKS_API_KEY" in without.err
    narrow = new_key(server, "heartbeats:read")
    foreign.answers = {"/api/v3/checks/": {"checks": []}, "/api/v3/channels/": {"channels": []}}
    env = server.env | {"LIFESIGN_KEY": narrow["token"], "HEALTHCHECKS_API_KEY": KEY}
    ran = lifesign_command("import", "healthchecks", "--url", foreign.url, env=env)
    assert (ran.code, ran.err) == (4, "lifesign: the key lacks heartbeats:write; nothing was changed\n")


def test_a_state_of_something_else_is_told(server: Server, foreign: Healthchecks, tmp_path: Path) -> None:
    state = tmp_path / "state"
    another = '{"source": "http://other"}'
    for content, words in (("{}", "is not the state"), ("", "is not the state"), (another, "belongs to")):
        state.write_text(content)
        ran = imported(server, foreign.url, "--resume", str(state))
        assert ran.code == 2
        assert words in ran.err
