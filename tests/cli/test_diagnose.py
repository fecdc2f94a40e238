"""`lifesign diagnose`: what stands out, for people, for programs, for a ticket."""

import http.server
import json
import os
import pty
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import jsonschema  # type: ignore[import-untyped]  # it comes without types
import pytest

from lifesign.cli import diagnose, main
from lifesign.cli.errors import CommandFailed
from lifesign.diagnosis.service import LIMIT_S, WAIT_S
from lifesign.diagnosis.shown import ImprovementPacket
from tests.cli.conftest import COMMAND, Server, environment, lifesign_command, listening, running_server, started
from tests.harness import Json
from tests.telemetry.requests import body_of


def failing(number: int, tool: str = "search") -> Json:
    return {
        "traceId": f"{number:032x}",
        "spanId": f"{number:016x}",
        "name": f"execute_tool {tool}",
        "startTimeUnixNano": "1767614400000000000",
        "endTimeUnixNano": "1767614400500000000",
        "status": {"code": 2, "message": "no answer"},
        "attributes": [
            {"key": "gen_ai.operation.name", "value": {"stringValue": "execute_tool"}},
            {"key": "gen_ai.tool.name", "value": {"stringValue": tool}},
            {"key": "error.type", "value": {"stringValue": "Timeout"}},
        ],
    }


def send(server: Server, *spans: Json) -> None:
    ran = lifesign_command("telemetry", "import", "-", env=server.env, stdin=body_of(*spans))
    assert ran.code == 0, ran.err


@pytest.fixture(scope="module")
def ailing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server with three failures of one tool and one of another, whose name would like to steer the terminal."""
    with running_server(tmp_path_factory.mktemp("ailing") / "data") as server:
        send(server, *[failing(number) for number in (1, 2, 3)], failing(4, "[red]\x1b[2Jx"))
        yield server


def test_issues_are_a_table_and_the_exit_code_says_that_they_are_ready(ailing: Server) -> None:
    ran = ailing.command("diagnose")

    assert ran.code == 0
    lines = ran.text.splitlines()
    assert [line.split()[0] for line in lines[:6]] == ["project", "packet", "window", "records", "failures", "status"]
    assert lines[5] == "status    ready for issue diagnosis"
    heading, first, second = lines[7:10]
    assert heading.split() == ["severity", "issue", "count", "sessions", "state", "next"]
    assert first.split()[:6] == ["medium", "tool_call_failed", "on", "search", "3", "3"]
    assert "[red][2Jx" in second
    at_length = ran.text[ran.text.index("1. tool_call_failed on search\n") :]
    assert "\ncount     3 of 3 (100 %); the window before: 0\n" in at_length
    assert at_length.index("\nnext      Reproduce search") < at_length.index("2. tool_call_failed on [red]")
    assert f"{ailing.url}/records/ID" in ran.text
    assert "\x1b" not in ran.text


def test_programs_get_the_packet_and_tickets_get_markdown(ailing: Server) -> None:
    as_json = ailing.command("diagnose", "--format", "json", "--since-minutes", "30")
    as_markdown = ailing.command("diagnose", "--format", "md")

    packet = json.loads(as_json.out)
    assert (as_json.code, packet["since_minutes"], packet["failures"]) == (0, 30, 4)
    assert as_markdown.code == 0
    assert "| medium | tool\\_call\\_failed on search | 3 |" in as_markdown.text
    assert as_markdown.text.endswith("External writes need human approval.\n")
    assert "\x1b" not in as_json.text + as_markdown.text


def test_what_follows_from_a_packet_is_written_to_a_file(ailing: Server, tmp_path: Path) -> None:
    out = tmp_path / "improve.json"
    ran = ailing.command("diagnose", "--out", str(out))

    manifest = json.loads(out.read_text())
    assert ran.code == 0
    jsonschema.validate(manifest, ImprovementPacket.model_json_schema())
    [candidate], [step] = manifest["eval_candidates"], manifest["patch_plan"]
    issue = manifest["packet"]["issues"][0]
    assert candidate == {
        "fingerprint": issue["fingerprint"],
        "name": "tool_call_failed on search",
        "evidence_ids": issue["evidence_ids"],
        "expectation": "search completes without Timeout",
    }
    assert step == {"fingerprint": issue["fingerprint"], "step": 1, "next_action": issue["next_action"]}
    assert manifest["approval"] == {"required": True, "approved": False, "approved_by": None}


def test_nothing_to_act_on_has_a_code_of_its_own(ailing: Server) -> None:
    ran = ailing.command("diagnose", "--environment", "nowhere")

    assert ran.code == 3
    assert "status       observe more\n" in ran.text
    assert ran.err == "no issues\n"


@pytest.mark.parametrize(
    ("arguments", "key", "code", "words"),
    [
        (["--since-minutes", "0"], None, 2, "--since-minutes"),
        (["--format", "xml"], None, 2, "--format"),
        (["--watch", "0"], None, 2, "--watch"),
        (["--watch", "nan"], None, 2, "--watch"),
        (["--watch", "inf"], None, 2, "--watch"),
        (["--environment", ""], None, 1, "environment must not be empty"),
        ([], "lk_agent_nobody", 1, "This key is not known"),
        (["--url", "http://127.0.0.1:9"], None, 1, "127.0.0.1:9"),
        (["--out", "/nowhere/at/all.json"], None, 1, "cannot write /nowhere/at/all.json"),
    ],
)
def test_what_goes_wrong_is_told_with_the_code_of_this_command(
    ailing: Server, arguments: list[str], key: str | None, code: int, words: str
) -> None:
    env = ailing.env if key is None else ailing.env | {"LIFESIGN_KEY": key}
    ran = lifesign_command("diagnose", *arguments, env=env)

    assert ran.code == code
    assert words in ran.err


def test_a_server_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    may_answer = threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            may_answer.wait(30)

        def log_message(self, *_: object) -> None:
            pass

    # As long as the server may take to say that it took too long; here a moment, to see that it is this that counts.
    assert diagnose.PATIENCE_S > WAIT_S + LIMIT_S
    monkeypatch.setattr(diagnose, "PATIENCE_S", 0.05)
    with listening(Handler) as url:
        try:
            with pytest.raises(CommandFailed, match=url):
                diagnose.diagnose(url=url, key="lk_agent_x")
        finally:
            may_answer.set()


def test_a_watch_diagnoses_again_until_it_is_interrupted(ailing: Server) -> None:
    with started(["diagnose", "--watch", "1"], ailing.env) as process:
        assert process.stdout is not None
        packets = set()
        for line in process.stdout:
            if line.startswith(b"packet "):
                packets.add(line)
            if len(packets) == 3:
                break
        process.send_signal(signal.SIGINT)
        process.stdout.read()
        code = process.wait(timeout=30)

    assert code == 130


def test_a_watch_outlives_a_server_that_fails_for_a_while(ailing: Server, tmp_path: Path) -> None:
    packet = ailing.command("diagnose", "--format", "json").out
    answers = [(200, packet), (503, b'{"ok":false,"error":"busy","message":"Another one runs"}'), (200, packet)]
    out = tmp_path / "improve.json"

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            status, content = answers.pop(0) if len(answers) > 1 else answers[0]
            content = b'{"ok":true,"packet":' + content + b"}" if status == 200 else content
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    arguments = ["diagnose", "--watch", "1", "--format", "json", "--out", str(out)]
    with listening(Handler) as url, started(arguments, {"LIFESIGN_URL": url, "LIFESIGN_KEY": "lk_agent_x"}) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        shown = [json.loads(process.stdout.readline()) for _ in range(2)]
        process.send_signal(signal.SIGINT)
        told = process.stderr.read().decode()

    assert shown == [json.loads(packet)] * 2
    assert "Another one runs" in told
    assert "Traceback" not in told
    assert json.loads(out.read_text())["packet"] == shown[0]


def answering(status: int, content: bytes) -> type[http.server.BaseHTTPRequestHandler]:
    """Whatever it is asked, it answers this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.mark.parametrize(
    ("status", "content", "words"),
    [
        (200, b'{"ok":true}', "an answer without a packet"),
        (200, b'{"ok":true,"packet":{}}', "an answer without a packet"),
        (204, b"", "an answer without a packet"),
        (200, b"<html>", "an answer with status 200 that is not Lifesign's"),
        (200, b"[" * 100_000, "an answer with status 200 that is not Lifesign's"),
        (400, b'{"message":"a\\u001b[2J\\nb"}', "lifesign: a [2J\nb\n"),
    ],
)
def test_what_is_no_answer_of_ours_is_told_in_words(
    capsys: pytest.CaptureFixture[str], status: int, content: bytes, words: str
) -> None:
    with listening(answering(status, content)) as url:
        code = main(["diagnose", "--url", url, "--key", "lk_agent_x"])

    told = capsys.readouterr()
    assert (code, told.out) == (1, "")
    assert words in told.err
    assert "unexpected" not in told.err


def test_a_watch_outlives_a_place_that_takes_no_file_for_a_while(
    ailing: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    packet = ailing.command("diagnose", "--format", "json").out
    out = tmp_path / "mounted" / "improve.json"
    out.parent.mkdir()
    written: list[bool] = []

    def pause(_seconds: float) -> None:
        written.append(out.exists())
        match len(written):
            case 1:
                shutil.rmtree(out.parent)
            case 2:
                out.parent.mkdir()
            case _:
                raise KeyboardInterrupt

    monkeypatch.setattr("lifesign.cli.diagnose.time.sleep", pause)
    with listening(answering(200, b'{"ok":true,"packet":' + packet + b"}")) as url:
        code = main(["diagnose", "--url", url, "--key", "lk_agent_x", "--watch", "1", "--out", str(out)])

    assert (code, written) == (130, [True, False, True])
    assert capsys.readouterr().err == f"lifesign: cannot write {out}: No such file or directory\n"


def test_a_watch_that_never_saw_a_packet_ends(ailing: Server) -> None:
    env = ailing.env | {"LIFESIGN_KEY": "lk_agent_nobody"}

    assert lifesign_command("diagnose", "--watch", "1", env=env).code == 1


def test_a_watch_on_a_terminal_redraws(ailing: Server) -> None:
    ours, theirs = pty.openpty()
    command = [*COMMAND, "diagnose", "--watch", "1"]
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**ailing.env) | {"TERM": "xterm"}
    ) as process:
        os.close(theirs)
        shown = b""
        while shown.count(b"\x1b[H\x1b[2J") < 2:
            shown += os.read(ours, 65_536)
        process.send_signal(signal.SIGINT)
        process.wait(timeout=30)
    os.close(ours)

    assert shown.count(b"\x1b[2J") == shown.count(b"\x1b[H\x1b[2J")
    assert b"tool_call_failed" in shown
    # What a sender called a tool is text on a terminal, too.
    assert b"[red] [2Jx" in shown or b"[red][2Jx" in shown
