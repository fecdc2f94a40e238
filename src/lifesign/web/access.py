"""Who asks for a page, and whether a form is one of ours."""

from dataclasses import dataclass
from typing import cast
from urllib.parse import parse_qs, quote, urlsplit

from sqlalchemy import Connection
from starlette.requests import Request
from starlette.responses import Response

from lifesign import schedule
from lifesign.audit import service as audit
from lifesign.audit.rules import Actor
from lifesign.clock import EpochMs
from lifesign.faults import invalid
from lifesign.http.body import read_body
from lifesign.http.context import base_url, context_of, header_of
from lifesign.web import rules, service
from lifesign.web.banner import Banner, banner_of
from lifesign.web.passwords import Passwords
from lifesign.web.rules import FormForged, NotSignedIn, Person, RoleRefused

COOKIE = "lifesign_session"
THEME_COOKIE = "lifesign_theme"
THEMES = ("dark", "light")
ZONE_COOKIE = "lifesign_zone"
_KEPT_S = 365 * 86_400
_FORM_BYTES = 65_536
_FIELDS = 1000
_OURS = {b"same-origin", b"none"}


@dataclass(frozen=True, slots=True)
class Form:
    """Fields of a form, each at most once; without NUL, which no database takes."""

    fields: dict[str, str]

    def get(self, name: str) -> str:
        """The field, blanks around it removed; empty when it is missing."""
        return self.raw(name).strip()

    def raw(self, name: str) -> str:
        """The field as it was typed."""
        return self.fields.get(name, "")


async def person_of(request: Request) -> Person:
    """Who is signed in. Raises NotSignedIn, NoProject."""
    token = request.cookies.get(COOKIE)
    context = context_of(request)
    found, banner = await context.db.read(_person, token, context.now()) if token else (None, Banner())
    if found is None:
        query = f"?{request.url.query}" if request.url.query else ""
        raise NotSignedIn(f"{request.url.path}{query}" if request.method == "GET" else "/")
    audit.name(Actor(found.shown.project_id, found.user_id, found.actor), "page")
    request.state.banner = banner
    return found


def _person(conn: Connection, token: str, now: EpochMs) -> tuple[Person | None, Banner]:
    found = service.person(conn, token, now)
    return found, Banner() if found is None else banner_of(conn, found.shown.project_id, now)


def banner_for(request: Request) -> Banner:
    """What the page that answers this request says first."""
    found: Banner = getattr(request.state, "banner", Banner())
    return found


async def form_of(request: Request) -> Form:
    """The form that was sent, by a page of this server. Raises FormForged, InvalidInput, BodyTooLarge."""
    if not _is_from_here(request):
        raise FormForged
    raw = await read_body(request, _FORM_BYTES)
    try:
        parsed = parse_qs(raw.decode(), keep_blank_values=True, max_num_fields=_FIELDS, errors="strict")
    except ValueError as error:
        raise invalid("form", "must be URL-encoded fields in UTF-8, at most 1000") from error
    return Form({name: values[0].replace("\x00", "").replace("\r\n", "\n") for name, values in parsed.items()})


async def persons_form(request: Request) -> tuple[Person, Form]:
    """A form of a page that is for people who are signed in. Raises NotSignedIn, FormForged."""
    person = await person_of(request)
    form = await form_of(request)
    if not rules.is_same(form.raw("csrf"), person.csrf):
        raise FormForged
    return person, form


async def changing_form(request: Request) -> tuple[Person, Form]:
    """A form of somebody who may do more than look. Raises as `persons_form`; RoleRefused."""
    person, form = await persons_form(request)
    if not person.may_change:
        raise RoleRefused(person.shown.role)
    return person, form


async def form_for(request: Request, scope: str) -> tuple[Person, Form]:
    """A form of somebody who may do what `scope` allows. Raises as `persons_form`; RoleRefused."""
    person, form = await changing_form(request)
    if not person.caller.allows(scope):
        raise RoleRefused(person.shown.role)
    return person, form


async def person_for(request: Request, scope: str) -> Person:
    """Who is signed in and may do what `scope` allows. Raises NotSignedIn, NoProject, RoleRefused."""
    person = await person_of(request)
    if not person.caller.allows(scope):
        raise RoleRefused(person.shown.role)
    return person


def _is_from_here(request: Request) -> bool:
    """Whether a form was sent by a page of this server, as far as the browser says so."""
    site = header_of(request, b"sec-fetch-site")
    if site is not None:
        return site in _OURS
    origin = header_of(request, b"origin")
    if origin is None:
        return True
    host = urlsplit(origin.decode("latin-1")).netloc
    asked = (header_of(request, b"host") or b"").decode("latin-1")
    return host in {asked, urlsplit(base_url(request)).netloc}


def theme_of(request: Request) -> str:
    """The colours that were pinned; empty: those of the system."""
    theme = request.cookies.get(THEME_COOKIE, "")
    return theme if theme in THEMES else ""


def zone_of(request: Request) -> str:
    """The time zone that was chosen for the pages; empty: that of the browser, or UTC where there is no script."""
    zone = request.cookies.get(ZONE_COOKIE, "")
    return zone if schedule.is_timezone(zone) else ""


def keep(request: Request, response: Response, cookie: str, value: str) -> None:
    """Let this browser remember what somebody chose for its pages; empty: nothing."""
    if not value:
        response.delete_cookie(cookie)
        return
    response.set_cookie(cookie, value, max_age=_KEPT_S, httponly=True, samesite="lax", secure=is_secure(request))


def sign_in_place(place: str) -> str:
    """Where to sign in, to go on at `place` afterwards."""
    return "/signin" if place == "/" else f"/signin?next={quote(place)}"


def is_secure(request: Request) -> bool:
    """Whether people reach this server over TLS, here or at a proxy before it."""
    return base_url(request).startswith("https://")


def keep_signed_in(request: Request, response: Response, token: str) -> None:
    """Give the browser the cookie of a session."""
    response.set_cookie(
        COOKIE, token, max_age=rules.SESSION_MS // 1000, httponly=True, samesite="lax", secure=is_secure(request)
    )


def forget_signed_in(request: Request, response: Response) -> None:
    """Take the cookie back."""
    response.delete_cookie(COOKIE, httponly=True, samesite="lax", secure=is_secure(request))


def passwords_of(request: Request) -> Passwords:
    """What knows about passwords on this node."""
    return cast("Passwords", request.app.state.passwords)
