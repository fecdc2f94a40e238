"""What servers in processes of their own need: peers, and a PostgreSQL that keeps what it acknowledged."""

import uuid
from collections.abc import Iterator

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
    running: postgres.Cluster = request.getfixturevalue("cluster")
    name = f"lifesign_{uuid.uuid4().hex[:12]}"
    running.create_database(name)
    yield running.url(name)
    running.drop_database(name)
