"""`lifesign telemetry import` and `export`: from a file to a server that may be busy, and back."""

import http.server
import json
import os
import signal
import subprocess
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans

from lifesign.telemetry.otlp import Span, decode_json
from tests.cli.conftest import Ran, Server, lifesign_command, listening, running_server, started
from tests.faults.server import until
from tests.telemetry.requests import as_otlp_json, sdk_spans

Json = dict[str, Any]
TRACE = "5b8efff798038103d269b633813fc60c"


def line(*numbers: int, **fields: object) -> str:
    spans = [
        {
            "traceId": TRACE,
            "spanId": f"{number:016x}",
            "name": f"step {number}",
            "startTimeUnixNano": "1767614400000000000",
            "endTimeUnixNano": "1767614400500000000",
            "kind": 1,
        }
        | fields
        for number in numbers
    ]
    return json.dumps({"resourceSpans": [{"scopeSpans": [{"scope": {"name": "lib"}, "spans": spans}]}]})


@dataclass(slots=True)
class Collector:
    """A server that gives the answers of `script`, then accepts everything; and keeps what was accepted."""

    url: str = ""
    script: list[tuple[int, Json]] = field(default_factory=list)
    requests: int = 0
    spans: list[str] = field(default_factory=list)


@pytest.fixture
def collector() -> Iterator[Collector]:
    stage = Collector()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            spans = [
                span["spanId"]
                for group in body["resourceSpans"]
                for part in group["scopeSpans"]
                for span in part["spans"]
            ]
            stage.requests += 1
            status, answer = stage.script.pop(0) if stage.script else (202, {"ok": True, "accepted": len(spans)})
            if status < 300:
                stage.spans += spans
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.send_header("retry-after", "1")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as stage.url:
        yield stage


def sent(url: str, text: str) -> Ran:
    return lifesign_command(
        "telemetry", "import", "-", "--url", url, env={"LIFESIGN_API_KEY": "lk_test"}, stdin=text.encode()
    )


def test_lines_are_sent_together_and_counted(collector: Collector) -> None:
    ran = sent(collector.url, "\n".join([line(1), "", line(2, 3)]))

    assert (ran.code, ran.text) == (0, "3 accepted, 0 rejected\n")
    assert collector.spans == [f"{number:016x}" for number in (1, 2, 3)]
    assert collector.requests == 1


def test_a_busy_server_is_asked_again(collector: Collector) -> None:
    collector.script = [(503, {"ok": False, "error": "overloaded", "message": "busy"})]

    ran = sent(collector.url, line(1))

    assert (ran.code, ran.text) == (0, "1 accepted, 0 rejected\n")
    assert (collector.requests, collector.spans) == (2, [f"{1:016x}"])


def test_a_quota_that_is_used_up_ends_the_import_with_what_was_done(collector: Collector) -> None:
    refusal = {"ok": False, "error": "quota_exceeded", "message": "The quota of this month is used up", "code": 8}
    collector.script = [(202, {"ok": True, "accepted": 1000, "rejected": 0}), (429, refusal)]

    ran = sent(collector.url, "\n".join(line(number) for number in range(1, 1003)))

    assert ran.code == 4
    assert ran.err == (
        "lifesign: lines 1001 to 1002: The quota of this month is used up\n"
        "  1,000 spans were accepted before; importing again is safe\n"
    )


def test_what_was_rejected_is_told_with_the_reason(collector: Collector) -> None:
    partial = {"rejectedSpans": "1", "errorMessage": "1 span rejected: invalid traceId (1)"}
    collector.script = [(202, {"ok": True, "accepted": 1, "rejected": 1, "partialSuccess": partial})]

    ran = sent(collector.url, line(1, 2))

    assert ran.code == 4
    assert ran.text == "1 accepted, 1 rejected\n  line 1: 1 span rejected: invalid traceId (1)\n"


def test_bad_lines_are_told_and_keep_no_good_one_away(collector: Collector) -> None:
    ran = sent(collector.url, "\n".join([line(1), "{", json.dumps({"resourceLogs": []}), "[]", line(2)]))

    assert ran.code == 1
    assert ran.text == "2 accepted, 0 rejected\n"
    assert "lines of other signals, left out: 1\n" in ran.err
    assert "lines that are no requests for traces, left out: 2\n  line 2 is not JSON: " in ran.err
    assert "\n  line 4 is not a JSON object\n" in ran.err
    assert collector.spans == [f"{number:016x}" for number in (1, 2)]


def test_a_server_that_nobody_reaches_is_told_at_once(closed_port: int) -> None:
    ran = sent(f"http://127.0.0.1:{closed_port}", line(1))

    assert ran.code == 3
    assert "connection refused" in ran.err


def test_a_file_that_is_not_there_is_told() -> None:
    ran = lifesign_command("telemetry", "import", "nowhere.jsonl", env={"LIFESIGN_API_KEY": "k"})

    assert (ran.code, ran.err) == (2, "lifesign: cannot read nowhere.jsonl: No such file or directory\n")


def test_what_is_imported_is_exported_whole_and_counts_once_when_it_comes_again(server: Server, tmp_path: Path) -> None:
    sdk = as_otlp_json(encode_spans(sdk_spans()))
    given = tmp_path / "given.jsonl"
    given.write_text("\n".join([json.dumps(sdk), line(1, 2, attributes=[{"key": "n", "value": {"intValue": "7"}}])]))
    first = server.command("telemetry", "import", str(given))
    out = tmp_path / "out.jsonl"

    exported = server.command("telemetry", "export", "--out", str(out))
    again = server.command("telemetry", "import", str(out))
    piped = server.command("telemetry", "export", "--since-minutes", "43200")

    assert (first.code, first.text) == (0, "4 accepted, 0 rejected\n")
    assert (exported.code, exported.out, exported.err) == (0, b"", "lifesign: 4 spans written\n")
    assert (again.code, again.text) == (0, "4 accepted, 0 rejected\n")
    assert piped.out == out.read_bytes()
    assert spans_in(out.read_bytes()) == spans_in(given.read_bytes())


def spans_in(lines: bytes) -> list[Span]:
    found = [span for each in lines.splitlines() for span in decode_json(each, arrival_ns=1).spans]
    return sorted(found, key=lambda span: (span.trace_id, span.span_id))


def test_a_key_of_the_other_kind_is_told(server: Server) -> None:
    made = server.told(
        "keys", "create", "--name", "reader", "--scope", "telemetry:read", "--data-dir", str(server.data_dir)
    )
    env = server.env | {"LIFESIGN_KEY": made["token"]}

    ran = lifesign_command("telemetry", "import", "-", env=env, stdin=line(1).encode())

    assert ran.code == 4
    assert ran.err.startswith("lifesign: line 1: This route needs a producer key")


# In the middle ------------------------------------------------------------------------------------------------------
# Of these, the first thousand are one request, and the others the next.
MANY = [line(number) for number in range(1, 1101)]
FIRST, REST = ("".join(f"{each}\n" for each in some).encode() for some in (MANY[:1001], MANY[1001:]))


def counted(url: str, key: str) -> tuple[int, int]:
    """How many spans the project of a key has, and how many were charged."""
    answer = httpx2.get(f"{url}/v1/dashboard", headers={"Authorization": f"Bearer {key}"}, trust_env=False)
    told = answer.raise_for_status().json()
    return told["totals"]["records"], told["quota"]["used"]


@contextmanager
def half_way(env: Mapping[str, str], url: str, key: str) -> Iterator["subprocess.Popen[bytes]"]:
    """An import whose first request is stored, and which waits for more to read."""
    with started(["telemetry", "import", "-"], env) as importing:
        assert importing.stdin is not None
        importing.stdin.write(FIRST)
        importing.stdin.flush()
        until(lambda: counted(url, key) == (1000, 1000), within_s=60)
        yield importing


def test_an_import_goes_on_once_a_server_that_was_away_is_back(tmp_path: Path) -> None:
    data_dir, key = tmp_path / "data", "an-admin-key-of-tests"
    with (
        running_server(data_dir, LIFESIGN_ADMIN_KEY=key) as before,
        half_way(before.env, before.url, key) as importing,
        ThreadPoolExecutor(1) as pool,
    ):
        os.kill(before.pid, signal.SIGKILL)
        # A process that starts takes longer than to find that nobody answers: it finds that first.
        ending = pool.submit(importing.communicate, REST, 60)
        port = before.url.rpartition(":")[2]
        with running_server(data_dir, LIFESIGN_PORT=port, LIFESIGN_ADMIN_KEY=key) as after:
            out, err = ending.result()
            stored = counted(after.url, key)

    assert (importing.returncode, out, err) == (0, b"1,100 accepted, 0 rejected\n", b"")
    assert stored == (1100, 1100)


def test_an_import_that_was_killed_half_way_is_run_again_and_everything_counts_once(
    server: Server, tmp_path: Path
) -> None:
    made = httpx2.post(f"{server.url}/v1/provision", json={"project_name": "half way"}, trust_env=False).json()
    env = {"LIFESIGN_URL": server.url, "LIFESIGN_KEY": made["producer_key"]}
    with half_way(env, server.url, made["agent_key"]) as importing:
        importing.kill()
    whole = tmp_path / "whole.jsonl"
    whole.write_bytes(FIRST + REST)

    again = lifesign_command("telemetry", "import", str(whole), env=env)

    assert (again.code, again.text) == (0, "1,100 accepted, 0 rejected\n")
    assert counted(server.url, made["agent_key"]) == (1100, 1100)


# Out ----------------------------------------------------------------------------------------------------------------
def test_an_export_that_fails_leaves_the_file_before(server: Server, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    env = server.env | {"LIFESIGN_KEY": "lk_agent_nobody"}

    ran = lifesign_command("telemetry", "export", "--out", str(out), env=env)

    assert ran.code == 4
    assert out.read_text() == "before"
    assert [each.name for each in tmp_path.iterdir()] == ["out.jsonl"]
