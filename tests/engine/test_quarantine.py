from sqlalchemy import Connection, text

from lifesign.clock import EpochMs
from lifesign.engine.quarantine import Quarantine
from tests.harness import Lifesign


def _spoil(conn: Connection, heartbeat_id: str) -> None:
    conn.execute(text("UPDATE heartbeats SET metadata = '{' WHERE id = :id"), {"id": heartbeat_id})


async def test_a_row_that_cannot_be_read_does_not_keep_the_others_from_firing(lifesign: Lifesign) -> None:
    bad = await lifesign.heartbeat("Bad", interval=60, grace=0)
    good = await lifesign.heartbeat("Good", interval=90, grace=0)
    await lifesign.node.db.write(_spoil, bad["id"])

    await lifesign.advance(95)

    assert (await lifesign.get(good["id"]))["status"] == "firing"


def _repair(conn: Connection, heartbeat_id: str) -> None:
    conn.execute(text("UPDATE heartbeats SET metadata = NULL WHERE id = :id"), {"id": heartbeat_id})


async def test_a_row_that_was_left_out_is_looked_at_again_after_a_minute(lifesign: Lifesign) -> None:
    bad = await lifesign.heartbeat("Bad", interval=60, grace=0)
    await lifesign.node.db.write(_spoil, bad["id"])
    await lifesign.advance(65)
    await lifesign.node.db.write(_repair, bad["id"])

    await lifesign.advance(70)

    assert (await lifesign.get(bad["id"]))["status"] == "firing"


async def test_a_row_is_looked_at_again_when_the_clock_was_ahead_as_it_was_left_out() -> None:
    async def failing(row: str) -> None:
        raise ValueError(row)

    quarantine, ahead = Quarantine("sweep"), EpochMs(10_000_000)
    await quarantine.one_by_one(["bad"], failing, ahead)

    assert quarantine.skipped(ahead) == ["bad"]
    assert quarantine.skipped(EpochMs(0)) == []
