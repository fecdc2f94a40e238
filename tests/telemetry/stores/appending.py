"""A process that appends to a store, says what was answered, and goes on until it is killed.

    python -m tests.telemetry.stores.appending DATA_DIR

One line for each batch: its number. The address of another store is in LIFESIGN_DATABASE_URL.
"""

import asyncio
import itertools
import os
import sys
from pathlib import Path

from pydantic import SecretStr

from lifesign.settings import Settings
from lifesign.telemetry.records import Record
from lifesign.telemetry.stores import open_store
from tests.telemetry.stores.builder import NOW, record

PROJECT = "p"
BATCH = 200


def batch(number: int) -> list[Record]:
    return [record(trace_id=f"{number:032x}", span_id=f"{each:016x}") for each in range(1, BATCH + 1)]


async def main(directory: Path) -> None:
    url = os.environ.get("LIFESIGN_DATABASE_URL")
    store = open_store(Settings(data_dir=directory, database_url=SecretStr(url) if url else None))
    for number in itertools.count(1):
        await store.append(PROJECT, batch(number), quota=0, now=NOW)
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
