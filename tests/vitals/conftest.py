from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import numpy as np
import pytest
import pytest_asyncio

from tests.harness import Lifesign
from tests.shared import ledger, shared_node
from tests.usage.builders import new_email, take_key
from tests.vitals.clips import CLIP_FPS, pulsing, write_clip

__all__ = ["api", "ledger", "shared_node"]


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve seconds of a face with 72 beats a minute, without loss."""
    times = np.arange(round(12 * CLIP_FPS)) / CLIP_FPS
    return write_clip(tmp_path_factory.mktemp("clips") / "clip.mkv", pulsing(times), times)


@pytest_asyncio.fixture(loop_scope="module")
async def api(shared_node: Lifesign) -> AsyncIterator[httpx2.AsyncClient]:
    """A client with a fresh key of the Vitals API."""
    async with shared_node.client(None) as client:
        made = await take_key(client, new_email())
        client.headers["X-API-Key"] = made.json()["api_key"]["key"]
        yield client
