"""Many requests for the same heartbeats at once: no fault, no contradiction, no second incident."""

import asyncio
import random
from collections import Counter
from typing import Any

import pytest
from sqlalchemy import Connection, func, select

from lifesign.db.schema import heartbeats, incidents
from tests.harness import Lifesign
from tests.peers.process import LedgerPeer

pytestmark = pytest.mark.asyncio(loop_scope="module")


def contradictions(conn: Connection) -> list[Any]:
    """Rows that must not exist. Any: whatever they are, a failing test shows them."""
    h, i = heartbeats.c, incidents.c
    doubled = select(i.heartbeat_id).where(i.status == "open").group_by(i.heartbeat_id).having(func.count() > 1)
    firing_without = (
        select(h.id)
        .outerjoin(incidents, (i.id == h.incident_id) & (i.status == "open") & (i.heartbeat_id == h.id))
        .where(h.status == "firing", i.id.is_(None))
    )
    quiet_with = select(h.id).join(incidents, i.heartbeat_id == h.id).where(h.status != "firing", i.status == "open")
    orphaned = select(i.id).outerjoin(heartbeats, h.id == i.heartbeat_id).where(i.status == "open", h.id.is_(None))
    bound = select(h.id).where((h.check_at > h.fires_at) | (h.fires_at.is_(None) != h.check_at.is_(None)))
    return [row for query in (doubled, firing_without, quiet_with, orphaned, bound) for row in conn.execute(query)]


async def statuses(office: Lifesign, requests: list[tuple[str, str, object]]) -> Counter[tuple[str, int]]:
    answers = await asyncio.gather(*(office.http.request(method, path, json=body) for method, path, body in requests))
    assert [answer.text for answer in answers if answer.status_code >= 500] == []
    return Counter(
        (path.rpartition("/")[2] if method == "POST" else method, answer.status_code)
        for (method, path, _), answer in zip(requests, answers, strict=True)
    )


@pytest.mark.parametrize(("event", "state"), [("ack", "firing"), ("pause", "active"), ("resume", "paused")])
async def test_of_many_of_one_kind_at_once_one_succeeds(office: Lifesign, event: str, state: str) -> None:
    ref = (await office.heartbeat())["id"]
    if state == "firing":
        await office.check_in(ref, healthy=False)
    if state == "paused":
        await office.ask("POST", f"/v1/heartbeats/{ref}/pause")

    found = await statuses(office, [("POST", f"/v1/heartbeats/{ref}/{event}", None)] * 20)

    assert found == {(event, 200): 1, (event, 400): 19}
    name = {"ack": "acked", "pause": "paused", "resume": "resumed"}[event]
    assert (await office.event_types(ref)).count(name) == 1


async def test_failures_at_once_open_one_incident(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/once"))["id"]
    policy = (await office.policy({"channels": [channel]}))["id"]
    ref = (await office.heartbeat(policy=policy))["id"]

    found = await statuses(office, [("POST", f"/v1/heartbeats/{ref}/checkin", {"healthy": False})] * 40)
    await office.advance()

    assert found == {("checkin", 200): 40}
    history = Counter(await office.event_types(ref))
    assert history["checkin_unhealthy"] == 40
    assert (history["firing"], history["step_notified"]) == (1, 1)
    assert len(await office.incidents(ref)) == 1


@pytest.mark.parametrize("count", [1, 5])
async def test_two_hundred_different_requests_at_once_leave_no_contradiction(
    office: Lifesign, ledger: LedgerPeer, count: int
) -> None:
    channel = (await office.webhook(ledger.url + "/hook/crowd"))["id"]
    policy = (await office.policy({"channels": [channel]}, {"channels": [channel], "wait": 1}))["id"]
    refs = [(await office.heartbeat(f"Crowd {n}", policy=policy, channels=[channel]))["id"] for n in range(count)]
    luck = random.Random(count)
    kinds = ["checkin"] * 90 + ["fail"] * 50 + ["ack"] * 30 + ["pause"] * 15 + ["resume"] * 15
    luck.shuffle(kinds)
    requests: list[tuple[str, str, object]] = [
        (
            "POST",
            f"/v1/heartbeats/{luck.choice(refs)}/{'checkin' if kind == 'fail' else kind}",
            {"healthy": False} if kind == "fail" else None,
        )
        for kind in kinds
    ]

    async def turn_the_clock() -> None:
        for _ in range(5):
            await office.advance(0.5)

    found, _ = await asyncio.gather(statuses(office, requests), turn_the_clock())
    await office.advance(5)

    assert found["checkin", 200] == 140
    assert found["ack", 200] + found["ack", 400] == 30
    assert await office.node.db.read(contradictions) == []
    for ref in refs:
        history = await office.event_types(ref)
        listed = await office.incidents(ref)
        assert history.count("firing") == len(listed)
        closed = [each for each in listed if each["status"] == "resolved"]
        assert len(listed) - len(closed) <= 1
        by = Counter(each["resolution"] for each in closed)
        assert (by["checkin"], by["ack"]) == (history.count("resolved"), history.count("acked"))
        # Read backwards, every incident opens before it ends and none opens while another is open.
        is_open = False
        for event in reversed(history):
            if event == "firing":
                assert not is_open
                is_open = True
            elif event in {"resolved", "acked"}:
                assert is_open
                is_open = False
            elif event == "paused":
                is_open = False
    acked = sum([(await office.event_types(ref)).count("acked") for ref in refs])
    assert acked == found["ack", 200]


@pytest.mark.parametrize("count", [1, 4])
async def test_deletes_among_them_leave_no_contradiction(office: Lifesign, ledger: LedgerPeer, count: int) -> None:
    channel = (await office.webhook(ledger.url + "/hook/crowd"))["id"]
    policy = (await office.policy({"channels": [channel]}))["id"]
    made = [await office.heartbeat(f"Doomed {n}", policy=policy, channels=[channel]) for n in range(count)]
    luck = random.Random(7 * count)
    requests: list[tuple[str, str, object]] = []
    for n in range(200):
        each = luck.choice(made)
        ref = luck.choice([each["id"], each["slug"]])
        kind = luck.choice(["checkin", "checkin", "checkin", "ack", "fail", "fail"])
        requests.append(
            (
                "POST",
                f"/v1/heartbeats/{ref}/{'checkin' if kind == 'fail' else kind}",
                {"healthy": False} if kind == "fail" else None,
            )
            if n % 40 != 20
            else ("DELETE", f"/v1/heartbeats/{ref}", None)
        )

    found = await statuses(office, requests)
    await office.advance(5)

    assert set(found) <= {
        ("checkin", 200),
        ("checkin", 404),
        ("ack", 200),
        ("ack", 400),
        ("ack", 404),
        ("DELETE", 204),
        ("DELETE", 404),
    }
    assert 1 <= found["DELETE", 204] <= count
    assert await office.node.db.read(contradictions) == []


async def test_check_ins_of_many_heartbeats_at_once_each_find_their_own(office: Lifesign) -> None:
    made = [await office.heartbeat(f"Own {n}", interval=100 + n) for n in range(20)]
    refs = [(each["id"], each["slug"]) for each in made]

    answers = await asyncio.gather(
        *(
            office.http.post(f"/v1/heartbeats/{refs[n % 20][n % 2]}/checkin", json={"metadata": {"n": n % 20}})
            for n in range(200)
        )
    )

    assert {answer.status_code for answer in answers} == {200}
    for n, each in enumerate(made):
        shown = await office.get(each["id"])
        assert shown["metadata"] == {"n": n}
        assert shown["nextDeadline"] == each["nextDeadline"]
        assert (await office.event_types(each["id"])).count("checkin") == 10


async def test_one_bad_check_in_does_not_spoil_those_beside_it(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    paths = [f"/v1/heartbeats/{ref}/checkin", "/v1/heartbeats/hb_none/checkin", "/v1/heartbeats/none/checkin"]

    found = await statuses(office, [("POST", path, None) for path in paths * 20])

    assert found == {("checkin", 200): 20, ("checkin", 404): 40}
    assert (await office.event_types(ref)).count("checkin") == 20
