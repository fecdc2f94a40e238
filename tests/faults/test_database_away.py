"""The database goes away while the server runs, and comes back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.faults.server import serving, until
from tests.peers.process import LedgerPeer


@pytest.fixture
def own_cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL that this test alone may stop."""
    started = postgres.start(durable=True)
    try:
        yield started
    finally:
        started.stop()


def test_a_server_without_its_database_says_so_and_recovers_by_itself(
    tmp_path: Path, own_cluster: postgres.Cluster, ledger: LedgerPeer
) -> None:
    own_cluster.create_database("lifesign")
    with serving(tmp_path, database_url=own_cluster.url("lifesign")) as server:
        server.heartbeat("job", channels=[server.webhook(f"{ledger.url}/hook/ops")])
        assert server.request("GET", "/ready").status_code == 200

        own_cluster.halt()
        until(lambda: server.request("GET", "/ready").status_code == 503)
        told = server.request("GET", "/ready").json()
        refused = server.request("POST", "/v1/heartbeats/job/checkin")
        health = server.request("GET", "/health")

        assert told["ready"] is False
        assert told["database"] != "ok"
        assert refused.status_code == 503
        assert refused.json()["error"]["code"] == "UNAVAILABLE"
        assert int(refused.headers["retry-after"]) >= 1
        assert health.status_code == 200

        own_cluster.resume()
        until(lambda: server.request("GET", "/ready").status_code == 200)
        assert server.ask("POST", "/v1/heartbeats/job/checkin")["status"] == "active"
        server.fire("job")
        assert len(ledger.requests("/hook/ops", at_least=1, wait_s=20)) == 1
        assert len(server.ask("GET", "/v1/heartbeats/job/events?type=checkin")["events"]) == 1
