"""Heartbeats that are paused by what they belong to, which alone resumes them; reports of runs that touch no index."""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column, with what is known already; a server of the version before goes on beside it."""
    op.add_column("heartbeats", sa.Column("is_suspended", sa.SmallInteger(), nullable=False, server_default="0"))
    op.execute(
        "UPDATE heartbeats SET is_suspended = 1 WHERE status = 'paused' AND (id IN (SELECT heartbeat_id FROM systems "
        "WHERE suspended_at IS NOT NULL AND deleted_at IS NULL) OR id IN (SELECT heartbeat_id FROM bot_schedules "
        "WHERE is_enabled = 0 AND heartbeat_id IS NOT NULL))"
    )
    # Every report of progress moves `lease_until`, and what the condition of an index names PostgreSQL cannot change in
    # place. There is a lease of so many ms exactly where there is an end of it.
    op.drop_index("ix_runs_untouched", "runs")
    is_unlimited = sa.text("finished_at IS NULL AND lease_ms IS NULL AND limit_at IS NULL")
    op.create_index(
        "ix_runs_untouched", "runs", ["started_at"], sqlite_where=is_unlimited, postgresql_where=is_unlimited
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER TABLE runs SET (fillfactor = 70)")
