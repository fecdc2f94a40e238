"""The tables in ClickHouse.

`spans` is what everything is read from, also which session a span is in. `traces` remembers who named the session of
a trace, for when that span goes before the others.
"""

from typing import Final

from lifesign.telemetry.stores.clickhouse.rows import INSERTED, REMEMBERED

SPANS: Final = "spans"
TRACES: Final = "traces"

_COLUMNS: Final = ",\n  ".join(
    f"{name} {kind} CODEC(ZSTD(3))" if name == "body" else f"{name} {kind}" for name, kind in INSERTED.items()
)

# A span that is sent again has the same project, minute and id, so that merges find it. The ranges of dates that
# expire at once are dropped as files. A server remembers the tokens of its last 1,000 inserts, which makes one that
# is repeated after a crash a no-op; without a cluster it does so only when told to.
CREATE_SPANS: Final = f"""
CREATE TABLE IF NOT EXISTS {SPANS} (
  {_COLUMNS},
  INDEX r received_at TYPE minmax GRANULARITY 1,
  INDEX t trace_id TYPE bloom_filter(0.01) GRANULARITY 1,
  INDEX s own_session TYPE bloom_filter(0.01) GRANULARITY 1)
ENGINE = ReplacingMergeTree(ver)
PARTITION BY toDate(received_at)
ORDER BY (project_id, intDiv(start_ns, 60000000000), trace_id, span_id)
SETTINGS ttl_only_drop_parts = 1, non_replicated_deduplication_window = 1000
"""


# The better the source, the higher its version; what is worse goes when ClickHouse merges.
CREATE_TRACES: Final = f"""
CREATE TABLE IF NOT EXISTS {TRACES} (
  {", ".join(f"{name} {kind}" for name, kind in REMEMBERED.items())})
ENGINE = ReplacingMergeTree(ver)
ORDER BY (project_id, trace_id)
SETTINGS non_replicated_deduplication_window = 1000
"""


def lifetime(table: str, retention_days: int) -> int:
    """For how many days a row is kept. A trace may outlive the span that named its session."""
    return retention_days if table == SPANS else 2 * retention_days


def keep_for(table: str, days: int) -> str:
    """The statement that makes rows go this many days after they arrived."""
    return f"ALTER TABLE {table} MODIFY TTL toDateTime(received_at) + INTERVAL {days:d} DAY"


def is_kept_for(create: str, days: int) -> bool:
    """Whether a table, as `SHOW CREATE TABLE` tells it, has that rule already."""
    return f"TTL toDateTime(received_at) + toIntervalDay({days})" in create
