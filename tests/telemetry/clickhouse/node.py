"""A node that a test kills: appends what it is told and says so, or tells what there is.

python -m tests.telemetry.clickhouse.node DIRECTORY append|tell [FAILPOINTS]
"""

import asyncio
import json
import sys
from pathlib import Path

from lifesign.clock import EpochMs
from lifesign.db.failpoints import Failpoints
from lifesign.telemetry.store import Filter
from lifesign.telemetry.stores.clickhouse.client import Address
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from tests.telemetry.clickhouse.test_store import EVER, spans
from tests.telemetry.spans import RECEIVED_AT

PROJECT = "p"
_REQUESTS = 5


def main() -> None:
    directory, task, *failpoints = sys.argv[1:]
    asyncio.run((append if task == "append" else tell)(Path(directory), ",".join(failpoints)))


def _open(directory: Path, failpoints: str) -> ClickHouseStore:
    return ClickHouseStore(
        Address.of(f"chdb://{directory}/data"),
        directory,
        retention_days=3650,
        max_bytes=2**30,
        failpoints=Failpoints(failpoints),
    )


async def append(directory: Path, failpoints: str) -> None:
    store = _open(directory, failpoints)
    for number in range(1, _REQUESTS + 1):
        await store.append(PROJECT, spans(2 * number, 2 * number + 1), quota=0, now=RECEIVED_AT)
        print("answered", 2 * number, 2 * number + 1, flush=True)  # noqa: T201 - read by the test
    await store.window(PROJECT, *EVER, only=Filter(), limit=999, after=None)
    await asyncio.Event().wait()


async def tell(directory: Path, failpoints: str) -> None:
    store = _open(directory, failpoints)
    # What is there in the end, however long the engine takes to start.
    store.drain_s = 60.0
    found = await store.window(PROJECT, *EVER, only=Filter(), limit=999, after=None)
    stats = await store.stats(PROJECT, *EVER)
    told = {
        "records": sorted(int(each.record.span_id, 16) for each in found),
        "used": await store.used(PROJECT, EpochMs(RECEIVED_AT)),
        "pending": stats.pending_records,
    }
    print(json.dumps(told))  # noqa: T201 - read by the test
    await store.close()


if __name__ == "__main__":
    main()
