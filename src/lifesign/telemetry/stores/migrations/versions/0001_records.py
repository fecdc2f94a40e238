"""The tables of records."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_WORD = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Make them; on PostgreSQL with what numbers spans."""
    op.create_table(
        "session_aliases",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("alias", _WORD, nullable=False),
        sa.Column("session", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("project", "alias", "session"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_session_aliases_session", "session_aliases", ["session"])
    op.create_table(
        "session_environments",
        sa.Column("session", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("environment", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("session", "environment"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "sessions",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("session_id", _WORD, nullable=False),
        sa.Column("turns", sa.Integer(), nullable=False),
        sa.Column("last_received_at", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("summary", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_sessions_activity", "sessions", ["project", "last_received_at", "session_id"])
    op.create_index("uq_sessions_session_id", "sessions", ["project", "session_id"], unique=True)
    op.create_table(
        "span_bodies",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_table(
        "span_projects",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("project_id", _WORD, nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("project_id"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "spans",
        sa.Column("id", _ID, autoincrement=False, nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("span_id", sa.LargeBinary(), nullable=False),
        sa.Column("parent_id", sa.LargeBinary(), nullable=True),
        sa.Column("received_at", sa.BigInteger(), nullable=False),
        sa.Column("start_ns", sa.BigInteger(), nullable=False),
        sa.Column("end_ns", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.SmallInteger(), nullable=False),
        sa.Column("status", sa.SmallInteger(), nullable=False),
        sa.Column("signal_type", sa.SmallInteger(), nullable=False),
        sa.Column("op_hash", sa.BigInteger(), nullable=False),
        sa.Column("args_hash", sa.BigInteger(), nullable=True),
        sa.Column("result_hash", sa.BigInteger(), nullable=True),
        sa.Column("bucket", sa.Integer(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("flags", sa.Integer(), nullable=False),
        sa.Column("input_tokens", sa.BigInteger(), nullable=True),
        sa.Column("output_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cache_read_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cache_write_tokens", sa.BigInteger(), nullable=True),
        sa.Column("reasoning_tokens", sa.BigInteger(), nullable=True),
        sa.Column("total_tokens", sa.BigInteger(), nullable=True),
        sa.Column("cost_nano", sa.BigInteger(), nullable=True),
        sa.Column("own_session", sa.BigInteger(), nullable=True),
        sa.Column("operation", sa.BigInteger(), nullable=False),
        sa.Column("agent", sa.BigInteger(), nullable=True),
        sa.Column("service", sa.BigInteger(), nullable=True),
        sa.Column("tool", sa.BigInteger(), nullable=True),
        sa.Column("model", sa.BigInteger(), nullable=True),
        sa.Column("environment", sa.BigInteger(), nullable=True),
        sa.Column("version", sa.BigInteger(), nullable=True),
        sa.Column("error_type", sa.BigInteger(), nullable=True),
        sa.Column("finish_reason", sa.BigInteger(), nullable=True),
        sa.Column("origin", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("ix_spans_arrival", "spans", ["project", "received_at"])
    op.create_index(
        "ix_spans_own_session",
        "spans",
        ["own_session"],
        unique=False,
        sqlite_where=sa.text("own_session IS NOT NULL"),
        postgresql_where=sa.text("own_session IS NOT NULL"),
    )
    op.create_index("uq_spans_identity", "spans", ["project", "trace_id", "span_id"], unique=True)
    op.create_table(
        "strings",
        sa.Column("id", _ID, nullable=False),
        sa.Column("project", sa.Integer(), nullable=False),
        sa.Column("key", _WORD, nullable=False),
        sa.Column("text", sa.Text(), nullable=True),
        sa.Column("used_on", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_strings_used_on", "strings", ["used_on"])
    op.create_index("uq_strings_key", "strings", ["project", "key"], unique=True)
    op.create_table(
        "traces",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("trace_id", sa.LargeBinary(), nullable=False),
        sa.Column("session", sa.BigInteger(), nullable=False),
        sa.Column("rank", _WORD, nullable=True),
        sa.PrimaryKeyConstraint("project", "trace_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_traces_session", "traces", ["session"])
    op.create_table(
        "usage",
        sa.Column("project", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("month", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("used", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project", "month"),
    )
    if op.get_bind().dialect.name == "postgresql":
        op.execute("CREATE SEQUENCE span_ids")
