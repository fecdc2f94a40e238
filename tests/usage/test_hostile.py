"""Whatever is sent to keys and dashboards, the answer is one of those that are described, and never a fault."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.harness import Lifesign
from tests.usage.builders import Builder, builder

ALLOWED = {200, 201, 400, 401, 404, 413, 429}
FIELDS = ("name", "email", "company", "use_case", "x")
SCALARS = st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text()
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3)
)
ADDRESSES = st.from_regex(r"[a-z\x00-\x7f]{1,9}@[a-z0-9]{1,9}\.[a-z]{2,4}", fullmatch=True)
BODIES = (
    st.fixed_dictionaries({"name": st.text(min_size=1), "email": ADDRESSES}, optional={"company": st.text()}).map(
        json.dumps
    )
    | st.dictionaries(st.sampled_from(FIELDS), VALUES, max_size=5).map(json.dumps)
    | VALUES.map(json.dumps)
).map(str.encode) | st.binary(max_size=200)
PATHS = st.sampled_from(
    [
        "/api/keys",
        "/api/keys/me",
        "/api/keys/me/rotate",
        *(f"/api/dashboard/{n}" for n in ("overview", "metrics", "recent-errors")),
    ]
) | st.text("abc/.%0_~", max_size=30).map("/api/keys/".__add__).filter(
    lambda path: ".." not in path  # by which a client climbs out of this API
)
QUERIES = st.text("range=24h7d30&limit=cursor%00 +é\t", max_size=40)
HEADERS = st.sampled_from([b"", b"beam_", b"\xff\xfe", b"beam_" + b"0" * 32, b"a" * 5000, b"\t"]) | st.binary(
    max_size=60
)
METHODS = st.sampled_from(["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "BREW"])

pytestmark = pytest.mark.asyncio(loop_scope="module")
MANY = settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def judge(answer: httpx2.Response) -> None:
    assert answer.status_code in ALLOWED, answer.text
    assert answer.headers["x-request-id"]
    if answer.request.method == "HEAD":
        return
    body = answer.json()
    assert body["success"] is (answer.status_code < 400)
    if answer.status_code >= 400:
        assert set(body) == {"success", "message"}


async def test_anything_may_be_sent_as_a_wish(shared_node: Lifesign) -> None:
    loop = asyncio.get_running_loop()
    client = shared_node.client(None)

    @MANY
    @given(BODIES)
    def tried(content: bytes) -> None:
        judge(asyncio.run_coroutine_threadsafe(client.post("/api/keys", content=content), loop).result(60))

    await asyncio.to_thread(tried)


async def test_anything_may_be_asked_with_a_key_and_without(shared_node: Lifesign) -> None:
    loop = asyncio.get_running_loop()
    async with builder(shared_node) as jane:

        @MANY
        @given(METHODS, PATHS, QUERIES, st.none() | HEADERS, st.binary(max_size=40))
        def tried(method: str, path: str, query: str, header: bytes | None, content: bytes) -> None:
            asked = _asked(jane, (method, path, query), header, content)
            judge(asyncio.run_coroutine_threadsafe(asked, loop).result(60))

        await asyncio.to_thread(tried)

        # The numbers hold, whatever was asked.
        async with builder(shared_node) as joe:
            series = (await joe.metrics("30d"))["time_series"]
            assert sum(each["total_requests"] for each in series) + 1 == (await joe.overview())["requests"]["last_30d"]


async def _asked(jane: Builder, line: tuple[str, str, str], header: bytes | None, content: bytes) -> httpx2.Response:
    method, path, query = line
    # A key that is replaced or revoked on the way would let the rest be refused.
    key = jane.key.encode() if header is None and not path.startswith("/api/keys/me") else header or b""
    url = httpx2.URL("http://lifesign.test", raw_path=f"{path}?{quote(query, safe='=&%+')}".encode())
    return await jane.http.send(httpx2.Request(method, url, headers=[(b"X-API-Key", key)], content=content))


async def test_a_body_that_ends_before_it_should_is_nobodys_fault(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        before = await jane.last_24h()

        async def receive() -> dict[str, object]:
            return {"type": "http.disconnect"}

        async def send(_: object) -> None:
            return None

        scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": "/api/keys",
            "raw_path": b"/api/keys",
            "query_string": b"",
            "headers": [],
            "scheme": "http",
            "http_version": "1.1",
            "client": None,
            "server": None,
        }
        await shared_node.node.app(scope, receive, send)

        assert await jane.last_24h() == before + 2
        messages = [each["message"] for each in (await jane.errors())["errors"]]
        assert "POST /api/keys → 499" in messages
