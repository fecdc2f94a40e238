"""Keys on pages: made and shown once, used, revoked; and who may."""

import re

import pytest

from tests.harness import Lifesign
from tests.web.browser import Browser, said, signed_up

_TOKEN = re.compile(r"lsk_[a-z2-7]{52}")


async def made_key(owner: Browser, **fields: str) -> str:
    """The token of a key that was made on the page."""
    await owner.get("/keys")
    page = await owner.post("/keys", {"name": "jobs", "scope-checkins:write": "on", "life": ""} | fields, expect=200)
    found = _TOKEN.search(page)
    assert found is not None
    return found[0]


async def test_a_key_is_shown_once_and_may_what_was_ticked(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")

    token = await made_key(owner, **{"scope-heartbeats:read": "on", "life": "30"})

    async with lifesign.client(token) as job:
        assert (await job.post(f"/v1/heartbeats/{made['id']}/checkin")).status_code == 200
        assert (await job.get("/v1/heartbeats")).status_code == 200
        assert (await job.get("/v1/channels")).status_code == 403
    page = await owner.get("/keys")
    assert token not in page
    made_used_expires = "2026-01-05 12:00 UTC 2026-01-05 12:00 UTC 2026-02-04 12:00 UTC"
    assert re.search(rf"jobs lsk_\w+… checkins:write heartbeats:read {made_used_expires}", said(page))
    [key] = [each for each in (await lifesign.ask("GET", "/v1/keys"))["keys"] if each["name"] == "jobs"]
    assert key["expiresAt"] == "2026-02-04T12:00:00.000Z"


@pytest.mark.parametrize(
    ("changes", "told"), [({"name": ""}, "Name "), ({"scope-checkins:write": ""}, "What it may must be at least one.")]
)
async def test_a_refused_key_is_not_made(lifesign: Lifesign, changes: dict[str, str], told: str) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/keys")

    page = await owner.post("/keys", {"name": "jobs", "scope-checkins:write": "on"} | changes, expect=400)

    assert told in said(page)
    assert len((await lifesign.ask("GET", "/v1/keys"))["keys"]) == 1


async def test_revoking_asks_for_the_name_and_counts_at_once(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    token = await made_key(owner)
    [key] = [each for each in (await lifesign.ask("GET", "/v1/keys"))["keys"] if each["name"] == "jobs"]
    async with lifesign.client(token) as job:
        assert (await job.get("/v1/whoami")).status_code == 200

        await owner.post(f"/keys/{key['id']}/revoke", {"name": "job"}, expect=400)
        assert (await job.get("/v1/whoami")).status_code == 200
        await owner.post(f"/keys/{key['id']}/revoke", {"name": "jobs"})

        assert (await job.get("/v1/whoami")).status_code == 401
    await owner.post(f"/keys/{key['id']}/revoke", {"name": "jobs"}, expect=404)


async def test_editors_see_keys_and_make_none(lifesign: Lifesign) -> None:
    editor = await signed_up(lifesign, "eve@example.org", "editor")

    page = await editor.get("/keys")

    assert "New key" not in page
    assert "Revoke" not in page
    await editor.post("/keys", {"name": "mine", "scope-*": "on"}, expect=403)
