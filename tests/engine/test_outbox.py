"""The outbox: retries, order, leases, and what becomes of a message nobody wants any more."""

import asyncio
import itertools

import pytest
from sqlalchemy import func, select

from lifesign.clock import EpochMs
from lifesign.db.schema import notifications as outbox
from tests.engine.steps import at_s, fire, hook, incidents, instant, loop, notifications, row, told
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.peers.smtp import SmtpPeer

DAY_S = 24 * 3600
RUNGS_S = (5, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 3600, 3600)


async def _firing(lifesign: Lifesign, *channels: str, slug: str = "job") -> None:
    """A heartbeat that has just fired and tells `channels` by itself."""
    await lifesign.heartbeat(slug=slug, channels=list(channels))
    await fire(lifesign, slug)


async def _page(lifesign: Lifesign, slug: str = "job") -> Json:
    return next(each for each in await notifications(lifesign, slug) if each["kind"] == "page")


async def _statuses(lifesign: Lifesign, slug: str = "job") -> list[tuple[str, str]]:
    return [(each["kind"], each["status"]) for each in await notifications(lifesign, slug)]


# Retries ------------------------------------------------------------------------------------------------------------
async def test_two_errors_are_followed_by_a_third_try_with_the_same_id_and_body(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 500, "times": 2})
    channel = await lifesign.webhook(hook(ledger))

    await _firing(lifesign, channel["id"])
    await lifesign.advance(60)

    requests = ledger.requests("/hook/ops")
    assert len(requests) == 3
    assert len({(each.headers["webhook-id"], each.content) for each in requests}) == 1
    assert len({each.headers["webhook-signature"] for each in requests}) == 3
    first, second, third = [at_s(each) for each in requests]
    # The header has whole seconds, so each gap may look one second longer or shorter than it is.
    assert 3 <= second - first <= 7
    assert 11 <= third - second <= 19
    page = await _page(lifesign)
    assert page["status"] == "sent"
    assert [(each["n"], each["outcome"], each.get("httpStatus")) for each in page["attempts"]] == [
        (1, "retry", 500),
        (2, "retry", 500),
        (3, "sent", None),
    ]


async def test_every_retry_waits_for_its_rung_of_the_ladder_give_or_take_a_fifth(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 500, "times": 1000})
    channel = await lifesign.webhook(hook(ledger))

    await _firing(lifesign, channel["id"])
    await lifesign.advance(6 * 3600)

    starts = [instant(each["startedAt"]) / 1000 for each in (await _page(lifesign))["attempts"]]
    gaps = [later - earlier for earlier, later in itertools.pairwise(starts)]
    assert len(gaps) >= 11
    for gap, rung in zip(gaps, RUNGS_S, strict=False):
        assert 0.8 * rung <= gap <= 1.2 * rung + 0.001
    assert len(ledger.requests("/hook/ops")) == len(starts)


async def test_a_day_against_a_dead_peer_ends_visibly_dead(lifesign: Lifesign, closed_port: int) -> None:
    channel = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/")

    await _firing(lifesign, channel["id"])
    # A message dies when its next try would come after its day, which is 1.2 h before the end of it at the earliest.
    await lifesign.advance(22 * 3600)
    assert (await _page(lifesign))["status"] == "pending"
    await lifesign.advance(3 * 3600)

    page = await _page(lifesign)
    assert page["status"] == "dead"
    assert instant(page["attempts"][-1]["startedAt"]) - instant(page["createdAt"]) <= DAY_S * 1000
    failures = [each["metadata"] for each in await lifesign.events("job") if each["type"] == "notify_failed"]
    assert [(each["final"], each["error"]) for each in failures] == [
        (True, "connect: could not connect"),
        (False, "connect: could not connect"),
    ]


@pytest.mark.parametrize(
    ("asked", "shortest", "longest"),
    [("1", 4, 6), ("100", 100, 100), ("86400", 900, 900), ("soon", 4, 6)],
    ids=["sooner than the ladder", "later", "more than a quarter of an hour", "unreadable"],
)
async def test_retry_after_raises_the_delay_within_bounds_and_never_lowers_it(
    lifesign: Lifesign, ledger: LedgerPeer, asked: str, shortest: int, longest: int
) -> None:
    ledger.script("ops", {"status": 503, "headers": {"Retry-After": asked}})
    channel = await lifesign.webhook(hook(ledger))

    await _firing(lifesign, channel["id"])
    await lifesign.advance(1000)

    first, second = [instant(each["startedAt"]) for each in (await _page(lifesign))["attempts"]]
    assert shortest <= (second - first) / 1000 <= longest


async def test_too_many_requests_holds_everything_else_for_the_channel_as_well(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 429, "headers": {"Retry-After": "7"}})
    channel = await lifesign.webhook(hook(ledger))
    await _firing(lifesign, channel["id"], slug="first")

    await lifesign.advance(1)
    await _firing(lifesign, channel["id"], slug="second")
    await lifesign.advance(60)

    first, *held = [at_s(each) for each in ledger.requests("/hook/ops")]
    assert first == 0
    assert held == [7, 7]
    assert await _statuses(lifesign, "first") == await _statuses(lifesign, "second") == [("page", "sent")]


async def test_too_many_requests_without_a_time_means_half_a_minute(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 429})
    channel = await lifesign.webhook(hook(ledger))

    await _firing(lifesign, channel["id"])
    await lifesign.advance(60)

    assert [at_s(each) for each in ledger.requests("/hook/ops")] == [0, 30]


# Addresses and keys -------------------------------------------------------------------------------------------------
async def test_each_address_has_a_row_of_its_own_and_no_key_is_there_twice(
    start_lifesign: MakeLifesign, mail: SmtpPeer, ledger: LedgerPeer
) -> None:
    async with start_lifesign(**_mail_settings(mail)) as lifesign:
        mails = await _channel(lifesign, "email", to=["a@example.com", "b@example.com"])
        hooked = await lifesign.webhook(hook(ledger))
        await _firing(lifesign, mails, hooked["id"])
        await lifesign.check_in("job")
        await lifesign.advance(1)

        rows = await notifications(lifesign, "job")
        assert sorted((each["kind"], each["channel"] == mails, each["status"]) for each in rows) == [
            ("page", False, "sent"),
            ("page", True, "sent"),
            ("page", True, "sent"),
            ("resolve", False, "sent"),
            ("resolve", True, "sent"),
            ("resolve", True, "sent"),
        ]
        keys = await lifesign.node.db.read(
            lambda conn: conn.execute(select(func.count(), func.count(outbox.c.idem_key.distinct()))).one()
        )
        assert tuple(keys) == (6, 6)
    assert sorted(each["rcptTo"] for each in mail.envelopes()) == [
        ["a@example.com"],
        ["a@example.com"],
        ["b@example.com"],
        ["b@example.com"],
    ]


# Order --------------------------------------------------------------------------------------------------------------
async def test_the_end_is_not_told_before_the_page_on_the_wire_has_arrived(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"stall": 0.5})
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await lifesign.check_in("job", healthy=False)

    sending = asyncio.create_task(lifesign.advance(0))
    await ledger.arrived("/hook/ops")
    await lifesign.check_in("job")
    await loop(lifesign, "deliver").tick(lifesign.now())
    assert await _statuses(lifesign) == [("page", "sending"), ("resolve", "pending")]
    await sending
    await lifesign.advance(1)

    assert [kind for _, kind in told(ledger)] == ["incident.opened", "incident.resolved"]
    assert await _statuses(lifesign) == [("page", "sent"), ("resolve", "sent")]


async def test_a_later_step_waits_for_the_earlier_one_to_the_same_address(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 500})
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 0}, {"channels": [channel["id"]], "wait": 1})
    await lifesign.heartbeat(slug="job", policy=policy["id"])
    await fire(lifesign, "job")

    await lifesign.advance(3)
    assert await _statuses(lifesign) == [("page", "pending"), ("page", "pending")]
    await lifesign.advance(10)

    assert [kind for _, kind in told(ledger)] == ["incident.opened", "incident.opened", "incident.escalated"]


async def test_a_page_that_did_not_leave_before_the_end_is_dropped_together_with_its_resolve(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"stall": 0.5, "status": 500})
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await lifesign.check_in("job", healthy=False)

    sending = asyncio.create_task(lifesign.advance(0))
    await ledger.arrived("/hook/ops")
    await lifesign.check_in("job")
    await sending
    await lifesign.advance(3000)

    assert len(ledger.requests("/hook/ops")) == 1
    assert await _statuses(lifesign) == [("page", "canceled"), ("resolve", "canceled")]


async def test_a_page_that_may_have_arrived_before_the_end_is_followed_by_its_resolve(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"stall": 0.5, "close": "after_read"})
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await lifesign.check_in("job", healthy=False)

    sending = asyncio.create_task(lifesign.advance(0))
    await ledger.arrived("/hook/ops")
    await lifesign.check_in("job")
    await sending
    await lifesign.advance(3000)

    assert [kind for _, kind in told(ledger)] == ["incident.opened", "incident.resolved"]
    assert await _statuses(lifesign) == [("page", "canceled"), ("resolve", "sent")]


async def test_a_page_that_waits_for_its_next_try_is_dropped_when_the_job_recovers(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 500})
    channel = await lifesign.webhook(hook(ledger))
    await _firing(lifesign, channel["id"])

    await lifesign.check_in("job")
    await lifesign.advance(3000)

    assert len(ledger.requests("/hook/ops")) == 1
    assert await _statuses(lifesign) == [("page", "canceled")]


async def test_a_deleted_channel_sends_nothing_more(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 500})
    channel = await lifesign.webhook(hook(ledger))
    await _firing(lifesign, channel["id"])

    await lifesign.ask("DELETE", f"/v1/channels/{channel['id']}", expect=409)
    await lifesign.ask("DELETE", f"/v1/channels/{channel['id']}?force=true", expect=204)
    await lifesign.advance(3000)

    assert len(ledger.requests("/hook/ops")) == 1
    assert await _statuses(lifesign) == [("page", "canceled")]


# Leases -------------------------------------------------------------------------------------------------------------
async def test_a_send_that_outlives_its_lease_changes_nothing_any_more(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"stall": 0.5}, {"stall": 1})
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await lifesign.check_in("job", healthy=False)

    sending = asyncio.create_task(lifesign.advance(0))
    await ledger.arrived("/hook/ops")
    # What another node does a minute later, while the first request still waits for its answer.
    a_minute_later = EpochMs(lifesign.now() + 60_001)
    await loop(lifesign, "reap").tick(a_minute_later)
    assert await _statuses(lifesign) == [("page", "pending")]
    await loop(lifesign, "deliver").tick(a_minute_later)
    await ledger.arrived("/hook/ops", 2)
    await sending

    page = await _page(lifesign)
    assert page["status"] == "sent"
    assert [(each["n"], each["outcome"]) for each in page["attempts"]] == [(1, "stale"), (2, "sent")]
    assert len({each.headers["webhook-id"] for each in ledger.requests("/hook/ops")}) == 1


async def test_no_channel_gets_more_than_its_share_at_once(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("pagerduty", {"stall": 0.5, "times": 4})
    duty = await _channel(lifesign, "pagerduty", routingKey="R" * 32)
    for number in range(6):
        await lifesign.heartbeat(slug=f"job-{number}", channels=[duty])
        await lifesign.check_in(f"job-{number}", healthy=False)

    sending = asyncio.create_task(lifesign.advance(0))
    await ledger.arrived("/v2/enqueue", 4)
    waiting = await lifesign.ask("GET", "/v1/notifications?status=pending")
    under_way = await lifesign.ask("GET", "/v1/notifications?status=sending")
    await sending

    assert (len(under_way["notifications"]), len(waiting["notifications"])) == (4, 2)
    assert len(ledger.requests("/v2/enqueue")) == 6


async def test_a_message_in_flight_has_a_lease_and_one_at_rest_has_none(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"stall": 0.5})
    channel = await lifesign.webhook(hook(ledger))
    await lifesign.heartbeat(slug="job", channels=[channel["id"]])
    await lifesign.check_in("job", healthy=False)

    sending = asyncio.create_task(lifesign.advance(0))
    await ledger.arrived("/hook/ops")
    in_flight = await row(lifesign, (await _page(lifesign))["id"])
    await sending
    at_rest = await row(lifesign, in_flight.id)

    assert (in_flight.status, in_flight.lease_owner) == ("sending", lifesign.node.id)
    assert in_flight.lease_until == lifesign.now() + 60_000
    assert (at_rest.status, at_rest.lease_owner, at_rest.lease_until) == ("sent", None, None)


# Independence -------------------------------------------------------------------------------------------------------
async def test_a_dead_mail_server_does_not_delay_a_webhook(
    start_lifesign: MakeLifesign, ledger: LedgerPeer, closed_port: int
) -> None:
    async with start_lifesign(smtp_host="127.0.0.1", smtp_port=closed_port, smtp_tls="none") as lifesign:
        mails = await _channel(lifesign, "email", to="ops@example.com")
        hooked = await lifesign.webhook(hook(ledger))
        policy = await lifesign.policy({"channels": [mails, hooked["id"]], "wait": 0})
        await lifesign.heartbeat(slug="job", policy=policy["id"])
        await fire(lifesign, "job")

        assert told(ledger) == [(0, "incident.opened")]
        waits = []
        for _ in range(3):
            mail_row = next(each for each in await notifications(lifesign, "job") if each["channel"] == mails)
            assert mail_row["status"] == "pending"
            stored = await row(lifesign, mail_row["id"])
            waits.append(stored.not_before - instant(mail_row["attempts"][-1]["startedAt"]))
            await lifesign.advance((stored.not_before - lifesign.now()) / 1000)
    assert waits[0] < waits[1] < waits[2]


async def test_nobody_told_is_said_when_the_only_channel_of_a_step_is_gone(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(hook(ledger))
    policy = await lifesign.policy({"channels": [channel["id"]], "wait": 0})
    await lifesign.heartbeat(slug="job", policy=policy["id"])
    await lifesign.ask("DELETE", f"/v1/channels/{channel['id']}?force=true", expect=204)

    await fire(lifesign, "job")

    assert (await incidents(lifesign, "job"))[0]["unattended"] == "no_channel"
    assert "unattended" in await lifesign.event_types("job")


# Surroundings -------------------------------------------------------------------------------------------------------
def _mail_settings(mail: SmtpPeer) -> Json:
    return {
        "smtp_host": "127.0.0.1",
        "smtp_port": mail.port,
        "smtp_tls": "none",
        "smtp_from": "life@example.com",
    }


async def _channel(lifesign: Lifesign, kind: str, **config: object) -> str:
    made = await lifesign.ask("POST", "/v1/channels", {"name": kind, "type": kind, "config": config}, expect=201)
    return str(made["id"])
