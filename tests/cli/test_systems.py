"""`lifesign systems`: what it asks, what it shows, how it ends."""

import base64
import json
import re
import subprocess
import sys
import urllib.request

import pytest

from tests.cli.conftest import COMMAND, Server, environment, lifesign_command
from tests.harness import Json


def _beat(server: Server, made: Json) -> None:
    env = {"LIFESIGN_URL": server.url, "LIFESIGN_SYSTEM_ID": made["id"], "LIFESIGN_SYSTEM_SECRET": made["secret"]}
    assert lifesign_command("agent", "--once", env=env).code == 0


def test_a_new_system_is_shown_with_its_secret_on_the_last_line(server: Server) -> None:
    ran = server.command("systems", "create", "shown", "--type", "server", "--tag", "cli", "--interval", "1m")

    assert ran.code == 0
    lines = ran.text.splitlines()
    assert [line.split()[0] for line in lines[:-1]] == ["id", "key", "name"]
    assert re.fullmatch(r"lss_[0-9a-f]{64}", lines[-1])
    told = server.command("systems", "show", lines[0].split()[1]).text
    assert "zombie" in told
    assert "1m" in told
    assert lines[-1][4:] not in told


def test_json_is_the_data_of_the_answer_unchanged(server: Server) -> None:
    made = server.told("systems", "create", "as json", "--fqdn", "a.example.org", "--notes", "rack 7")

    shown = server.told("systems", "show", made["key"].lower())

    assert shown == {name: value for name, value in made.items() if name != "secret"}
    assert (shown["fqdn"], shown["notes"]) == ("a.example.org", "rack 7")


def test_an_id_and_a_secret_can_be_brought_along(server: Server) -> None:
    system_id = "4cf3053f-d0d5-4b10-b752-ff8f7b63c2f7"
    secret = "a secret of more than thirty-two characters"

    ran = server.command(
        "systems", "create", "brought", "--id", system_id, "--secret-stdin", stdin=secret.encode() + b"\n"
    )
    again = server.command("systems", "create", "brought", "--id", system_id)

    assert ran.text.splitlines()[-1] == secret
    _beat(server, {"id": system_id, "secret": secret})
    assert (again.code, again.err) == (1, "lifesign: system already exists\n")


def test_systems_are_listed_by_state_and_by_name(server: Server) -> None:
    for name in ("listed one", "listed two"):
        server.told("systems", "create", name, "--tag", "listed")
    _beat(server, server.told("systems", "create", "listed three", "--tag", "listed"))

    alive = server.told("systems", "list", "--tag", "listed", "--status", "alive")
    two = server.told("systems", "list", "--search", "LISTED", "--limit", "2")
    table = server.command("systems", "list", "--tag", "listed").text

    assert [each["name"] for each in alive["systems"]] == ["listed three"]
    assert len(two["systems"]) == 2
    assert "next_cursor" in two
    assert [line.split()[0] for line in table.splitlines()] == ["status", "alive", "zombie", "zombie"]
    assert "there are more" in server.command("systems", "list", "--tag", "listed", "--limit", "1").err


def test_a_system_is_changed_suspended_taken_again_and_deleted(server: Server) -> None:
    made = server.told("systems", "create", "changing", "--notes", "old", "--interval", "60")
    key = made["key"]

    changed = server.told("systems", "update", key, "--name", "changed", "--clear", "notes", "--clear", "interval")
    suspended = server.command("systems", "suspend", key)
    is_suspended = server.told("systems", "show", key)["suspended"]
    resumed = server.command("heartbeats", "resume", made["heartbeat_id"])
    reactivated = server.told("systems", "reactivate", key)
    secret = server.command("systems", "regenerate-secret", key).text.strip()
    unsure = server.command("systems", "delete", key)
    deleted = server.command("systems", "delete", key, "--yes")
    gone = server.command("systems", "show", key)

    assert (changed["name"], changed["notes"], changed["interval"]) == ("changed", "", None)
    assert (suspended.text, is_suspended, reactivated["suspended"]) == (f"suspended {key}\n", True, False)
    assert (resumed.code, resumed.err) == (4, f"lifesign: system {made['id']} is suspended\n")
    assert secret.startswith("lss_")
    assert secret != made["secret"]
    assert unsure.code == 2
    assert "--yes" in unsure.err
    assert (deleted.code, deleted.text) == (0, f"deleted system {key}\n")
    assert (gone.code, gone.err) == (1, f"lifesign: system not found: /api/systems/{key}\n")


def test_totals_and_the_trend_are_told(server: Server) -> None:
    _beat(server, server.told("systems", "create", "counted"))

    totals = server.told("systems", "totals", "--timeout", "30")
    trend = server.command("systems", "trend", "--period", "30").text

    assert totals["total_systems"] == totals["alive_systems"] + totals["dead_systems"] + totals["zombie_systems"]
    assert totals["timeout_minutes"] == 30
    assert "dead after  15m" in server.command("systems", "totals").text
    assert len(trend.splitlines()) == 32
    assert trend.endswith(" in 30 days\n")


def test_inventories_and_changes_are_shown(server: Server) -> None:
    made = server.told("systems", "create", "inventoried")
    basic = base64.b64encode(f"{made['id']}:{made['secret']}".encode()).decode()
    for version in ("12", "13"):
        request = urllib.request.Request(
            f"{server.url}/api/systems/inventory",
            json.dumps({"os": {"version": version}}).encode(),
            {"Authorization": f"Basic {basic}"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    table = server.command("systems", "changes", made["key"], "--severity", "high").text
    none = server.command("systems", "changes", made["key"], "--severity", "critical")

    assert table.splitlines()[1].split()[-5:] == ["os", "changed", "/os/version", '"12"', '"13"']
    assert (none.out, none.err) == (b"", "no changes\n")
    assert len(server.told("systems", "inventory", made["id"])["snapshots"]) == 2
    assert len(server.command("systems", "inventory", made["id"]).text.splitlines()) == 3
    assert server.command("systems", "inventory", made["id"], "--latest").json == {"os": {"version": "13"}}


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("create", " "), 1, "validation failed\n  name: required (not ' ')"),
        (("create", "a", "--interval", "5"), 1, "validation failed\n  interval: out of range (not '5')"),
        (("list", "--status", "sleepy"), 1, "validation failed\n  status: invalid value (not 'sleepy')"),
        (("totals", "--timeout", "61"), 1, "validation failed\n  timeout: out of range (not '61')"),
        (("update", "x"), 2, "nothing to change; 'lifesign systems update --help' lists what can be"),
        (("update", "x", "--clear", "name"), 2, "--clear: knows type, fqdn, notes, tags, interval, policy, not name"),
        (("update", "x", "--type", "a", "--clear", "type"), 2, "--clear: type cannot be given and cleared at once"),
        (("create", "a", "--interval", "soon"), 2, "--interval: 'soon' is not a duration"),
    ],
)
def test_what_cannot_be_done_is_told(server: Server, arguments: tuple[str, ...], code: int, message: str) -> None:
    ran = server.command("systems", *arguments)

    assert ran.code == code
    assert ran.err.startswith(f"lifesign: {message}")


def test_a_key_may_come_from_either_variable_and_a_server_that_is_away_is_told(server: Server) -> None:
    def run(**variables: str) -> subprocess.CompletedProcess[str]:
        command = [*COMMAND, "systems", "totals"]
        return subprocess.run(
            command, env=environment(**variables), capture_output=True, text=True, timeout=60, check=False
        )

    assert sys.executable == COMMAND[0]
    assert run(LIFESIGN_URL=server.url, LIFESIGN_API_KEY=server.key).returncode == 0
    assert run(LIFESIGN_URL=server.url, LIFESIGN_API_KEY="wrong").returncode == 1
    assert run(LIFESIGN_URL="http://127.0.0.1:9", LIFESIGN_API_KEY="x").returncode == 3
    assert run(LIFESIGN_URL=server.url).returncode == 2
