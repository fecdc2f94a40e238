"""Systems on pages: credentials shown once, what lives, and what changed."""

import base64
import re

import pytest

from tests.harness import Lifesign
from tests.web.browser import Browser, said, signed_up

_FORM = {"name": "db1", "type": "server", "fqdn": "db1.example.org", "tags": "prod db", "interval": "1m", "notes": ""}


async def report(lifesign: Lifesign, system_id: str, secret: str, *, expect: int = 200) -> None:
    basic = base64.b64encode(f"{system_id}:{secret}".encode()).decode()
    answer = await lifesign.http.post(
        "/api/systems/heartbeat", json={"system_id": system_id}, headers={"Authorization": f"Basic {basic}"}
    )
    assert answer.status_code == expect


async def registered(lifesign: Lifesign, owner: Browser) -> tuple[str, str]:
    """Id and secret of a system that was registered on the page."""
    await owner.get("/systems/new")
    page = await owner.post("/systems/new", _FORM, expect=200)
    secret = re.search(r"lss_[0-9a-f]{64}", page)
    assert secret is not None
    [made] = (await lifesign.ask("GET", "/api/systems"))["data"]["systems"]
    return made["id"], secret[0]


async def test_a_machine_is_registered_and_its_secret_works_and_is_shown_once(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    assert "lifesign systems create web1" in said(await owner.get("/systems"))

    system_id, secret = await registered(lifesign, owner)
    page = await owner.get(f"/systems/{system_id}")

    assert "no-store" in owner.last.headers["cache-control"]
    assert secret not in page
    assert "never: nobody waits for it yet" in page
    assert f"LIFESIGN_SYSTEM_ID={system_id}" in page
    assert "ExecStart=/usr/bin/env lifesign agent" in page
    await report(lifesign, system_id, secret)
    assert "db1 alive" in said(await owner.get(f"/systems/{system_id}"))


async def test_totals_and_rows_say_who_lives(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    system_id, secret = await registered(lifesign, owner)
    assert "all 1 alive 0 dead 0 never seen 1 suspended" in _tiles(await owner.get("/systems"))
    await report(lifesign, system_id, secret)
    await lifesign.advance(91)

    assert "all 1 alive 0 dead 1 never seen 0 suspended" in _tiles(await owner.get("/systems"))
    assert "db1" in await owner.get("/systems?state=dead")
    assert "Nothing matches" in await owner.get("/systems?state=alive")
    assert "db1.example.org" in await owner.get("/systems?q=EXAMPLE")
    assert "Nothing matches" in await owner.get("/systems?q=web")


def _tiles(page: str) -> str:
    found = re.findall(r'class="tile"[^>]*>\s*<b>(\d+)</b><span[^>]*>([^<]+)</span>', page)
    return " ".join(f"{label} {count}" for count, label in found)


async def test_suspending_renewing_and_deleting(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    system_id, secret = await registered(lifesign, owner)
    path = f"/systems/{system_id}"

    await owner.post(f"{path}/suspend")
    assert "db1 suspended" in said(await owner.get(path))
    below = (await lifesign.ask("GET", f"/api/systems/{system_id}"))["data"]["heartbeat_id"]
    resumed = await owner.post(f"/heartbeats/{below}/resume", expect=400, accept="text/html")
    assert f"system {system_id} is suspended" in said(resumed)
    await report(lifesign, system_id, secret, expect=401)
    await owner.post(f"{path}/reactivate")
    renewed = re.search(r"lss_[0-9a-f]{64}", await owner.post(f"{path}/secret", expect=200))
    assert renewed is not None
    await report(lifesign, system_id, secret, expect=401)
    await report(lifesign, system_id, renewed[0])
    await owner.post(f"{path}/delete", {"name": "db2"}, expect=400)
    assert await owner.post(f"{path}/delete", {"name": "db1"}) == "/systems"
    await owner.get(path, expect=404)


async def test_what_was_emptied_is_taken_away(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    system_id, _ = await registered(lifesign, owner)
    form = await owner.get(f"/systems/{system_id}/edit")
    assert 'value="1m"' in form

    await owner.post(f"/systems/{system_id}/edit", {"name": "db2"})

    after = (await lifesign.ask("GET", f"/api/systems/{system_id}"))["data"]
    assert (after["name"], after["type"], after["tags"], after["interval"]) == ("db2", "", [], None)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": ""}, "Name is required"),
        ({"interval": "5s"}, "It reports every must be a duration from 10 s to a day"),
        ({"interval": "soon"}, "It reports every must be a duration from 10 s to a day"),
        ({"tags": "a/b"}, "Tags must be at most 20"),
        ({"policy": "pol_0"}, "Policy is not there"),
    ],
)
async def test_a_refused_form_says_what_is_wrong(lifesign: Lifesign, changes: dict[str, str], told: str) -> None:
    owner = await signed_up(lifesign)
    await owner.get("/systems/new")

    page = await owner.post("/systems/new", _FORM | {"notes": "kept"} | changes, expect=400)

    assert told in said(page)
    assert ">kept</textarea>" in page
    assert (await lifesign.ask("GET", "/api/systems"))["data"]["systems"] == []


async def test_changes_of_the_inventory_are_told(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    system_id, secret = await registered(lifesign, owner)
    basic = base64.b64encode(f"{system_id}:{secret}".encode()).decode()
    for version in ("12.1", "12.2"):
        answer = await lifesign.http.post(
            "/api/systems/inventory", json={"os": {"version": version}}, headers={"Authorization": f"Basic {basic}"}
        )
        assert answer.status_code == 200

    page = said(await owner.get(f"/systems/{system_id}"))

    assert "/os/version changed" in page
    assert '"12.1" → "12.2"' in page
    assert '{ "os": { "version": "12.2" } }' in page
