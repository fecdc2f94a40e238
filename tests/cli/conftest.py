"""A server of its own process, the command as a process, and a stand-in server that answers as a test says."""

import http.server
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.forked import forks
from tests.peers.process import stop

_STOP_S = 25.0
COMMAND = (sys.executable, "-m", "lifesign")


@dataclass(frozen=True, slots=True)
class Ran:
    """How a command ended."""

    code: int
    out: bytes
    err: str

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def json(self) -> Any:  # Any: JSON, for the test to judge
        return json.loads(self.out)


def environment(**changes: str) -> dict[str, str]:
    """The variables of this process without any setting of Lifesign, and with `changes`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("LIFESIGN_")}
    return kept | changes


def lifesign_command(*arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b"") -> Ran:
    """Run `lifesign` to its end."""
    code, out, err = forks().run(arguments, environment(**(env or {})), stdin, timeout_s=60)
    return Ran(code, out, err.decode())


@dataclass(frozen=True, slots=True)
class Server:
    """A running server, and the command line pointed at it."""

    url: str
    key: str
    data_dir: Path
    pid: int

    @property
    def env(self) -> dict[str, str]:
        return {"LIFESIGN_URL": self.url, "LIFESIGN_KEY": self.key}

    def command(self, *arguments: str, stdin: bytes = b"") -> Ran:
        return lifesign_command(*arguments, env=self.env, stdin=stdin)

    def told(self, *arguments: str) -> Any:  # Any: JSON, for the test to judge
        """What a command that must succeed says with `--json`."""
        ran = self.command(*arguments, "--json")
        assert ran.code == 0, ran.err
        return ran.json


@contextmanager
def running_server(data_dir: Path, **changes: str) -> Iterator[Server]:
    """A server until the block ends, on a free port unless LIFESIGN_PORT is among `changes`, which are variables."""
    arguments = ["serve", "--port", changes.get("LIFESIGN_PORT", "0"), "--data-dir", str(data_dir)]
    reading, writing = os.pipe()
    with open(reading) as output:  # noqa: PTH123 - a pipe has no path
        with open(writing, "wb") as out, Path(os.devnull).open("r+b") as nothing:  # noqa: PTH123 - as above
            env = environment(LIFESIGN_ALLOW_PRIVATE_TARGETS="true", **changes)
            process = forks().start(arguments, env, (nothing, out, nothing))
        try:
            url, key = "", changes.get("LIFESIGN_ADMIN_KEY", "")
            while not (url and key):
                line = output.readline()
                assert line, f"the server ended before it was ready, with {process.wait(_STOP_S)}"
                if line.startswith("listening on "):
                    url = line.split()[2]
                if line.startswith("admin key: "):
                    key = line.split()[2]
            yield Server(url, key, data_dir, process.pid)
        finally:
            stop(process, _STOP_S)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests of commands; each test makes what it needs under names of its own."""
    with running_server(tmp_path_factory.mktemp("server") / "data") as started:
        yield started


@dataclass(slots=True)
class StandIn:
    """A server that answers with the statuses of `script`, then with 200, and keeps what it was asked."""

    url: str = ""
    script: list[tuple[int, dict[str, str]]] = field(default_factory=list)
    asked: "queue.Queue[tuple[dict[str, str], Any]]" = field(default_factory=queue.Queue)

    @property
    def env(self) -> dict[str, str]:
        return {"LIFESIGN_URL": self.url, "LIFESIGN_KEY": "lsk_test"}

    def requests(self) -> list[tuple[dict[str, str], Any]]:
        """Headers, by lower-case name, and JSON body of each request so far."""
        return [self.asked.get_nowait() for _ in range(self.asked.qsize())]

    def body(self) -> Any:  # Any: JSON, for the test to judge
        """The body of the only request."""
        [(_, body)] = self.requests()
        return body


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    """A stand-in on a free port."""
    stage = StandIn()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["content-length"]))
            stage.asked.put(({name.lower(): value for name, value in self.headers.items()}, json.loads(content)))
            status, headers = stage.script.pop(0) if stage.script else (200, {})
            answer = json.dumps({"status": "active", "healthy": True, "error": {"message": "scripted"}}).encode()
            self.send_response(status)
            for name, value in {**headers, "content-length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Handler) as stage.url:
        yield stage


@contextmanager
def listening(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The address at which a handler answers until the block ends."""
    listener = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_address[1]}"
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()


@contextmanager
def started(arguments: Sequence[str], env: Mapping[str, str]) -> Iterator["subprocess.Popen[bytes]"]:
    """`lifesign` as a process that goes on while the test does; killed at the end of the block if it still runs."""
    process = subprocess.Popen(
        [*COMMAND, *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment(**env),
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()
