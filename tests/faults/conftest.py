"""What servers in processes of their own need: peers, and a PostgreSQL that keeps what it acknowledged."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import postgres
from tests.peers.fixtures import ledger, ledger_process, mail, smtp_process

__all__ = ["ledger", "ledger_process", "mail", "smtp_process"]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> Iterator[str | None]:
    """The address of a fresh database; None is SQLite in the data directory."""
    if request.param == "sqlite":
        yield None
        return
    running: postgres.Databases = request.getfixturevalue("cluster")
    with running.new_database() as url:
        yield url


@pytest.fixture
def tmp_path(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory on disk, whose pace decides how much a crash finds half done; kept when the test fails."""
    failures = request.session.testsfailed
    directory = Path(tempfile.mkdtemp(prefix="lifesign-faults-"))
    yield directory
    if request.session.testsfailed == failures:
        shutil.rmtree(directory)
