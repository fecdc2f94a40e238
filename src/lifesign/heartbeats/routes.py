"""HTTP of heartbeats. The check-in is a plain Starlette route: a model for each request would triple its cost."""

import re
from collections.abc import Collection, Mapping
from functools import partial
from typing import Any, cast

from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import Caller
from lifesign.auth.service import Keyring, caller_of
from lifesign.clock import EpochMs, rfc3339
from lifesign.db.failpoints import Failpoints
from lifesign.events.rules import EVENT_TYPES
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats import bodies, schemas, service
from lifesign.heartbeats.checkins import Answer, CheckIn, CheckIns
from lifesign.heartbeats.past import MAX_DAYS, Period
from lifesign.heartbeats.rules import Heartbeat
from lifesign.http.answers import MadeJson, json_answer, no_content, without_absent
from lifesign.http.body import parse_object, read_body, read_model
from lifesign.http.context import Context, base_url, context_of, header_of
from lifesign.http.describe import FILTER_TEXT, PAGING, operation
from lifesign.http.direct import Asked, DirectRoute, Work
from lifesign.http.paging import is_id, page_body, page_of, query_flag
from lifesign.http.validation import validate
from lifesign.incidents.rules import Incident
from lifesign.incidents.service import tuning_of

router = APIRouter(tags=["Heartbeats"])

_STATUSES = ("active", "firing", "paused", "resolved")
_MAX_IDEMPOTENCY_KEY = 255
_MAX_FILTER = 200
_DEFAULT_DAYS = 90
_DAYS: dict[str, Any] = {
    "name": "days",
    "in": "query",
    "schema": {"type": "integer", "minimum": 1, "maximum": MAX_DAYS, "default": _DEFAULT_DAYS},
}
_PERIODS: dict[str, Any] = {
    "name": "recentPeriods",
    "in": "query",
    "description": "Whether to show how the last waits ended.",
    "schema": {"type": "boolean", "default": False},
}
_FILTERS: tuple[dict[str, Any], ...] = (
    {"name": "status", "in": "query", "schema": {"type": "string", "enum": list(_STATUSES)}},
    {
        "name": "namespace",
        "in": "query",
        "description": "Exactly this namespace.",
        "schema": FILTER_TEXT,
    },
    {
        "name": "tag",
        "in": "query",
        "description": "Repeatable; all must match.",
        "schema": {"type": "array", "items": FILTER_TEXT},
        "explode": True,
    },
    {
        "name": "q",
        "in": "query",
        "description": "Part of name or slug, in any case.",
        "schema": FILTER_TEXT,
    },
)


@router.post(
    "/v1/heartbeats",
    **operation(
        "createHeartbeat",
        answer=(201, schemas.ShownHeartbeat),
        body=bodies.NewHeartbeat,
        examples=bodies.NEW_HEARTBEATS,
        links={
            "idOrSlug=id": (
                "getHeartbeat",
                "updateHeartbeat",
                "checkin",
                "ackHeartbeat",
                "pauseHeartbeat",
                "resumeHeartbeat",
                "listHeartbeatEvents",
                "deleteHeartbeat",
            )
        },
    ),
)
async def create_heartbeat(request: Request) -> Response:
    """Make a heartbeat; it is watched from now on."""
    caller = await caller_of(request, "heartbeats:write")
    body = await read_model(request, bodies.NewHeartbeat)
    context = context_of(request)
    heartbeat = await context.db.write(
        service.create,
        caller,
        bodies.definition_of(body),
        is_armed=body.armed,
        is_paused=body.paused,
        has_slug=body.slug is not None,
        origin=body.origin,
        ping_id=body.pingId,
        max_heartbeats=context.settings.max_heartbeats,
        now=context.now(),
    )
    return json_answer(await _shown(request, caller, heartbeat), 201)


async def _shown(request: Request, caller: Caller, heartbeat: Heartbeat) -> dict[str, Any]:  # Any: JSON
    context = context_of(request)
    now = context.now()
    covered = await context.db.read(service.covered_until, [heartbeat], now)
    return schemas.shown(heartbeat, now=now, is_covered=heartbeat.id in covered, pings_at=_pings_at(request, caller))


def _pings_at(request: Request, caller: Caller) -> str | None:
    """Where ping URLs begin, for those who may ping: whoever knows one, may."""
    return f"{base_url(request)}/ping/" if caller.allows("heartbeats:write") else None


@router.get(
    "/v1/heartbeats",
    **operation(
        "listHeartbeats",
        answer=(200, schemas.HeartbeatList),
        parameters=(*PAGING, *_FILTERS, _PERIODS),
        errors=(400,),
    ),
)
async def list_heartbeats(request: Request) -> Response:
    """List heartbeats; all filters must match."""
    caller = await caller_of(request, "heartbeats:read")
    page = page_of(request, is_id("hb"))
    query = request.query_params
    tags = query.getlist("tag")
    for name in ("status", "namespace", "q", "tag"):
        if any(not value or "\x00" in value for value in query.getlist(name)):
            raise InvalidInput(Fault(name, "must not be empty"))
    status = query.get("status")
    if status is not None and status not in _STATUSES:
        raise InvalidInput(
            Fault("status", f"must be one of {', '.join(_STATUSES)}", status[:_MAX_FILTER], has_value=True)
        )
    context = context_of(request)
    now = context.now()
    rows, covered, periods = await context.db.read(
        _listed,
        now,
        caller.project_id,
        with_periods=query_flag(request, "recentPeriods"),
        limit=page.limit + 1,
        after=page.after,
        status=status,
        namespace=query.get("namespace"),
        tags=tags,
        search=query.get("q"),
    )
    return json_answer(
        page_body(
            "heartbeats",
            rows,
            page,
            key=lambda row: row.id,
            show=lambda row: schemas.shown(
                row,
                now=now,
                is_covered=row.id in covered,
                pings_at=_pings_at(request, caller),
                periods=periods.get(row.id),
            ),
        )
    )


def _listed(
    conn: Connection, /, now: EpochMs, project_id: str, *, with_periods: bool, **filters: Any
) -> tuple[list[Heartbeat], Collection[str], Mapping[str, list[Period]]]:  # Any: those of `list_heartbeats`
    rows = service.list_heartbeats(conn, project_id, **filters)
    periods = service.recent_periods(conn, rows) if with_periods else {}
    return rows, service.covered_until(conn, rows, now), periods


@router.get(
    "/v1/heartbeats/{idOrSlug}",
    **operation("getHeartbeat", answer=(200, schemas.ShownHeartbeat), parameters=(_PERIODS,), errors=(400, 404)),
)
async def get_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Read a heartbeat by its id or slug."""
    caller = await caller_of(request, "heartbeats:read")
    context = context_of(request)
    now = context.now()
    heartbeat, covered = await context.db.read(_found, now, caller.project_id, idOrSlug)
    periods = None
    if query_flag(request, "recentPeriods"):
        periods = (await context.db.read(service.recent_periods, [heartbeat]))[heartbeat.id]
    return json_answer(
        schemas.shown(
            heartbeat, now=now, is_covered=bool(covered), pings_at=_pings_at(request, caller), periods=periods
        )
    )


def _found(conn: Connection, now: EpochMs, project_id: str, ref: str) -> tuple[Heartbeat, Collection[str]]:
    heartbeat = service.get(conn, project_id, ref)
    return heartbeat, service.covered_until(conn, [heartbeat], now)


@router.patch(
    "/v1/heartbeats/{idOrSlug}",
    **operation(
        "updateHeartbeat",
        answer=(200, schemas.ShownHeartbeat),
        body=bodies.HeartbeatChanges,
        examples=bodies.HEARTBEAT_CHANGES,
        errors=(404,),
    ),
)
async def update_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Change a heartbeat. A changed timing moves the deadline; an edit never makes it fire."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, idOrSlug)
    body = await read_model(request, bodies.HeartbeatChanges)
    heartbeat = await context.db.write(
        service.edit,
        caller,
        idOrSlug,
        bodies.changes_of(body),
        check=bodies.edited,
        tuning=tuning_of(context.settings),
        now=context.now(),
    )
    return json_answer(await _shown(request, caller, heartbeat))


@router.delete("/v1/heartbeats/{idOrSlug}", **operation("deleteHeartbeat", answer=(204, None), errors=(404,)))
async def delete_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Delete a heartbeat; an open incident closes, its unsent messages are canceled."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.write(service.delete, caller, idOrSlug, context.now(), tuning=tuning_of(context.settings))
    return no_content()


ACK = operation(
    "ackHeartbeat",
    answer=(200, schemas.AckAnswer),
    body=bodies.AckBody,
    is_body_required=False,
    errors=(404,),
    refuses_states=True,
)


@router.post("/v1/heartbeats/{idOrSlug}/ack", **ACK)
async def ack_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Acknowledge a firing heartbeat: its incident closes, and it is watched anew from now."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, idOrSlug)
    body = await read_model(request, bodies.AckBody, required=False)
    closed = await context.db.write(
        _ack, context.db.failpoints, caller, idOrSlug, message=body.message, now=context.now()
    )
    context.db.failpoints.hit("ack.after_commit")
    answer = {
        "status": "resolved",
        "resolvedAt": rfc3339(closed.resolved_at or context.now()),
        "escalationStep": closed.steps_run,
        "message": closed.ack_message,
    }
    return json_answer(without_absent(answer))


def _ack(
    conn: Connection, failpoints: Failpoints, caller: Caller, ref: str, *, message: str | None, now: EpochMs
) -> Incident:
    closed = service.ack(conn, caller, ref, message, now)
    failpoints.hit("ack.before_commit")
    return closed


@router.post(
    "/v1/heartbeats/{idOrSlug}/pause",
    **operation("pauseHeartbeat", answer=(200, schemas.PauseAnswer), errors=(404,), refuses_states=True),
)
async def pause_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Stop watching until resumed; an open incident closes."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    paused: Heartbeat = await context.db.write(service.pause, caller, idOrSlug, context.now())
    return json_answer({"id": paused.id, "status": "paused", "pausedAt": rfc3339(paused.paused_at or context.now())})


@router.post(
    "/v1/heartbeats/{idOrSlug}/resume",
    **operation("resumeHeartbeat", answer=(200, schemas.ResumeAnswer), errors=(404,), refuses_states=True),
)
async def resume_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Watch a paused heartbeat again, from now."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    resumed: Heartbeat = await context.db.write(service.resume, caller, idOrSlug, context.now())
    deadline = resumed.next_deadline and rfc3339(resumed.next_deadline)
    return json_answer(without_absent({"id": resumed.id, "status": "active", "nextDeadline": deadline}))


@router.post(
    "/v1/heartbeats/{idOrSlug}/snooze",
    **operation(
        "snoozeHeartbeat",
        answer=(200, schemas.SnoozeAnswer),
        body=bodies.SnoozeBody,
        examples={"for an hour": {"seconds": 3600, "reason": "deploying"}},
        errors=(404,),
        refuses_states=True,
    ),
)
async def snooze_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Tell nobody for a while; it is watched all the same. A snooze of a firing heartbeat ends with the incident."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, idOrSlug)
    body = await read_model(request, bodies.SnoozeBody)
    now = context.now()
    until = bodies.snooze_end_of(body, now)
    snoozed = await context.db.write(service.snooze, caller, idOrSlug, until=until, reason=body.reason, now=now)
    answer = {"id": snoozed.id, "status": snoozed.status, "snoozedUntil": rfc3339(until), "reason": body.reason}
    return json_answer(without_absent(answer))


@router.delete(
    "/v1/heartbeats/{idOrSlug}/snooze",
    **operation("unsnoozeHeartbeat", answer=(204, None), errors=(404,), refuses_states=True),
)
async def unsnooze_heartbeat(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """End a snooze now: what waited is told at once."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.write(service.end_snooze, caller, idOrSlug, tuning=tuning_of(context.settings), now=context.now())
    return no_content()


@router.get(
    "/v1/heartbeats/{idOrSlug}/events",
    **operation(
        "listHeartbeatEvents",
        answer=(200, schemas.EventList),
        parameters=(*PAGING, {"name": "type", "in": "query", "schema": {"type": "string", "enum": list(EVENT_TYPES)}}),
        errors=(400, 404),
    ),
)
async def list_events(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Read a heartbeat's history, newest first."""
    caller = await caller_of(request, "heartbeats:read")
    db = context_of(request).db
    await db.read(service.get, caller.project_id, idOrSlug)
    page = page_of(request, _is_seq)
    event_type = request.query_params.get("type")
    if event_type is not None and event_type not in EVENT_TYPES:
        raise InvalidInput(
            Fault("type", f"must be one of {', '.join(EVENT_TYPES)}", event_type[:_MAX_FILTER], has_value=True)
        )
    rows = await db.read(
        service.history,
        caller.project_id,
        idOrSlug,
        limit=page.limit + 1,
        before_seq=None if page.after is None else int(page.after),
        event_type=event_type,
    )
    return json_answer(page_body("events", rows, page, key=lambda row: str(row.seq), show=schemas.shown_event))


@router.get(
    "/v1/heartbeats/{idOrSlug}/history",
    **operation("heartbeatHistory", answer=(200, schemas.DayList), parameters=(_DAYS,), errors=(400, 404)),
)
async def heartbeat_history(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Read how each of the last days went, in the heartbeat's time zone."""
    caller = await caller_of(request, "heartbeats:read")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, idOrSlug)
    text = request.query_params.get("days", str(_DEFAULT_DAYS))
    if not (text.isascii() and text.isdigit() and len(text) <= len(str(MAX_DAYS)) and 1 <= int(text) <= MAX_DAYS):
        raise InvalidInput(Fault("days", f"must be between 1 and {MAX_DAYS}", text[:_MAX_FILTER], has_value=True))
    days = await context.db.read(service.days, caller.project_id, idOrSlug, count=int(text), now=context.now())
    return json_answer({"days": [schemas.shown_day(each) for each in days]})


@router.post(
    "/v1/heartbeats/{idOrSlug}/events/import",
    **operation(
        "importHeartbeatEvents",
        answer=(200, schemas.ImportAnswer),
        body=bodies.PastEvents,
        errors=(404,),
        refuses_states=True,
    ),
)
async def import_events(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Keep history of another server, marked `imported`. Nobody is told, and a repeat changes nothing."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, idOrSlug)
    happened = bodies.past_of(await read_model(request, bodies.PastEvents), context.now())
    imported, known = await context.db.write(service.import_history, caller, idOrSlug, happened)
    return json_answer({"imported": imported, "known": known})


def _is_seq(value: str) -> bool:
    return value.isascii() and value.isdigit() and len(value) <= 18  # noqa: PLR2004 - what fits 63 bits


# The hot route ------------------------------------------------------------------------------------------------------
CHECK_IN = operation(
    "checkin",
    answer=(200, schemas.CheckInAnswer),
    body=bodies.CheckInBody,
    is_body_required=False,
    examples=bodies.CHECK_INS,
    errors=(404,),
)
CHECK_IN["openapi_extra"]["parameters"] = [
    {"name": "idOrSlug", "in": "path", "required": True, "schema": {"type": "string"}},
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "A repeat within 24 hours answers as before and records nothing.",
        "schema": {"type": "string", "minLength": 1, "maxLength": _MAX_IDEMPOTENCY_KEY, "pattern": "^[!-~]+$"},
    },
]


async def check_in(request: Request) -> Response:
    """Record proof of life. Answers 200 in every state, once it is on disk."""
    caller = await caller_of(request, "checkins:write")
    context = context_of(request)
    ref = request.path_params["idOrSlug"]
    try:
        raw = await read_body(request)
        healthy, metadata = _parsed(raw) if raw else (True, None)
        key = _checked_key(header_of(request, _IDEMPOTENCY_KEY))
    except InvalidInput:
        # A missing heartbeat is told before a bad body; only a bad body pays for looking.
        await context.db.read(service.get, caller.project_id, ref)
        raise
    # From here to the writer's queue there is no await: the stamp decides who was first.
    item = CheckIn(caller.project_id, caller.key_id, ref, healthy, metadata, context.now(), key)
    check_ins = cast("CheckIns", request.app.state.check_ins)
    answer: Answer = await context.db.write_batched(check_ins.record, item)
    return _recorded(context, answer)


def direct_check_in(state: State) -> DirectRoute:
    """The same for requests that are plainly right."""
    context = cast("Context", state.context)
    keyring, check_ins = cast("Keyring", state.keyring), cast("CheckIns", state.check_ins)

    def work(asked: Asked) -> Work | None:
        caller = keyring.known_caller(asked.header(b"authorization"))
        if caller is None or not caller.allows("checkins:write"):
            return None
        ref = asked.path[_BEFORE_REF:_AFTER_REF]
        healthy, metadata = _parsed(asked.body) if asked.body else (True, None)
        key = _checked_key(asked.header(_IDEMPOTENCY_KEY))
        item = CheckIn(caller.project_id, caller.key_id, ref, healthy, metadata, context.now(), key)
        return Work(check_ins.record, item, partial(_recorded, context))

    return DirectRoute(frozenset({b"POST"}), _PLAIN_CHECK_IN, _PLAIN_BYTES, work)


def _recorded(context: Context, answer: Answer) -> Response:
    context.db.failpoints.hit("checkin.after_commit")
    return MadeJson(answer.body, *_REPLAYED) if answer.is_replay else MadeJson(answer.body)


_REPLAYED = ((b"idempotent-replayed", b"true"),)
_IDEMPOTENCY_KEY = b"idempotency-key"
_PLAIN_CHECK_IN = re.compile(rb"/v1/heartbeats/[A-Za-z0-9._~-]+/checkin")
_BEFORE_REF, _AFTER_REF = len("/v1/heartbeats/"), -len("/checkin")
_PLAIN_BYTES = 16_384


def _parsed(raw: bytes) -> tuple[bool, str | None]:
    values = parse_object(raw, required=False)
    if not values:
        return True, None
    body = validate(bodies.CheckInBody, values)
    return body.healthy, bodies.json_text(body.metadata)


def _checked_key(sent: bytes | None) -> str | None:
    if sent is None:
        return None
    key = sent.decode("latin-1")
    if not (1 <= len(key) <= _MAX_IDEMPOTENCY_KEY and key.isascii() and key.isprintable()):
        raise InvalidInput(Fault("Idempotency-Key", f"must be 1 to {_MAX_IDEMPOTENCY_KEY} printable ASCII characters"))
    return key
