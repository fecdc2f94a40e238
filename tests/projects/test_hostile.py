"""Whatever is sent to the routes of projects, the answer is one of those that are described, and never a fault."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from lifesign.settings import Settings
from tests.harness import ADMIN_KEY, Lifesign
from tests.postgres import Cluster
from tests.projects.visitors import visitor

ROUTES = {
    "/v1/provision": {201, 400, 401},
    "/v1/signup": {201, 400},
    "/v1/signup/upgrade": {400, 403},
    "/v1/recover": {400, 403},
}
FIELDS = ("project_name", "operator", "code", "project_id", "recovery_code", "producer_key", "agent_key", "x")
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
BODIES = (
    st.dictionaries(st.sampled_from(FIELDS), st.text() | VALUES, max_size=6)
    | st.dictionaries(st.text(), VALUES, max_size=3)
    | VALUES
)
# What Python writes for NaN and lone surrogates is no JSON to others; bytes are whatever they are.
CONTENTS = BODIES.map(lambda body: json.dumps(body).encode()) | st.binary(max_size=200)
UNLIMITED = {"mint_limit_per_hour": 0, "mint_limit_total_per_hour": 0, "recover_limit_per_hour": 0}


async def _statuses(node_settings: Settings, contents: list[bytes]) -> dict[str, set[int]]:
    found: dict[str, set[int]] = {path: set() for path in ROUTES}
    async with Lifesign.started(node_settings, at="2026-01-05T12:00:00.000Z") as lifesign, visitor(lifesign) as someone:
        agent = (await someone.sign_up())["agent_key"]
        for path in ROUTES:
            headers = {"Authorization": f"Bearer {agent}"} if path == "/v1/signup/upgrade" else {}
            for content in contents:
                answer = await someone.http.post(path, content=content, headers=headers)
                assert answer.json()["ok"] is (answer.status_code < 400)
                found[path].add(answer.status_code)
    return found


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_no_body_is_a_fault_of_the_server(database: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    node_settings = Settings(data_dir=tmp_path, admin_key=SecretStr(ADMIN_KEY), log_level="error")
    node_settings = node_settings.model_copy(update=UNLIMITED)
    if database == "postgresql":
        cluster: Cluster = request.getfixturevalue("cluster")
        cluster.create_database("lifesign_hostile")
        node_settings = node_settings.model_copy(update={"database_url": SecretStr(cluster.url("lifesign_hostile"))})

    # A hundred bodies for each start of a node, which takes longer than all of them.
    @settings(max_examples=5, deadline=None)
    @given(st.lists(CONTENTS, min_size=100, max_size=100))
    def check(contents: list[bytes]) -> None:
        found = asyncio.run(_statuses(node_settings, contents))
        assert {path: statuses - ROUTES[path] for path, statuses in found.items()} == {path: set() for path in ROUTES}

    check()


@pytest.mark.parametrize("path", sorted(ROUTES))
async def test_a_body_nested_deeply_is_refused(lifesign: Lifesign, path: str) -> None:
    async with visitor(lifesign) as someone:
        agent = (await someone.sign_up())["agent_key"]
        content = b'{"project_name": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"

        answer = await someone.http.post(path, content=content, headers={"Authorization": f"Bearer {agent}"})

    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_json")


async def test_a_chunked_body_that_is_too_long_is_refused_on_the_way(lifesign: Lifesign) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(70):
            yield b" " * 1000

    async with visitor(lifesign) as someone:
        answer = await someone.http.post("/v1/signup", content=chunks())

    assert (answer.status_code, answer.json()["error"]) == (413, "body_too_large")
