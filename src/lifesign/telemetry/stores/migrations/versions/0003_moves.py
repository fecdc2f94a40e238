"""What moved from one session to another after it was stored: digests of the new version are right with it only."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Make the table."""
    op.create_table(
        "span_moves",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("environment", sa.BigInteger(), nullable=True),
        sa.Column("agent", sa.BigInteger(), nullable=True),
        sa.Column("session", sa.BigInteger(), nullable=False),
        sa.Column("records", sa.Integer(), nullable=False),
        sa.Column("unnamed", sa.Integer(), nullable=False),
        sa.Column("metered", sa.Integer(), nullable=False),
        sa.Column("tokens_high", sa.BigInteger(), nullable=False),
        sa.Column("tokens_low", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_span_moves_arrival", "span_moves", ["project", "received_at"])
