from collections.abc import Iterator

import clickhouse_connect
import pytest


@pytest.fixture(scope="session")
def chdb_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """ClickHouse within this process: an engine opens one directory, and stops with its last client."""
    directory = tmp_path_factory.mktemp("chdb") / "data"
    client = clickhouse_connect.get_client(interface="chdb", path=str(directory))
    yield f"chdb://{directory}"
    client.close()
