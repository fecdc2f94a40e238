"""The short form of `make faults`: a few kills on each database, and every promise is kept."""

import random
from pathlib import Path

from tests.faults import killing
from tests.peers.process import LedgerPeer


def test_servers_that_are_killed_at_random_lose_nothing_and_repeat_only_what_a_crash_explains(
    tmp_path: Path, ledger: LedgerPeer, database_url: str | None
) -> None:
    seed = random.randrange(1_000_000)

    result = killing.run(tmp_path, ledger, database_url=database_url, kills=4, seed=seed, heartbeats=20)

    assert result.is_good, f"seed {seed}\n{killing.table([result])}"
    assert result.kills == 4
    assert min(result.check_ins, result.incidents, result.requests) > 0
