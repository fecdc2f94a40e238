"""Heartbeats that watch schedules of bots."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from lifesign.app import operator_way_in
from tests.bots.asking import asked, read, switched
from tests.bots.asking_runs import claimed, scheduled, triggered, worked
from tests.harness import Json, Lifesign
from tests.peers.process import LedgerPeer


async def _watched(lifesign: Lifesign, ledger: LedgerPeer, /, *, errors: bool = False, **fields: Any) -> Json:
    """A schedule every 30 minutes whose runs may take 10; a minute of grace later people are told."""
    channel = await lifesign.webhook(f"{ledger.url}/hook/ops")
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 0})
    watch = {"policy": policy["id"], "grace_seconds": 60, "errors": errors}
    return await scheduled(lifesign, lifesign={"watch": watch}, **fields)


async def _heartbeat(lifesign: Lifesign, made: Json) -> Json:
    return await lifesign.get(f"bot-{made['uuid']}")


async def test_a_run_that_ends_well_checks_in_and_one_that_stays_away_is_missed(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _watched(lifesign, ledger)
    new = await _heartbeat(lifesign, made)
    await lifesign.advance(30 * 60)
    await worked(lifesign)
    beaten = await _heartbeat(lifesign, made)
    await asked(lifesign, "PUT", "/update", {"bot_id": made["bot_id"], "status": 0})
    await lifesign.advance(40 * 60 + 59)
    before = await _heartbeat(lifesign, made)
    await lifesign.advance(1)
    missed = await _heartbeat(lifesign, made)

    assert (new["namespace"], new["managedBy"]) == ("bots", f"bot {made['lifesign']['bot_uuid']}")
    assert (new["name"], new["nextDeadline"]) == ("Night watch: Look at the error log.", "2026-01-05T12:40:00.000Z")
    assert (beaten["status"], beaten["nextDeadline"]) == ("active", "2026-01-05T13:10:00.000Z")
    assert (before["status"], missed["status"]) == ("active", "firing")
    assert len(ledger.requests("/hook/ops")) == 1


async def test_a_schedule_that_the_server_paused_fires_and_a_success_resolves_it(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _watched(lifesign, ledger, max_consecutive_errors=2)
    for _ in range(2):
        await lifesign.advance(30 * 60)
        await worked(lifesign, status="error")
    await lifesign.advance()
    paused = await _heartbeat(lifesign, made)
    told = len(ledger.requests("/hook/ops"))

    await switched(lifesign, made, "enable")
    await lifesign.advance(30 * 60)
    await worked(lifesign)

    assert (paused["status"], told) == ("firing", 1)
    assert (await _heartbeat(lifesign, made))["status"] == "active"


async def test_any_error_fires_where_that_is_wanted_and_a_lost_run_always_does(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    strict, mild = [await _watched(lifesign, ledger, errors=errors, interval_minutes=1440) for errors in (True, False)]
    for made in (strict, mild):
        await triggered(lifesign, made)
        await worked(lifesign, status="error")
    after_error = [(await _heartbeat(lifesign, each))["status"] for each in (strict, mild)]
    await triggered(lifesign, mild)
    assert await claimed(lifesign) is not None

    await lifesign.advance(61)

    assert after_error == ["firing", "active"]
    assert (await _heartbeat(lifesign, mild))["status"] == "firing"


@asynccontextmanager
async def _operator(lifesign: Lifesign) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(operator_way_in(lifesign.node), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def _all(lifesign: Lifesign, *, are_stopped: bool) -> None:
    """What `lifesign bots stop --all` and `resume --all` do."""
    async with _operator(lifesign) as client:
        path = f"/admin/bots/{'stop' if are_stopped else 'resume'}"
        assert (await client.post(path, json={} if are_stopped else None)).status_code == 200


@pytest.mark.parametrize("way", ["disable", "switch", "stop", "stop all"])
async def test_what_people_let_rest_is_paused_and_waits_anew_afterwards(
    lifesign: Lifesign, ledger: LedgerPeer, way: str
) -> None:
    made = await _watched(lifesign, ledger)

    async def move(*, is_on: bool) -> None:
        if way == "disable":
            await switched(lifesign, made, "enable" if is_on else "disable")
        elif way == "switch":
            await asked(lifesign, "PUT", "/update", {"bot_id": made["bot_id"], "heartbeat": int(is_on)})
        elif way == "stop all":
            await _all(lifesign, are_stopped=not is_on)
        else:
            await asked(lifesign, "POST", "/resume" if is_on else "/stop", {})

    await move(is_on=False)
    resting = await _heartbeat(lifesign, made)
    refused = await lifesign.ask("POST", f"/v1/heartbeats/{resting['id']}/resume", expect=400)
    await lifesign.advance(3600)
    await move(is_on=True)
    again = await _heartbeat(lifesign, made)

    # It would fire for a run that nobody lets begin.
    assert refused["error"]["message"] == f"{resting['managedBy']} does not run this schedule"
    assert (resting["status"], again["status"]) == ("paused", "active")
    assert again["nextDeadline"] == "2026-01-05T13:40:00.000Z"


async def test_an_edit_leaves_what_somebody_paused_and_the_deadline_of_the_run_under_way(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _watched(lifesign, ledger)
    await lifesign.advance(30 * 60)
    ref = {"bot_id": made["bot_id"], "uuid": made["uuid"]}

    await asked(lifesign, "POST", "/heartbeat/configure", ref | {"prompt": "Something else."})
    await asked(lifesign, "PUT", "/update", {"bot_id": made["bot_id"], "name": "Day watch"})
    edited = await _heartbeat(lifesign, made)
    await lifesign.ask("POST", f"/v1/heartbeats/{edited['id']}/pause", {})
    await asked(lifesign, "POST", "/heartbeat/configure", ref | {"interval_minutes": 60})
    paused = await _heartbeat(lifesign, made)

    assert (edited["name"], edited["nextDeadline"]) == ("Day watch: Something else.", "2026-01-05T12:40:00.000Z")
    assert (paused["status"], paused["interval"]) == ("paused", 3600)


async def test_another_timing_moves_the_deadline(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _watched(lifesign, ledger)

    await asked(lifesign, "POST", "/heartbeat/configure", made | {"interval_minutes": 60, "lifesign": None})

    assert (await _heartbeat(lifesign, made))["nextDeadline"] == "2026-01-05T13:10:00.000Z"


async def test_what_is_stopped_twice_waits_only_when_both_are_over(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _watched(lifesign, ledger)
    seen: list[str] = []
    for resumes in ("project", "server"):
        await asked(lifesign, "POST", "/stop", {})
        await _all(lifesign, are_stopped=True)
        if resumes == "project":
            await asked(lifesign, "POST", "/resume", {})
            seen.append((await _heartbeat(lifesign, made))["status"])
            await _all(lifesign, are_stopped=False)
        else:
            await _all(lifesign, are_stopped=False)
            seen.append((await _heartbeat(lifesign, made))["status"])
            await asked(lifesign, "POST", "/resume", {})
        seen.append((await _heartbeat(lifesign, made))["status"])

    assert seen == ["paused", "active", "paused", "active"]


async def test_a_schedule_that_is_enabled_while_all_are_stopped_is_not_waited_for(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _watched(lifesign, ledger)
    await switched(lifesign, made, "disable")
    await _all(lifesign, are_stopped=True)

    await switched(lifesign, made, "enable")

    assert (await _heartbeat(lifesign, made))["status"] == "paused"


async def test_the_heartbeat_is_the_bots_and_whoever_deletes_it_ends_the_watching(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _watched(lifesign, ledger)
    heartbeat = await _heartbeat(lifesign, made)

    refused = await lifesign.ask("POST", f"/v1/heartbeats/{heartbeat['id']}/checkin", expect=400)
    await lifesign.ask("DELETE", f"/v1/heartbeats/{heartbeat['id']}", expect=204)
    after = await read(lifesign, made)
    await lifesign.advance(30 * 60)
    done = await worked(lifesign)

    assert refused["error"]["message"] == f"managed by bot {made['lifesign']['bot_uuid']}"
    assert (made["lifesign"]["watch"] is None, after["lifesign"]["watch"]) == (False, None)
    assert done["status"] == "success"


async def test_with_its_schedule_the_heartbeat_goes(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    first, second = [await _watched(lifesign, ledger, interval_minutes=60) for _ in range(2)]

    await asked(lifesign, "DELETE", "/heartbeat/delete", bot_id=first["bot_id"], heartbeat_id=first["uuid"])
    await asked(lifesign, "DELETE", "/delete", bot_id=second["bot_id"])

    assert (await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"] == []


async def test_a_policy_that_is_not_there_is_refused(lifesign: Lifesign) -> None:
    body = {"bot_id": (await scheduled(lifesign))["bot_id"], "prompt": "p", "lifesign": {"watch": {"policy": "pol_0"}}}

    told = await asked(lifesign, "POST", "/heartbeat/configure", body, expect=400)

    assert told["error"]["field"] == "lifesign.watch.policy"
