"""Storms and digests: people get one message instead of hundreds, machines get them all."""

from sqlalchemy import delete, select

from lifesign.db.schema import notifications as outbox
from lifesign.db.schema import storms, timers
from tests.engine.steps import hook, told
from tests.engine.steps import incidents as shown_incidents
from tests.harness import Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer


async def _slack(lifesign: Lifesign, ledger: LedgerPeer, name: str = "ops") -> str:
    config = {"webhookUrl": f"{ledger.url}/slack/{name}"}
    made = await lifesign.ask("POST", "/v1/channels", {"name": name, "type": "slack", "config": config}, expect=201)
    return str(made["id"])


async def _many(lifesign: Lifesign, count: int, *channels: str, interval: int = 60, prefix: str = "job") -> None:
    for number in range(count):
        await lifesign.heartbeat(
            f"{prefix} {number:02}", slug=f"{prefix}-{number}", interval=interval, grace=0, channels=list(channels)
        )


def _texts(ledger: LedgerPeer, name: str = "ops") -> list[str]:
    return [str(each.json["text"]) for each in ledger.requests(f"/slack/{name}")]


async def _kinds(lifesign: Lifesign) -> list[tuple[str, str]]:
    query = select(outbox.c.kind, outbox.c.status).order_by(outbox.c.id)
    return [(row[0], row[1]) for row in await lifesign.node.db.read(lambda conn: conn.execute(query).all())]


async def _storms(lifesign: Lifesign) -> list[tuple[str, int]]:
    query = select(storms.c.state, storms.c["count"])
    return [(row[0], row[1]) for row in await lifesign.node.db.read(lambda conn: conn.execute(query).all())]


# Storms -------------------------------------------------------------------------------------------------------------
async def test_forty_that_go_silent_together_are_told_to_people_as_one_and_then_by_name(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 40, slack, interval=600)

    await lifesign.advance(601)
    assert _texts(ledger) == [
        "40 heartbeats went silent: 40 heartbeats went silent within a minute; details follow in 2 minutes"
    ]
    for number in range(10):
        await lifesign.check_in(f"job-{number}")
    await lifesign.advance(118)
    assert len(_texts(ledger)) == 1
    await lifesign.advance(2)

    _, digest = _texts(ledger)
    assert digest.startswith("30 heartbeats are down: - job 10, since 2026-01-05T12:10:00.000Z")
    assert "- job 29," in digest
    assert "job 09" not in digest
    assert digest.endswith("and 10 more")
    assert len((await shown_incidents(lifesign, "job-20"))[0]["storm"]) == 36


async def test_who_heard_of_an_incident_by_digest_hears_of_its_end(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 21, slack)
    await lifesign.advance(61)
    await lifesign.check_in("job-0")
    await lifesign.advance(130)

    await lifesign.check_in("job-1")
    await lifesign.advance(10)

    *_, last = _texts(ledger)
    assert last.startswith("UP: job 01")
    assert len(_texts(ledger)) == 3


async def test_who_heard_of_an_incident_by_a_digest_that_is_kept_no_longer_hears_of_its_end(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 21, slack)
    await lifesign.advance(190)
    # As the retention does after a month.
    await lifesign.node.db.write(lambda conn: conn.execute(delete(outbox).where(outbox.c.kind == "digest")))

    await lifesign.check_in("job-1")
    await lifesign.advance(10)

    assert [each.split(":")[0] for each in _texts(ledger)][2:] == ["UP"]


async def test_machines_get_every_message_of_a_storm_at_once(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    hooked = await lifesign.webhook(hook(ledger))
    await _many(lifesign, 40, hooked["id"])

    await lifesign.advance(61)

    assert told(ledger) == [(60, "incident.opened")] * 40


async def test_steps_of_a_policy_are_held_as_well_and_later_ones_are_not(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    first, later = await _slack(lifesign, ledger), await _slack(lifesign, ledger, "second")
    policy = await lifesign.policy({"channels": [first], "wait": 5}, {"channels": [later], "wait": 300})
    for number in range(21):
        await lifesign.heartbeat(f"job {number:02}", slug=f"job-{number}", interval=60, grace=0, policy=policy["id"])

    await lifesign.advance(70)
    assert [each.split(":")[0] for each in _texts(ledger)] == ["21 heartbeats went silent"]
    await lifesign.advance(120)
    assert [each.split(":")[0] for each in _texts(ledger)][1:] == ["21 heartbeats are down"]
    await lifesign.advance(300)

    # The storm is over, but still nobody gets twenty-one mails at once.
    assert [each.split(":")[0] for each in _texts(ledger, "second")] == ["21 heartbeats are down"]


async def test_one_that_is_snoozed_is_told_after_both_the_storm_and_its_snooze(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 30, slack, interval=600)
    await lifesign.advance(601)
    await lifesign.ask("POST", "/v1/heartbeats/job-7/snooze", {"seconds": 600})

    await lifesign.advance(125)
    assert "29 heartbeats are down" in _texts(ledger)[-1]
    assert len(_texts(ledger)) == 2
    await lifesign.advance(500)

    assert "DOWN: job 07" in _texts(ledger)[-1]


async def test_a_snooze_that_ends_within_a_storm_waits_for_its_digest(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 30, slack, interval=600)
    await lifesign.advance(601)
    await lifesign.ask("POST", "/v1/heartbeats/job-7/snooze", {"seconds": 30})

    await lifesign.advance(60)
    assert len(_texts(ledger)) == 1
    await lifesign.advance(65)

    assert "30 heartbeats are down" in _texts(ledger)[-1]


async def test_twenty_are_no_storm(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 20, slack)

    await lifesign.advance(61)

    assert await _storms(lifesign) == []


async def test_what_a_tenth_of_the_project_is_makes_a_storm_of_a_large_one(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(storm_min=2) as lifesign:
        slack = await _slack(lifesign, ledger)
        await _many(lifesign, 60, interval=86_400, prefix="calm")
        await _many(lifesign, 6, slack)
        await lifesign.advance(61)
        assert await _storms(lifesign) == []
        await _many(lifesign, 4, slack, prefix="more", interval=10)
        await lifesign.advance(11)

        found = await _storms(lifesign)

    assert found == [("open", 4)]


async def test_storms_can_be_switched_off(start_lifesign: MakeLifesign, ledger: LedgerPeer) -> None:
    async with start_lifesign(storm_min=0) as lifesign:
        hooked = await _slack(lifesign, ledger)
        await _many(lifesign, 25, hooked)
        await lifesign.advance(61)

        assert {kind for kind, _ in await _kinds(lifesign)} == {"page", "digest"}


async def test_a_storm_goes_on_while_as_many_go_silent_and_closes_when_it_is_over(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 21, slack)
    await _many(lifesign, 21, slack, interval=150, prefix="later")

    await lifesign.advance(181)
    assert await _storms(lifesign) == [("open", 42)]
    await lifesign.advance(120)

    assert await _storms(lifesign) == [("closed", 42)]
    assert (
        await lifesign.node.db.read(
            lambda conn: conn.execute(select(timers).where(timers.c.kind == "storm_release")).all()
        )
        == []
    )
    titles = [each.split(":")[0] for each in _texts(ledger)]
    assert titles == ["21 heartbeats went silent", "42 heartbeats are down"]


async def test_an_incident_from_before_the_storm_keeps_its_own_page(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _slack(lifesign, ledger)
    await lifesign.heartbeat("early", slug="early", interval=30, grace=0, channels=[slack])
    await _many(lifesign, 40, slack)

    await lifesign.advance(61)

    assert [each.split(":")[0] for each in _texts(ledger)] == ["DOWN", "40 heartbeats went silent"]


async def test_everything_that_is_acknowledged_before_the_details_is_told_to_nobody(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    slack = await _slack(lifesign, ledger)
    await _many(lifesign, 21, slack)
    await lifesign.advance(61)
    for number in range(21):
        await lifesign.ask("POST", f"/v1/heartbeats/job-{number}/ack")
        await lifesign.ask("POST", f"/v1/heartbeats/job-{number}/pause")

    await lifesign.advance(300)

    assert len(_texts(ledger)) == 1


async def test_a_release_that_fails_is_rolled_back_and_done_once_at_the_next_look(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(testing=True, failpoints="release.before_commit=raise") as lifesign:
        slack = await _slack(lifesign, ledger)
        await _many(lifesign, 21, slack)

        await lifesign.advance(61)
        await lifesign.advance(130)

        assert [each.split(":")[0] for each in _texts(ledger)] == [
            "21 heartbeats went silent",
            "21 heartbeats are down",
        ]
        assert await _storms(lifesign) == [("closed", 21)]


async def _storm_with_a_second_step(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    """Of 21 heartbeats; the second step is an hour away."""
    slack, second = await _slack(lifesign, ledger), await lifesign.webhook(hook(ledger, "second"))
    policy = await lifesign.policy({"channels": [slack]}, {"channels": [second["id"]], "wait": 3600})
    for number in range(21):
        await lifesign.heartbeat(slug=f"job-{number}", interval=60, grace=0, policy=policy["id"])
    await lifesign.advance(61)


async def test_a_digest_that_is_refused_for_good_is_told_to_others_at_once(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _storm_with_a_second_step(lifesign, ledger)
    assert len(_texts(ledger)) == 1
    ledger.script("ops", {"status": 404, "body": "no_service"})

    await lifesign.advance(121)

    assert told(ledger, "second") == [(180, "incident.opened")] * 21


async def test_a_digest_that_no_provider_takes_is_told_to_others_90_s_later(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _storm_with_a_second_step(lifesign, ledger)
    ledger.script("ops", {"status": 500, "times": 100})

    await lifesign.advance(240)

    assert told(ledger, "second") == [(270, "incident.opened")] * 21


# Digests ------------------------------------------------------------------------------------------------------------
async def test_more_than_ten_due_messages_to_one_address_become_one(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _slack(lifesign, ledger)
    for number in range(11):
        await lifesign.heartbeat(f"job {number:02}", slug=f"job-{number}", interval=86_400, channels=[slack])
        await lifesign.check_in(f"job-{number}", healthy=False)
    await lifesign.advance(0)
    assert [each.split(":")[0] for each in _texts(ledger)] == ["11 heartbeats are down"]
    statuses = [status for kind, status in await _kinds(lifesign) if kind == "page"]
    assert statuses == ["bundled"] * 11

    for number in range(11):
        await lifesign.check_in(f"job-{number}")
    await lifesign.advance(60)

    assert [each.split(":")[0] for each in _texts(ledger)] == ["11 heartbeats are down", "11 heartbeats are back"]


async def test_a_storm_and_its_digest_lead_to_the_list_of_incidents(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(public_url="https://lifesign.example") as lifesign:
        slack = await _slack(lifesign, ledger)
        await _many(lifesign, 21, slack)

        await lifesign.advance(190)

    buttons = [each.json["blocks"][-1]["elements"] for each in ledger.requests("/slack/ops")]
    assert [[(each["text"]["text"], each["url"]) for each in row] for row in buttons] == [
        [("Details", "https://lifesign.example/incidents")]
    ] * 2


async def test_a_person_behind_the_fallback_channel_gets_one_message_instead_of_many(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    slack = await _slack(lifesign, ledger)
    await lifesign.ask("PATCH", "/v1/settings", {"fallbackChannel": slack})
    for number in range(11):
        await lifesign.heartbeat(f"job {number:02}", slug=f"job-{number}", interval=86_400)
        await lifesign.check_in(f"job-{number}", healthy=False)

    await lifesign.advance(1860)
    for number in range(11):
        await lifesign.check_in(f"job-{number}")
    await lifesign.advance(60)

    assert [each.split(":")[0] for each in _texts(ledger)] == [
        "11 heartbeats are unattended",
        "11 heartbeats are unattended",
        "11 heartbeats are back",
    ]


async def test_the_ends_of_flapping_are_told_one_by_one(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _slack(lifesign, ledger)
    for number in range(11):
        await lifesign.heartbeat(f"job {number:02}", slug=f"job-{number}", interval=86_400, channels=[slack])
        for _ in range(5):
            await lifesign.check_in(f"job-{number}", healthy=False)
            await lifesign.check_in(f"job-{number}")
        await lifesign.check_in(f"job-{number}", healthy=False)

    await lifesign.advance(2 * 3600)

    assert sorted(each for each in _texts(ledger) if each.startswith("CALM")) == [
        f"CALM: job {number:02}: job {number:02} is no longer flapping; it is firing" for number in range(11)
    ]


async def test_ten_due_messages_to_one_address_stay_ten(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack = await _slack(lifesign, ledger)
    for number in range(10):
        await lifesign.heartbeat(f"job {number}", slug=f"job-{number}", interval=86_400, channels=[slack])
        await lifesign.check_in(f"job-{number}", healthy=False)

    await lifesign.advance(20)

    assert [each.split(":")[0] for each in _texts(ledger)] == ["DOWN"] * 10


async def test_a_page_that_no_longer_matters_is_in_no_digest(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 429, "headers": {"Retry-After": "60"}})
    slack = await _slack(lifesign, ledger)
    await lifesign.heartbeat("first", slug="first", interval=86_400, channels=[slack])
    await lifesign.check_in("first", healthy=False)
    await lifesign.advance(0)
    for number in range(12):
        await lifesign.heartbeat(f"job {number:02}", slug=f"job-{number}", interval=86_400, channels=[slack])
        await lifesign.check_in(f"job-{number}", healthy=False)
    await lifesign.check_in("job-0")

    await lifesign.advance(61)

    digests = [text for text in _texts(ledger) if "heartbeats are down" in text]
    assert len(digests) == 1
    assert "job 00" not in digests[0]
    assert digests[0].startswith("12 heartbeats are down")


async def test_a_folded_page_counts_as_delivered_with_its_digest(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    slack, later = await _slack(lifesign, ledger), await lifesign.webhook(hook(ledger, "second"))
    policy = await lifesign.policy({"channels": [slack]}, {"channels": [later["id"]], "wait": 3600})
    for number in range(11):
        await lifesign.heartbeat(slug=f"job-{number}", interval=86_400, policy=policy["id"])
        await lifesign.check_in(f"job-{number}", healthy=False)

    await lifesign.advance(600)

    assert told(ledger, "second") == []
