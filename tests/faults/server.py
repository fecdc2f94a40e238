"""`lifesign serve` as a process of its own, to be asked over HTTP, told to stop, or killed."""

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import httpx2

from tests.forked import Forked, forks
from tests.harness import ADMIN_KEY, Json

_ROOT = Path(__file__).resolve().parents[2]
_START_S = 60.0
_LOOK_AGAIN_S = 0.02


@dataclass(frozen=True, slots=True)
class Server:
    """A running server; `output` is what it printed, `log` what it logged."""

    process: Forked
    output: Path
    log: Path

    @property
    def url(self) -> str:
        line = next(each for each in self.output.read_text().splitlines() if each.startswith("listening on "))
        return line.split()[2]

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def request(self, method: str, path: str, body: object = None, *, timeout_s: float = 30) -> httpx2.Response:
        headers = {"Authorization": f"Bearer {ADMIN_KEY}"}
        return httpx2.request(method, self.url + path, json=body, headers=headers, timeout=timeout_s, trust_env=False)

    def ask(self, method: str, path: str, body: object = None, *, expect: int = 200) -> Json:
        answer = self.request(method, path, body)
        assert answer.status_code == expect, f"{method} {path}: {answer.status_code} {answer.text}"
        return cast("Json", answer.json()) if answer.content else {}

    def webhook(self, url: str, **config: object) -> str:
        body = {"name": "hook", "type": "webhook", "config": {"url": url} | config}
        return str(self.ask("POST", "/v1/channels", body, expect=201)["id"])

    def heartbeat(self, slug: str, **fields: object) -> str:
        body = {"name": slug, "slug": slug, "mode": "recurring", "interval": 3600} | fields
        return str(self.ask("POST", "/v1/heartbeats", body, expect=201)["id"])

    def fire(self, slug: str) -> None:
        self.ask("POST", f"/v1/heartbeats/{slug}/checkin", {"healthy": False})

    def statuses(self, kind: str = "page") -> list[str]:
        """The status of every message of a kind, newest first."""
        listed = self.ask("GET", "/v1/notifications?limit=1000")["notifications"]
        return [each["status"] for each in listed if each["kind"] == kind]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def terminate(self) -> None:
        """Ask it to stop; it has not stopped yet."""
        self.process.send_signal(signal.SIGTERM)

    def exit_code(self, within_s: float = 30) -> int:
        return self.process.wait(within_s)


@contextlib.contextmanager
def serving(directory: Path, **variables: object) -> Iterator[Server]:
    """Run a server with `LIFESIGN_*` variables of these names until the block ends; it listens on a free port."""
    with starting(directory, **variables) as server:
        until(lambda: "listening on " in server.output.read_text() or _has_ended(server), within_s=_START_S)
        assert server.process.poll() is None, f"the server did not start: {server.log.read_text()}"
        yield server


@contextlib.contextmanager
def starting(directory: Path, **variables: object) -> Iterator[Server]:
    """As `serving`, without waiting for it: it may not come up at all."""
    directory.mkdir(exist_ok=True)
    settings: dict[str, object] = {
        "data_dir": directory / "data",
        "port": 0,
        "admin_key": ADMIN_KEY,
        "allow_private_targets": "true",
    } | variables
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LIFESIGN_")}
    environment |= {f"LIFESIGN_{name.upper()}": str(value) for name, value in settings.items() if value is not None}
    number = len(list(directory.glob("*.log")))
    output, log = directory / f"{number}.out", directory / f"{number}.log"
    with output.open("wb") as out, log.open("wb") as err, Path(os.devnull).open("rb") as nothing:
        process = forks().start(["serve"], environment, (nothing, out, err), directory=_ROOT)
    try:
        yield Server(process, output, log)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def _has_ended(server: Server) -> bool:
    return server.process.poll() is not None


def until(is_so: Callable[[], bool], *, within_s: float = 20) -> None:
    """Look again and again until something is so; fail when it is not in time."""
    give_up_at = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < give_up_at, f"still not so after {within_s} s"
        time.sleep(_LOOK_AGAIN_S)
