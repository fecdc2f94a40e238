"""What `/metrics` tells. Names are listed in the reference; a test keeps that true."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from lifesign.telemetry.metrics import OTLP_COMMIT, OTLP_INFLIGHT, OTLP_SPANS, SPOOL_RECORDS
from lifesign.usage.metrics import USAGE_BUFFER, USAGE_DROPPED, USAGE_FLUSH
from lifesign.vitals.metrics import VITALS_JOB, VITALS_JOBS, VITALS_REPORTS, VITALS_STREAMS, VITALS_WAITING

REGISTRY = CollectorRegistry()
for _metric in (OTLP_COMMIT, OTLP_INFLIGHT, OTLP_SPANS, SPOOL_RECORDS, USAGE_BUFFER, USAGE_DROPPED, USAGE_FLUSH):
    REGISTRY.register(_metric)
for _metric in (VITALS_JOB, VITALS_JOBS, VITALS_REPORTS, VITALS_STREAMS, VITALS_WAITING):
    REGISTRY.register(_metric)

LOOP_ERRORS = Counter("lifesign_loop_errors", "Ticks that failed.", ["loop"], registry=REGISTRY)
LATENESS = Histogram(
    "lifesign_deadline_lateness_seconds",
    "Time from the moment a heartbeat was to fire until it fired.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2, 5, 15, 60, 300),
    registry=REGISTRY,
)
SWEEP_LAG = Gauge("lifesign_sweep_lag_seconds", "How late the sweep last ran.", registry=REGISTRY)
ATTEMPTS = Counter("lifesign_attempts", "Attempts to deliver, by outcome.", ["type", "outcome"], registry=REGISTRY)
NOTIFICATIONS = Counter(
    "lifesign_notifications",
    "Attempts that ended, by what became of the message.",
    ["type", "kind", "status"],
    registry=REGISTRY,
)
BLIND_SECONDS = Counter("lifesign_blind_seconds", "Time in which no node was alive.", registry=REGISTRY)
LEASES_EXPIRED = Counter("lifesign_lease_expired", "Messages whose sender did not come back.", registry=REGISTRY)
STALE_FINISHES = Counter(
    "lifesign_stale_finishes", "Attempts that ended after another node had taken over.", registry=REGISTRY
)
OUTBOX_PENDING = Gauge("lifesign_outbox_pending", "Messages waiting to be sent.", ["type"], registry=REGISTRY)
OUTBOX_OLDEST = Gauge("lifesign_outbox_oldest_seconds", "Age of the longest due message.", ["type"], registry=REGISTRY)
REPAIRS = Counter("lifesign_audit_repairs", "What the auditor put right, by rule.", ["rule"], registry=REGISTRY)
DEADMAN_PINGS = Counter("lifesign_deadman_pings", "Pings to another monitor.", ["outcome"], registry=REGISTRY)
CLOCK_OFFSET = Gauge(
    "lifesign_clock_offset_seconds", "How far this machine's clock is from the database's.", registry=REGISTRY
)
BREAKER_OPEN = Gauge(
    "lifesign_breaker_open", "Channels that are left alone because they failed too often.", ["type"], registry=REGISTRY
)
INCIDENTS_OPEN = Gauge("lifesign_incidents_open", "Open incidents.", registry=REGISTRY)
INCIDENTS_UNATTENDED = Gauge(
    "lifesign_incidents_unattended", "Open incidents that nobody is told of.", registry=REGISTRY
)
BOT_RUNS_STARTED = Counter("lifesign_bot_runs_started", "Runs of bots that were started here.", registry=REGISTRY)
BOT_RUNS_LOST = Counter("lifesign_bot_runs_lost", "Runs of bots whose owner did not come back.", registry=REGISTRY)
