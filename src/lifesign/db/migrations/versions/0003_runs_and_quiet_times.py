"""Runs, tolerance, snooze, dependencies, maintenance windows."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables; a server of the version before goes on beside it."""
    op.add_column("heartbeats", sa.Column("tolerance_failures", sa.Integer(), nullable=True))
    op.add_column("heartbeats", sa.Column("tolerance_window", sa.Integer(), nullable=True))
    op.add_column("heartbeats", sa.Column("results", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("snoozed_until", sa.BigInteger(), nullable=True))
    op.add_column("heartbeats", sa.Column("snooze_reason", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("snooze_incident_id", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("depends_on", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("run_due_at", sa.BigInteger(), nullable=True))
    op.add_column("heartbeats", sa.Column("managed_by", sa.Text(), nullable=True))
    op.add_column("incidents", sa.Column("run_id", sa.Text(), nullable=True))
    op.add_column("incidents", sa.Column("suppressed_by", sa.Text(), nullable=True))
    op.add_column("notifications", sa.Column("is_on_hold", sa.SmallInteger(), server_default="0", nullable=False))
    op.create_table(
        "dependencies",
        sa.Column("heartbeat_id", sa.Text(), nullable=False),
        sa.Column("depends_on_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("heartbeat_id", "depends_on_id"),
    )
    op.create_index("ix_dependencies_depends_on", "dependencies", ["depends_on_id", "heartbeat_id"])
    op.create_table(
        "runs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("heartbeat_id", sa.Text(), nullable=False),
        sa.Column("run_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("progress_at", sa.BigInteger(), nullable=True),
        sa.Column("lease_ms", sa.BigInteger(), nullable=True),
        sa.Column("lease_until", sa.BigInteger(), nullable=True),
        sa.Column("limit_at", sa.BigInteger(), nullable=True),
        sa.Column("finished_at", sa.BigInteger(), nullable=True),
        sa.Column("is_watched", sa.SmallInteger(), nullable=False),
        sa.Column("message", sa.Text(), nullable=True),
        sa.Column("metadata", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("uq_runs_run_id", "runs", ["heartbeat_id", "run_id"], unique=True)
    op.create_index("ix_runs_heartbeat", "runs", ["heartbeat_id", "id"])
    is_open = sa.text("finished_at IS NULL")
    op.create_index("ix_runs_open", "runs", ["heartbeat_id", "id"], sqlite_where=is_open, postgresql_where=is_open)
    is_unlimited = sa.text("finished_at IS NULL AND lease_until IS NULL AND limit_at IS NULL")
    op.create_index(
        "ix_runs_untouched", "runs", ["started_at"], sqlite_where=is_unlimited, postgresql_where=is_unlimited
    )
    op.create_table(
        "maintenance",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("starts_at", sa.BigInteger(), nullable=True),
        sa.Column("ends_at", sa.BigInteger(), nullable=True),
        sa.Column("schedule", sa.Text(), nullable=True),
        sa.Column("duration_ms", sa.BigInteger(), nullable=True),
        sa.Column("timezone", sa.Text(), nullable=False),
        sa.Column("target", sa.Text(), nullable=False),
        sa.Column("members", sa.Text(), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("updated_at", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_maintenance_project", "maintenance", ["project_id", "id"])
