"""What somebody who means harm, or is merely unlucky, can send: it is refused by field, and breaks nothing."""

import pytest

from tests.harness import Lifesign


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize("levels", [16, 500, 800])
async def test_metadata_nested_too_deeply_is_refused(lifesign: Lifesign, levels: int) -> None:
    await lifesign.heartbeat()

    refusal = await lifesign.ask(
        "POST", "/v1/heartbeats/nightly-export/checkin", {"metadata": {"a": nested(levels)}}, expect=400
    )

    assert refusal["error"]["details"][0]["field"] == "metadata"
    assert await lifesign.event_types("nightly-export") == ["created"]


async def test_an_address_that_is_a_deep_nest_of_lists_is_refused(lifesign: Lifesign) -> None:
    body = {"name": "ops", "type": "email", "config": {"to": nested(300)}}

    refusal = await lifesign.ask("POST", "/v1/channels", body, expect=400)

    (detail,) = refusal["error"]["details"]
    assert detail["field"] == "config.to"
    assert "value" not in detail


async def test_a_long_value_is_refused_without_being_repeated(lifesign: Lifesign) -> None:
    body = {"name": "a", "mode": "recurring", "interval": 60, "policy": "p" * 100_000}

    refusal = await lifesign.ask("POST", "/v1/heartbeats", body, expect=400)

    assert refusal["error"]["details"] == [{"field": "policy", "message": "unknown policy"}]


@pytest.mark.parametrize("expires_at", ["9999-12-31T23:59:59-12:00", "0001-01-01T00:00:00+12:00"])
async def test_an_expiry_that_no_calendar_shows_is_refused(lifesign: Lifesign, expires_at: str) -> None:
    refusal = await lifesign.ask("POST", "/v1/keys", {"name": "a", "expiresAt": expires_at}, expect=400)

    assert refusal["error"]["details"][0]["field"] == "expiresAt"
    assert [key["name"] for key in (await lifesign.ask("GET", "/v1/keys"))["keys"]] == ["admin"]


async def test_the_description_of_the_api_tells_its_verbs_as_well(lifesign: Lifesign) -> None:
    answer = await lifesign.http.post("/openapi.json")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD"
