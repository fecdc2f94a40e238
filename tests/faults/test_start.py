"""What keeps the server from starting is said in a line for a person, and in the exit code."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.server import Server, serving, starting

FAILED, WRONG_USAGE = 1, 2


def _refusal(directory: Path, **variables: object) -> tuple[int, str]:
    """The exit code and the words of a server that does not start."""
    with starting(directory, **variables) as server:
        code = server.exit_code()
        words = server.log.read_text()
        assert "Traceback" not in words
        assert "listening" not in server.output.read_text()
        return code, words


def test_a_second_server_on_one_data_directory_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        code, words = _refusal(tmp_path)

        assert code == FAILED
        assert f"data directory {tmp_path / 'data'} is in use by process {first.process.pid}" in words
        assert first.request("GET", "/health").status_code == 200


def test_the_data_directory_of_a_killed_server_is_free_again(tmp_path: Path) -> None:
    with serving(tmp_path) as first:
        first.heartbeat("job")
        first.kill()
        with serving(tmp_path) as second:
            assert second.ask("GET", "/v1/heartbeats/job")["slug"] == "job"


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        (
            {"system_alive_seconds": "1300"},
            "LIFESIGN_SYSTEM_INTERVAL_SECONDS must not be more than LIFESIGN_SYSTEM_ALIVE_SECONDS, nor that",
        ),
        ({"system_alert_seconds": "0"}, "LIFESIGN_SYSTEM_ALERT_SECONDS: must be greater than or equal to 1"),
        ({"egress_allow": "10.0.0.0/8,10.2.0.0/99"}, "LIFESIGN_EGRESS_ALLOW: entry '10.2.0.0/99'"),
        ({"admin_key": "short"}, "LIFESIGN_ADMIN_KEY: must be 16 to 128"),
        ({"secret_key": "too short"}, "LIFESIGN_SECRET_KEY: must be at least 32"),
        ({"port": "eighty"}, "LIFESIGN_PORT"),
    ],
    ids=["order of systems' times", "a system's time", "egress", "admin key", "secret key", "port"],
)
def test_a_faulty_setting_is_named_without_its_secret(tmp_path: Path, variables: dict[str, object], named: str) -> None:
    code, words = _refusal(tmp_path, **variables)

    assert code == WRONG_USAGE
    assert named in words
    assert "too short" not in words


def test_a_taken_port_is_named(tmp_path: Path, taken_port: int) -> None:
    code, words = _refusal(tmp_path, port=taken_port)

    assert code == FAILED
    assert f"cannot listen on 127.0.0.1:{taken_port}" in words
    # The first start makes a key and shows it once: it must not have happened where nobody could see it.
    assert not (tmp_path / "data" / "lifesign.db").exists()


def test_a_postgresql_that_is_not_there_is_told_without_its_password(tmp_path: Path, taken_port: int) -> None:
    code, words = _refusal(tmp_path, database_url=f"postgresql://me:hunter2@127.0.0.1:{taken_port}/lifesign")

    assert code == FAILED
    assert re.search(r"lifesign: the database cannot be opened: .*refused", words)
    assert "hunter2" not in words


def test_a_failpoint_that_does_not_parse_is_named(tmp_path: Path) -> None:
    code, words = _refusal(tmp_path, testing=1, failpoints="sweep.before_commit=explode")

    assert code == FAILED
    assert "sweep.before_commit=explode" in words


def test_testing_is_refused_where_others_could_reach_it(tmp_path: Path) -> None:
    code, words = _refusal(tmp_path, testing=1, host="0.0.0.0")

    assert code == FAILED
    assert "LIFESIGN_TESTING=1 is for loopback only, not for 0.0.0.0" in words


def test_without_testing_its_variables_are_ignored_like_misspelt_ones_and_its_routes_are_away(tmp_path: Path) -> None:
    with serving(
        tmp_path,
        clock="manual",
        clock_start="2026-01-05T12:00:00Z",
        failpoints="checkin.before_commit=kill",
        pubic_url="https://lifesign.example.org",
    ) as server:
        assert server.request("POST", "/_test/advance", {"ms": 1}).status_code == 404
        assert server.request("GET", "/_test/clock").status_code == 404
        server.heartbeat("job")
        server.ask("POST", "/v1/heartbeats/job/checkin")
        assert not server.ask("GET", "/v1/heartbeats/job")["createdAt"].startswith("2026-01-05T12:00")
        warnings = [line for line in server.log.read_text().splitlines() if "settings.ignored" in line]
        assert len(warnings) == 2
        assert "need LIFESIGN_TESTING=1" in warnings[0]
        assert "LIFESIGN_PUBIC_URL is no setting; did you mean LIFESIGN_PUBLIC_URL?" in warnings[1]


def test_with_testing_the_clock_stands_until_it_is_turned(manual: Server) -> None:
    assert manual.ask("GET", "/_test/clock") == {"now": "2026-01-05T12:00:00.000Z"}
    manual.heartbeat("job", interval=60, grace=0)

    turned = manual.ask("POST", "/_test/advance", {"ms": 1500})

    assert turned == {"now": "2026-01-05T12:00:01.500Z", "nextDue": "2026-01-05T12:01:00.000Z"}
    assert manual.ask("GET", "/v1/heartbeats/job")["createdAt"] == "2026-01-05T12:00:00.000Z"


@pytest.fixture
def manual(tmp_path: Path) -> Iterator[Server]:
    with serving(tmp_path, testing=1, clock="manual", clock_start="2026-01-05T12:00:00Z") as server:
        yield server


@pytest.fixture
def taken_port() -> Iterator[int]:
    """A port that is bound and refuses connections."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
