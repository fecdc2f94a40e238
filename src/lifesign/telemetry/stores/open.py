"""Opening the store that the settings name."""

from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine, make_url, text

from lifesign.db import Database, migrate
from lifesign.db.failpoints import Failpoints
from lifesign.db.open import data_directory_lock, postgres_engine_at, sqlite_engine
from lifesign.settings import Settings
from lifesign.telemetry.store import SpanStore
from lifesign.telemetry.stores.sql import SqlStore

SQLITE_FILE = "telemetry.db"
SCHEMA = "telemetry"
CHAIN = migrate.Chain(
    Path(__file__).parent / "migrations",
    # "spans" in ASCII.
    0x7370616E73,
)

_SQLITE_READERS = 4
_POSTGRES_WRITERS = 2
_POSTGRES_READERS = 4


def open_store(settings: Settings, failpoints: Failpoints | None = None) -> SpanStore:
    """Open, migrate and return the store. With SQLite the caller holds the data directory.

    Raises migrate.SchemaTooNew, DataDirectoryInUse (a file elsewhere that another process has).
    """
    failpoints = failpoints or Failpoints()
    address = settings.telemetry_url.get_secret_value() if settings.telemetry_url else None
    if address is None and settings.database_url is not None:
        address = settings.database_url.get_secret_value()
    if address is None:
        return _sqlite(settings.data_dir / SQLITE_FILE, settings, failpoints)
    scheme = address.partition(":")[0]
    if scheme == "sqlite":
        return _sqlite(Path(make_url(address).database or ""), settings, failpoints)
    return _postgres(address, failpoints)


def _sqlite(path: Path, settings: Settings, failpoints: Failpoints) -> SpanStore:
    held = ExitStack()
    if path.parent.resolve() != settings.data_dir.resolve():
        held.enter_context(data_directory_lock(path.parent))
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        writer = _migrated(sqlite_engine(path, gives_back=True))
    except BaseException:
        held.close()
        raise
    reader = sqlite_engine(path, read_only=True)
    db = Database(writer=writer, reader=reader, writers=1, readers=_SQLITE_READERS, failpoints=failpoints)
    return SqlStore("sqlite", db, held)


def _postgres(address: str, failpoints: Failpoints) -> SpanStore:
    writer = _migrated(postgres_engine_at(address, size=_POSTGRES_WRITERS, schema=SCHEMA))
    reader = postgres_engine_at(address, size=_POSTGRES_READERS, schema=SCHEMA, read_only=True)
    db = Database(
        writer=writer, reader=reader, writers=_POSTGRES_WRITERS, readers=_POSTGRES_READERS, failpoints=failpoints
    )
    return SqlStore("postgresql", db, ExitStack())


def migrate_postgres(engine: Engine) -> None:
    """Make the schema, which is the search path of the engine, and bring its tables up to date."""
    with engine.begin() as conn:
        # Nodes that start at once must not both make it; and who may not make one may use one that is there.
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CHAIN.lock_key})
        if conn.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}) is None:
            conn.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    migrate.upgrade(engine, CHAIN)


def _migrated(engine: Engine) -> Engine:
    try:
        if engine.dialect.name == "postgresql":
            migrate_postgres(engine)
        else:
            migrate.upgrade(engine, CHAIN)
    except BaseException:
        engine.dispose()
        raise
    return engine
