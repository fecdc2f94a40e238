"""Two real servers on one PostgreSQL: everything happens, and nothing twice."""

from collections import Counter
from pathlib import Path

import psycopg
import pytest

from tests.faults.server import serving, until
from tests.peers.process import LedgerPeer


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_two_hundred_that_expire_together_are_told_once_each(
    tmp_path: Path, ledger: LedgerPeer, database_url: str
) -> None:
    both = {"database_url": database_url, "secret_key": "k" * 32, "log_level": "error"}
    with serving(tmp_path / "first", **both) as first, serving(tmp_path / "second", **both) as second:
        policy = first.ask(
            "POST",
            "/v1/policies",
            {"name": "p", "steps": [{"channels": [first.webhook(f"{ledger.url}/hook/ops")], "wait": 0}]},
            expect=201,
        )["id"]
        for number in range(200):
            first.heartbeat(f"job-{number}", interval=3600, grace=0, policy=policy)
        # One moment for all of them, which no two hundred requests could give.
        with psycopg.connect(database_url, autocommit=True) as conn:
            conn.execute(
                "UPDATE heartbeats SET (next_deadline, fires_at, check_at) = "
                "(SELECT t, t, t FROM (SELECT (extract(epoch FROM now()) * 1000)::bigint + 2000 AS t) AS soon)"
            )

        until(lambda: len(ledger.requests("/hook/ops")) >= 200, within_s=60)
        until(lambda: Counter(first.statuses()) == {"sent": 200})
        firing = second.ask("GET", "/v1/heartbeats?status=firing&limit=1000")["heartbeats"]

    told = Counter(each.json["data"]["heartbeat"]["slug"] for each in ledger.requests("/hook/ops"))
    assert told == Counter(f"job-{number}" for number in range(200))
    assert len(firing) == 200
