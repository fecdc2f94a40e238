"""HTTP of people: the setup link, signing in and out, one's account, and the files that every page needs."""

import structlog
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lifesign import schedule
from lifesign.audit import service as audit
from lifesign.faults import invalid
from lifesign.http.context import context_of, header_of
from lifesign.http.peer import network_of
from lifesign.web import access, rules, service
from lifesign.web.access import Form, form_of, passwords_of, person_of, persons_form
from lifesign.web.pages import HEADERS, STATIC, page
from lifesign.web.rules import LinkUnknown, LinkUsed, TooManyPasswords
from lifesign.web.service import Invitation
from lifesign.web.signing import sign_in_page

log = structlog.get_logger("lifesign.web")

router = APIRouter(include_in_schema=False)

_SEE_OTHER = 303
_FOREVER = "public, max-age=31536000, immutable"


def to(place: str) -> RedirectResponse:
    """Go on at `place`, by GET."""
    return RedirectResponse(place, _SEE_OTHER, headers=HEADERS)


@router.get("/static/{digest}/{name}")
async def static_file(digest: str, name: str) -> Response:  # noqa: ARG001 - the digest makes the address another one
    """The style sheet and the script; their address changes when they do."""
    if name not in STATIC:
        raise HTTPException(404)
    content, media_type = STATIC[name]
    headers = {"Cache-Control": _FOREVER, "X-Content-Type-Options": "nosniff"}
    return Response(content, headers=headers, media_type=media_type)


# Links --------------------------------------------------------------------------------------------------------------
@router.get("/setup/{token}")
async def show_setup(request: Request, token: str) -> Response:
    """The form in which a password is chosen, as long as the link works."""
    context = context_of(request)
    try:
        invited = await context.db.read(service.invitation, token, context.now())
    except (LinkUnknown, LinkUsed) as error:
        return _dead_link(request, error)
    return _setup_page(request, invited, {}, "")


@router.post("/setup/{token}")
async def accept_setup(request: Request, token: str) -> Response:
    """Choose a password; the link is used up, and one is signed in."""
    form = await form_of(request)
    context = context_of(request)
    try:
        invited = await context.db.read(service.invitation, token, context.now())
        email = invited.user.email if invited.user else rules.checked_email(form.raw("email"))
        faults = await _password_faults(request, form, email or "")
        if email is None:
            faults["email"] = "must be an e-mail address, such as name@example.org"
        if faults:
            return _setup_page(request, invited, faults, form.get("email"))
        password_hash = await passwords_of(request).hashed(form.raw("password"))
        session = await context.db.write(
            service.accept,
            token,
            email=email,
            password_hash=password_hash,
            browser=_browser(request),
            now=context.now(),
        )
    except (LinkUnknown, LinkUsed) as error:
        return _dead_link(request, error)
    log.info("password.chosen", way="owner" if invited.user is None else "link")
    response = to("/")
    access.keep_signed_in(request, response, session)
    return response


def _setup_page(request: Request, invited: Invitation, faults: dict[str, str], email: str) -> Response:
    return page(
        request,
        "setup",
        None,
        400 if faults else 200,
        user=invited.user,
        email=email,
        faults=faults,
        min_password=rules.MIN_PASSWORD,
        max_password=rules.MAX_PASSWORD,
    )


def _dead_link(request: Request, error: LinkUnknown | LinkUsed) -> Response:
    is_used = isinstance(error, LinkUsed)
    return page(request, "deadlink", None, 410 if is_used else 404, is_used=is_used)


async def _password_faults(request: Request, form: Form, email: str) -> dict[str, str]:
    password = form.raw("password")
    fault = await passwords_of(request).fault(password, email)
    if fault is not None:
        return {"password": fault}
    return {} if form.raw("again") == password else {"again": "is not the same as above"}


# Signing in and out -------------------------------------------------------------------------------------------------
@router.get("/signin")
async def show_sign_in(request: Request) -> Response:
    """The form in which one signs in."""
    return await sign_in_page(request, email="", place=rules.safe_place(request.query_params.get("next", "/")))


@router.post("/signin")
async def sign_in(request: Request) -> Response:
    """Sign in; too many wrong passwords make the next one wait."""
    form = await form_of(request)
    context = context_of(request)
    place, typed, network = rules.safe_place(form.get("next") or "/"), form.get("email"), network_of(request)
    password = form.raw("password")[: rules.MAX_PASSWORD]
    try:
        user = await context.db.write(service.begin_sign_in, typed.casefold(), network, context.now())
    except TooManyPasswords as error:
        log.warning("sign_in.slowed", retry_after_s=error.retry_after_s)
        refused = await sign_in_page(request, email=typed, place=place, fault=str(error), status=429)
        refused.headers["Retry-After"] = str(error.retry_after_s)
        return refused
    is_right = await passwords_of(request).is_it(None if user is None else user.password_hash, password)
    if user is None or not is_right:
        log.info("sign_in.refused", user_id=user and user.id)
        return await sign_in_page(request, email=typed, place=place, fault="E-mail or password is wrong", status=400)
    session = await context.db.write(service.finish_sign_in, user, network, _browser(request), context.now())
    log.info("sign_in.accepted", user_id=user.id, way="password")
    response = to(place)
    access.keep_signed_in(request, response, session)
    return response


@router.post("/signout")
async def sign_out(request: Request) -> Response:
    """End this session."""
    await persons_form(request)
    context = context_of(request)
    await context.db.write(service.sign_out, request.cookies[access.COOKIE], context.now())
    response = to("/signin")
    access.forget_signed_in(request, response)
    return response


# The account --------------------------------------------------------------------------------------------------------
@router.get("/account")
async def show_account(request: Request) -> Response:
    """Where one is signed in, and a form for another password."""
    return await _account_page(request, {})


@router.post("/account/password")
async def change_password(request: Request) -> Response:
    """Choose another password; everywhere else one is signed out."""
    person, form = await persons_form(request)
    context = context_of(request)
    kept = await context.db.read(service.password_hash_of, person)
    faults = {}
    network = network_of(request)
    # Counted like a sign-in: whoever finds a browser signed in must not find out the password by trying.
    with audit.unnoted():
        await context.db.write(service.begin_sign_in, person.email, network, context.now())
    if not await passwords_of(request).is_it(kept, form.raw("current")[: rules.MAX_PASSWORD]):
        faults["current"] = "is not your password"
    else:
        with audit.unnoted():
            await context.db.write(service.count_no_failure, person.email, network)
        faults = await _password_faults(request, form, person.email)
    if faults:
        return await _account_page(request, faults)
    password_hash = await passwords_of(request).hashed(form.raw("password"))
    await context.db.write(service.change_password, person, password_hash)
    log.info("password.chosen", way="account")
    return to("/account")


@router.post("/account/sessions/{session_id}/end")
async def end_session(request: Request, session_id: str) -> Response:
    """Sign another browser out."""
    person, _ = await persons_form(request)
    await context_of(request).db.write(service.end_session, person, session_id)
    return to("/account")


async def _account_page(request: Request, faults: dict[str, str]) -> Response:
    person = await person_of(request)
    context = context_of(request)
    sessions = await context.db.read(service.sessions_of, person.user_id, context.now())
    kept = await context.db.read(service.password_hash_of, person)
    return page(
        request,
        "account",
        person,
        400 if faults else 200,
        sessions=sessions,
        has_password=kept is not None,
        faults=faults,
        min_password=rules.MIN_PASSWORD,
        max_password=rules.MAX_PASSWORD,
    )


@router.post("/account/project")
async def show_project(request: Request) -> Response:
    """Let the pages show another project."""
    person, form = await persons_form(request)
    await context_of(request).db.write(service.show_project, person, form.get("project"))
    return to("/")


@router.post("/theme")
async def pin_theme(request: Request) -> Response:
    """Pin light or dark colours for this browser, or follow the system."""
    form = await form_of(request)
    response = to(rules.safe_place(form.get("next") or "/"))
    theme = form.get("theme")
    access.keep(request, response, access.THEME_COOKIE, theme if theme in access.THEMES else "")
    return response


@router.post("/zone")
async def choose_zone(request: Request) -> Response:
    """Tell times in another zone in this browser, or in its own."""
    form = await form_of(request)
    zone = form.get("zone")
    if zone and not schedule.is_timezone(zone):
        raise invalid("zone", "Time zone is none that is known; write it as in Europe/Berlin, or nothing")
    response = to(rules.safe_place(form.get("next") or "/"))
    access.keep(request, response, access.ZONE_COOKIE, zone)
    return response


def _browser(request: Request) -> str:
    return (header_of(request, b"user-agent") or b"").decode("latin-1").replace("\x00", "")
