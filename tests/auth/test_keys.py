"""Keys: minted, listed, expired, revoked. Spec "Heartbeats", section 2."""

import asyncio
import hashlib
import re
import socket
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Connection, select, update

from lifesign.db.schema import api_keys
from tests.harness import ADMIN_KEY, Json, Lifesign
from tests.shared import after, new_project, refused

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def mint(office: Lifesign, *scopes: str, **fields: Any) -> Json:  # Any: JSON
    body = {"name": "k"} | ({"scopes": list(scopes)} if scopes else {}) | fields
    return await office.ask("POST", "/v1/keys", body, expect=201)


async def status_of(office: Lifesign, key: str | None) -> int:
    async with office.client(key) as client:
        return (await client.get("/v1/keys")).status_code


# Minting ------------------------------------------------------------------------------------------------------------
async def test_a_token_is_shown_once_and_has_256_bits(office: Lifesign) -> None:
    made = await mint(office, "keys:read", name="deploy")

    assert re.fullmatch(r"lsk_[a-z2-7]{52}", made["token"])
    assert made == {
        "id": made["id"],
        "name": "deploy",
        "token": made["token"],
        "prefix": made["token"][:12],
        "scopes": ["keys:read"],
        "createdAt": after(office, 0),
    }
    listed = (await office.ask("GET", "/v1/keys"))["keys"][-1]
    assert listed == {key: value for key, value in made.items() if key != "token"}


async def test_the_token_itself_is_not_stored(office: Lifesign) -> None:
    made = await mint(office)

    def rows(conn: Connection) -> list[Any]:  # Any: a row
        return list(conn.execute(select(api_keys).where(api_keys.c.id == made["id"])))

    (row,) = await office.node.db.read(rows)
    assert row.hash == hashlib.sha256(made["token"].encode()).digest()
    assert made["token"] not in repr(row)


async def test_a_use_is_shown_in_the_list(office: Lifesign) -> None:
    made = await mint(office)
    assert "lastUsedAt" not in (await office.ask("GET", "/v1/keys"))["keys"][-1]
    await office.advance(5)
    async with office.client(made["token"]) as client:
        await client.get("/v1/heartbeats")

    assert (await office.ask("GET", "/v1/keys"))["keys"][-1]["lastUsedAt"] == after(office, 0)


async def test_the_last_use_is_on_disk_within_a_minute(office: Lifesign) -> None:
    made = await mint(office)
    async with office.client(made["token"]) as client:
        await client.get("/v1/heartbeats")
    used = office.now()
    await office.advance(60)

    def stored(conn: Connection) -> int | None:
        return conn.scalar(select(api_keys.c.last_used_at).where(api_keys.c.id == made["id"]))

    assert await office.node.db.read(stored) == used


async def test_scopes_are_folded_and_sorted(office: Lifesign) -> None:
    made = await mint(office, "policies:read", "channels:write", "policies:read")

    assert made["scopes"] == ["channels:write", "policies:read"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "name"),
        ({"name": "k", "scopes": []}, "scopes"),
        ({"name": "k", "scopes": ["heartbeats:admin"]}, "scopes"),
        ({"name": "k", "scopes": ["keys:read", "KEYS:READ"]}, "scopes"),
        ({"name": "k", "scopes": ["keys:read"] * 51}, "scopes"),
        ({"name": "k", "scopes": "keys:read"}, "scopes"),
        ({"name": "k", "scopes": None}, "scopes"),
        ({"name": "k", "expiresAt": "2020-01-01T00:00:00Z"}, "expiresAt"),
    ],
)
async def test_a_bad_key_is_refused(office: Lifesign, body: Json, field: str) -> None:
    assert [each["field"] for each in await refused(office, "POST", "/v1/keys", body)] == [field]
    assert len((await office.ask("GET", "/v1/keys"))["keys"]) == 1


async def test_expiry_must_lie_in_the_future(office: Lifesign) -> None:
    assert (await refused(office, "POST", "/v1/keys", {"name": "k", "expiresAt": after(office, 0)}))[0]["field"] == (
        "expiresAt"
    )

    assert (await mint(office, expiresAt=after(office, 0.001)))["expiresAt"] == after(office, 0.001)


@pytest.mark.parametrize(
    ("own", "wanted", "missing"),
    [
        (["keys:write", "heartbeats:read"], ["heartbeats:write"], ["heartbeats:write"]),
        (["keys:write", "heartbeats:read"], ["heartbeats:read"], []),
        (["keys:write", "heartbeats:read"], None, []),
        (["keys:write", "heartbeats:write"], ["checkins:write", "heartbeats:read"], []),
        (["keys:write"], ["keys:read", "keys:write"], []),
        (["keys:write", "policies:write"], ["policies:read"], []),
        (["keys:write", "policies:read"], ["policies:write", "channels:read"], ["channels:read", "policies:write"]),
        (["keys:write", "checkins:write"], ["heartbeats:read"], ["heartbeats:read"]),
        (["keys:write"], ["*"], ["*"]),
        (["*"], ["*"], []),
        (["*"], None, []),
    ],
)
async def test_nobody_hands_on_more_than_they_hold(
    office: Lifesign, own: list[str], wanted: list[str] | None, missing: list[str]
) -> None:
    made = await mint(office, *own)
    async with office.client(made["token"]) as client:
        answer = await client.post("/v1/keys", json={"name": "child"} | ({} if wanted is None else {"scopes": wanted}))
    listed = (await office.ask("GET", "/v1/keys"))["keys"]

    if missing:
        assert answer.status_code == 403
        assert answer.json()["error"]["message"] == f"Missing scope: {', '.join(missing)}"
        assert answer.json()["error"]["details"] == {"scopes": missing}
        assert [each["name"] for each in listed] == ["admin", "k"]
    else:
        assert answer.status_code == 201
        assert answer.json()["scopes"] == sorted(own if wanted is None else wanted)
        assert [each["name"] for each in listed] == ["admin", "k", "child"]


# Ends ---------------------------------------------------------------------------------------------------------------
async def test_a_key_is_good_until_the_very_moment_it_expires(office: Lifesign) -> None:
    made = await mint(office, expiresAt=after(office, 10))
    await office.advance(9.999)
    assert await status_of(office, made["token"]) == 200

    await office.advance(0.001)

    assert await status_of(office, made["token"]) == 401
    assert made["id"] in [each["id"] for each in (await office.ask("GET", "/v1/keys"))["keys"]]


async def test_a_revoked_key_is_refused_at_once_and_gone_from_the_list(office: Lifesign) -> None:
    made = await mint(office)
    assert await status_of(office, made["token"]) == 200

    await office.ask("DELETE", f"/v1/keys/{made['id']}", expect=204)

    assert await status_of(office, made["token"]) == 401
    assert len((await office.ask("GET", "/v1/keys"))["keys"]) == 1
    await office.ask("DELETE", f"/v1/keys/{made['id']}", expect=404)


async def test_a_key_may_delete_itself(office: Lifesign) -> None:
    made = await mint(office)
    async with office.client(made["token"]) as client:
        assert (await client.delete(f"/v1/keys/{made['id']}")).status_code == 204
        assert (await client.get("/v1/keys")).status_code == 401


async def test_revocation_is_felt_on_a_connection_that_was_kept(office: Lifesign) -> None:
    made = await mint(office)
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(office.node.app, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    port = listener.getsockname()[1]

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        head = f"GET /v1/heartbeats HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {made['token']}\r\n\r\n"
        writer.write(head.encode())
        answer = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", answer)
        assert length is not None
        await reader.readexactly(int(length[1]))
        return answer.split(b" ")[1]

    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        before = [await ask(reader, writer) for _ in range(2)]
        await office.ask("DELETE", f"/v1/keys/{made['id']}", expect=204)
        afterwards = await ask(reader, writer)
        writer.close()
        await writer.wait_closed()
    finally:
        server.should_exit = True
        await serving
        listener.close()
    assert (before, afterwards) == ([b"200", b"200"], b"401")


async def test_a_key_revoked_while_it_is_used_by_many_is_refused_from_then_on(office: Lifesign) -> None:
    made = await mint(office)
    async with office.client(made["token"]) as client:

        async def use() -> int:
            return (await client.get("/v1/heartbeats")).status_code

        answers = await asyncio.gather(
            *(use() for _ in range(30)),
            office.ask("DELETE", f"/v1/keys/{made['id']}", expect=204),
            *(use() for _ in range(30)),
        )
        assert set(map(str, answers)) <= {"200", "401", "{}"}

        assert await use() == 401


# What is no key -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Basic {}",
        "{}",
        "Bearer {}x",
        "Bearer x{}",
        "Bearer {} {}",
        "Bearer\t{}",
        "Bearer lsk_" + "a" * 52,
        "Bearer " + "x" * 10_000,
        "Token {}",
        "Bearer: {}",
    ],
)
async def test_anything_but_a_known_key_is_401(office: Lifesign, header: str | None) -> None:
    token = (await mint(office))["token"]
    async with office.client(None) as client:
        headers = {} if header is None else {"Authorization": header.format(token, token)}
        answer = await client.get("/v1/heartbeats", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER", "bEaReR"])
async def test_the_scheme_may_be_written_in_any_case(office: Lifesign, scheme: str) -> None:
    token = (await mint(office))["token"]
    async with office.client(None) as client:
        answer = await client.get("/v1/heartbeats", headers={"Authorization": f"{scheme} {token}"})

    assert answer.status_code == 200


async def test_a_token_is_compared_to_the_letter(office: Lifesign) -> None:
    token = (await mint(office))["token"]

    assert await status_of(office, token.upper()) == 401
    assert await status_of(office, token[:12]) == 401


async def test_a_key_opens_its_own_project_only(office: Lifesign) -> None:
    await office.heartbeat("Mine")
    async with new_project(office) as elsewhere:
        assert await elsewhere.ask("GET", "/v1/heartbeats") == {"heartbeats": []}
        child = await mint(elsewhere)
        async with office.client(child["token"]) as client:
            assert (await client.get("/v1/heartbeats")).json() == {"heartbeats": []}


async def test_the_admin_key_of_the_first_start_opens_the_default_project(shared_node: Lifesign) -> None:
    keys = (await shared_node.ask("GET", "/v1/keys"))["keys"]

    assert [(each["name"], each["prefix"], each["scopes"]) for each in keys] == [("admin", ADMIN_KEY[:4], ["*"])]
    assert await status_of(shared_node, ADMIN_KEY) == 200


# The key that asks --------------------------------------------------------------------------------------------------
async def test_a_key_may_read_itself_whatever_it_may_do(office: Lifesign) -> None:
    made = await mint(office, "checkins:write", name="job", expiresAt="2099-01-01T00:00:00.000Z")

    async with office.client(made["token"]) as client:
        own = (await client.get("/v1/whoami")).json()

    assert own == {
        "id": made["id"],
        "name": "job",
        "scopes": ["checkins:write"],
        "project": own["project"],
        "projectId": own["projectId"],
        "prefix": made["token"][:12],
        "createdAt": after(office, 0),
        "expiresAt": "2099-01-01T00:00:00.000Z",
    }
    assert own["project"].startswith("office-")
    assert own["projectId"].startswith("prj_")


async def test_nobody_reads_a_key_without_having_it(office: Lifesign) -> None:
    for token in (None, "lsk_" + "a" * 52):
        async with office.client(token) as client:
            assert (await client.get("/v1/whoami")).status_code == 401


async def test_a_key_that_was_taken_back_a_moment_ago_is_not_shown_to_itself(office: Lifesign) -> None:
    made = await mint(office, "checkins:write")
    async with office.client(made["token"]) as client:
        assert (await client.get("/v1/whoami")).status_code == 200

        def take_back_elsewhere(conn: Connection) -> None:
            conn.execute(update(api_keys).where(api_keys.c.id == made["id"]).values(revoked_at=office.now()))

        # As another node does it, of which this one has heard nothing yet.
        await office.node.db.write(take_back_elsewhere)

        assert (await client.get("/v1/whoami")).status_code == 401
