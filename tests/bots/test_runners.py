"""Runs that the server has others do: programs of the operator, and servers elsewhere."""

import asyncio
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

from tests.bots.asking import asked, bot, configured, read
from tests.bots.asking_runs import ran, transcript, triggered
from tests.bots.conftest import Program
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer

SECRET = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
AT = "2026-01-05T12:00:00.000Z"
# Nothing here depends on the database.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


async def _by(lifesign: Lifesign, runner: Json, /, **fields: Any) -> Json:
    """A schedule of a bot with a runner."""
    owner = await bot(lifesign, lifesign={"runner": runner})
    return await configured(lifesign, owner["id"], **{"enabled": True} | fields)


def _is_alive(pid: str) -> bool:
    """Whether a process runs; one that ended is there for as long as nobody asks how."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in {"Z", "X"}
    except FileNotFoundError:
        return False


def _is_there(path: str) -> bool:
    return Path(path).exists()


# Commands -----------------------------------------------------------------------------------------------------------
async def test_a_program_does_a_run_and_says_what_it_cost(start_lifesign: MakeLifesign, program: Program) -> None:
    name = program(
        "report",
        """
print(json.dumps({"type": "usage", "input_tokens": 500, "output_tokens": 0, "requests": 1}), flush=True)
print(json.dumps({"type": "log", "text": "looking"}))
print("just a line")
print("to stderr", file=sys.stderr)
told = {"job": sorted(job), "cwd": os.getcwd(), "environ": sorted(os.environ)}
print(json.dumps({"type": "result", "status": "success", "response": json.dumps(told),
                  "usage": {"input_tokens": 900, "output_tokens": 600, "requests": 2}}))
""",
    )
    async with start_lifesign(at=AT) as lifesign:
        made = await _by(lifesign, {"kind": "command", "command": name})

        done = await ran(lifesign, made)

        told = json.loads(done["response"])
        assert (done["status"], done["tokens_used"], done["credits_charged"]) == ("success", 1500, 1.5)
        assert told["job"] == ["deadline", "instruction", "model", "prompt", "remaining_credits", "run_id", "slot"]
        # The last of them is of the Python of the program.
        assert {"TRACEPARENT"} <= set(told["environ"]) <= {"PATH", "LANG", "TRACEPARENT", "LC_CTYPE"}
        assert not _is_there(told["cwd"])
        said = {each["content"].strip() for each in await transcript(lifesign, done)}
        assert said == {"looking", "just a line", "to stderr"}


@pytest.mark.parametrize(
    ("source", "status", "reason"),
    [
        ("sys.exit(75)", "skipped", "runner_skip"),
        ("sys.exit(3)", "error", "runner_error"),
        ("print('no result')", "error", "invalid_output"),
        ("print(json.dumps({'type': 'result', 'status': 'perhaps'}))", "error", "invalid_output"),
        ("print('x' * 1_100_000)", "error", "invalid_output"),
        ("print(json.dumps({'type': 'result', 'status': 'error', 'error_message': 'No.'}))", "error", "runner_error"),
    ],
)
async def test_how_a_program_ends_says_what_became_of_the_run(
    start_lifesign: MakeLifesign, program: Program, source: str, status: str, reason: str
) -> None:
    name = program("report", source)
    async with start_lifesign(at=AT) as lifesign:
        made = await _by(lifesign, {"kind": "command", "command": name})

        done = await ran(lifesign, made)

        assert (done["status"], done["lifesign"]["reason"]) == (status, reason)


async def test_a_program_that_may_not_be_used_is_an_error(start_lifesign: MakeLifesign, program: Program) -> None:
    name = program("report", "", projects=["elsewhere"])
    async with start_lifesign(at=AT) as lifesign:
        for command in (name, "nothing"):
            done = await ran(lifesign, await _by(lifesign, {"kind": "command", "command": command}))
            assert (done["status"], done["lifesign"]["reason"]) == ("error", "runner_error")
            assert done["error_message"] == f"There is no command {command!r} for this project"


async def test_a_program_that_cannot_be_started_is_an_error_that_says_why(
    start_lifesign: MakeLifesign, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir(mode=0o700)
    (tmp_path / "data" / "bots.toml").write_text(
        f'[commands.none]\nargv = ["/nowhere/report"]\n[commands.lost]\nargv = ["/bin/true"]\ncwd = "{tmp_path}/no"\n'
    )
    async with start_lifesign(at=AT) as lifesign:
        for command in ("none", "lost"):
            done = await ran(lifesign, await _by(lifesign, {"kind": "command", "command": command}))

            assert (done["status"], done["lifesign"]["reason"]) == ("error", "runner_error")
            assert done["error_message"] == f"The command {command!r} cannot be started: No such file or directory"


async def test_a_program_that_is_killed_is_an_error_that_names_the_signal(
    start_lifesign: MakeLifesign, program: Program
) -> None:
    name = program("report", "os.kill(os.getpid(), 9)")
    async with start_lifesign(at=AT) as lifesign:
        done = await ran(lifesign, await _by(lifesign, {"kind": "command", "command": name}))

        assert (done["lifesign"]["reason"], done["error_message"]) == (
            "runner_error",
            "The command was ended by signal 9",
        )


async def test_what_a_program_leaves_behind_ends_with_it(
    start_lifesign: MakeLifesign, program: Program, tmp_path: Path
) -> None:
    child = tmp_path / "child"
    name = program(
        "hasty",
        f"""
import subprocess
started = subprocess.Popen(["sleep", "600"], start_new_session=True)
open({str(child)!r}, "w").write(str(started.pid))
print(json.dumps({{"type": "result", "status": "success", "response": "Done."}}))
""",
    )
    async with start_lifesign(at=AT) as lifesign:
        done = await ran(lifesign, await _by(lifesign, {"kind": "command", "command": name}))

        assert (done["status"], done["response"]) == ("success", "Done.")
        assert not _is_alive(child.read_text())


async def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(
    start_lifesign: MakeLifesign, program: Program, tmp_path: Path
) -> None:
    child = tmp_path / "child"
    name = program(
        "slow",
        f"""
import signal, subprocess
signal.signal(signal.SIGTERM, signal.SIG_IGN)
started = subprocess.Popen(["sleep", "600"])
open({str(child)!r}, "w").write(str(started.pid))
print(json.dumps({{"type": "usage", "input_tokens": 1000, "output_tokens": 0, "requests": 1}}), flush=True)
time.sleep(600)
""",
    )
    async with start_lifesign(at=AT) as lifesign:
        made = await _by(lifesign, {"kind": "command", "command": name}, lifesign={"limits": {"timeout_seconds": 10}})

        done = await ran(lifesign, made)

        assert (done["status"], done["lifesign"]["reason"], done["credits_charged"]) == ("error", "timeout", 1)
        assert not _is_alive(child.read_text())
        assert (await read(lifesign, made))["lifesign"]["credits_reserved"] == 0


async def test_a_run_that_goes_on_is_cancelled_and_what_it_cost_is_charged(
    start_lifesign: MakeLifesign, program: Program
) -> None:
    name = program(
        "slow",
        """
print(json.dumps({"type": "usage", "input_tokens": 1000, "output_tokens": 0, "requests": 1}), flush=True)
time.sleep(600)
""",
    )
    async with start_lifesign(at=AT) as lifesign:
        lifesign.node.driver.start()
        made = await _by(lifesign, {"kind": "command", "command": name})
        run = await triggered(lifesign, made)
        running = await _once(lifesign, run, lambda told: told["credits_charged"] == 1)
        beside = await triggered(lifesign, made)

        await asked(lifesign, "POST", "/heartbeat/cancel", {"run_id": run["uuid"]})
        done = await _once(lifesign, run, lambda told: told["status"] not in {"queued", "running"})

        assert running["status"] == "running"
        assert (beside["status"], beside["reason"]) == ("skipped", "overlap")
        assert (done["status"], done["lifesign"]["reason"], done["credits_charged"]) == ("cancelled", "user", 1)


async def _once(lifesign: Lifesign, run: Json, is_so: Callable[[Json], bool]) -> Json:
    """A run as soon as something is so."""
    async with asyncio.timeout(15):
        while True:
            told: Json = (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["uuid"]))["run"]
            if is_so(told):
                return told
            await asyncio.sleep(0.05)


# Servers elsewhere --------------------------------------------------------------------------------------------------
async def _handed_over(lifesign: Lifesign, ledger: LedgerPeer, /, *entries: Json, **fields: Any) -> Json:
    """A schedule whose runs are done by a server that answers so."""
    ledger.script("ops", *entries)
    return await _by(lifesign, {"kind": "http", "url": f"{ledger.url}/hook/ops", "secret": SECRET}, **fields)


async def test_a_server_answers_with_the_result(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    result = {
        "status": "success",
        "response": "Quiet.",
        "usage": {"input_tokens": 10, "output_tokens": 5, "requests": 1},
    }
    made = await _handed_over(lifesign, ledger, {"status": 200, "body": json.dumps(result)})

    done = await ran(lifesign, made)

    assert (done["status"], done["response"], done["credits_charged"]) == ("success", "Quiet.", 0.015)
    (request,) = ledger.requests("/hook/ops")
    assert request.json["run_id"] == done["uuid"] == request.headers["webhook-id"]
    assert request.headers["traceparent"].split("-")[1] == done["lifesign"]["trace_id"]
    stamp = {"webhook-timestamp": request.headers["webhook-timestamp"]}
    assert stamp == {"webhook-timestamp": "1767614400"}
    signed = Webhook(SECRET).sign(done["uuid"], _instant(1767614400), request.content.decode())
    assert request.headers["webhook-signature"] == signed


def _instant(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


async def test_a_server_may_answer_later_by_the_callback(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _handed_over(lifesign, ledger, {"status": 202})
    run = await triggered(lifesign, made)
    await lifesign.advance()
    job = ledger.requests("/hook/ops")[0].json
    its = lifesign.client(job["token"])

    beat = (await its.post("/v1/bot/runs/heartbeat", json={"run_id": run["uuid"], "log": "half way"})).json()
    await lifesign.advance(50)
    again = (await its.post("/v1/bot/runs/heartbeat", json={})).json()
    ended = await its.post("/v1/bot/runs/finish", json={"status": "success", "response": "Quiet."})
    late = await its.post("/v1/bot/runs/finish", json={"status": "error"})
    unknown = await lifesign.client(job["token"][::-1]).post("/v1/bot/runs/finish", json={"status": "error"})

    assert job["callback_url"].endswith("/v1/bot/runs")
    assert (beat["cancel"], beat["lease_until"]) == (False, "2026-01-05T12:01:00.000Z")
    assert again["lease_until"] == "2026-01-05T12:01:50.000Z"
    assert (ended.status_code, ended.json()["run"]["status"]) == (200, "success")
    assert (late.status_code, late.json()["error"]["code"]) == (409, "lease_lost")
    assert unknown.status_code == 401
    assert (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["uuid"]))["run"] == ended.json()["run"]
    assert [each["content"] for each in await transcript(lifesign, run)] == ["half way"]


async def test_a_server_that_is_silent_after_it_took_a_run_has_lost_it(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _handed_over(lifesign, ledger, {"status": 202})
    run = await triggered(lifesign, made)

    await lifesign.advance(65)

    told = (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["uuid"]))["run"]
    assert (told["status"], told["lifesign"]["reason"]) == ("error", "lost")


async def test_a_server_that_is_silent_past_the_deadline_of_its_run_is_not_waited_for(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _handed_over(lifesign, ledger, {"status": 202}, lifesign={"limits": {"timeout_seconds": 10}})
    run = await triggered(lifesign, made)

    await lifesign.advance(10)
    before = (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["uuid"]))["run"]
    await lifesign.advance(5)

    told = (await asked(lifesign, "GET", "/heartbeat/run", run_id=run["uuid"]))["run"]
    assert before["status"] == "running"
    assert (told["status"], told["lifesign"]["reason"]) == ("error", "timeout")


async def test_a_server_that_is_gone_disables_its_schedule(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _handed_over(lifesign, ledger, {"status": 410})

    done = await ran(lifesign, made)

    after = await read(lifesign, made)
    assert (done["status"], done["lifesign"]["reason"]) == ("error", "runner_error")
    assert (after["enabled"], after["lifesign"]["paused_reason"]) == (0, "runner_gone")


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"status": 500, "body": "broken"}, "runner_error"),
        ({"status": 302, "headers": {"location": "/hook/second"}}, "runner_error"),
        ({"close": "after_read"}, "runner_error"),
        ({"status": 200, "body": "[]"}, "invalid_output"),
        ({"status": 200, "bytes": 1_100_000}, "invalid_output"),
    ],
)
async def test_what_a_server_answers_otherwise_is_an_error(
    lifesign: Lifesign, ledger: LedgerPeer, entry: Json, reason: str
) -> None:
    made = await _handed_over(lifesign, ledger, entry)

    done = await ran(lifesign, made)

    assert (done["status"], done["lifesign"]["reason"]) == ("error", reason)
    assert ledger.requests("/hook/second") == []


# Prechecks ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("body", "on_error", "ended"),
    [
        ('{"wake": false}', "run", ("skipped", "precheck")),
        ('{"wake": true}', "run", ("success", None)),
        ("{}", "run", ("success", None)),
        ("nonsense", "run", ("success", None)),
        ("nonsense", "error", ("error", "precheck_failed")),
    ],
)
async def test_a_precheck_says_whether_there_is_anything_to_do(
    lifesign: Lifesign, ledger: LedgerPeer, body: str, on_error: str, ended: tuple[str, str | None]
) -> None:
    ledger.script("second", {"status": 200, "body": body})
    precheck = {"url": f"{ledger.url}/hook/second", "on_error": on_error}
    answer = {"status": 200, "body": '{"status": "success", "response": "Quiet."}'}
    made = await _handed_over(lifesign, ledger, answer, lifesign={"precheck": precheck})

    await lifesign.advance(30 * 60)

    told = (await asked(lifesign, "GET", "/heartbeat/logs", bot_id=made["bot_id"]))["logs"]
    assert [(each["status"], each["lifesign"]["reason"]) for each in told] == [ended]
    assert len(ledger.requests("/hook/ops")) == (1 if ended == ("success", None) else 0)
