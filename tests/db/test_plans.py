"""Hot statements find their rows by an index, on both databases, in tables that are full.

Each statement is run as the product runs it and caught on its way to the driver; the database is then asked how it
would go about it, with the same parameters. What matters is the name of the index: a tick of the engine costs what is
due, not what exists.
"""

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import Connection, Engine, event, text

from lifesign.auth import store as keys
from lifesign.auth.vitals import store as vitals_keys
from lifesign.bots import board as bot_board
from lifesign.bots import run_store as bot_runs
from lifesign.bots import store as bot_schedules
from lifesign.channels import store as channels
from lifesign.clock import EpochMs
from lifesign.db import migrate
from lifesign.db.open import postgres_engine, sqlite_engine
from lifesign.db.schema import metadata
from lifesign.events import store as events
from lifesign.heartbeats import store as heartbeats
from lifesign.incidents import store as incidents
from lifesign.inventory import store as inventory
from lifesign.maintenance import store as maintenance
from lifesign.projects import store as projects
from lifesign.projects.rules import Identity
from lifesign.runs import store as runs
from lifesign.settings import Settings
from lifesign.systems import store as systems
from lifesign.systems.store import Filters, Position
from lifesign.usage import store as usage
from lifesign.usage.store import Position as ErrorPosition
from lifesign.vitals import store as measurements
from tests.conftest import DATABASES
from tests.postgres import Databases

NOW = EpochMs(1_767_614_400_000)
_ROWS = 6000
# One of two hundred: it owns the rows 7, 207, 407, ...
_PROJECT = "prj_7"


@pytest.fixture(scope="module", params=DATABASES)
def full(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engine]:
    """A database with thousands of rows in every hot table, few of which are due."""
    if request.param == "sqlite":
        yield from _filled(sqlite_engine(tmp_path_factory.mktemp("full") / "lifesign.db"))
        return
    cluster: Databases = request.getfixturevalue("cluster")
    with cluster.new_database() as url:
        settings = Settings(data_dir=Path("unused"), database_url=SecretStr(url))
        yield from _filled(postgres_engine(settings, size=1))


def _filled(engine: Engine) -> Iterator[Engine]:
    migrate.upgrade(engine)
    with engine.begin() as conn:
        for name, row in _TABLES.items():
            conn.execute(metadata.tables[name].insert(), [row(n) for n in range(_ROWS)])
        conn.execute(text("ANALYZE"))
    yield engine
    engine.dispose()


def _project(n: int) -> str:
    return f"prj_{n % 200}"


def _id(prefix: str, n: int) -> str:
    return f"{prefix}_{n:032x}"


def _uuid(n: int) -> str:
    return str(uuid.UUID(int=n))


def _heartbeat(n: int) -> dict[str, Any]:  # Any, here and below: a row
    due = NOW - 1000 + n * 60_000
    return {
        "id": _id("hb", n),
        "project_id": _project(n),
        "name": f"Job {n}",
        "slug": f"job-{n}",
        "ping_id": _uuid(n),
        "mode": "recurring",
        "interval_ms": 3_600_000,
        "timezone": "UTC",
        "grace_ms": 60_000,
        "policy_id": _id("pol", n) if n % 3 == 0 else None,
        "namespace": f"space-{n % 500}",
        "is_sticky_pause": 1,
        "search": f"job {n}\njob-{n}",
        "status": "firing" if n % 1000 == 7 else "active",
        "is_armed": 1,
        "anchor_at": NOW,
        "checkin_count": 0,
        "next_deadline": due,
        "fires_at": due,
        "armed_at": NOW,
        "check_at": due,
        "created_at": NOW,
    }


def _event(n: int) -> dict[str, Any]:
    return {
        "id": _id("evt", n),
        "project_id": _PROJECT,
        "heartbeat_id": _id("hb", n % 200),
        "type": "checkin",
        "metadata": "{}",
        "created_at": NOW,
    }


def _incident(n: int) -> dict[str, Any]:
    return {
        "id": _id("inc", n),
        "project_id": _project(n),
        "heartbeat_id": _id("hb", n),
        "policy_id": _id("pol", n % 500),
        "reason": "missed",
        "status": "open" if n % 100 == 0 else "resolved",
        "escalation": "done",
        "opened_at": NOW,
        "steps_run": 0,
        "loop": 0,
        "next_seq": 0,
    }


def _timer(n: int) -> dict[str, Any]:
    return {
        "kind": "escalate",
        "subject_id": _id("inc", n),
        "project_id": _PROJECT,
        "due_at": NOW - 1000 + n * 60_000,
    }


def _lane(n: int) -> dict[str, Any]:
    return {
        "channel_id": _id("ch", n),
        "project_id": _PROJECT,
        "type": "webhook",
        "due_at": NOW - 1000 + n * 60_000 if n % 10 == 0 else None,
    }


def _channel(n: int) -> dict[str, Any]:
    return {
        "id": _id("ch", n),
        "project_id": _PROJECT,
        "name": f"Hook {n}",
        "type": "webhook",
        "config": "{}",
        "broken_reason": "410" if n % 100 == 0 else None,
        "broken_at": NOW if n % 100 == 0 else None,
        "created_at": NOW,
    }


def _notification(n: int) -> dict[str, Any]:
    status = ("pending", "sending", *["sent"] * 30)[n % 32]
    return {
        "id": _id("ntf", n),
        "project_id": _PROJECT,
        "idem_key": f"key {n}",
        "incident_id": _id("inc", n),
        "heartbeat_id": _id("hb", n),
        "target": "channel:x",
        "channel_id": _id("ch", n % 20),
        "kind": "page",
        "step": 1,
        "loop": 0,
        "priority": 10,
        "status": status,
        "attempt": 0,
        "not_before": NOW - 1000,
        "expires_at": NOW + 1_000_000,
        "lease_until": NOW - 1000 + n * 1000 if status == "sending" else None,
        "lease_token": 0,
        "maybe_sent": 0,
        "has_failed": 0,
        "is_withdrawn": 0,
        "order_key": f"order {n // 2}",
        "order_seq": n % 2,
        "payload": "{}",
        "created_at": NOW,
        "finished_at": NOW - n if status == "sent" else None,
    }


def _attempt(n: int) -> dict[str, Any]:
    return {
        "id": _id("att", n),
        "project_id": _PROJECT,
        "notification_id": _id("ntf", n),
        "n": 1,
        "node_id": "node_1",
        "started_at": NOW,
    }


def _key(n: int) -> dict[str, Any]:
    return {
        "id": _id("key", n),
        "project_id": _PROJECT,
        "name": "k",
        "hash": n.to_bytes(32, "big"),
        "prefix": "lsk_",
        "scopes": "[]",
        "is_bootstrap": 0,
        "created_at": NOW,
    }


def _kept_answer(n: int) -> dict[str, Any]:
    return {
        "heartbeat_id": _id("hb", n % 100),
        "key": f"k{n}",
        "project_id": _PROJECT,
        "body": "{}",
        "created_at": NOW + n,
    }


def _run(n: int) -> dict[str, Any]:
    return {
        "id": _id("hbr", n),
        "project_id": _PROJECT,
        "heartbeat_id": _id("hb", n % 200),
        "run_id": f"r{n}",
        "status": "finished" if n % 30 else "running",
        "started_at": NOW - n,
        "finished_at": NOW if n % 30 else None,
        "is_watched": 1,
    }


def _dependency(n: int) -> dict[str, Any]:
    return {"heartbeat_id": _id("hb", n), "depends_on_id": _id("hb", n // 2), "project_id": _project(n)}


def _window(n: int) -> dict[str, Any]:
    return {
        "id": _id("mw", n),
        "project_id": _project(n),
        "name": "w",
        "starts_at": NOW - n,
        "ends_at": NOW + 1,
        "timezone": "UTC",
        "target": "all",
        "members": "[]",
        "created_at": NOW,
    }


def _system_id(n: int) -> str:
    return f"00000000-0000-7000-8000-{n:012x}"


def _system(n: int) -> dict[str, Any]:
    return {
        "id": _system_id(n),
        "project_id": _project(n),
        "key": f"SYS-{n:04X}",
        "name": f"m{n}",
        "type": "",
        "fqdn": "",
        "notes": "",
        "heartbeat_id": _id("hb", n),
        "secret_hash": "x",
        "secret_hint": "x",
        "credential_version": 1,
        "created_at": NOW + n,
        "updated_at": NOW,
        "search": "",
    }


def _snapshot(n: int) -> dict[str, Any]:
    return {
        "id": _id("snp", n),
        "project_id": _PROJECT,
        "system_id": _system_id(n % 200),
        "created_at": NOW,
        "last_seen_at": NOW,
        "document_bytes": 2,
        "changes": 0,
        "hash": b"",
        "document": b"",
    }


def _change(n: int) -> dict[str, Any]:
    return {
        "id": _id("chg", n),
        "project_id": _PROJECT,
        "system_id": _system_id(n % 200),
        "at": NOW,
        "path": "",
        "op": "changed",
        "category": "os",
        "severity": "high",
    }


def _sandbox(n: int) -> dict[str, Any]:
    return {
        "id": f"shop-{n:08x}",
        "name": f"shop-{n:08x}",
        "created_at": NOW,
        "expires_at": NOW + n * 1000,
        "deleted_at": NOW if n % 1000 == 0 else None,
    }


def _name(n: int) -> dict[str, Any]:
    return {"tenant_id": "sandbox", "operator_key": "", "name_key": f"shop {n}", "project_id": f"shop-{n:08x}"}


def _call(n: int) -> dict[str, Any]:
    limiter = "mint" if n % 3 else "recover"
    return {"limiter": limiter, "network": f"10.0.0.{n % 200}", "at": NOW - n * 600}


def _vitals_key(n: int) -> dict[str, Any]:
    return {
        "project_id": _PROJECT,
        "name": "k",
        "email": f"a{n // 3}@x.io",
        "email_identity": f"a{n // 3}@x.io",
        "slot": n % 3 + 1,
        "hash": f"{n:064x}",
        "prefix": "beam_0000",
        "created_at": NOW,
    }


def _measurement(n: int) -> dict[str, Any]:
    whose = {"key_id": 0, "user_id": f"usr_{n % 50}"} if n % 2 else {"key_id": 1 + n % 50, "user_id": None}
    return {
        "id": _id("ms", n),
        "project_id": _PROJECT if n % 3 else "prj_other",
        "created_at": NOW - n * 60_000,
        "report": "{}",
        **whose,
    }


_REQUESTS = {
    **dict.fromkeys(("total", "client_errors", "server_errors", "duration_sum_ms", "duration_count"), 1),
    "duration_min_ms": 1,
    "duration_max_ms": 1,
}


def _minute(n: int) -> dict[str, Any]:
    return {"minute": NOW - n * 60_000, **_REQUESTS}


def _hour(n: int) -> dict[str, Any]:
    return {"hour": NOW - n * 3_600_000, **_REQUESTS}


def _durations(n: int) -> dict[str, Any]:
    return {"hour": NOW - n // 10 * 3_600_000, "bin": n % 10, "count": 1}


def _durations_of_days(n: int) -> dict[str, Any]:
    return {"day": NOW - n // 10 * 86_400_000, "bin": n % 10, "count": 1}


def _error(n: int) -> dict[str, Any]:
    at = NOW - n * 60_000
    return {"error_type": "client_error", "message": f"{n}", "count": 1, "first_seen": at, "last_seen": at}


def _bot_setting(n: int) -> dict[str, Any]:
    return {"project_id": f"prj_{n}", "plan": "self-hosted", "options": "{}", "updated_at": NOW}


def _bot(n: int) -> dict[str, Any]:
    switches = dict.fromkeys(("is_online", "is_scheduling"), 1)
    return {"id": _id("bot", n), "project_id": _project(n), "name": f"Bot {n}", "options": "{}", **switches} | _MADE


def _schedule(n: int) -> dict[str, Any]:
    counts = dict.fromkeys(("version", "execution_count", "error_count", "max_errors"), 0)
    return {
        "id": _id("sch", n),
        "project_id": _project(n),
        "bot_id": _id("bot", n % 3000),
        "member_id": "",
        "prompt": f"Look at {n}",
        "prompt_hash": f"{n}",
        "is_enabled": 1,
        "timezone": "UTC",
        "days": "",
        "options": "{}",
        "next_run_at": NOW - 1000 + n * 60_000,
        "heartbeat_id": _id("hb", n) if n % 7 == 0 else None,
        **counts,
        **_MADE,
    }


def _bot_run(n: int) -> dict[str, Any]:
    is_going_on = n % 600 == 7
    figures = ("input_tokens", "output_tokens", "requests", "tool_calls", "credits", "is_estimated", "reserved")
    return {
        "id": f"run_{NOW - n * 60_000:012x}{n:020x}",
        "project_id": _project(n),
        "bot_id": _id("bot", n % 200),
        "schedule_id": _id("sch", n % 200),
        "member_id": "",
        "kind": "slot",
        "status": "running" if is_going_on else "success",
        "effective_at": NOW,
        "count": 1,
        "missed_count": 0,
        "prompt": "Look",
        "finished_at": None if is_going_on else NOW,
        "lease_until": NOW + n * 1000 if is_going_on else None,
        "lease_token": 0,
        "created_at": NOW - n * 60_000,
        **dict.fromkeys(figures, 0),
    }


def _entry(n: int) -> dict[str, Any]:
    whose = {"project_id": _project(n), "bot_id": _id("bot", n % 200), "schedule_id": "sch_1", "run_id": f"run_{n}"}
    return {**whose, "period_start": NOW, "at": NOW - n, "input_tokens": 1, "output_tokens": 1, "credits": 1}


_MADE = {"created_at": NOW, "updated_at": NOW}

_TABLES: dict[str, Callable[[int], dict[str, Any]]] = {
    "heartbeats": _heartbeat,
    "events": _event,
    "incidents": _incident,
    "timers": _timer,
    "channels": _channel,
    "lanes": _lane,
    "notifications": _notification,
    "attempts": _attempt,
    "api_keys": _key,
    "idempotency_keys": _kept_answer,
    "runs": _run,
    "dependencies": _dependency,
    "maintenance": _window,
    "systems": _system,
    "inventory_snapshots": _snapshot,
    "inventory_changes": _change,
    "projects": _sandbox,
    "project_names": _name,
    "limited_calls": _call,
    "vitals_keys": _vitals_key,
    "measurements": _measurement,
    "usage_minutes": _minute,
    "usage_hours": _hour,
    "usage_latency": _durations,
    "usage_latency_days": _durations_of_days,
    "usage_errors": _error,
    "bot_settings": _bot_setting,
    "bots": _bot,
    "bot_schedules": _schedule,
    "bot_runs": _bot_run,
    "bot_ledger": _entry,
}


@dataclass(frozen=True, slots=True)
class Hot:
    """A statement that must stay quick. `index`: what its plan names; on PostgreSQL a primary key has another name."""

    name: str
    run: Callable[[Connection], object]
    index: str
    primary_key_of: str | None = None

    def expected(self, dialect: str) -> str:
        if self.primary_key_of is None:
            return self.index
        if dialect == "sqlite" and not metadata.tables[self.primary_key_of].dialect_options["sqlite"]["with_rowid"]:
            return f"{self.primary_key_of} USING PRIMARY KEY"
        return f"{self.primary_key_of}_pkey" if dialect == "postgresql" else f"sqlite_autoindex_{self.primary_key_of}_1"


def _page(conn: Connection, **filters: Any) -> object:  # Any: strings and lists
    wanted: dict[str, Any] = {"status": None, "namespace": None, "tags": [], "search": None} | filters
    return heartbeats.heartbeats_of(conn, _PROJECT, limit=101, after=_id("hb", 3000), **wanted)


_LATELY, _LONG_AGO = EpochMs(NOW - 600_000), EpochMs(NOW - 5990 * 60_000)
HOT = [
    Hot("vitals: whose key", lambda c: vitals_keys.key_by_hash(c, f"{7:064x}"), "uq_vitals_keys_hash"),
    Hot("vitals: many keys", lambda c: vitals_keys.ids_by_hash(c, [f"{7:064x}", "x"]), "uq_vitals_keys_hash"),
    Hot(
        "vitals: measurements of a key",
        lambda c: measurements.measurements_of(c, 7, limit=51, before=_id("ms", 900)),
        "ix_measurements_key",
    ),
    Hot(
        "vitals: a person's history",
        lambda c: measurements.own_measurements(c, _PROJECT, "usr_7", 50),
        "ix_measurements_user",
    ),
    Hot("vitals: old measurements", lambda c: measurements.delete_older(c, _LONG_AGO, 100), "ix_measurements_created"),
    Hot("vitals: places taken", lambda c: vitals_keys.taken_slots(c, "a7@x.io"), "uq_vitals_keys_slot"),
    Hot(
        "dashboard: buckets",
        lambda c: usage.buckets_since(c, _LATELY, 3_600_000),
        "",
        primary_key_of="usage_minutes",
    ),
    Hot("dashboard: sums", lambda c: usage.sums_since(c, _LATELY), "", primary_key_of="usage_minutes"),
    Hot("dashboard: sums of whole hours", lambda c: usage.sums_since(c, _LATELY), "", primary_key_of="usage_hours"),
    Hot("dashboard: durations", lambda c: usage.histogram_since(c, _LATELY), "", primary_key_of="usage_latency"),
    Hot(
        "dashboard: durations of whole days",
        lambda c: usage.histogram_since(c, _LATELY),
        "",
        primary_key_of="usage_latency_days",
    ),
    Hot(
        "dashboard: errors, first page",
        lambda c: usage.recent_errors(c, limit=51, after=None),
        "ix_usage_errors_last_seen",
    ),
    Hot(
        "dashboard: errors, later page",
        lambda c: usage.recent_errors(c, limit=51, after=ErrorPosition(EpochMs(NOW - 3000 * 60_000), 3000)),
        "ix_usage_errors_last_seen",
    ),
    Hot("prune: old minutes", lambda c: usage.delete_minutes(c, _LONG_AGO, 100), "", primary_key_of="usage_minutes"),
    Hot(
        "prune: old hours",
        lambda c: usage.delete_hours(c, EpochMs(NOW - 5990 * 3_600_000), 100),
        "",
        primary_key_of="usage_hours",
    ),
    Hot("prune: old errors", lambda c: usage.delete_errors(c, _LONG_AGO, 100), "ix_usage_errors_last_seen"),
    Hot(
        "prune: old durations",
        lambda c: usage.delete_latency(c, EpochMs(NOW - 590 * 3_600_000), 100),
        "",
        primary_key_of="usage_latency",
    ),
    Hot(
        "prune: old durations by the day",
        lambda c: usage.delete_latency_days(c, EpochMs(NOW - 590 * 86_400_000), 100),
        "",
        primary_key_of="usage_latency_days",
    ),
    Hot("sweep: what is due", lambda c: heartbeats.lock_due(c, NOW, 1000), "ix_heartbeats_check_at"),
    Hot("sweep: when the next is due", heartbeats.next_bound, "ix_heartbeats_check_at"),
    Hot(
        "escalate: due timers", lambda c: incidents.due_timers(c, NOW, 500, kind="escalate", lock=True), "ix_timers_due"
    ),
    Hot("escalate: when the next is due", incidents.next_timer, "ix_timers_due"),
    Hot(
        "deliver: due lanes",
        lambda c: channels.due_lanes(c, NOW, types=["webhook", "email"], without=["x"], limit=32),
        "ix_lanes_due",
    ),
    Hot(
        "deliver: when the next lane is due",
        lambda c: channels.next_lane_due(c, types=["webhook"], without=[]),
        "ix_lanes_due",
    ),
    Hot(
        "deliver: what may be claimed",
        lambda c: channels.claimable(c, _id("ch", 0), NOW, 100),
        "ix_notifications_pending",
    ),
    Hot(
        "deliver: what holds it up",
        lambda c: channels.claimable(c, _id("ch", 0), NOW, 100),
        "ix_notifications_order",
    ),
    Hot(
        "deliver: what has expired", lambda c: channels.expire_pending(c, _id("ch", 0), NOW), "ix_notifications_pending"
    ),
    Hot("deliver: what a probe waits for", lambda c: channels.lease_end(c, _id("ch", 1)), "ix_notifications_lease"),
    Hot("reap: expired leases", lambda c: channels.expired_leases(c, NOW, 500), "ix_notifications_lease"),
    Hot("reap: when the next lease ends", channels.next_lease_end, "ix_notifications_lease"),
    Hot("metrics: dead messages", channels.count_dead, "ix_notifications_dead"),
    Hot("close: who was told", lambda c: channels.told_of(c, _id("inc", 7)), "ix_notifications_incident"),
    Hot("close: withdraw pages", lambda c: channels.withdraw_pages(c, _id("inc", 7), NOW), "ix_notifications_incident"),
    Hot(
        "attempts of a page of messages", lambda c: channels.attempts_of(c, [_id("ntf", 7)]), "ix_attempts_notification"
    ),
    Hot(
        "check-in: by slug",
        lambda c: heartbeats.lock_waiting(c, ids=[], slugs={_PROJECT: ["job-7"]}),
        "uq_heartbeats_slug",
    ),
    Hot(
        "check-in: by id",
        lambda c: heartbeats.lock_waiting(c, ids=[_id("hb", 7)], slugs={}),
        "",
        primary_key_of="heartbeats",
    ),
    Hot(
        "ping: by uuid",
        lambda c: heartbeats.lock_waiting(c, ids=[], slugs={}, ping_ids=[_uuid(7)]),
        "uq_heartbeats_ping_id",
    ),
    Hot(
        "check-in: kept answers",
        lambda c: heartbeats.answers_kept(c, [(_id("hb", 7), "k7")]),
        "",
        primary_key_of="idempotency_keys",
    ),
    Hot("housekeeping: old answers", lambda c: heartbeats.forget_answers(c, NOW, 100), "ix_idempotency_keys_created"),
    Hot("get by slug", lambda c: heartbeats.by_ref(c, _PROJECT, "job-7"), "uq_heartbeats_slug"),
    Hot(
        "history, first page",
        lambda c: events.events_of(c, _id("hb", 7), limit=101, before_seq=None, event_type=None),
        "ix_events_heartbeat",
    ),
    Hot(
        "history, later page",
        lambda c: events.events_of(c, _id("hb", 7), limit=101, before_seq=3000, event_type=None),
        "ix_events_heartbeat",
    ),
    Hot("list, later page", _page, "ix_heartbeats_project"),
    Hot("list by status", lambda c: _page(c, status="firing"), "ix_heartbeats_status"),
    Hot("list by namespace", lambda c: _page(c, namespace="space-7"), "ix_heartbeats_namespace"),
    Hot("runs: open ones", lambda c: runs.open_of(c, [_id("hb", 7)]), "ix_runs_open"),
    Hot("runs: one", lambda c: runs.by_run_id(c, _id("hb", 7), "r7"), "uq_runs_run_id"),
    Hot(
        "runs: a page",
        lambda c: runs.runs_of(c, _id("hb", 7), limit=101, before=_id("hbr", 3000), status=None),
        "ix_runs_heartbeat",
    ),
    Hot("runs: those beyond the newest", lambda c: runs.delete_beyond(c, _id("hb", 7)), "ix_runs_heartbeat"),
    Hot("prune: silent runs", lambda c: runs.abandon(c, NOW, 100), "ix_runs_untouched"),
    Hot(
        "fire: what it depends on",
        lambda c: heartbeats.dependencies_of(c, [_id("hb", 7)]),
        "",
        primary_key_of="dependencies",
    ),
    Hot(
        "close: what depends on it", lambda c: heartbeats.dependents_of(c, [_id("hb", 7)]), "ix_dependencies_depends_on"
    ),
    Hot("sweep: open windows", lambda c: maintenance.current_of(c, [_PROJECT], NOW, NOW), "ix_maintenance_project"),
    Hot("users of a policy", lambda c: heartbeats.using_policy(c, _PROJECT, _id("pol", 207)), "ix_heartbeats_policy"),
    Hot(
        "open incidents of a policy",
        lambda c: incidents.lock_open_of_policy(c, _id("pol", 9)),
        "ix_incidents_open_policy",
    ),
    Hot(
        "incidents of a heartbeat",
        lambda c: incidents.incidents_of(c, _PROJECT, limit=101, before=None, status=None, heartbeat_id=_id("hb", 7)),
        "ix_incidents_heartbeat",
    ),
    Hot(
        "list of incidents",
        lambda c: incidents.incidents_of(
            c, _PROJECT, limit=101, before=_id("inc", 3000), status=None, heartbeat_id=None
        ),
        "ix_incidents_project",
    ),
    Hot("beat: by id", lambda c: systems.lock_beating(c, [_system_id(7)]), "", primary_key_of="systems"),
    Hot("beat: whose credentials", lambda c: systems.known(c, [_system_id(7)]), "", primary_key_of="systems"),
    Hot(
        "list of systems, later page",
        lambda c: systems.systems_of(
            c,
            _PROJECT,
            Filters(),
            alive_ms=1,
            now=NOW,
            limit=51,
            after=Position(EpochMs(NOW + 3000), _system_id(3000)),
        ),
        "ix_systems_project",
    ),
    Hot("trend of systems", lambda c: systems.lifetimes(c, _PROJECT), "ix_systems_project"),
    Hot("inventory: the latest", lambda c: inventory.latest(c, _system_id(7)), "ix_inventory_snapshots_system"),
    Hot(
        "inventory: a page",
        lambda c: inventory.snapshots_of(c, _system_id(7), limit=21, before=_id("snp", 3000)),
        "ix_inventory_snapshots_system",
    ),
    Hot(
        "inventory: changes",
        lambda c: inventory.changes_of(
            c, _system_id(7), limit=101, before=None, category=None, severity=None, since=None
        ),
        "ix_inventory_changes_system",
    ),
    Hot("prune: inventories", lambda c: inventory.kept(c, [_system_id(7)]), "ix_inventory_snapshots_system"),
    Hot(
        "mint: what a network had",
        lambda c: projects.nth_latest_call(c, "mint", 120, network="10.0.0.7", since=EpochMs(NOW - 3_600_000), now=NOW),
        "ix_limited_calls_network",
    ),
    Hot(
        "mint: what all had",
        lambda c: projects.nth_latest_call(c, "mint", 2000, network=None, since=EpochMs(NOW - 3_600_000), now=NOW),
        "ix_limited_calls_at",
    ),
    Hot(
        "provision: whose name",
        lambda c: projects.claimed_project(c, "sandbox", Identity("", "shop 7")),
        "",
        primary_key_of="project_names",
    ),
    Hot(
        "prune: calls", lambda c: projects.delete_calls(c, "mint", EpochMs(NOW - 3_590_000), 10), "ix_limited_calls_at"
    ),
    Hot("prune: sandboxes", lambda c: projects.expired_before(c, NOW, 100), "ix_projects_expires_at"),
    Hot("prune: deleted projects", lambda c: projects.deleted_before(c, NOW, 100), "ix_projects_deleted_at"),
    Hot("bots: due slots", lambda c: bot_runs.due_schedules(c, NOW, 100), "ix_bot_schedules_due"),
    Hot("bots: next slot", bot_runs.next_due, "ix_bot_schedules_due"),
    Hot("bots: going on", lambda c: bot_runs.running_of(c, [_id("sch", 7)], NOW), "ix_bot_runs_lease"),
    Hot("bots: how many go on", lambda c: bot_runs.count_running_of_all(c, NOW), "ix_bot_runs_lease"),
    Hot("bots: lost runs", lambda c: bot_runs.expired_leases(c, NOW, 100), "ix_bot_runs_lease"),
    Hot("bots: next lease", bot_runs.next_lease_end, "ix_bot_runs_lease"),
    Hot(
        "bots: runs of the last hour",
        lambda c: bot_runs.count_recent(c, _PROJECT, EpochMs(NOW - 3_600_000)),
        "ix_bot_runs_project",
    ),
    Hot(
        "bots: list of runs",
        lambda c: bot_runs.list_runs(c, _id("bot", 7), status=None, schedule_id=None, member_id=None, limit=51),
        "ix_bot_runs_bot",
    ),
    Hot(
        "bots: statistics",
        lambda c: bot_runs.ended_since(c, _id("bot", 7), EpochMs(NOW - 86_400_000)),
        "ix_bot_runs_bot",
    ),
    Hot(
        "bots: what was spent",
        lambda c: bot_runs.ledger_since(c, _id("bot", 7), EpochMs(NOW - 86_400_000)),
        "ix_bot_ledger_bot",
    ),
    Hot("bots: tallies", lambda c: bot_schedules.tallies(c, [_id("bot", 7)]), "ix_bot_schedules_prompt"),
    Hot("bots: upcoming", lambda c: bot_schedules.upcoming(c, _PROJECT, 100), "ix_bot_schedules_project"),
    Hot(
        "overview: schedules",
        lambda c: c.execute(bot_board.lines(c, _PROJECT, search="", now=NOW)).all(),
        "ix_bot_schedules_project",
    ),
    Hot(
        "overview: how runs ended",
        lambda c: bot_board.by_ids(c, _PROJECT, [_id("sch", 7)], runs=30, now=NOW),
        "ix_bot_runs_schedule",
    ),
    Hot("a key by its hash", lambda c: keys.key_by_hash(c, (7).to_bytes(32, "big")), "api_keys_hash_key"),
]


@pytest.mark.parametrize("hot", HOT, ids=lambda hot: hot.name)
def test_a_hot_statement_is_planned_by_index(full: Engine, hot: Hot) -> None:
    expected = hot.expected(full.dialect.name)
    if expected == "api_keys_hash_key" and full.dialect.name == "sqlite":
        expected = "sqlite_autoindex_api_keys_2"

    plans = _plans(full, hot.run)

    assert plans
    assert any(expected in plan for plan in plans), "\n".join(plans)
    assert not any(_reads_a_whole_table(plan) for plan in plans), "\n".join(plans)


def _plans(engine: Engine, run: Callable[[Connection], object]) -> list[str]:
    """How the database goes about each statement of `run`, which leaves nothing behind."""
    with engine.connect() as conn:
        with _caught(conn) as statements:
            run(conn)
        found = [_plan(conn, statement, parameters) for statement, parameters in statements]
        conn.rollback()
    return found


@contextmanager
def _caught(conn: Connection) -> Iterator[list[tuple[str, Any]]]:
    caught: list[tuple[str, Any]] = []

    def catch(
        _conn: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool
    ) -> None:  # Any: DBAPI
        caught.append((statement, parameters[0] if many else parameters))

    event.listen(conn, "before_cursor_execute", catch)
    try:
        yield caught
    finally:
        event.remove(conn, "before_cursor_execute", catch)


def _plan(conn: Connection, statement: str, parameters: Any) -> str:  # Any: DBAPI
    if conn.dialect.name == "sqlite":
        rows = conn.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return "\n".join(str(row[3]) for row in rows)
    rows = conn.exec_driver_sql(f"EXPLAIN {statement}", parameters)
    return "\n".join(str(row[0]) for row in rows)


def _reads_a_whole_table(plan: str) -> bool:
    """SQLite says `SCAN t` for a table from end to end, `SCAN t USING ... INDEX` for an index in its order."""
    lines = [line.strip() for line in plan.splitlines()]
    scans = {f"SCAN {name}" for name in metadata.tables}
    return any("Seq Scan" in line or line in scans for line in lines)
