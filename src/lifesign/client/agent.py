"""`lifesign agent`: tells a Lifesign server that this machine is alive, for as long as it is.

Small on purpose: it runs everywhere and all the time. Never ends because of an error; what failed is tried again.
Spec "Systems", section 7.
"""

import base64
import contextlib
import http.client
import json
import os
import random
import signal
import socket
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, Protocol

from lifesign.client.wire import is_address, opener_of

UNIT = """\
[Unit]
Description=Lifesign agent
After=network-online.target
Wants=network-online.target
[Service]
ExecStart=/usr/bin/env lifesign agent
EnvironmentFile=/etc/lifesign/agent.env
LoadCredential=secret:/etc/lifesign/agent.secret
DynamicUser=yes
Restart=always
RestartSec=10
NoNewPrivileges=yes
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
MemoryMax=64M
[Install]
WantedBy=multi-user.target
"""
_CURL = (
    "*/10 * * * * curl -fsS -m 10 --retry 3 --netrc-file /etc/lifesign/netrc -H 'Content-Type: application/json' "
    """-d '{"system_id":"%s"}' %s/api/systems/heartbeat >/dev/null"""
)

DEFAULT_INTERVAL_S, MIN_INTERVAL_S, MAX_INTERVAL_S = 600, 10, 86_400
DEFAULT_JITTER_S = 30
_JITTERS_PER_INTERVAL = 4
TIMEOUT_S = 10.0
PAUSES_S = (5, 10, 20, 40, 80, 120)
"""How long to wait after each failure, at most; the last of them again and again."""
_INVENTORY_EVERY_S = 24 * 3600
# A machine that slept finds out so soon that it is late.
_LONGEST_WAIT_S = 30.0
_LOOK_S = 0.2
_LONGEST_NUMBER = 20
_MAX_ANSWER_BYTES = 65_536
_OK, _REDIRECTS, _CLIENT_ERRORS, _SERVER_ERRORS, _TOO_MANY_REQUESTS = 200, 300, 400, 500, 429
EXIT_OK, EXIT_REFUSED, EXIT_USAGE, EXIT_UNREACHABLE = 0, 1, 2, 3


class UsageError(Exception):
    """An option or a variable is missing or wrong."""


@dataclass(frozen=True, slots=True)
class Config:
    """What to report, where, and how often; seconds."""

    url: str
    system_id: str
    secret: str
    interval_s: int
    jitter_s: int
    has_inventory: bool
    ca_file: str | None


class Outcome(NamedTuple):
    """What became of one report."""

    state: Literal["acknowledged", "refused", "unreachable"]
    reason: str = ""


# What to do ---------------------------------------------------------------------------------------------------------
def main(options: Mapping[str, str], switches: frozenset[str], environment: Mapping[str, str] | None = None) -> int:
    """Run the agent until it is told to stop; its exit code.

    options: values by option, such as `--url`. switches: those of `--once`, `--print-unit` and `--print-curl` given.
    """
    given = os.environ if environment is None else environment
    if "--print-unit" in switches:
        sys.stdout.write(UNIT)
        return EXIT_OK
    if "--print-curl" in switches:
        url = (options.get("--url") or given.get("LIFESIGN_URL") or "https://HOST").rstrip("/")
        system_id = options.get("--system-id") or given.get("LIFESIGN_SYSTEM_ID") or "ID"
        print(curl_line(url, system_id))  # noqa: T201 - asked for
        return EXIT_OK
    try:
        config = config_of(options, given)
        reporter = Reporter(config)
    except UsageError as error:
        _log(str(error))
        return EXIT_USAGE
    if "--once" in switches:
        outcome = outcome_of(reporter.beat, threading.Event())
        if outcome.state == "acknowledged":
            return EXIT_OK
        _log(outcome.reason)
        return EXIT_REFUSED if outcome.state == "refused" else EXIT_UNREACHABLE
    Agent(config, reporter, notify_socket=given.get("NOTIFY_SOCKET")).run()
    return EXIT_OK


def curl_line(url: str, system_id: str) -> str:
    """The line of a crontab that reports without this agent."""
    return _CURL % (system_id, url)


def config_of(options: Mapping[str, str], environment: Mapping[str, str]) -> Config:
    """The configuration that options and environment give; options win. Raises UsageError."""

    def value(option: str, variable: str) -> str | None:
        return options.get(option) or environment.get(variable) or None

    url, system_id = value("--url", "LIFESIGN_URL"), value("--system-id", "LIFESIGN_SYSTEM_ID")
    if url is None:
        raise UsageError("no server: give --url or set LIFESIGN_URL")
    if system_id is None:
        raise UsageError("no system: give --system-id or set LIFESIGN_SYSTEM_ID")
    interval_s = _whole(value("--interval", "LIFESIGN_AGENT_INTERVAL"), "--interval", MIN_INTERVAL_S, MAX_INTERVAL_S)
    interval_s = DEFAULT_INTERVAL_S if interval_s is None else interval_s
    most = interval_s // _JITTERS_PER_INTERVAL
    jitter_s = _whole(value("--jitter", "LIFESIGN_AGENT_JITTER"), "--jitter", 0, most)
    inventory = value("--inventory", "LIFESIGN_AGENT_INVENTORY") or "off"
    if inventory not in {"on", "off"}:
        raise UsageError(f"--inventory: must be on or off, not {inventory!r}")
    return Config(
        url=_checked_url(url),
        system_id=system_id,
        secret=_secret(options, environment),
        interval_s=interval_s,
        jitter_s=min(DEFAULT_JITTER_S, most) if jitter_s is None else jitter_s,
        has_inventory=inventory == "on",
        ca_file=options.get("--ca-file"),
    )


def _whole(text: str | None, option: str, low: int, high: int) -> int | None:
    if text is None:
        return None
    # Python reads no number of more than 4300 digits.
    if not (text.isascii() and text.isdigit() and len(text) < _LONGEST_NUMBER and low <= int(text) <= high):
        raise UsageError(f"{option}: must be whole seconds from {low} to {high}, not {text!r}")
    return int(text)


def _checked_url(url: str) -> str:
    if not is_address(url):
        raise UsageError(
            f"--url: {url!r} is not the address of a server; write for example https://lifesign.example.org"
        )
    return url.rstrip("/")


def _secret(options: Mapping[str, str], environment: Mapping[str, str]) -> str:
    named = options.get("--secret-file") or environment.get("LIFESIGN_SYSTEM_SECRET_FILE")
    if named is None and (secret := environment.get("LIFESIGN_SYSTEM_SECRET")):
        return secret
    if named is None and (directory := environment.get("CREDENTIALS_DIRECTORY")):
        named = str(Path(directory) / "secret")
    if named is None:
        raise UsageError("no secret: give --secret-file, or set LIFESIGN_SYSTEM_SECRET_FILE or LIFESIGN_SYSTEM_SECRET")
    try:
        secret = Path(named).read_text(encoding="utf-8").strip("\r\n")
    except OSError as error:
        raise UsageError(f"--secret-file: cannot read {named}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"--secret-file: {named} is not text") from None
    if not secret:
        raise UsageError(f"--secret-file: {named} is empty")
    return secret


# Reporting ----------------------------------------------------------------------------------------------------------
class Reporter:
    """Sends reports; `outcome_of` sees to it that none takes long."""

    def __init__(self, config: Config) -> None:
        """Raise UsageError when the file of the CA cannot be used."""
        try:
            self._opener = opener_of(config.url, config.ca_file)
        except OSError as error:
            raise UsageError(f"--ca-file: cannot use {config.ca_file}: {error.strerror or error}") from None
        self._config = config
        credentials = base64.b64encode(f"{config.system_id}:{config.secret}".encode()).decode()
        self._headers = {
            "Authorization": f"Basic {credentials}",
            "Content-Type": "application/json",
            "Accept": "application/json",
            "User-Agent": "lifesign-agent",
        }

    def beat(self) -> Outcome:
        """Tell that this machine is alive."""
        return self._sent("heartbeat", {"system_id": self._config.system_id})

    def tell_inventory(self) -> Outcome:
        """Tell what this machine consists of."""
        return self._sent("inventory", inventory())

    def _sent(self, what: str, body: Mapping[str, Any]) -> Outcome:
        url = f"{self._config.url}/api/systems/{what}"
        request = urllib.request.Request(url, json.dumps(body).encode(), self._headers, method="POST")  # noqa: S310 - checked in _checked_url
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                return _judged(response.status, response.read(_MAX_ANSWER_BYTES))
        except urllib.error.HTTPError as error:
            with error:
                return _judged(error.code, error.read(_MAX_ANSWER_BYTES))
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            return Outcome("unreachable", f"cannot reach {self._config.url}: {reason}")


def _judged(status: int, content: bytes) -> Outcome:
    try:
        body = json.loads(content)
    except ValueError:
        body = None
    message = str(body.get("message", "")) if isinstance(body, dict) else ""
    told = f"the server answered {status} {message}".rstrip()
    if status == _OK:
        # Whatever else answers 200 to everything has acknowledged nothing.
        is_ours = isinstance(body, dict) and body.get("code") == _OK
        return (
            Outcome("acknowledged")
            if is_ours
            else Outcome("unreachable", "the answer is not that of a Lifesign server")
        )
    if status >= _SERVER_ERRORS or status == _TOO_MANY_REQUESTS or status < _REDIRECTS:
        return Outcome("unreachable", told)
    if status < _CLIENT_ERRORS:
        return Outcome("refused", f"{told}: redirects are not followed; is the address right?")
    return Outcome("refused", told)


def outcome_of(report: Callable[[], Outcome], stopped: "Stop") -> Outcome:
    """Run `report` for at most `TIMEOUT_S`, or until `stopped`, and never raise.

    In a thread, because looking up a name can be neither timed out nor interrupted.
    """
    found: list[Outcome] = []
    is_over = threading.Event()

    def work() -> None:
        try:
            found.append(report())
        except Exception as error:  # noqa: BLE001 - the agent never ends because of an error
            found.append(Outcome("unreachable", f"{type(error).__name__}: {error}"))
        is_over.set()

    threading.Thread(target=work, name="report", daemon=True).start()
    give_up_at = time.monotonic() + TIMEOUT_S
    while not (is_over.wait(_LOOK_S) or stopped.is_set() or time.monotonic() >= give_up_at):
        pass
    return found[0] if found else Outcome("unreachable", f"no answer within {TIMEOUT_S:.0f} s")


def inventory() -> dict[str, Any]:
    """What this machine consists of, as far as it can be found out without help."""
    system = os.uname()
    return {
        "os": {"name": _os_name(), "hostname": system.nodename},
        "kernel": {"name": system.sysname, "release": system.release, "machine": system.machine},
        "cpu": {"count": os.cpu_count()},
        "memory": {"total": _memory_total()},
        "disks": [
            {"name": each.name, "size": int(sectors) * 512}
            for each in _entries("/sys/block")
            if (sectors := _line(each / "size")).isdigit() and sectors != "0" and (each / "device").exists()
        ],
        "interfaces": [
            {"name": each.name, "mac": _line(each / "address")}
            for each in _entries("/sys/class/net")
            # Those of containers come and go.
            if each.name != "lo" and not each.name.startswith("veth")
        ],
    }


def _os_name() -> str:
    for line in _text(Path("/etc/os-release")).splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip("\"'")
    return sys.platform


def _memory_total() -> int | None:
    for line in _text(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemTotal:"):
            return int(line.split()[1]) * 1024
    return None


def _entries(directory: str) -> list[Path]:
    try:
        return sorted(Path(directory).iterdir())
    except OSError:
        return []


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _line(path: Path) -> str:
    return _text(path).strip()


# As long as the machine lives ---------------------------------------------------------------------------------------
def _boot_time() -> float:
    """Seconds that go on while the machine sleeps."""
    clock = getattr(time, "CLOCK_BOOTTIME", None)
    return time.monotonic() if clock is None else time.clock_gettime(clock)


class Stop(Protocol):
    """What the agent waits on; a `threading.Event`."""

    def is_set(self) -> bool:
        """Whether it is time to end."""
        ...

    def set(self) -> None:
        """Let it be time to end."""
        ...

    def wait(self, timeout: float) -> bool:
        """Wait for that, at most for so many seconds."""
        ...


class Reports(Protocol):
    """What the agent sends; a `Reporter`."""

    def beat(self) -> Outcome:
        """Tell that this machine is alive."""
        ...

    def tell_inventory(self) -> Outcome:
        """Tell what this machine consists of."""
        ...


class Agent:
    """Reports again and again, until a signal comes."""

    def __init__(
        self,
        config: Config,
        reporter: Reports,
        *,
        notify_socket: str | None = None,
        stopped: Stop | None = None,
        now: Callable[[], float] = _boot_time,
    ) -> None:
        self._config = config
        self._reporter = reporter
        self._notify_socket = notify_socket
        self._now = now
        self._stopped: Stop = stopped or threading.Event()
        self._random = random.Random()  # noqa: S311 - when to report is no secret
        self._last: Outcome | None = None
        self._inventory_due = now() if config.has_inventory else None
        self._inventory_failed = False

    def run(self) -> None:
        """Report until SIGTERM or SIGINT."""
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, lambda *_: self._stopped.set())
        self.report()

    def report(self) -> None:
        """Report until stopped."""
        due = self._now()
        while not self._stopped.is_set():
            due += self._config.interval_s + self._random.uniform(-self._config.jitter_s, self._config.jitter_s)
            self._beat_until(due)
            # After a long sleep there is nothing to catch up on.
            due = max(due, self._now())

    def _beat_until(self, next_due: float) -> None:
        """Beat until it is acknowledged or refused, or until the next beat is due; then wait for that."""
        failures = 0
        while not self._stopped.is_set():
            outcome = outcome_of(self._reporter.beat, self._stopped)
            if self._stopped.is_set():
                return
            self._note(outcome)
            if outcome.state != "unreachable":
                break
            pause_s = self._random.uniform(0, PAUSES_S[min(failures, len(PAUSES_S) - 1)])
            failures += 1
            if self._now() + pause_s >= next_due:
                break
            self._wait_until(self._now() + pause_s)
        if self._last is not None and self._last.state == "acknowledged":
            self._tell_inventory()
        self._wait_until(next_due)

    def _wait_until(self, at: float) -> None:
        while not self._stopped.is_set() and (left := at - self._now()) > 0:
            self._stopped.wait(min(left, _LONGEST_WAIT_S))

    def _note(self, outcome: Outcome) -> None:
        """Log what changed; a line for each beat would hide it."""
        if outcome != self._last:
            _log(f"{self._config.url} acknowledges" if outcome.state == "acknowledged" else outcome.reason)
        self._last = outcome
        if outcome.state == "acknowledged" and self._notify_socket is not None:
            _tell_systemd(self._notify_socket)
            self._notify_socket = None

    def _tell_inventory(self) -> None:
        if self._inventory_due is None or self._now() < self._inventory_due or self._stopped.is_set():
            return
        outcome = outcome_of(self._reporter.tell_inventory, self._stopped)
        has_failed = outcome.state != "acknowledged"
        if has_failed != self._inventory_failed:
            _log(f"inventory: {outcome.reason}" if has_failed else "inventory: acknowledged")
        self._inventory_failed = has_failed
        if not has_failed:
            self._inventory_due = self._now() + _INVENTORY_EVERY_S


def _tell_systemd(address: str) -> None:
    """Say that the agent is ready.  Source: sd_notify(3)."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"READY=1", f"\0{address[1:]}" if address.startswith("@") else address)


def _log(line: str) -> None:
    print(f"lifesign agent: {line}", file=sys.stderr, flush=True)  # noqa: T201 - the log of a process without a logger
