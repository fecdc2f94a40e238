"""HTTP of machines, which prove who they are with their own credentials. The heartbeat is a plain Starlette route."""

import re
from typing import Any, cast

from fastapi import APIRouter
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs, rfc3339
from lifesign.http.answers import MadeJson, json_answer
from lifesign.http.body import read_body
from lifesign.http.context import Context, context_of, header_of
from lifesign.http.describe import operation
from lifesign.http.direct import Asked, DirectRoute, Work
from lifesign.systems import bodies, schemas, service
from lifesign.systems.beats import Beat, Beats
from lifesign.systems.credentials import Machines
from lifesign.systems.rules import StaleCredential, SystemIdMismatch
from lifesign.systems.store import Known

router = APIRouter(tags=["Machines"])

MAX_HEARTBEAT_BYTES = 16 * 1024


def _operation(operation_id: str, **told: Any) -> dict[str, Any]:  # Any: as `operation` takes them
    return operation(operation_id, envelope=schemas.ENVELOPE, security="BasicAuth", **told)


def machines_of(request: Request) -> Machines:
    """Who recognizes machines on this node."""
    return cast("Machines", request.app.state.machines)


async def recognized_again(request: Request) -> Known:
    """The machine, after what was remembered of it turned out to be stale. Raises NotAuthenticated."""
    machines, header = machines_of(request), header_of(request, b"authorization")
    machines.forget(header)
    return await machines.recognized(header)


HEARTBEAT = _operation("systemHeartbeat", answer=(200, schemas.SystemHeartbeatAnswer), body=bodies.SystemHeartbeat)


async def system_heartbeat(request: Request) -> Response:
    """Record that a system is alive. Answers 200 once it is on disk."""
    known = await machines_of(request).recognized(header_of(request, b"authorization"))
    raw = await read_body(request, MAX_HEARTBEAT_BYTES)
    reported = bodies.reported_id(raw).lower()
    if reported != known.id:
        raise SystemIdMismatch
    try:
        at = await _recorded(request, known)
    except StaleCredential:
        at = await _recorded(request, await recognized_again(request))
    return _acknowledged(known, at)


def direct_heartbeat(state: State) -> DirectRoute:
    """The same for machines that are remembered, and reports that are plainly right."""
    context = cast("Context", state.context)
    machines, beats = cast("Machines", state.machines), cast("Beats", state.beats)

    def work(asked: Asked) -> Work | None:
        known = machines.remembered(asked.header(b"authorization"))
        if known is None or bodies.reported_id(asked.body).lower() != known.id:
            return None

        def told(at: EpochMs) -> Response:
            context.db.failpoints.hit("checkin.after_commit")
            return _acknowledged(known, at)

        return Work(beats.record, Beat(known, context.now()), told, failed)

    def failed(error: Exception) -> None:
        if not isinstance(error, StaleCredential):
            raise error

    pattern = re.compile(rb"/api/systems/heartbeat")
    return DirectRoute(frozenset({b"POST"}), pattern, MAX_HEARTBEAT_BYTES, work, lambda: beats.patience)


def _acknowledged(known: Known, at: EpochMs) -> Response:
    return MadeJson(
        b'{"code":200,"message":"heartbeat acknowledged","data":{"system_id":"%s","acknowledged":true,'
        b'"last_heartbeat":"%s"}}' % (known.id.encode(), rfc3339(at).encode())
    )


async def _recorded(request: Request, known: Known) -> EpochMs:
    context = context_of(request)
    beats = cast("Beats", request.app.state.beats)
    at: EpochMs = await beats.patience.wait(context.db.write_batched(beats.record, Beat(known, context.now())))
    context.db.failpoints.hit("checkin.after_commit")
    return at


@router.get("/api/systems/info", **_operation("systemInfo", answer=(200, schemas.SystemInfoAnswer), never=(403,)))
async def system_info(request: Request) -> Response:
    """Tell a machine what is known of it. This is no heartbeat."""
    context = context_of(request)
    known = await machines_of(request).recognized(header_of(request, b"authorization"))
    try:
        watched = await context.db.read(service.known_watched, known)
    except StaleCredential:
        watched = await context.db.read(service.known_watched, await recognized_again(request))
    shown = schemas.shown_to_itself(watched, service.windows_of(context.settings), context.now())
    return json_answer(schemas.answer(200, "system info retrieved successfully", shown))
