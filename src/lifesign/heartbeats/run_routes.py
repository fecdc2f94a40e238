"""HTTP of runs: begun, reported on, ended, listed."""

import re
from typing import cast

import orjson
from fastapi import APIRouter
from sqlalchemy import Connection
from starlette.datastructures import State
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.rules import Caller
from lifesign.auth.service import Keyring, caller_of
from lifesign.faults import Fault, InvalidInput
from lifesign.heartbeats import running, service
from lifesign.heartbeats.running import Progress, Reporter
from lifesign.http.answers import MadeJson, json_answer
from lifesign.http.body import parse_object, read_body, read_model
from lifesign.http.context import Context, context_of
from lifesign.http.describe import PAGING, operation
from lifesign.http.direct import Asked, DirectRoute, Work
from lifesign.http.paging import is_id, page_body, page_of
from lifesign.http.validation import validate
from lifesign.incidents.service import tuning_of
from lifesign.runs import schemas
from lifesign.runs import service as runs
from lifesign.runs.rules import Durations, Report, Run

router = APIRouter(tags=["Runs"])


def _reporter(caller: Caller, ref: str) -> Reporter:
    return Reporter(caller.project_id, caller.key_id, ref)


@router.post(
    "/v1/heartbeats/{idOrSlug}/runs",
    **operation(
        "startRun",
        answer=(201, schemas.ShownRun),
        body=schemas.NewRun,
        is_body_required=False,
        examples=schemas.NEW_RUNS,
        errors=(404,),
        refuses_states=True,
        also=(200,),
        links={"runId=runId": ("getRun", "reportProgress", "finishRun")},
    ),
)
async def start_run(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """Begin a run. With a lease, its silence fires the heartbeat; 200 for a run that is open already."""
    caller = await caller_of(request, "checkins:write")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, idOrSlug)
    body = await read_model(request, schemas.NewRun, required=False)
    run, is_new = await context.db.write(
        running.start,
        _reporter(caller, idOrSlug),
        body.runId,
        schemas.report_of(body),
        max_ms=body.maxDuration * 1000 if "maxDuration" in body.given() else None,
        now=context.now(),
    )
    return json_answer(schemas.shown(run), 201 if is_new else 200)


PROGRESS = operation(
    "reportProgress",
    answer=(200, schemas.ShownRun),
    body=schemas.Progress,
    is_body_required=False,
    errors=(404,),
    refuses_states=True,
)
PROGRESS["openapi_extra"]["parameters"] = [
    {"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in ("idOrSlug", "runId")
]


async def report_progress(request: Request) -> Response:
    """Say that a run goes on: its lease counts from now. A stalled one resolves the incident that it caused."""
    caller = await caller_of(request, "checkins:write")
    context = context_of(request)
    ref, run_id = request.path_params["idOrSlug"], request.path_params["runId"]
    try:
        raw = await read_body(request)
        report = _report_of(raw)
    except InvalidInput:
        # A missing run is told before a bad body; only a bad body pays for looking.
        await context.db.read(running.get, caller.project_id, ref, run_id)
        raise
    item = Progress(_reporter(caller, ref), run_id, report, context.now())
    run: Run = await context.db.write_batched(running.progress, item)
    return _reported(run)


def direct_progress(state: State) -> DirectRoute:
    """The same for requests that are plainly right."""
    context, keyring = cast("Context", state.context), cast("Keyring", state.keyring)

    def work(asked: Asked) -> Work | None:
        caller = keyring.known_caller(asked.header(b"authorization"))
        if caller is None or not caller.allows("checkins:write"):
            return None
        ref, _, run_id = asked.path[_BEFORE_REF:_AFTER_RUN].partition("/runs/")
        item = Progress(_reporter(caller, ref), run_id, _report_of(asked.body), context.now())
        return Work(running.progress, item, _reported)

    return DirectRoute(frozenset({b"POST"}), _PLAIN_PROGRESS, _PLAIN_BYTES, work)


_PLAIN_PROGRESS = re.compile(rb"/v1/heartbeats/[A-Za-z0-9._~-]+/runs/[A-Za-z0-9._~-]+/progress")
_BEFORE_REF, _AFTER_RUN = len("/v1/heartbeats/"), -len("/progress")
_PLAIN_BYTES = 16_384


def _reported(run: Run) -> Response:
    return MadeJson(orjson.dumps(schemas.shown(run)))


def _report_of(raw: bytes) -> Report:
    if not raw:
        return Report()
    return schemas.report_of(validate(schemas.Progress, parse_object(raw, required=False)))


@router.post(
    "/v1/heartbeats/{idOrSlug}/runs/{runId}/finish",
    **operation(
        "finishRun",
        answer=(200, schemas.ShownRun),
        body=schemas.Finish,
        is_body_required=False,
        errors=(404,),
        refuses_states=True,
    ),
)
async def finish_run(request: Request, idOrSlug: str, runId: str) -> Response:  # noqa: N803 - the published names
    """End a run, which is a check-in: a healthy one, or with `ok` false an unhealthy one."""
    caller = await caller_of(request, "checkins:write")
    context = context_of(request)
    await context.db.read(running.get, caller.project_id, idOrSlug, runId)
    body = await read_model(request, schemas.Finish, required=False)
    run = await context.db.write(
        running.finish,
        _reporter(caller, idOrSlug),
        runId,
        schemas.report_of(body),
        ok=body.ok,
        tuning=tuning_of(context.settings),
        now=context.now(),
    )
    return json_answer(schemas.shown(run))


@router.get(
    "/v1/heartbeats/{idOrSlug}/runs",
    **operation(
        "listRuns",
        answer=(200, schemas.RunList),
        parameters=(
            *PAGING,
            {"name": "status", "in": "query", "schema": {"type": "string", "enum": list(schemas.STATUSES)}},
        ),
        errors=(400, 404),
    ),
)
async def list_runs(request: Request, idOrSlug: str) -> Response:  # noqa: N803 - the published name of the parameter
    """List the newest runs of a heartbeat, and how long they took."""
    caller = await caller_of(request, "heartbeats:read")
    db = context_of(request).db
    await db.read(service.get, caller.project_id, idOrSlug)
    page = page_of(request, is_id("hbr"))
    status = request.query_params.get("status")
    if status is not None and status not in schemas.STATUSES:
        raise InvalidInput(
            Fault("status", f"must be one of {', '.join(schemas.STATUSES)}", status[:100], has_value=True)
        )
    rows, durations = await db.read(
        _listed, caller.project_id, idOrSlug, limit=page.limit + 1, before=page.after, status=status
    )
    body = page_body("runs", rows, page, key=lambda row: row.id, show=schemas.shown)
    if durations is not None:
        body["durations"] = schemas.shown_durations(durations)
    return json_answer(body)


def _listed(
    conn: Connection, project_id: str, ref: str, *, limit: int, before: str | None, status: str | None
) -> tuple[list[Run], Durations | None]:
    heartbeat_id = service.get(conn, project_id, ref).id
    rows = runs.list_runs(conn, heartbeat_id, limit=limit, before=before, status=status)
    return rows, runs.durations(conn, heartbeat_id) if before is None else None


@router.get(
    "/v1/heartbeats/{idOrSlug}/runs/{runId}", **operation("getRun", answer=(200, schemas.ShownRun), errors=(404,))
)
async def get_run(request: Request, idOrSlug: str, runId: str) -> Response:  # noqa: N803 - the published names
    """Read a run."""
    caller = await caller_of(request, "heartbeats:read")
    run = await context_of(request).db.read(running.get, caller.project_id, idOrSlug, runId)
    return json_answer(schemas.shown(run))
