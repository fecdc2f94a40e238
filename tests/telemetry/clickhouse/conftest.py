from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from lifesign.db.failpoints import Failpoints
from lifesign.telemetry.stores.clickhouse.client import Address
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore

# Longer than the records of tests are old: the engine goes by the machine's clock.
RETENTION_DAYS = 3650


@pytest.fixture(scope="session")
def engine(chdb_url: str) -> Address:
    return Address.of(chdb_url)


class Nodes:
    """Opens stores on one ClickHouse, each with a spool of its own."""

    def __init__(self, address: Address, directory: Path) -> None:
        self._address = address
        self._directory = directory
        self._stack = AsyncExitStack()

    async def open(
        self, name: str = "one", *, address: Address | None = None, max_bytes: int = 2**30, failpoints: str = ""
    ) -> ClickHouseStore:
        store = ClickHouseStore(
            address or self._address,
            self._directory / name,
            retention_days=RETENTION_DAYS,
            max_bytes=max_bytes,
            failpoints=Failpoints(failpoints),
        )
        self._stack.push_async_callback(store.close)
        return store

    async def close(self) -> None:
        await self._stack.aclose()


@pytest.fixture
async def nodes(engine: Address, tmp_path: Path) -> AsyncIterator[Nodes]:
    opened = Nodes(engine, tmp_path)
    yield opened
    await opened.close()


@pytest.fixture
async def store(nodes: Nodes) -> ClickHouseStore:
    return await nodes.open()


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own: all tests share the table."""
    return f"{request.node.name}'\"\\"
