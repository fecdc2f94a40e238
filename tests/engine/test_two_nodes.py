"""Two nodes on one PostgreSQL: everything happens, and nothing twice."""

import asyncio
from collections import Counter

import pytest
from pydantic import SecretStr
from sqlalchemy import func, select, text

from lifesign.auth.service import operator
from lifesign.db.schema import incidents, notifications
from lifesign.heartbeats import service as heartbeats
from lifesign.incidents.service import tuning_of
from lifesign.projects import service as projects
from tests.engine.steps import hook
from tests.harness import SETTINGS, MakeLifesign
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


async def test_nothing_comes_to_depend_on_what_another_node_deletes_meanwhile(
    start_lifesign: MakeLifesign, database_url: SecretStr
) -> None:
    blocked = text(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )
    async with start_lifesign() as first, start_lifesign() as second:
        made = await first.heartbeat("Router")
        # What the deletion does first, and then the rest of it, while a creation waits.
        with second.node.db.engine.begin() as conn:
            project_id = heartbeats.by_ids(conn, [made["id"]])[made["id"]].project_id
            projects.lock(conn, project_id)
            body = {"name": "Shop", "mode": "recurring", "interval": 60, "dependsOn": ["router"]}
            creation = asyncio.create_task(first.http.post("/v1/heartbeats", json=body))
            async with asyncio.timeout(10):
                while not await first.node.db.read(lambda conn: conn.scalar(blocked)):  # noqa: ASYNC110 - no event of it here
                    await asyncio.sleep(0.01)
            heartbeats.delete(conn, operator(project_id), made["id"], first.now(), tuning=tuning_of(SETTINGS))
        answer = await creation

    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "dependsOn[0]"


async def test_a_request_repeated_on_another_node_counts_once(
    start_lifesign: MakeLifesign, database_url: SecretStr
) -> None:
    async with start_lifesign() as first, start_lifesign() as second:
        await first.heartbeat("Job")
        again = {"Idempotency-Key": "once"}

        answers = await asyncio.gather(
            *(node.http.post("/v1/heartbeats/job/checkin", headers=again) for node in (first, second) * 10)
        )

        assert {each.status_code for each in answers} == {200}
        assert ["idempotent-replayed" in each.headers for each in answers].count(False) == 1
        assert await second.event_types("job") == ["checkin", "created"]


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
