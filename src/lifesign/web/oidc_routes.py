"""HTTP of signing in by OpenID Connect: the way to the provider, and the way back."""

import secrets

import structlog
from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lifesign.http.context import base_url, context_of, header_of
from lifesign.web import access, oidc, rules, service
from lifesign.web.oidc import Attempt, Identity, SignInFailed
from lifesign.web.pages import HEADERS
from lifesign.web.service import Newcomers
from lifesign.web.signing import SignOn, sign_in_page, sign_on_of

log = structlog.get_logger("lifesign.web")

router = APIRouter(include_in_schema=False)

_COOKIE = "lifesign_oidc"
_PATH = "/signin/oidc"
_SEE_OTHER = 303
_MAX_ANSWER = 4096


@router.get(_PATH)
async def begin(request: Request) -> Response:
    """Go to the provider, to come back signed in."""
    sign_on = _sign_on(request)
    now = context_of(request).now()
    place = rules.safe_place(request.query_params.get("next", "/"))
    cookie, attempt = sign_on.attempts.begin(secrets.token_urlsafe(32), place, now)
    try:
        there = await sign_on.provider.place(attempt, _way_back(request), now)
    except SignInFailed as error:
        return await _failed(request, error, place)
    response = RedirectResponse(there, _SEE_OTHER, headers=HEADERS)
    response.set_cookie(
        _COOKIE,
        cookie,
        max_age=oidc.ATTEMPT_MS // 1000,
        path=_PATH,
        httponly=True,
        # Not strict: the way back begins on the provider's page.
        samesite="lax",
        secure=access.is_secure(request),
    )
    return response


@router.get(f"{_PATH}/callback")
async def come_back(request: Request) -> Response:
    """Be signed in as whom the provider says, and go on where one was."""
    sign_on, place = _sign_on(request), "/"
    try:
        attempt = await _taken_up(request, sign_on)
        place = attempt.place
        identity = await _told(request, sign_on, attempt)
        session = await _signed_in(request, sign_on, identity)
    except SignInFailed as error:
        return await _failed(request, error, place)
    response = RedirectResponse(place, _SEE_OTHER, headers=HEADERS)
    response.delete_cookie(_COOKIE, path=_PATH, httponly=True, samesite="lax", secure=access.is_secure(request))
    access.keep_signed_in(request, response, session)
    return response


def _sign_on(request: Request) -> SignOn:
    found = sign_on_of(request)
    if found is None:
        raise HTTPException(404)
    return found


def _way_back(request: Request) -> str:
    return f"{base_url(request)}{_PATH}/callback"


async def _taken_up(request: Request, sign_on: SignOn) -> Attempt:
    """The attempt that this browser began, and nobody finished yet. Raises SignInFailed."""
    context = context_of(request)
    state = _answer(request, "state")
    attempt = sign_on.attempts.resume(request.cookies.get(_COOKIE, ""), state, context.now())
    # Before the code is looked at: of two requests with the same state one gets no further.
    await context.db.write(service.spend_state, state, context.now())
    return attempt


async def _told(request: Request, sign_on: SignOn, attempt: Attempt) -> Identity:
    sign_on.provider.check_issuer(request.query_params.get("iss"))
    error, code = _answer(request, "error"), _answer(request, "code")
    if error == "access_denied":
        raise oidc.denied(sign_on.name, error)
    if error in {"server_error", "temporarily_unavailable"}:
        raise oidc.away(sign_on.name, error)
    if error or not code:
        raise oidc.odd(sign_on.name, "it sent you back without a code")
    return await sign_on.provider.identity(code, attempt, _way_back(request), context_of(request).now())


async def _signed_in(request: Request, sign_on: SignOn, identity: Identity) -> str:
    context = context_of(request)
    if not oidc.is_let_in(identity.email, sign_on.domains):
        raise oidc.elsewhere(identity.email)
    browser = (header_of(request, b"user-agent") or b"").decode("latin-1").replace("\x00", "")
    user_id, session = await context.db.write(
        service.sign_in_by_identity,
        sign_on.issuer,
        identity,
        newcomers=Newcomers(are_welcome=bool(sign_on.domains), role=context.settings.oidc_role),
        browser=browser,
        path=request.url.path,
        now=context.now(),
    )
    log.info("sign_in.accepted", user_id=user_id, way="oidc")
    return session


async def _failed(request: Request, error: SignInFailed, place: str) -> Response:
    log.warning("oidc.failed", kind=error.kind, why=error.why)
    response = await sign_in_page(request, email="", place=place, fault=str(error), status=error.status)
    response.delete_cookie(_COOKIE, path=_PATH, httponly=True, samesite="lax", secure=access.is_secure(request))
    return response


def _answer(request: Request, name: str) -> str:
    return request.query_params.get(name, "")[:_MAX_ANSWER]
