"""An incident that reaches nobody is never silent: early fail-over, the fallback channel, reminders."""

from tests.engine.steps import fire, hook, incidents, told
from tests.harness import Json, Lifesign
from tests.peers.process import LedgerPeer

MIN = 60
HOUR = 3600


async def fallback(lifesign: Lifesign, ledger: LedgerPeer) -> Json:
    """A fallback channel, with receiver `fallback`."""
    channel = await lifesign.webhook(hook(ledger, "fallback"), "fallback")
    await lifesign.ask("PATCH", "/v1/settings", {"fallbackChannel": channel["id"]})
    return channel


async def reasons(lifesign: Lifesign, slug: str) -> list[str]:
    """Why the incidents of a heartbeat were unattended, oldest first."""
    events = await lifesign.events(slug)
    return [event["metadata"]["reason"] for event in reversed(events) if event["type"] == "unattended"]


async def test_without_policy_channels_or_fallback_nobody_is_told_and_the_history_says_so(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await lifesign.heartbeat(slug="job")

    await fire(lifesign, "job")
    await lifesign.advance(25 * HOUR)

    assert await reasons(lifesign, "job") == ["no_policy"]
    assert (await incidents(lifesign, "job"))[0]["unattended"] == "no_policy"
    assert ledger.requests() == []


async def test_an_incident_that_nobody_is_told_of_goes_to_the_fallback_channel_until_it_is_over(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await fallback(lifesign, ledger)
    await lifesign.heartbeat(slug="job")

    await fire(lifesign, "job")
    await lifesign.advance(65 * MIN)
    await lifesign.check_in("job")
    await lifesign.advance(25 * MIN)

    assert told(ledger, "fallback") == [
        (0, "incident.unattended"),
        (30 * MIN, "incident.unattended"),
        (60 * MIN, "incident.unattended"),
        (65 * MIN, "incident.resolved"),
    ]
    titles = [record.json["data"]["title"] for record in ledger.requests("/hook/fallback")]
    assert titles[0] == "UNATTENDED: Nightly Export"


async def test_reminders_come_every_half_hour_for_a_day_and_daily_after_that(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await fallback(lifesign, ledger)
    await lifesign.heartbeat(slug="job")

    await fire(lifesign, "job")
    await lifesign.advance(73 * HOUR)

    heard = [at for at, _ in told(ledger, "fallback")]
    assert heard[:49] == [n * 30 * MIN for n in range(49)]
    assert heard[49:] == [48 * HOUR, 72 * HOUR]


async def test_an_ack_ends_the_reminders(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await fallback(lifesign, ledger)
    await lifesign.heartbeat(slug="job", interval=30 * 24 * HOUR)
    await fire(lifesign, "job")

    await lifesign.ask("POST", "/v1/heartbeats/job/ack")
    await lifesign.advance(5 * HOUR)

    assert told(ledger, "fallback") == [(0, "incident.unattended"), (0, "incident.acknowledged")]


async def test_when_the_only_channel_refuses_for_good_the_fallback_channel_is_told_at_once(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await fallback(lifesign, ledger)
    channel = await lifesign.webhook(hook(ledger))
    ledger.script("ops", {"status": 410, "times": 100})
    policy = await lifesign.policy({"channels": [channel["id"]]})
    await lifesign.heartbeat(slug="job", policy=policy["id"])

    await fire(lifesign, "job")
    await lifesign.advance(1)

    assert "incident.unattended" in [kind for _, kind in told(ledger, "fallback")]
    assert await reasons(lifesign, "job") == ["undeliverable"]


async def test_a_step_that_no_provider_accepts_is_followed_by_the_next_one_after_90_s(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    first, second = await lifesign.webhook(hook(ledger)), await lifesign.webhook(hook(ledger, "second"), "second")
    ledger.script("ops", {"status": 500, "times": 100})
    policy = await lifesign.policy({"channels": [first["id"]]}, {"channels": [second["id"]], "wait": 600})
    await lifesign.heartbeat(slug="job", policy=policy["id"])

    await fire(lifesign, "job")
    await lifesign.advance(30 * MIN)

    assert told(ledger, "second") == [(90, "incident.opened")]
    happened = [event for event in await lifesign.events("job") if event["type"] == "failover"]
    assert [(event["metadata"]["step"], event["metadata"]["reason"]) for event in happened] == [(2, "undelivered")]


async def test_a_step_that_one_provider_accepted_does_not_fail_over(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    bad, good = await lifesign.webhook(hook(ledger)), await lifesign.webhook(hook(ledger, "good"), "good")
    second = await lifesign.webhook(hook(ledger, "second"), "second")
    ledger.script("ops", {"status": 500, "times": 100})
    policy = await lifesign.policy({"channels": [bad["id"], good["id"]]}, {"channels": [second["id"]], "wait": 600})
    await lifesign.heartbeat(slug="job", policy=policy["id"])

    await fire(lifesign, "job")
    await lifesign.advance(700)

    assert told(ledger, "second") == [(600, "incident.opened")]


async def test_when_every_message_of_a_step_is_dead_the_next_step_runs_at_once(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    first, second = await lifesign.webhook(hook(ledger)), await lifesign.webhook(hook(ledger, "second"), "second")
    ledger.script("ops", {"status": 410, "times": 100})
    policy = await lifesign.policy({"channels": [first["id"]]}, {"channels": [second["id"]], "wait": 600})
    await lifesign.heartbeat(slug="job", policy=policy["id"])

    await fire(lifesign, "job")
    await lifesign.advance(1)

    assert [kind for _, kind in told(ledger, "second")] == ["incident.opened"]


async def test_a_dead_message_beside_one_that_waits_does_not_hurry_the_next_step(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    dead, slow = await lifesign.webhook(hook(ledger)), await lifesign.webhook(hook(ledger, "slow"), "slow")
    second = await lifesign.webhook(hook(ledger, "second"), "second")
    ledger.script("ops", {"status": 410, "times": 100})
    ledger.script("slow", {"status": 500, "times": 100})
    policy = await lifesign.policy({"channels": [dead["id"], slow["id"]]}, {"channels": [second["id"]], "wait": 600})
    await lifesign.heartbeat(slug="job", policy=policy["id"])

    await fire(lifesign, "job")
    await lifesign.advance(200)

    assert told(ledger, "second") == [(90, "incident.opened")]


async def _repeating_to_nobody(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    """A heartbeat that fires; its only step repeats, to a provider that takes nothing."""
    await fallback(lifesign, ledger)
    channel = await lifesign.webhook(hook(ledger))
    ledger.script("ops", {"status": 500, "times": 1000})
    policy = await lifesign.policy({"channels": [channel["id"]]}, repeatLastStep=True)
    await lifesign.heartbeat(slug="job", policy=policy["id"])
    await fire(lifesign, "job")


async def test_repeats_to_a_provider_that_never_answers_do_not_put_off_the_fallback_channel(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _repeating_to_nobody(lifesign, ledger)

    await lifesign.advance(10 * MIN)

    assert told(ledger, "fallback") == [(90, "incident.unattended")]


async def test_reminders_go_on_after_a_snooze_beside_a_step_that_repeats(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await _repeating_to_nobody(lifesign, ledger)
    await lifesign.advance(100)

    await lifesign.ask("POST", "/v1/heartbeats/job/snooze", {"seconds": 2 * HOUR})
    await lifesign.advance(3 * HOUR - MIN)

    ended = 100 + 2 * HOUR
    assert [at for at, _ in told(ledger, "fallback")] == [90, ended, ended + 30 * MIN]


async def test_a_policy_that_is_gone_when_a_snooze_ends_leaves_nobody_to_tell_and_that_is_said_at_once(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await fallback(lifesign, ledger)
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]]}, {"channels": [channel["id"]], "wait": 60})
    await lifesign.heartbeat(slug="job", policy=policy["id"])
    await fire(lifesign, "job")
    await lifesign.ask("POST", "/v1/heartbeats/job/snooze", {"seconds": 10 * MIN})
    await lifesign.advance(2 * MIN)
    await lifesign.ask("PATCH", "/v1/heartbeats/job", {"policy": None})

    await lifesign.advance(8 * MIN)

    assert told(ledger, "fallback") == [(10 * MIN, "incident.unattended")]
    assert await reasons(lifesign, "job") == ["no_policy"]


async def test_when_nobody_reacts_to_the_last_step_the_fallback_channel_hears_of_it_half_an_hour_later(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await fallback(lifesign, ledger)
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 60})
    await lifesign.heartbeat(slug="job", policy=policy["id"])

    await fire(lifesign, "job")
    await lifesign.advance(45 * MIN)

    assert told(ledger, "fallback") == [(31 * MIN, "incident.unattended")]
    assert await reasons(lifesign, "job") == ["exhausted"]


async def test_a_heartbeat_with_channels_of_its_own_alone_is_unattended_after_half_an_hour(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await fallback(lifesign, ledger)
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])

    await fire(lifesign, "job")
    await lifesign.advance(45 * MIN)

    assert told(ledger, "fallback") == [(30 * MIN, "incident.unattended")]


async def test_a_fallback_channel_that_is_set_later_hears_of_what_is_unattended(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await lifesign.heartbeat(slug="job")
    await fire(lifesign, "job")
    await lifesign.advance(10 * MIN)

    await fallback(lifesign, ledger)
    await lifesign.advance(1)

    assert told(ledger, "fallback") == [(10 * MIN, "incident.unattended")]


async def test_an_unknown_fallback_channel_is_refused_and_nothing_changes(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await fallback(lifesign, ledger)

    refused = await lifesign.ask("PATCH", "/v1/settings", {"fallbackChannel": "ch_unknown"}, expect=400)

    assert refused["error"]["details"] == [{"field": "fallbackChannel", "message": "unknown channel"}]
    assert await lifesign.ask("GET", "/v1/settings") == {"fallbackChannel": channel["id"]}


async def test_null_clears_the_fallback_channel(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await fallback(lifesign, ledger)

    answer = await lifesign.ask("PATCH", "/v1/settings", {"fallbackChannel": None})

    assert answer == {}
    assert await lifesign.ask("GET", "/v1/settings") == {}


async def test_the_fallback_channel_is_in_use_and_a_forced_deletion_clears_the_setting(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await fallback(lifesign, ledger)

    refused = await lifesign.ask("DELETE", f"/v1/channels/{channel['id']}", expect=409)
    await lifesign.ask("DELETE", f"/v1/channels/{channel['id']}?force=true", expect=204)

    assert [user["type"] for user in refused["error"]["details"]["users"]] == ["settings"]
    assert await lifesign.ask("GET", "/v1/settings") == {}
