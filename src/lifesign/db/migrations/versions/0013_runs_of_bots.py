"""Runs of bots: counted by project, parked until somebody approves; heartbeats whose deadline is told by another."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add an index and columns; a server of the version before goes on beside it."""
    op.create_index("ix_bot_runs_project", "bot_runs", ["project_id", "created_at"])
    op.create_index(
        "ix_bot_runs_open",
        "bot_runs",
        ["schedule_id", "id"],
        sqlite_where=sa.text("finished_at IS NULL"),
        postgresql_where=sa.text("finished_at IS NULL"),
    )
    op.add_column("bot_runs", sa.Column("parked_until", sa.BigInteger(), nullable=True))
    op.add_column("bot_runs", sa.Column("is_approved", sa.SmallInteger(), nullable=True))
    op.add_column("bot_runs", sa.Column("parked", sa.Text(), nullable=True))
    op.create_index(
        "ix_bot_runs_parked",
        "bot_runs",
        ["parked_until"],
        sqlite_where=sa.text("status = 'waiting_approval'"),
        postgresql_where=sa.text("status = 'waiting_approval'"),
    )
    op.add_column("heartbeats", sa.Column("expected_at", sa.BigInteger(), nullable=True))
