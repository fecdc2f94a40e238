"""What the SQL of people does, on both databases."""

from tests.bots.asking_runs import scheduled, triggered, worked
from tests.conftest import database_url
from tests.harness import Lifesign, MakeLifesign
from tests.peers.openid import openid_peer
from tests.web.browser import OWNER, browser, said, signed_up
from tests.web.test_oidc import registered

__all__ = ["database_url"]

# 2026-01-05T12:00:00Z
_NOW_S = 1_767_614_400


async def test_people_sign_in_are_slowed_down_switch_projects_and_sign_out(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    for _ in range(5):
        await browser(lifesign).sign_in(password="a wrong password", expect=400)
    await browser(lifesign).sign_in(expect=429)
    await lifesign.advance(30)
    await browser(lifesign).sign_in()
    await signed_up(lifesign, OWNER, "viewer")

    account = said(await owner.get("/account"))

    assert account.count("Sign out") >= 2
    assert "default viewer, shown now" in account
    await owner.post("/signout")
    await owner.get("/account", expect=303)


async def test_people_sign_in_at_a_provider(start_lifesign: MakeLifesign) -> None:
    with openid_peer(_NOW_S) as peer:
        async with start_lifesign(**registered(peer), oidc_domains="example.org") as lifesign:
            owner = await signed_up(lifesign)
            for subject, status in (("1", 303), ("2", 403), ("1", 303)):
                peer.subject, peer.email = subject, "grace@example.org"
                opened = browser(lifesign)
                await opened.get("/signin/oidc", expect=303)
                back = peer.authorize(opened.last.headers["location"])
                await opened.get(back, expect=status)
                opened.http.cookies.update(opened.seen[0].cookies)
                await opened.get(back, expect=400)
            await lifesign.advance(601)
            await owner.get("/account")

            assert said(await owner.get("/audit")).count("user:grace@example.org page GET /signin/oidc/callback") == 2


async def test_the_overview_filters_and_sorts(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Silent", interval=60, grace=0, namespace="prod", tags=["db"])
    await lifesign.heartbeat("Alive", interval=3600)
    await lifesign.advance(61)

    for query in ("", "?state=firing", "?namespace=prod", "?tag=db", "?q=sil", "?sort=-due", "?kind=heartbeat"):
        assert "Silent" in said(await owner.get(f"/{query}"))
    assert "Silent" not in said(await owner.get("/?kind=system"))
    planned = await scheduled(lifesign, prompt="Sum up the news")
    await triggered(lifesign, planned)
    await worked(lifesign)
    for query in ("", "?kind=schedule", "?q=news", "?state=alive"):
        assert "alive Night watch: Sum up the news schedule" in said(await owner.get(f"/{query}"))
    for sort in ("name", "namespace", "seen", "due", "-state"):
        assert "Alive" in said(await owner.get(f"/?sort={sort}"))


async def test_pages_of_policies_channels_and_systems(lifesign: Lifesign, closed_port: int) -> None:
    hook = await lifesign.webhook(f"http://127.0.0.1:{closed_port}/x")
    policy = await lifesign.policy({"channels": [hook["id"]]})
    made = await lifesign.heartbeat("Silent", policy=policy["id"], channels=[hook["id"]])
    system = (await lifesign.ask("POST", "/api/systems", {"name": "db1"}, expect=201))["data"]
    await lifesign.check_in(made["id"], healthy=False)
    await lifesign.advance(25 * 3600)
    owner = await signed_up(lifesign)

    assert "Standard at once hook 1" in said(await owner.get("/policies"))
    assert "Used by Silent" in said(await owner.get(f"/policies/{policy['id']}"))
    assert "failing hook Webhook" in (listed := said(await owner.get("/channels")))
    assert "0 % of 2" in listed
    assert "Standard policy Silent heartbeat" in said(await owner.get(f"/channels/{hook['id']}"))
    assert "never seen db1" in said(await owner.get("/systems?q=db"))
    assert "never seen" in said(await owner.get(f"/systems/{system['id']}"))
    for path in (f"/policies/{policy['id']}", f"/channels/{hook['id']}"):
        await owner.get(path)
        await owner.post(f"{path}/delete", {"name": "Standard" if "policies" in path else "hook"})


async def test_pages_of_bots(lifesign: Lifesign) -> None:
    made = await scheduled(lifesign, interval_minutes=60, credit_budget=5)
    await triggered(lifesign, made)
    done = await worked(lifesign, response="All quiet.")
    await triggered(lifesign, made)
    owner = await signed_up(lifesign)

    listed = said(await owner.get("/bots"))
    assert "on Night watch m pull 1 of 1" in listed
    assert "24, 00:00 to 23:00" in listed
    page = said(await owner.get(f"/bots/{made['bot_id']}?schedule={made['uuid']}&status=success"))
    assert "0 of 5 credits spent" in page
    assert "Going on" in page
    assert "All quiet." in said(await owner.get(f"/runs/{done['uuid']}"))
