"""The server against its own `/openapi.json`: schemathesis makes requests of every kind and judges each answer."""

import asyncio
import os
import re
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import uvicorn

from lifesign.app import open_node
from lifesign.settings import Settings
from tests.effort import IS_LONG
from tests.harness import ADMIN_KEY
from tests.peers.names import ScriptedResolver

ROOT = Path(__file__).parents[2]
NOBODY = "http://127.0.0.1:1"
# A bound on hanging, not on work: it takes half a minute, and several on a machine that does much else.
LONGEST_S = 1200


@asynccontextmanager
async def _serving(settings: Settings) -> AsyncIterator[str]:
    """The address of a running server that finds no name and so reaches nobody, whatever a channel is called."""
    node = await open_node(settings, resolver=ScriptedResolver({}))
    # Named TCP: only then asyncio turns Nagle's algorithm off, which costs 40 ms for each request.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(node.app, lifespan="off", log_config=None))
    node.driver.start()
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        await node.driver.stop()
        await node.close()
        listener.close()


async def test_every_answer_to_made_up_requests_is_as_described_and_none_is_a_fault_of_the_server(
    settings: Settings, tmp_path: Path
) -> None:
    settings = settings.model_copy(
        update={"allow_private_targets": False, "pagerduty_url": NOBODY, "twilio_url": NOBODY, "smtp_host": None}
    )
    # Requests at the bounds of the description are refused, or not, before any database is asked: once is enough, and
    # PostgreSQL refuses more by itself.
    is_brief = settings.database_url is None and not IS_LONG
    phases = ["examples", "fuzzing", "stateful"] if is_brief else ["examples", "coverage", "fuzzing", "stateful"]
    async with _serving(settings) as url:
        exit_code, output = await _schemathesis(
            "run",
            f"{url}/openapi.json",
            "--header",
            f"Authorization: Bearer {ADMIN_KEY}",
            "--checks",
            "all",
            # Replaced by the narrower checks of tests/contracts/explained.py.
            "--exclude-checks",
            "positive_data_acceptance,unsupported_method",
            "--max-examples",
            "5",
            "--phases",
            ",".join(phases),
            # The same requests in every run; another seed finds its way around the same rules.
            "--seed",
            "1",
            # The first analysis starts a process, which takes its time on a machine that does much else.
            "--request-timeout",
            "120",
            "--max-response-time",
            "120",
            "--continue-on-failure",
            "--no-color",
            cwd=tmp_path,
        )

    tested = re.search(r"Tested: (\d+)", output)
    assert tested is not None, output
    assert int(tested[1]) >= 31, output
    assert exit_code == 0, output


async def _schemathesis(*arguments: str, cwd: Path) -> tuple[int | None, str]:
    """How schemathesis ended (0: nothing found) and what it printed; it writes its own files to `cwd`."""
    environment = os.environ | {
        "SCHEMATHESIS_HOOKS": "tests.contracts.explained",
        "PYTHONPATH": str(ROOT),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "schemathesis.cli",
        *arguments,
        cwd=cwd,
        env=environment,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(LONGEST_S):
            output, _ = await process.communicate()
    except TimeoutError:
        process.kill()
        await process.wait()
        pytest.fail(f"schemathesis did not end within {LONGEST_S} s")
    return process.returncode, output.decode()
