"""What people are told of runs, when, and how often."""

from typing import Any

import pytest

from tests.bots.asking import asked, read, settings
from tests.bots.asking_runs import claimed, finished, scheduled, triggered, worked
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.fixtures import ENQUEUE, ROUTING_KEY
from tests.peers.process import LedgerPeer


async def _told(lifesign: Lifesign, ledger: LedgerPeer, /, **fields: Any) -> Json:
    """A schedule whose notices go to the ledger."""
    channel = await lifesign.webhook(f"{ledger.url}/hook/ops")
    await settings(lifesign, notify_channels=[channel["id"]])
    return await scheduled(lifesign, **{"interval_minutes": 44_640} | fields)


async def _done(lifesign: Lifesign, made: Json, **told: Any) -> Json:
    """A run that was triggered, done, and what is due delivered."""
    await triggered(lifesign, made)
    run = await worked(lifesign, **told)
    await lifesign.advance()
    return run


def _texts(ledger: LedgerPeer) -> list[str]:
    return [each.json["data"]["message"] for each in _sent(ledger)]


def _sent(ledger: LedgerPeer) -> list[Any]:
    return ledger.requests("/hook/ops")


async def test_an_answer_that_says_that_nothing_is_worth_telling_is_not_told(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _told(lifesign, ledger)

    quiet = await _done(lifesign, made, response="  HEARTBEAT_OK\n")
    loud = await _done(lifesign, made, response="Not HEARTBEAT_OK: the disk is full.\nClean it.")
    failed = await _done(lifesign, made, status="error", response="HEARTBEAT_OK", error_message="No luck.")

    assert (quiet["status"], quiet["lifesign"]["notify"]) == ("success", None)
    assert loud["lifesign"]["notify"]["state"] == failed["lifesign"]["notify"]["state"] == "sent"
    assert _texts(ledger) == ["Not HEARTBEAT_OK: the disk is full.\nClean it.", "No luck."]


async def test_the_same_thing_is_told_once_within_the_cooldown_and_again_after_it(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _told(lifesign, ledger)
    report = {"noteworthy": True, "severity": "critical", "title": "Disk full", "body": "Again.", "dedupe_key": "disk"}

    states = [(await _done(lifesign, made, report=report))["lifesign"]["notify"] for _ in range(2)]
    await lifesign.advance(6 * 3600)
    states.append((await _done(lifesign, made, report=report))["lifesign"]["notify"])

    assert [each["state"] for each in states] == ["sent", "suppressed", "sent"]
    assert {each["key"] for each in states} == {"disk"}
    assert len(_sent(ledger)) == 2


async def test_a_notice_of_a_webhook_names_bot_schedule_and_run(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _told(lifesign, ledger)

    done = await _done(lifesign, made, report={"title": "Disk full", "body": "Clean it.", "severity": "warning"})

    (request,) = _sent(ledger)
    told = request.json
    assert told["type"] == "bot.notice"
    data = told["data"]
    assert (data["title"], data["message"], data["severity"]) == ("Night watch: Disk full", "Clean it.", "warning")
    assert (data["bot"]["name"], data["schedule"], data["run"]) == ("Night watch", made["uuid"], done["uuid"])


async def test_a_notice_leads_to_the_page_of_the_run_where_people_reach_this_server(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(public_url="https://beats.example.org") as lifesign:
        made = await _told(lifesign, ledger)
        done = await _done(lifesign, made)

    (request,) = _sent(ledger)
    assert request.json["data"]["url"] == f"https://beats.example.org/runs/{done['uuid']}"


async def test_a_notice_of_a_budget_leads_to_the_page_of_the_bot(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(public_url="https://beats.example.org") as lifesign:
        made = await _told(lifesign, ledger, credit_budget=1, lifesign={"notify": {"mode": "never"}})
        await _done(lifesign, made, usage={"input_tokens": 500, "output_tokens": 400, "requests": 1})

    (request,) = _sent(ledger)
    assert request.json["data"]["url"] == f"https://beats.example.org/bots/{made['lifesign']['bot_uuid']}"


async def test_without_a_known_address_a_notice_leads_nowhere(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _told(lifesign, ledger)

    await _done(lifesign, made)

    (request,) = _sent(ledger)
    assert "url" not in request.json["data"]


@pytest.mark.parametrize(
    ("mode", "told"),
    [("always", ["quiet", "loud", "failed"]), ("errors", ["failed"]), ("never", [])],
)
async def test_a_mode_says_of_what_people_are_told(
    lifesign: Lifesign, ledger: LedgerPeer, mode: str, told: list[str]
) -> None:
    made = await _told(lifesign, ledger, lifesign={"notify": {"mode": mode}})

    await _done(lifesign, made, report={"noteworthy": False, "title": "quiet"})
    await _done(lifesign, made, report={"title": "loud"})
    await _done(lifesign, made, status="error", error_message="failed")

    assert _texts(ledger) == told


async def test_the_first_success_after_an_error_that_was_told_says_so_and_closes_the_alert(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    pager = {"name": "pd", "type": "pagerduty", "config": {"routingKey": ROUTING_KEY}}
    async with start_lifesign(pagerduty_url=ledger.url) as lifesign:
        channel = await lifesign.ask("POST", "/v1/channels", pager, expect=201)
        made = await _told(lifesign, ledger, lifesign={"notify": {"channels": [channel["id"]]}})

        for told in ({"status": "error"}, {"status": "error"}, {}, {}):
            await _done(lifesign, made, **({"response": "HEARTBEAT_OK"} | told))

    sent = [each.json for each in ledger.requests(ENQUEUE)]
    assert [each["event_action"] for each in sent] == ["trigger", "resolve"]
    assert {each["dedup_key"] for each in sent} == {f"{made['uuid']}:error:runner_error"}


async def test_a_pause_is_told_once_even_where_nothing_else_is(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _told(
        lifesign, ledger, max_consecutive_errors=2, interval_minutes=60, lifesign={"notify": {"mode": "never"}}
    )

    for _ in range(2):
        await lifesign.advance(3600)
        await worked(lifesign, status="error", error_message="No luck.")
    await lifesign.advance()

    assert _texts(ledger) == ["paused after 2 errors in a row. The last one: No luck."]
    assert (await read(lifesign, made))["lifesign"]["paused_reason"] == "consecutive_errors"


async def test_a_budget_is_told_at_80_and_at_100_per_cent_once_a_period(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await settings(lifesign, budget_period="day")
    made = await _told(lifesign, ledger, credit_budget=10, lifesign={"notify": {"mode": "never"}})
    spends = {"usage": {"input_tokens": 4000, "output_tokens": 0, "requests": 1}}

    for _ in range(3):
        await _done(lifesign, made, **spends)
    first_day = _texts(ledger)
    await lifesign.advance(13 * 3600)
    for _ in range(2):
        await _done(lifesign, made, **spends)

    assert [each[:40] for each in first_day] == [
        "80 % of the budget is used up.",
        "100 % of the budget is used up; nothing r"[:40],
    ]
    assert len(_texts(ledger)) == 3


async def test_a_channel_that_is_down_leaves_the_run_a_success(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    made = await _told(lifesign, ledger)
    ledger.script("ops", {"status": 500, "times": 50})

    done = await _done(lifesign, made, response="Look here.")
    await lifesign.advance(3600)

    told = (await asked(lifesign, "GET", "/heartbeat/run", run_id=done["uuid"]))["run"]
    assert (told["status"], told["lifesign"]["notify"]["state"]) == ("success", "sent")


async def test_a_run_that_fails_after_a_notice_was_told_of_its_error_is_suppressed(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    made = await _told(lifesign, ledger)

    await triggered(lifesign, made)
    run = await claimed(lifesign)
    assert run is not None
    first = await finished(lifesign, run, status="error")
    second = await _done(lifesign, made, status="error")

    assert [each["lifesign"]["notify"]["state"] for each in (first, second)] == ["sent", "suppressed"]
    assert len(_sent(ledger)) == 1
