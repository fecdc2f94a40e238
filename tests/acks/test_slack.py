"""Slack's button: believed when Slack signed it, and only for the incident whose token it carries."""

import hashlib
import hmac
import json
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import httpx2
import pytest
from pydantic import SecretStr

from tests.engine.steps import fire
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer

SECRET = "slack-signing-secret"
PATH = "/hooks/slack/interactions"


@pytest.fixture
async def lifesign(start_lifesign: MakeLifesign) -> AsyncIterator[Lifesign]:
    async with start_lifesign(slack_signing_secret=SecretStr(SECRET)) as started:
        yield started


async def _button(lifesign: Lifesign, ledger: LedgerPeer) -> Json:
    """The button in the message of a heartbeat that fires."""
    config = {"webhookUrl": f"{ledger.url}/slack/ops"}
    made = await lifesign.ask("POST", "/v1/channels", {"name": "s", "type": "slack", "config": config}, expect=201)
    await lifesign.heartbeat("Nightly", slug="job", channels=[made["id"]])
    await fire(lifesign, "job")
    (actions,) = [each for each in ledger.requests("/slack/ops")[0].json["blocks"] if each["type"] == "actions"]
    return dict(actions["elements"][0])


def _press(button: Json, **changes: object) -> Json:
    return {
        "type": "block_actions",
        "user": {"id": "U0123", "name": "ines"},
        "actions": [{"action_id": button["action_id"], "value": button["value"]}],
    } | changes


async def _send(lifesign: Lifesign, payload: object, *, age_s: int = 0, secret: str = SECRET) -> httpx2.Response:
    body = payload if isinstance(payload, bytes) else urlencode({"payload": json.dumps(payload)}).encode()
    stamp = str(lifesign.now() // 1000 - age_s)
    signature = "v0=" + hmac.new(secret.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256).hexdigest()
    headers = {
        "content-type": "application/x-www-form-urlencoded",
        "x-slack-request-timestamp": stamp,
        "x-slack-signature": signature,
    }
    async with lifesign.client(None) as slack:
        return await slack.post(PATH, content=body, headers=headers)


async def _status(lifesign: Lifesign) -> str:
    return str((await lifesign.get("job"))["status"])


async def test_a_press_acknowledges_in_the_name_of_who_pressed(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    button = await _button(lifesign, ledger)
    assert (button["action_id"], "url" in button) == ("lifesign_ack", False)

    answer = await _send(lifesign, _press(button, response_url=f"{ledger.url}/hook/third"))

    assert (answer.status_code, answer.content) == (200, b"")
    assert await _status(lifesign) == "resolved"
    acked = next(each for each in await lifesign.events("job") if each["type"] == "acked")
    assert acked["metadata"]["actor"] == "slack:U0123 (ines)"
    (replaced,) = ledger.requests("/hook/third")
    assert replaced.json["replace_original"] is True
    assert "Nightly was acknowledged by slack:U0123 (ines)" in replaced.json["text"]


async def test_a_second_press_changes_nothing(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    button = await _button(lifesign, ledger)

    statuses = [(await _send(lifesign, _press(button))).status_code for _ in range(2)]

    assert statuses == [200, 200]
    assert len([each for each in await lifesign.events("job") if each["type"] == "acked"]) == 1


@pytest.mark.parametrize(("age_s", "status"), [(360, 401), (-360, 401), (290, 200)])
async def test_a_press_counts_for_five_minutes(lifesign: Lifesign, ledger: LedgerPeer, age_s: int, status: int) -> None:
    button = await _button(lifesign, ledger)

    answer = await _send(lifesign, _press(button), age_s=age_s)

    assert (answer.status_code, answer.content) == (status, b"")
    assert await _status(lifesign) == ("resolved" if status == 200 else "firing")


async def test_what_slack_did_not_sign_is_refused(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    button = await _button(lifesign, ledger)

    answer = await _send(lifesign, _press(button), secret="guessed")
    async with lifesign.client(None) as anybody:
        bare = await anybody.post(PATH, data={"payload": json.dumps(_press(button))})

    assert (answer.status_code, bare.status_code) == (401, 401)
    assert await _status(lifesign) == "firing"


@pytest.mark.parametrize("payload", [b"", b"payload=", b"payload=%7B", b"payload=%5B%5D", b"other=1"])
async def test_what_is_no_payload_is_refused(lifesign: Lifesign, payload: bytes) -> None:
    assert (await _send(lifesign, payload)).status_code == 400


async def test_what_is_too_large_is_refused(lifesign: Lifesign) -> None:
    assert (await _send(lifesign, b"payload=" + b"x" * 65_536)).status_code == 413


async def test_other_actions_and_tokens_that_were_not_made_here_are_ignored(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    button = await _button(lifesign, ledger)
    forged = button["value"][:-1] + ("A" if button["value"][-1] != "A" else "B")
    others: list[Json] = [
        _press(button | {"action_id": "lifesign_details"}),
        _press(button | {"value": forged}),
        _press(button, type="view_submission"),
        _press(button, actions=[]),
        _press(button, actions="none"),
    ]

    assert [(await _send(lifesign, each)).status_code for each in others] == [200] * 5
    assert await _status(lifesign) == "firing"


async def test_who_pressed_is_told_only_at_slack_or_where_the_channel_posts(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    button = await _button(lifesign, ledger)
    elsewhere = ledger.url.replace("127.0.0.1", "localhost")

    answer = await _send(lifesign, _press(button, response_url=f"{elsewhere}/hook/third"))

    assert answer.status_code == 200
    assert await _status(lifesign) == "resolved"
    assert ledger.requests("/hook/third") == []


async def test_without_a_signing_secret_the_button_is_a_link_and_nothing_is_believed(
    start_lifesign: MakeLifesign, ledger: LedgerPeer
) -> None:
    async with start_lifesign(public_url="https://lifesign.example") as bare:
        button = await _button(bare, ledger)
        answer = await _send(bare, _press({"action_id": "lifesign_ack", "value": button["url"].rpartition("/")[2]}))

        assert button["url"].startswith("https://lifesign.example/a/inc_")
        assert answer.status_code == 401
        assert await _status(bare) == "firing"
