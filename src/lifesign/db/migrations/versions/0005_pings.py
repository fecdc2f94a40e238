"""Pings: who may send them, what they carried, which of them count."""

import hashlib
import uuid

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_AT_ONCE = 1000


def upgrade() -> None:
    """Add columns and tables; a server of the version before goes on beside it."""
    op.add_column("heartbeats", sa.Column("ping_id", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("unique_key", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("badge_id", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("ping_rules", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("ping_extras", sa.BigInteger(), server_default="0", nullable=False))
    op.add_column("heartbeats", sa.Column("ping_run_id", sa.Text(), nullable=True))
    op.add_column("heartbeats", sa.Column("ping_started_at", sa.BigInteger(), nullable=True))
    op.add_column("heartbeats", sa.Column("last_duration_ms", sa.BigInteger(), nullable=True))
    op.create_index("uq_heartbeats_ping_id", "heartbeats", ["ping_id"], unique=True)
    op.create_index("ix_heartbeats_unique_key", "heartbeats", ["unique_key"])
    op.create_index("ix_heartbeats_badge_id", "heartbeats", ["badge_id"])
    op.create_table(
        "ping_bodies",
        sa.Column("heartbeat_id", sa.Text(), nullable=False),
        sa.Column("n", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("heartbeat_id", "n"),
    )
    op.create_table(
        "ping_rids",
        sa.Column("heartbeat_id", sa.Text(), nullable=False),
        sa.Column("rid", sa.Text(), nullable=False),
        sa.Column("signal", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("heartbeat_id", "rid", "signal"),
    )
    op.create_index("ix_ping_rids_at", "ping_rids", ["at"])
    _give_ping_ids()


def _give_ping_ids() -> None:
    """Heartbeats that exist can be pinged as well, but for those that belong to something else."""
    heartbeats = sa.table(
        "heartbeats",
        *(sa.column(name) for name in ("id", "managed_by", "ping_id", "unique_key", "badge_id")),
    )
    without = sa.select(heartbeats.c.id).where(heartbeats.c.ping_id.is_(None), heartbeats.c.managed_by.is_(None))
    given = (
        sa.update(heartbeats)
        .where(heartbeats.c.id == sa.bindparam("key"))
        .values(
            ping_id=sa.bindparam("new_ping_id"),
            unique_key=sa.bindparam("new_unique_key"),
            badge_id=sa.bindparam("new_badge_id"),
        )
    )
    bind = op.get_bind()
    while ids := list(bind.scalars(without.limit(_AT_ONCE))):
        bind.execute(given, [{"key": key, **_new_ids()} for key in ids])


def _new_ids() -> dict[str, str]:
    ping_id = uuid.uuid4()
    unique_key = hashlib.sha1(ping_id.hex[:16].encode(), usedforsecurity=False).hexdigest()
    return {"new_ping_id": str(ping_id), "new_unique_key": unique_key, "new_badge_id": str(uuid.uuid4())}
