import pytest


@pytest.fixture(scope="session")
def chdb_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """ClickHouse within this process: an engine opens one directory, and keeps it."""
    return f"chdb://{tmp_path_factory.mktemp('chdb')}/data"
