"""Fixtures: a whole node in this process, on a clock turned by hand, on SQLite and on a real PostgreSQL."""

import socket
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import SecretStr

from lifesign import log
from lifesign.db import migrate
from lifesign.db.open import postgres_engine
from lifesign.settings import Settings
from tests import postgres
from tests.harness import ADMIN_KEY, Lifesign, MakeLifesign

DATABASES = ("sqlite", "postgresql")

log.configure("json", "error")


@pytest.fixture(scope="session")
def cluster() -> Iterator[postgres.Cluster]:
    """A PostgreSQL server of the test run's own."""
    started = postgres.start()
    try:
        yield started
    finally:
        started.stop()


@pytest.fixture(scope="session")
def migrated(cluster: postgres.Cluster) -> str:
    """The name of a database with all tables and no rows: a copy of it is there sooner than a migration."""
    name = "lifesign_migrated"
    cluster.create_database(name)
    engine = postgres_engine(Settings(database_url=SecretStr(cluster.url(name))), size=1)
    migrate.upgrade(engine)
    engine.dispose()
    return name


@pytest.fixture(params=DATABASES)
def database_url(request: pytest.FixtureRequest) -> Iterator[SecretStr | None]:
    """Every test that asks for it runs on both databases: None is SQLite."""
    if request.param == "sqlite":
        yield None
        return
    running: postgres.Cluster = request.getfixturevalue("cluster")
    name = f"lifesign_{uuid.uuid4().hex[:12]}"
    running.create_database(name, template=request.getfixturevalue("migrated"))
    yield SecretStr(running.url(name))
    running.drop_database(name)


@pytest.fixture
def settings(tmp_path: Path, database_url: SecretStr | None) -> Settings:
    """Settings of a node in a fresh directory; a test changes them with `settings.model_copy(update=...)`."""
    return Settings(
        data_dir=tmp_path / "data",
        database_url=database_url,
        admin_key=SecretStr(ADMIN_KEY),
        allow_private_targets=True,
        log_level="error",
    )


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
