"""HTTP of the dashboard: a self-service project, for whoever has its agent key, and new keys for who lost them.

Nobody needs an account here. The cookie names the key that was shown and grants what the key grants, as long as it
does; keys are sent in forms only, and stand in no address and no log.
"""

import secrets
from typing import Final, NamedTuple, cast

import structlog
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import Caller, KeyExpired, KeyRevoked, Unauthorized, WrongKeyKind
from lifesign.auth.service import KeyPair
from lifesign.clock import EpochMs
from lifesign.diagnosis import overview
from lifesign.http.context import base_url, context_of
from lifesign.http.peer import network_of
from lifesign.projects import recovery
from lifesign.projects import service as projects
from lifesign.projects.rules import (
    NotSandbox,
    ProjectNotFound,
    RateLimited,
    RecoveryFieldsRequired,
    WrongRecoveryCode,
    retry_after_s,
)
from lifesign.projects.service import Project
from lifesign.telemetry import asked
from lifesign.web import rules
from lifesign.web.access import Form, form_of, is_secure
from lifesign.web.diagnosis_routes import LOOKS, SEVERITIES
from lifesign.web.pages import page
from lifesign.web.routes import to
from lifesign.web.rules import FormForged
from lifesign.web.telemetry_routes import (
    OUTCOMES,
    WINDOWS,
    Ways,
    line_of,
    pace_chart,
    session_page,
    trace_page,
    used,
)
from lifesign.web.visits import VISIT_MS, Visit, VisitSigner

log = structlog.get_logger("lifesign.web")

router = APIRouter(include_in_schema=False)

PLACE: Final = "/dashboard"
COOKIE: Final = "lifesign_dashboard"
FORM_COOKIE: Final = "lifesign_dashboard_form"
WAYS: Final = Ways(PLACE, f"{PLACE}/sessions", f"{PLACE}/traces")
_DAY: Final = WINDOWS[1]
_LONGEST: Final = 200
_OVER: Final = "Your visit is over, or your key is no longer good: sign in again"


class Visitor(NamedTuple):
    """Whoever has shown a key, and what their cookie says."""

    caller: Caller
    token: str


async def _visitor(request: Request, scope: str) -> Visitor | None:
    """Who has shown a key that may do what `scope` allows, and still may; None when nobody has."""
    token = request.cookies.get(COOKIE, "")
    visit = _signer(request).read(token, context_of(request).now())
    if visit is None:
        return None
    try:
        caller = await recovery.keyring_of(request).caller_by_id(visit.project_id, visit.key_id)
    except Unauthorized:
        return None
    return Visitor(caller, token) if caller.allows(scope) else None


def _signer(request: Request) -> VisitSigner:
    return cast("VisitSigner", request.app.state.visit_signer)


# Forms --------------------------------------------------------------------------------------------------------------
async def _form_of(request: Request) -> Form:
    """The form that was sent, by a page that this browser was given. Raises as `form_of`."""
    form = await form_of(request)
    kept = request.cookies.get(FORM_COOKIE, "")
    if not kept or not rules.is_same(form.raw("csrf"), _csrf(kept, request.cookies.get(COOKIE, ""))):
        raise FormForged
    return form


def _csrf(kept: str, token: str) -> str:
    return rules.csrf_of(f"{kept}|{token}")


class Forms(NamedTuple):
    """What the forms of a page carry; the templates ask for the field `csrf`, as they do of a person."""

    csrf: str


def _with_forms(request: Request, name: str, status: int = 200, *, token: str = "", **values: object) -> Response:
    """A page with forms. token: of the visit, if there is one; the cookie of one that is over is taken back."""
    kept = request.cookies.get(FORM_COOKIE) or secrets.token_urlsafe(32)
    shown = page(request, name, None, status, forms=Forms(_csrf(kept, token)), **values)
    _keep(request, shown, FORM_COOKIE, kept)
    if not token and COOKIE in request.cookies:
        _forget(request, shown)
    return shown


def _keep(request: Request, response: Response, name: str, value: str) -> None:
    response.set_cookie(
        name,
        value,
        max_age=VISIT_MS // 1000,
        path=PLACE,
        httponly=True,
        samesite="strict",
        secure=is_secure(request),
    )


def _forget(request: Request, response: Response) -> None:
    response.delete_cookie(COOKIE, path=PLACE, httponly=True, samesite="strict", secure=is_secure(request))


# Signing in and out -------------------------------------------------------------------------------------------------
@router.post("/dashboard/signin")
async def sign_in(request: Request) -> Response:
    """Show a key; each try counts, the right ones too."""
    form = await _form_of(request)
    context = context_of(request)
    try:
        await context.db.write(
            projects.pass_limited,
            "dashboard",
            network_of(request),
            limit=context.settings.recover_limit_per_hour,
            now=context.now(),
        )
        caller = await _caller_with(request, form.get("key"))
    except RateLimited as error:
        return _slowed(await _front(request, form, {"": str(error)}, 429), error)
    except (Unauthorized, WrongKeyKind) as error:
        log.info("dashboard.refused", reason=type(error).__name__)
        return await _front(request, form, {"key": _fault_of(error)}, 400)
    log.info("dashboard.opened", project_id=caller.project_id, key_id=caller.key_id)
    visit = Visit(caller.project_id, caller.key_id, EpochMs(context.now() + VISIT_MS))
    response = to(PLACE)
    _keep(request, response, COOKIE, _signer(request).token(visit))
    return response


async def _caller_with(request: Request, key: str) -> Caller:
    """Whose key it is. Raises Unauthorized, WrongKeyKind."""
    caller = await recovery.keyring_of(request).caller(b"Bearer " + key.encode(), is_fresh=True)
    if not caller.allows("dashboard:read"):
        raise WrongKeyKind("agent")
    return caller


def _fault_of(error: Unauthorized | WrongKeyKind) -> str:
    match error:
        case WrongKeyKind():
            return "is another one: this key does not read"
        case KeyRevoked():
            return "was revoked"
        case KeyExpired():
            return str(error)
        case _:
            return "is not known"


def _slowed(response: Response, error: RateLimited) -> Response:
    log.warning("dashboard.slowed", limiter=error.limiter)
    response.headers["Retry-After"] = str(retry_after_s(error.wait_ms))
    return response


@router.post("/dashboard/signout")
async def sign_out(request: Request) -> Response:
    """Let this browser show the key again before it sees anything."""
    await _form_of(request)
    response = to(PLACE)
    _forget(request, response)
    return response


async def _front(request: Request, form: Form, faults: dict[str, str], status: int = 200, note: str = "") -> Response:
    """The two forms for whoever comes without a key that counts."""
    # A mistyped code signs nobody out.
    visitor = await _visitor(request, "dashboard:read")
    return _with_forms(
        request,
        "dashboard_front",
        status,
        token=visitor.token if visitor else "",
        project=(form.get("project_id") or request.query_params.get("project", "").strip())[:_LONGEST],
        faults=faults,
        note=note,
        has_codes=recovery.codes_of(request) is not None,
    )


# Recovering ---------------------------------------------------------------------------------------------------------
@router.post("/dashboard/recover")
async def recover(request: Request) -> Response:
    """New keys, which stand in this answer and nowhere else."""
    form = await _form_of(request)
    codes = recovery.require_codes(request)
    try:
        project, pair = await recovery.recovered(
            request, codes, project_id=form.get("project_id"), code=form.get("recovery_code")
        )
    except RecoveryFieldsRequired:
        wanted = ("project_id", "recovery_code")
        return await _front(request, form, {name: "is needed" for name in wanted if not form.get(name)}, 400)
    except RateLimited as error:
        return _slowed(await _front(request, form, {"": str(error)}, 429), error)
    except WrongRecoveryCode:
        return await _front(request, form, {"recovery_code": "is not the one of this project"}, 403)
    except ProjectNotFound:
        return await _front(request, form, {"project_id": "is gone"}, 404)
    except NotSandbox:
        return await _front(request, form, {"project_id": "did not make itself: it has no codes"}, 403)
    return _new_keys(request, project, pair)


def _new_keys(request: Request, project: Project, pair: KeyPair) -> Response:
    return _with_forms(request, "dashboard_keys", project=project, pair=pair)


# Looking ------------------------------------------------------------------------------------------------------------
@router.get("/dashboard")
async def show_dashboard(request: Request) -> Response:
    """The project of the key at a glance; or the forms to show a key, or to get new ones."""
    visitor = await _visitor(request, "dashboard:read")
    if visitor is None:
        return await _front(request, Form({}), {}, note=_OVER if COOKIE in request.cookies else "")
    context, store = context_of(request), asked.store_of(request)
    project_id = visitor.caller.project_id
    seen = await overview.glance(context.db, store, project_id, context.now())
    wanted = request.query_params.get("project", project_id)
    return _with_forms(
        request,
        "dashboard",
        token=visitor.token,
        seen=seen,
        chart=await pace_chart(store, project_id, seen.window[0], _DAY),
        used=used(seen.stats.totals),
        sessions=[line_of(each, WAYS) for each in seen.recent],
        outcomes=OUTCOMES,
        severities=SEVERITIES,
        looks=LOOKS,
        links=overview.links(base_url(request)),
        traces=WAYS.traces,
        other=wanted[:_LONGEST] if wanted != project_id else "",
        key=visitor.caller,
        has_codes=recovery.codes_of(request) is not None,
    )


@router.get("/dashboard/sessions/{id:any_text}")
async def show_session(request: Request, id: str) -> Response:  # noqa: A002 - as the API calls it
    """A session as a waterfall of spans."""
    visitor = await _visitor(request, "telemetry:read")
    if visitor is None:
        return to(PLACE)
    return await session_page(request, None, visitor.caller.project_id, id, WAYS)


@router.get("/dashboard/traces/{trace_id}")
async def show_trace(request: Request, trace_id: str) -> Response:
    """One trace as a waterfall."""
    visitor = await _visitor(request, "telemetry:read")
    if visitor is None:
        return to(PLACE)
    return await trace_page(request, None, visitor.caller.project_id, trace_id, WAYS)
