"""HTTP of the settings of a project."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.service import caller_of
from lifesign.diagnosis.alerts import Alert
from lifesign.http.answers import json_answer
from lifesign.http.body import read_model
from lifesign.http.context import context_of
from lifesign.http.describe import operation
from lifesign.incidents.service import tuning_of
from lifesign.preferences import bodies, schemas, service

router = APIRouter(tags=["Settings"])


@router.get("/v1/settings", **operation("getSettings", answer=(200, schemas.ShownSettings)))
async def get_settings(request: Request) -> Response:
    """Read the settings of the project."""
    caller = await caller_of(request, "channels:read")
    found = await context_of(request).db.read(service.of_project, caller.project_id)
    return json_answer(schemas.shown_settings(found))


@router.patch(
    "/v1/settings", **operation("updateSettings", answer=(200, schemas.ShownSettings), body=bodies.SettingsChanges)
)
async def update_settings(request: Request) -> Response:
    """Change the settings of the project; `null` clears one."""
    caller = await caller_of(request, "channels:write")
    body = await read_model(request, bodies.SettingsChanges)
    context = context_of(request)
    changes: dict[str, Any] = {}  # Any: see service.change
    if "fallbackChannel" in body.given():
        changes["fallback_channel"] = body.fallbackChannel
    if "diagnosisAlert" in body.given():
        wanted = body.diagnosisAlert
        changes["alert"] = None if wanted is None else Alert(wanted.policy, wanted.severity)
    found = await context.db.write(
        service.change,
        caller,
        changes,
        tuning=tuning_of(context.settings),
        max_heartbeats=context.settings.max_heartbeats,
        now=context.now(),
    )
    return json_answer(schemas.shown_settings(found))
