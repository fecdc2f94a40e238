"""HTTP of measurements that were kept, and of streams: the one is found later, the other is opened by a token."""

from dataclasses import replace

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.vitals.schemas import MAX_BODY_BYTES, Json
from lifesign.auth.vitals.service import vitals_caller
from lifesign.clock import rfc3339
from lifesign.http.body import read_body
from lifesign.http.context import context_of
from lifesign.http.paging import cursor_of
from lifesign.projects.rules import DEFAULT_PROJECT
from lifesign.vitals import asked, rules, schemas, service
from lifesign.vitals.extras import require_vitals
from lifesign.vitals.routes import allowed_watch, demo_admitted, good, vitals_of
from lifesign.vitals.sessions import STREAM_PATH, Session, Wish

router = APIRouter(tags=["Vitals"])


# Sessions -----------------------------------------------------------------------------------------------------------
@router.post("/api/vitals/sessions", **schemas.MAKE_STREAM)
async def make_session(request: Request) -> Response:
    """Make a session for one stream. Its token goes to whoever opens it, such as a page: the key stays on a server."""
    caller = await vitals_caller(request)
    raw = await read_body(request, MAX_BODY_BYTES)
    require_vitals()
    from lifesign.vitals.bodies import document_in  # noqa: PLC0415 - needs the extra

    document = document_in(raw) if raw.strip() else {}
    wish = asked.stream_wish(document)
    may = await allowed_watch(request, document.get("watch"))
    if may is not None:
        wish = replace(wish, watch=may.watch, watch_project_id=may.project_id, watch_key_id=may.key_id)
    session, token = vitals_of(request).sessions.make(
        wish, key_id=caller.key_id, project_id=caller.project_id, now=context_of(request).now()
    )
    return session_made(session, token)


@router.post("/api/demo/session", **schemas.TRY_STREAM)
async def try_session(request: Request) -> Response:
    """Make a session for a stream of a minute, without a key. Shares the limit of the demo."""
    demo_admitted(request)
    require_vitals()
    session, token = vitals_of(request).sessions.make(
        Wish(max_s=rules.DEMO_S), key_id=None, project_id=DEFAULT_PROJECT, now=context_of(request).now()
    )
    return session_made(session, token)


def session_made(session: Session, token: str) -> Response:
    """The answer that holds the token."""
    told = {"id": session.id, "token": token, "ws_url": STREAM_PATH, "expires_at": rfc3339(session.expires_at)}
    return good({"session": told}, 201, {"Cache-Control": "no-store"})


@router.get("/api/vitals/sessions/{session_id}", **schemas.READ_STREAM)
async def read_session(request: Request, session_id: str) -> Response:
    """Read how a stream of this key does, and its report once it is finished. A restart forgets it."""
    caller = await vitals_caller(request)
    found = vitals_of(request).sessions.of_key(session_id, caller.key_id, context_of(request).now())
    return good({"session": schemas.shown_session(found)})


# Measurements -------------------------------------------------------------------------------------------------------
@router.get("/api/vitals/measurements", **schemas.LIST_MEASUREMENTS)
async def list_measurements(request: Request) -> Response:
    """List the measurements of this key, the newest first."""
    caller = await vitals_caller(request)
    page = asked.page_of(request)
    found = await context_of(request).db.read(
        service.measurements_of, caller.key_id, limit=page.limit + 1, before=page.before
    )
    shown = found[: page.limit]
    body: Json = {"measurements": [schemas.shown_measurement(each) for each in shown]}
    if len(found) > len(shown):
        body["next_cursor"] = cursor_of(shown[-1].id)
    return good(body)


@router.get("/api/vitals/measurements/{measurement_id}", **schemas.READ_MEASUREMENT)
async def read_measurement(request: Request, measurement_id: str) -> Response:
    """Read one measurement of this key."""
    caller = await vitals_caller(request)
    found = await context_of(request).db.read(service.measurement, caller.key_id, measurement_id)
    return good({"measurement": schemas.shown_measurement(found)})


@router.delete("/api/vitals/measurements/{measurement_id}", **schemas.DELETE_MEASUREMENT)
async def delete_measurement(request: Request, measurement_id: str) -> Response:
    """Delete one measurement of this key."""
    caller = await vitals_caller(request)
    await context_of(request).db.write(service.delete, caller.key_id, measurement_id)
    return good({})
