"""What `/metrics` tells of the log of requests. The registry that they are shown from is the engine's."""

from prometheus_client import Counter, Gauge, Histogram

USAGE_BUFFER = Gauge("lifesign_usage_buffer", "Counted requests that are not yet in the database.", registry=None)
USAGE_FLUSH = Histogram(
    "lifesign_usage_flush_seconds",
    "Time until the database had what was counted.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=None,
)
USAGE_DROPPED = Counter("lifesign_usage_dropped", "Requests that were not counted, as too many waited.", registry=None)
