"""Processes that analyse, and the server that they belong to."""

import os
import select
import signal
import subprocess
import sys

_SERVER = """
import asyncio, os
from lifesign.vitals.workers import Workers

async def main():
    print(await Workers(1).run(os.getpid), flush=True)
    await asyncio.Event().wait()

if __name__ == "__main__":
    asyncio.run(main())
"""
_PATIENCE_MS = 30_000


def test_a_worker_goes_with_a_server_that_is_killed() -> None:
    with subprocess.Popen([sys.executable, "-c", _SERVER], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        worker = os.pidfd_open(int(server.stdout.readline()))
        ended = select.poll()
        ended.register(worker, select.POLLIN)
        is_there = not ended.poll(0)

        server.send_signal(signal.SIGKILL)

        assert is_there
        assert ended.poll(_PATIENCE_MS)
        os.close(worker)
