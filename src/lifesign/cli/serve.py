"""`lifesign serve` and `lifesign migrate`."""

from typing import Annotated

import typer

from lifesign.cli import options
from lifesign.cli.environment import read_settings, storage_failure


def serve(
    *,
    host: Annotated[
        str | None, typer.Option("--host", help="Address to listen on.  [env var: LIFESIGN_HOST; default: 127.0.0.1]")
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            "--port",
            min=0,
            max=65535,
            help="Port to listen on; 0 takes a free one.  [env var: LIFESIGN_PORT; default: 8080]",
        ),
    ] = None,
    data_dir: options.DataDir = None,
) -> None:
    """Run the server until it is told to stop. Every other setting is a LIFESIGN_* variable."""
    settings = read_settings(host=host, port=port, data_dir=data_dir)
    from lifesign.server import run

    raise typer.Exit(run(settings))


def migrate(data_dir: options.DataDir = None) -> None:
    """Bring the database and the store of telemetry to the newest schema, as a start of the server would."""
    settings = read_settings(data_dir=data_dir)
    from contextlib import nullcontext

    from lifesign.db.migrate import newest, upgrade
    from lifesign.db.open import SQLITE_FILE, data_directory_lock, is_postgres, postgres_engine, sqlite_engine
    from lifesign.telemetry.stores.clickhouse.client import Address
    from lifesign.telemetry.stores.open import CHAIN, migrate_store, place_of

    try:
        with nullcontext() if is_postgres(settings) else data_directory_lock(settings.data_dir):
            engine = (
                postgres_engine(settings, size=1)
                if is_postgres(settings)
                else sqlite_engine(settings.data_dir / SQLITE_FILE)
            )
            try:
                before = upgrade(engine)
            finally:
                engine.dispose()
            print(_told("the schema", before, newest()))
            if isinstance(place_of(settings), Address):
                print("ClickHouse gets its tables when it is first used")
                return
            print(_told("the schema of telemetry", migrate_store(settings), newest(CHAIN)))
    except Exception as error:
        raise storage_failure(error) from error


def _told(what: str, before: str | None, after: str) -> str:
    if before == after:
        return f"{what} is at revision {after} already"
    return f"{what} went from {f'revision {before}' if before else 'nothing'} to revision {after}"
