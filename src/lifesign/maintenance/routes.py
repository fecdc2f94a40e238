"""HTTP of maintenance windows."""

from typing import cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.service import caller_of
from lifesign.http.answers import json_answer, no_content
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.describe import PAGING, operation
from lifesign.http.paging import is_id, page_body, page_of
from lifesign.maintenance import bodies, schemas, service
from lifesign.maintenance.service import Coverage

router = APIRouter(tags=["Maintenance"])


@router.post(
    "/v1/maintenance",
    **operation(
        "createMaintenance",
        answer=(201, schemas.ShownWindow),
        body=bodies.NewWindow,
        examples=bodies.NEW_WINDOWS,
        links={"id=id": ("getMaintenance", "updateMaintenance", "deleteMaintenance")},
    ),
)
async def create_window(request: Request) -> Response:
    """Announce a maintenance window, once or by schedule: inside it silence opens no incident."""
    caller = await caller_of(request, "heartbeats:write")
    body = await read_model(request, bodies.NewWindow)
    context = context_of(request)
    now = context.now()
    window = await context.db.write(
        service.create,
        caller.project_id,
        bodies.definition_of(body),
        coverage=_coverage(request),
        origin=body.origin,
        now=now,
    )
    return json_answer(schemas.shown(window, now), 201)


@router.get(
    "/v1/maintenance",
    **operation("listMaintenance", answer=(200, schemas.WindowList), parameters=PAGING, errors=(400,)),
)
async def list_windows(request: Request) -> Response:
    """List the maintenance windows of the project, those that are over included."""
    caller = await caller_of(request, "heartbeats:read")
    page = page_of(request, is_id("mw"))
    context = context_of(request)
    rows = await context.db.read(service.list_windows, caller.project_id, limit=page.limit + 1, after=page.after)
    now = context.now()
    return json_answer(
        page_body("maintenance", rows, page, key=lambda row: row.id, show=lambda row: schemas.shown(row, now))
    )


@router.get("/v1/maintenance/{id}", **operation("getMaintenance", answer=(200, schemas.ShownWindow), errors=(404,)))
async def get_window(request: Request, id: str) -> Response:  # noqa: A002 - the parameter's name on the wire
    """Read a maintenance window."""
    caller = await caller_of(request, "heartbeats:read")
    context = context_of(request)
    window = await context.db.read(service.get, caller.project_id, id)
    return json_answer(schemas.shown(window, context.now()))


@router.patch(
    "/v1/maintenance/{id}",
    **operation(
        "updateMaintenance",
        answer=(200, schemas.ShownWindow),
        body=bodies.WindowChanges,
        examples={"for others": {"tags": ["db", "web"]}},
        errors=(404,),
    ),
)
async def update_window(request: Request, id: str) -> Response:  # noqa: A002 - the parameter's name on the wire
    """Change a maintenance window, open or not."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.read(service.get, caller.project_id, id)
    body = await read_model(request, bodies.WindowChanges)
    now = context.now()
    window = await context.db.write(
        service.edit,
        caller.project_id,
        id,
        bodies.changes_of(body),
        check=bodies.edited,
        coverage=_coverage(request),
        now=now,
    )
    return json_answer(schemas.shown(window, now))


@router.delete("/v1/maintenance/{id}", **operation("deleteMaintenance", answer=(204, None), errors=(404,)))
async def delete_window(request: Request, id: str) -> Response:  # noqa: A002 - the parameter's name on the wire
    """Delete a maintenance window; one that is open ends now."""
    caller = await caller_of(request, "heartbeats:write")
    context = context_of(request)
    await context.db.write(service.delete, caller.project_id, id, coverage=_coverage(request), now=context.now())
    return no_content()


def _coverage(request: Request) -> Coverage:
    return cast("Coverage", request.app.state.coverage)
