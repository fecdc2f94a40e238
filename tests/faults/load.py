"""Checks in as fast as it can until the server is gone, and writes down every check-in that was answered.

    python -m tests.faults.load --port 8080 --slug job --connections 16 --file answered.txt

Each line of the file is the number that went along as `metadata.n`. It is in the file once the answer 200 was read
whole. Ends with status 0 when every connection has broken. With `--basic` it reports for the system that `--slug` is
the id of; the numbers then only count.
"""

import argparse
import asyncio
import itertools
from pathlib import Path
from typing import TextIO

from tests.harness import ADMIN_KEY


async def _check_in_until_the_end(options: argparse.Namespace, numbers: "itertools.count[int]", file: TextIO) -> None:
    port, slug = options.port, options.slug
    path = "/api/systems/heartbeat" if options.basic else f"/v1/heartbeats/{slug}/checkin"
    authorization = f"Basic {options.basic}" if options.basic else f"Bearer {ADMIN_KEY}"
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while True:
            number = next(numbers)
            body = b'{"system_id":"%s"}' % slug.encode() if options.basic else b'{"metadata":{"n":%d}}' % number
            head = (
                f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
                f"Authorization: {authorization}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            writer.write(head.encode() + body)
            status, length = await _head(reader)
            await reader.readexactly(length)
            if status == 200:
                file.write(f"{number}\n")
                file.flush()
    except (OSError, asyncio.IncompleteReadError):
        return


async def _head(reader: asyncio.StreamReader) -> tuple[int, int]:
    """Status and content length of an answer."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
    length = next(line.partition(":")[2] for line in head if line.startswith("content-length:"))
    return int(head[0].split()[1]), int(length)


async def _main(options: argparse.Namespace) -> None:
    numbers = itertools.count(1)
    with options.file.open("w") as file:
        await asyncio.gather(*(_check_in_until_the_end(options, numbers, file) for _ in range(options.connections)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--slug", required=True)
    parser.add_argument("--basic")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--file", type=Path, required=True)
    asyncio.run(_main(parser.parse_args()))
