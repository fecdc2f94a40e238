"""Lifesign as a server runs it, with a trivial route of the Vitals API more; on demand without its log.

`--without`: nothing is counted, all else is the same. `--noting N`: N records a second are counted besides, as if
others asked so much. Settings come from the environment.
"""

import argparse
import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import AsyncIterator

import uvicorn
import uvloop
from starlette.requests import Request
from starlette.responses import Response

from lifesign import log
from lifesign.app import Node, open_node
from lifesign.http.answers import json_answer
from lifesign.settings import Settings
from lifesign.usage.rules import UsageRecord

TRIVIAL = "/api/vitals/trivial"
_TURNS_PER_S = 20


async def trivial(_: Request) -> Response:
    return json_answer({"success": True})


async def _note(node: Node, per_s: int) -> None:
    while True:
        for n in range(per_s // _TURNS_PER_S):
            status = 404 if n % 10 == 0 else 200
            node.usage.note(UsageRecord(node.clock.now(), "GET", TRIVIAL, status, n % 300, None))
        await asyncio.sleep(1 / _TURNS_PER_S)


@contextlib.asynccontextmanager
async def _noting(node: Node, per_s: int) -> AsyncIterator[None]:
    task = asyncio.create_task(_note(node, per_s)) if per_s else None
    yield
    if task is not None:
        task.cancel()


async def main(*, is_counted: bool, noting: int) -> None:
    settings = Settings()
    log.configure("json", "warning")
    node = await open_node(settings)
    node.api.add_route(TRIVIAL, trivial)
    gc.collect()
    gc.freeze()
    # What is inside, which is all that a server without the log would have.
    app = node.app if is_counted else node.app._app  # type: ignore[attr-defined]  # noqa: SLF001 - as said above
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
    )
    server = uvicorn.Server(config)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: setattr(server, "should_exit", True))
    node.driver.start()
    print(f"listening on http://127.0.0.1:{listener.getsockname()[1]}", flush=True)
    async with _noting(node, noting):
        await server.serve(sockets=[listener])
    await node.driver.stop()
    await node.close()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--without", action="store_true")
    parser.add_argument("--noting", type=int, default=0)
    asked = parser.parse_args()
    uvloop.run(main(is_counted=not asked.without, noting=asked.noting))
