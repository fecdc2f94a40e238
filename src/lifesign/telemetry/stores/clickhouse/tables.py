"""The table in ClickHouse. Everything that is read comes from it: which session a span is in, as well."""

from typing import Final

from lifesign.telemetry.stores.clickhouse.rows import INSERTED

TABLE: Final = "spans"

_COLUMNS: Final = ",\n  ".join(
    f"{name} {kind} CODEC(ZSTD(3))" if name == "body" else f"{name} {kind}" for name, kind in INSERTED.items()
)

# A span that is sent again has the same project, minute and id, so that merges find it. The ranges of dates that
# expire at once are dropped as files. A server remembers the tokens of its last 1,000 inserts, which makes one that
# is repeated after a crash a no-op; without a cluster it does so only when told to.
CREATE_SPANS: Final = f"""
CREATE TABLE IF NOT EXISTS {TABLE} (
  {_COLUMNS},
  INDEX r received_at TYPE minmax GRANULARITY 1,
  INDEX t trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX s own_session TYPE bloom_filter(0.01) GRANULARITY 1)
ENGINE = ReplacingMergeTree(ver)
PARTITION BY toDate(received_at)
ORDER BY (project_id, intDiv(start_ns, 60000000000), trace_id, span_id)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000
"""


def keep_for(days: int) -> str:
    """The statement that makes records go this many days after they arrived: LIFESIGN_TELEMETRY_RETENTION_DAYS."""
    return f"ALTER TABLE {TABLE} MODIFY TTL {_lifetime(days)}"


def is_kept_for(create: str, days: int) -> bool:
    """Whether a table, as `SHOW CREATE TABLE` tells it, has that rule already."""
    return f"TTL toDateTime(received_at) + toIntervalDay({days})" in create.replace("\\n", "\n")


def _lifetime(days: int) -> str:
    return f"toDateTime(received_at) + INTERVAL {days:d} DAY"
