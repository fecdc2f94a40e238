"""`lifesign run`: the command must not notice us, and the server must learn how it ended."""

import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

from lifesign.cli import checkin, lease
from lifesign.cli.checkin import Proof, check_in
from lifesign.cli.errors import Unreachable
from lifesign.cli.job import Ended, NotStarted
from lifesign.cli.lease import LeasedRun
from lifesign.cli.remote import Answer, Call, over_network
from lifesign.cli.report import clean_output, metadata_of
from tests.cli.conftest import COMMAND, Server, StandIn, lifesign_command, started

NOWHERE = {"LIFESIGN_URL": "http://127.0.0.1:9", "LIFESIGN_KEY": "lsk_test"}


def test_input_output_and_exit_code_pass_through_byte_for_byte(stand_in: StandIn) -> None:
    binary = bytes(range(256)) * 1000
    copy = "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read()); sys.stderr.write('told'); sys.exit(7)"

    ran = lifesign_command("run", "job", "--", sys.executable, "-c", copy, env=stand_in.env, stdin=binary)

    assert (ran.code, ran.out, ran.err) == (7, binary, "told")


def test_output_is_there_while_the_command_still_runs(stand_in: StandIn) -> None:
    with started(["run", "job", "--", "sh", "-c", "echo first; read line; echo $line"], stand_in.env) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"first\n"
        assert stand_in.requests() == []

        process.stdin.write(b"second\n")
        process.stdin.flush()

        assert process.stdout.readline() == b"second\n"
        assert process.wait(20) == 0


def test_a_command_that_ends_well_is_healthy(stand_in: StandIn) -> None:
    ran = lifesign_command("run", "job", "--", "sh", "-c", "echo done", "secret-argument", env=stand_in.env)

    body = stand_in.body()
    assert ran.code == 0
    assert body["metadata"].pop("durationMs") < 20_000
    assert body == {"metadata": {"command": "sh", "host": socket.gethostname(), "exitCode": 0, "output": "done"}}


def test_a_command_that_fails_is_unhealthy_and_its_last_words_are_told(stand_in: StandIn) -> None:
    script = "echo out; echo err >&2; exit 3"

    ran = lifesign_command("run", "--heartbeat", "job", "--", "sh", "-c", script, env=stand_in.env)

    body = stand_in.body()
    assert ran.code == 3
    assert body["healthy"] is False
    assert body["metadata"]["exitCode"] == 3
    assert sorted(body["metadata"]["output"].split()) == ["err", "out"]


def test_a_command_killed_by_a_signal_tells_its_name(stand_in: StandIn) -> None:
    ran = lifesign_command("run", "job", "--", "sh", "-c", "kill -9 $$", env=stand_in.env)

    metadata = stand_in.body()["metadata"]
    assert ran.code == 137
    assert metadata["signal"] == "SIGKILL"
    assert "exitCode" not in metadata


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_is_handed_on_and_the_command_decides(stand_in: StandIn, number: signal.Signals) -> None:
    handler = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\nsignal.pause()"
    )
    with started(["run", "job", "--", sys.executable, "-c", handler], stand_in.env) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"

        process.send_signal(number)

        assert process.wait(20) == 42
    assert stand_in.body()["metadata"]["exitCode"] == 42


def test_a_ctrl_c_of_the_terminal_reaches_the_command_once(stand_in: StandIn) -> None:
    counting = (
        "import signal, sys, time\n"
        "seen = []\n"
        "signal.signal(signal.SIGINT, lambda *_: seen.append(1))\n"
        "signal.signal(signal.SIGALRM, lambda *_: sys.exit(40 + len(seen)))\n"
        "print('ready', flush=True)\n"
        # Not `pause`: the signal may be here before it.
        "while not seen: time.sleep(0.01)\n"
        "signal.setitimer(signal.ITIMER_REAL, 0.5)\n"
        "while True: signal.pause()\n"
    )
    terminal = "import os, pty, sys; sys.exit(os.waitstatus_to_exitcode(pty.spawn(sys.argv[1:])))"
    inner = [*COMMAND, "run", "job", "--", sys.executable, "-c", counting]
    with started(["run", "outer", "--", sys.executable, "-c", terminal, *inner], stand_in.env) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\r\n"

        process.stdin.write(b"\x03")
        process.stdin.flush()

        assert process.wait(20) == 41


def test_what_was_ignored_stays_ignored(stand_in: StandIn) -> None:
    told = "import signal; print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    nohup = ["sh", "-c", 'trap "" HUP; exec "$@"', "sh", *COMMAND, "run", "job", "--", sys.executable, "-c", told]

    ran = lifesign_command("run", "outer", "--", *nohup, env=stand_in.env)

    assert ran.text == "True\n"


@pytest.mark.parametrize(("program", "code"), [("no-such-program", 127), ("plain-file", 126)])
def test_a_command_that_cannot_be_started_is_unhealthy(
    stand_in: StandIn, tmp_path: Path, program: str, code: int
) -> None:
    (tmp_path / "plain-file").write_text("not a program")

    ran = lifesign_command("run", "job", "--", str(tmp_path / program), env=stand_in.env)

    body = stand_in.body()
    assert ran.code == code
    assert ran.err.startswith("lifesign: cannot run ")
    assert (body["healthy"], body["metadata"]["exitCode"]) == (False, code)


@pytest.mark.parametrize("code", [0, 5])
def test_an_absent_server_changes_neither_output_nor_exit_code(code: int) -> None:
    ran = lifesign_command("run", "job", "--", "sh", "-c", f"echo out; exit {code}", env=NOWHERE)

    assert (ran.code, ran.text) == (code, "out\n")
    assert ran.err.count("\n") == 1
    assert "the check-in of job did not arrive: cannot reach http://127.0.0.1:9: connection refused" in ran.err


def test_a_missing_key_changes_neither_output_nor_exit_code() -> None:
    ran = lifesign_command("run", "job", "--", "sh", "-c", "echo out; exit 5")

    assert (ran.code, ran.text) == (5, "out\n")
    assert "lifesign keys create" in ran.err


def test_without_a_command_nothing_is_run() -> None:
    assert lifesign_command("run", "job").code == 2
    assert lifesign_command("run", "--heartbeat", "job").code == 2


def test_a_child_left_in_the_background_does_not_hold_the_check_in_back(stand_in: StandIn) -> None:
    ran = lifesign_command("run", "job", "--", "sh", "-c", "sleep 300 & echo $!", env=stand_in.env)

    os.kill(int(ran.out), signal.SIGKILL)
    assert ran.code == 0
    assert stand_in.body()["metadata"]["output"] == ran.text.strip()


def test_what_is_still_in_the_pipe_when_the_command_ends_arrives_too(stand_in: StandIn, tmp_path: Path) -> None:
    # Nobody reads yet: one pipe after the other fills up, and the command ends while the last bytes are on their way.
    burst = (
        "import os, sys\n"
        "for chunk in (b'x' * 65536, b'x' * 65536, b'y' * 5000 + b'end'):\n"
        "    assert os.write(1, chunk) == len(chunk)\n"
        "open(sys.argv[1], 'w')"
    )
    ended = tmp_path / "ended"
    os.mkfifo(ended)
    with started(["run", "job", "--", sys.executable, "-c", burst, str(ended)], stand_in.env) as process:
        with ended.open():  # opens when the command does the same, as the last thing it does
            pass

        out, _ = process.communicate(timeout=20)

    assert out == b"x" * 131_072 + b"y" * 5000 + b"end"
    assert stand_in.body()["metadata"]["output"] == "y" * 4093 + "end"


def test_with_no_output_the_command_writes_directly_and_nothing_is_told(stand_in: StandIn) -> None:
    ran = lifesign_command("run", "job", "--no-output", "--", "sh", "-c", "echo secret; exit 1", env=stand_in.env)

    assert (ran.code, ran.text) == (1, "secret\n")
    assert "output" not in stand_in.body()["metadata"]


def test_tries_that_may_help_are_made_again_with_one_idempotency_key(stand_in: StandIn) -> None:
    stand_in.script = [(503, {}), (429, {"retry-after": "0"})]

    ran = lifesign_command("run", "job", "--", "true", env=stand_in.env)

    keys = [headers["idempotency-key"] for headers, _ in stand_in.requests()]
    assert (ran.code, ran.err) == (0, "")
    assert len(keys) == 3
    assert len(set(keys)) == 1


def test_a_refusal_is_not_tried_again(stand_in: StandIn) -> None:
    stand_in.script = [(404, {}), (404, {})]

    ran = lifesign_command("run", "job", "--", "true", env=stand_in.env)

    assert ran.code == 0
    assert len(stand_in.requests()) == 1
    assert ran.err == "lifesign: the check-in of job was refused: scripted: /v1/heartbeats/job/checkin\n"


def test_a_server_that_never_answers_is_given_up_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkin, "TOTAL_S", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        send = over_network(f"http://127.0.0.1:{silent.getsockname()[1]}", "lsk_test", timeout_s=20)
        began = time.monotonic()

        with pytest.raises(Unreachable, match="no answer"):
            check_in(send, Proof("job", is_healthy=True))

        assert time.monotonic() - began < 5


def test_the_server_takes_the_worst_output_there_can_be(server: Server) -> None:
    server.told("heartbeats", "create", "Worst Output", "--every", "1h")
    worst = "import sys; sys.stdout.buffer.write(b'\\x00\\x1b[31m\\xff\\x80\"\\\\\\r\\n' * 4000); sys.exit(1)"

    ran = server.command("run", "worst-output", "--", sys.executable, "-c", worst)

    row = server.told("heartbeats", "get", "worst-output")
    assert (ran.code, ran.err) == (1, "")
    assert row["status"] == "firing"
    assert row["metadata"]["output"].endswith('\ufffd\ufffd"\\')


def test_an_output_becomes_text_without_colours_and_control_characters() -> None:
    tail = b"\xa4\xa4 5 %\r10 %\r\n\x1b[1;31mred\x1b[0m\t\x00\x07tab\x1b]0;title\x07 \xc3\xa4 \xff\n\n"

    assert clean_output(tail) == " 5 %\n10 %\nred\ttab \u00e4 \ufffd"


def test_metadata_stays_below_the_limit_of_the_server() -> None:
    told = metadata_of("\udcff" * 9000, Ended(1, 5, b"\xff" * 4096))
    wide = metadata_of("job", Ended(1, 5, b'"' * 4096))

    assert len(told["command"]) == 255
    assert len(str(told["output"]).encode()) <= 16_000
    assert wide["output"] == '"' * 4096


def test_metadata_of_a_command_that_did_not_start_tells_why() -> None:
    told = metadata_of("job", NotStarted(127, "command not found"))

    assert (told["exitCode"], told["error"]) == (127, "command not found")


# Runs with a lease --------------------------------------------------------------------------------------------------
def test_a_leased_command_is_a_run_that_ends_with_it(server: Server) -> None:
    server.told("heartbeats", "create", "Leased", "--every", "1h")

    ran = server.command("run", "leased", "--lease", "60s", "--", "sh", "-c", "echo done; exit 0")

    assert (ran.code, ran.out) == (0, b"done\n")
    [run] = server.told("heartbeats", "runs", "leased")["runs"]
    assert run["status"] == "finished"
    assert "leaseExpiresAt" not in run
    assert run["metadata"]["output"] == "done"
    shown = server.told("heartbeats", "get", "leased")
    assert shown["metadata"]["exitCode"] == 0
    assert "firesAt" in shown


def test_a_leased_command_that_fails_is_a_failed_run(server: Server) -> None:
    server.told("heartbeats", "create", "Leased and failing", "--every", "1h")

    ran = server.command("run", "leased-and-failing", "--lease=60", "--", "sh", "-c", "exit 3")

    assert ran.code == 3
    [run] = server.told("heartbeats", "runs", "leased-and-failing")["runs"]
    assert (run["status"], run["metadata"]["exitCode"]) == ("failed", 3)
    assert server.told("heartbeats", "get", "leased-and-failing")["status"] == "firing"


def test_a_leased_command_reports_while_it_runs(server: Server) -> None:
    server.told("heartbeats", "create", "Leased and long", "--every", "1h")
    arguments = ["run", "leased-and-long", "--lease", "1", "--", "sh", "-c", "echo ready; read line"]
    with started(arguments, server.env) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == b"ready\n"
        deadline = time.monotonic() + 20
        while not (runs := server.told("heartbeats", "runs", "leased-and-long")["runs"]) or (
            "lastProgressAt" not in runs[0]
        ):
            assert time.monotonic() < deadline, runs

        assert runs[0]["status"] == "running"
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(20) == 0
    assert server.told("heartbeats", "runs", "leased-and-long")["runs"][0]["status"] == "finished"


def test_a_lease_of_an_absent_server_neither_fails_nor_changes_the_command() -> None:
    ran = lifesign_command("run", "job", "--lease", "60", "--", "sh", "-c", "echo done; exit 5", env=NOWHERE)

    assert (ran.code, ran.out) == (5, b"done\n")
    assert ran.err.count("\n") == 1
    assert "the check-in of job did not arrive" in ran.err


@pytest.mark.parametrize("lease", ["0", "2d", "soon"])
def test_a_lease_that_is_none_is_told_before_the_command_runs(lease: str) -> None:
    ran = lifesign_command("run", "job", "--lease", lease, "--", "echo", "done", env=NOWHERE)

    assert (ran.code, ran.out) == (2, b"")
    assert "--lease" in ran.err


# Runs without being asked for ---------------------------------------------------------------------------------------
def test_a_quick_command_is_told_once_and_is_no_run(server: Server) -> None:
    server.told("heartbeats", "create", "Quick", "--every", "1h")

    assert server.command("run", "quick", "--", "true").code == 0

    assert server.told("heartbeats", "runs", "quick")["runs"] == []
    assert server.told("heartbeats", "get", "quick")["metadata"]["exitCode"] == 0


def test_a_command_that_takes_its_time_is_a_run_with_a_lease(server: Server) -> None:
    server.told("heartbeats", "create", "Slow", "--every", "1h")
    with started(["run", "slow", "--", "sh", "-c", "read line"], server.env) as process:
        assert process.stdin is not None
        deadline = time.monotonic() + 20
        while not (runs := server.told("heartbeats", "runs", "slow")["runs"]):
            assert time.monotonic() < deadline
        assert runs[0]["status"] == "running"
        assert "leaseExpiresAt" in runs[0]
        process.stdin.write(b"\n")
        process.stdin.flush()
        assert process.wait(20) == 0
    [run] = server.told("heartbeats", "runs", "slow")["runs"]
    assert (run["status"], run["metadata"]["exitCode"]) == ("finished", 0)


def test_told_not_to_a_slow_command_is_no_run(stand_in: StandIn) -> None:
    ran = lifesign_command("run", "job", "--no-run", "--", "sleep", "1.5", env=stand_in.env)

    assert ran.code == 0
    assert "exitCode" in stand_in.body()["metadata"]


def test_a_start_that_is_refused_leaves_a_check_in(stand_in: StandIn) -> None:
    stand_in.script = [(404, {})]

    ran = lifesign_command("run", "job", "--lease", "1m", "--", "sleep", "0.5", env=stand_in.env)

    bodies = [body for _, body in stand_in.requests()]
    assert ran.code == 0
    assert list(bodies[0]) == ["runId", "lease"]
    assert [sorted(body) for body in bodies[1:]] == [["metadata"]]


def test_a_start_whose_answer_got_lost_is_told_again_with_its_end(stand_in: StandIn) -> None:
    stand_in.script = [(500, {})]

    ran = lifesign_command("run", "job", "--lease", "1m", "--", "sleep", "0.5", env=stand_in.env)

    first, again, end = [body for _, body in stand_in.requests()]
    assert ran.code == 0
    assert first == again
    assert sorted(end) == ["metadata"]


def test_a_lease_and_no_run_exclude_each_other() -> None:
    ran = lifesign_command("run", "job", "--no-run", "--lease", "1m", "--", "echo", "done", env=NOWHERE)

    assert (ran.code, ran.out) == (2, b"")


def test_a_start_that_hangs_is_waited_for_within_the_same_time_as_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "TRY_S", 1.0)
    monkeypatch.setattr(lease, "TOTAL_S", 1.2)
    never = threading.Event()

    def hang(_call: Call) -> Answer:
        never.wait(20)
        raise Unreachable("at last")

    run = LeasedRun("job", 60, lambda: hang, begin_after_s=0)
    run.begin()
    began_at = time.monotonic()
    with pytest.raises(Unreachable):
        run.end(ok=True, metadata={})

    # 2.2 s if the end had all of its time once more.
    assert time.monotonic() - began_at < 1.9
    never.set()
