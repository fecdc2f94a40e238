"""A check-in that was answered is in the database, whatever happens to the server a moment later."""

import base64
import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import orjson
import pytest
import sqlalchemy
from sqlalchemy import select

from lifesign.db.schema import events, heartbeats
from tests.faults.server import Server, serving, until

_ROOT = Path(__file__).resolve().parents[2]
ENOUGH = 2000


@contextlib.contextmanager
def loading(server: Server, file: Path, slug: str = "job", *further: str) -> Iterator["subprocess.Popen[bytes]"]:
    arguments = ["--port", str(server.port), "--slug", slug, "--connections", "16", "--file", str(file), *further]
    process = subprocess.Popen([sys.executable, "-m", "tests.faults.load", *arguments], cwd=_ROOT)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()


def answered_numbers(file: Path) -> set[int]:
    return {int(line) for line in file.read_text().splitlines()} if file.exists() else set()


def stored_numbers(directory: Path, database_url: str | None) -> list[int]:
    """The number of every check-in in the database, read without a server."""
    with _reading(directory, database_url) as conn:
        rows = conn.scalars(select(events.c.metadata).where(events.c.type == "checkin"))
        return [orjson.loads(row)["metadata"]["n"] for row in rows]


@contextlib.contextmanager
def _reading(directory: Path, database_url: str | None) -> Iterator[sqlalchemy.Connection]:
    url = f"sqlite:///{directory / 'data' / 'lifesign.db'}"
    if database_url is not None:
        url = database_url.replace("postgresql://", "postgresql+psycopg://")
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.connect() as conn:
            yield conn
    finally:
        engine.dispose()


def _kill(server: Server) -> int:
    server.kill()
    return server.exit_code()


def _stop(server: Server) -> int:
    server.terminate()
    return server.exit_code()


@pytest.mark.parametrize(("end", "code"), [(_kill, -9), (_stop, 0)], ids=["killed", "told to stop"])
def test_every_answered_check_in_is_stored(
    tmp_path: Path, database_url: str | None, end: Callable[[Server], int], code: int
) -> None:
    file = tmp_path / "answered.txt"
    with serving(tmp_path, database_url=database_url) as server:
        server.heartbeat("job")
        with loading(server, file) as load:
            until(lambda: len(answered_numbers(file)) >= ENOUGH, within_s=60)
            assert end(server) == code
            assert load.wait(20) == 0

    answered, stored = answered_numbers(file), stored_numbers(tmp_path, database_url)
    assert len(answered) >= ENOUGH
    assert answered - set(stored) == set()
    assert len(stored) == len(set(stored))


def test_every_answered_heartbeat_of_a_system_is_stored_when_the_server_is_killed(
    tmp_path: Path, database_url: str | None
) -> None:
    file = tmp_path / "answered.txt"
    with serving(tmp_path, database_url=database_url) as server:
        made = server.ask("POST", "/api/systems", {"name": "db1"}, expect=201)["data"]
        basic = base64.b64encode(f"{made['id']}:{made['secret']}".encode()).decode()
        with loading(server, file, made["id"], "--basic", basic) as load:
            until(lambda: len(answered_numbers(file)) >= ENOUGH, within_s=60)
            server.kill()
            assert load.wait(20) == 0

    with serving(tmp_path, database_url=database_url) as server:
        system = server.ask("GET", f"/api/systems/{made['id']}")["data"]
        heartbeat = server.ask("GET", f"/v1/heartbeats/{made['heartbeat_id']}")
        stored = len(
            server.ask("GET", f"/v1/heartbeats/{made['heartbeat_id']}/events?type=checkin&limit=1000")["events"]
        )

    assert stored == 1000
    assert system["last_heartbeat"] == heartbeat["lastCheckin"]
    assert _check_ins_of(tmp_path, database_url) >= len(answered_numbers(file))


def _check_ins_of(directory: Path, database_url: str | None) -> int:
    """How many check-ins the only heartbeat counted, read without a server."""
    with _reading(directory, database_url) as conn:
        return int(conn.execute(select(heartbeats.c.checkin_count)).scalar_one())
