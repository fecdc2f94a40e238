"""HTTP of the pages of vitals: the camera, for people who are signed in and for everybody, and keys of its API."""

import structlog
from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from lifesign.auth.vitals import rules as key_rules
from lifesign.auth.vitals.rules import USE_CASES, KeyLimitReached, WishRefused
from lifesign.auth.vitals.service import VitalsKey
from lifesign.clock import rfc3339
from lifesign.http.answers import json_answer
from lifesign.http.context import context_of, header_of
from lifesign.http.peer import network_of
from lifesign.projects.rules import RateLimited
from lifesign.usage import service as usage
from lifesign.vitals import rules as vitals_rules
from lifesign.vitals import service as vitals
from lifesign.vitals import watching
from lifesign.vitals.extras import require_vitals
from lifesign.vitals.rules import ExtraMissing, MeasurementNotFound, WatchedNotFound, WatchInvalid
from lifesign.vitals.service import Kept, Vitals
from lifesign.vitals.sessions import LONGEST_S, STREAM_PATH, Wish
from lifesign.web import capture, charts
from lifesign.web.access import Form, changing_form, form_of, person_of, persons_form
from lifesign.web.charts import Chart
from lifesign.web.pages import HEADERS, page
from lifesign.web.rules import Person, RoleRefused

log = structlog.get_logger("lifesign.web")

router = APIRouter(include_in_schema=False)

_FOREVER = "public, max-age=31536000, immutable"
# What finds a face is compiled from WebAssembly, which is as far as this goes beyond other pages: no script may be made
# from text, and nothing may be asked of anybody but this server.
_POLICY = (
    "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'; object-src 'none'"
)
_CAMERA = {"Content-Security-Policy": _POLICY, "Permissions-Policy": "camera=(self), microphone=()"}
_STREAM_S = 120
_EVERY_S = 30
_HISTORY = 50
_MADE, _REFUSED, _TOO_MANY = 201, 400, 429


@router.get("/static/vitals/{digest}/{name}")
async def capture_file(request: Request, digest: str, name: str) -> Response:  # noqa: ARG001 - makes the address another
    """A file of the page with the camera; its address changes when it does."""
    if name not in capture.NAMES:
        raise HTTPException(404)
    file = await run_in_threadpool(capture.file_of, name)
    headers = {"Cache-Control": _FOREVER, "X-Content-Type-Options": "nosniff"}
    if not file.is_packed:
        return Response(file.content, headers=headers, media_type=file.media_type)
    headers["Vary"] = "Accept-Encoding"
    if b"gzip" in (header_of(request, b"accept-encoding") or b""):
        headers["Content-Encoding"] = "gzip"
        return Response(file.content, headers=headers, media_type=file.media_type)
    return Response(await run_in_threadpool(file.unpacked), headers=headers, media_type=file.media_type)


# The camera ---------------------------------------------------------------------------------------------------------
@router.get("/vitals")
async def show_capture(request: Request) -> Response:
    """See one's pulse, and let it check in a heartbeat."""
    return await _capture_page(request, await person_of(request))


@router.get("/try")
async def show_trial(request: Request) -> Response:
    """The same for everybody, unless it is switched off."""
    if not context_of(request).settings.demo:
        raise HTTPException(404)
    return await _capture_page(request, None)


async def _capture_page(request: Request, person: Person | None) -> Response:
    missing = ""
    try:
        require_vitals()
    except ExtraMissing as error:
        missing = str(error)
    place = await run_in_threadpool(capture.place)
    context = context_of(request)
    history: list[Kept] = []
    if person is not None:
        history = await context.db.read(vitals.own_history, person.shown.project_id, person.user_id, _HISTORY)
    shown = page(
        request,
        "vitals",
        person,
        place=place,
        missing=missing,
        every_s=_EVERY_S,
        history=history,
        chart=_chart(history),
        kept_days=context.settings.vitals_retention_days,
        section="/vitals",
    )
    shown.headers.update(_CAMERA)
    return shown


def _chart(history: list[Kept]) -> Chart | None:
    """Heart rates in the order of time; None where there is none."""
    rates = [(rfc3339(each.at), round(each.heart_rate)) for each in reversed(history) if each.heart_rate is not None]
    if not rates:
        return None
    low, high = min(rate for _, rate in rates), max(rate for _, rate in rates)
    columns = [(f"{at[:10]} {at[11:16]}", {"bpm": rate}) for at, rate in rates]
    return charts.bars(columns, {"bpm": "idle"}, f"Heart rates that were kept, {low} to {high} bpm (UTC)")


@router.post("/vitals/measurements/{measurement_id}/delete")
async def delete_measurement(request: Request, measurement_id: str) -> Response:
    """Forget a measurement that the person kept."""
    person, _ = await changing_form(request)
    db = context_of(request).db
    try:
        await db.write(vitals.delete_own, person.shown.project_id, person.user_id, measurement_id)
    except MeasurementNotFound as error:
        raise HTTPException(404) from error
    return RedirectResponse("/vitals#history", 303)


@router.post("/vitals/session")
async def open_session(request: Request) -> Response:
    """A stream for the page, as JSON; what goes wrong is told there in a sentence."""
    person, form = await persons_form(request)
    require_vitals()
    try:
        wish = await _wish(request, person, form)
    except (WatchInvalid, WatchedNotFound) as error:
        return json_answer({"message": str(error)}, _REFUSED, HEADERS)
    context = context_of(request)
    state: Vitals = request.app.state.vitals
    session, token = state.sessions.make(wish, key_id=None, project_id=person.shown.project_id, now=context.now())
    made = {"id": session.id, "token": token, "ws_url": STREAM_PATH, "expires_at": rfc3339(session.expires_at)}
    return json_answer({"session": made}, _MADE, HEADERS)


async def _wish(request: Request, person: Person, form: Form) -> Wish:
    heartbeat, is_kept = form.get("heartbeat"), bool(form.get("keep"))
    if (heartbeat or is_kept) and not person.may_change:
        raise RoleRefused(person.shown.role)
    if not heartbeat:
        return Wish(max_s=_STREAM_S, is_kept=is_kept, user_id=person.user_id)
    watch = vitals_rules.watch_in({"heartbeat": heartbeat, "every_s": _EVERY_S})
    await watching.require_known(request, person.caller, watch)
    return Wish(
        max_s=LONGEST_S,
        is_kept=is_kept,
        user_id=person.user_id,
        watch=watch,
        watch_project_id=person.caller.project_id,
        watch_key_id=person.caller.key_id,
    )


# Keys ---------------------------------------------------------------------------------------------------------------
@router.get("/vitals/keys")
async def show_key_form(request: Request) -> Response:
    """The form for a key of the Vitals API; for everybody."""
    return _key_page(request)


@router.post("/vitals/keys")
async def take_key(request: Request) -> Response:
    """Take a key. It stands in this answer and nowhere else."""
    form = await form_of(request)
    context = context_of(request)
    wanted = {name: form.get(name) or None for name in ("name", "email", "company", "use_case")}
    try:
        wish = key_rules.wish_in(wanted)
        key, made = await context.db.write(
            usage.take_key,
            wish,
            network_of(request),
            limit=context.settings.keys_per_address_per_hour,
            now=context.now(),
        )
    except WishRefused as error:
        return _key_page(request, form, str(error), _REFUSED)
    except KeyLimitReached as error:
        return _key_page(request, form, str(error), _TOO_MANY)
    except RateLimited as error:
        refused = _key_page(request, form, str(error), _TOO_MANY)
        refused.headers["Retry-After"] = str(-(-error.wait_ms // 1000))
        return refused
    log.info("vitals_key.made", key_id=key.id)
    return _key_page(request, made=(key, made), status=_MADE)


def _key_page(
    request: Request,
    form: Form | None = None,
    fault: str = "",
    status: int = 200,
    *,
    made: tuple[VitalsKey, str] | None = None,
) -> Response:
    # Which field it is about stands at the beginning of each refusal.
    field = next((name for word, name in _FIELDS.items() if fault.startswith(word)), "")
    return page(
        request,
        "vitals_keys",
        None,
        status,
        place=capture.place(),
        form=form or Form({}),
        fault=fault,
        faulty=field,
        use_cases=USE_CASES,
        made=made,
        has_demo=context_of(request).settings.demo,
    )


_FIELDS = {"Name": "name", "Valid email": "email", "Company": "company", "Invalid use_case": "use_case"}
