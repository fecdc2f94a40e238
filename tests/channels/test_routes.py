"""Channels over HTTP: what may be saved, what a test message tells, and what never gets out."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import orjson
import pytest
from sqlalchemy import Connection, select, update

from lifesign.app import open_node
from lifesign.clock import ManualClock, parse_timestamp
from lifesign.db.schema import channels, metadata
from lifesign.settings import Settings
from tests.harness import ADMIN_KEY, Json, Lifesign, MakeLifesign, client_of
from tests.peers.fixtures import ENQUEUE, ROUTING_KEY
from tests.peers.names import ScriptedResolver
from tests.peers.process import LedgerPeer
from tests.peers.smtp import SmtpPeer

OTHER_ROUTING_KEY = "zyxwvutsrqponmlkjihgfedcba987654"
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwTm9gdGVzdA=="


async def _channel(lifesign: Lifesign, kind: str, **config: object) -> str:
    made = await lifesign.ask("POST", "/v1/channels", {"name": kind, "type": kind, "config": config}, expect=201)
    return str(made["id"])


async def _test(lifesign: Lifesign, channel: str) -> Json:
    return await lifesign.ask("POST", f"/v1/channels/{channel}/test")


# Saving -------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:1/", "http://[::1]/", "http://localhost/", "http://169.254.169.254/", "http://10.0.0.1/"],
)
async def test_an_inner_address_is_not_saved(start_lifesign: MakeLifesign, url: str) -> None:
    async with start_lifesign(allow_private_targets=False) as lifesign:
        body = {"name": "inside", "type": "webhook", "config": {"url": url}}
        answer = await lifesign.ask("POST", "/v1/channels", body, expect=400)

    assert [(each["field"], each["message"]) for each in answer["error"]["details"]] == [
        ("config.url", "address is not allowed")
    ]


async def test_the_allowance_for_private_targets_does_not_reach_the_metadata_service(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    channel = await lifesign.webhook(f"{ledger.url}/hook/ops")
    assert await _test(lifesign, channel["id"]) == {"ok": True}

    body = {"name": "inside", "type": "webhook", "config": {"url": "http://169.254.169.254/"}}
    answer = await lifesign.ask("POST", "/v1/channels", body, expect=400)

    assert [each["field"] for each in answer["error"]["details"]] == ["config.url"]


async def test_an_allowed_range_is_allowed_and_nothing_else(start_lifesign: MakeLifesign, ledger: LedgerPeer) -> None:
    async with start_lifesign(allow_private_targets=False, egress_allow="127.0.0.0/8") as lifesign:
        channel = await lifesign.webhook(f"{ledger.url}/hook/ops")
        assert await _test(lifesign, channel["id"]) == {"ok": True}

        body = {"name": "inside", "type": "webhook", "config": {"url": "http://10.0.0.1/"}}
        await lifesign.ask("POST", "/v1/channels", body, expect=400)


@pytest.mark.parametrize("name", ["webhook-id", "Webhook-Signature", "Content-Type", "Host"])
async def test_headers_that_are_ours_are_not_saved(lifesign: Lifesign, name: str) -> None:
    config = {"url": "https://example.com/", "headers": {name: "x"}}
    answer = await lifesign.ask(
        "POST", "/v1/channels", {"name": "hook", "type": "webhook", "config": config}, expect=400
    )

    assert [each["field"] for each in answer["error"]["details"]] == ["config.headers"]


# Names that lead inside ---------------------------------------------------------------------------------------------
@asynccontextmanager
async def _resolving(settings: Settings, answers: dict[str, list[list[str]]]) -> AsyncIterator[Lifesign]:
    """A node that asks a resolver of the test's own."""
    clock = ManualClock(parse_timestamp("2026-01-05T12:00:00.000Z"))
    node = await open_node(settings, clock=clock, resolver=ScriptedResolver(answers))
    try:
        async with client_of(node.app, ADMIN_KEY) as http:
            yield Lifesign(node, clock, http)
    finally:
        await node.driver.stop()
        await node.close()


async def test_a_name_that_leads_to_the_metadata_service_is_refused_when_it_is_used(settings: Settings) -> None:
    async with _resolving(settings, {"inside.example": [["169.254.169.254"]]}) as lifesign:
        channel = await lifesign.webhook("http://inside.example/")

        answer = await _test(lifesign, channel["id"])

    assert answer == {"ok": False, "message": "blocked_address: address is not allowed"}


async def test_a_name_that_turns_inwards_at_the_second_question_never_gets_there(
    settings: Settings, ledger: LedgerPeer
) -> None:
    # 127.0.0.9 stands for the public address: it is allowed, and nothing listens there.
    strict = settings.model_copy(update={"allow_private_targets": False, "egress_allow": "127.0.0.9/32"})
    async with _resolving(strict, {"turns.example": [["127.0.0.9"], ["127.0.0.1"]]}) as lifesign:
        channel = await lifesign.webhook(f"http://turns.example:{ledger.port}/hook/ops")
        made = await lifesign.heartbeat(channels=[channel["id"]])
        await lifesign.check_in(made["id"], healthy=False)
        await lifesign.advance(60)

        (row,) = (await lifesign.ask("GET", "/v1/notifications"))["notifications"]
    assert row["status"] == "dead"
    assert [each["error"].split(":")[0] for each in row["attempts"]] == ["connect", "blocked_address"]
    assert ledger.requests() == []


async def test_a_blocked_target_is_told_the_same_whatever_listens_there(settings: Settings, ledger: LedgerPeer) -> None:
    strict = settings.model_copy(update={"allow_private_targets": False})
    async with _resolving(strict, {"inside.example": [["127.0.0.1"]]}) as lifesign:
        listening = await lifesign.webhook(f"http://inside.example:{ledger.port}/hook/ops")
        silent = await lifesign.webhook("http://inside.example:1/hook/ops")

        answers = [await _test(lifesign, each["id"]) for each in (listening, silent)]

    assert answers == [{"ok": False, "message": "blocked_address: address is not allowed"}] * 2
    assert ledger.requests() == []


# Test messages ------------------------------------------------------------------------------------------------------
async def test_a_test_message_is_sent_once_and_opens_no_incident(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await lifesign.webhook(f"{ledger.url}/hook/ops")

    assert await _test(lifesign, channel["id"]) == {"ok": True}
    await lifesign.advance(3600)

    (request,) = ledger.requests("/hook/ops")
    assert request.json["type"] == "channel.test"
    (row,) = (await lifesign.ask("GET", "/v1/notifications"))["notifications"]
    assert (row["kind"], row["status"], [each["outcome"] for each in row["attempts"]]) == ("test", "sent", ["sent"])
    assert (await lifesign.ask("GET", "/v1/incidents"))["incidents"] == []


async def test_a_test_that_fails_says_why_and_is_not_tried_again(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 500, "body": "out of order"})
    channel = await lifesign.webhook(f"{ledger.url}/hook/ops")

    assert await _test(lifesign, channel["id"]) == {"ok": False, "message": "500: out of order"}
    await lifesign.advance(3600)

    assert len(ledger.requests("/hook/ops")) == 1
    (row,) = (await lifesign.ask("GET", "/v1/notifications"))["notifications"]
    assert row["status"] == "dead"


async def test_a_test_of_a_mail_channel_tries_every_address_and_names_those_that_failed(
    start_lifesign: MakeLifesign, mail: SmtpPeer
) -> None:
    mail.script(**{"bad@example.com": [{"rcpt": 550}]})
    async with start_lifesign(smtp_host="127.0.0.1", smtp_port=mail.port, smtp_tls="none") as lifesign:
        channel = await _channel(lifesign, "email", to=["bad@example.com", "good@example.com"])

        answer = await _test(lifesign, channel)

    assert answer["ok"] is False
    assert answer["message"].startswith("bad@example.com: 550: ")
    assert "good@example.com" not in answer["message"]
    assert [each["rcptTo"] for each in mail.envelopes()] == [["good@example.com"]]


async def test_a_test_of_pagerduty_is_a_trigger_and_its_resolve(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = await _channel(lifesign, "pagerduty", routingKey=ROUTING_KEY)

    assert await _test(lifesign, channel) == {"ok": True}

    trigger, resolve = [each.json for each in ledger.requests(ENQUEUE)]
    assert (trigger["event_action"], trigger["payload"]["severity"]) == ("trigger", "info")
    assert trigger["dedup_key"].startswith("test-ntf_")
    assert (resolve["event_action"], resolve["dedup_key"]) == ("resolve", trigger["dedup_key"])


async def test_the_eleventh_test_within_a_minute_has_to_wait(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await lifesign.webhook(f"{ledger.url}/hook/ops"))["id"]
    other = (await lifesign.webhook(f"{ledger.url}/hook/second", "other"))["id"]
    for _ in range(10):
        await _test(lifesign, channel)

    refused = await lifesign.http.post(f"/v1/channels/{channel}/test")
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "RATE_LIMITED")
    assert refused.headers["retry-after"] == "60"
    assert await _test(lifesign, other) == {"ok": True}

    await lifesign.advance(60)
    assert await _test(lifesign, channel) == {"ok": True}
    assert len(ledger.requests("/hook/ops")) == 11


async def test_a_broken_channel_is_whole_again_after_a_test_that_arrives(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 410}, {"status": 410})
    channel = (await lifesign.webhook(f"{ledger.url}/hook/ops"))["id"]

    assert (await _test(lifesign, channel))["ok"] is False
    assert "broken" in await lifesign.ask("GET", f"/v1/channels/{channel}")
    assert (await _test(lifesign, channel))["ok"] is False
    assert "broken" in await lifesign.ask("GET", f"/v1/channels/{channel}")

    assert (await _test(lifesign, channel))["ok"] is True
    assert "broken" not in await lifesign.ask("GET", f"/v1/channels/{channel}")


async def test_an_edit_of_its_settings_makes_a_broken_channel_whole(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 410})
    channel = (await lifesign.webhook(f"{ledger.url}/hook/ops"))["id"]
    await _test(lifesign, channel)

    await lifesign.ask("PATCH", f"/v1/channels/{channel}", {"name": "renamed"})
    assert "broken" in await lifesign.ask("GET", f"/v1/channels/{channel}")
    await lifesign.ask("PATCH", f"/v1/channels/{channel}", {"config": {"url": f"{ledger.url}/hook/second"}})

    assert "broken" not in await lifesign.ask("GET", f"/v1/channels/{channel}")


async def test_a_test_of_an_unknown_channel_is_not_found(lifesign: Lifesign) -> None:
    await lifesign.ask("POST", "/v1/channels/ch_00000000000000000000000000000000/test", expect=404)


# What does not get out ----------------------------------------------------------------------------------------------
async def test_what_a_target_answered_is_for_those_who_may_change_channels(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    ledger.script("ops", {"status": 500, "body": "internal words"})
    channel = await lifesign.webhook(f"{ledger.url}/hook/ops")
    made = await lifesign.heartbeat(channels=[channel["id"]])
    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance(0)
    key = await lifesign.ask("POST", "/v1/keys", {"name": "reader", "scopes": ["heartbeats:read"]}, expect=201)

    async with lifesign.client(key["token"]) as reader:
        listed = (await reader.get("/v1/notifications")).json()["notifications"]
        events = (await reader.get(f"/v1/heartbeats/{made['id']}/events")).text

    assert [each["error"] for each in listed[0]["attempts"]] == ["500"]
    assert "internal words" not in events
    full = (await lifesign.ask("GET", "/v1/notifications"))["notifications"]
    assert [each["error"] for each in full[0]["attempts"]] == ["500: internal words"]


async def test_an_echoed_secret_is_not_kept(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    ledger.script("ops", {"status": 500, "body": f"bad key {SECRET} and token hunter2-hunter2"})
    headers = {"X-Token": "hunter2-hunter2"}
    channel = await lifesign.webhook(f"{ledger.url}/hook/ops", secret=SECRET, headers=headers)

    answer = await _test(lifesign, channel["id"])

    assert answer == {"ok": False, "message": "500: bad key **** and token ****"}
    stored = await lifesign.node.db.read(_everything)
    assert SECRET not in stored
    assert "hunter2-hunter2" not in stored


async def test_the_database_holds_no_secret_in_clear(
    lifesign: Lifesign, ledger: LedgerPeer, settings: Settings
) -> None:
    hooked = await lifesign.webhook(f"{ledger.url}/hook/ops?key=s3cr3t-path", headers={"X-Token": "hunter2-hunter2"})
    slack = await _channel(lifesign, "slack", webhookUrl=f"{ledger.url}/slack/second-secret")
    duty = await _channel(lifesign, "pagerduty", routingKey=ROUTING_KEY)
    await lifesign.ask("PATCH", f"/v1/channels/{hooked['id']}", {"config": {"url": f"{ledger.url}/hook/other-secret"}})
    made = await lifesign.heartbeat(channels=[hooked["id"], slack, duty])
    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance(60)

    secrets = (
        "s3cr3t-path",
        "other-secret",
        "second-secret",
        ROUTING_KEY,
        "hunter2-hunter2",
        hooked["config"]["secret"],
    )
    stored = await lifesign.node.db.read(_everything)
    assert [each for each in secrets if each in stored] == []
    if settings.database_url is None:
        files = b"".join(path.read_bytes() for path in settings.data_dir.glob("lifesign.db*"))
        assert slack.encode() in files
        assert [each for each in secrets if each.encode() in files] == []


async def test_a_swapped_ciphertext_stops_its_channel_and_not_the_server(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    first = await _channel(lifesign, "pagerduty", routingKey=ROUTING_KEY)
    second = await _channel(lifesign, "pagerduty", routingKey=OTHER_ROUTING_KEY)
    await lifesign.node.db.write(_swap, first, second)
    hooked = await lifesign.webhook(f"{ledger.url}/hook/ops")
    made = await lifesign.heartbeat(channels=[first, second, hooked["id"]])

    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance(1)

    rows = (await lifesign.ask("GET", "/v1/notifications"))["notifications"]
    assert (
        sorted((each["status"], each["attempts"][0].get("error")) for each in rows if "error" in each["attempts"][0])
        == [("dead", "secret_unreadable: the channel's secret cannot be decrypted")] * 2
    )
    assert ledger.requests(ENQUEUE) == []
    assert len(ledger.requests("/hook/ops")) == 1
    shown = await lifesign.ask("GET", f"/v1/channels/{first}")
    assert shown["config"]["routingKey"] == "****"
    assert shown["broken"]["reason"] == "secret_unreadable: the channel's secret cannot be decrypted"


def _swap(conn: Connection, first: str, second: str) -> None:
    configs = {row.id: orjson.loads(row.config) for row in conn.execute(select(channels.c.id, channels.c.config))}
    for here, there in ((first, second), (second, first)):
        mixed = configs[here] | {"routingKey": configs[there]["routingKey"]}
        conn.execute(update(channels).where(channels.c.id == here).values(config=orjson.dumps(mixed).decode()))


def _everything(conn: Connection) -> str:
    """Every value of every table."""
    return "\n".join(repr(tuple(row)) for table in metadata.sorted_tables for row in conn.execute(select(table)))


# Comparing ----------------------------------------------------------------------------------------------------------
async def _equal(lifesign: Lifesign, channel: str, kind: str, **config: object) -> bool:
    answer = await lifesign.ask("POST", f"/v1/channels/{channel}/compare", {"type": kind, "config": config})
    return bool(answer["equal"])


async def test_whether_a_channel_has_these_settings_already_is_told_without_showing_them(lifesign: Lifesign) -> None:
    target = "https://example.org/hook"
    headers = {"X-Team": "ops"}
    channel = await _channel(lifesign, "webhook", url=target, secret=SECRET, headers=headers)

    assert await _equal(lifesign, channel, "webhook", url=target, secret=SECRET, headers=headers)
    assert await _equal(lifesign, channel, "webhook", url=target, headers=headers)
    # As short a value is all mask in every answer, so only the server can tell.
    assert not await _equal(lifesign, channel, "webhook", url=target, secret=SECRET, headers={"X-Team": "dev"})
    assert not await _equal(lifesign, channel, "webhook", url=target + "2", secret=SECRET, headers=headers)
    assert not await _equal(lifesign, channel, "pagerduty", routingKey=ROUTING_KEY)
    for team, is_equal in (("ops", True), ("dev", False)):
        body = {"config": {"url": target, "headers": {"X-Team": team}}}
        assert await lifesign.ask("POST", f"/v1/channels/{channel}/compare", body) == {"equal": is_equal}


async def test_comparing_changes_nothing_and_needs_the_right_to_write(lifesign: Lifesign) -> None:
    channel = await _channel(lifesign, "pagerduty", routingKey=ROUTING_KEY)
    before = await lifesign.ask("GET", f"/v1/channels/{channel}")
    reader = await lifesign.ask("POST", "/v1/keys", {"name": "r", "scopes": ["channels:read"]}, expect=201)

    assert not await _equal(lifesign, channel, "pagerduty", routingKey=OTHER_ROUTING_KEY)

    body = {"type": "pagerduty", "config": {"routingKey": ROUTING_KEY}}
    async with lifesign.client(reader["token"]) as http:
        assert (await http.post(f"/v1/channels/{channel}/compare", json=body)).status_code == 403
    assert await lifesign.ask("GET", f"/v1/channels/{channel}") == before
    answer = await lifesign.ask(
        "POST", f"/v1/channels/{channel}/compare", {"type": "pagerduty", "config": {"routingKey": "short"}}, expect=400
    )
    assert [each["field"] for each in answer["error"]["details"]] == ["config.routingKey"]
    await lifesign.ask("POST", "/v1/channels/ch_0/compare", body, expect=404)
