"""What machines say they consist of, and what people read of it."""

import asyncio
import gzip
import json
from typing import Any, cast

import httpx2
import pytest
from sqlalchemy import select

from lifesign.db.schema import inventory_changes, inventory_snapshots
from tests.harness import Json, Lifesign
from tests.systems.machines import Machine, asked, basic, machine, refused

FIRST = {"os": {"name": "Debian"}, "packages": [{"name": "openssl", "version": "3.0"}], "uptime": 5}
SECOND = {"os": {"name": "Debian"}, "packages": [{"name": "openssl", "version": "3.1"}], "uptime": 600}


async def _send(db1: Machine, document: object) -> Json:
    answer = await db1.send(document, path="inventory")
    assert answer.status_code == 200, answer.text
    assert answer.json()["message"] == "inventory received"
    return cast("Json", answer.json()["data"])


async def _changes(db1: Machine, query: str = "") -> list[Json]:
    return cast("list[Json]", (await asked(db1.lifesign, "GET", f"/{db1.id}/inventory/changes{query}"))["changes"])


async def test_one_package_more_is_one_change_and_the_same_again_is_none(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    first = await _send(db1, FIRST)
    await lifesign.advance(60)
    second = await _send(db1, SECOND)
    await lifesign.advance(60)
    again = await _send(db1, SECOND | {"uptime": 700})

    assert first == {
        "system_id": db1.id,
        "snapshot_id": first["snapshot_id"],
        "timestamp": "2026-01-05T12:00:00.000Z",
        "data_size": 83,
        "changed": True,
        "changes": 0,
    }
    assert (second["changed"], second["changes"]) == (True, 1)
    assert (again["changed"], again["changes"], again["snapshot_id"]) == (False, 0, second["snapshot_id"])
    (change,) = await _changes(db1)
    assert change == {
        "id": change["id"],
        "timestamp": "2026-01-05T12:01:00.000Z",
        "path": "/packages/openssl/version",
        "op": "changed",
        "old": '"3.0"',
        "new": '"3.1"',
        "category": "features",
        "severity": "low",
    }
    listed = (await asked(lifesign, "GET", f"/{db1.key}/inventory"))["snapshots"]
    assert [(each["id"], each["last_seen"], each["changes"]) for each in listed] == [
        (second["snapshot_id"], "2026-01-05T12:02:00.000Z", 1),
        (first["snapshot_id"], "2026-01-05T12:00:00.000Z", 0),
    ]
    latest = await asked(lifesign, "GET", f"/{db1.id}/inventory/latest")
    assert latest == listed[0] | {"inventory": SECOND}
    assert (await db1.read())["last_heartbeat"] is None


async def test_a_system_without_an_inventory_has_none(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    answer = await lifesign.ask("GET", f"/api/systems/{db1.id}/inventory/latest", expect=404)

    assert answer == {"code": 404, "message": "inventory not found", "data": None}
    assert await asked(lifesign, "GET", f"/{db1.id}/inventory") == {"snapshots": []}
    assert await _changes(db1) == []


async def _raw(db1: Machine, content: bytes, coding: str | None = None) -> httpx2.Response:
    headers = {"Authorization": db1.auth} | ({"Content-Encoding": coding} if coding else {})
    async with db1.lifesign.client(None) as http:
        return await http.post("/api/systems/inventory", content=content, headers=headers)


async def test_an_inventory_may_come_compressed(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    answer = await _raw(db1, gzip.compress(json.dumps(FIRST).encode()), "gzip")

    assert answer.status_code == 200
    assert (await asked(lifesign, "GET", f"/{db1.id}/inventory/latest"))["inventory"] == FIRST


def _nested(levels: int) -> bytes:
    return b'{"a":' * levels + b"1" + b"}" * levels


@pytest.mark.parametrize(
    ("content", "coding", "message"),
    [
        (b"", None, "required"),
        (b"[]", None, "invalid_type"),
        (b"{", None, "invalid_format"),
        (b"{}", "br", "invalid_format"),
        (b"{}", "gzip", "invalid_format"),
        (gzip.compress(b"{}" * 100, mtime=0)[:-9], "gzip", "invalid_format"),
        (_nested(33), None, "out_of_range"),
        (_nested(5000), None, "out_of_range"),
        (json.dumps({"a": [0] * 100_000}).encode(), None, "out_of_range"),
    ],
)
async def test_an_inventory_that_cannot_be_read_is_refused(
    lifesign: Lifesign, content: bytes, coding: str | None, message: str
) -> None:
    db1 = await machine(lifesign)

    answer = await _raw(db1, content, coding)

    assert answer.status_code == 400
    (error,) = answer.json()["data"]["errors"]
    assert (error["key"], error["message"]) == ("body", message)
    assert (await asked(lifesign, "GET", f"/{db1.id}/inventory"))["snapshots"] == []


async def test_an_inventory_of_more_than_10_mib_is_refused_however_small_it_comes(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    large = json.dumps({"a": "x" * 10 * 1024 * 1024}).encode()

    plain, packed = await _raw(db1, large), await _raw(db1, gzip.compress(large), "gzip")

    assert (plain.status_code, packed.status_code) == (413, 413)
    assert packed.json() == {"code": 413, "message": "request body too large", "data": None}


async def test_an_inventory_needs_the_machines_own_credentials(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    wrong = await db1.send(FIRST, path="inventory", auth=basic(db1.id, "wrong"))
    with_key = await lifesign.http.post("/api/systems/inventory", json=FIRST)
    await _send(db1, FIRST)
    await asked(lifesign, "POST", f"/{db1.id}/regenerate-secret")
    stale = await db1.send(SECOND, path="inventory")

    assert (wrong.status_code, with_key.status_code, stale.status_code) == (401, 401, 401)
    assert stale.json()["message"] == "invalid system credentials"
    assert len((await asked(lifesign, "GET", f"/{db1.id}/inventory"))["snapshots"]) == 1


async def test_inventories_that_come_at_once_are_compared_one_after_another(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await _send(db1, {"n": 0})

    received = await asyncio.gather(*(_send(db1, {"n": n}) for n in range(1, 7)))

    assert [each["changes"] for each in received] == [1] * 6
    changes = await _changes(db1)
    assert len(changes) == 6
    # Each begins where the one before ended.
    assert [each["old"] for each in changes[:-1]] == [each["new"] for each in changes[1:]]
    assert changes[-1]["old"] == "0"


async def test_values_are_cut_and_hostile_names_are_stored(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await _send(db1, {"a": "x"})

    await _send(db1, {"a": "y" * 5000, "\x00" + "k" * 5000: "\x00\ud7ff"})

    long, added = sorted(await _changes(db1), key=lambda each: str(each["op"]), reverse=True)
    added, long = (long, added) if long["op"] == "added" else (added, long)
    assert len(long["new"]) == 2000
    assert long["old"] == '"x"'
    assert len(added["path"]) == 2000
    assert added["new"] == '"\\u0000\ud7ff"'
    assert added["old"] is None


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("", ["/users/eve", "/os/version"]),
        ("?category=security", ["/users/eve"]),
        ("?severity=critical", []),
        ("?severity=high", ["/users/eve", "/os/version"]),
        ("?since=2026-01-05T12:02:00Z", ["/users/eve"]),
        ("?since=2026-01-05T14:02:00%2B02:00", ["/users/eve"]),
        ("?limit=1", ["/users/eve"]),
    ],
)
async def test_changes_are_found_by_what_they_are(lifesign: Lifesign, query: str, paths: list[str]) -> None:
    db1 = await machine(lifesign)
    document: dict[str, Any] = {"os": {"version": "12"}, "users": {}}
    await _send(db1, document)
    await lifesign.advance(60)
    await _send(db1, document | {"os": {"version": "13"}})
    await lifesign.advance(60)
    await _send(db1, {"os": {"version": "13"}, "users": {"eve": 1}})

    assert [each["path"] for each in await _changes(db1, query)] == paths


async def test_changes_and_snapshots_are_read_page_by_page(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    for n in range(4):
        await _send(db1, {"n": n})

    for what, count in (("inventory", 4), ("inventory/changes", 3)):
        found, cursor = 0, ""
        for _ in range(count):
            page = await asked(lifesign, "GET", f"/{db1.id}/{what}?limit=1{cursor}")
            found += len(page.get("snapshots", page.get("changes")))
            cursor = f"&cursor={page.get('next_cursor')}"
        assert (found, cursor) == (count, "&cursor=None")


@pytest.mark.parametrize(
    ("path", "key", "message"),
    [
        ("inventory?limit=201", "limit", "out_of_range"),
        ("inventory?cursor=x", "cursor", "invalid_format"),
        ("inventory/changes?limit=501", "limit", "out_of_range"),
        ("inventory/changes?category=cats", "category", "invalid_value"),
        ("inventory/changes?severity=mild", "severity", "invalid_value"),
        ("inventory/changes?since=yesterday", "since", "invalid_format"),
    ],
)
async def test_a_question_that_makes_no_sense_is_told(lifesign: Lifesign, path: str, key: str, message: str) -> None:
    db1 = await machine(lifesign)

    status, found = await refused(lifesign, "GET", f"/{db1.id}/{path}")

    assert status == 400
    assert [(each["key"], each["message"]) for each in found] == [(key, message)]


async def test_nothing_is_left_of_the_inventory_of_a_deleted_system(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await _send(db1, FIRST)
    await _send(db1, SECOND)

    await asked(lifesign, "DELETE", f"/{db1.id}")

    ids = select(inventory_snapshots.c.id).union(select(inventory_changes.c.id))
    assert await lifesign.node.db.read(lambda conn: conn.execute(ids).all()) == []


async def test_old_inventories_are_thinned_out_once_a_day(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    for n in range(6):
        await _send(db1, {"n": n})
        await lifesign.advance(3600)

    await lifesign.advance(9 * 86_400)

    listed = (await asked(lifesign, "GET", f"/{db1.id}/inventory"))["snapshots"]
    assert [each["timestamp"] for each in listed] == ["2026-01-05T17:00:00.000Z", "2026-01-05T12:00:00.000Z"]
    assert len(await _changes(db1)) == 5
