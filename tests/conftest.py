"""Fixtures: a whole node in this process, on a clock turned by hand, on SQLite and on a real PostgreSQL."""

import gc
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from pydantic import SecretStr

from lifesign import log
from lifesign.db import migrate
from lifesign.db.open import postgres_engine, postgres_engine_at
from lifesign.settings import Settings
from lifesign.telemetry.stores.open import SCHEMA, migrate_postgres
from tests import postgres, statements
from tests.harness import SETTINGS, Lifesign, MakeLifesign
from tests.run import Run, memory

DATABASES = ("sqlite", "postgresql")

log.configure("json", "error")

# How long an example takes says more about what else the machine does than about what is tested.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

# Where this is set, every server and every command that a test starts would compile all of Lifesign anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

_RUN = pytest.StashKey[Run]()
_CLUSTER = "cluster"


# The run ------------------------------------------------------------------------------------------------------------
def pytest_configure(config: pytest.Config) -> None:
    worker = getattr(config, "workerinput", None)
    config.stash[_RUN] = Run.begun() if worker is None else Run(Path(worker["run_directory"]))
    if worker is not None:
        return
    # Whoever ends the run with a signal gets what Ctrl-C does: nothing that it started stays behind.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if place := memory():
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(place))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:  # Any: xdist's controller of a worker has no types
    node.workerinput["run_directory"] = str(node.config.stash[_RUN].directory)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    # Workers must name tests alike. Bytes are often made while the tests are collected, with the time of day in them.
    return argname if isinstance(val, bytes) and len(val) > 8 else None


def pytest_collection_finish() -> None:
    # Libraries and tests stay until the end: each full collection would walk through a million objects of theirs.
    gc.collect()
    gc.freeze()


def pytest_unconfigure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        return
    # Workers have ended by now, however they ended.
    run = config.stash[_RUN]
    if told := run.told(_CLUSTER):
        postgres.Shared.of(told).stop()
    run.end()


@pytest.fixture(scope="session", autouse=True)
def _statements() -> Iterator[None]:
    with statements.kept():
        yield


# Databases ----------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="session")
def cluster(pytestconfig: pytest.Config) -> postgres.Databases:
    """A PostgreSQL server of the test run's own, the same for all its processes."""
    return postgres.Shared.of(pytestconfig.stash[_RUN].once(_CLUSTER, lambda: postgres.start().let_go()))


@pytest.fixture(scope="session")
def migrated(pytestconfig: pytest.Config, cluster: postgres.Databases) -> str:
    """The name of a database with all tables and no rows: a copy of it is there sooner than a migration."""

    def make() -> str:
        name = "lifesign_migrated"
        cluster.create_database(name)
        engine = postgres_engine(Settings(database_url=SecretStr(cluster.url(name))), size=1)
        migrate.upgrade(engine)
        engine.dispose()
        engine = postgres_engine_at(cluster.url(name), size=1, schema=SCHEMA)
        migrate_postgres(engine)
        engine.dispose()
        return name

    return pytestconfig.stash[_RUN].once("migrated", make)


@pytest.fixture(scope="session")
def reused(cluster: postgres.Databases, migrated: str) -> Iterator[postgres.Reused]:
    """Databases with all tables and no rows."""
    databases = postgres.Reused(cluster, migrated)
    yield databases
    databases.close()


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[SecretStr | None]:
    """Every test that asks for it runs on both databases: None is SQLite."""
    if request.param == "sqlite":
        yield None
        return
    databases: postgres.Reused = request.getfixturevalue("reused")
    with databases.database() as url:
        yield SecretStr(url)


# Nodes --------------------------------------------------------------------------------------------------------------
@pytest.fixture
def settings(tmp_path: Path, database_url: SecretStr | None) -> Settings:
    """Settings of a node in a fresh directory; a test changes them with `settings.model_copy(update=...)`."""
    return SETTINGS.model_copy(update={"data_dir": tmp_path / "data", "database_url": database_url})


@pytest.fixture
def start_lifesign(settings: Settings) -> MakeLifesign:
    """Starts nodes by hand: `async with start_lifesign(at="2026-03-07T07:05:00Z", max_heartbeats=3) as lifesign`."""

    @asynccontextmanager
    async def start(*, at: str = "2026-01-05T12:00:00.000Z", **changes: object) -> AsyncIterator[Lifesign]:
        async with Lifesign.started(settings.model_copy(update=changes), at=at) as lifesign:
            yield lifesign

    return start


@pytest.fixture
async def lifesign(start_lifesign: MakeLifesign) -> AsyncIterator[Lifesign]:
    """A node whose clock stands at Monday 2026-01-05 12:00 UTC."""
    async with start_lifesign() as started:
        yield started


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that is taken, so that nobody else listens there, and refuses."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
