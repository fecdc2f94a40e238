"""The check-in's short way past the framework answers exactly as the long way through it."""

import httpx2
import pytest

from lifesign.envelopes.edge import Edge
from tests.harness import ADMIN_KEY, Lifesign, client_of

AUTHORIZED = {"Authorization": f"Bearer {ADMIN_KEY}"}
SENDING = AUTHORIZED | {"Content-Type": "application/json"}
TOO_LARGE = b" " * 262_145


@pytest.mark.parametrize(
    ("method", "path", "headers", "content", "status"),
    [
        ("POST", "/v1/heartbeats/nightly-export/checkin", AUTHORIZED, b"", 200),
        ("POST", "/v1/heartbeats/nightly-export/checkin", AUTHORIZED, b'{"healthy":true,"metadata":{"a":1}}', 200),
        ("POST", "/v1/heartbeats/nightly%2Dexport/checkin?later=1", AUTHORIZED, b"", 200),
        ("POST", "/v1/heartbeats/nightly-export/checkin", {}, b"", 401),
        ("POST", "/v1/heartbeats/nightly-export/checkin", {"Authorization": "Bearer wrong"}, b"", 401),
        ("POST", "/v1/heartbeats/other/checkin", AUTHORIZED, b"", 404),
        ("POST", "/v1/heartbeats/other/checkin", AUTHORIZED, b"{", 404),
        ("POST", "/v1/heartbeats/a/b/checkin", AUTHORIZED, b"", 404),
        ("POST", "/v1/heartbeats//checkin", AUTHORIZED, b"", 404),
        ("POST", "/v1/heartbeats/nightly-export/checkin/", AUTHORIZED, b"", 404),
        ("GET", "/v1/heartbeats/nightly-export/checkin", AUTHORIZED, b"", 405),
        ("HEAD", "/v1/heartbeats/nightly-export/checkin", AUTHORIZED, b"", 405),
        ("POST", "/v1/heartbeats/nightly-export/checkin", AUTHORIZED, b'{"healthy":1}', 400),
        ("POST", "/v1/heartbeats/nightly-export/checkin", AUTHORIZED | {"Idempotency-Key": ""}, b"", 400),
        ("POST", "/v1/heartbeats/nightly-export/checkin", AUTHORIZED, TOO_LARGE, 413),
        ("GET", "/ping/nobody/here", {}, b"", 404),
        ("TRACE", "/ping/nobody/here", {}, b"", 405),
        ("OPTIONS", "/ping/nobody/here", {}, b"", 204),
        ("GET", "/ping/", {}, b"", 404),
        ("POST", "/api/systems/heartbeat", {}, b"", 401),
        ("POST", "/api/systems/heartbeat", AUTHORIZED, b"", 401),
        ("POST", "/api/systems/heartbeat", {"Authorization": "Basic YTpi"}, TOO_LARGE, 401),
        ("POST", "/api/systems/heartbeat/", AUTHORIZED, b"", 404),
        ("GET", "/api/systems/heartbeat", AUTHORIZED, b"", 405),
        ("POST", "/v1/traces", SENDING, b'{"resourceSpans":[]}', 202),
        ("POST", "/v1/traces", SENDING, b"{", 400),
        ("POST", "/v1/traces", SENDING | {"Content-Type": "application/x-protobuf"}, b"x", 400),
        ("POST", "/v1/traces", {}, b"", 401),
        ("POST", "/v1/traces", AUTHORIZED, b"", 415),
        ("POST", "/v1/traces/", SENDING, b"", 404),
        ("GET", "/v1/traces", SENDING, b"", 405),
        ("HEAD", "/v1/traces", SENDING, b"", 405),
        ("OPTIONS", "/v1/traces", {}, b"", 405),
    ],
)
async def test_both_ways_give_the_same_answer(
    lifesign: Lifesign, *, method: str, path: str, headers: dict[str, str], content: bytes, status: int
) -> None:
    await lifesign.heartbeat("Nightly Export")

    async def asked(http: httpx2.AsyncClient) -> httpx2.Response:
        return await http.request(method, path, headers=headers | {"X-Request-Id": "same"}, content=content)

    short = await asked(lifesign.client(None))
    async with client_of(Edge(lifesign.node.api, lifesign.node.clock), None) as framework:
        long = await asked(framework)

    assert short.status_code == long.status_code == status
    assert short.content == long.content
    assert sorted(short.headers.multi_items()) == sorted(long.headers.multi_items())


async def test_a_fault_of_the_server_is_told_without_its_cause_on_the_short_way(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("a secret of the server")

    await lifesign.heartbeat("Nightly Export")
    monkeypatch.setattr(lifesign.node.api.state.check_ins, "record", fails)

    answer = await lifesign.http.post("/v1/heartbeats/nightly-export/checkin")

    assert answer.status_code == 500
    assert answer.json()["error"] == {
        "code": "INTERNAL_ERROR",
        "message": "Internal server error",
        "statusCode": 500,
    }
