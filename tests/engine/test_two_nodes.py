"""Two nodes on one PostgreSQL: everything happens, and nothing twice."""

import asyncio
from collections import Counter

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select

from lifesign.db.schema import incidents, notifications
from tests.engine.steps import hook
from tests.harness import MakeLifesign
from tests.peers.process import LedgerPeer

pytestmark = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)


async def test_five_hundred_deadlines_at_once_are_five_hundred_incidents_and_messages(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, database_url: SecretStr
) -> None:
    async with start_lifesign() as first, start_lifesign() as second:
        channel = await first.webhook(hook(ledger))
        policy = await first.policy({"channels": [channel["id"]], "wait": 0})
        made = [
            await first.heartbeat(f"Job {number}", interval=60, grace=0, policy=policy["id"]) for number in range(500)
        ]

        await asyncio.gather(first.advance(90), second.advance(90))

        opened = await first.node.db.read(
            lambda conn: conn.execute(select(func.count(), func.count(incidents.c.heartbeat_id.distinct()))).one()
        )
        statuses = await first.node.db.read(lambda conn: list(conn.scalars(select(notifications.c.status))))
    assert tuple(opened) == (500, 500)
    assert Counter(statuses) == {"sent": 500}
    told = Counter(each.json["data"]["heartbeat"]["id"] for each in ledger.requests("/hook/ops"))
    assert told == Counter(each["id"] for each in made)


async def test_a_check_in_on_one_node_stops_the_escalation_on_the_other(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, database_url: SecretStr
) -> None:
    async with start_lifesign() as first, start_lifesign() as second:
        channel = await first.webhook(hook(ledger))
        policy = await first.policy({"channels": [channel["id"]], "wait": 0}, {"channels": [channel["id"]], "wait": 30})
        await first.heartbeat(slug="job", interval=60, grace=0, policy=policy["id"])
        await asyncio.gather(first.advance(70), second.advance(70))

        await second.check_in("job")
        await asyncio.gather(first.advance(40), second.advance(40))

    assert [each.json["type"] for each in ledger.requests("/hook/ops")] == ["incident.opened", "incident.resolved"]


async def test_a_node_that_dies_is_replaced_by_the_other(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, database_url: SecretStr
) -> None:
    async with start_lifesign() as first, start_lifesign() as second:
        channel = await first.webhook(hook(ledger))
        await first.heartbeat(slug="job", channels=[channel["id"]])
        await first.check_in("job", healthy=False)
        claim = next(each for each in first.node.driver.loops if each.name == "deliver")
        # Claimed and then never sent: the tasks of the dead node are canceled before they begin.
        await claim.tick(first.now())
        for task in asyncio.all_tasks():
            if task.get_name().startswith("send."):
                task.cancel()

        await second.advance(59)
        assert ledger.requests("/hook/ops") == []
        await second.advance(6)

    assert len(ledger.requests("/hook/ops")) == 1
