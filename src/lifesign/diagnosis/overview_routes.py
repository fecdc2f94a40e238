"""HTTP of overviews: the dashboard, and the report for reading."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.service import telemetry_caller
from lifesign.clock import EpochMs
from lifesign.diagnosis import overview, report, service, shown
from lifesign.http.context import base_url, context_of
from lifesign.http.ok import Json, ok_answer, ok_operation
from lifesign.projects import service as projects
from lifesign.telemetry import asked
from lifesign.telemetry.describe import READ_REFUSALS

router = APIRouter(tags=["Telemetry"])

_DAY_MS = 24 * 3_600_000


@router.get("/v1/dashboard", **ok_operation("readDashboard", answer=(200, shown.Dashboard), refusals=READ_REFUSALS))
async def read_dashboard(request: Request) -> Response:
    """The project of the key at a glance: the last 24 hours, the quota, the newest sessions."""
    caller = await telemetry_caller(request, "dashboard:read")
    context = context_of(request)
    seen = await overview.glance(context.db, asked.store_of(request), caller.project_id, context.now())
    return ok_answer(overview.shown(seen, base_url(request)))


def _report_operation() -> Json:
    told = ok_operation("readReport", answer=(200, None), refusals=READ_REFUSALS)
    markdown = {"text/markdown": {"schema": {"type": "string"}}}
    told["responses"][200] = {"content": markdown, "description": "The report."}
    return told


@router.get("/v1/reports/latest.md", **_report_operation())
async def read_report(request: Request) -> Response:
    """The latest diagnosis in Markdown, for people and for programs that read; without one, the last 24 hours."""
    caller = await telemetry_caller(request, "reports:read")
    context = context_of(request)
    now = context.now()
    latest = await context.db.read(service.latest_packet, caller.project_id, now)
    project = await context.db.read(projects.project, caller.project_id)
    if latest is not None:
        text = report.of_packet(project.title, service.packet_json(latest), base=base_url(request))
    else:
        window = EpochMs(now - _DAY_MS), EpochMs(now + 1)
        stats = await asked.store_of(request).stats(project.id, *window)
        text = report.without_packet(project.title, project.id, stats, window, now, base=base_url(request))
    return Response(text, media_type="text/markdown; charset=utf-8")
