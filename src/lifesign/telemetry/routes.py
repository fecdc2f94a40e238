"""HTTP of what is read: records, sessions, the dashboard, the report."""

from fastapi import APIRouter
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import Caller
from lifesign.auth.service import telemetry_caller
from lifesign.clock import EpochMs, rfc3339
from lifesign.http.ok import Json, ok_answer, ok_operation, query_integer
from lifesign.telemetry import asked, shown
from lifesign.telemetry.describe import (
    CURSOR,
    ENVIRONMENT,
    FILTERS,
    READ_REFUSALS,
    SESSION_REFUSALS,
    limit_parameter,
    minutes_parameter,
)
from lifesign.telemetry.rules import SessionNotFound
from lifesign.telemetry.store import Activity, Arrival, SpanStore, Start, Stored
from lifesign.telemetry.wire import wire

router = APIRouter(tags=["Telemetry"])

_HOUR_MINUTES, _DAY_MINUTES = 60, 1440
_DAY_MS = _DAY_MINUTES * 60_000
_RECENT = 10


# Records ------------------------------------------------------------------------------------------------------------
@router.get(
    "/v1/telemetry",
    **ok_operation(
        "readTelemetry",
        answer=(200, shown.TelemetryPage),
        errors=(400,),
        refusals=READ_REFUSALS,
        parameters=(
            minutes_parameter(_HOUR_MINUTES),
            limit_parameter(1000, 100),
            CURSOR,
            *FILTERS,
        ),
    ),
)
async def read_telemetry(request: Request) -> Response:
    """Records by arrival, the newest first; or those with certain ids."""
    caller = await telemetry_caller(request, "telemetry:read")
    window = asked.window_of(request, default_minutes=_HOUR_MINUTES)
    limit = query_integer(request, "limit", 1, 1000, default=100)
    only = asked.filter_of(request)
    after = asked.place_of(request, "telemetry", caller.project_id, lambda at, key: Arrival(EpochMs(at), key))
    ids = asked.ids_of(request)
    store = asked.store_of(request)
    if ids is None:
        found = await store.window(caller.project_id, *window, only=only, limit=limit + 1, after=after)
    else:
        found, limit = await store.records(caller.project_id, ids), len(ids)
    records = found[:limit]
    cursor = None
    if len(found) > limit:
        last = records[-1].record
        cursor = asked.cursor_of("telemetry", caller.project_id, (last.received_at, last.record_id))
    return ok_answer(
        {
            "project_id": caller.project_id,
            "window": asked.shown_window(window),
            "count": len(records),
            "records": _shown(caller, records),
            "next_cursor": cursor,
            "ingest": await _ingest(store, caller),
        }
    )


def _shown(caller: Caller, records: list[Stored]) -> list[Json]:
    return [wire(each.record, project_id=caller.project_id, session_id=each.session_id) for each in records]


async def _ingest(store: SpanStore, caller: Caller) -> Json:
    lag = await store.lag(caller.project_id)
    last = lag.last_received_at
    return {"pending_records": lag.pending_records, "last_received_at": None if last is None else rfc3339(last)}


# Sessions -----------------------------------------------------------------------------------------------------------
@router.get(
    "/v1/sessions",
    **ok_operation(
        "listSessions",
        answer=(200, shown.SessionList),
        errors=(400,),
        refusals=READ_REFUSALS,
        parameters=(minutes_parameter(_DAY_MINUTES), limit_parameter(500, 50), CURSOR, ENVIRONMENT),
    ),
)
async def list_sessions(request: Request) -> Response:
    """Sessions that something of arrived in the window, whole; the last active first."""
    caller = await telemetry_caller(request, "telemetry:read")
    window = asked.window_of(request, default_minutes=_DAY_MINUTES)
    limit = query_integer(request, "limit", 1, 500, default=50)
    environment = asked.text_of(request, "environment")
    after = asked.place_of(request, "sessions", caller.project_id, lambda at, key: Activity(EpochMs(at), key))
    store = asked.store_of(request)
    found = await store.sessions(caller.project_id, *window, environment=environment, limit=limit + 1, after=after)
    sessions = found[:limit]
    cursor = None
    if len(found) > limit:
        place = (sessions[-1].last_received_at, sessions[-1].session_id)
        cursor = asked.cursor_of("sessions", caller.project_id, place)
    return ok_answer(
        {
            "project_id": caller.project_id,
            "window": asked.shown_window(window),
            "count": len(sessions),
            "sessions": [each.wire() for each in sessions],
            "next_cursor": cursor,
            "ingest": await _ingest(store, caller),
        }
    )


class _AnyText(PathConvertor):
    """What a sender called a session: with slashes, and with line ends, at which `path` stops."""

    regex = r"[\s\S]*"


register_url_convertor("any_text", _AnyText())


@router.get(
    "/v1/sessions/{id:any_text}",
    **ok_operation(
        "readSession",
        answer=(200, shown.SessionDetail),
        errors=(400, 404),
        refusals=SESSION_REFUSALS,
        parameters=(minutes_parameter(asked.MAX_MINUTES), limit_parameter(5000, 1000), CURSOR),
    ),
)
async def read_session(request: Request, id: str) -> Response:  # noqa: A002 - the published name of the parameter
    """One session with its records by start, found by its id, by another id of its records, or by a trace id."""
    caller = await telemetry_caller(request, "telemetry:read")
    window = asked.window_of(request, default_minutes=asked.MAX_MINUTES)
    limit = query_integer(request, "limit", 1, 5000, default=1000)
    ref = asked.session_of(id)
    after = asked.place_of(request, f"session {ref}", caller.project_id, Start)
    found = await asked.store_of(request).session(caller.project_id, ref, *window, limit=limit + 1, after=after)
    if found is None:
        raise SessionNotFound
    records = found.records[:limit]
    cursor = None
    if len(found.records) > limit:
        last = records[-1].record
        cursor = asked.cursor_of(f"session {ref}", caller.project_id, (last.start_ns, last.record_id))
    return ok_answer(
        {
            "scope": found.scope,
            "window": asked.shown_window(window),
            "session": found.summary.wire(),
            "records": _shown(caller, records),
            "next_cursor": cursor,
        }
    )
