from collections.abc import AsyncIterator
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
        self._opened: list[ClickHouseStore] = []

    async def open(
        self,
        name: str = "one",
        *,
        address: Address | None = None,
        max_bytes: int = 2**30,
        retention_days: int = RETENTION_DAYS,
    ) -> ClickHouseStore:
        store = ClickHouseStore(
            address or self._address,
            self._directory / name,
            retention_days=retention_days,
            max_bytes=max_bytes,
            failpoints=Failpoints(),
        )
        # However busy the machine is.
        store.drain_s = 30
        self._opened.append(store)
        return store

    async def close(self, store: ClickHouseStore) -> None:
        self._opened.remove(store)
        await store.close()

    async def close_all(self) -> None:
        for store in list(self._opened):
            await self.close(store)


@pytest.fixture
async def nodes(engine: Address, tmp_path: Path) -> AsyncIterator[Nodes]:
    opened = Nodes(engine, tmp_path)
    yield opened
    await opened.close_all()


@pytest.fixture
async def store(nodes: Nodes) -> ClickHouseStore:
    return await nodes.open()


@pytest.fixture
def project(request: pytest.FixtureRequest) -> str:
    """A project of the test's own: all tests share the table."""
    return f"{request.node.name}'\"\\"
