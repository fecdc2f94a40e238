"""Systems as people and their programs make, find, change and remove them."""

import asyncio
import logging
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from lifesign.projects import service as projects
from tests.harness import Json, Lifesign, MakeLifesign
from tests.shared import new_project
from tests.systems.machines import asked, basic, machine, refused

BROUGHT_ID = "4CF3053F-D0D5-4B10-B752-FF8F7B63C2F7"
BROUGHT_SECRET = "s" * 32
OF_ONE = (
    ("GET", ""),
    ("PATCH", ""),
    ("DELETE", ""),
    ("POST", "/suspend"),
    ("POST", "/reactivate"),
    ("POST", "/regenerate-secret"),
    ("GET", "/inventory"),
    ("GET", "/inventory/latest"),
    ("GET", "/inventory/changes"),
)


async def _key(lifesign: Lifesign, *scopes: str) -> str:
    made = await lifesign.ask("POST", "/v1/keys", {"name": "narrow", "scopes": list(scopes)}, expect=201)
    return str(made["token"])


# Making -------------------------------------------------------------------------------------------------------------
async def test_a_new_system_is_shown_whole_and_its_secret_once(lifesign: Lifesign) -> None:
    answer = await lifesign.http.post("/api/systems", json={"name": "  db1 "})

    assert answer.status_code == 201
    assert answer.headers["cache-control"] == "no-store"
    assert answer.json()["message"] == "system created successfully"
    made = answer.json()["data"]
    secret = made.pop("secret")
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", made["id"])
    assert re.fullmatch(r"SYS(-[0-9A-F]{4}){4}", made["key"])
    assert re.fullmatch(r"lss_[0-9a-f]{64}", secret)
    assert re.fullmatch(r"hb_[0-9a-f]{32}", made["heartbeat_id"])
    assert made == {
        "id": made["id"],
        "key": made["key"],
        "name": "db1",
        "type": "",
        "fqdn": "",
        "notes": "",
        "tags": [],
        "interval": None,
        "policy": None,
        "status": "zombie",
        "suspended": False,
        "suspended_at": None,
        "first_heartbeat": None,
        "last_heartbeat": None,
        "heartbeat_id": made["heartbeat_id"],
        "heartbeat_status": "active",
        "secret_hint": secret[-4:],
        "created_at": "2026-01-05T12:00:00.000Z",
        "updated_at": "2026-01-05T12:00:00.000Z",
    }
    assert await asked(lifesign, "GET", f"/{made['id'].upper()}") == made
    assert await asked(lifesign, "GET", f"/{made['key'].lower()}") == made


async def test_an_id_and_a_secret_may_be_brought_along_once(lifesign: Lifesign) -> None:
    body = {"name": "old", "id": BROUGHT_ID, "secret": BROUGHT_SECRET}

    old = await machine(lifesign, **body)
    again = await lifesign.ask("POST", "/api/systems", body, expect=409)

    assert old.id == BROUGHT_ID.lower()
    assert (await old.send()).status_code == 200
    assert again == {"code": 409, "message": "system already exists", "data": None}
    assert len((await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"]) == 1


async def test_of_many_who_bring_the_same_id_one_is_first(lifesign: Lifesign) -> None:
    body = {"name": "old", "id": BROUGHT_ID}

    answers = await asyncio.gather(*(lifesign.http.post("/api/systems", json=body) for _ in range(8)))

    assert sorted(each.status_code for each in answers) == [201, *[409] * 7]
    assert len((await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"]) == 1


async def test_the_heartbeat_underneath_is_as_the_system_says(lifesign: Lifesign) -> None:
    policy = await lifesign.policy({"channels": [(await lifesign.webhook("http://127.0.0.1:1"))["id"]]})

    db1 = await machine(lifesign, policy=policy["id"])
    fast = await machine(lifesign, "fast", interval=61)

    usual, quick = await lifesign.get(db1.heartbeat_id), await lifesign.get(fast.heartbeat_id)
    assert usual == usual | {
        "name": "db1",
        "mode": "recurring",
        "namespace": "systems",
        "slug": f"system-{db1.key.lower()}",
        "interval": 600,
        "grace": 600,
        "policy": policy["id"],
        "metadata": {"system_id": db1.id, "system_key": db1.key},
        "armed": False,
        "stickyPause": True,
    }
    assert "nextDeadline" not in usual
    assert (quick["interval"], quick["grace"]) == (61, 61)


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, [("name", "required", "")]),
        ({"name": None}, [("name", "required", "null")]),
        ({"name": "  "}, [("name", "required", "  ")]),
        ({"name": 1}, [("name", "invalid_type", "1")]),
        ({"name": "x" * 201}, [("name", "out_of_range", "x" * 200)]),
        ({"name": "a\nb"}, [("name", "invalid_format", "a\nb")]),
        ({"name": "a", "type": None}, [("type", "invalid_type", "null")]),
        ({"name": "a", "type": "x" * 65}, [("type", "out_of_range", "x" * 65)]),
        ({"name": "a", "fqdn": "x" * 254}, [("fqdn", "out_of_range", "x" * 200)]),
        ({"name": "a", "notes": "x" * 2001}, [("notes", "out_of_range", "x" * 200)]),
        ({"name": "a", "notes": "\x00"}, [("notes", "invalid_format", "\x00")]),
        ({"name": "a", "tags": "db"}, [("tags", "invalid_type", "db")]),
        ({"name": "a", "tags": ["ok", "not ok"]}, [("tags[1]", "invalid_format", "not ok")]),
        ({"name": "a", "tags": [f"t{n}" for n in range(21)]}, [("tags", "out_of_range", None)]),
        ({"name": "a", "interval": 9}, [("interval", "out_of_range", "9")]),
        ({"name": "a", "interval": 86_401}, [("interval", "out_of_range", "86401")]),
        ({"name": "a", "interval": "60"}, [("interval", "invalid_type", "60")]),
        ({"name": "a", "interval": True}, [("interval", "invalid_type", "true")]),
        ({"name": "a", "policy": "pol_nowhere"}, [("policy", "not_found", "pol_nowhere")]),
        ({"name": "a", "policy": {"a": 1}}, [("policy", "invalid_type", '{"a":1}')]),
        ({"name": "a", "id": "not-a-uuid"}, [("id", "invalid_format", "not-a-uuid")]),
        ({"name": "a", "id": "SYS-0000-0000-0000-0000"}, [("id", "invalid_format", "SYS-0000-0000-0000-0000")]),
        ({"name": "a", "secret": "x" * 31}, [("secret", "out_of_range", "")]),
        ({"name": "a", "secret": "é" * 32}, [("secret", "invalid_format", "")]),
        ({"name": "a", "secret": 5}, [("secret", "invalid_type", "")]),
        ({"name": "a", "colour": "red"}, [("colour", "unknown_field", "red")]),
        (
            {"colour": 1, "secret": "x", "tags": 1, "type": 1, "id": 1},
            [
                ("id", "invalid_type", "1"),
                ("name", "required", ""),
                ("type", "invalid_type", "1"),
                ("tags", "invalid_type", "1"),
                ("secret", "out_of_range", ""),
                ("colour", "unknown_field", "1"),
            ],
        ),
        ([], [("body", "invalid_type", "[]")]),
    ],
)
async def test_what_cannot_be_made_is_told_field_by_field_and_nothing_is_made(
    lifesign: Lifesign, body: object, errors: list[tuple[str, str, str | None]]
) -> None:
    status, found = await refused(lifesign, "POST", "", body)

    assert status == 400
    assert [(each["key"], each["message"]) for each in found] == [error[:2] for error in errors]
    told = [(each["value"], error[2]) for each, error in zip(found, errors, strict=True) if error[2] is not None]
    assert [value for value, _ in told] == [wanted for _, wanted in told]
    assert (await asked(lifesign, "GET", ""))["systems"] == []
    assert (await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"] == []


async def test_one_system_too_many_is_refused(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(max_heartbeats=1) as lifesign:
        await machine(lifesign)

        answer = await lifesign.ask("POST", "/api/systems", {"name": "db2"}, expect=403)

    assert answer == {"code": 403, "message": "heartbeat limit reached", "data": None}


@pytest.fixture
def logged() -> Iterator[list[structlog.typing.EventDict]]:
    """What is logged, down to the least of it."""
    found: list[structlog.typing.EventDict] = []

    def capture(_logger: object, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        found.append(event)
        raise structlog.DropEvent

    before = structlog.get_config()
    structlog.configure(processors=[capture], wrapper_class=structlog.make_filtering_bound_logger(logging.DEBUG))
    try:
        yield found
    finally:
        structlog.configure(**before)


async def test_a_secret_is_nowhere_afterwards(
    lifesign: Lifesign, tmp_path: Path, logged: list[structlog.typing.EventDict]
) -> None:
    db1 = await machine(lifesign)
    await db1.beat()
    await db1.send(auth="Bearer " + db1.secret)
    await db1.send(auth=basic("x" * 100, db1.secret))
    await lifesign.http.patch(f"/api/systems/{db1.id}", json={"secret": db1.secret})

    shown = [
        (await lifesign.http.get(path)).text
        for path in ("/api/systems", f"/api/systems/{db1.id}", f"/v1/heartbeats/{db1.heartbeat_id}/events")
    ]
    stored = b"".join(each.read_bytes() for each in (tmp_path / "data").rglob("*") if each.is_file())

    assert all(db1.id in text or "checkin" in text for text in shown)
    assert not any(db1.secret in text for text in shown)
    assert db1.secret not in repr(logged)
    refused = [each for each in logged if each["event"] == "system.refused"]
    assert [(each["username"], each["reason"]) for each in refused] == [
        ("", "invalid authentication format"),
        ("x" * 64, "invalid system credentials"),
    ]
    assert db1.secret.encode() not in stored


# Finding ------------------------------------------------------------------------------------------------------------
async def test_systems_are_listed_newest_first_page_by_page(lifesign: Lifesign) -> None:
    for name in ("a", "b", "c", "d", "e"):
        await machine(lifesign, name)
        await lifesign.advance(1)

    first = await asked(lifesign, "GET", "?limit=2")
    second = await asked(lifesign, "GET", f"?limit=2&cursor={first['next_cursor']}")
    third = await asked(lifesign, "GET", f"?limit=2&cursor={second['next_cursor']}")

    assert [[each["name"] for each in page["systems"]] for page in (first, second, third)] == [
        ["e", "d"],
        ["c", "b"],
        ["a"],
    ]
    assert "next_cursor" not in third


async def test_without_a_limit_a_page_has_fifty_systems(lifesign: Lifesign) -> None:
    for n in range(51):
        await machine(lifesign, f"m{n}")

    page = await asked(lifesign, "GET", "")

    assert len(page["systems"]) == 50
    assert "next_cursor" in page


async def test_systems_made_in_one_moment_are_each_on_one_page(lifesign: Lifesign) -> None:
    made = {(await machine(lifesign, f"m{n}", id=f"{n}{BROUGHT_ID[1:]}")).id for n in range(5)}

    found, cursor = [], ""
    for _ in range(3):
        page = await asked(lifesign, "GET", f"?limit=2{cursor}")
        found += [each["id"] for each in page["systems"]]
        cursor = f"&cursor={page.get('next_cursor')}"

    assert len(found) == 5
    assert set(found) == made


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("status=zombie", ["web", "new"]),
        ("status=alive", ["fast"]),
        ("status=dead", ["db"]),
        ("suspended=true", ["web"]),
        ("suspended=false", ["fast", "db", "new"]),
        ("type=server", ["db"]),
        ("tag=prod", ["web", "db"]),
        ("tag=pro", []),
        ("search=EXAMPLE.ORG", ["db"]),
        ("search=sys-", ["web", "fast", "db", "new"]),
        ("search=%25", []),
        ("status=dead&tag=prod", ["db"]),
    ],
)
async def test_filters_must_all_match(lifesign: Lifesign, query: str, names: list[str]) -> None:
    await machine(lifesign, "new")
    db = await machine(lifesign, "db", type="server", tags=["x", "prod", "prod"], fqdn="DB1.example.org")
    fast = await machine(lifesign, "fast", interval=3600, tags=["production"])
    web = await machine(lifesign, "web", tags=["prod", "dev"])
    await db.beat()
    await fast.beat()
    await asked(lifesign, "POST", f"/{web.id}/suspend")
    await lifesign.advance(900)

    found = (await asked(lifesign, "GET", f"?{query}"))["systems"]

    assert [each["name"] for each in found] == names


@pytest.mark.parametrize(
    ("query", "key", "message"),
    [
        ("limit=0", "limit", "out_of_range"),
        ("limit=501", "limit", "out_of_range"),
        ("limit=-5", "limit", "out_of_range"),
        ("limit=9999999999999", "limit", "out_of_range"),
        ("limit=many", "limit", "invalid_type"),
        ("limit=", "limit", "invalid_type"),
        ("limit=%D9%A1", "limit", "invalid_type"),
        ("cursor=x", "cursor", "invalid_format"),
        ("cursor=aGVsbG8=", "cursor", "invalid_format"),
        ("status=sleepy", "status", "invalid_value"),
        ("suspended=yes", "suspended", "invalid_value"),
        ("type=", "type", "invalid_value"),
        ("tag=a%20b", "tag", "invalid_format"),
        ("search=", "search", "invalid_value"),
        ("search=%00", "search", "invalid_value"),
    ],
)
async def test_a_filter_that_makes_no_sense_is_told(lifesign: Lifesign, query: str, key: str, message: str) -> None:
    status, found = await refused(lifesign, "GET", f"?{query}")

    assert status == 400
    assert [(each["key"], each["message"]) for each in found] == [(key, message)]


# Changing -----------------------------------------------------------------------------------------------------------
async def test_a_change_reaches_the_heartbeat_underneath(lifesign: Lifesign) -> None:
    policy = await lifesign.policy({"channels": [(await lifesign.webhook("http://127.0.0.1:1"))["id"]]})
    db1 = await machine(lifesign)
    await db1.beat()
    await lifesign.advance(100)

    changed = await asked(
        lifesign,
        "PATCH",
        f"/{db1.key}",
        {"name": "db-one", "interval": 300, "policy": policy["id"], "tags": ["b", "a"]},
    )

    assert (changed["name"], changed["interval"], changed["policy"]) == ("db-one", 300, policy["id"])
    assert changed["tags"] == ["a", "b"]
    assert changed["updated_at"] == "2026-01-05T12:01:40.000Z"
    below = await lifesign.get(db1.heartbeat_id)
    assert (below["name"], below["policy"], below["interval"], below["grace"]) == ("db-one", policy["id"], 300, 300)
    assert below["firesAt"] == "2026-01-05T12:10:00.000Z"
    assert below["slug"] == f"system-{db1.key.lower()}"
    back = await asked(lifesign, "PATCH", f"/{db1.id}", {"interval": None, "policy": None})
    assert (back["interval"], back["policy"]) == (None, None)
    assert (await lifesign.get(db1.heartbeat_id))["firesAt"] == "2026-01-05T12:20:00.000Z"


async def test_a_change_of_nothing_changes_nothing(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign, notes="rack 7")
    before = await db1.read()
    await lifesign.advance(10)

    same = [await asked(lifesign, "PATCH", f"/{db1.id}", body) for body in ({}, {"name": "db1"}, {"notes": "rack 7"})]

    assert same == [before] * 3
    assert await lifesign.event_types(db1.heartbeat_id) == ["created"]


@pytest.mark.parametrize(
    ("body", "key", "message"),
    [
        ({"name": ""}, "name", "out_of_range"),
        ({"id": BROUGHT_ID}, "id", "unknown_field"),
        ({"secret": BROUGHT_SECRET}, "secret", "unknown_field"),
        ({"key": "SYS-0000-0000-0000-0000"}, "key", "unknown_field"),
        ({"status": "alive"}, "status", "unknown_field"),
        ({"policy": "pol_nowhere"}, "policy", "not_found"),
    ],
)
async def test_what_cannot_be_changed_is_told(lifesign: Lifesign, body: Json, key: str, message: str) -> None:
    db1 = await machine(lifesign)
    before = await db1.read()

    status, found = await refused(lifesign, "PATCH", f"/{db1.id}", body)

    assert status == 400
    assert [(each["key"], each["message"]) for each in found] == [(key, message)]
    assert all(each["value"] != BROUGHT_SECRET for each in found)
    assert await db1.read() == before


async def test_suspending_and_reactivating_twice_is_as_once(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    first = await asked(lifesign, "POST", f"/{db1.id}/suspend")
    await lifesign.advance(5)
    second = await asked(lifesign, "POST", f"/{db1.id}/suspend")
    third = await asked(lifesign, "POST", f"/{db1.id}/reactivate")
    fourth = await asked(lifesign, "POST", f"/{db1.id}/reactivate")

    assert (first["suspended"], first["suspended_at"]) == (True, "2026-01-05T12:00:00.000Z")
    assert first["heartbeat_status"] == "paused"
    assert second == first
    assert (third["suspended"], third["suspended_at"], third["heartbeat_status"]) == (False, None, "active")
    assert fourth == third


async def test_a_new_secret_can_be_had_while_suspended(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await asked(lifesign, "POST", f"/{db1.id}/suspend")

    answer = await lifesign.http.post(f"/api/systems/{db1.id}/regenerate-secret")

    assert answer.json()["message"] == "system secret regenerated successfully"
    assert answer.headers["cache-control"] == "no-store"
    assert (await db1.send()).status_code == 401


async def test_a_deleted_system_is_gone_everywhere(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await db1.beat()

    answer = await lifesign.ask("DELETE", f"/api/systems/{db1.id}")

    assert answer == {"code": 200, "message": "system deleted successfully", "data": None}
    for method, path in OF_ONE:
        gone = await lifesign.ask(
            method, f"/api/systems/{db1.key}{path}", {} if method == "PATCH" else None, expect=404
        )
        assert gone == {"code": 404, "message": "system not found", "data": None}
    assert (await asked(lifesign, "GET", ""))["systems"] == []
    assert (await asked(lifesign, "GET", "/totals"))["total_systems"] == 0
    await lifesign.ask("GET", f"/v1/heartbeats/{db1.heartbeat_id}", expect=404)
    await lifesign.ask("POST", "/api/systems", {"name": "again", "id": db1.id}, expect=409)


async def test_a_policy_in_use_by_a_system_is_taken_from_it_when_it_is_deleted(lifesign: Lifesign) -> None:
    policy = await lifesign.policy({"channels": [(await lifesign.webhook("http://127.0.0.1:1"))["id"]]})
    db1 = await machine(lifesign, policy=policy["id"])

    await lifesign.ask("DELETE", f"/v1/policies/{policy['id']}", expect=409)
    await lifesign.ask("DELETE", f"/v1/policies/{policy['id']}?force=true", expect=204)

    assert (await db1.read())["policy"] is None


# Who may ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("header", "message"),
    [
        (None, "authentication required"),
        ("", "authentication required"),
        ("Basic YTpi", "invalid authentication format"),
        ("Bearer", "invalid authentication format"),
        ("Bearer nobody", "invalid token"),
        ("bearer a b", "invalid token"),
    ],
)
async def test_whoever_has_no_key_is_refused(lifesign: Lifesign, header: str | None, message: str) -> None:
    async with lifesign.client(None) as http:
        answer = await http.get("/api/systems", headers={} if header is None else {"Authorization": header})

    assert answer.status_code == 401
    assert answer.json() == {"code": 401, "message": message, "data": None}
    assert answer.headers["www-authenticate"] == "Bearer"


async def test_a_key_may_do_what_its_scopes_say(lifesign: Lifesign) -> None:
    await machine(lifesign)
    reads = lifesign.client(await _key(lifesign, "systems:read"))
    writes = lifesign.client(await _key(lifesign, "systems:write"))
    other = lifesign.client(await _key(lifesign, "heartbeats:write"))

    assert (await reads.get("/api/systems")).status_code == 200
    assert (await writes.get("/api/systems/totals")).status_code == 200
    assert (await writes.post("/api/systems", json={"name": "db2"})).status_code == 201
    for client, method in ((reads, "POST"), (other, "GET"), (other, "POST")):
        answer = await client.request(method, "/api/systems", json={})
        assert answer.status_code == 403
        assert answer.json() == {"code": 403, "message": "insufficient permissions", "data": None}


async def test_systems_of_another_project_are_none(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await db1.beat()
    async with new_project(lifesign) as elsewhere:
        for method, path in OF_ONE:
            for ref in (db1.id, db1.key):
                gone = await elsewhere.http.request(method, f"/api/systems/{ref}{path}", json={})
                assert gone.json() == {"code": 404, "message": "system not found", "data": None}
        totals = await asked(elsewhere, "GET", "/totals")
        trend = await asked(elsewhere, "GET", "/trend")
        listed = await asked(elsewhere, "GET", "")
        await elsewhere.ask("POST", "/api/systems", {"name": "mine", "id": db1.id}, expect=409)

    assert (totals["total_systems"], trend["current_total"], listed) == (0, 0, {"systems": []})
    assert (await db1.send()).status_code == 200


async def test_a_machine_of_a_deleted_project_is_refused_at_once(lifesign: Lifesign) -> None:
    async with new_project(lifesign) as elsewhere:
        db1 = await machine(elsewhere)
        await db1.beat()
        project_id = (await elsewhere.ask("GET", "/v1/whoami"))["projectId"]
        await lifesign.node.db.write(projects.delete, project_id, lifesign.now())

    remembered = await db1.send()
    anew = await db1.send(auth=basic(db1.key, db1.secret))

    for answer in (remembered, anew):
        assert answer.status_code == 401
        assert answer.json() == {"code": 401, "message": "invalid system credentials", "data": None}


async def test_info_tells_a_machine_of_itself_and_is_no_beat(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign, notes="for people", tags=["prod"])
    headers = {"Authorization": db1.auth}

    async with lifesign.client(None) as http:
        answer = await http.get("/api/systems/info", headers=headers)
        with_key = await lifesign.http.get("/api/systems/info")
        await asked(lifesign, "POST", f"/{db1.id}/suspend")
        suspended = await http.get("/api/systems/info", headers=headers)

    assert answer.json()["message"] == "system info retrieved successfully"
    told = answer.json()["data"]
    hidden = {"notes", "policy", "heartbeat_id", "heartbeat_status", "secret_hint", "secret"}
    assert told == {name: value for name, value in db1.made.items() if name not in hidden}
    assert (with_key.status_code, with_key.json()["message"]) == (401, "invalid authentication format")
    assert suspended.status_code == 401
    assert (await db1.read())["last_heartbeat"] is None
