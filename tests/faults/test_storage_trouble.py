"""Storage that takes no more, a process that stood still: said clearly, nothing answered is lost, it recovers."""

import os
import resource
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests import postgres
from tests.faults.server import Server, serving, until
from tests.faults.test_durability import answered_numbers, loading, stored_numbers
from tests.peers.process import LedgerPeer


@pytest.fixture
def own_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL that this test alone may trouble."""
    started = postgres.start(durable=True)
    try:
        yield started
    finally:
        started.stop()


def _ready(server: Server) -> int:
    return server.request("GET", "/ready").status_code


def _check_in(server: Server) -> int:
    return server.request("POST", "/v1/heartbeats/job/checkin").status_code


def _stored(server: Server) -> int:
    return len(server.ask("GET", "/v1/heartbeats/job/events?type=checkin&limit=1000")["events"])


def _await_more(file: Path) -> None:
    before = len(answered_numbers(file))
    until(lambda: len(answered_numbers(file)) > before + 100)


def test_a_full_disk_is_told_and_survived_and_what_was_answered_is_stored(tmp_path: Path, ledger: LedgerPeer) -> None:
    with serving(tmp_path, log_level="error") as server:
        server.heartbeat("job", channels=[server.webhook(f"{ledger.url}/hook/ops")])
        answered = sum(_check_in(server) == 200 for _ in range(20))
        # A file that may grow no further is what a full disk is to the process.
        full = (tmp_path / "data" / "lifesign.db-wal").stat().st_size + 65_536
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full, hard))

        def is_refused() -> bool:
            nonlocal answered
            status = _check_in(server)
            answered += status == 200
            return status == 503

        until(is_refused, within_s=60)
        until(lambda: _ready(server) == 503)
        told = server.request("GET", "/ready").json()
        refused = server.request("POST", "/v1/heartbeats/job/checkin")
        assert (refused.status_code, refused.json()["error"]["code"]) == (503, "UNAVAILABLE")
        assert told["database"] == "refuses writes"
        assert "database.write_failed" in server.log.read_text()
        assert server.ask("GET", "/v1/heartbeats/job")["status"] == "active"

        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        until(lambda: _ready(server) == 200)
        answered += _check_in(server) == 200
        assert _stored(server) == answered
        server.fire("job")
        assert len(ledger.requests("/hook/ops", at_least=1, wait_s=20)) == 1


def test_a_database_that_turns_read_only_is_told_and_survived(tmp_path: Path, own_cluster: postgres.Cluster) -> None:
    own_cluster.create_database("lifesign")
    url = own_cluster.url("lifesign")
    with serving(tmp_path, database_url=url, log_level="error") as server:
        server.heartbeat("job")
        assert _check_in(server) == 200

        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("ALTER SYSTEM SET default_transaction_read_only = on")
            admin.execute("SELECT pg_reload_conf()")
        until(lambda: _check_in(server) == 503)
        until(lambda: _ready(server) == 503)
        assert server.ask("GET", "/v1/heartbeats/job")["status"] == "active"

        with psycopg.connect(url, autocommit=True) as admin:
            admin.execute("SET default_transaction_read_only = off")
            admin.execute("ALTER SYSTEM RESET default_transaction_read_only")
            admin.execute("SELECT pg_reload_conf()")
        until(lambda: _check_in(server) == 200)
        until(lambda: _ready(server) == 200)


def test_nothing_that_was_answered_is_lost_when_postgresql_restarts_under_load(
    tmp_path: Path, own_cluster: postgres.Cluster
) -> None:
    own_cluster.create_database("lifesign")
    url = own_cluster.url("lifesign")
    file = tmp_path / "answered.txt"
    with serving(tmp_path, database_url=url, log_level="error") as server:
        server.heartbeat("job")
        with loading(server, file):
            for _ in range(3):
                _await_more(file)
                own_cluster.restart()
            _await_more(file)
        until(lambda: _ready(server) == 200)

    lost = answered_numbers(file) - set(stored_numbers(tmp_path, url))
    assert lost == set()


def test_a_process_that_stood_still_gives_jobs_time_before_it_pages(tmp_path: Path, ledger: LedgerPeer) -> None:
    with serving(tmp_path, blind_after_seconds=3, blind_min_hold_seconds=5) as server:
        hook = server.webhook(f"{ledger.url}/hook/ops")
        for slug in ("alive", "dead"):
            server.heartbeat(slug, interval=3, grace=0, channels=[hook])
        os.kill(server.process.pid, signal.SIGSTOP)
        time.sleep(5)  # it has to stand still for real: its own clock must see the gap
        os.kill(server.process.pid, signal.SIGCONT)

        server.ask("POST", "/v1/heartbeats/alive/checkin")
        server.ask("PATCH", "/v1/heartbeats/alive", {"interval": 3600})
        (page,) = ledger.requests("/hook/ops", at_least=1, wait_s=20)

        assert page.json["data"]["heartbeat"]["slug"] == "dead"
        assert page.json["data"]["blind"]["from"] < page.json["data"]["blind"]["to"]
        assert server.ask("GET", "/v1/heartbeats/alive")["status"] == "active"
