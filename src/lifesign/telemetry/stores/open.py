"""Opening the store that the settings name."""

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from sqlalchemy import Engine, make_url, text

from lifesign.db import Database, migrate
from lifesign.db.database import LENGTHY
from lifesign.db.failpoints import Failpoints
from lifesign.db.open import data_directory_lock, postgres_engine_at, sqlite_engine
from lifesign.settings import Settings
from lifesign.telemetry.store import SpanStore
from lifesign.telemetry.stores.clickhouse.client import Address
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
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

    Raises migrate.SchemaTooNew, DataDirectoryInUse (a file that another process has), ClickHouseNotInstalled.
    """
    failpoints = failpoints or Failpoints()
    match place_of(settings):
        case Path() as path:
            return _sqlite(path, settings, failpoints)
        case str(address):
            return _postgres(address, failpoints)
        case Address() as address:
            return ClickHouseStore(
                address,
                settings.data_dir,
                retention_days=settings.telemetry_retention_days,
                max_bytes=settings.spool_max_bytes,
                failpoints=failpoints,
            )


def place_of(settings: Settings) -> Path | str | Address:
    """Where the records are: a file of SQLite, the address of a PostgreSQL, or ClickHouse."""
    address = settings.telemetry_url or settings.database_url
    if address is None:
        return settings.data_dir / SQLITE_FILE
    url = address.get_secret_value()
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        return Path(make_url(url).database or "")
    return url if scheme == "postgresql" else Address.of(url)


def migrate_store(settings: Settings) -> str | None:
    """Bring the tables of a store in SQL up to date, as its opening would; the revision found before.

    With SQLite the caller holds the data directory. Raises migrate.SchemaTooNew, DataDirectoryInUse, and ValueError
    for ClickHouse, whose tables are made when it is first used.
    """
    place = place_of(settings)
    if isinstance(place, Address):
        msg = "ClickHouse has no revisions"
        raise ValueError(msg)  # noqa: TRY004 - what the settings say is wrong here, not the type of an argument
    if isinstance(place, str):
        return _dispose_after(postgres_engine_at(place, size=1, schema=SCHEMA), _migrate)
    with _held(place, settings):
        return _dispose_after(sqlite_engine(place, gives_back=True), _migrate)


def _dispose_after(engine: Engine, work: Callable[[Engine], str | None]) -> str | None:
    try:
        return work(engine)
    finally:
        engine.dispose()


def _held(path: Path, settings: Settings) -> ExitStack:
    """The directory of a file, which is there by now, unless it is the data directory."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    held = ExitStack()
    if path.parent.resolve() != settings.data_dir.resolve():
        held.enter_context(data_directory_lock(path.parent))
    return held


def _sqlite(path: Path, settings: Settings, failpoints: Failpoints) -> SpanStore:
    held = _held(path, settings)
    try:
        writer = _migrated(sqlite_engine(path, gives_back=True))
    except BaseException:
        held.close()
        raise
    reader = sqlite_engine(path, read_only=True)
    db = Database(writer=writer, reader=reader, writers=1, readers=_SQLITE_READERS, failpoints=failpoints)
    return SqlStore("sqlite", db, held)


def _postgres(address: str, failpoints: Failpoints) -> SpanStore:
    writer = _migrated(postgres_engine_at(address, size=_POSTGRES_WRITERS, schema=SCHEMA))
    reader = postgres_engine_at(address, size=_POSTGRES_READERS + LENGTHY, schema=SCHEMA, read_only=True)
    db = Database(
        writer=writer, reader=reader, writers=_POSTGRES_WRITERS, readers=_POSTGRES_READERS, failpoints=failpoints
    )
    return SqlStore("postgresql", db, ExitStack())


def migrate_postgres(engine: Engine) -> str | None:
    """Make the schema, which is the search path of the engine, and bring its tables up to date.

    The revision found before.
    """
    with engine.begin() as conn:
        # Nodes that start at once must not both make it; and who may not make one may use one that is there.
        conn.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": CHAIN.lock_key})
        if conn.scalar(text("SELECT to_regnamespace(:name)"), {"name": SCHEMA}) is None:
            conn.execute(text(f"CREATE SCHEMA {SCHEMA}"))
    return migrate.upgrade(engine, CHAIN)


def _migrate(engine: Engine) -> str | None:
    return migrate_postgres(engine) if engine.dialect.name == "postgresql" else migrate.upgrade(engine, CHAIN)


def _migrated(engine: Engine) -> Engine:
    try:
        _migrate(engine)
    except BaseException:
        engine.dispose()
        raise
    return engine
