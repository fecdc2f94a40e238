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
