"""What errors look like under the prefixes of the Telemetry API. Spec "Telemetry", sections 1 and 3."""

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from google.rpc.status_pb2 import Status  # type: ignore[import-untyped]  # it comes without types
from starlette.requests import Request
from starlette.responses import Response

from lifesign.db import StorageUnavailable
from lifesign.http.answers import json_answer
from lifesign.http.ok import integer_of, query_integer, read_object
from tests.harness import Lifesign
from tests.projects.visitors import visitor, with_route

PREFIXES = (
    "/v1/traces",
    "/v1/telemetry",
    "/v1/runs",
    "/v1/dashboard",
    "/v1/reports",
    "/v1/provision",
    "/v1/signup",
    "/v1/recover",
    "/v1/issues",
    "/v1/logs",
    "/v1/metrics",
)
EXPORTED_TO = ("/v1/traces", "/v1/logs", "/v1/metrics")
ONLY_TRACES = "Only traces are accepted here; set OTEL_LOGS_EXPORTER=none / OTEL_METRICS_EXPORTER=none"


@pytest.mark.parametrize("prefix", PREFIXES)
async def test_an_unknown_path_is_told_in_this_apis_words(lifesign: Lifesign, prefix: str) -> None:
    async with visitor(lifesign) as someone:
        answer = await someone.ask("GET", f"{prefix}/no/such/path")

    expected = {"ok": False, "error": "not_found", "message": "Resource not found"}
    assert answer.status_code == 404
    assert answer.json() == expected | ({"code": 12} if prefix in EXPORTED_TO else {})
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize("path", ["/v1/run", "/v1/runsx/y", "/v1/heartbeats/hb_1/runs/x/y/z", "/v1/", "/v1/tracesx"])
async def test_other_paths_are_told_in_the_words_of_heartbeats(lifesign: Lifesign, path: str) -> None:
    answer = await lifesign.http.get(path)

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"


async def test_the_runs_of_a_heartbeat_are_not_runs_of_this_api(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat()

    assert await lifesign.ask("GET", f"/v1/heartbeats/{made['id']}/runs") == {"runs": []}
    refused = await lifesign.client(None).get(f"/v1/heartbeats/{made['id']}/runs")
    assert refused.json()["error"]["code"] == "UNAUTHORIZED"


@pytest.mark.parametrize("path", ["/v1/provision", "/v1/signup", "/v1/signup/upgrade", "/v1/recover"])
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH"])
async def test_a_wrong_method_is_told_with_the_right_one(lifesign: Lifesign, path: str, method: str) -> None:
    async with visitor(lifesign) as someone:
        answer = await someone.ask(method, path)

    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    if method == "HEAD":
        assert answer.content == b""
    else:
        assert answer.json() == {"ok": False, "error": "method_not_allowed", "message": "Method not allowed"}


async def test_head_is_answered_wherever_get_is_and_has_no_body(lifesign: Lifesign) -> None:
    shown, head = await lifesign.http.get("/v1/dashboard"), await lifesign.http.head("/v1/dashboard")
    refused = await lifesign.http.delete("/v1/dashboard")

    assert shown.status_code == 200
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == shown.headers["content-length"]
    assert (refused.status_code, refused.headers["allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize("path", ["/v1/logs", "/v1/metrics"])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_other_signals_are_told_how_to_be_left_out(lifesign: Lifesign, path: str, method: str) -> None:
    async with visitor(lifesign) as someone:
        answer = await someone.ask(method, path, {"resourceLogs": []})

    assert answer.status_code == 404
    assert answer.json() == {"ok": False, "error": "not_found", "message": ONLY_TRACES, "code": 12}


@pytest.mark.parametrize(
    "content_type", ["application/x-protobuf", "application/protobuf", "Application/X-Protobuf; a=b"]
)
async def test_exporters_that_speak_protobuf_are_answered_so(lifesign: Lifesign, content_type: str) -> None:
    async with visitor(lifesign) as someone:
        answer = await someone.http.post("/v1/metrics", content=b"\n\x00", headers={"Content-Type": content_type})
        below = await someone.http.post("/v1/traces/x", content=b"", headers={"Content-Type": content_type})
        elsewhere = await someone.http.post("/v1/provision", content=b"", headers={"Content-Type": content_type})

    assert (answer.status_code, answer.headers["content-type"]) == (404, "application/x-protobuf")
    status = Status.FromString(answer.content)
    assert (status.code, status.message) == (12, ONLY_TRACES)
    assert Status.FromString(below.content).code == 12
    assert elsewhere.json()["error"] == "invalid_json"


@contextmanager
def _failing(lifesign: Lifesign, error: Exception) -> Iterator[None]:
    async def fail(_request: Request) -> Response:
        raise error

    with with_route(lifesign, "/v1/reports/broken", fail):
        yield


async def test_a_fault_of_the_server_says_nothing_but_its_request_id(lifesign: Lifesign) -> None:
    with _failing(lifesign, RuntimeError("inner words")):
        async with visitor(lifesign) as someone:
            answer = await someone.http.get("/v1/reports/broken", headers={"X-Request-Id": "mine"})

    assert answer.status_code == 500
    assert answer.json() == {
        "ok": False,
        "error": "internal_error",
        "message": "Internal server error",
        "request_id": "mine",
    }


async def test_storage_that_fails_says_when_to_try_again(lifesign: Lifesign) -> None:
    with _failing(lifesign, StorageUnavailable("gone")):
        async with visitor(lifesign) as someone:
            answer = await someone.ask("GET", "/v1/reports/broken")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["error"] == "storage_unavailable"


async def test_a_name_with_nul_is_nowhere(lifesign: Lifesign) -> None:
    async with visitor(lifesign) as someone:
        assert await someone.refused("GET", "/v1/runs/a%00b") == (404, "not_found")


# Numbers ------------------------------------------------------------------------------------------------------------
async def _numbers(request: Request) -> Response:
    body = await read_object(request)
    return json_answer(
        {
            "body": integer_of(body, "n", 1, 1000, default=60),
            "query": query_integer(request, "limit", 1, 500, default=50),
        }
    )


@pytest.mark.parametrize(
    ("query", "content", "expected"),
    [
        ("", "{}", (60, 50)),
        ("", '{"n": null}', (60, 50)),
        ("?limit=1", '{"n": 1000}', (1000, 1)),
        ("?limit=007", '{"n": 7}', (7, 7)),
        ("", '{"n": "60"}', "n must be an integer from 1 to 1000"),
        ("", '{"n": true}', "n must be an integer from 1 to 1000"),
        ("", '{"n": 1.5}', "n must be an integer from 1 to 1000"),
        ("", '{"n": 60.0}', "n must be an integer from 1 to 1000"),
        ("", '{"n": 0}', "n must be an integer from 1 to 1000"),
        ("", '{"n": 99999999999999999999999999}', "n must be an integer from 1 to 1000"),
        ("?limit=0", "{}", "limit must be an integer from 1 to 500"),
        ("?limit=501", "{}", "limit must be an integer from 1 to 500"),
        ("?limit=x", "{}", "limit must be an integer from 1 to 500"),
        ("?limit=1.5", "{}", "limit must be an integer from 1 to 500"),
        ("?limit=-1", "{}", "limit must be an integer from 1 to 500"),
        ("?limit=%2B1", "{}", "limit must be an integer from 1 to 500"),
        ("?limit=", "{}", "limit must be an integer from 1 to 500"),
        ("?limit=%D9%A3", "{}", "limit must be an integer from 1 to 500"),
        (f"?limit={'9' * 5000}", "{}", "limit must be an integer from 1 to 500"),
    ],
)
async def test_a_number_is_digits_and_nothing_else(
    lifesign: Lifesign, query: str, content: str, expected: str | tuple[int, int]
) -> None:
    async with visitor(lifesign) as someone:
        with with_route(lifesign, "/v1/runs/numbers", _numbers, "POST"):
            answer = await someone.http.post(f"/v1/runs/numbers{query}", content=content)

    if isinstance(expected, str):
        assert answer.status_code == 400
        assert answer.json() == {"ok": False, "error": "invalid_parameter", "message": expected}
    else:
        assert answer.json() == {"body": expected[0], "query": expected[1]}
