"""Who made an object: what a declarative file may take away again."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add columns; a server of the version before goes on beside it."""
    for table in ("heartbeats", "policies", "channels", "maintenance", "systems"):
        op.add_column(table, sa.Column("origin", sa.Text(), nullable=True))
