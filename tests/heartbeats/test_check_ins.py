"""Check-ins: what they accept, answer and leave behind; repeats; and those that arrive in time but commit late."""

import asyncio

import httpx2
import pytest
from sqlalchemy import Connection, select

from lifesign.clock import EpochMs
from lifesign.db.schema import incidents
from lifesign.heartbeats import store
from lifesign.heartbeats.checkins import Answer, CheckIn
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.shared import after

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def send(office: Lifesign, ref: str, body: bytes | None = None, **headers: str) -> httpx2.Response:
    return await office.http.post(
        f"/v1/heartbeats/{ref}/checkin",
        content=body,
        headers={name.replace("_", "-"): value for name, value in headers.items()},
    )


async def late_check_in(office: Lifesign, ref: str, stamp: int, *, healthy: bool = True) -> Json:
    """Commit a check-in now that arrived at `stamp`: what the route does, with the queue in front of the writer."""
    shown = await office.get(ref)
    project = await office.node.db.read(lambda conn: project_of(conn, shown["id"]))
    item = CheckIn(project, "key_1", shown["id"], healthy, None, EpochMs(stamp))
    answer: Answer = await office.node.db.write_batched(office.node.api.state.check_ins.record, item)
    decoded: Json = httpx2.Response(200, content=answer.body).json()
    return decoded


def project_of(conn: Connection, heartbeat_id: str) -> str:
    return store.by_ids(conn, [heartbeat_id])[heartbeat_id].project_id


# What is accepted ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("body", [None, b"", b"  \r\n\t", b"{}", b'{"healthy": true}', b'{"other": [1]}'])
@pytest.mark.parametrize("content_type", [None, "text/plain", "multipart/form-data"])
async def test_a_check_in_needs_no_body_and_no_type(
    office: Lifesign, body: bytes | None, content_type: str | None
) -> None:
    ref = (await office.heartbeat())["id"]
    await office.advance(10)

    answer = await send(office, ref, body, **({} if content_type is None else {"Content_Type": content_type}))

    assert answer.status_code == 200
    assert answer.json() == {"status": "active", "healthy": True, "nextDeadline": after(office, 3600)}
    assert answer.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[]",
        b"null",
        b'"ok"',
        b"true",
        b'{"healthy": 1}',
        b'{"healthy": "true"}',
        b'{"healthy": null}',
        b'{"metadata": null}',
        b'{"metadata": []}',
        b'{"metadata": "text"}',
        b'{"metadata": {"a": "\\u0000"}}',
        b'{"metadata": {"a": "\\ud800"}}',
        b'{"metadata": {"a": "' + b"x" * 16_377 + b'"}}',
        b"\xff",
    ],
)
async def test_a_bad_check_in_is_refused_and_leaves_nothing(office: Lifesign, body: bytes) -> None:
    made = await office.heartbeat(metadata={"a": 1})

    answer = await send(office, made["id"], body)

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "BAD_REQUEST"
    assert await office.get(made["id"]) == made
    assert await office.event_types(made["id"]) == ["created"]


async def test_metadata_is_replaced_whole_and_kept_when_not_sent(office: Lifesign) -> None:
    ref = (await office.heartbeat(metadata={"a": 1}))["id"]

    await office.check_in(ref, metadata={"b": 2})
    assert (await office.get(ref))["metadata"] == {"b": 2}
    await office.check_in(ref)
    assert (await office.get(ref))["metadata"] == {"b": 2}
    await office.check_in(ref, metadata={})

    assert (await office.get(ref))["metadata"] == {}
    kept = [each["metadata"].get("metadata") for each in await office.events(ref)]
    assert kept == [{}, None, {"b": 2}, None]


async def test_metadata_is_given_back_to_the_letter(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    given = {"ü": "\u2028\x7f", "n": 1e-7, "big": 9007199254740993, "null": None, "list": [[], {}, True], "": ""}

    await office.check_in(ref, metadata=given)

    assert (await office.get(ref))["metadata"] == given
    assert (await office.events(ref))[0]["metadata"]["metadata"] == given


async def test_the_event_of_a_check_in_tells_its_way_and_its_key(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    key = (await office.ask("GET", "/v1/keys"))["keys"][0]["id"]

    await office.check_in(ref)
    await office.check_in(ref, healthy=False, metadata={"why": "disk"})

    unattended, firing, unhealthy, checkin, created = await office.events(ref)
    assert checkin["metadata"] == {"via": "api", "key": key}
    assert unhealthy["type"] == "checkin_unhealthy"
    assert unhealthy["metadata"] == {"via": "api", "key": key, "metadata": {"why": "disk"}}
    assert firing["metadata"] == {"incident": unattended["metadata"]["incident"], "reason": "unhealthy", "key": key}
    assert created["metadata"] == {"key": key}


async def test_the_last_check_in_is_shown_healthy_or_not(office: Lifesign) -> None:
    made = await office.heartbeat()
    assert "lastCheckin" not in made
    await office.advance(5)
    await office.check_in(made["id"])
    assert (await office.get(made["id"]))["lastCheckin"] == after(office, 0)
    await office.advance(5)

    await office.check_in(made["id"], healthy=False)

    assert (await office.get(made["id"]))["lastCheckin"] == after(office, 0)


@pytest.mark.asyncio(loop_scope="function")
async def test_a_nightly_job_in_new_york_is_due_after_the_gap(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at="2026-03-07T07:05:00Z") as lifesign:
        await lifesign.heartbeat(mode="scheduled", schedule="0 2 * * *", timezone="America/New_York")

        answer = await lifesign.check_in("nightly-export")

        assert answer["nextDeadline"] == "2026-03-08T07:00:00.000Z"


@pytest.mark.asyncio(loop_scope="function")
async def test_an_early_check_in_does_not_cover_the_slot_that_follows(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(at="2026-05-01T01:58:00Z") as lifesign:
        await lifesign.heartbeat(mode="scheduled", schedule="0 2 * * *")

        answer = await lifesign.check_in("nightly-export")
        assert answer["nextDeadline"] == "2026-05-01T02:00:00.000Z"
        await lifesign.advance(120)

        # Exactly on the minute: strictly after it is tomorrow.
        answer = await lifesign.check_in("nightly-export")
        assert answer["nextDeadline"] == "2026-05-02T02:00:00.000Z"


# Silence ------------------------------------------------------------------------------------------------------------
async def test_silence_fires_at_deadline_plus_grace_and_not_before(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/silence"))["id"]
    policy = (await office.policy({"channels": [channel]}))["id"]
    made = await office.heartbeat(interval=2, grace=1, policy=policy)
    await office.advance(2.999)
    assert (await office.get(made["id"]))["status"] == "active"

    await office.advance(0.001)

    assert (await office.get(made["id"]))["status"] == "firing"
    history = await office.events(made["id"])
    assert [each["type"] for each in history] == [
        "notify_sent",
        "escalation_finished",
        "step_notified",
        "firing",
        "created",
    ]
    incident = (await office.get(made["id"]))["incident"]
    assert history[3]["metadata"] == {"incident": incident, "reason": "missed", "deadline": made["nextDeadline"]}
    assert history[2]["metadata"] == {"incident": incident, "step": 1, "repeat": 0, "channels": [channel]}
    await office.advance(3600)
    assert (await office.event_types(made["id"])).count("firing") == 1


async def test_a_silent_heartbeat_after_an_ack_fires_again_one_period_later(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=60, grace=10))["id"]
    await office.advance(75)
    await office.ask("POST", f"/v1/heartbeats/{ref}/ack")
    await office.advance(69.999)
    assert (await office.get(ref))["status"] == "resolved"

    await office.advance(0.001)

    shown = await office.get(ref)
    assert shown["status"] == "firing"
    second, first = await office.incidents(ref)
    assert shown["incident"] == second["id"] != first["id"]
    assert (first["status"], first["resolution"], second["status"]) == ("resolved", "ack", "open")


async def test_a_oneshot_checked_in_is_over_for_good(office: Lifesign) -> None:
    ref = (await office.heartbeat(mode="oneshot", interval=5))["id"]
    await office.advance(1)

    assert await office.check_in(ref) == {"status": "resolved", "healthy": True}
    await office.advance(100_000)

    assert await office.event_types(ref) == ["checkin", "created"]
    assert await office.check_in(ref) == {"status": "resolved", "healthy": True}
    assert await office.check_in(ref, healthy=False) == {"status": "resolved", "healthy": False}


# Order --------------------------------------------------------------------------------------------------------------
async def test_fifty_check_ins_at_once_all_count(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    await office.advance(7)

    answers = await asyncio.gather(*(send(office, ref) for _ in range(50)))

    assert [answer.status_code for answer in answers] == [200] * 50
    assert {answer.json()["nextDeadline"] for answer in answers} == {after(office, 3600)}
    assert await office.event_types(ref) == ["checkin"] * 50 + ["created"]
    assert (await office.get(ref))["nextDeadline"] == after(office, 3600)


async def test_check_ins_that_share_a_transaction_happen_in_the_order_of_their_arrival(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    project = await office.node.db.read(project_of, ref)
    await office.advance(5)
    healths = [True, True, False, False, True, True]
    items = [CheckIn(project, "key_1", ref, healthy, f'{{"n":{n}}}', office.now()) for n, healthy in enumerate(healths)]

    answers = await office.node.db.write(office.node.api.state.check_ins.record, items)

    statuses = [httpx2.Response(200, content=answer.body).json()["status"] for answer in answers]
    assert statuses == ["active", "active", "firing", "firing", "active", "active"]
    assert list(reversed(await office.event_types(ref))) == [
        "created",
        "checkin",
        "checkin",
        "checkin_unhealthy",
        "firing",
        "unattended",
        "checkin_unhealthy",
        "checkin",
        "resolved",
        "checkin",
    ]
    shown = await office.get(ref)
    assert (shown["status"], shown["metadata"]) == ("active", {"n": 5})
    assert (shown["nextDeadline"], "incident" in shown) == (after(office, 3600), False)


async def test_an_older_stamp_never_moves_the_deadline_backwards(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    await office.advance(100)
    older = office.now()
    await office.advance(50)
    newest = (await office.check_in(ref))["nextDeadline"]

    answers = await asyncio.gather(
        *(late_check_in(office, ref, older - n * 1000) for n in range(20)), office.check_in(ref)
    )

    assert {answer["nextDeadline"] for answer in answers} == {newest}
    shown = await office.get(ref)
    assert (shown["nextDeadline"], shown["lastCheckin"]) == (newest, after(office, 0))
    assert (await office.event_types(ref)).count("checkin") == 22


async def test_an_older_stamp_does_not_move_back_what_a_resume_began(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    older = office.now()
    await office.advance(100)
    await office.ask("POST", f"/v1/heartbeats/{ref}/pause")
    await office.ask("POST", f"/v1/heartbeats/{ref}/resume")

    answer = await late_check_in(office, ref, older)

    assert answer["nextDeadline"] == after(office, 3600)


async def test_a_check_in_that_was_in_time_wins_over_a_sweep_that_was_quicker(
    office: Lifesign, ledger: LedgerPeer
) -> None:
    channel = (await office.webhook(f"{ledger.url}/hook/late-{office.node.db.is_sqlite}"))["id"]
    ref = (await office.heartbeat(interval=60, grace=10, channels=[channel]))["id"]
    await office.advance(69.999)
    in_time = office.now()
    await office.advance(0.5)
    assert (await office.get(ref))["status"] == "firing"

    answer = await late_check_in(office, ref, in_time)
    await office.advance()

    assert answer["status"] == "active"
    incident = (await office.incidents(ref))[0]
    assert (incident["status"], incident["resolution"]) == ("resolved", "checkin")
    kept = await office.node.db.read(lambda conn: resolved_by(conn, incident["id"]))
    assert kept == "late_checkin"
    # The channel had heard of the outage, so it hears of its end.
    requests = ledger.requests(f"/hook/late-{office.node.db.is_sqlite}")
    assert [each.json["type"] for each in requests] == ["incident.opened", "incident.resolved"]


async def test_a_check_in_at_the_very_moment_of_firing_is_a_recovery(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=60, grace=10))["id"]
    await office.advance(70)
    stamp = office.now()

    await late_check_in(office, ref, stamp)

    incident = (await office.incidents(ref))[0]
    assert await office.node.db.read(lambda conn: resolved_by(conn, incident["id"])) == "checkin"


async def test_a_late_check_in_tells_nobody_who_had_not_heard(office: Lifesign, ledger: LedgerPeer) -> None:
    channel = (await office.webhook(ledger.url + "/hook/unheard"))["id"]
    policy = (await office.policy({"channels": [channel], "wait": 60}))["id"]
    ref = (await office.heartbeat(interval=600, grace=0, policy=policy))["id"]
    await office.advance(599.999)
    in_time = office.now()
    await office.advance(1)

    await late_check_in(office, ref, in_time)
    await office.advance(300)

    assert ledger.requests("/hook/unheard") == []
    assert (await office.incidents(ref))[-1]["notifications"] == []


def resolved_by(conn: Connection, incident_id: str) -> str | None:
    return conn.scalar(select(incidents.c.resolved_by).where(incidents.c.id == incident_id))


# Repeats ------------------------------------------------------------------------------------------------------------
async def test_a_repeated_request_is_answered_as_before_and_records_nothing(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    first = await send(office, ref, Idempotency_Key="k1")
    await office.advance(60)

    second = await send(office, ref, b'{"healthy": false, "metadata": {"other": 1}}', Idempotency_Key="k1")

    assert (first.status_code, second.status_code) == (200, 200)
    assert first.content == second.content
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert await office.event_types(ref) == ["checkin", "created"]
    assert "metadata" not in await office.get(ref)


async def test_of_many_requests_with_one_key_at_once_one_records(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]

    answers = await asyncio.gather(*(send(office, ref, Idempotency_Key="same") for _ in range(40)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await office.event_types(ref) == ["checkin", "created"]


async def test_a_key_belongs_to_its_heartbeat(office: Lifesign) -> None:
    refs = [(await office.heartbeat())["id"] for _ in range(2)]

    answers = [await send(office, ref, Idempotency_Key="shared") for ref in refs]

    assert all("idempotent-replayed" not in answer.headers for answer in answers)
    for ref in refs:
        assert await office.event_types(ref) == ["checkin", "created"]


async def test_id_and_slug_share_their_keys(office: Lifesign) -> None:
    made = await office.heartbeat()
    await send(office, made["id"], Idempotency_Key="k")

    again = await send(office, made["slug"], Idempotency_Key="k")

    assert again.headers["idempotent-replayed"] == "true"


async def test_a_key_is_kept_for_twenty_four_hours(office: Lifesign) -> None:
    ref = (await office.heartbeat(interval=1_000_000))["id"]
    await send(office, ref, Idempotency_Key="day")
    await office.advance(24 * 3600 - 1)
    assert (await send(office, ref, Idempotency_Key="day")).headers["idempotent-replayed"] == "true"

    await office.advance(1)

    assert "idempotent-replayed" not in (await send(office, ref, Idempotency_Key="day")).headers
    assert await office.event_types(ref) == ["checkin", "checkin", "created"]
    # And the new answer is kept in its turn.
    assert (await send(office, ref, Idempotency_Key="day")).headers["idempotent-replayed"] == "true"


async def test_a_refused_request_is_not_kept(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    assert (await send(office, ref, b"{", Idempotency_Key="k")).status_code == 400

    answer = await send(office, ref, Idempotency_Key="k")

    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers
    assert await office.event_types(ref) == ["checkin", "created"]


@pytest.mark.parametrize("key", ["k", "x" * 255, "a b", "!~\"'{}"])
async def test_printable_keys_are_taken(office: Lifesign, key: str) -> None:
    ref = (await office.heartbeat())["id"]

    answers = [await send(office, ref, Idempotency_Key=key) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[1].headers["idempotent-replayed"] == "true"


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"a\tb", "ü".encode(), b"\x01"])
async def test_other_keys_are_refused(office: Lifesign, key: bytes) -> None:
    ref = (await office.heartbeat())["id"]

    answer = await office.http.post(f"/v1/heartbeats/{ref}/checkin", headers=[(b"Idempotency-Key", key)])

    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == "Idempotency-Key"
    assert await office.event_types(ref) == ["created"]


async def test_a_recovery_is_repeated_as_well(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    await send(office, ref, b'{"healthy": false}', Idempotency_Key="down")
    await send(office, ref, Idempotency_Key="up")

    again = await send(office, ref, Idempotency_Key="down")

    assert again.json() == {"status": "firing", "healthy": False}
    assert (await office.get(ref))["status"] == "active"
    assert len(await office.incidents(ref)) == 1


async def test_the_keys_of_a_deleted_heartbeat_are_gone(office: Lifesign) -> None:
    ref = (await office.heartbeat())["id"]
    await send(office, ref, Idempotency_Key="k")
    await office.ask("DELETE", f"/v1/heartbeats/{ref}", expect=204)

    assert (await send(office, ref, Idempotency_Key="k")).status_code == 404
