"""What is promised of keys and of counted requests, whatever happens to the server a moment later."""

from collections.abc import Iterator
from pathlib import Path
from typing import cast

import httpx2
import pytest

from tests import postgres
from tests.faults.server import Server, serving, until
from tests.harness import Json

OVERVIEW = "/api/dashboard/overview"


def _asked(server: Server, method: str, path: str, key: str = "", body: object = None) -> httpx2.Response:
    headers = {"X-API-Key": key} if key else {}
    return httpx2.request(method, server.url + path, json=body, headers=headers, timeout=30, trust_env=False)


def _taken(server: Server, email: str = "jane@x.io") -> str:
    """A new key."""
    answer = _asked(server, "POST", "/api/keys", body={"name": "Jane Doe-Smith", "email": email})
    assert answer.status_code == 201, answer.text
    return str(answer.json()["api_key"]["key"])


def _requests(server: Server, key: str) -> int:
    """How many requests of the last day the server knows of."""
    answer = _asked(server, "GET", OVERVIEW, key)
    assert answer.status_code == 200, answer.text
    return int(answer.json()["overview"]["requests"]["last_24h"])


def _own(server: Server, key: str) -> Json:
    return cast("Json", _asked(server, "GET", "/api/keys/me", key).json()["api_key"])


def test_a_kill_costs_no_key_and_no_count_that_was_shown(tmp_path: Path, database_url: str | None) -> None:
    with serving(tmp_path, database_url=database_url) as server:
        first, second = _taken(server), _taken(server)
        for _ in range(30):
            _asked(server, "GET", "/api/keys", first)
        shown = _requests(server, first)
        replaced = _asked(server, "POST", "/api/keys/me/rotate", first).json()["api_key"]["key"]
        assert _asked(server, "DELETE", "/api/keys/me", second).status_code == 200
        server.kill()
    assert shown == 32

    with serving(tmp_path, database_url=database_url) as server:
        statuses = [_asked(server, "GET", OVERVIEW, key).status_code for key in (first, second, replaced)]
        assert statuses == [401, 401, 200]
        # What came after the dashboard and before the kill may be gone: the overview, and two of keys.
        assert 32 + 3 <= _requests(server, replaced) <= 32 + 3 + 3
        assert _own(server, replaced)["request_count"] >= 30
        # The third and last place of the address.
        assert _asked(server, "POST", "/api/keys", body={"name": "J", "email": "jane@x.io"}).status_code == 201
        assert _asked(server, "POST", "/api/keys", body={"name": "J", "email": "jane@x.io"}).status_code == 429


def test_a_stop_right_after_a_hundred_calls_counts_them_all(tmp_path: Path, database_url: str | None) -> None:
    with serving(tmp_path, database_url=database_url) as server:
        key = _taken(server)
        for _ in range(100):
            assert _asked(server, "GET", "/api/keys", key).status_code == 404
        server.terminate()
        assert server.exit_code() == 0

    with serving(tmp_path, database_url=database_url) as server:
        assert _requests(server, key) == 101
        assert _own(server, key)["request_count"] == 101


def test_no_key_is_in_the_log_or_in_a_file_of_the_server(tmp_path: Path) -> None:
    with serving(tmp_path, log_level="debug") as server:
        key = _taken(server)
        for path in (OVERVIEW, f"/api/keys/{key}", f"/v1/heartbeats/{key}", f"/api/vitals/x?key={key}"):
            _asked(server, "GET", path, key)
        server.terminate()
        assert server.exit_code() == 0
        log = server.log.read_text()

    assert "vitals_key.made" in log
    assert "jane@x.io" not in log
    assert "Doe-Smith" not in log
    everything = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    assert key.encode() not in everything
    assert b"jane@x.io" in everything


@pytest.fixture
def own_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL that this test alone may stop."""
    started = postgres.start(durable=True)
    try:
        yield started
    finally:
        started.stop()


def test_without_its_database_the_server_serves_on_and_counts_later(
    tmp_path: Path, own_cluster: postgres.Cluster
) -> None:
    own_cluster.create_database("lifesign")
    with serving(tmp_path, database_url=own_cluster.url("lifesign")) as server:
        key = _taken(server)
        before = _requests(server, key)

        own_cluster.halt()
        until(lambda: server.request("GET", "/ready").status_code == 503)
        statuses = [_asked(server, "GET", "/api/keys").status_code for _ in range(50)]
        refused = _asked(server, "POST", "/api/keys", body={"name": "J", "email": "joe@x.io"})

        assert statuses == [404] * 50
        assert (refused.status_code, refused.json()["message"]) == (500, "Internal server error")
        assert _asked(server, "GET", OVERVIEW, key).status_code == 500

        own_cluster.resume()
        until(lambda: server.request("GET", "/ready").status_code == 200)
        # One overview before, 50 unknown, one key, one overview that failed.
        until(lambda: _asked(server, "GET", OVERVIEW, key).status_code == 200)
        assert _requests(server, key) >= before + 53
