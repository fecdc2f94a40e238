"""SIGKILL at each point named in the specification "Engine", section 13; then another node goes on.

The node that is killed is a real process on a manual clock; the one that goes on runs in this process. Points whose
outcome rests on the database are passed on both.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import httpx2
import pytest
from pydantic import SecretStr

from tests.faults.server import Server, serving
from tests.harness import SETTINGS, Lifesign
from tests.peers.process import LedgerPeer

START = "2026-01-05T12:00:00.000Z"
KILLED = -9


@pytest.fixture
def doomed(tmp_path: Path, database_url: str | None, ledger: LedgerPeer) -> Callable[[str], Server]:
    """Runs a server that is to die at `point` while `move` happens; returns once it is dead."""

    def run(point: str, move: Callable[[Server], None] | None = None) -> Server:
        with serving(
            tmp_path,
            database_url=database_url,
            testing=1,
            clock="manual",
            clock_start=START,
            failpoints=f"{point}=kill",
        ) as server:
            channel = server.webhook(f"{ledger.url}/hook/ops")
            steps = [{"channels": [channel], "wait": 0}, {"channels": [channel], "wait": 600}]
            policy = server.ask("POST", "/v1/policies", {"name": "p", "steps": steps}, expect=201)["id"]
            server.heartbeat("job", interval=60, grace=0, policy=policy)
            with pytest.raises(httpx2.TransportError):
                (move or _miss)(server)
            assert server.exit_code() == KILLED
        return server

    return run


def _miss(server: Server) -> None:
    server.ask("POST", "/_test/advance", {"ms": 60_000})


@pytest.fixture
def next_node(tmp_path: Path, database_url: str | None) -> Callable[[str], AbstractAsyncContextManager[Lifesign]]:
    """Starts a node on what the killed one left behind, with its clock at the given moment."""

    def start(at: str) -> AbstractAsyncContextManager[Lifesign]:
        url = None if database_url is None else SecretStr(database_url)
        settings = SETTINGS.model_copy(update={"data_dir": tmp_path / "data", "database_url": url})
        return Lifesign.started(settings, at=at)

    return start


Doomed = Callable[..., Server]
NextNode = Callable[[str], AbstractAsyncContextManager[Lifesign]]


@pytest.mark.parametrize(
    ("database_url", "point"),
    [
        ("sqlite", "sweep.before_commit"),
        ("sqlite", "sweep.after_commit"),
        ("sqlite", "escalate.before_commit"),
        ("sqlite", "escalate.after_commit"),
        ("sqlite", "claim.before_commit"),
        ("postgresql", "sweep.before_commit"),
        ("postgresql", "escalate.after_commit"),
    ],
    indirect=["database_url"],
)
async def test_a_node_killed_before_it_claimed_is_replaced_without_a_trace(
    doomed: Doomed, next_node: NextNode, ledger: LedgerPeer, point: str
) -> None:
    await asyncio.to_thread(doomed, point)
    assert ledger.requests() == []

    async with next_node("2026-01-05T12:01:10.000Z") as lifesign:
        await lifesign.advance(1)

        (incident,) = await lifesign.incidents((await lifesign.get("job"))["id"])
        assert [(each["status"], len(each["attempts"])) for each in incident["notifications"]] == [("sent", 1)]
        assert (await lifesign.event_types("job")).count("firing") == 1
    assert len(ledger.requests("/hook/ops")) == 1


@pytest.mark.parametrize(
    ("database_url", "point", "already_there"),
    [
        ("sqlite", "claim.after_commit", 0),
        ("sqlite", "send.before_connect", 0),
        ("sqlite", "send.after_reply", 1),
        ("postgresql", "claim.after_commit", 0),
        ("postgresql", "send.after_reply", 1),
    ],
    indirect=["database_url"],
)
async def test_a_node_killed_while_it_sends_costs_one_duplicate_at_most(
    doomed: Doomed, next_node: NextNode, ledger: LedgerPeer, point: str, already_there: int
) -> None:
    await asyncio.to_thread(doomed, point)
    assert len(ledger.requests()) == already_there

    async with next_node("2026-01-05T12:01:10.000Z") as lifesign:
        await lifesign.advance(49)
        assert len(ledger.requests()) == already_there
        await lifesign.advance(6)
        await lifesign.advance(300)

    ids = [each.headers["webhook-id"] for each in ledger.requests("/hook/ops")]
    assert len(ids) == already_there + 1
    assert len(set(ids)) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_node_killed_after_it_finished_leaves_nothing_to_do(
    doomed: Doomed, next_node: NextNode, ledger: LedgerPeer
) -> None:
    await asyncio.to_thread(doomed, "finish.after_commit")

    async with next_node("2026-01-05T12:01:10.000Z") as lifesign:
        await lifesign.advance(300)

        (row,) = (await lifesign.ask("GET", "/v1/notifications"))["notifications"]
    assert row["status"] == "sent"
    assert len(ledger.requests()) == 1


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_node_killed_while_it_takes_back_a_lease_leaves_it_to_the_next(
    doomed: Doomed, next_node: NextNode, ledger: LedgerPeer, tmp_path: Path, database_url: str | None
) -> None:
    await asyncio.to_thread(doomed, "claim.after_commit")
    later = "2026-01-05T12:02:10.000Z"

    def die_again() -> None:
        with serving(
            tmp_path,
            database_url=database_url,
            testing=1,
            clock="manual",
            clock_start=later,
            failpoints="reap.before_commit=kill",
        ) as server:
            with pytest.raises(httpx2.TransportError):
                server.ask("POST", "/_test/advance", {"ms": 0})
            assert server.exit_code() == KILLED

    await asyncio.to_thread(die_again)
    assert ledger.requests() == []

    async with next_node(later) as lifesign:
        await lifesign.advance(1)
    assert len(ledger.requests("/hook/ops")) == 1


@pytest.mark.parametrize(
    ("database_url", "point", "stored"),
    [
        ("sqlite", "checkin.before_commit", 0),
        ("sqlite", "checkin.after_commit", 1),
        ("postgresql", "checkin.before_commit", 0),
    ],
    indirect=["database_url"],
)
async def test_a_check_in_is_stored_or_not_and_its_repeat_is_harmless(
    doomed: Doomed, next_node: NextNode, ledger: LedgerPeer, point: str, stored: int
) -> None:
    await asyncio.to_thread(doomed, point, lambda server: server.ask("POST", "/v1/heartbeats/job/checkin"))

    async with next_node("2026-01-05T12:00:10.000Z") as lifesign:
        assert (await lifesign.event_types("job")).count("checkin") == stored
        await lifesign.check_in("job")
        await lifesign.advance(59)
        assert (await lifesign.event_types("job")).count("checkin") == stored + 1
        assert (await lifesign.get("job"))["status"] == "active"


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_a_node_killed_after_it_wrote_a_request_sends_it_again_under_the_same_id(
    doomed: Doomed, next_node: NextNode, ledger: LedgerPeer
) -> None:
    await asyncio.to_thread(doomed, "send.after_write")

    async with next_node("2026-01-05T12:01:10.000Z") as lifesign:
        await lifesign.advance(55)
        await lifesign.advance(300)

        (row,) = (await lifesign.ask("GET", "/v1/notifications"))["notifications"]
    assert (row["status"], [each["outcome"] for each in row["attempts"]]) == ("sent", ["unknown", "sent"])
    ids = [each.headers["webhook-id"] for each in ledger.requests("/hook/ops")]
    # Whether the first one was read before the connection broke is the peer's luck.
    assert len(ids) in {1, 2}
    assert set(ids) == {row["id"]}


def _miss_and_ack(server: Server) -> None:
    _miss(server)
    server.ask("POST", "/v1/heartbeats/job/ack")


@pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)
async def test_an_ack_that_was_not_committed_did_not_happen(
    doomed: Doomed, next_node: NextNode, ledger: LedgerPeer
) -> None:
    await asyncio.to_thread(doomed, "ack.before_commit", _miss_and_ack)

    async with next_node("2026-01-05T12:01:00.000Z") as lifesign:
        assert (await lifesign.get("job"))["status"] == "firing"
        await lifesign.advance(600)
    assert [each.json["type"] for each in ledger.requests("/hook/ops")] == ["incident.opened", "incident.escalated"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_ack_whose_answer_was_lost_holds(doomed: Doomed, next_node: NextNode, ledger: LedgerPeer) -> None:
    await asyncio.to_thread(doomed, "ack.after_commit", _miss_and_ack)

    async with next_node("2026-01-05T12:01:00.000Z") as lifesign:
        assert (await lifesign.get("job"))["status"] == "resolved"
        await lifesign.advance(59)
    assert [each.json["type"] for each in ledger.requests("/hook/ops")] == [
        "incident.opened",
        "incident.acknowledged",
    ]
