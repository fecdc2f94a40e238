"""Every store that there is, each opened once for all tests of a process; a test has a project of its own."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from pydantic import SecretStr

from lifesign.settings import Settings
from lifesign.telemetry.store import SpanStore
from lifesign.telemetry.stores import open_store
from tests.harness import SETTINGS
from tests.postgres import Databases

STORES = ("sqlite", "postgresql")


@dataclass
class Opened:
    """A store, asked from tests that do not run in a loop of their own."""

    store: SpanStore
    settings: Settings
    runner: asyncio.Runner
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def new_project(self) -> str:
        return f"project-{next(self.numbers)}"


@contextmanager
def opened(settings: Settings) -> Iterator[Opened]:
    with asyncio.Runner() as runner:
        store = open_store(settings)
        try:
            yield Opened(store, settings, runner)
        finally:
            runner.run(store.close())


@pytest.fixture(scope="module", params=STORES)
def a_store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    settings = SETTINGS.model_copy(update={"data_dir": tmp_path_factory.mktemp("store")})
    if request.param == "sqlite":
        with opened(settings) as store:
            yield store
        return
    cluster: Databases = request.getfixturevalue("cluster")
    with cluster.new_database() as url, opened(settings.model_copy(update={"database_url": SecretStr(url)})) as store:
        yield store
