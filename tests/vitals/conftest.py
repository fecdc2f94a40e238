from collections.abc import AsyncIterator

import httpx2
import pytest_asyncio

from tests.harness import Lifesign
from tests.shared import ledger, shared_node
from tests.usage.builders import new_email, take_key

__all__ = ["api", "ledger", "shared_node"]


@pytest_asyncio.fixture(loop_scope="module")
async def api(shared_node: Lifesign) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a fresh key of the Vitals API."""
    async with shared_node.client(None) as client:
        made = await take_key(client, new_email())
        client.headers["X-API-Key"] = made.json()["api_key"]["key"]
        yield client
