"""Self-service projects: who they belong to, for how long they are there, and their keys."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns and tables; a server of the version before goes on beside it."""
    op.add_column("projects", sa.Column("tenant_id", sa.Text(), server_default="default", nullable=False))
    op.add_column("projects", sa.Column("title", sa.Text(), nullable=True))
    op.add_column("projects", sa.Column("plan", sa.Text(), nullable=True))
    op.add_column("projects", sa.Column("expires_at", sa.BigInteger(), nullable=True))
    op.add_column("projects", sa.Column("quota_spans", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("projects", sa.Column("deleted_at", sa.BigInteger(), nullable=True))
    for name in ("expires_at", "deleted_at"):
        is_set = sa.column(name).is_not(None)
        op.create_index(f"ix_projects_{name}", "projects", [name], sqlite_where=is_set, postgresql_where=is_set)
    op.create_table(
        "project_names",
        sa.Column("tenant_id", sa.Text(), nullable=False),
        sa.Column("operator_key", sa.Text(), nullable=False),
        sa.Column("name_key", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("tenant_id", "operator_key", "name_key"),
    )
    op.create_index("ix_project_names_project", "project_names", ["project_id"])
    op.create_table(
        "limited_calls",
        sa.Column("seq", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), autoincrement=True, nullable=False),
        sa.Column("limiter", sa.Text(), nullable=False),
        sa.Column("network", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("seq"),
    )
    op.create_index("ix_limited_calls_network", "limited_calls", ["limiter", "network", "at"])
    op.create_index("ix_limited_calls_at", "limited_calls", ["limiter", "at"])
    op.add_column("api_keys", sa.Column("kind", sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("plan", sa.Text(), nullable=True))
    op.add_column("api_keys", sa.Column("revoked_at", sa.BigInteger(), nullable=True))
