"""Commands against a real server: what they change there, and how they end."""

import http.server
import json
import re
import socket
import sqlite3
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from lifesign.cli import main, remote
from lifesign.cli.doctor import clock_difference, directory, free_space, secret_key, spelling
from lifesign.cli.remote import Answer
from lifesign.db import migrate
from lifesign.db.open import data_directory_lock
from lifesign.settings import Settings
from lifesign.telemetry.stores.open import CHAIN
from tests.cli.conftest import Server, lifesign_command, running_server
from tests.postgres import Databases

NOWHERE = "http://127.0.0.1:9"
ROUTING_KEY = "0123456789abcdef0123456789abcdef"


@contextmanager
def running_page() -> Iterator[str]:
    """A web server that knows nothing of us."""
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


# Heartbeats, policies, channels -------------------------------------------------------------------------------------
def test_a_heartbeat_is_created_as_its_options_say(server: Server) -> None:
    made = server.told(
        "heartbeats", "create", "Every Option", "--at", "0 2 * * *", "--timezone", "Europe/Berlin", "--grace", "10m",
        "--slug", "every-option", "--namespace", "prod", "--tag", "a", "--tag", "b", "--metadata", '{"k": 1}',
        "--description", "why", "--no-sticky-pause", "--unarmed",
    )  # fmt: skip

    shown = server.told("heartbeats", "get", "every-option")
    assert shown == made
    assert {name: value for name, value in shown.items() if name not in {"id", "createdAt", "pingUrl"}} == {
        "name": "Every Option",
        "slug": "every-option",
        "mode": "scheduled",
        "schedule": "0 2 * * *",
        "timezone": "Europe/Berlin",
        "grace": 600,
        "status": "active",
        "armed": False,
        "namespace": "prod",
        "tags": ["a", "b"],
        "metadata": {"k": 1},
        "description": "why",
        "stickyPause": False,
    }


@pytest.mark.parametrize(("option", "mode"), [("--every", "recurring"), ("--once", "oneshot")])
def test_every_and_once_take_durations(server: Server, option: str, mode: str) -> None:
    made = server.told("heartbeats", "create", "Timed", option, "1h30m")

    assert (made["mode"], made["interval"]) == (mode, 5400)


def test_an_update_changes_what_is_given_and_clears_what_is_named(server: Server) -> None:
    server.told("heartbeats", "create", "To Update", "--every", "1h", "--description", "old", "--tag", "x")

    changed = server.told("heartbeats", "update", "to-update", "--grace", "5m", "--clear", "description")

    assert (changed["interval"], changed["grace"], changed["tags"]) == (3600, 300, ["x"])
    assert "description" not in changed


def test_the_life_of_a_heartbeat(server: Server) -> None:
    server.told("heartbeats", "create", "Whole Life", "--every", "1h")

    assert server.command("heartbeats", "pause", "whole-life").text == "paused whole-life\n"
    assert server.command("heartbeats", "resume", "whole-life").text.startswith("resumed whole-life; next check-in")
    assert server.command("checkin", "whole-life", "--unhealthy", "--metadata", '{"rows": 0}').text.startswith(
        "firing;"
    )
    acked = server.command("heartbeats", "ack", "whole-life", "--message", "on it")
    assert acked.text == "acknowledged whole-life after 0 steps\n"
    assert server.command("checkin", "whole-life").text.startswith("active; next check-in expected by 20")

    types = [event["type"] for event in server.told("heartbeats", "events", "whole-life")["events"]]
    assert types[0] == "checkin"
    assert {"created", "paused", "resumed", "checkin_unhealthy", "firing", "acked"} <= set(types)
    [firing] = server.told("heartbeats", "events", "whole-life", "--type", "firing")["events"]
    [incident] = server.told("incidents", "list", "--heartbeat", "whole-life")["incidents"]
    assert firing["metadata"]["incident"] == incident["id"]
    assert server.told("incidents", "get", incident["id"])["message"] == "on it"
    assert "whole-life" in server.command("heartbeats", "list", "--search", "WHOLE").text

    assert server.command("heartbeats", "delete", "whole-life").text == "deleted heartbeat whole-life\n"
    assert server.command("heartbeats", "get", "whole-life").code == 4


def test_what_keeps_a_heartbeat_quiet(server: Server) -> None:
    server.told("heartbeats", "create", "Quiet router", "--every", "1h")
    made = server.told(
        "heartbeats", "create", "Quiet", "--every", "1h", "--tolerance", "2/3", "--depends-on", "quiet-router"
    )
    assert made["tolerance"] == {"failures": 2, "window": 3}
    assert len(made["dependsOn"]) == 1
    cleared = server.told("heartbeats", "update", "quiet", "--clear", "tolerance", "--clear", "dependsOn")
    assert {"tolerance", "dependsOn"} & set(cleared) == set()

    assert server.told("heartbeats", "snooze", "quiet", "2h", "--reason", "away")["reason"] == "away"
    assert server.command("heartbeats", "unsnooze", "quiet").text == "ended the snooze of quiet\n"
    assert server.command("heartbeats", "unsnooze", "quiet").code == 4
    for words, option in (
        (["snooze", "quiet", "soon"], "DURATION"),
        (["update", "quiet", "--tolerance", "two"], "--tolerance"),
    ):
        wrong = server.command("heartbeats", *words)
        assert wrong.code == 2
        assert option in wrong.err


def test_runs_are_shown_with_how_long_they_take(server: Server) -> None:
    server.told("heartbeats", "create", "Shown runs", "--every", "1h")
    assert "no such runs" in server.command("heartbeats", "runs", "shown-runs").err
    server.command("run", "shown-runs", "--lease", "60", "--", "true")

    lines = server.command("heartbeats", "runs", "shown-runs").text.splitlines()

    assert lines[1].split()[0] == "finished"
    assert lines[-1].startswith("1 ended well: median ")


def test_maintenance_windows_are_made_listed_and_deleted(server: Server) -> None:
    server.told("heartbeats", "create", "In maintenance", "--every", "1h")
    once = server.told("maintenance", "create", "Deploy", "--duration", "30m", "--heartbeat", "in-maintenance")
    words = ["--at", "0 3 * * SUN", "--duration", "1h", "--timezone", "Europe/Berlin", "--tag", "db"]
    again = server.told("maintenance", "create", "Reboot", *words)
    assert once["active"] is True
    assert server.told("heartbeats", "get", "in-maintenance")["maintenance"] is True
    assert (again["schedule"], again["duration"], again["tags"]) == ("0 3 * * SUN", 3600, ["db"])

    shown = server.command("maintenance", "list").text
    assert "0 3 * * SUN Europe/Berlin for 1h" in shown
    for window in (once, again):
        assert server.command("maintenance", "delete", window["id"]).code == 0
    assert server.told("maintenance", "list")["maintenance"] == []
    for wrong in (
        ["--duration", "1h"],
        ["--duration", "1h", "--all", "--tag", "db"],
        ["--duration", "1h", "--all", "--start", "now", "--at", "0 3 * * *"],
        ["--duration", "soon", "--all"],
        ["--all"],
    ):
        assert server.command("maintenance", "create", "Wrong", *wrong).code == 2


def test_a_repeated_check_in_with_one_idempotency_key_counts_once(server: Server) -> None:
    server.told("heartbeats", "create", "Counted Once", "--every", "1h")

    for _ in range(2):
        assert server.command("checkin", "counted-once", "--idempotency-key", "run-17").code == 0
    server.command("checkin", "counted-once")

    assert len(server.told("heartbeats", "events", "counted-once", "--type", "checkin")["events"]) == 2


def test_lists_go_on_over_pages_up_to_the_limit(server: Server) -> None:
    for _ in range(3):
        server.told("heartbeats", "create", "Paged", "--every", "1h", "--namespace", "paged")

    everything = server.told("heartbeats", "list", "--namespace", "paged")
    cut = server.told("heartbeats", "list", "--namespace", "paged", "--limit", "2")
    table = server.command("heartbeats", "list", "--namespace", "paged", "--limit", "2")

    assert [row["slug"] for row in everything["heartbeats"]] == ["paged", "paged-2", "paged-3"]
    assert [row["slug"] for row in cut["heartbeats"]] == ["paged", "paged-2"]
    assert "nextCursor" in cut
    assert table.text.count("\n") == 3
    assert "--limit" in table.err


def test_a_list_without_limit_is_whole_however_small_its_pages(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        server.told("heartbeats", "create", "Whole", "--every", "1h", "--namespace", "whole")
    monkeypatch.setattr(remote, "MAX_PAGE", 2)
    api = remote.Api(remote.over_network(server.url, server.key))

    everything = api.rows("/v1/heartbeats", "heartbeats", None, namespace="whole")
    cut = api.rows("/v1/heartbeats", "heartbeats", 3, namespace="whole")

    slugs = ["whole", "whole-2", "whole-3", "whole-4", "whole-5"]
    assert [row["slug"] for row in everything["heartbeats"]] == slugs
    assert [row["slug"] for row in cut["heartbeats"]] == slugs[:3]


def test_a_policy_is_made_of_its_steps(server: Server) -> None:
    channel = server.told("channels", "create", "email", "--name", "Steps", "--to", "a@example.org")["id"]

    made = server.told(
        "policies",
        "create",
        "Two steps",
        "--step",
        channel,
        "--step",
        f"{channel}:wait=5m:message=late: {{{{name}}}}",
        "--repeat",
    )
    changed = server.told("policies", "update", made["id"], "--json-steps", json.dumps([{"channels": [channel]}]))

    assert made["steps"] == [{"channels": [channel]}, {"channels": [channel], "wait": 300, "message": "late: {{name}}"}]
    assert made["repeatLastStep"] is True
    assert (changed["steps"], changed["repeatLastStep"]) == ([{"channels": [channel]}], True)
    assert "after 5m" not in server.command("policies", "get", made["id"]).text
    assert made["id"] in server.command("policies", "list").text


def test_what_is_in_use_is_deleted_by_force_only_and_its_users_are_named(server: Server) -> None:
    channel = server.told("channels", "create", "email", "--name", "Used", "--to", "a@example.org")["id"]
    policy = server.told("policies", "create", "Used", "--step", channel)["id"]
    server.told("heartbeats", "create", "The User", "--every", "1h", "--policy", policy)

    refused = server.command("policies", "delete", policy)

    assert refused.code == 4
    assert refused.err.startswith("lifesign: Policy is in use\n  used by heartbeat The User (hb_")
    assert server.command("policies", "delete", policy, "--force").code == 0
    assert server.command("channels", "delete", channel).text == f"deleted channel {channel}\n"


def test_channels_of_every_type_can_be_made_with_their_secrets_from_elsewhere(server: Server, tmp_path: Path) -> None:
    (tmp_path / "slack").write_text("https://hooks.example.org/services/T000/B000/abcdefgh\n")

    email = server.told("channels", "create", "email", "--name", "c", "--to", "a@example.org", "--to", "b@example.org")
    hook = server.told(
        "channels", "create", "webhook", "--name", "c", "--target", "https://example.org/h", "--header", "X-A: 1"
    )
    slack = server.told("channels", "create", "slack", "--name", "c", "--webhook-url-file", str(tmp_path / "slack"))
    pager = server.command(
        "channels",
        "create",
        "pagerduty",
        "--name",
        "c",
        "--routing-key-file",
        "-",
        "--json",
        stdin=ROUTING_KEY.encode(),
    ).json
    from_variable = lifesign_command(
        "channels", "create", "pagerduty", "--name", "c", "--severity", "warning", "--json",
        env=server.env | {"LIFESIGN_PAGERDUTY_ROUTING_KEY": ROUTING_KEY},
    ).json  # fmt: skip
    sms = server.told("channels", "create", "sms", "--name", "c", "--to", "+15550100200")

    assert email["config"] == {"to": ["a@example.org", "b@example.org"]}
    assert hook["config"]["secret"].startswith("whsec_")
    assert list(hook["config"]["headers"]) == ["X-A"]
    assert slack["config"] == {"webhookUrl": "https://hooks.example.org/****efgh"}
    assert pager["config"] == {"routingKey": "****cdef"}
    assert from_variable["config"] == {"routingKey": "****cdef", "severity": "warning"}
    assert sms["config"] == {"to": ["+15550100200"]}
    assert server.told("channels", "update", sms["id"], "--name", "Renamed")["name"] == "Renamed"
    assert "Renamed" in server.command("channels", "list").text


def test_a_channel_that_cannot_send_fails_its_test(server: Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    channel = server.told("channels", "create", "webhook", "--name", "t", "--target", f"http://127.0.0.1:{port}/")["id"]

    ran = server.command("channels", "test", channel)

    assert ran.code == 1
    assert ran.err.startswith("lifesign: the test did not arrive: ")
    [told] = server.told("notifications", "list", "--channel", channel)["notifications"]
    assert told["kind"] == "test"


# How commands end ---------------------------------------------------------------------------------------------------
def test_a_refusal_names_each_faulty_field(server: Server) -> None:
    ran = server.command(
        "heartbeats", "create", "Faulty", "--every", "0", "--grace", "2000d", "--timezone", "Mars/Base"
    )

    first, *rest = ran.err.splitlines()
    assert ran.code == 4
    assert first.startswith("lifesign: Invalid request: ")
    assert sorted(line.split(":")[0] for line in rest) == ["  grace", "  interval", "  timezone"]


def test_a_key_that_is_not_good_is_refused_with_the_way_to_a_good_one(server: Server) -> None:
    ran = lifesign_command("heartbeats", "list", env=server.env | {"LIFESIGN_KEY": "lsk_wrong"})

    assert ran.code == 4
    assert "Missing or invalid API key" in ran.err
    assert "lifesign keys create" in ran.err


def test_a_server_that_is_not_there_is_told_from_one_that_refuses() -> None:
    ran = lifesign_command("heartbeats", "list", "--url", NOWHERE, "--key", "lsk_test")

    assert (ran.code, ran.text) == (3, "")
    assert ran.err == f"lifesign: cannot reach {NOWHERE}: connection refused; is the server running there?\n"


def test_an_address_that_belongs_to_something_else_is_told() -> None:
    with running_page() as url:
        ran = lifesign_command("heartbeats", "list", "--url", url, "--key", "lsk_test")

    assert ran.code == 1
    assert "is not Lifesign's" in ran.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["checkin"], "missing argument 'REF'"),
        (["checkin", "x", "--nope"], "no such option: --nope"),
        (["nope"], "no such command 'nope'"),
        (["checkin", "x"], "no API key: set LIFESIGN_KEY"),
        (["checkin", "x", "--key", "k", "--url", "ftp://x"], "is not the address of a server"),
        (["checkin", "..", "--key", "k"], "is neither an id nor a slug"),
        (["checkin", "x", "--key", "two\nlines"], "the key has characters that no key has"),
        (["checkin", "x", "--key", "k", "--idempotency-key", "\u00e4"], "--idempotency-key"),
        (["heartbeats", "create", "x", "--key", "k"], "say when it must check in"),
        (["heartbeats", "create", "x", "--key", "k", "--every", "1h", "--once", "1h"], "exclude each other"),
        (["heartbeats", "update", "x", "--key", "k"], "nothing to change"),
        (["heartbeats", "list", "--limit", "0"], "invalid value for '--limit': must be greater than or equal to 1 ("),
        (["diagnose", "--format", "xml"], "invalid value for '--format': 'xml' is not one of"),
        (["heartbeats", "update", "x", "--key", "k", "--clear", "name"], "does not know 'name'"),
        (["policies", "create", "x", "--key", "k"], "give at least one step"),
        (["channels", "create", "slack", "--name", "x", "--key", "k"], "give --webhook-url"),
        (["serve", "--port", "65536"], "--port"),
    ],
)
def test_wrong_usage_is_one_line_and_exit_code_2(
    arguments: list[str], told: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("LIFESIGN_KEY", "LIFESIGN_URL", "LIFESIGN_SLACK_WEBHOOK_URL"):
        monkeypatch.delenv(name, raising=False)

    code = main(arguments)

    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert err.startswith("lifesign: ")
    assert told in err
    assert err.count("\n") == 1


def test_what_nobody_expected_is_one_line_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr("lifesign.cli.options.api", broken)

    assert main(["heartbeats", "list", "--key", "k"]) == 1
    assert capsys.readouterr().err == "lifesign: unexpected RuntimeError: first second\n"


# The operator's commands, and the server ----------------------------------------------------------------------------
def test_keys_are_made_listed_and_revoked_while_the_server_runs(server: Server) -> None:
    where = ("--data-dir", str(server.data_dir))

    made = lifesign_command("keys", "create", "--name", "ci", "--scope", "checkins:write", "--expires", "30d", *where)
    listed = lifesign_command("keys", "list", "--json", *where).json["keys"]
    [key_id] = [key["id"] for key in listed if key["name"] == "ci"]

    token = made.text.strip()
    assert token.startswith("lsk_")
    assert lifesign_command("policies", "list", env=server.env | {"LIFESIGN_KEY": token}).err == (
        "lifesign: Missing scope: policies:read\n  the key lacks the scope policies:read\n"
    )
    assert lifesign_command("keys", "revoke", key_id, *where).text == f"revoked key {key_id}\n"
    assert "Missing or invalid" in lifesign_command("policies", "list", env=server.env | {"LIFESIGN_KEY": token}).err


def test_keys_are_made_without_a_server_and_hold_when_one_starts(tmp_path: Path) -> None:
    with running_server(tmp_path / "data"):
        pass

    made = lifesign_command("keys", "create", "--name", "later", "--data-dir", str(tmp_path / "data"))
    listed = lifesign_command("keys", "list", "--data-dir", str(tmp_path / "data"))

    assert (made.err, listed.err) == ("", "")
    assert "later" in listed.text
    with running_server(tmp_path / "data", LIFESIGN_ADMIN_KEY="an-admin-key-of-mine") as restarted:
        env = {"LIFESIGN_URL": restarted.url, "LIFESIGN_KEY": made.text.strip()}
        assert lifesign_command("heartbeats", "list", env=env).code == 0


@pytest.mark.parametrize("words", [("keys", "list"), ("users", "add", "ada@example.org")], ids=lambda words: words[0])
def test_a_project_that_does_not_exist_is_named(words: tuple[str, ...], server: Server) -> None:
    ran = lifesign_command(*words, "--project", "nowhere", "--data-dir", str(server.data_dir))

    assert (ran.code, ran.err) == (4, "lifesign: Invalid request: project 'nowhere' does not exist\n")


def test_an_account_that_does_not_exist_is_named_and_nothing_else(server: Server) -> None:
    ran = lifesign_command("users", "reset", "nobody@example.org", "--data-dir", str(server.data_dir))

    assert (ran.code, ran.err) == (4, "lifesign: no account has the address nobody@example.org\n")


def test_where_no_server_has_run_the_operator_makes_no_database_by_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LIFESIGN_DATA_DIR", raising=False)

    assert main(["keys", "create", "--name", "ci"]) == 2

    told = capsys.readouterr()
    assert told.out == ""
    assert told.err.startswith(f"lifesign: there is no database in {tmp_path / 'data'}; name the server's directory")
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_named_is_made_for_the_first_start(tmp_path: Path) -> None:
    made = lifesign_command("keys", "create", "--name", "ci", "--data-dir", str(tmp_path / "data"))

    assert (made.code, made.err) == (0, "")
    with running_server(tmp_path / "data", LIFESIGN_ADMIN_KEY="an-admin-key-of-mine") as server:
        env = {"LIFESIGN_URL": server.url, "LIFESIGN_KEY": made.text.strip()}
        assert lifesign_command("heartbeats", "list", env=env).code == 0


def test_a_data_directory_held_by_something_without_a_socket_is_told(tmp_path: Path) -> None:
    with data_directory_lock(tmp_path):
        keys = lifesign_command("keys", "list", "--data-dir", str(tmp_path))
        migrate = lifesign_command("migrate", "--data-dir", str(tmp_path))
        serve = lifesign_command("serve", "--port", "0", "--data-dir", str(tmp_path))

    assert (keys.code, migrate.code, serve.code) == (1, 1, 1)
    assert "does not answer on admin.sock" in keys.err
    assert "is in use by process" in migrate.err
    assert "is in use by process" in serve.err


def test_migrate_tells_from_where_to_where(tmp_path: Path) -> None:
    first = lifesign_command("migrate", "--data-dir", str(tmp_path))
    second = lifesign_command("migrate", "--data-dir", str(tmp_path))

    assert first.text.startswith("the schema went from nothing to revision ")
    assert second.text.startswith("the schema is at revision ")


def test_faulty_settings_are_named_without_their_values() -> None:
    ran = lifesign_command(
        "serve",
        env={"LIFESIGN_ADMIN_KEY": "tooshort", "LIFESIGN_SMTP_PORT": "hunter2", "LIFESIGN_LOG_FORMAT": "pretty"},
    )

    assert ran.code == 2
    assert [line.split(":")[0] for line in sorted(ran.err.splitlines())] == [
        "  LIFESIGN_ADMIN_KEY",
        "  LIFESIGN_LOG_FORMAT",
        "  LIFESIGN_SMTP_PORT",
        "lifesign",
    ]
    assert not any(value in ran.err for value in ("tooshort", "hunter2", "pretty"))


def test_options_of_serve_win_over_the_environment(tmp_path: Path) -> None:
    ran = lifesign_command(
        "serve", "--host", "192.0.2.1", "--port", "0", "--data-dir", str(tmp_path), env={"LIFESIGN_HOST": "127.0.0.1"}
    )

    assert ran.code == 1
    assert "cannot listen on 192.0.2.1:0" in ran.err


def test_on_postgresql_the_operator_needs_neither_socket_nor_lock(cluster: Databases, tmp_path: Path) -> None:
    with cluster.new_database() as url, data_directory_lock(tmp_path):
        env = {"LIFESIGN_DATABASE_URL": url, "LIFESIGN_DATA_DIR": str(tmp_path)}
        migrated = lifesign_command("migrate", env=env)
        again = lifesign_command("migrate", env=env)
        made = lifesign_command("keys", "create", "--name", "first", env=env)
        listed = lifesign_command("keys", "list", env=env)
        doctor = lifesign_command("doctor", "--json", env=env)

    assert migrated.text.startswith("the schema went from nothing to revision ")
    assert "the schema of telemetry went from nothing to revision " in migrated.text
    assert re.fullmatch(
        r"the schema is at revision .+ already\nthe schema of telemetry is at revision .+ already\n?", again.text
    )
    assert made.text.startswith("lsk_")
    assert "first" in listed.text
    checks = {row["check"]: row["result"] for row in doctor.json["checks"]}
    assert (checks["database"], checks["records"]) == ("ok", "ok")
    assert "lock" not in checks


# Doctor -------------------------------------------------------------------------------------------------------------
def test_the_doctor_finds_a_running_server_well(server: Server) -> None:
    ran = lifesign_command("doctor", "--data-dir", str(server.data_dir), "--url", server.url, "--json")

    results = {row["check"]: row["result"] for row in ran.json["checks"]}
    found = {row["check"]: row["found"] for row in ran.json["checks"]}
    assert ran.code == 0
    assert found["lock"] == f"held by process {server.pid}, a server"
    for check in (
        "python",
        "data directory",
        "lock",
        "database",
        "records",
        "secret key",
        "signup secret",
        "server",
        "ready",
        "clock",
    ):
        assert results[check] == "ok", check


def test_the_doctor_fails_for_a_readable_secret_and_for_a_named_server_that_is_away(tmp_path: Path) -> None:
    assert lifesign_command("migrate", "--data-dir", str(tmp_path)).code == 0
    for name in ("secret.key", "signup_upgrade_secret"):
        (tmp_path / name).write_text("x" * 64)
        (tmp_path / name).chmod(0o644)

    ran = lifesign_command("doctor", "--data-dir", str(tmp_path), "--url", NOWHERE)

    assert ran.code == 1
    assert "3 of 13 checks failed: secret key, signup secret, server" in ran.err
    assert f"chmod 600 {tmp_path / 'secret.key'}" in ran.text
    assert f"chmod 600 {tmp_path / 'signup_upgrade_secret'}" in ran.text


def test_the_doctor_finds_a_variable_that_is_nearly_a_setting() -> None:
    wrong = spelling(["LIFESIGN_SMTP_USER", "LIFESIGN_SMTP_HOST", "LIFESIGN_KEY", "LIFESIGN_API_KEY", "LIFESIGN_URL"])

    assert (wrong.result, wrong.found) == ("warn", "read by nobody: LIFESIGN_SMTP_USER")
    assert wrong.todo == "did you mean LIFESIGN_SMTP_USERNAME?"
    assert spelling(["LIFESIGN_SMTP_HOST", "LIFESIGN_KEY", "LIFESIGN_SYSTEM_SECRET", "SMTP_USER"]).result == "ok"


def test_the_doctor_makes_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    ran = lifesign_command("doctor", "--data-dir", str(tmp_path / "none"))

    assert "does not exist" in ran.text
    assert list(tmp_path.iterdir()) == []


def test_the_doctor_knows_a_database_of_a_later_version(tmp_path: Path) -> None:
    assert lifesign_command("migrate", "--data-dir", str(tmp_path)).code == 0
    connection = sqlite3.connect(tmp_path / "lifesign.db")
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    connection.close()

    ran = lifesign_command("doctor", "--data-dir", str(tmp_path))

    assert ran.code == 1
    assert "schema 9999 is newer than" in ran.text


def test_the_doctor_knows_records_of_a_later_version(tmp_path: Path) -> None:
    assert lifesign_command("migrate", "--data-dir", str(tmp_path)).code == 0
    connection = sqlite3.connect(tmp_path / "telemetry.db")
    with connection:
        assert connection.execute("UPDATE alembic_version SET version_num = '9999'").rowcount == 1
    connection.close()

    ran = lifesign_command("doctor", "--data-dir", str(tmp_path), "--json")

    [records] = [row for row in ran.json["checks"] if row["check"] == "records"]
    assert records["result"] == "fail"
    assert "schema 9999 is newer than" in records["found"]


def _records(url: str, data_dir: Path) -> tuple[str, str]:
    """What the doctor says of a store of telemetry."""
    ran = lifesign_command("doctor", "--json", "--data-dir", str(data_dir), env={"LIFESIGN_TELEMETRY_URL": url})
    return next((row["result"], row["found"]) for row in ran.json["checks"] if row["check"] == "records")


def test_the_doctor_looks_at_the_store_that_the_settings_name(
    tmp_path: Path, cluster: Databases, closed_port: int
) -> None:
    newest = migrate.newest(CHAIN)
    with cluster.new_database() as url:
        assert _records(url, tmp_path) == ("warn", f"schema none is older than {newest}")
        assert lifesign_command("migrate", "--data-dir", str(tmp_path), env={"LIFESIGN_TELEMETRY_URL": url}).code == 0
        assert _records(url, tmp_path) == ("ok", f"opens; schema {newest} is current")
    assert _records(url, tmp_path)[0] == "fail"
    assert _records(f"sqlite:///{tmp_path}/none.db", tmp_path) == ("warn", f"{tmp_path}/none.db does not exist")
    result, found = _records(f"clickhouse://reader:hidden@127.0.0.1:{closed_port}/db", tmp_path)
    assert (result, "hidden" in found) == ("fail", False)
    assert f"127.0.0.1:{closed_port}" in found


@pytest.mark.parametrize(("ahead_s", "result"), [(0, "ok"), (4, "ok"), (-30, "warn"), (300, "fail")])
def test_a_clock_that_differs_is_told(ahead_s: int, result: str) -> None:
    answer = Answer(200, {"date": "Mon, 05 Jan 2026 12:00:00 GMT"}, b"")

    assert clock_difference(answer, lambda: 1_767_614_400_000 + ahead_s * 1000).result == result


def test_checks_of_the_data_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "file").touch()

    assert directory(tmp_path).result == "ok"
    assert directory(tmp_path / "none").result == "warn"
    assert directory(tmp_path / "file").result == "fail"
    tmp_path.chmod(0o755)
    assert directory(tmp_path).todo == f"chmod 700 {tmp_path}"
    assert "GiB" in free_space(tmp_path / "none").found


def test_a_secret_for_its_owner_only_is_well(tmp_path: Path) -> None:
    (tmp_path / "secret.key").touch(mode=0o600)

    assert stat.S_IMODE((tmp_path / "secret.key").stat().st_mode) == 0o600
    assert secret_key(Settings(data_dir=tmp_path)).result == "ok"
