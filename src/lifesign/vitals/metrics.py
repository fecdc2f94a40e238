"""What `/metrics` tells of vitals: how much is analysed and how it ends, and nothing of anybody's pulse.

The registry that they are shown from is the engine's.
"""

from typing import Any

from prometheus_client import Counter, Gauge, Histogram

VITALS_JOBS = Counter(
    "lifesign_vitals_jobs",
    "Analyses that were asked of worker processes, by how they ended.",
    ["outcome"],
    registry=None,
)
VITALS_JOB = Histogram(
    "lifesign_vitals_job_seconds",
    "Time that a worker process took for an analysis.",
    buckets=(0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 60),
    registry=None,
)
VITALS_WAITING = Gauge("lifesign_vitals_jobs_waiting", "Analyses that wait for a worker process.", registry=None)
VITALS_STREAMS = Gauge("lifesign_vitals_streams_open", "Streams that are open.", registry=None)
VITALS_REPORTS = Counter(
    "lifesign_vitals_reports", "Reports, by whether they have a heart rate or why not.", ["heart_rate"], registry=None
)


def count_report(report: dict[str, Any]) -> None:  # Any: JSON
    """Count a report that somebody is given: as `given`, or as the reason why there is no heart rate."""
    VITALS_REPORTS.labels(report["vitals"]["heart_rate"]["reason"] or "given").inc()
