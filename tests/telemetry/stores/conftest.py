"""Every store that there is, each opened once for all tests of a process; a test has a project of its own."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import clickhouse_connect
import pytest
from pydantic import SecretStr

from lifesign.settings import Settings
from lifesign.telemetry.store import SpanStore
from lifesign.telemetry.stores import open_store
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from tests.harness import SETTINGS
from tests.postgres import Reused

SQL_STORES = ("sqlite", "postgresql")
STORES = (*SQL_STORES, "chdb")


_numbers = itertools.count(1)


@dataclass
class Opened:
    """A store, asked from tests that do not run in a loop of their own."""

    store: SpanStore
    settings: Settings
    runner: asyncio.Runner

    def new_project(self) -> str:
        # One engine of ClickHouse serves all modules of a process, and each module counts anew.
        return f"project-{next(_numbers)}"


@contextmanager
def opened(settings: Settings) -> Iterator[Opened]:
    with asyncio.Runner() as runner:
        store = open_store(settings)
        if isinstance(store, ClickHouseStore):
            # However busy the machine is.
            store.drain_s = 30
        try:
            yield Opened(store, settings, runner)
        finally:
            runner.run(store.close())


def _empty(chdb_url: str) -> None:
    """Let nothing be left of tests before: they have the engine in common, and names of projects."""
    client = clickhouse_connect.get_client(dsn=chdb_url)
    for table in ("spans", "traces"):
        client.command(f"TRUNCATE TABLE IF EXISTS {table}")
    client.close()


@contextmanager
def _store_of(request: pytest.FixtureRequest, settings: Settings) -> Iterator[Opened]:
    if request.param == "sqlite":
        with opened(settings) as store:
            yield store
        return
    if request.param == "chdb":
        address = request.getfixturevalue("chdb_url")
        _empty(address)
        changes = {"telemetry_url": SecretStr(address), "telemetry_retention_days": 3650}
        with opened(settings.model_copy(update=changes)) as store:
            yield store
        return
    databases: Reused = request.getfixturevalue("reused")
    with databases.database() as url, opened(settings.model_copy(update={"database_url": SecretStr(url)})) as store:
        yield store


@pytest.fixture(scope="module", params=STORES)
def a_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """One for all tests of a module."""
    with _store_of(request, SETTINGS.model_copy(update={"data_dir": tmp_path_factory.mktemp("store")})) as store:
        yield store


@pytest.fixture(params=STORES)
def lone_store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opened]:
    """One of its own, for tests that count what is in it."""
    with _store_of(request, SETTINGS.model_copy(update={"data_dir": tmp_path})) as store:
        yield store
