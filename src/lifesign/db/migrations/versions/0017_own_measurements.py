"""Measurements that people keep for themselves, on the page with the camera."""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column that may be empty; a server of the version before goes on beside it."""
    op.add_column("measurements", sa.Column("user_id", sa.Text(), nullable=True))
    op.create_index("ix_measurements_user", "measurements", ["user_id", "project_id", "id"])
