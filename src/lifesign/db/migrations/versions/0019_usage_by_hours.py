"""Counted requests stand once more by the hour, and their durations by the day, for dashboards of a month."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_HOUR_MS = 3_600_000
_DAY_MS = 86_400_000


def upgrade() -> None:
    """Add tables, with what is known already."""
    op.create_table(
        "usage_hours",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("client_errors", sa.BigInteger, nullable=False),
        sa.Column("server_errors", sa.BigInteger, nullable=False),
        sa.Column("duration_sum_ms", sa.BigInteger, nullable=False),
        sa.Column("duration_count", sa.BigInteger, nullable=False),
        sa.Column("duration_min_ms", sa.BigInteger),
        sa.Column("duration_max_ms", sa.BigInteger),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "usage_latency_days",
        sa.Column("day", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("bin", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
        sqlite_with_rowid=False,
    )
    added = ("total", "client_errors", "server_errors", "duration_sum_ms", "duration_count")
    sums = ", ".join(f"SUM({name})" for name in added)
    op.execute(
        f"INSERT INTO usage_hours SELECT minute / {_HOUR_MS} * {_HOUR_MS}, {sums}, MIN(duration_min_ms), "  # noqa: S608 - names of this file
        "MAX(duration_max_ms) FROM usage_minutes GROUP BY 1"
    )
    op.execute(
        f"INSERT INTO usage_latency_days SELECT hour / {_DAY_MS} * {_DAY_MS}, bin, SUM(count) "  # noqa: S608 - as above
        "FROM usage_latency GROUP BY 1, 2"
    )
