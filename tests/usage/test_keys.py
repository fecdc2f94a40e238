"""Keys that people take themselves, and their life. Spec "Usage", sections 1 and 2."""

import asyncio
import re
from pathlib import Path

import httpx2
import pytest
from sqlalchemy import select

from lifesign.db.schema import vitals_keys
from lifesign.projects import service as projects
from tests.harness import ADMIN_KEY, Json, Lifesign, MakeLifesign
from tests.projects.visitors import visitor
from tests.usage.builders import Builder, builder, new_email, take_key

LIMIT = "Maximum 3 API keys per email. Contact support for additional keys."
OVERVIEW = "/api/dashboard/overview"


@pytest.fixture
async def nobody(shared_node: Lifesign) -> httpx2.AsyncClient:
    """A client without a key."""
    return shared_node.client(None)


def body_of(answer: httpx2.Response, status: int) -> Json:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    body: Json = answer.json()
    assert body["success"] is (status < 400)
    return body


def everything_in(directory: Path) -> bytes:
    return b"".join(each.read_bytes() for each in directory.rglob("*") if each.is_file())


def refused(answer: httpx2.Response, status: int) -> str:
    body = body_of(answer, status)
    assert set(body) == {"success", "message"}
    return str(body["message"])


pytestmark = pytest.mark.asyncio(loop_scope="module")


# Taking one ---------------------------------------------------------------------------------------------------------
async def test_a_name_and_an_address_are_enough(nobody: httpx2.AsyncClient) -> None:
    answer = await take_key(nobody, "Jane@HealthApp.io")

    made = body_of(answer, 201)["api_key"]
    assert answer.headers["cache-control"] == "no-store"
    assert re.fullmatch("beam_[0-9a-f]{32}", made.pop("key"))
    assert isinstance(made.pop("id"), int)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", made.pop("created_at"))
    assert made == {"name": "Jane Smith", "email": "Jane@HealthApp.io", "company": None, "use_case": None}


async def test_what_was_said_is_echoed_and_a_second_key_is_another(nobody: httpx2.AsyncClient) -> None:
    email = new_email()
    told = {"company": "HealthApp Inc", "use_case": "telehealth"}
    first = body_of(await take_key(nobody, email, **told), 201)["api_key"]
    second = body_of(await take_key(nobody, email), 201)["api_key"]

    assert {name: first[name] for name in told} == told
    assert second["id"] > first["id"]
    for each in (first, second):
        assert (await nobody.get(OVERVIEW, headers={"X-API-Key": each["key"]})).status_code == 200


@pytest.mark.parametrize("use_case", ["telehealth", "wellness", "fitness", "research", "other"])
async def test_each_use_case_there_is_may_be_told(nobody: httpx2.AsyncClient, use_case: str) -> None:
    answer = await take_key(nobody, new_email(), use_case=use_case)

    assert body_of(answer, 201)["api_key"]["use_case"] == use_case


async def test_a_key_is_of_the_default_project(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        caller = await shared_node.node.api.state.vitals_keyring.caller(jane.key.encode())

    assert caller.project_id == await shared_node.node.db.read(projects.id_of, "default")


@pytest.mark.parametrize(
    "content",
    [b"", b" ", b"{", b"[]", b"null", b'"x"', b"7", b'{"name":"\xff"}', b"\xef\xbb\xbf{}", b"[" * 5000, b'{"a":NaN}'],
)
async def test_a_body_that_is_no_object_is_refused(nobody: httpx2.AsyncClient, content: bytes) -> None:
    assert refused(await nobody.post("/api/keys", content=content), 400) == "Request body must be a JSON object"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"name": " "}, "Name is required"),
        ({"email": "x"}, "Valid email is required"),
        ({"company": 5}, "Company must be a string of at most 200 characters"),
        ({"use_case": "gaming"}, "Invalid use_case. Must be one of: telehealth, wellness, fitness, research, other"),
    ],
)
async def test_what_is_wrong_is_told(nobody: httpx2.AsyncClient, changes: Json, told: str) -> None:
    wanted = {"name": "Jane", "email": new_email()} | changes

    assert refused(await nobody.post("/api/keys", json=wanted), 400) == told


async def test_what_the_body_is_said_to_be_does_not_matter(nobody: httpx2.AsyncClient) -> None:
    content = f'{{"name":"J","email":"{new_email()}","more":[1]}}'

    answer = await nobody.post("/api/keys", content=content, headers={"Content-Type": "text/plain"})

    assert answer.status_code == 201


async def test_a_body_over_sixteen_kibibytes_is_refused_before_it_is_read(nobody: httpx2.AsyncClient) -> None:
    wanted = f'{{"name":"J","email":"{new_email()}"}}'

    assert refused(await nobody.post("/api/keys", content=wanted + " " * 16_384), 413) == "Request body too large"
    assert (await nobody.post("/api/keys", content=wanted.ljust(16_384))).status_code == 201


# Three for each address ---------------------------------------------------------------------------------------------
async def test_an_address_has_three_keys_in_its_life(nobody: httpx2.AsyncClient) -> None:
    email = new_email()
    made = [body_of(await take_key(nobody, each), 201)["api_key"] for each in (email, email.upper(), f" {email} ")]
    headers = {"X-API-Key": made[0]["key"]}
    assert body_of(await nobody.request("DELETE", "/api/keys/me", headers=headers), 200) == {"success": True}

    answer = await take_key(nobody, email.title())

    assert refused(answer, 429) == LIMIT
    assert "retry-after" not in answer.headers
    assert (await take_key(nobody, new_email())).status_code == 201


async def test_what_is_refused_takes_no_place(nobody: httpx2.AsyncClient) -> None:
    email = new_email()
    for _ in range(5):
        assert (await take_key(nobody, email, use_case="gaming")).status_code == 400

    assert [(await take_key(nobody, email)).status_code for _ in range(4)] == [201, 201, 201, 429]


@pytest.mark.parametrize("count", [10, 12])
async def test_of_many_who_ask_at_once_three_get_a_key(nobody: httpx2.AsyncClient, count: int) -> None:
    email = new_email()

    answers = await asyncio.gather(*(take_key(nobody, email) for _ in range(count)))

    assert sorted(each.status_code for each in answers) == [201] * 3 + [429] * (count - 3)
    keys = {each.json()["api_key"]["key"] for each in answers if each.status_code == 201}
    statuses = [(await nobody.get(OVERVIEW, headers={"X-API-Key": key})).status_code for key in keys]
    assert statuses == [200, 200, 200]


# Who is calling -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "told"),
    [
        (None, "API key is required"),
        ("", "API key is required"),
        ("   ", "API key is required"),
        ("beam_" + "0" * 32, "Invalid API key"),
        ("beam_nonsense", "Invalid API key"),
        (ADMIN_KEY, "Invalid API key"),
    ],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", OVERVIEW),
        ("GET", "/api/dashboard/metrics?range=nonsense"),
        ("GET", "/api/dashboard/recent-errors"),
        ("GET", "/api/keys/me"),
        ("POST", "/api/keys/me/rotate"),
        ("DELETE", "/api/keys/me"),
    ],
)
async def test_without_a_good_key_nothing_is_told(
    nobody: httpx2.AsyncClient, method: str, path: str, header: str | None, told: str
) -> None:
    answer = await nobody.request(method, path, headers={} if header is None else {"X-API-Key": header})

    assert refused(answer, 401) == told
    assert answer.headers["www-authenticate"] == 'ApiKey realm="Vitals"'


async def test_a_key_counts_in_its_header_only(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane, shared_node.client(None) as http:
        cookie = {"Cookie": f"X-API-Key={jane.key}", "Authorization": f"Bearer {jane.key}"}

        asked = await http.get(f"{OVERVIEW}?X-API-Key={jane.key}&api_key={jane.key}", headers=cookie)

        assert refused(asked, 401) == "API key is required"
        assert (await http.get(OVERVIEW, headers={"x-api-key": f" {jane.key} "})).status_code == 200
        assert "access-control-allow-origin" not in asked.headers


async def test_a_key_of_this_api_is_none_on_the_others(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane, shared_node.client(jane.key) as bearer:
        headers = {"X-API-Key": jane.key}
        for path in ("/v1/heartbeats", "/v1/telemetry", "/api/systems", "/api/v3/checks/"):
            assert (await bearer.get(path, headers=headers)).status_code == 401, path


# What there is not --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/keys"),
        ("PUT", "/api/keys"),
        ("OPTIONS", "/api/keys"),
        ("BREW", "/api/keys"),
        ("POST", OVERVIEW),
        ("GET", "/api/keys/"),
        ("GET", "/api/keys/you"),
        ("GET", "/api/dashboard"),
        ("GET", "/api/dashboard/overview/"),
        ("GET", "/api/vitals"),
        ("GET", "/api/demo/x"),
        ("POST", "/api/rppg/%00"),
    ],
)
async def test_there_is_one_answer_to_what_is_not_there(nobody: httpx2.AsyncClient, method: str, path: str) -> None:
    answer = await nobody.request(method, path)

    assert refused(answer, 404) == "Not found"
    assert "allow" not in answer.headers


@pytest.mark.parametrize("path", ["/api/keysmith", "/api/dashboards", "/api/vitalsigns/x", "/api/key"])
async def test_a_path_that_only_begins_alike_is_of_another_api(nobody: httpx2.AsyncClient, path: str) -> None:
    assert (await nobody.get(path)).json() == {"code": 404, "message": "api not found", "data": None}


async def test_head_works_where_get_does(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        answer = await jane.ask("HEAD", "/api/keys/me")

        assert (answer.status_code, answer.content) == (200, b"")
        assert (await jane.ask("HEAD", "/api/keys")).status_code == 404


# The life of a key --------------------------------------------------------------------------------------------------
async def test_a_key_shows_what_is_known_of_it_and_not_itself(shared_node: Lifesign) -> None:
    async with builder(shared_node, "Jane@Own.io") as jane:
        before = await jane.own()
        after = await jane.own()

        assert jane.key not in str(before)
        assert before.pop("created_at") == after.pop("created_at")
        assert (before.pop("last_used_at"), before.pop("request_count")) == (None, 0)
        assert after.pop("last_used_at") is not None
        assert after.pop("request_count") == 1
        told = {"name": "Jane Smith", "email": "Jane@Own.io", "company": None, "use_case": None}
        assert before == after == {"id": jane.id, "prefix": jane.key[:9]} | told


async def test_a_key_that_was_replaced_ends_at_once(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        await jane.own()

        answer = await jane.ask("POST", "/api/keys/me/rotate")

        made = body_of(answer, 200)["api_key"]
        assert answer.headers["cache-control"] == "no-store"
        assert (made["id"], made["email"]) == (jane.id, jane.email)
        assert re.fullmatch("beam_[0-9a-f]{32}", made["key"])
        assert made["key"] != jane.key
        assert refused(await jane.ask("GET", OVERVIEW), 401) == "Invalid API key"
        again = Builder(jane.http, jane.id, made["key"], jane.email)
        assert (await again.own())["request_count"] == 2
        # It took no place.
        statuses = [(await take_key(jane.http, jane.email)).status_code for _ in range(3)]
        assert statuses == [201, 201, 429]


async def test_of_many_who_replace_one_key_at_once_one_does(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        answers = await asyncio.gather(*(jane.ask("POST", "/api/keys/me/rotate") for _ in range(12)))

        assert sorted(each.status_code for each in answers) == [200] + [401] * 11
        [made] = [each.json()["api_key"]["key"] for each in answers if each.status_code == 200]
        assert (await jane.ask("GET", OVERVIEW, headers={"X-API-Key": made})).status_code == 200


async def test_of_many_who_revoke_one_key_at_once_one_does(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        before = (await jane.overview())["total_api_keys"]

        answers = await asyncio.gather(*(jane.ask("DELETE", "/api/keys/me") for _ in range(12)))

        assert sorted(each.status_code for each in answers) == [200] + [401] * 11
        assert refused(await jane.ask("GET", OVERVIEW), 401) == "Invalid API key"
    async with builder(shared_node) as other:
        assert (await other.overview())["total_api_keys"] == before


async def test_twelve_requests_at_once_are_all_counted_for_their_key(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        answers = await asyncio.gather(*(jane.ask("GET", OVERVIEW) for _ in range(12)))

        assert [each.status_code for each in answers] == [200] * 12
        assert (await jane.own())["request_count"] == 12


async def test_two_keys_see_nothing_of_each_other(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane, builder(shared_node) as joe:
        await asyncio.gather(*(jane.overview() for _ in range(5)), *(joe.overview() for _ in range(3)))

        told = {each.email: await each.own() for each in (jane, joe)}

        assert [told[each.email]["request_count"] for each in (jane, joe)] == [5, 3]
        for one, other in ((jane, joe), (joe, jane)):
            shown = [
                await one.told(path) for path in (OVERVIEW, "/api/dashboard/metrics", "/api/dashboard/recent-errors")
            ]
            shown.append(told[one.email])
            assert not any(secret in str(shown) for secret in (other.email, other.key, other.key[:9]))
        await jane.ask("DELETE", "/api/keys/me")
        assert (await joe.own())["request_count"] > 3


async def test_a_key_that_nobody_asked_for_was_used_all_the_same(shared_node: Lifesign) -> None:
    async with builder(shared_node) as jane:
        for method, path in (("GET", "/api/keys"), ("GET", "/api/rppg/nothing"), ("POST", "/api/keys")):
            await jane.ask(method, path)
        await jane.ask("GET", "/api/keys", headers={"X-API-Key": "beam_" + "0" * 32})

        assert (await jane.own())["request_count"] == 3


# Nodes of their own -------------------------------------------------------------------------------------------------
@pytest.mark.asyncio(loop_scope="function")
async def test_a_network_may_be_limited(start_lifesign: MakeLifesign) -> None:
    async with (
        start_lifesign(keys_per_address_per_hour=2) as lifesign,
        visitor(lifesign, "192.0.2.1") as someone,
        visitor(lifesign, "192.0.2.2") as other,
    ):
        assert [(await take_key(someone.http, new_email())).status_code for _ in range(2)] == [201, 201]
        # Told before the limit.
        assert (await take_key(someone.http, "x")).status_code == 400

        answer = await take_key(someone.http, new_email())

        assert refused(answer, 429) == "Too many key requests from this address"
        assert answer.headers["retry-after"] == "3600"
        assert (await take_key(other.http, new_email())).status_code == 201
        await lifesign.advance(3600)
        assert (await take_key(someone.http, new_email())).status_code == 201


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_another_node_knows_within_a_second_that_a_key_is_gone(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as first, start_lifesign() as second, builder(first) as jane:
        there = second.client(None)
        headers = {"X-API-Key": jane.key}
        assert (await there.get(OVERVIEW, headers=headers)).status_code == 200
        await jane.ask("DELETE", "/api/keys/me")

        await second.advance(1)

        assert (await there.get(OVERVIEW, headers=headers)).status_code == 401


@pytest.mark.asyncio(loop_scope="function")
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_two_nodes_together_give_an_address_three_keys(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as first, start_lifesign() as second:
        clients = [each.client(None) for each in (first, second)]

        answers = await asyncio.gather(*(take_key(http, "jane@x.io") for _ in range(6) for http in clients))

    assert sorted(each.status_code for each in answers) == [201] * 3 + [429] * 9


@pytest.mark.asyncio(loop_scope="function")
async def test_no_key_is_in_the_database(start_lifesign: MakeLifesign, tmp_path: Path) -> None:
    async with start_lifesign() as lifesign, builder(lifesign) as jane:
        await jane.ask("GET", f"/api/keys/{jane.key}")
        await jane.ask("GET", f"/api/vitals/{jane.key[:15]}?key={jane.key}")
        await jane.errors()
        dumped = await lifesign.node.db.read(
            lambda conn: str([conn.execute(each.select()).all() for each in vitals_keys.metadata.sorted_tables])
        )
        row = await lifesign.node.db.read(lambda conn: conn.execute(select(vitals_keys.c.hash)).one())

        assert jane.key not in dumped
        assert jane.key[5:] not in dumped
        assert re.fullmatch("[0-9a-f]{64}", row.hash)
        shown = [each["message"] for each in (await jane.errors())["errors"]]
        assert sorted(shown) == ["GET /api/keys/:id → 404", "GET /api/vitals/:id → 404"]
        if lifesign.node.db.is_sqlite:
            assert jane.key.encode() not in await asyncio.to_thread(everything_in, tmp_path)
