"""What `/metrics` tells of spans that were sent here. The registry that they are shown from is the engine's."""

from prometheus_client import Counter, Gauge, Histogram

OTLP_SPANS = Counter("lifesign_otlp_spans", "Spans that were sent, by what became of them.", ["result"], registry=None)
OTLP_INFLIGHT = Gauge("lifesign_otlp_inflight_bytes", "Bytes of requests with spans that are in hand.", registry=None)
SPOOL_RECORDS = Gauge("lifesign_spool_records", "Records that are not yet in ClickHouse.", registry=None)
OTLP_COMMIT = Histogram(
    "lifesign_otlp_commit_seconds",
    "Time until the store had the spans of a request on disk.",
    buckets=(0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
    registry=None,
)
