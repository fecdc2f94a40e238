"""Migrations: applied at start, forwards only, by one process at a time.

Alembic applies them, and is loaded when there are some to apply: a server that starts with tables as they should be
does without its 8 MiB.
"""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, Engine, inspect, text

if TYPE_CHECKING:
    from alembic.config import Config


@dataclass(frozen=True, slots=True)
class Chain:
    """The migrations of one set of tables. lock_key: of the advisory lock under which PostgreSQL nodes migrate."""

    directory: Path
    lock_key: int


MAIN = Chain(
    Path(__file__).parent / "migrations",
    # "lifesign" in ASCII, cut to 63 bits.
    0x6C69666573696700,
)


class SchemaTooNew(Exception):
    """The database was written by a later version of Lifesign."""

    def __init__(self, found: str, known: str) -> None:
        super().__init__(
            f"the database has schema {found}, which this version of Lifesign does not know (its newest is {known}); "
            "start the version that wrote it, or a later one"
        )
        self.found = found
        self.known = known


def config(chain: Chain = MAIN) -> "Config":
    """Alembic's settings, without an ini file."""
    from alembic.config import Config  # noqa: PLC0415 - see above

    settings = Config()
    settings.set_main_option("script_location", str(chain.directory))
    return settings


@functools.cache
def _known(chain: Chain) -> tuple[str, ...]:
    """Every revision, in order: the file of each begins with it."""
    return tuple(sorted(path.name.partition("_")[0] for path in (chain.directory / "versions").glob("[0-9]*.py")))


def newest(chain: Chain = MAIN) -> str:
    """The revision this version of Lifesign works with."""
    return _known(chain)[-1]


def current(conn: Connection) -> str | None:
    """The revision of the database; None for an empty one."""
    return revision(conn) if inspect(conn).has_table("alembic_version") else None


def revision(conn: Connection) -> str | None:
    """The revision that the database has at this moment, for those who look often."""
    found: str | None = conn.scalar(text("SELECT version_num FROM alembic_version"))
    return found


def upgrade(engine: Engine, chain: Chain = MAIN) -> str | None:
    """Bring the tables to `newest()`, all or nothing; return the revision found before. Raises SchemaTooNew."""
    with engine.begin() as conn:
        if engine.dialect.name == "postgresql":
            conn.execute(text("SET LOCAL statement_timeout = 0"))
            conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": chain.lock_key})
        before = current(conn)
        if before is not None and before not in _known(chain):
            raise SchemaTooNew(before, newest(chain))
        if before != newest(chain):
            from alembic import command  # noqa: PLC0415 - see above

            settings = config(chain)
            settings.attributes["connection"] = conn
            command.upgrade(settings, "head")
    return before
