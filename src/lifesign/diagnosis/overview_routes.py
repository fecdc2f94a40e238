"""HTTP of overviews: the dashboard, and the report for reading."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from lifesign.auth.service import telemetry_caller
from lifesign.clock import EpochMs, rfc3339
from lifesign.diagnosis import report, service, shown
from lifesign.http.context import base_url, context_of
from lifesign.http.ok import Json, ok_answer, ok_operation
from lifesign.projects import service as projects
from lifesign.projects.service import Project
from lifesign.telemetry import asked
from lifesign.telemetry.describe import READ_REFUSALS
from lifesign.telemetry.rules import next_month
from lifesign.telemetry.wire import usd

router = APIRouter(tags=["Telemetry"])

_DAY_MS = 24 * 3_600_000
_RECENT = 10
_TOP = 5
_IN_SHORT = ("packet_id", "status", "created_at", "since_minutes", "telemetry_read", "failures")


@router.get("/v1/dashboard", **ok_operation("readDashboard", answer=(200, shown.Dashboard), refusals=READ_REFUSALS))
async def read_dashboard(request: Request) -> Response:
    """The project of the key at a glance: the last 24 hours, the quota, the newest sessions."""
    caller = await telemetry_caller(request, "dashboard:read")
    context, store = context_of(request), asked.store_of(request)
    now = context.now()
    window = EpochMs(now - _DAY_MS), EpochMs(now + 1)
    stats = await store.stats(caller.project_id, *window)
    project = await context.db.read(projects.project, caller.project_id)
    recent = await store.sessions(project.id, *window, environment=None, limit=_RECENT, after=None)
    latest = await context.db.read(service.latest_packet, project.id)
    packet = None if latest is None else service.packet_json(latest)
    oldest = stats.oldest_received_at
    return ok_answer(
        {
            "project": _project(project),
            "quota": _quota(project, await store.used(project.id, now), now),
            "window": asked.shown_window(window),
            "totals": {
                "records": stats.records,
                "failures": stats.failures,
                "sessions": stats.sessions,
                "traces": stats.traces,
                "tokens": stats.totals.wire_tokens(),
                "cost_usd": usd(stats.totals.cost_nano),
            },
            "failures_by_signal": stats.failures_by_signal,
            "sessions_by_outcome": stats.sessions_by_outcome,
            "top_issues": [] if packet is None else packet["issues"][:_TOP],
            "latest_packet": None if packet is None else _in_short(packet),
            "recent_sessions": [each.wire() for each in recent],
            "store": {
                "kind": store.kind,
                "oldest_received_at": None if oldest is None else rfc3339(oldest),
                "pending_records": stats.pending_records,
            },
            "links": _links(base_url(request)),
        }
    )


def _in_short(packet: Json) -> Json:
    return {name: packet[name] for name in _IN_SHORT} | {"issues": len(packet["issues"])}


def _project(project: Project) -> Json:
    return {
        "project_id": project.id,
        "project_name": project.title,
        "tenant_id": project.tenant_id,
        "plan": project.plan,
        "expires_at": None if project.expires_at is None else rfc3339(project.expires_at),
        "graduated": project.expires_at is None,
    }


def _quota(project: Project, used: int, now: EpochMs) -> Json:
    limit = project.quota_spans
    return {
        "limit": limit,
        "used": used,
        "remaining": max(0, limit - used) if limit else None,
        "resets_at": rfc3339(next_month(now)),
    }


def _links(base: str) -> Json:
    return {
        "ingest": f"{base}/v1/traces",
        "diagnose": f"{base}/v1/runs/diagnose",
        "telemetry": f"{base}/v1/telemetry",
        "sessions": f"{base}/v1/sessions",
        "report": f"{base}/v1/reports/latest.md",
        "docs": f"{base}/llms.txt",
    }


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
    latest = await context.db.read(service.latest_packet, caller.project_id)
    project = await context.db.read(projects.project, caller.project_id)
    if latest is not None:
        text = report.of_packet(project.title, service.packet_json(latest))
    else:
        now = context.now()
        window = EpochMs(now - _DAY_MS), EpochMs(now + 1)
        stats = await asked.store_of(request).stats(project.id, *window)
        text = report.without_packet(project.title, project.id, stats, window, now, base=base_url(request))
    return Response(text, media_type="text/markdown; charset=utf-8")
