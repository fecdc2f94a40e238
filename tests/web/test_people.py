"""Signing in: links, sessions, roles, what wrong passwords cost, and what is refused from elsewhere."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import quote

import httpx2
import pytest

from lifesign.app import operator_way_in
from tests.harness import Json, Lifesign, MakeLifesign
from tests.web.browser import OWNER, PASSWORD, Browser, browser, executed_by, said, signed_up

CHOSEN = {"password": PASSWORD, "again": PASSWORD}


@asynccontextmanager
async def operator(lifesign: Lifesign) -> AsyncIterator[httpx2.AsyncClient]:
    transport = httpx2.ASGITransport(operator_way_in(lifesign.node), raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


async def command(lifesign: Lifesign, path: str, body: Json, *, expect: int) -> Json:
    async with operator(lifesign) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == expect, answer.text
    made: Json = answer.json()
    return made


def setup_path(lifesign: Lifesign) -> str:
    assert lifesign.node.new_setup_token is not None
    return f"/setup/{lifesign.node.new_setup_token}"


# Links --------------------------------------------------------------------------------------------------------------
async def test_the_setup_link_makes_one_owner_and_is_used_afterwards(lifesign: Lifesign) -> None:
    path = setup_path(lifesign)
    first, second = browser(lifesign), browser(lifesign)
    assert "Make the owner's account" in said(await first.get(path))

    assert await first.post(path, {"email": " Ada@Example.org ", **CHOSEN}) == "/"

    account = said(await first.get("/account"))
    assert OWNER in account
    assert "default owner" in account
    assert "This link is used" in said(await second.get(path, expect=410))
    assert "This link is used" in said(await second.post(path, {"email": "eve@example.org", **CHOSEN}, expect=410))
    await second.sign_in("eve@example.org", expect=400)


async def test_the_setup_link_makes_nobody_once_an_operator_added_somebody(lifesign: Lifesign) -> None:
    await command(lifesign, "/admin/users", {"email": OWNER, "role": "owner"}, expect=201)

    page = await browser(lifesign).post(setup_path(lifesign), {"email": "eve@example.org", **CHOSEN}, expect=410)

    assert "This link is used" in said(page)


async def test_only_the_first_start_makes_a_setup_link(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as first:
        assert first.node.new_setup_token is not None

    async with start_lifesign() as second:
        assert second.node.new_setup_token is None


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"email": OWNER, "password": "short", "again": "short"}, "Password must have at least 12 characters"),
        ({"email": OWNER, "password": "password1234", "again": "password1234"}, "Password is too easy to guess"),
        ({"email": OWNER, "password": OWNER, "again": OWNER}, "Password is too easy to guess"),
        ({"email": OWNER, "password": PASSWORD, "again": "another one 17"}, "Password again is not the same as above"),
        ({"email": "ada", **CHOSEN}, "E-mail must be an e-mail address"),
    ],
)
async def test_a_refused_password_says_why_and_the_link_goes_on_to_work(
    lifesign: Lifesign, fields: dict[str, str], told: str
) -> None:
    opened = browser(lifesign)

    assert told in said(await opened.post(setup_path(lifesign), fields, expect=400))

    await opened.post(setup_path(lifesign), {"email": OWNER, **CHOSEN})


async def test_a_link_that_nobody_made_or_that_is_too_old_does_not_work(lifesign: Lifesign) -> None:
    made = await command(lifesign, "/admin/users", {"email": OWNER}, expect=201)
    path = "/setup/" + made["link"].rpartition("/")[2]
    assert made["link"] == f"http://127.0.0.1:8080{path}"

    await lifesign.advance(7 * 86_400)

    assert "does not work" in said(await browser(lifesign).get(path, expect=404))
    assert "does not work" in said(await browser(lifesign).get("/setup/guess", expect=404))


async def test_a_reset_signs_out_everywhere_and_lets_another_password_be_chosen(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)

    made = await command(lifesign, "/admin/users/reset", {"email": OWNER}, expect=200)
    path = "/setup/" + made["link"].rpartition("/")[2]

    await owner.get("/account", expect=303)
    other = "harbour violin cactus 9"
    await owner.post(path, {"password": other, "again": other})
    await owner.get("/account")
    await browser(lifesign).sign_in(expect=400)
    await browser(lifesign).sign_in(password=other)


async def test_an_operator_lists_people_and_adds_projects_to_those_who_are_there(lifesign: Lifesign) -> None:
    await signed_up(lifesign)
    await command(lifesign, "/admin/projects", {"name": "Lab", "tenant": "research"}, expect=201)

    again = await command(lifesign, "/admin/users", {"email": OWNER, "role": "viewer"}, expect=201)
    unknown = await command(lifesign, "/admin/users/reset", {"email": "eve@example.org"}, expect=404)
    no_address = await command(lifesign, "/admin/users", {"email": "ada"}, expect=400)
    no_role = await command(lifesign, "/admin/users", {"email": OWNER, "role": "king"}, expect=400)
    async with operator(lifesign) as client:
        listed = (await client.get("/admin/users")).json()["users"]

    assert "link" not in again
    assert [(each["email"], each["hasPassword"], each["projects"][0]["role"]) for each in listed] == [
        (OWNER, True, "viewer")
    ]
    assert unknown["error"]["message"] == "no account has the address eve@example.org"
    assert no_address["error"]["details"][0]["field"] == "email"
    assert no_role["error"]["details"][0]["field"] == "role"


# Signing in and out -------------------------------------------------------------------------------------------------
async def test_pages_send_strangers_to_the_sign_in_and_back_again(lifesign: Lifesign) -> None:
    await signed_up(lifesign)
    stranger = browser(lifesign)

    await stranger.get("/account?x=1", expect=303)
    place = stranger.last.headers["location"]
    page = await stranger.get(place)
    hidden = re.search(r'name="next" value="([^"]*)"', page)

    assert place == "/signin?next=/account%3Fx%3D1"
    assert hidden is not None
    sent = await stranger.post("/signin", {"email": OWNER, "password": PASSWORD, "next": hidden[1]})
    assert sent == "/account?x=1"


async def test_whoever_has_no_account_is_told_how_to_make_one(lifesign: Lifesign) -> None:
    assert "lifesign users add name@example.org --role owner" in said(await browser(lifesign).get("/signin"))


async def test_signing_out_ends_the_session_for_whoever_copied_the_cookie(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    thief = browser(lifesign)
    thief.http.cookies.update(owner.http.cookies)
    await thief.get("/account")

    assert await owner.post("/signout") == "/signin"

    await thief.get("/account", expect=303)
    assert "lifesign_session" not in owner.http.cookies


async def test_a_session_ends_after_thirty_days(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await lifesign.advance(30 * 86_400 - 60)
    await owner.get("/account")

    await lifesign.advance(61)

    await owner.get("/account", expect=303)


async def test_another_browser_can_be_signed_out_from_the_account(lifesign: Lifesign) -> None:
    owner, other = await signed_up(lifesign), browser(lifesign)
    await other.sign_in()
    eve = await signed_up(lifesign, "eve@example.org")
    [path] = re.findall(r'action="(/account/sessions/[^"]+)"', await owner.get("/account"))

    await eve.post(path, expect=400)
    await other.get("/account")
    await owner.post(path)

    await other.get("/account", expect=303)
    await owner.get("/account")


async def test_another_password_signs_every_other_browser_out(lifesign: Lifesign) -> None:
    owner, other = await signed_up(lifesign), browser(lifesign)
    await other.sign_in()
    new = "harbour violin cactus 9"

    wrong = await owner.post("/account/password", {"current": "not it", "password": new, "again": new}, expect=400)
    await owner.post("/account/password", {"current": PASSWORD, "password": new, "again": new})

    assert "Present password is not your password" in said(wrong)
    await owner.get("/account")
    await other.get("/account", expect=303)
    await other.sign_in(password=new)


# Wrong passwords ----------------------------------------------------------------------------------------------------
async def test_five_wrong_passwords_slow_the_account_down_for_everybody_but_not_for_good(lifesign: Lifesign) -> None:
    await signed_up(lifesign)
    attacker = browser(lifesign)
    for _ in range(5):
        assert "E-mail or password is wrong" in said(await attacker.post("/signin", _guess(), expect=400))

    page = await attacker.post("/signin", _guess(), expect=429)

    assert attacker.last.headers["retry-after"] == "30"
    assert "try again in 30 s" in said(page)
    await browser(lifesign).sign_in(expect=429)
    await lifesign.advance(30)
    await browser(lifesign).sign_in()
    await browser(lifesign).sign_in()


async def test_wrong_passwords_slow_down_where_they_come_from_whatever_the_account(lifesign: Lifesign) -> None:
    await signed_up(lifesign)
    attacker = browser(lifesign)
    for number in range(5):
        await attacker.post("/signin", _guess(f"nobody-{number}@example.org"), expect=400)

    await attacker.post("/signin", _guess("nobody-9@example.org"), expect=429)

    # httpx names one address for all; another network is one behind a proxy that is trusted.
    assert attacker.last.headers["retry-after"] == "30"


async def test_whoever_finds_a_browser_signed_in_cannot_try_passwords_there_for_long(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    form = {"current": "a wrong password", "password": "harbour violin cactus 9", "again": "harbour violin cactus 9"}
    for _ in range(5):
        assert "Present password is not your password" in said(await owner.post("/account/password", form, expect=400))

    page = await owner.post("/account/password", form | {"current": PASSWORD}, expect=429, accept="text/html")

    assert owner.last.headers["retry-after"] == "30"
    assert "try again in 30 s" in said(page)
    await lifesign.advance(30)
    assert await owner.post("/account/password", form | {"current": PASSWORD}) == "/account"


async def test_a_reset_lets_a_slowed_owner_in_at_once(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(trusted_proxies="127.0.0.1/32") as lifesign:
        await signed_up(lifesign)
        for number in range(5):
            await browser(lifesign).post("/signin", _guess(), expect=400, x_forwarded_for=f"192.0.2.{number}")
        await browser(lifesign).post("/signin", _guess(password=PASSWORD), expect=429, x_forwarded_for="192.0.2.99")

        made = await command(lifesign, "/admin/users/reset", {"email": OWNER}, expect=200)
        await browser(lifesign).post("/setup/" + made["link"].rpartition("/")[2], CHOSEN)

        await browser(lifesign).post("/signin", _guess(password=PASSWORD), x_forwarded_for="192.0.2.99")


async def test_right_passwords_are_not_counted(lifesign: Lifesign) -> None:
    await signed_up(lifesign)

    for _ in range(7):
        await browser(lifesign).sign_in()


def _guess(email: str = OWNER, password: str = "a wrong password") -> dict[str, str]:
    return {"email": email, "password": password}


# What is refused ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/signout", "/account/password", "/account/project", "/account/sessions/x/end"])
async def test_a_form_without_the_token_of_the_session_changes_nothing(lifesign: Lifesign, path: str) -> None:
    owner, eve = await signed_up(lifesign), await signed_up(lifesign, "eve@example.org")

    for token in ("", "0" * 64, eve.csrf):
        await owner.post(path, {"csrf": token}, expect=403)

    await owner.get("/account")


@pytest.mark.parametrize(
    "headers", [{"origin": "https://evil.example"}, {"origin": "null"}, {"sec_fetch_site": "cross-site"}]
)
async def test_forms_of_other_sites_are_refused_even_with_a_token(lifesign: Lifesign, headers: dict[str, str]) -> None:
    owner = await signed_up(lifesign)

    await owner.post("/signout", {}, expect=403, **headers)
    await browser(lifesign).post("/signin", _guess(password=PASSWORD), expect=403, **headers)

    await owner.get("/account")
    await owner.post("/signout", origin="http://lifesign.test")


async def test_the_cookie_is_out_of_reach_of_scripts_and_secure_where_the_address_is(
    start_lifesign: MakeLifesign,
) -> None:
    async with start_lifesign() as plain:
        opened = browser(plain)
        await opened.post(setup_path(plain), {"email": OWNER, **CHOSEN})
        cookie = opened.last.headers["set-cookie"]
    async with start_lifesign(public_url="https://lifesign.test") as secure:
        opened = browser(secure)
        await opened.post("/signin", _guess(password=PASSWORD))
        secure_cookie = opened.last.headers["set-cookie"]

    assert "; HttpOnly;" in cookie
    assert "; SameSite=lax" in cookie
    assert "Max-Age=2592000;" in cookie
    assert "Secure" not in cookie
    assert "; Secure" in secure_cookie


# Projects -----------------------------------------------------------------------------------------------------------
async def test_pages_show_the_project_that_was_switched_to_and_no_other(lifesign: Lifesign) -> None:
    made = await command(lifesign, "/admin/projects", {"name": "Lab", "tenant": "research"}, expect=201)
    owner = await signed_up(lifesign)
    await owner.post("/account/project", {"project": made["id"]}, expect=403)
    assert 'action="/account/project"' not in await owner.get("/")
    await signed_up(lifesign, OWNER, "viewer", made["id"])
    header = (await owner.get("/")).partition("</header>")[0]
    switcher = header.partition('<form method="post" action="/account/project">')[2].partition("</form>")[0]
    assert said(switcher) == "Project default Lab Switch"

    await owner.post("/account/project", {"project": made["id"]})

    assert "Lab viewer, shown now" in said(await owner.get("/account"))
    assert f'value="{made["id"]}" selected' in await owner.get("/")


async def test_whoever_belongs_to_no_project_any_more_is_told_so(lifesign: Lifesign) -> None:
    made = await command(lifesign, "/admin/projects", {"name": "Lab", "tenant": "research"}, expect=201)
    guest = await signed_up(lifesign, "eve@example.org", "viewer", made["id"])
    async with operator(lifesign) as client:
        await client.delete(f"/admin/projects/{made['id']}")

    page = await guest.get("/account", expect=403, accept="text/html")

    assert "You belong to no project" in said(page)


# Pages --------------------------------------------------------------------------------------------------------------
async def test_every_page_forbids_scripts_from_elsewhere_and_inline(lifesign: Lifesign) -> None:
    owner: Browser = await signed_up(lifesign)

    for path in ("/account", "/signin", "/setup/guess", "/nowhere"):
        page = (await owner.http.get(path)).text
        policy = (await owner.http.get(path)).headers["content-security-policy"]
        assert policy.startswith("default-src 'self'; ")
        assert "unsafe" not in policy
        assert executed_by(page) == []


async def test_an_unclaimed_path_is_told_by_a_page(lifesign: Lifesign) -> None:
    opened = browser(lifesign)

    page = await opened.get("/nowhere/<script>alert(1)</script>", expect=404)

    assert opened.last.headers["content-type"] == "text/html; charset=utf-8"
    assert "Nothing here" in said(page)
    assert opened.last.headers["x-request-id"] in page
    assert "<script>" not in page


async def test_the_files_of_a_page_are_there_and_may_be_kept(lifesign: Lifesign) -> None:
    opened = browser(lifesign)
    page = await opened.get("/signin")
    files = re.findall(r'(?:href|src)="(/static/[^"]+)"', page)

    assert len(files) == 3
    sizes = 0
    for path in files:
        await opened.get(path)
        assert "immutable" in opened.last.headers["cache-control"]
        sizes += len(opened.last.content)
    assert sizes < 150_000
    await opened.get("/static/x/secrets.txt", expect=404)


async def test_colours_can_be_pinned(lifesign: Lifesign) -> None:
    opened = browser(lifesign)

    assert await opened.post("/theme", {"theme": "dark", "next": "/signin"}) == "/signin"
    assert '<html lang="en" data-theme="dark"' in await opened.get("/signin")

    await opened.post("/theme", {"theme": "", "next": "/signin"})
    assert "data-theme" not in await opened.get("/signin")


async def test_times_are_told_in_the_zone_that_was_chosen(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    made = await lifesign.heartbeat("Job")
    path = f"/heartbeats/{made['id']}"
    await lifesign.check_in("job")
    assert 'title="Mon 2026-01-05 12:00:00 UTC">2026-01-05 12:00 UTC</time>' in await owner.get(path)

    assert await owner.post("/zone", {"zone": "Asia/Kolkata", "next": path}) == path
    page = await owner.get(path)

    assert 'title="Mon 2026-01-05 17:30:00 IST">2026-01-05 17:30 IST</time>' in page
    assert ' data-zone="Asia/Kolkata"' in page
    assert 'name="zone" value="Asia/Kolkata"' in page
    await owner.post("/zone", {"zone": "", "next": path})
    assert "12:00 UTC" in await owner.get(path)
    assert "data-zone=" not in await owner.get(path)


@pytest.mark.parametrize("zone", ["Mars/Olympus", "<script>", "../../etc/passwd", "europe/berlin"])
async def test_a_zone_that_nobody_knows_is_refused_and_ignored_in_a_cookie(lifesign: Lifesign, zone: str) -> None:
    opened = browser(lifesign)

    page = await opened.post("/zone", {"zone": zone}, expect=400, accept="text/html")
    assert "Time zone is none that is known" in said(page)

    opened.http.cookies.set("lifesign_zone", quote(zone, safe=""))
    assert "data-zone=" not in await opened.get("/signin")
