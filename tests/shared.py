"""A node that many tests share, each in a project of its own: much quicker than a node per test, as well separated.

Only the clock is common. It is turned forwards only, so a test counts from `now()`.
"""

import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest
import pytest_asyncio
from pydantic import SecretStr
from sqlalchemy import Connection

from lifesign.auth import service as auth
from lifesign.clock import EpochMs, rfc3339
from lifesign.ids import new_id
from lifesign.projects import store as projects
from tests.conftest import DATABASES
from tests.harness import SETTINGS, Json, Lifesign
from tests.peers.process import LedgerPeer, ledger_peer
from tests.postgres import Reused

_START = "2026-01-05T12:00:00.000Z"
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def ledger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LedgerPeer]:
    """Where webhooks, Slack and PagerDuty messages of the shared node arrive; a test has receivers of its own."""
    with ledger_peer(tmp_path_factory.mktemp("ledger")) as peer:
        yield peer


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=DATABASES)
async def shared_node(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, ledger: LedgerPeer
) -> AsyncIterator[Lifesign]:
    """One node for all tests of a module, on each database."""
    settings = SETTINGS.model_copy(update={"data_dir": tmp_path_factory.mktemp("node"), "pagerduty_url": ledger.url})
    if request.param == "sqlite":
        async with Lifesign.started(settings, at=_START) as started:
            yield started
        return
    databases: Reused = request.getfixturevalue("reused")
    with databases.database() as url:
        on_postgres = settings.model_copy(update={"database_url": SecretStr(url)})
        async with Lifesign.started(on_postgres, at=_START) as started:
            yield started


@pytest_asyncio.fixture(loop_scope="module")
async def office(shared_node: Lifesign) -> AsyncIterator[Lifesign]:
    """The shared node, seen by the admin of a new project; its heartbeats are gone afterwards."""
    async with new_project(shared_node) as opened:
        yield opened
        left = await every_heartbeat(opened)
        for each in left:
            await opened.ask("DELETE", f"/v1/heartbeats/{each['id']}", expect=204)
        if any(each["status"] == "firing" for each in left):
            await opened.advance()


@asynccontextmanager
async def new_project(node: Lifesign) -> AsyncIterator[Lifesign]:
    """A new project, seen by a key with every scope of it."""
    _, token = await node.node.db.write(_open_project, f"office-{next(_numbers)}", node.now())
    async with node.client(token) as client:
        yield replace(node, http=client)


def _open_project(conn: Connection, name: str, now: EpochMs) -> tuple[object, str]:
    project_id = new_id("prj", now)
    projects.insert_project(conn, project_id, name, now)
    return auth.create_key(conn, auth.operator(project_id), name="admin", scopes=["*"], expires_at=None, now=now)


async def every_heartbeat(office: Lifesign) -> list[Json]:
    """All heartbeats of the project."""
    found: list[Json] = []
    cursor = ""
    while True:
        page = await office.ask("GET", f"/v1/heartbeats?limit=1000{cursor}")
        found += page["heartbeats"]
        if "nextCursor" not in page:
            return found
        cursor = f"&cursor={page['nextCursor']}"


async def refused(office: Lifesign, method: str, path: str, body: object = None) -> list[Json]:
    """The details of a 400 `BAD_REQUEST`."""
    error = (await office.ask(method, path, body, expect=400))["error"]
    assert error["code"] == "BAD_REQUEST"
    details: list[Json] = error["details"]
    assert error["message"] == f"Invalid request: {details[0]['field']} {details[0]['message']}"
    return details


async def state_refused(office: Lifesign, path: str) -> Json:
    """The error of a 400 `INVALID_STATE`."""
    error: Json = (await office.ask("POST", path, expect=400))["error"]
    assert error["code"] == "INVALID_STATE"
    return error


def after(office: Lifesign, seconds: float) -> str:
    """A moment from now, as it is shown."""
    return rfc3339(EpochMs(office.now() + round(seconds * 1000)))
