"""The agent: what it sends, when, and how it ends."""

import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from lifesign.client import agent
from lifesign.client.agent import Agent, Config, Outcome, UsageError
from tests.cli.conftest import Server, StandIn, environment, lifesign_command, server, stand_in

__all__ = ["server", "stand_in"]

ROOT = Path(__file__).parents[2]
SYSTEM = "4cf3053f-d0d5-4b10-b752-ff8f7b63c2f7"
GIVEN = {"LIFESIGN_URL": "http://127.0.0.1:9", "LIFESIGN_SYSTEM_ID": SYSTEM, "LIFESIGN_SYSTEM_SECRET": "s3cret"}
OURS = b'{"code":200,"message":"heartbeat acknowledged","data":{}}'


# What it is told ----------------------------------------------------------------------------------------------------
def test_the_usual_configuration_comes_from_the_environment() -> None:
    assert agent.config_of({}, GIVEN) == Config(
        url="http://127.0.0.1:9",
        system_id=SYSTEM,
        secret="s3cret",
        interval_s=600,
        jitter_s=30,
        has_inventory=False,
        ca_file=None,
    )


def test_options_win_over_the_environment(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("from a file\n")
    options = {
        "--url": "https://lifesign.example.org/sub/",
        "--secret-file": str(tmp_path / "secret"),
        "--interval": "60",
        "--inventory": "on",
        "--ca-file": "ca.pem",
    }

    config = agent.config_of(options, GIVEN | {"LIFESIGN_AGENT_INTERVAL": "1200", "LIFESIGN_AGENT_INVENTORY": "off"})

    assert config == Config("https://lifesign.example.org/sub", SYSTEM, "from a file", 60, 15, True, "ca.pem")


@pytest.mark.parametrize(
    ("files", "variables", "secret"),
    [
        (
            ("named", "secret"),
            ("LIFESIGN_SYSTEM_SECRET_FILE", "LIFESIGN_SYSTEM_SECRET", "CREDENTIALS_DIRECTORY"),
            "named",
        ),
        (("secret",), ("LIFESIGN_SYSTEM_SECRET", "CREDENTIALS_DIRECTORY"), "variable"),
        (("secret",), ("CREDENTIALS_DIRECTORY",), "secret"),
    ],
)
def test_where_the_secret_comes_from(
    tmp_path: Path, files: Sequence[str], variables: Sequence[str], secret: str
) -> None:
    for name in files:
        (tmp_path / name).write_text(name)
    known = {
        "LIFESIGN_SYSTEM_SECRET_FILE": str(tmp_path / "named"),
        "LIFESIGN_SYSTEM_SECRET": "variable",
        "CREDENTIALS_DIRECTORY": str(tmp_path),
    }
    given = {name: value for name, value in GIVEN.items() if name != "LIFESIGN_SYSTEM_SECRET"}

    assert agent.config_of({}, given | {name: known[name] for name in variables}).secret == secret


@pytest.mark.parametrize(
    ("options", "without", "message"),
    [
        ({}, "LIFESIGN_URL", "no server: give --url or set LIFESIGN_URL"),
        ({}, "LIFESIGN_SYSTEM_ID", "no system: give --system-id or set LIFESIGN_SYSTEM_ID"),
        ({}, "LIFESIGN_SYSTEM_SECRET", "no secret: "),
        ({"--secret-file": "/nowhere"}, "", "--secret-file: cannot read /nowhere: No such file or directory"),
        ({"--secret-file": "/dev/null"}, "", "--secret-file: /dev/null is empty"),
        ({"--url": "lifesign.example.org"}, "", "--url: 'lifesign.example.org' is not the address"),
        ({"--url": "https://user:word@example.org"}, "", "--url: "),
        ({"--url": "http://[::1"}, "", "--url: "),
        ({"--interval": "9"}, "", "--interval: must be whole seconds from 10 to 86400, not '9'"),
        ({"--interval": "1.5"}, "", "--interval: "),
        ({"--interval": "9" * 5000}, "", "--interval: must be whole seconds from 10 to 86400"),
        ({"--interval": "60", "--jitter": "16"}, "", "--jitter: must be whole seconds from 0 to 15, not '16'"),
        ({"--inventory": "yes"}, "", "--inventory: must be on or off, not 'yes'"),
    ],
)
def test_what_is_missing_or_wrong_is_told(options: dict[str, str], without: str, message: str) -> None:
    given = {name: value for name, value in GIVEN.items() if name != without}

    with pytest.raises(UsageError) as refused:
        agent.config_of(options, given)

    assert str(refused.value).startswith(message)


# When it reports ----------------------------------------------------------------------------------------------------
class Stage:
    """A clock, a stop that turns it, and reports that are answered as a script says."""

    def __init__(self, outcome_at: Callable[[float], Outcome], *, until: float) -> None:
        self.seconds = 0.0
        self.beats: list[float] = []
        self.inventories: list[float] = []
        self._outcome_at = outcome_at
        self._until = until

    def now(self) -> float:
        return self.seconds

    def is_set(self) -> bool:
        return self.seconds >= self._until

    def set(self) -> None:
        self._until = self.seconds

    def wait(self, timeout: float) -> bool:
        self.seconds += timeout
        return self.is_set()

    def beat(self) -> Outcome:
        self.beats.append(self.seconds)
        return self._outcome_at(self.seconds)

    def tell_inventory(self) -> Outcome:
        self.inventories.append(self.seconds)
        return self._outcome_at(self.seconds)

    def play(self, **changes: Any) -> None:
        values = {"interval_s": 600, "jitter_s": 30, "has_inventory": False} | changes
        config = Config(url="http://x", system_id=SYSTEM, secret="s", ca_file=None, **values)
        Agent(config, self, stopped=self, now=self.now).report()


GOOD = Outcome("acknowledged")
AWAY = Outcome("unreachable", "cannot reach http://x: connection refused")
REFUSED = Outcome("refused", "the server answered 401 invalid system credentials")


def test_the_first_beat_is_at_once_and_the_others_come_about_every_interval() -> None:
    stage = Stage(lambda _: GOOD, until=20 * 600)

    stage.play()

    assert stage.beats[0] == 0
    gaps = [later - earlier for earlier, later in zip(stage.beats, stage.beats[1:], strict=False)]
    assert len(gaps) in {18, 19, 20}
    assert all(570 <= gap <= 630 for gap in gaps)
    assert len(set(gaps)) > 10


def test_a_server_that_was_away_for_three_minutes_hears_a_beat_within_two(capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(50):
        stage = Stage(lambda at: AWAY if at < 180 else GOOD, until=600)
        stage.play(interval_s=86_400)

        first_heard = next(at for at in stage.beats if at >= 180)
        assert first_heard <= 300
    assert set(capsys.readouterr().err.splitlines()) == {
        "lifesign agent: cannot reach http://x: connection refused",
        "lifesign agent: http://x acknowledges",
    }


def test_failures_are_repeated_less_and_less_often_until_the_next_beat_is_due() -> None:
    stage = Stage(lambda _: AWAY, until=86_000)

    stage.play(interval_s=86_400)

    gaps = [later - earlier for earlier, later in zip(stage.beats, stage.beats[1:], strict=False)]
    assert [gap <= most for gap, most in zip(gaps, (5, 10, 20, 40, 80), strict=False)] == [True] * 5
    assert max(gaps) <= 120
    assert max(gaps) > 80
    assert len(gaps) > 1000


def test_a_refusal_is_told_once_and_tried_again_with_the_next_beat_only(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(lambda at: REFUSED if at < 1500 else GOOD, until=3000)

    stage.play(jitter_s=0)

    assert [round(at) for at in stage.beats] == [0, 600, 1200, 1800, 2400]
    assert capsys.readouterr().err.splitlines() == [
        "lifesign agent: the server answered 401 invalid system credentials",
        "lifesign agent: http://x acknowledges",
    ]


def test_the_inventory_is_sent_at_the_start_and_every_day_and_again_after_it_failed() -> None:
    stage = Stage(lambda at: AWAY if at == 600 else GOOD, until=2 * 86_400)
    late = Stage(lambda at: AWAY if at < 700 else GOOD, until=3000)

    stage.play(jitter_s=0, has_inventory=True)
    late.play(jitter_s=0, has_inventory=True)

    assert [round(at) for at in stage.inventories] == [0, 86_400]
    assert len(late.inventories) == 1


def test_after_a_long_sleep_there_is_nothing_to_catch_up_on() -> None:
    stage = Stage(lambda _: GOOD, until=50_000)
    real_wait = stage.wait
    stage.wait = lambda timeout: real_wait(30_000 if stage.seconds == 30 else timeout)  # type: ignore[method-assign]  # a machine that sleeps

    stage.play(jitter_s=0)

    assert stage.beats[:3] == [0, 30_030, 30_630]


def test_an_error_of_its_own_is_a_report_that_failed() -> None:
    def fails() -> Outcome:
        raise RuntimeError("unforeseen")

    stage = Stage(lambda _: GOOD, until=1)

    assert agent.outcome_of(fails, stage) == Outcome("unreachable", "RuntimeError: unforeseen")


# What it sends ------------------------------------------------------------------------------------------------------
def _command(*arguments: str, **variables: str) -> list[str]:
    return [sys.executable, "-m", "lifesign", "agent", *arguments]


def _run(env: dict[str, str], *arguments: str) -> tuple[int, str]:
    ran = lifesign_command("agent", *arguments, env=GIVEN | env)
    assert ran.out == b""
    return ran.code, ran.err


def test_one_beat_is_taken_and_the_system_is_alive(server: Server) -> None:
    made = server.told("systems", "create", "agent once")
    env = {"LIFESIGN_URL": server.url, "LIFESIGN_SYSTEM_ID": made["id"], "LIFESIGN_SYSTEM_SECRET": made["secret"]}

    assert _run(env, "--once") == (0, "")
    assert server.told("systems", "show", made["key"])["status"] == "alive"
    code, told = _run(env | {"LIFESIGN_SYSTEM_SECRET": "wrong"}, "--once")
    assert (code, told) == (1, "lifesign agent: the server answered 401 invalid system credentials\n")


@pytest.mark.parametrize(
    ("status", "headers", "code"),
    [(503, {}, 3), (500, {}, 3), (429, {}, 3), (403, {}, 1), (302, {"Location": "/x"}, 1)],
)
def test_one_beat_says_by_its_exit_code_how_it_went(
    stand_in: StandIn, status: int, headers: dict[str, str], code: int
) -> None:
    stand_in.script.append((status, headers))

    assert _run({"LIFESIGN_URL": stand_in.url}, "--once")[0] == code
    [(sent, body)] = stand_in.requests()
    assert body == {"system_id": SYSTEM}
    assert sent["authorization"].startswith("Basic ")


def test_whatever_answers_200_to_everything_has_acknowledged_nothing(stand_in: StandIn) -> None:
    code, told = _run({"LIFESIGN_URL": stand_in.url}, "--once")

    assert (code, told) == (3, "lifesign agent: the answer is not that of a Lifesign server\n")


def test_one_beat_to_nobody_and_one_that_is_wrong() -> None:
    code, told = _run({}, "--once")
    assert code == 3
    assert told.startswith("lifesign agent: cannot reach http://127.0.0.1:9: ")
    assert _run({"LIFESIGN_SYSTEM_ID": ""}, "--once")[0] == 2
    assert _run({}, "--once", "--ca-file", "/nowhere")[0] == 2


@contextmanager
def _running(env: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        _command(), env=environment(**(GIVEN | env)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _resident_mib(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1]) / 1024


def test_it_tells_systemd_that_it_is_ready_stays_small_and_ends_at_once(server: Server, tmp_path: Path) -> None:
    made = server.told("systems", "create", "agent daemon")
    address = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(address)
        systemd.settimeout(20)
        env = {
            "LIFESIGN_URL": server.url,
            "LIFESIGN_SYSTEM_ID": made["id"],
            "LIFESIGN_SYSTEM_SECRET": made["secret"],
            "LIFESIGN_AGENT_INVENTORY": "on",
            "NOTIFY_SOCKET": address,
        }
        with _running(env) as process:
            assert systemd.recv(100) == b"READY=1"
            deadline = time.monotonic() + 20
            while not server.told("systems", "inventory", made["id"])["snapshots"] and time.monotonic() < deadline:
                time.sleep(0.1)
            resident = _resident_mib(process.pid)
            asked_to_end = time.monotonic()
            process.send_signal(signal.SIGTERM)
            code = process.wait(5)
            took_s = time.monotonic() - asked_to_end
            told = process.stderr.read() if process.stderr else ""

    assert (code, told) == (0, f"lifesign agent: {server.url} acknowledges\n")
    assert took_s < 1
    assert resident < 30
    document = json.loads(server.command("systems", "inventory", made["id"], "--latest").out)
    assert document["kernel"]["release"] == os.uname().release
    assert document["cpu"] == {"count": os.cpu_count()}
    assert document["memory"]["total"] > 0


def test_it_ends_at_once_while_nobody_answers() -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        _running({"LIFESIGN_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}) as process,
    ):
        silent.settimeout(20)
        connection, _ = silent.accept()  # and says nothing
        process.send_signal(signal.SIGINT)
        code = process.wait(2)
        connection.close()

    assert code == 0


def test_a_certificate_is_checked_and_an_authority_can_be_added(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(tmp_path / "ca.pem")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("localhost").configure_cert(context)
    with subprocess.Popen(
        [sys.executable, "-c", _TLS_SERVER, _chain(tmp_path, authority)], stdout=subprocess.PIPE, text=True
    ) as tls:
        assert tls.stdout is not None
        url = f"https://localhost:{tls.stdout.readline().strip()}"
        try:
            strange = _run({"LIFESIGN_URL": url}, "--once")
            known = _run({"LIFESIGN_URL": url}, "--once", "--ca-file", str(tmp_path / "ca.pem"))
        finally:
            tls.kill()

    assert strange[0] == 3
    assert "certificate verify failed" in strange[1]
    assert known == (0, "")


def _chain(directory: Path, authority: trustme.CA) -> str:
    pem = directory / "server.pem"
    authority.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(pem)
    return str(pem)


_TLS_SERVER = f"""
import http.server, ssl, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.end_headers()
        self.wfile.write({OURS!r})
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[1])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_port, flush=True)
server.serve_forever()
"""


# What it prints -----------------------------------------------------------------------------------------------------
def test_the_unit_that_it_prints_is_the_one_that_is_shipped() -> None:
    printed = lifesign_command("agent", "--print-unit")

    assert printed.code == 0
    assert printed.out == (ROOT / "deploy" / "lifesign-agent.service").read_bytes()


def test_the_line_for_curl_can_be_pasted() -> None:
    plain = lifesign_command("agent", "--print-curl")
    filled = lifesign_command("agent", "--print-curl", "--url", "https://ls.example.org/", "--system-id", SYSTEM)

    assert plain.text == (
        "*/10 * * * * curl -fsS -m 10 --retry 3 --netrc-file /etc/lifesign/netrc -H 'Content-Type: application/json' "
        """-d '{"system_id":"ID"}' https://HOST/api/systems/heartbeat >/dev/null\n"""
    )
    assert filled.text == plain.text.replace("ID", SYSTEM).replace("https://HOST", "https://ls.example.org")


def test_the_line_for_curl_reports(server: Server, tmp_path: Path) -> None:
    made = server.told("systems", "create", "by curl")
    netrc = tmp_path / "netrc"
    netrc.write_text(f"machine 127.0.0.1 login {made['id']} password {made['secret']}\n")
    line = lifesign_command("agent", "--print-curl", "--url", server.url, "--system-id", made["id"]).text
    command = line.removeprefix("*/10 * * * * ").replace("/etc/lifesign/netrc", str(netrc))

    subprocess.run(command, shell=True, check=True, timeout=30)  # noqa: S602 - as cron does

    assert server.told("systems", "show", made["id"])["status"] == "alive"


def test_it_loads_nothing_of_the_server_and_nothing_but_the_standard_library() -> None:
    told = (
        "import sys\nfrom lifesign.cli import main\nmain(['agent', '--once'])\n"
        "print(*sorted(n for n in sys.modules if n.startswith('lifesign')))\n"
        "print(*sorted({n.partition('.')[0] for n in sys.modules} - set(sys.stdlib_module_names)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", told], env=environment(**GIVEN), capture_output=True, text=True, timeout=60, check=True
    )
    ours, others = done.stdout.splitlines()

    allowed = {"lifesign", "lifesign.cli", "lifesign.client", "lifesign.client.agent", "lifesign.client.wire"}
    cli = {"lifesign.cli.errors", "lifesign.cli.quick", "lifesign.cli.remote", "lifesign.cli.report"}
    assert {each for each in ours.split() if not each.startswith("lifesign.cli.")} <= allowed
    assert cli <= set(ours.split())
    assert {each for each in others.split() if not each.startswith("_")} == {"lifesign"}
