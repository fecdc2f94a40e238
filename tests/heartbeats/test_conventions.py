"""Section 1 of spec "Heartbeats": what every operation has in common."""

import asyncio
import contextlib
import json
import re
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn

from tests.harness import ADMIN_KEY, Json, Lifesign
from tests.shared import after, new_project, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")

CONTRACT = json.loads((Path(__file__).parents[1] / "contracts" / "heartbeatkit.openapi.json").read_text())
PUBLISHED = sorted(
    (method.upper(), path)
    for path, item in CONTRACT["paths"].items()
    for method in item
    if method in {"get", "post", "put", "patch", "delete"}
)
MISSING = "hb_0123456789abcdef0123456789abcdef"
# Every path, with all verbs it takes.
VERBS = {
    "/v1/heartbeats": "GET, POST",
    f"/v1/heartbeats/{MISSING}": "DELETE, GET, PATCH",
    f"/v1/heartbeats/{MISSING}/checkin": "POST",
    f"/v1/heartbeats/{MISSING}/ack": "POST",
    f"/v1/heartbeats/{MISSING}/pause": "POST",
    f"/v1/heartbeats/{MISSING}/resume": "POST",
    f"/v1/heartbeats/{MISSING}/snooze": "DELETE, POST",
    f"/v1/heartbeats/{MISSING}/events": "GET",
    f"/v1/heartbeats/{MISSING}/events/import": "POST",
    f"/v1/heartbeats/{MISSING}/history": "GET",
    f"/v1/heartbeats/{MISSING}/runs": "GET, POST",
    f"/v1/heartbeats/{MISSING}/runs/a": "GET",
    f"/v1/heartbeats/{MISSING}/runs/a/progress": "POST",
    f"/v1/heartbeats/{MISSING}/runs/a/finish": "POST",
    "/v1/maintenance": "GET, POST",
    "/v1/maintenance/mw_1": "DELETE, GET, PATCH",
    "/v1/policies": "GET, POST",
    "/v1/policies/pol_1": "DELETE, GET, PATCH",
    "/v1/channels": "GET, POST",
    "/v1/channels/ch_1": "DELETE, GET, PATCH",
    "/v1/channels/ch_1/test": "POST",
    "/v1/keys": "GET, POST",
    "/v1/keys/key_1": "DELETE",
    "/v1/incidents": "GET",
    "/v1/incidents/inc_1": "GET",
    "/v1/notifications": "GET",
}
OBJECTS = [
    ("GET", f"/v1/heartbeats/{MISSING}"),
    ("PATCH", f"/v1/heartbeats/{MISSING}"),
    ("DELETE", f"/v1/heartbeats/{MISSING}"),
    ("POST", f"/v1/heartbeats/{MISSING}/checkin"),
    ("POST", f"/v1/heartbeats/{MISSING}/ack"),
    ("POST", f"/v1/heartbeats/{MISSING}/pause"),
    ("POST", f"/v1/heartbeats/{MISSING}/resume"),
    ("GET", f"/v1/heartbeats/{MISSING}/events"),
    ("POST", f"/v1/heartbeats/{MISSING}/events/import"),
    ("GET", f"/v1/heartbeats/{MISSING}/history"),
    ("POST", f"/v1/heartbeats/{MISSING}/snooze"),
    ("DELETE", f"/v1/heartbeats/{MISSING}/snooze"),
    ("GET", f"/v1/heartbeats/{MISSING}/runs"),
    ("POST", f"/v1/heartbeats/{MISSING}/runs"),
    ("GET", f"/v1/heartbeats/{MISSING}/runs/a"),
    ("POST", f"/v1/heartbeats/{MISSING}/runs/a/progress"),
    ("POST", f"/v1/heartbeats/{MISSING}/runs/a/finish"),
    ("GET", "/v1/heartbeats/no-such-slug"),
    ("GET", "/v1/maintenance/mw_0123456789abcdef0123456789abcdef"),
    ("PATCH", "/v1/maintenance/mw_0123456789abcdef0123456789abcdef"),
    ("DELETE", "/v1/maintenance/mw_0123456789abcdef0123456789abcdef"),
    ("GET", "/v1/policies/pol_0123456789abcdef0123456789abcdef"),
    ("PATCH", "/v1/policies/pol_0123456789abcdef0123456789abcdef"),
    ("DELETE", "/v1/policies/pol_0123456789abcdef0123456789abcdef"),
    ("GET", "/v1/channels/ch_0123456789abcdef0123456789abcdef"),
    ("PATCH", "/v1/channels/ch_0123456789abcdef0123456789abcdef"),
    ("DELETE", "/v1/channels/ch_0123456789abcdef0123456789abcdef"),
    ("POST", "/v1/channels/ch_0123456789abcdef0123456789abcdef/test"),
    ("DELETE", "/v1/keys/key_0123456789abcdef0123456789abcdef"),
    ("GET", "/v1/incidents/inc_0123456789abcdef0123456789abcdef"),
]


def envelope(answer: httpx2.Response, status: int, code: str, message: str) -> Any:  # Any: details are JSON
    """Check the whole of an error's form; its details."""
    body: Json = answer.json()
    assert answer.status_code == status
    assert set(body) == {"error", "requestId", "timestamp"}
    assert body["requestId"] == answer.headers["x-request-id"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", body["timestamp"])
    assert body["error"] == {"code": code, "message": message, "statusCode": status} | (
        {"details": body["error"]["details"]} if "details" in body["error"] else {}
    )
    return body["error"].get("details") or {}


@asynccontextmanager
async def served(office: Lifesign) -> AsyncIterator[str]:
    """The address of a real server for the node, over real sockets."""
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(office.node.app, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        await serving
        listener.close()


# Who is asked first -------------------------------------------------------------------------------------------------
async def test_the_contract_has_twenty_three_operations() -> None:
    assert len(PUBLISHED) == 23


@pytest.mark.parametrize(("method", "path"), PUBLISHED)
async def test_no_published_operation_answers_without_a_key(office: Lifesign, method: str, path: str) -> None:
    async with office.client(None) as stranger:
        answer = await stranger.request(method, "/v1" + path.format(idOrSlug="x", id="x"))

    envelope(answer, 401, "UNAUTHORIZED", "Missing or invalid API key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    [
        "/v1",
        "/v1/",
        "/v1/nothing",
        "/v1/heartbeats/",
        "/v1/heartbeats/x/",
        "/v1/heartbeats/x/checkin/",
        "/v1/heartbeats/x/nothing",
        "/v1/heartbeats/x/events/1",
        "/v1/policies/",
        "/v1/policies/x/steps",
        "/v1/channels/x/test/",
        "/v1/keys/",
        "/V1/heartbeats",
    ],
)
async def test_an_unknown_path_is_404_before_anybody_looks_at_the_key(office: Lifesign, path: str) -> None:
    async with office.client(None) as stranger:
        answer = await stranger.post(path)

    if path.startswith("/v1"):
        envelope(answer, 404, "NOT_FOUND", "Resource not found")
    assert answer.status_code == 404


@pytest.mark.parametrize("path", VERBS)
async def test_a_wrong_verb_is_405_and_names_all_that_would_do(office: Lifesign, path: str) -> None:
    wrong = sorted({"GET", "POST", "PATCH", "DELETE", "PUT", "OPTIONS"} - set(VERBS[path].split(", ")))
    async with office.client(None) as stranger:
        answers = [await stranger.request(method, path) for method in wrong]

    assert answers
    for answer in answers:
        envelope(answer, 405, "METHOD_NOT_ALLOWED", "Method not allowed")
        assert answer.headers["allow"] == VERBS[path]


async def test_head_is_a_wrong_verb_and_has_no_body(office: Lifesign) -> None:
    async with served(office) as url, httpx2.AsyncClient(base_url=url) as stranger:
        answer = await stranger.head("/v1/heartbeats")

    assert (answer.status_code, answer.headers["allow"], answer.content) == (405, "GET, POST", b"")


@pytest.mark.parametrize(("method", "path"), OBJECTS)
async def test_a_missing_object_is_told_before_a_bad_body_and_a_bad_query(
    office: Lifesign, method: str, path: str
) -> None:
    url = f"{path}?limit=0&cursor=x&force=maybe"
    answer = await office.http.request(method, url, content=b"{not json", headers={"Idempotency-Key": ""})

    envelope(answer, 404, "NOT_FOUND", "Resource not found")


@pytest.mark.parametrize(("method", "path"), OBJECTS)
async def test_a_missing_scope_is_told_before_a_missing_object(office: Lifesign, method: str, path: str) -> None:
    noun = path.split("/")[2]
    other = "policies:read" if noun != "policies" else "channels:read"
    made = await office.ask("POST", "/v1/keys", {"name": "narrow", "scopes": [other]}, expect=201)
    async with office.client(made["token"]) as narrow:
        answer = await narrow.request(method, path, content=b"{not json")

    assert answer.status_code == 403
    assert answer.json()["error"]["details"]["scopes"]


async def test_a_bad_body_is_told_before_a_state_that_is_in_the_way(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]

    details = await refused(office, "POST", f"/v1/heartbeats/{ref}/ack", {"message": 5})

    assert details == [{"field": "message", "message": "must be a string", "value": 5}]


async def test_a_missing_scope_is_named(office: Lifesign) -> None:
    made = await office.ask("POST", "/v1/keys", {"name": "narrow", "scopes": ["policies:read"]}, expect=201)
    async with office.client(made["token"]) as narrow:
        answer = await narrow.post("/v1/policies", content=b"{not json")

    assert envelope(answer, 403, "FORBIDDEN", "Missing scope: policies:write") == {"scopes": ["policies:write"]}


# Request ids --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("sent", ["a", "A-b_c.9", "x" * 64])
async def test_a_request_id_of_the_caller_is_repeated(office: Lifesign, sent: str) -> None:
    good = await office.http.get("/v1/heartbeats", headers={"X-Request-Id": sent})
    bad = await office.http.get("/v1/heartbeats/none", headers={"X-Request-Id": sent})

    assert good.headers["x-request-id"] == sent
    assert bad.headers["x-request-id"] == bad.json()["requestId"] == sent


@pytest.mark.parametrize("sent", ["", " ", "a b", "x" * 65, "a/b", "ä".encode(), None])
async def test_a_request_id_is_made_where_the_caller_sends_none_or_a_bad_one(
    office: Lifesign, sent: str | bytes | None
) -> None:
    headers: Any = {} if sent is None else {"X-Request-Id": sent}  # Any: bytes are allowed, and not in the stubs
    first, second = [await office.http.get("/v1/keys", headers=headers) for _ in range(2)]

    assert re.fullmatch(r"req_[0-9a-f]{32}", first.headers["x-request-id"])
    assert first.headers["x-request-id"] != second.headers["x-request-id"]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/heartbeats"), ("PUT", "/v1/heartbeats"), ("GET", "/v1/none"), ("GET", "/health")]
)
async def test_every_answer_carries_a_request_id(office: Lifesign, method: str, path: str) -> None:
    answer = await office.http.request(method, path)

    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_204_has_no_body_and_a_request_id(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]

    answer = await office.http.delete(f"/v1/heartbeats/{ref}")

    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers["x-request-id"].startswith("req_")


# Bodies -------------------------------------------------------------------------------------------------------------
BODIES = ["/v1/heartbeats", "/v1/policies", "/v1/channels", "/v1/keys"]


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_that_is_no_json_is_refused(office: Lifesign, path: str) -> None:
    for body in (b"", b" \n", b"{", b"nul", b'{"name":"a",}', b"\xff\xfe", b'{"name":"\xff"}', b"{NaN}"):
        answer = await office.http.post(path, content=body)

        assert answer.status_code == 400, body
        assert [each["field"] for each in answer.json()["error"]["details"]] == ["body"], body


@pytest.mark.parametrize("path", BODIES)
async def test_a_body_that_is_no_object_is_refused(office: Lifesign, path: str) -> None:
    message = "Invalid request: body must be a JSON object"
    for body in ("[]", '"text"', "7", "null", "true", '[{"name":"a"}]'):
        answer = await office.http.post(path, content=body)

        assert envelope(answer, 400, "BAD_REQUEST", message) == [{"field": "body", "message": "must be a JSON object"}]


@pytest.mark.parametrize("kind", ["heartbeats", "policies", "channels"])
async def test_a_patch_needs_a_body(office: Lifesign, kind: str, ledger: Any) -> None:
    channel = await office.webhook(ledger.url + "/hook/none")
    made = {
        "heartbeats": (await office.heartbeat())["id"],
        "policies": (await office.policy({"channels": [channel["id"]]}))["id"],
        "channels": channel["id"],
    }

    details = await refused(office, "PATCH", f"/v1/{kind}/{made[kind]}")

    assert details == [{"field": "body", "message": "is required"}]


@pytest.mark.parametrize("content_type", [None, "text/plain", "application/x-www-form-urlencoded", "nonsense"])
async def test_a_body_is_json_whatever_its_type_says(office: Lifesign, content_type: str | None) -> None:
    body = b'{"name": "Typed", "mode": "recurring", "interval": 60}'

    answer = await office.http.post(
        "/v1/heartbeats", content=body, headers={} if content_type is None else {"Content-Type": content_type}
    )

    assert answer.status_code == 201


async def test_of_a_repeated_member_the_last_one_counts(office: Lifesign) -> None:
    body = b'{"name": 5, "mode": "weekly", "mode": "recurring", "interval": "x", "interval": 60, "name": "Last"}'

    answer = await office.http.post("/v1/heartbeats", content=body)

    assert answer.status_code == 201
    assert (answer.json()["name"], answer.json()["interval"]) == ("Last", 60)


async def test_unknown_members_and_parameters_are_ignored(office: Lifesign) -> None:
    made = await office.ask(
        "POST", "/v1/heartbeats?wanted=no", {"name": "a", "mode": "oneshot", "interval": 9, "colour": None}, expect=201
    )

    assert "colour" not in made
    assert len((await office.ask("GET", "/v1/heartbeats?page=7&colour="))["heartbeats"]) == 1


@pytest.mark.parametrize("interval", ["60", "60.0", "6e1", "60.00"])
async def test_a_number_without_a_fraction_is_an_integer(office: Lifesign, interval: str) -> None:
    answer = await office.http.post(
        "/v1/heartbeats", content=f'{{"name": "a", "mode": "recurring", "interval": {interval}}}'
    )

    assert answer.status_code == 201
    assert '"interval":60,' in answer.text


@pytest.mark.parametrize("interval", ["true", '"60"', "60.5", "[60]", "{}", "null", "1e400", "1" * 400, "-0.5"])
async def test_what_is_no_whole_number_is_no_integer(office: Lifesign, interval: str) -> None:
    answer = await office.http.post(
        "/v1/heartbeats", content=f'{{"name": "a", "mode": "recurring", "interval": {interval}}}'
    )

    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["error"]["details"]] in (["interval"], ["body"])


@pytest.mark.parametrize("value", ["1", '"true"', "0", "null", "[]"])
async def test_only_true_and_false_are_booleans(office: Lifesign, value: str) -> None:
    body = f'{{"name": "a", "mode": "recurring", "interval": 60, "armed": {value}, "stickyPause": {value}}}'

    answer = await office.http.post("/v1/heartbeats", content=body)

    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["error"]["details"]] == ["armed", "stickyPause"]


@pytest.mark.parametrize("value", ["True", "1", "", "yes", "TRUE"])
async def test_a_query_boolean_is_true_or_false(office: Lifesign, ledger: Any, value: str) -> None:
    channel = await office.webhook(ledger.url + "/hook/none")

    details = await refused(office, "DELETE", f"/v1/channels/{channel['id']}?force={value}")

    assert details == [{"field": "force", "message": "must be true or false", "value": value}]


# Size ---------------------------------------------------------------------------------------------------------------
def sized(size: int) -> bytes:
    frame = b'{"name":"a","mode":"recurring","interval":60,"padding":""}'
    return frame[:-2] + b"x" * (size - len(frame)) + frame[-2:]


async def test_a_body_at_the_limit_is_taken(office: Lifesign) -> None:
    answer = await office.http.post("/v1/heartbeats", content=sized(262_144))

    assert answer.status_code == 201


@pytest.mark.parametrize("path", [*BODIES, "/v1/heartbeats/small/checkin", "/v1/heartbeats/small/ack"])
async def test_a_body_over_the_limit_is_refused(office: Lifesign, path: str) -> None:
    await office.heartbeat("small")

    answer = await office.http.post(path, content=sized(262_145))

    envelope(answer, 413, "PAYLOAD_TOO_LARGE", "Request body is too large")


async def test_a_body_announced_as_too_large_is_refused_before_it_is_sent(office: Lifesign) -> None:
    async with served(office) as url:
        answer = await raw_answer(url, "Content-Length: 262145", b"")

    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b"PAYLOAD_TOO_LARGE" in answer


async def test_a_body_of_unannounced_length_is_refused_once_it_is_over_the_limit(office: Lifesign) -> None:
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    async with served(office) as url:
        answer = await raw_answer(url, "Transfer-Encoding: chunked", chunk * 5)

    assert answer.startswith(b"HTTP/1.1 413 ")


async def raw_answer(url: str, header: str, body: bytes) -> bytes:
    """What the server answers although the body never ends."""
    host, port = url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = f"POST /v1/keys HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_KEY}\r\n{header}\r\n\r\n"
    writer.write(head.encode() + body)
    async with asyncio.timeout(10):
        answer = await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


# Text ---------------------------------------------------------------------------------------------------------------
NAMED: dict[str, Json] = {
    "heartbeats": {"mode": "recurring", "interval": 60},
    "keys": {},
    "channels": {"type": "email", "config": {"to": "ops@example.org"}},
}


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("  padded \t\n", "padded"),
        ("x", "x"),
        ("n" * 200, "n" * 200),
        (f"  {'n' * 200}  ", "n" * 200),
        ("Übung 火 🔥", "Übung 火 🔥"),
    ],
)
async def test_a_name_is_trimmed_text(office: Lifesign, kind: str, sent: str, kept: str) -> None:
    made = await office.ask("POST", f"/v1/{kind}", NAMED[kind] | {"name": sent}, expect=201)

    assert made["name"] == kept


@pytest.mark.parametrize("kind", NAMED)
@pytest.mark.parametrize(
    "name", ['""', '"   "', '"a\\nb"', '"a\\u0000b"', '"a\\u007f-"', '"\\u0085-"', f'"{"n" * 201}"', "5", "null", "[]"]
)
async def test_a_bad_name_is_refused(office: Lifesign, kind: str, name: str) -> None:
    body = json.dumps(NAMED[kind])[1:-1]
    answer = await office.http.post(f"/v1/{kind}", content=f'{{"name": {name}{"," if body else ""}{body}}}')

    if name == '"\\u0085-"':
        # U+0085 is white space as well, so it is trimmed away at the edge.
        assert answer.status_code == 201
        assert answer.json()["name"] == "-"
        return
    assert answer.status_code == 400
    assert [each["field"] for each in answer.json()["error"]["details"]] == ["name"]


FREE_TEXT = ["name", "description", "namespace", "schedule", "timezone", "slug", "policy"]


@pytest.mark.parametrize("text", ["a\\u0000b", "\\ud800", "\\udc00x"])
@pytest.mark.parametrize("field", [*FREE_TEXT, "metadata", "tags", "channels"])
async def test_nul_and_half_characters_are_refused_wherever_text_goes(office: Lifesign, field: str, text: str) -> None:
    value = {"metadata": f'{{"deep": [{{"{text}": 1}}]}}', "tags": f'["{text}"]', "channels": f'["{text}"]'}.get(
        field, f'"{text}"'
    )
    mode = '"mode": "scheduled"' if field in {"schedule", "timezone"} else '"mode": "recurring", "interval": 60'
    schedule = ', "schedule": "0 2 * * *"' if field == "timezone" else ""
    name = "" if field == "name" else '"name": "a", '

    answer = await office.http.post("/v1/heartbeats", content=f'{{{name}{mode}{schedule}, "{field}": {value}}}')

    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/v1/heartbeats/{}", "/v1/policies/{}", "/v1/channels/{}", "/v1/incidents/{}"])
async def test_an_odd_reference_in_a_path_is_simply_not_found(office: Lifesign, path: str) -> None:
    for ref in ("%00", "hb_%00", "%ff", "%ed%a0%80", "a%20b", "x" * 5000):
        answer = await office.http.get(path.format(ref))

        envelope(answer, 404, "NOT_FOUND", "Resource not found")


@pytest.mark.parametrize("ref", ["%00", "hb_%00"])
async def test_a_check_in_to_an_odd_reference_is_not_found(office: Lifesign, ref: str) -> None:
    answer = await office.http.post(f"/v1/heartbeats/{ref}/checkin")

    envelope(answer, 404, "NOT_FOUND", "Resource not found")


async def test_a_channel_of_a_step_may_not_hold_nul(office: Lifesign) -> None:
    body = {"name": "p", "steps": [{"channels": ["a\x00b"]}]}

    assert (await refused(office, "POST", "/v1/policies", body))[0]["field"].startswith("steps[0].channels")


@pytest.mark.parametrize("query", ["incidents?heartbeat=%00", "notifications?channel=%00", "heartbeats?q=%00"])
async def test_nul_in_a_query_is_no_fault_of_the_server(office: Lifesign, query: str) -> None:
    answer = await office.http.get(f"/v1/{query}")

    assert answer.status_code in ((400,) if "q=" in query else (200, 400))


# Faults -------------------------------------------------------------------------------------------------------------
async def test_every_fault_is_named_by_its_place(office: Lifesign) -> None:
    body = {"name": "", "mode": "weekly", "interval": 0, "grace": -1, "tags": ["ok", "not ok"], "slug": "hb_x"}

    details = await refused(office, "POST", "/v1/heartbeats", body)

    assert {each["field"] for each in details} == {"name", "mode", "interval", "grace", "tags[1]", "slug"}
    assert {each["field"]: each["value"] for each in details} == {
        "name": "",
        "mode": "weekly",
        "interval": 0,
        "grace": -1,
        "tags[1]": "not ok",
        "slug": "hb_x",
    }


async def test_at_most_twenty_faults_are_named(office: Lifesign) -> None:
    body = {"name": "p", "steps": [{"channels": [], "wait": -1}] * 20}

    assert len(await refused(office, "POST", "/v1/policies", body)) == 20


async def test_the_values_of_secrets_are_never_repeated(office: Lifesign) -> None:
    secrets = {
        "slack": {"webhookUrl": "ftp://hidden.example/SECRETVALUE"},
        "webhook": {"url": "https://hidden.example", "secret": "SECRETVALUE", "headers": {"X-A": "SECRETVALUE\n"}},
        "pagerduty": {"routingKey": "SECRETVALUE"},
    }
    for kind, config in secrets.items():
        answer = await office.http.post("/v1/channels", json={"name": "c", "type": kind, "config": config})
        assert answer.status_code == 400
        assert "SECRETVALUE" not in answer.text
    answer = await office.http.post("/v1/channels", json={"name": "c", "type": "slack", "config": "SECRETVALUE"})
    assert answer.status_code == 400
    assert "SECRETVALUE" not in answer.text


# Times and absent members -------------------------------------------------------------------------------------------
def nulls(value: object) -> int:
    if isinstance(value, dict):
        return sum(map(nulls, value.values()))
    if isinstance(value, list):
        return sum(map(nulls, value))
    return value is None


async def test_no_answer_holds_null(office: Lifesign, ledger: Any) -> None:
    channel = await office.webhook(ledger.url + "/hook/quiet")
    policy = await office.policy({"channels": [channel["id"]]})
    ref = (await office.heartbeat(policy=policy["id"], interval=1, grace=0))["id"]
    await office.advance(5)
    await office.ask("POST", f"/v1/heartbeats/{ref}/ack")
    await office.advance(5)

    lists = ["heartbeats", f"heartbeats/{ref}/events", "policies", "channels", "keys", "incidents", "notifications"]
    for each in lists:
        answer = await office.ask("GET", f"/v1/{each}")
        assert nulls(answer) == 0, each
        assert all(answer.values()), each


@pytest.mark.parametrize("time", ["2031-05-04T03:02:01Z", "2031-05-04T05:02:01+02:00", "2031-05-03T21:02:01.000-06:00"])
async def test_times_are_taken_with_any_offset_and_shown_in_utc(office: Lifesign, time: str) -> None:
    made = await office.ask("POST", "/v1/keys", {"name": "k", "expiresAt": time}, expect=201)

    assert made["expiresAt"] == "2031-05-04T03:02:01.000Z"


@pytest.mark.parametrize(
    "time", ["2031-05-04T03:02:01", "2031-05-04", "4.5.2031", 1_935_630_121, "", None, "2031-02-30T00:00:00Z"]
)
async def test_a_time_without_offset_is_no_time(office: Lifesign, time: object) -> None:
    details = await refused(office, "POST", "/v1/keys", {"name": "k", "expiresAt": time})

    assert [each["field"] for each in details] == ["expiresAt"]


async def test_ids_have_a_prefix_and_sort_by_creation(office: Lifesign, ledger: Any) -> None:
    channel = await office.webhook(ledger.url + "/hook/none")
    policy = await office.policy({"channels": [channel["id"]]})
    key = await office.ask("POST", "/v1/keys", {"name": "k"}, expect=201)
    heartbeats = [(await office.heartbeat())["id"] for _ in range(5)]

    for prefix, made in {"ch": channel["id"], "pol": policy["id"], "key": key["id"], "hb": heartbeats[0]}.items():
        assert re.fullmatch(rf"{prefix}_[0-9a-f]{{12}}7[0-9a-f]{{3}}[89ab][0-9a-f]{{15}}", made)
    assert heartbeats == sorted(heartbeats)


# Other projects -----------------------------------------------------------------------------------------------------
async def test_an_object_of_another_project_answers_like_a_missing_one(office: Lifesign, ledger: Any) -> None:
    channel = (await office.webhook(ledger.url + "/hook/none"))["id"]
    policy = (await office.policy({"channels": [channel]}))["id"]
    heartbeat = (await office.heartbeat("Mine", grace=0, interval=1))["id"]
    await office.advance(2)
    await office.ask("POST", f"/v1/heartbeats/{heartbeat}/runs", {"runId": "a"}, expect=201)
    once = {"startsAt": "2020-01-01T00:00:00Z", "endsAt": "2020-01-01T01:00:00Z"}
    window = await office.ask("POST", "/v1/maintenance", {"name": "w", "all": True} | once, expect=201)
    incident = (await office.incidents(heartbeat))[0]["id"]
    key = (await office.ask("POST", "/v1/keys", {"name": "k"}, expect=201))["id"]
    async with new_project(office) as elsewhere:
        for method, path in [
            ("GET", f"/v1/heartbeats/{heartbeat}"),
            ("GET", "/v1/heartbeats/mine"),
            ("PATCH", f"/v1/heartbeats/{heartbeat}"),
            ("DELETE", f"/v1/heartbeats/{heartbeat}"),
            ("POST", f"/v1/heartbeats/{heartbeat}/checkin"),
            ("POST", "/v1/heartbeats/mine/checkin"),
            ("POST", f"/v1/heartbeats/{heartbeat}/ack"),
            ("POST", f"/v1/heartbeats/{heartbeat}/pause"),
            ("POST", f"/v1/heartbeats/{heartbeat}/resume"),
            ("GET", f"/v1/heartbeats/{heartbeat}/events"),
            ("GET", f"/v1/heartbeats/{heartbeat}/history"),
            ("POST", f"/v1/heartbeats/{heartbeat}/snooze"),
            ("DELETE", f"/v1/heartbeats/{heartbeat}/snooze"),
            ("POST", f"/v1/heartbeats/{heartbeat}/runs"),
            ("GET", "/v1/heartbeats/mine/runs/a"),
            ("POST", f"/v1/heartbeats/{heartbeat}/runs/a/progress"),
            ("POST", f"/v1/heartbeats/{heartbeat}/runs/a/finish"),
            ("GET", f"/v1/maintenance/{window['id']}"),
            ("PATCH", f"/v1/maintenance/{window['id']}"),
            ("DELETE", f"/v1/maintenance/{window['id']}"),
            ("GET", f"/v1/policies/{policy}"),
            ("PATCH", f"/v1/policies/{policy}"),
            ("DELETE", f"/v1/policies/{policy}?force=true"),
            ("GET", f"/v1/channels/{channel}"),
            ("PATCH", f"/v1/channels/{channel}"),
            ("DELETE", f"/v1/channels/{channel}?force=true"),
            ("POST", f"/v1/channels/{channel}/test"),
            ("DELETE", f"/v1/keys/{key}"),
            ("GET", f"/v1/incidents/{incident}"),
        ]:
            answer = await elsewhere.http.request(method, path, json={})
            envelope(answer, 404, "NOT_FOUND", "Resource not found")
        for each in ("heartbeats", "policies", "channels", "incidents", "notifications", "maintenance"):
            assert await elsewhere.ask("GET", f"/v1/{each}") == {each: []}
        assert await elsewhere.ask("GET", f"/v1/incidents?heartbeat={heartbeat}") == {"incidents": []}
        assert len((await elsewhere.ask("GET", "/v1/keys"))["keys"]) == 1

        # In a body the same: as if there were no such object.
        assert (
            await refused(elsewhere, "POST", "/v1/policies", {"name": "p", "steps": [{"channels": [channel]}]})
        ) == [{"field": "steps[0].channels[0]", "message": "unknown channel", "value": channel}]
        body = {"name": "h", "mode": "oneshot", "interval": 5, "policy": policy, "channels": [channel]}
        assert await refused(elsewhere, "POST", "/v1/heartbeats", body | {"dependsOn": [heartbeat, "mine"]}) == [
            {"field": "policy", "message": "unknown policy", "value": policy},
            {"field": "channels[0]", "message": "unknown channel", "value": channel},
            {"field": "dependsOn[0]", "message": "unknown heartbeat", "value": heartbeat},
            {"field": "dependsOn[1]", "message": "unknown heartbeat", "value": "mine"},
        ]
        body = {"name": "w", "heartbeats": [heartbeat]} | once
        assert await refused(elsewhere, "POST", "/v1/maintenance", body) == [
            {"field": "heartbeats[0]", "message": "unknown heartbeat", "value": heartbeat}
        ]
        # The same slug is free there.
        assert (await elsewhere.heartbeat("Mine"))["slug"] == "mine"
        await elsewhere.ask("DELETE", "/v1/heartbeats/mine", expect=204)
    assert (await office.get(heartbeat))["status"] == "firing"


async def test_a_write_that_was_refused_left_nothing(office: Lifesign) -> None:
    await refused(office, "POST", "/v1/heartbeats", {"name": "a", "mode": "oneshot", "interval": 5, "policy": "pol_x"})

    assert await office.ask("GET", "/v1/heartbeats") == {"heartbeats": []}


async def test_the_timestamp_of_an_error_is_the_time_of_the_node(office: Lifesign) -> None:
    answer = await office.ask("GET", "/v1/heartbeats/none", expect=404)

    assert answer["timestamp"] == after(office, 0)
