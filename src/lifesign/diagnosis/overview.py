"""A project at a glance: what the dashboard tells, as JSON and on a page."""

from dataclasses import dataclass

from sqlalchemy import Connection

from lifesign.clock import EpochMs, rfc3339
from lifesign.db import Database
from lifesign.diagnosis import service
from lifesign.http.ok import Json
from lifesign.projects import service as projects
from lifesign.projects.service import Project
from lifesign.telemetry import asked
from lifesign.telemetry.rules import next_month
from lifesign.telemetry.sessions import Summary
from lifesign.telemetry.store import SpanStore, Stats
from lifesign.telemetry.wire import usd

DAY_MS = 24 * 3_600_000
_RECENT = 10
_TOP = 5
_IN_SHORT = ("packet_id", "status", "created_at", "since_minutes", "telemetry_read", "failures")


@dataclass(frozen=True, slots=True)
class Quota:
    """Records of this month. limit: 0 for any number; remaining: None then."""

    limit: int
    used: int
    resets_at: EpochMs

    @property
    def remaining(self) -> int | None:
        """How many may still come."""
        return max(0, self.limit - self.used) if self.limit else None


@dataclass(frozen=True, slots=True)
class Glance:
    """The last 24 hours of a project, its quota, the newest sessions and the latest packet, if there is one."""

    project: Project
    quota: Quota
    window: tuple[EpochMs, EpochMs]
    stats: Stats
    recent: list[Summary]
    packet: Json | None
    store_kind: str

    @property
    def top_issues(self) -> list[Json]:
        """The issues of the latest packet that weigh most."""
        return [] if self.packet is None else list(self.packet["issues"][:_TOP])


async def glance(db: Database, store: SpanStore, project_id: str, now: EpochMs) -> Glance:
    """A project at a glance. Raises ProjectNotFound."""
    window = EpochMs(now - DAY_MS), EpochMs(now + 1)
    stats = await store.stats(project_id, *window)
    project, packet = await db.read(_kept, project_id, now)
    recent = await store.sessions(project_id, *window, environment=None, limit=_RECENT, after=None)
    quota = Quota(project.quota_spans, await store.used(project_id, now), next_month(now))
    return Glance(project, quota, window, stats, recent, packet, store.kind)


def _kept(conn: Connection, project_id: str, now: EpochMs) -> tuple[Project, Json | None]:
    latest = service.latest_packet(conn, project_id, now)
    return projects.project(conn, project_id), None if latest is None else service.packet_json(latest)


def shown(seen: Glance, base: str) -> Json:
    """The answer of `GET /v1/dashboard`."""
    stats, oldest = seen.stats, seen.stats.oldest_received_at
    return {
        "project": _project(seen.project),
        "quota": {
            "limit": seen.quota.limit,
            "used": seen.quota.used,
            "remaining": seen.quota.remaining,
            "resets_at": rfc3339(seen.quota.resets_at),
        },
        "window": asked.shown_window(seen.window),
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
        "top_issues": seen.top_issues,
        "latest_packet": None if seen.packet is None else _in_short(seen.packet),
        "recent_sessions": [each.wire() for each in seen.recent],
        "store": {
            "kind": seen.store_kind,
            "oldest_received_at": None if oldest is None else rfc3339(oldest),
            "pending_records": stats.pending_records,
        },
        "links": links(base),
    }


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


def links(base: str) -> Json:
    """Where to go on with the key."""
    return {
        "ingest": f"{base}/v1/traces",
        "diagnose": f"{base}/v1/runs/diagnose",
        "telemetry": f"{base}/v1/telemetry",
        "sessions": f"{base}/v1/sessions",
        "report": f"{base}/v1/reports/latest.md",
        "docs": f"{base}/llms.txt",
    }
