"""Counted requests lie in the order of their time on SQLite, where dashboards read a month of them at once."""

import sqlalchemy as sa
from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    if op.get_bind().dialect.name != "sqlite":
        return
    _laid_out_anew(
        "usage_minutes",
        sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("total", sa.BigInteger, nullable=False),
        sa.Column("client_errors", sa.BigInteger, nullable=False),
        sa.Column("server_errors", sa.BigInteger, nullable=False),
        sa.Column("duration_sum_ms", sa.BigInteger, nullable=False),
        sa.Column("duration_count", sa.BigInteger, nullable=False),
        sa.Column("duration_min_ms", sa.BigInteger),
        sa.Column("duration_max_ms", sa.BigInteger),
    )
    _laid_out_anew(
        "usage_latency",
        sa.Column("hour", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("bin", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("count", sa.BigInteger, nullable=False),
    )


def _laid_out_anew(name: str, *columns: sa.Column[int]) -> None:
    before = f"{name}_before"
    names = ", ".join(f'"{column.name}"' for column in columns)
    op.rename_table(name, before)
    op.create_table(name, *columns, sqlite_with_rowid=False)
    op.execute(f"INSERT INTO {name} ({names}) SELECT {names} FROM {before}")  # noqa: S608 - names of this file
    op.drop_table(before)
