"""Breakers, rate buckets, nodes, blind time, fallback channels, storms, flapping, acknowledging by message."""

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
    op.add_column("lanes", sa.Column("bucket_key", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("flap_penalty", sa.Float(), server_default="0", nullable=False))
    op.add_column("heartbeats", sa.Column("flap_at", sa.BigInteger(), nullable=True))
    op.add_column("heartbeats", sa.Column("is_flapping", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("heartbeats", sa.Column("flap_incident_id", sa.Text(), nullable=True))
    op.add_column("incidents", sa.Column("holds", sa.Text(), nullable=True))
    op.add_column("incidents", sa.Column("step_waiting", sa.SmallInteger(), server_default="0", nullable=False))
    op.add_column("incidents", sa.Column("storm_id", sa.Text(), nullable=True))
    op.add_column("incidents", sa.Column("ack_code", sa.Text(), nullable=True))
    has_code = sa.text("ack_code IS NOT NULL")
    op.create_index(
        "ix_incidents_ack_code",
        "incidents",
        ["ack_code"],
        sqlite_where=has_code,
        postgresql_where=has_code,
    )
    op.add_column("notifications", sa.Column("storm_id", sa.Text(), nullable=True))
    op.add_column("notifications", sa.Column("bundle_id", sa.Text(), nullable=True))
    is_held = sa.text("status = 'held'")
    op.create_index(
        "ix_notifications_held", "notifications", ["storm_id"], sqlite_where=is_held, postgresql_where=is_held
    )
    op.create_table(
        "storms",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("opened_at", sa.BigInteger(), nullable=False),
        sa.Column("release_at", sa.BigInteger(), nullable=False),
        sa.Column("closed_at", sa.BigInteger(), nullable=True),
        sa.Column("count", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_storms_closed", "storms", ["closed_at"])
    is_open = sa.text("state = 'open'")
    op.create_index(
        "uq_storms_open",
        "storms",
        ["project_id"],
        unique=True,
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    op.create_table(
        "callbacks_seen",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_callbacks_seen_at", "callbacks_seen", ["at"])
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
