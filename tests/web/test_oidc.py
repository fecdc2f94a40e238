"""Signing in by OpenID Connect, with a provider on a real socket that tells the truth, lies, or is away."""

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from pydantic import SecretStr, ValidationError

from lifesign.clock import EpochMs
from lifesign.settings import Settings
from lifesign.web.oidc import Attempts, SignInFailed, is_let_in
from tests.harness import Lifesign, MakeLifesign
from tests.peers.openid import (
    CLIENT_ID,
    CLIENT_SECRET,
    OpenIdPeer,
    another_key,
    openid_peer,
    signed,
    signed_with_what_is_public,
    unsigned,
)
from tests.web.browser import OWNER, Browser, browser, executed_by, said, signed_up
from tests.web.test_people import command

# 2026-01-05T12:00:00Z, at which nodes of tests begin.
_NOW_S = 1_767_614_400
_NOW = EpochMs(_NOW_S * 1000)
_GRACE = "grace@example.org"


@pytest.fixture
def peer() -> Iterator[OpenIdPeer]:
    with openid_peer(_NOW_S) as running:
        yield running


def registered(peer: OpenIdPeer) -> dict[str, Any]:  # Any: values of settings
    """Settings of a server that the provider knows."""
    return {
        "oidc_issuer": peer.issuer,
        "oidc_client_id": CLIENT_ID,
        "oidc_client_secret": SecretStr(CLIENT_SECRET),
    }


@pytest.fixture
def start(start_lifesign: MakeLifesign, peer: OpenIdPeer) -> MakeLifesign:
    """A node that has an owner and the provider."""

    @asynccontextmanager
    async def started(*, at: str = "2026-01-05T12:00:00.000Z", **changes: object) -> AsyncIterator[Lifesign]:
        given = registered(peer) | {"oidc_name": "Example Staff", "oidc_domains": "example.org"}
        async with start_lifesign(at=at, **(given | changes)) as lifesign:
            await signed_up(lifesign)
            yield lifesign

    return started


async def sent_there(opened: Browser, place: str = "") -> str:
    """Press the button; where the browser is sent."""
    await opened.get(f"/signin/oidc{place}", expect=303)
    return str(opened.last.headers["location"])


async def tried(lifesign: Lifesign, peer: OpenIdPeer, *, expect: int) -> str:
    """A sign-in by which somebody new comes back; what they are told."""
    opened = browser(lifesign)
    back = peer.authorize(await sent_there(opened))
    page = await opened.get(back, expect=expect)
    assert executed_by(page) == []
    assert "lifesign_session" not in opened.http.cookies
    await opened.get("/account", expect=303)
    return said(page)


# What works ---------------------------------------------------------------------------------------------------------
async def test_somebody_new_is_let_in_with_the_role_that_is_set(start: MakeLifesign, peer: OpenIdPeer) -> None:
    peer.email = "Grace@Example.org"
    async with start(oidc_role="editor") as lifesign:
        opened = browser(lifesign)
        assert 'href="/signin/oidc?next=%2Faccount">Sign in with Example Staff' in await opened.get(
            "/signin?next=/account"
        )

        back = peer.authorize(await sent_there(opened, "?next=%2Faccount"))
        await opened.get(back, expect=303)

        assert opened.last.headers["location"] == "/account"
        account = said(await opened.get("/account"))
        assert _GRACE in account
        assert "default editor, shown now" in account
        owner = await signed_up(lifesign)
        assert f"user:{_GRACE} page GET /signin/oidc/callback" in said(await owner.get("/audit"))


async def test_somebody_who_has_an_account_keeps_their_role(start: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start(oidc_role="viewer", oidc_domains="") as lifesign:
        opened = browser(lifesign)

        await opened.get(peer.authorize(await sent_there(opened)), expect=303)

        assert "default owner, shown now" in said(await opened.get("/account"))


async def test_a_subject_is_the_same_person_whatever_its_address_is_by_now(
    start: MakeLifesign, peer: OpenIdPeer
) -> None:
    async with start() as lifesign:
        first, second = browser(lifesign), browser(lifesign)
        await first.get(peer.authorize(await sent_there(first)), expect=303)

        peer.email = "ada.lovelace@example.org"
        await second.get(peer.authorize(await sent_there(second)), expect=303)

        assert OWNER in said(await second.get("/account"))


async def test_an_address_that_went_to_somebody_else_lets_nobody_in_until_an_operator_says_so(
    start: MakeLifesign, peer: OpenIdPeer
) -> None:
    async with start() as lifesign:
        opened = browser(lifesign)
        await opened.get(peer.authorize(await sent_there(opened)), expect=303)

        peer.subject = "another person"
        assert f"{OWNER} belongs to somebody else here" in await tried(lifesign, peer, expect=403)

        await command(lifesign, "/admin/users/reset", {"email": OWNER}, expect=200)
        again = browser(lifesign)
        await again.get(peer.authorize(await sent_there(again)), expect=303)


async def test_the_session_is_one_as_after_a_password(start: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start() as lifesign:
        opened = browser(lifesign)
        await opened.get(peer.authorize(await sent_there(opened)), expect=303)
        cookie = next(each for each in opened.last.headers.get_list("set-cookie") if "lifesign_session" in each)
        assert "; HttpOnly;" in cookie
        assert "Max-Age=2592000;" in cookie
        await opened.get("/account")

        await opened.post("/signout")

        await opened.get("/account", expect=303)


async def test_whoever_comes_by_the_provider_only_is_told_that_there_is_no_password(
    start: MakeLifesign, peer: OpenIdPeer
) -> None:
    peer.email = _GRACE
    async with start() as lifesign:
        opened = browser(lifesign)
        await opened.get(peer.authorize(await sent_there(opened)), expect=303)

        page = await opened.get("/account")

        assert "You have no password here" in said(page)
        assert "/account/password" not in page


async def test_an_address_that_only_the_user_info_has_is_taken_from_there(
    start: MakeLifesign, peer: OpenIdPeer
) -> None:
    peer.left_out = {"email", "email_verified"}
    peer.user_info = {"sub": peer.subject, "email": OWNER, "email_verified": True}
    async with start() as lifesign:
        opened = browser(lifesign)
        await opened.get(peer.authorize(await sent_there(opened)), expect=303)

        peer.user_info["sub"] = "somebody else"

        assert "it speaks of two people" in await tried(lifesign, peer, expect=502)


async def test_a_client_shows_itself_as_the_provider_wants(start: MakeLifesign, peer: OpenIdPeer) -> None:
    peer.described = {"token_endpoint_auth_methods_supported": ["client_secret_post"]}
    async with start() as lifesign:
        opened = browser(lifesign)
        await opened.get(peer.authorize(await sent_there(opened)), expect=303)


async def test_keys_may_change_and_the_description_is_kept(start: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start() as lifesign:
        for kid in ("first", "second"):
            peer.key = another_key(kid)
            opened = browser(lifesign)
            await opened.get(peer.authorize(await sent_there(opened)), expect=303)

    assert peer.asked.count("/.well-known/openid-configuration") == 1
    assert peer.asked.count("/keys") == 2


# Who is not let in --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("email", "domains", "told"),
    [
        ("eve@evil.example", "example.org", "eve@evil.example is of a domain that may not sign in here"),
        ("eve@sub.example.org", "example.org, example.com", "is of a domain that may not sign in here"),
        ("eve@notexample.org", "example.org", "is of a domain that may not sign in here"),
        (_GRACE, "", f"Nobody has an account with {_GRACE}"),
    ],
)
async def test_addresses_of_other_domains_and_of_strangers_are_not_let_in(
    start: MakeLifesign, peer: OpenIdPeer, email: str, domains: str, told: str
) -> None:
    peer.email = email
    async with start(oidc_domains=domains) as lifesign:
        assert told in await tried(lifesign, peer, expect=403)


@pytest.mark.parametrize("verified", [{"email_verified": False}, {"email_verified": "false"}, {"email_verified": 1}])
async def test_an_address_that_the_provider_does_not_vouch_for_is_not_believed(
    start: MakeLifesign, peer: OpenIdPeer, verified: dict[str, object]
) -> None:
    peer.claims = verified
    async with start() as lifesign:
        assert "Example Staff does not vouch for your e-mail address" in await tried(lifesign, peer, expect=403)


async def test_an_address_without_a_word_on_it_is_not_believed_either(start: MakeLifesign, peer: OpenIdPeer) -> None:
    peer.left_out = {"email_verified"}
    async with start() as lifesign:
        assert "does not vouch for your e-mail address" in await tried(lifesign, peer, expect=403)


async def test_nobody_gets_in_before_the_owner(start_lifesign: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start_lifesign(**registered(peer), oidc_domains="*", oidc_role="owner") as lifesign:
        assert "the owner's comes first" in await tried(lifesign, peer, expect=403)


async def test_a_refusal_by_the_provider_is_told_and_the_way_back_is_there(
    start: MakeLifesign, peer: OpenIdPeer
) -> None:
    async with start() as lifesign:
        opened = browser(lifesign)
        page = await opened.get(peer.deny(await sent_there(opened, "?next=/account")), expect=403)

        assert "Example Staff did not let you in" in said(page)
        assert 'href="/signin/oidc?next=%2Faccount"' in page


# Ways back that are not ours ----------------------------------------------------------------------------------------
async def test_a_way_back_can_be_taken_once(start: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start() as lifesign:
        opened, thief = browser(lifesign), browser(lifesign)
        location = await sent_there(opened)
        thief.http.cookies.update(opened.http.cookies)
        await opened.get(peer.authorize(location), expect=303)

        page = await thief.get(peer.authorize(location), expect=400)

        assert "This way back was taken already" in said(page)
        assert "lifesign_session" not in thief.http.cookies


async def test_a_way_back_belongs_to_the_browser_that_began_and_to_ten_minutes(
    start: MakeLifesign, peer: OpenIdPeer
) -> None:
    async with start() as lifesign:
        opened, victim, slow = browser(lifesign), browser(lifesign), browser(lifesign)
        back = peer.authorize(await sent_there(opened))
        await sent_there(victim)
        late = peer.authorize(await sent_there(slow))

        told = [said(await victim.get(back, expect=400)), said(await browser(lifesign).get(back, expect=400))]
        told.append(said(await browser(lifesign).get("/signin/oidc/callback", expect=400)))
        await lifesign.advance(600)
        told.append(said(await slow.get(late, expect=400)))

        assert ["This sign-in began in another browser" in each for each in told] == [True] * 4
    assert "/token" not in peer.asked


async def test_a_provider_that_is_another_one_is_not_listened_to(start: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start() as lifesign:
        opened = browser(lifesign)
        back = peer.authorize(await sent_there(opened))

        page = await opened.get(back.partition("&iss=")[0] + "&iss=https%3A%2F%2Fevil.example", expect=502)

        assert "it comes from another provider" in said(page)
    assert "/token" not in peer.asked


async def test_a_place_elsewhere_is_not_gone_on_at(start: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start() as lifesign:
        opened = browser(lifesign)
        await opened.get(peer.authorize(await sent_there(opened, "?next=//evil.example/x")), expect=303)

        assert opened.last.headers["location"] == "/"


def test_a_changed_cookie_fits_no_state() -> None:
    attempts = Attempts([b"new key", b"old key"])
    old = Attempts([b"old key"])
    cookie, attempt = attempts.begin("t" * 43, "/account", _NOW)
    before, earlier = old.begin("u" * 43, "/", _NOW)

    assert attempts.resume(cookie, attempt.state, _NOW) == attempt
    assert attempts.resume(before, earlier.state, _NOW) == earlier
    head, until, place = cookie.split(".")
    for changed in (f"{head}.{int(until) + 1}.{place}", f"{head}.{until}.{place[:-2]}AA", cookie + "A", "", "a.b.c"):
        with pytest.raises(SignInFailed):
            attempts.resume(changed, attempt.state, _NOW)
    assert len({attempt.state, attempt.nonce, attempt.verifier}) == 3


def test_a_domain_is_meant_as_a_whole() -> None:
    assert is_let_in("a@example.org", frozenset({"example.org"}))
    assert is_let_in("a@example.org", frozenset({"*"}))
    assert not is_let_in("a@example.org.evil.example", frozenset({"example.org"}))


# Hostile answers ----------------------------------------------------------------------------------------------------
_LIES: list[tuple[str, Callable[[OpenIdPeer], None], str]] = [
    ("no signature", lambda peer: setattr(peer, "sign", unsigned), "the ID token is refused: unsupported_algorithm"),
    (
        "a public secret",
        lambda peer: setattr(peer, "sign", lambda claims: signed_with_what_is_public(claims, peer.key)),
        "the ID token is refused: unsupported_algorithm",
    ),
    (
        "another key",
        lambda peer: setattr(peer, "sign", lambda claims: signed(claims, another_key("other"))),
        "the ID token is not signed by its key",
    ),
    (
        "another key by the same name",
        lambda peer: setattr(peer, "sign", lambda claims: signed(claims, another_key("first"))),
        "the ID token is not signed by its key",
    ),
    ("another issuer", lambda peer: peer.claims.update(iss="https://evil.example"), "the ID token is refused: iss"),
    ("another audience", lambda peer: peer.claims.update(aud="another client"), "the ID token is refused: aud"),
    ("another party", lambda peer: peer.claims.update(azp="another client"), "the ID token is refused: azp"),
    ("another nonce", lambda peer: peer.claims.update(nonce="of another sign-in"), "the ID token is refused: nonce"),
    ("no nonce", lambda peer: peer.left_out.add("nonce"), "the ID token is refused: nonce"),
    ("expired", lambda peer: peer.claims.update(iat=_NOW_S - 900, exp=_NOW_S - 61), "the ID token is refused: exp"),
    ("never expires", lambda peer: peer.left_out.add("exp"), "the ID token is refused: exp"),
    ("of tomorrow", lambda peer: peer.claims.update(nbf=_NOW_S + 86_400), "the ID token is refused: nbf"),
    ("no subject", lambda peer: peer.claims.update(sub=""), "the ID token is refused: sub"),
    ("another access token", lambda peer: peer.claims.update(at_hash="AAAA"), "the ID token is refused: at_hash"),
    ("no token at all", lambda peer: setattr(peer, "sign", lambda _: "nonsense"), "the ID token is refused"),
    ("no address", lambda peer: peer.claims.update(email="ada\n@example.org"), "your e-mail address is none"),
]


@pytest.mark.parametrize(("lie", "told"), [(lie, told) for _, lie, told in _LIES], ids=[name for name, *_ in _LIES])
async def test_a_token_that_is_not_as_it_should_be_lets_nobody_in(
    start: MakeLifesign, peer: OpenIdPeer, lie: Callable[[OpenIdPeer], None], told: str
) -> None:
    lie(peer)
    async with start() as lifesign:
        assert told in await tried(lifesign, peer, expect=502)


@pytest.mark.parametrize(
    ("described", "told"),
    [
        ({"issuer": "https://evil.example"}, "it calls itself by another issuer"),
        ({"token_endpoint": None}, "its token_endpoint is no https address"),
        ({"authorization_endpoint": "javascript:alert(1)"}, "its authorization_endpoint is no https address"),
    ],
)
async def test_a_description_that_is_not_as_it_should_be_sends_nobody_anywhere(
    start: MakeLifesign, peer: OpenIdPeer, described: dict[str, object], told: str
) -> None:
    peer.described = described
    async with start() as lifesign:
        assert told in said(await browser(lifesign).get("/signin/oidc", expect=502))


async def test_an_endpoint_in_the_network_of_the_operator_is_not_asked(start: MakeLifesign, peer: OpenIdPeer) -> None:
    peer.described = {"jwks_uri": f"http://localhost:{peer.port}/keys"}
    async with start(allow_private_targets=False) as lifesign:
        assert "Example Staff does not answer as it should" in await tried(lifesign, peer, expect=503)
    assert "/token" in peer.asked
    assert "/keys" not in peer.asked


# A provider that is away --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/token", "/keys"])
async def test_a_provider_that_fails_half_way_is_told(start: MakeLifesign, peer: OpenIdPeer, path: str) -> None:
    peer.statuses = {path: 503}
    async with start() as lifesign:
        assert "Example Staff does not answer as it should" in await tried(lifesign, peer, expect=503)


async def test_a_provider_that_is_away_leaves_the_password(start: MakeLifesign, peer: OpenIdPeer) -> None:
    peer.statuses = {"/.well-known/openid-configuration": 500}
    async with start() as lifesign:
        opened = browser(lifesign)

        page = await opened.get("/signin/oidc", expect=503)

        assert "Example Staff does not answer as it should" in said(page)
        await opened.sign_in()
        peer.statuses = {}
        await browser(lifesign).get("/signin/oidc", expect=503)
        assert len(peer.asked) == 1
        await lifesign.advance(5)
        await sent_there(browser(lifesign))


async def test_a_provider_where_nobody_listens_is_told(start: MakeLifesign, closed_port: int) -> None:
    async with start(oidc_issuer=f"http://127.0.0.1:{closed_port}") as lifesign:
        assert "does not answer as it should" in said(await browser(lifesign).get("/signin/oidc", expect=503))


# Settings -----------------------------------------------------------------------------------------------------------
async def test_without_a_provider_there_is_no_button_and_no_way(lifesign: Lifesign) -> None:
    await signed_up(lifesign)
    opened = browser(lifesign)

    assert "oidc" not in await opened.get("/signin")
    await opened.get("/signin/oidc", expect=404)
    await opened.get("/signin/oidc/callback?code=x&state=y", expect=404)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"oidc_issuer": "https://id.example.org"}, "LIFESIGN_OIDC_ISSUER and LIFESIGN_OIDC_CLIENT_ID go together"),
        ({"oidc_issuer": "http://id.example.org", "oidc_client_id": "x"}, "must be an https:// address"),
        ({"oidc_issuer": "https://id.example.org?x=1", "oidc_client_id": "x"}, "must be an https:// address"),
        ({"oidc_domains": "example.org, @example.com"}, "entry '@example.com' is no domain"),
        ({"oidc_role": "king"}, "oidc_role"),
    ],
)
def test_settings_that_cannot_work_are_refused_at_start(given: dict[str, str], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        Settings.model_validate(given)


async def test_what_goes_to_the_provider_holds_no_secret(start_lifesign: MakeLifesign, peer: OpenIdPeer) -> None:
    async with start_lifesign(**registered(peer), public_url="https://life.example.org") as lifesign:
        opened = browser(lifesign)
        location = await sent_there(opened)
        cookie = opened.last.headers["set-cookie"]

    asked = {name: values[0] for name, values in parse_qs(urlsplit(location).query).items()}
    assert asked["redirect_uri"] == "https://life.example.org/signin/oidc/callback"
    assert set(asked) == {
        "response_type",
        "client_id",
        "redirect_uri",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
    }
    assert "HttpOnly" in cookie
    assert "Secure" in cookie
    assert "SameSite=lax" in cookie
    assert "Path=/signin/oidc" in cookie
