"""What a machine sends to `POST /api/systems/heartbeat`, and what it is answered."""

import asyncio
import base64
from typing import Any

import pytest

from lifesign.clock import EpochMs
from lifesign.db import StorageUnavailable, WriterBusy
from lifesign.db.patience import Patience
from lifesign.systems.beats import Beat
from tests.harness import Json, Lifesign, MakeLifesign
from tests.systems.machines import asked, basic, machine

UNKNOWN_ID = "4cf3053f-d0d5-4b10-b752-ff8f7b63c2f7"
CHALLENGE = 'Basic realm="System Authentication"'


def refusal(code: int, message: str) -> Json:
    return {"code": code, "message": message, "data": None}


# Taken --------------------------------------------------------------------------------------------------------------
async def test_a_beat_is_acknowledged_with_the_servers_time(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    answer = await db1.send()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    assert answer.json() == {
        "code": 200,
        "message": "heartbeat acknowledged",
        "data": {"system_id": db1.id, "acknowledged": True, "last_heartbeat": "2026-01-05T12:00:00.000Z"},
    }


@pytest.mark.parametrize("change", [str.lower, str.upper])
async def test_a_machine_may_call_itself_by_its_key_and_either_in_any_case(lifesign: Lifesign, change: Any) -> None:
    db1 = await machine(lifesign)

    by_key = await db1.send(auth=basic(change(db1.key), db1.secret))
    by_id = await db1.send({"system_id": change(db1.id)}, auth=basic(change(db1.id), db1.secret))

    assert (by_key.status_code, by_key.json()["data"]["system_id"]) == (200, db1.id)
    assert (by_id.status_code, by_id.json()["data"]["system_id"]) == (200, db1.id)


async def test_what_a_machine_says_besides_its_id_is_ignored_and_the_last_of_two_ids_counts(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    body = b'{"system_id":"x","timestamp":"2001-01-01T00:00:00Z","last_heartbeat":1,"system_id":"%s"}' % db1.id.encode()

    answer = await db1.send(content=body)

    assert answer.json()["data"]["last_heartbeat"] == "2026-01-05T12:00:00.000Z"


async def test_a_secret_may_hold_colons(lifesign: Lifesign) -> None:
    secret = "a:b::c and so on for thirty-two characters:"
    db1 = await machine(lifesign, secret=secret)

    assert (await db1.send(auth=basic(db1.id, secret))).status_code == 200
    assert db1.made["secret_hint"] == "ers:"


async def test_a_beat_is_a_check_in_of_the_heartbeat_underneath(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    await db1.beat()

    beaten = await lifesign.get(db1.heartbeat_id)
    assert beaten["lastCheckin"] == "2026-01-05T12:00:00.000Z"
    assert beaten["nextDeadline"] == "2026-01-05T12:10:00.000Z"
    assert beaten["firesAt"] == "2026-01-05T12:20:00.000Z"
    newest = (await lifesign.events(db1.heartbeat_id))[0]
    assert (newest["type"], newest["metadata"]) == ("checkin", {"via": "system", "key": db1.id})


async def test_many_beats_make_one_row_and_all_at_once_are_all_acknowledged(lifesign: Lifesign) -> None:
    db1, db2 = await machine(lifesign), await machine(lifesign, "db2")

    answers = await asyncio.gather(*(each.send() for _ in range(100) for each in (db1, db2)))

    assert [each.status_code for each in answers] == [200] * 200
    totals = await asked(lifesign, "GET", "/totals")
    assert (totals["total_systems"], totals["alive_systems"]) == (2, 2)
    beaten = await lifesign.events(db1.heartbeat_id)
    assert [each["type"] for each in beaten].count("checkin") == 100


async def test_beats_that_are_written_out_of_order_leave_the_newest_time(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    beats, machines = lifesign.node.api.state.beats, lifesign.node.api.state.machines
    known = await machines.recognized(db1.auth.encode())
    stamps = [EpochMs(lifesign.now() + each) for each in (5000, 1000, 9000, 3000)]

    together = await lifesign.node.db.write(beats.record, [Beat(known, stamp) for stamp in stamps])
    late = await lifesign.node.db.write_batched(beats.record, Beat(known, stamps[1]))

    assert [*together, late] == [stamps[0], stamps[0], stamps[2], stamps[2], stamps[2]]
    read = await db1.read()
    assert (read["last_heartbeat"], read["first_heartbeat"]) == ("2026-01-05T12:00:09.000Z", "2026-01-05T12:00:05.000Z")


async def test_a_clock_that_steps_back_moves_nothing_backwards(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await db1.beat()
    lifesign.clock.set(lifesign.now() - 3_600_000)  # type: ignore[arg-type]  # an instant, less an hour

    answer = await db1.beat()

    assert answer["last_heartbeat"] == "2026-01-05T12:00:00.000Z"
    assert (await db1.read())["last_heartbeat"] == "2026-01-05T12:00:00.000Z"


# Who is it ----------------------------------------------------------------------------------------------------------
async def test_a_beat_without_credentials_is_told_how_to_send_them(lifesign: Lifesign) -> None:
    answer = await lifesign.client(None).post("/api/systems/heartbeat", json={"system_id": UNKNOWN_ID})

    assert answer.status_code == 401
    assert answer.json() == refusal(401, "authentication required")
    assert answer.headers["www-authenticate"] == CHALLENGE


@pytest.mark.parametrize(
    ("header", "message"),
    [
        ("Bearer x", "invalid authentication format"),
        ("Basic", "invalid authentication format"),
        ("Basicx", "invalid authentication format"),
        ("Basic !!!", "invalid authentication encoding"),
        ("Basic YWJj=", "invalid authentication encoding"),
        ("Basic YWI", "invalid authentication encoding"),
        ("Basic  YWJj", "invalid authentication encoding"),
        ("basic YWJj", "invalid credentials format"),
        ("BASIC " + base64.b64encode(b"a:b").decode(), "invalid system credentials"),
        (basic(b"\xff\xfe", "x"), "invalid system credentials"),
        (basic("", "x"), "invalid system credentials"),
        (basic(UNKNOWN_ID, ""), "invalid system credentials"),
        (basic("SYS-0000-0000-0000-0000", "x"), "invalid system credentials"),
        (basic("a\x00b", "x\x00"), "invalid system credentials"),
    ],
)
async def test_credentials_that_do_not_count_are_refused_in_their_own_words(
    lifesign: Lifesign, header: str, message: str
) -> None:
    db1 = await machine(lifesign)

    answer = await db1.send(auth=header)

    assert answer.status_code == 401
    assert answer.json() == refusal(401, message)
    assert answer.headers["www-authenticate"] == CHALLENGE


async def test_a_wrong_secret_and_an_unknown_machine_are_answered_alike(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    wrong = await db1.send(auth=basic(db1.id, "lss_" + "0" * 64))
    unknown = await db1.send({"system_id": UNKNOWN_ID}, auth=basic(UNKNOWN_ID, db1.secret))

    assert (wrong.status_code, unknown.status_code) == (401, 401)
    assert wrong.content == unknown.content
    assert wrong.json() == refusal(401, "invalid system credentials")
    assert (await db1.read())["status"] == "zombie"


async def test_who_it_is_is_asked_before_what_it_sends(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)

    broken = await db1.send(content=b"{", auth=basic(db1.id, "wrong"))
    large = await db1.send(content=b" " * 20_000, auth=basic(db1.id, "wrong"))

    assert (broken.status_code, large.status_code) == (401, 401)


async def test_another_systems_id_is_refused_and_nothing_changes(lifesign: Lifesign) -> None:
    db1, db2 = await machine(lifesign), await machine(lifesign, "db2")

    for other in (db2.id, db1.key, UNKNOWN_ID, f" {db1.id}"):
        answer = await db1.send({"system_id": other})

        assert answer.status_code == 403
        assert answer.json() == refusal(403, "system_id mismatch")
    assert [(await each.read())["last_heartbeat"] for each in (db1, db2)] == [None, None]


async def test_a_new_secret_kills_the_old_one_at_once(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await db1.beat()

    made = await asked(lifesign, "POST", f"/{db1.key.lower()}/regenerate-secret")

    assert (await db1.send()).status_code == 401
    assert (await db1.send(auth=basic(db1.id, made["secret"]))).status_code == 200
    assert made == {"id": db1.id, "key": db1.key, "secret": made["secret"], "secret_hint": made["secret"][-4:]}


async def test_a_suspended_or_deleted_machine_is_refused_until_it_is_taken_again(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await db1.beat()

    await asked(lifesign, "POST", f"/{db1.id}/suspend")
    await lifesign.advance(60)
    suspended = await db1.send()
    unchanged = (await db1.read())["last_heartbeat"]
    await asked(lifesign, "POST", f"/{db1.id}/reactivate")
    again = await db1.send()
    await asked(lifesign, "DELETE", f"/{db1.id}")
    deleted = await db1.send()

    assert (suspended.status_code, again.status_code, deleted.status_code) == (401, 200, 401)
    assert suspended.content == deleted.content
    assert unchanged == "2026-01-05T12:00:00.000Z"


# What it sends ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("content", "key", "message", "value"),
    [
        (b"", "body", "required", ""),
        (b" \r\n\t", "body", "required", ""),
        (b"{", "body", "invalid_format", ""),
        (b'{"system_id":NaN}', "body", "invalid_format", ""),
        (b"\xff\xfe", "body", "invalid_format", ""),
        (b"[" * 9000, "body", "invalid_format", ""),
        (b'"abc"', "body", "invalid_type", "abc"),
        (b"null", "body", "invalid_type", "null"),
        (b"[1, 2]", "body", "invalid_type", "[1,2]"),
        (b"{}", "system_id", "required", ""),
        (b'{"system_id":null}', "system_id", "required", "null"),
        (b'{"system_id":""}', "system_id", "required", ""),
        (b'{"system_id":"  "}', "system_id", "required", "  "),
        (b'{"system_id":42}', "system_id", "invalid_type", "42"),
        (b'{"system_id":true}', "system_id", "invalid_type", "true"),
        (b'{"system_id":[1, {"a": 2}]}', "system_id", "invalid_type", '[1,{"a":2}]'),
        (b'{"system_id":"%s"}' % (b"x" * 256), "system_id", "invalid_format", "x" * 200),
    ],
)
async def test_a_body_that_cannot_be_read_is_told_by_field(
    lifesign: Lifesign, content: bytes, key: str, message: str, value: str
) -> None:
    db1 = await machine(lifesign)

    answer = await db1.send(content=content)

    assert answer.status_code == 400
    assert answer.json() == {
        "code": 400,
        "message": "validation failed",
        "data": {"type": "validation_error", "errors": [{"key": key, "message": message, "value": value}]},
    }


async def test_a_body_of_more_than_16_kib_is_refused(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    fits = b'{"system_id":"%s"}' % db1.id.encode()

    largest = await db1.send(content=fits + b" " * (16_384 - len(fits)))
    larger = await db1.send(content=fits + b" " * (16_385 - len(fits)))

    assert largest.status_code == 200
    assert larger.status_code == 413
    assert larger.json() == refusal(413, "request body too large")


# When the server is in trouble --------------------------------------------------------------------------------------
async def test_storage_that_fails_is_told_without_a_trace_and_the_next_beat_is_taken(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    db1 = await machine(lifesign)

    async def fails(*_: object) -> None:
        raise StorageUnavailable("disk of the server")

    with monkeypatch.context() as patched:
        patched.setattr(lifesign.node.db, "write_batched", fails)
        answer = await db1.send()
    with monkeypatch.context() as patched:
        patched.setattr(lifesign.node.api.state.beats, "record", lambda *_: 1 / 0)
        broken = await db1.send()

    assert answer.status_code == broken.status_code == 500
    assert answer.json() == broken.json() == refusal(500, "internal server error")
    assert (await db1.send()).status_code == 200


async def test_a_write_that_takes_too_long_is_told_as_a_fault(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    db1 = await machine(lifesign)

    async def hangs(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(lifesign.node.db, "write_batched", hangs)
    monkeypatch.setattr(lifesign.node.api.state.beats, "patience", Patience(0.05))
    answer = await db1.send()

    assert answer.status_code == 500
    assert answer.json() == refusal(500, "internal server error")


async def test_a_full_queue_asks_to_come_again(lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch) -> None:
    db1 = await machine(lifesign)

    async def is_full(*_: object) -> None:
        raise WriterBusy

    monkeypatch.setattr(lifesign.node.db, "write_batched", is_full)
    answer = await db1.send()

    assert answer.status_code == 503
    assert answer.json() == refusal(503, "service unavailable")
    assert answer.headers["retry-after"] == "1"


# The envelope -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "DELETE"])
async def test_another_verb_is_refused_in_the_same_envelope(lifesign: Lifesign, method: str) -> None:
    answer = await lifesign.http.request(method, "/api/systems/heartbeat")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "POST"
    assert answer.json() == refusal(405, "method not allowed")


@pytest.mark.parametrize(
    "path", ["/api/nothing", "/api", "/api/systems/", "/api/systems/heartbeat/", "/api/systems/a/b"]
)
async def test_a_path_that_is_none_is_told_in_the_same_envelope(lifesign: Lifesign, path: str) -> None:
    answer = await lifesign.http.post(path)

    assert answer.status_code == 404
    assert answer.json() == refusal(404, "api not found")
    assert answer.headers["x-request-id"]


# Time ---------------------------------------------------------------------------------------------------------------
async def test_beats_about_every_ten_minutes_for_a_day_are_always_alive(lifesign: Lifesign) -> None:
    db1 = await machine(lifesign)
    await db1.beat()
    offsets = [600 + (index * 37) % 121 - 60 for index in range(144)]

    for seconds in offsets:
        await lifesign.advance(seconds)
        assert (await db1.read())["status"] == "alive"
        await db1.beat()

    assert (await lifesign.ask("GET", f"/v1/incidents?heartbeat={db1.heartbeat_id}"))["incidents"] == []


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_what_a_cached_machine_was_told_by_another_node_counts_here(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign, start_lifesign() as other:
        db1 = await machine(lifesign)
        await db1.beat()

        await asked(other, "POST", f"/{db1.id}/suspend")
        suspended = await db1.send()
        await asked(other, "POST", f"/{db1.id}/reactivate")
        made = await asked(other, "POST", f"/{db1.id}/regenerate-secret")
        old, new = await db1.send(), await db1.send(auth=basic(db1.id, made["secret"]))

    assert (suspended.status_code, old.status_code, new.status_code) == (401, 401, 200)
