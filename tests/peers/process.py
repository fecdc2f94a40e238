"""Starts and stops peers by process, and speaks to the one called `ledger`."""

import asyncio
import base64
import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlencode

_ROOT = Path(__file__).resolve().parents[2]
_STOP_S = 5.0
_CALL_S = 30.0


@dataclass(frozen=True, slots=True)
class Record:
    """One request as the ledger kept it. `verdict`: what the vendor would have answered; `answered`: what it did."""

    at: int
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    content: bytes
    verdict: int
    answered: int

    @property
    def json(self) -> Any:  # Any: the body is the test's to judge
        return json.loads(self.content)


@dataclass(frozen=True, slots=True)
class LedgerPeer:
    """A running ledger. Calls block for milliseconds only: the peer is another process."""

    port: int
    tls_port: int | None
    ca_file: Path | None
    pid: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    def script(self, name: str, *entries: dict[str, Any]) -> None:  # Any: JSON
        """Say what is to go wrong with the next requests to receiver `name`."""
        self._call("PUT", f"/script/{name}", json.dumps(entries).encode())

    def requests(self, path: str | None = None, *, at_least: int = 0, wait_s: float = 0) -> list[Record]:
        """What arrived so far; with `at_least`, waits up to `wait_s` until that many are there."""
        query = {"at_least": at_least, "wait": wait_s} | ({} if path is None else {"path": path})
        rows = json.loads(self._call("GET", f"/ledger?{urlencode(query)}"))
        return [
            Record(
                row["time"],
                row["method"],
                row["path"],
                row["query"],
                row["headers"],
                base64.b64decode(row["body_base64"]),
                row["verdict"]["status"],
                row["answered"],
            )
            for row in rows
        ]

    async def arrived(self, path: str, count: int = 1, *, within_s: float = 10) -> list[Record]:
        """Wait, without blocking the loop, until `count` requests to `path` are on disk; fail without them."""
        found = await asyncio.to_thread(self.requests, path, at_least=count, wait_s=within_s)
        assert len(found) >= count, f"{len(found)} of {count} requests to {path} arrived within {within_s} s"
        return found

    def clear(self) -> None:
        """Empty the ledger."""
        self._call("DELETE", "/ledger")

    def _call(self, method: str, target: str, body: bytes | None = None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_CALL_S)
        try:
            connection.request(method, target, body)
            response = connection.getresponse()
            content = response.read()
            assert response.status < 300, f"{method} {target}: {response.status}"
            return content
        finally:
            connection.close()


class Stoppable(Protocol):
    """A process of `subprocess`, or one that is like it."""

    def terminate(self) -> None: ...
    def kill(self) -> None: ...
    def wait(self, timeout: float | None = None) -> int: ...


def stop(process: Stoppable, within_s: float) -> None:
    """Ask a process to end, and end it when it does not in time."""
    process.terminate()
    try:
        process.wait(within_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def peer_process(module: str, arguments: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Run `python -m <module>` for the time of the block; gives its pid and the first line it printed."""
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=_ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        line = process.stdout.readline()
        assert line, f"{module} ended before it printed its port, with status {process.wait(_STOP_S)}"
        yield process.pid, line.strip()
    finally:
        stop(process, _STOP_S)
        process.stdin.close()
        process.stdout.close()


@contextlib.contextmanager
def ledger_peer(directory: Path, *, tls: bool = False) -> Iterator[LedgerPeer]:
    """Run a ledger that keeps its file (and, with `tls`, the root to trust) in `directory`."""
    ca_file = directory / "ledger-ca.pem" if tls else None
    arguments = ["--port", "0", "--file", str(directory / "ledger.jsonl"), "--with-parent"]
    if ca_file is not None:
        arguments += ["--tls-ca-file", str(ca_file)]
    with peer_process("tests.peers.ledger", arguments) as (pid, line):
        ports = json.loads(line)
        yield LedgerPeer(ports["port"], ports.get("tls_port"), ca_file, pid)
