"""`lifesign bots` and `lifesign runs`: what they ask, what they show, how they end."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Server, lifesign_command, running_server
from tests.harness import Json

REPORT = """
import json, sys
job = json.load(sys.stdin)
print(json.dumps({"type": "log", "text": "looking"}))
status = "error" if "fail" in job["prompt"] else "success"
print(json.dumps({"type": "result", "status": status, "response": "All quiet.", "error_message": "No luck."}))
"""


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose operator has listed a program."""
    directory = tmp_path_factory.mktemp("bots")
    program = directory / "report.py"
    program.write_text(REPORT)
    data = directory / "data"
    data.mkdir(mode=0o700)
    (data / "bots.toml").write_text(f"[commands.report]\nargv = {json.dumps([sys.executable, str(program)])}\n")
    with running_server(data) as server:
        yield server


def _bot(server: Server, name: str) -> Json:
    runner = json.dumps({"runner": {"kind": "command", "command": "report"}})
    made: Json = server.told("bots", "create", name, "--model", "m", "--options", runner)["bot"]
    return made


def _schedule(server: Server, bot: Json, prompt: str = "Look.", *more: str) -> Json:
    made: Json = server.told("bots", "schedule", "create", str(bot["id"]), prompt, *more)["heartbeat"]
    return made


def test_a_bot_is_made_shown_changed_listed_and_deleted(watched: Server, tmp_path: Path) -> None:
    (tmp_path / "watch.md").write_text("You watch the night.")
    ran = watched.command("bots", "create", "Night", "--instruction", f"@{tmp_path / 'watch.md'}", "--off")
    number = ran.text.split()[1]

    changed = watched.command("bots", "update", number, "--on", "--offline", "--name", "Day")
    shown = watched.told("bots", "show", number)["bot"]
    listed = watched.command("bots", "list").text
    kept = watched.command("bots", "delete", number)
    deleted = watched.command("bots", "delete", number, "--yes")

    assert ran.code == changed.code == deleted.code == 0
    assert (shown["name"], shown["heartbeat"], shown["status"]) == ("Day", 1, 0)
    assert shown["instruction"] == "You watch the night."
    assert "Day" in listed
    assert (kept.code, "--yes" in kept.err) == (2, True)
    assert deleted.text == f"deleted {number}\n"
    assert watched.command("bots", "show", number).code == 4


def test_a_schedule_is_made_listed_switched_and_deleted(watched: Server) -> None:
    bot = _bot(watched, "Scheduled")
    hours = ("--every", "2h", "--hours", "09:00-17:00", "--days", "1,2", "--timezone", "Europe/Berlin")
    made = _schedule(watched, bot, "Look.", *hours, "--budget", "5", "--no-enable", "--tell", "none")
    options = ("--options", '{"notify": {"mode": "always"}, "jitter_seconds": 5}')
    follows = _schedule(watched, bot, "Look.", "--no-enable", "--tell", "project", *options)
    where = (str(bot["id"]), made["uuid"])

    enabled = watched.told("bots", "schedule", "enable", *where)["heartbeat"]
    table = watched.command("bots", "schedule", "list", str(bot["id"])).text
    shown = watched.command("bots", "schedule", "show", *where).text
    disabled = watched.told("bots", "schedule", "disable", *where)["heartbeat"]
    deleted = watched.command("bots", "schedule", "delete", *where)

    assert (made["interval_minutes"], made["active_hours_end"], made["credit_budget"]) == (120, "17:00", 5)
    assert (made["enabled"], enabled["enabled"], disabled["enabled"]) == (0, 1, 0)
    assert (made["lifesign"]["notify"], follows["uuid"]) == ({"channels": []}, made["uuid"])
    assert (follows["lifesign"]["notify"], follows["lifesign"]["jitter_seconds"]) == ({"mode": "always"}, 5)
    assert "every 2h 09:00-17:00 on 1,2 Europe/Berlin" in table
    assert "next runs" in shown
    assert deleted.text == f"deleted {made['uuid']}\n"


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--every", "90s"), "--every: 90s is no number of whole minutes"),
        (("--hours", "9"), "--hours: '9' has no end"),
        (("--options", "[]"), "--options: must be a JSON object"),
        (("--tell", "none", "--options", '{"notify": {"channels": []}}'), "either with --tell or as notify.channels"),
        (("--tell", " ,"), "--tell: names no channel"),
        (("--budget", "inf"), "'--budget': inf is not a number"),
    ],
)
def test_a_schedule_that_cannot_be_is_refused_without_asking(
    watched: Server, options: tuple[str, ...], told: str
) -> None:
    ran = watched.command("bots", "schedule", "create", "1", "Look.", *options)

    assert ran.code == 2
    assert told in ran.err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("bots", "show", "99"), "there is no bot '99'"),
        (("bots", "update", "99", "--on"), "there is no bot '99'"),
        (("bots", "schedule", "list", "99"), "there is no bot '99'"),
        (("runs", "cancel", "run_x"), "there is no run 'run_x'"),
    ],
    ids=lambda each: " ".join(each) if isinstance(each, tuple) else "",
)
def test_what_is_not_there_is_named_as_it_was_typed(watched: Server, words: tuple[str, ...], told: str) -> None:
    ran = lifesign_command(*words, env=watched.env)

    assert (ran.code, ran.err) == (4, f"lifesign: {told}\n")


def test_a_run_is_followed_to_its_end(watched: Server) -> None:
    bot = _bot(watched, "Followed")
    good, bad = _schedule(watched, bot), _schedule(watched, bot, "fail")

    ran = watched.command("runs", "trigger", str(bot["id"]), good["uuid"])
    failed = watched.command("runs", "trigger", str(bot["id"]), bad["uuid"])

    assert ran.code == 0
    assert ran.text.splitlines()[0] == "[system] looking"
    assert "All quiet." in ran.text
    assert (failed.code, "the run ended as error: No luck." in failed.err) == (1, True)
    table = watched.command("runs", "list", str(bot["id"])).text
    assert [line.split()[0] for line in table.splitlines()] == ["status", "error", "success"]
    (log,) = watched.told("runs", "list", str(bot["id"]), "--status", "success")["logs"]
    assert watched.command("runs", "transcript", log["uuid"]).text == "[system] looking\n"
    assert watched.command("runs", "show", log["uuid"], "--follow").code == 0
    assert watched.told("runs", "cancel", log["uuid"])["run"]["status"] == "success"
    refused = watched.command("runs", "approve", log["uuid"])
    assert (refused.code, "not waiting for approval" in refused.err) == (4, True)


def test_all_bots_are_stopped_by_the_operator_and_those_of_a_project_by_a_key(watched: Server) -> None:
    bot = _bot(watched, "Stopped")
    schedule = _schedule(watched, bot)
    trigger = ("runs", "trigger", str(bot["id"]), schedule["uuid"], "--no-wait")
    operator = {"LIFESIGN_DATA_DIR": str(watched.data_dir)}

    for stop, resume, env in (
        (("bots", "stop", "--reason", "too dear"), ("bots", "resume"), watched.env),
        (("bots", "stop", "--all"), ("bots", "resume", "--all"), operator),
    ):
        stopped = lifesign_command(*stop, env=env)
        refused = watched.told(*trigger)["run"]
        resumed = lifesign_command(*resume, env=env)
        assert (stopped.code, resumed.code) == (0, 0), stopped.err + resumed.err
        assert (refused["status"], refused["reason"]) == ("skipped", "project_stopped")

    assert watched.told(*trigger)["run"]["status"] == "queued"


def test_settings_are_shown_and_changed(watched: Server) -> None:
    changed = watched.told("bots", "settings", "--set", '{"default_model": "m2", "max_concurrent_runs": 4}')["settings"]
    shown = watched.command("bots", "settings").text

    assert (changed["default_model"], changed["max_concurrent_runs"]) == ("m2", 4)
    assert "m2" in shown
