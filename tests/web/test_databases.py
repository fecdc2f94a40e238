"""What the SQL of people does, on both databases."""

from tests.conftest import database_url
from tests.harness import Lifesign
from tests.web.browser import OWNER, browser, said, signed_up

__all__ = ["database_url"]


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


async def test_the_overview_filters_and_sorts(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.heartbeat("Silent", interval=60, grace=0, namespace="prod", tags=["db"])
    await lifesign.heartbeat("Alive", interval=3600)
    await lifesign.advance(61)

    for query in ("", "?state=firing", "?namespace=prod", "?tag=db", "?q=sil", "?sort=-due", "?kind=heartbeat"):
        assert "Silent" in said(await owner.get(f"/{query}"))
    assert "Silent" not in said(await owner.get("/?kind=system"))
    for sort in ("name", "namespace", "seen", "due", "-state"):
        assert "Alive" in said(await owner.get(f"/?sort={sort}"))
