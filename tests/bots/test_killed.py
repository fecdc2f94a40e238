"""A server that is killed while it does a run of a bot."""

import contextlib
import json
import socket
import sys
from pathlib import Path

import httpx2
import pytest

from tests.faults.server import Server, serving, until
from tests.harness import Json

MANUAL = {"testing": 1, "clock": "manual"}
PROGRAM = """
import json, os, sys, time
job = json.load(sys.stdin)
print(json.dumps({"type": "usage", "input_tokens": 1000, "output_tokens": 0, "requests": 1}), flush=True)
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
time.sleep(600)
"""


def _asked(server: Server, method: str, path: str, **body: object) -> Json:
    if method == "GET":
        query = "&".join(f"{name}={value}" for name, value in {"project_id": "default", **body}.items())
        return server.ask("GET", f"/v1/bot{path}?{query}")
    return server.ask(method, f"/v1/bot{path}", {"project_id": "default", **body})


def test_a_run_whose_server_was_killed_is_lost_counted_and_followed_by_the_next_slot(tmp_path: Path) -> None:
    program, pid = tmp_path / "slow.py", tmp_path / "pid"
    program.write_text(PROGRAM)
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    argv = json.dumps([sys.executable, str(program), str(pid)])
    (data / "bots.toml").write_text(f"[commands.slow]\nargv = {argv}\n")
    with serving(tmp_path, **MANUAL, clock_start="2026-01-05T12:00:00Z") as server:
        options = {"runner": {"kind": "command", "command": "slow"}}
        bot = _asked(server, "POST", "/create", name="b", heartbeat=1, model="m", lifesign=options)["bot"]
        made = _asked(server, "POST", "/heartbeat/configure", bot_id=bot["id"], prompt="p", enabled=1)["heartbeat"]
        # The clock is turned in another call, which ends with the server.
        with contextlib.suppress(httpx2.HTTPError):
            server.request("POST", "/_test/advance", {"ms": 30 * 60_000}, timeout_s=0.5)
        until(pid.exists)
        until(lambda: _runs(server, bot, status="running")[0]["credits_charged"] == 1)
        server.kill()

    with serving(tmp_path, **MANUAL, clock_start="2026-01-05T12:30:20Z") as server:
        server.ask("POST", "/_test/advance", {"ms": 50_000})
        (lost,) = _runs(server, bot)
        after = _asked(server, "GET", "/heartbeat/read", bot_id=bot["id"], heartbeat_id=made["uuid"])["heartbeat"]

    assert (lost["status"], lost["lifesign"]["reason"], lost["credits_charged"]) == ("error", "lost", 1)
    assert lost["lifesign"]["finished_at"] <= "2026-01-05T12:31:10.000Z"
    assert (after["error_count"], after["execution_count"], after["lifesign"]["credits_reserved"]) == (1, 1, 0)
    assert after["lifesign"]["next_run_at"] == "2026-01-05T13:00:00.000Z"


# One process in the group of the program, one in a session of its own, one that is nobody's child any more.
FAMILY = """
import os, subprocess, sys, time
subprocess.Popen(["sleep", "600"])
subprocess.Popen(["sleep", "600"], start_new_session=True)
subprocess.run(["sh", "-c", "setsid sleep 600 & exec true"], check=True)
with open(sys.argv[1], "w") as file:
    file.write("begun")
time.sleep(600)
"""


@pytest.mark.parametrize("kind", ["command", "builtin"])
def test_nothing_of_a_run_outlives_a_server_that_is_killed(tmp_path: Path, kind: str) -> None:
    program, begun = tmp_path / "family.py", tmp_path / "begun"
    program.write_text(FAMILY)
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    argv = json.dumps([sys.executable, str(program), str(begun)])
    (data / "bots.toml").write_text(f"[commands.family]\nargv = {argv}\n[mcp.family]\nargv = {argv}\n")
    runner = {"runner": {"kind": kind} | ({"command": "family"} if kind == "command" else {})}
    with socket.create_server(("127.0.0.1", 0)) as silent, serving(tmp_path) as server:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}/v1"
        _asked(server, "PUT", "/settings", providers=[{"name": "silent", "kind": "openai", "base_url": url}])
        options = runner | {"tools": ["mcp:family/*"]}
        bot = _asked(server, "POST", "/create", name="b", heartbeat=1, model="m", lifesign=options)["bot"]
        made = _asked(server, "POST", "/heartbeat/configure", bot_id=bot["id"], prompt="p")["heartbeat"]
        ref = {"project_id": "default", "bot_id": bot["id"], "heartbeat_id": made["uuid"]}
        server.ask("POST", "/v1/bot/heartbeat/trigger?async=true", ref, expect=202)
        until(begun.exists)
        # What nobody waits for may not have become what it will be yet.
        until(lambda: sum(_words(each)[:1] == ["sleep"] for each in _descendants(server.process.pid)) == 3)
        family = _descendants(server.process.pid)

        server.kill()

        until(lambda: not [each for each in family if _is_alive(each)])


def _descendants(pid: int) -> set[int]:
    """The processes that a process has begun, and those that they have."""
    found: set[int] = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (task / "children").read_text().split()):
            found |= {child} | _descendants(child)
    return found


def _words(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/cmdline").read_text().split("\0")


def _is_alive(pid: int) -> bool:
    """Whether a process runs; one that ended is there for as long as nobody asks how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def _runs(server: Server, bot: Json, **query: str) -> list[Json]:
    found: list[Json] = _asked(server, "GET", "/heartbeat/logs", bot_id=bot["id"], **query)["logs"]
    return found
