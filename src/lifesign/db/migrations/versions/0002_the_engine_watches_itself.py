"""Breakers, rate buckets, nodes, blind time, fallback channels."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables; a server of the version before goes on beside it."""
    op.add_column("projects", sa.Column("fallback_channel_id", sa.Text(), nullable=True))
    op.add_column("incidents", sa.Column("blind_from", sa.BigInteger(), nullable=True))
    op.add_column("incidents", sa.Column("blind_to", sa.BigInteger(), nullable=True))
    op.add_column("lanes", sa.Column("breaker", sa.Text(), server_default="closed", nullable=False))
    op.add_column("lanes", sa.Column("fails", sa.Integer(), server_default="0", nullable=False))
    op.add_column("lanes", sa.Column("open_until", sa.BigInteger(), nullable=True))
    op.create_table(
        "rate_buckets",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("tokens", sa.Float(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("key"),
    )
    op.create_table(
        "nodes",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("started_at", sa.BigInteger(), nullable=False),
        sa.Column("alive_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    engine_state = op.create_table(
        "engine_state",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("blind_from", sa.BigInteger(), nullable=True),
        sa.Column("blind_to", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
    )
    op.bulk_insert(engine_state, [{"id": 1, "blind_from": None, "blind_to": None}])
    # Incidents whose last step has run already get the look that later ones get half an hour after it.
    op.execute(
        "INSERT INTO timers (kind, subject_id, project_id, due_at) "
        "SELECT 'remind', id, project_id, COALESCE(last_step_at, opened_at) + 1800000 FROM incidents "
        "WHERE status <> 'resolved' AND escalation = 'done'"
    )
