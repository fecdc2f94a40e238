"""Ping URLs: what each says, what it counts as, and what is refused."""

import asyncio
from datetime import datetime

import pytest
from sqlalchemy import func, select

from lifesign.db import WriterBusy
from lifesign.db.schema import events, ping_rids
from lifesign.engine import retention
from lifesign.engine.retention import History
from tests.engine.steps import hook, told
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.pings.pinging import OTHER_RID, RID, api, check, of_heartbeat, ping_key, pings, read, send

UNKNOWN = "0b6b7f3e-0000-4b0e-9d0f-3a1c2b4d5e6f"


async def _kinds(lifesign: Lifesign, made: Json) -> list[str]:
    return [each["type"] for each in await pings(lifesign, made)]


# Signals ------------------------------------------------------------------------------------------------------------
async def test_a_first_ping_arms_a_new_check(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    answer = await send(lifesign, made["ping_url"])

    assert (answer.status_code, answer.text) == (200, "OK")
    assert answer.headers["ping-body-limit"] == "10000"
    assert answer.headers["access-control-allow-origin"] == "*"
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["cache-control"] == "max-age=0, no-cache, no-store, must-revalidate, private"
    after = await read(lifesign, made)
    assert (after["status"], after["n_pings"]) == ("up", 1)
    assert after["last_ping"] == "2026-01-05T12:00:00+00:00"
    last, due = datetime.fromisoformat(after["last_ping"]), datetime.fromisoformat(after["next_ping"])
    assert (due - last).total_seconds() == 86_400


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "PUT", "PATCH", "DELETE"])
async def test_every_verb_counts_alike(lifesign: Lifesign, method: str) -> None:
    made = await check(lifesign)

    answer = await send(lifesign, made["ping_url"] + "/", method)

    assert (answer.status_code, answer.text) == (200, "" if method == "HEAD" else "OK")
    (ping,) = await pings(lifesign, made)
    assert (ping["method"], ping["type"], ping["n"]) == (method, "success", 1)


async def test_asking_what_may_be_asked_counts_nothing(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    answer = await send(lifesign, made["ping_url"], "OPTIONS")

    assert (answer.status_code, answer.content) == (204, b"")
    assert (await read(lifesign, made))["n_pings"] == 0


async def test_a_failure_is_told_at_once_and_so_is_its_end(lifesign: Lifesign, ledger: LedgerPeer) -> None:
    await lifesign.webhook(hook(ledger))
    made = await check(lifesign, channels="*")
    await send(lifesign, made["ping_url"])
    await lifesign.advance(60)

    await send(lifesign, made["ping_url"] + "/fail")
    await lifesign.advance(60)
    down = await read(lifesign, made)
    await send(lifesign, made["ping_url"])
    await lifesign.advance(0)

    assert (down["status"], down["next_ping"]) == ("down", None)
    assert (await read(lifesign, made))["status"] == "up"
    assert told(ledger) == [(60, "incident.opened"), (120, "incident.resolved")]
    flips = (await api(lifesign, "GET", f"checks/{made['uuid']}/flips/")).json()["flips"]
    assert flips == [
        {"timestamp": "2026-01-05T12:02:00+00:00", "up": 1},
        {"timestamp": "2026-01-05T12:01:00+00:00", "up": 0},
        {"timestamp": "2026-01-05T12:00:00+00:00", "up": 1},
    ]


async def test_flips_are_none_the_more_for_check_ins_that_were_pruned(lifesign: Lifesign) -> None:
    made = await check(lifesign)
    for _ in range(3):
        await send(lifesign, made["ping_url"])
        await lifesign.advance(60)
    await send(lifesign, made["ping_url"] + "/fail")
    path = f"checks/{made['uuid']}/flips/"
    before = (await api(lifesign, "GET", path)).json()["flips"]
    (heartbeat,) = (await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"]
    oldest = select(func.min(events.c.seq)).where(events.c.type == "checkin")
    armed_by = await lifesign.node.db.read(lambda conn: conn.scalar(oldest))

    surplus = History(heartbeat["id"], exists=True, surplus_up_to=armed_by)
    assert await lifesign.node.db.write(retention.delete_surplus, surplus, 10) == 1

    assert [each["up"] for each in before] == [0, 1]
    # Not the oldest check-in that is left, at which it was up already.
    assert (await api(lifesign, "GET", path)).json()["flips"] == before[:1]


@pytest.mark.parametrize(("status", "kind"), [("0", "success"), ("00", "success"), ("7", "fail"), ("255", "fail")])
async def test_an_exit_status_says_how_it_went(lifesign: Lifesign, status: str, kind: str) -> None:
    made = await check(lifesign)

    assert (await send(lifesign, f"{made['ping_url']}/{status}")).text == "OK"

    (ping,) = await pings(lifesign, made)
    assert (ping["type"], ping["exitstatus"]) == (kind, int(status))


async def test_a_log_line_is_recorded_and_changes_nothing_else(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    await send(lifesign, made["ping_url"] + f"/log?rid={RID}", "POST", content=b"half way")

    assert await read(lifesign, made) == made | {"n_pings": 1}
    (ping,) = await pings(lifesign, made)
    assert (ping["type"], ping["rid"]) == ("log", RID)
    assert (await api(lifesign, "GET", f"checks/{made['uuid']}/pings/1/body")).content == b"half way"


# Runs ---------------------------------------------------------------------------------------------------------------
async def test_a_start_without_an_end_is_noticed_after_the_grace(lifesign: Lifesign) -> None:
    made = await check(lifesign, grace=600)

    await send(lifesign, made["ping_url"] + "/start")

    started = await read(lifesign, made)
    assert (started["started"], started["status"], started["next_ping"]) == (True, "new", None)
    assert (await read(lifesign, made, version=1))["status"] == "started"
    await lifesign.advance(599)
    assert (await read(lifesign, made))["status"] == "new"
    await lifesign.advance(1)
    assert (await read(lifesign, made))["status"] == "down"
    await send(lifesign, made["ping_url"])
    after = await read(lifesign, made)
    assert (after["status"], after["started"], after["last_duration"]) == ("up", False, 600)


@pytest.mark.parametrize(
    ("end", "is_open", "duration"),
    [
        (f"?rid={RID}", False, 90),
        (f"?rid={RID.upper()}", False, 90),
        (f"?rid={OTHER_RID}", True, None),
        ("", False, 90),
        (f"/fail?rid={OTHER_RID}", False, None),
        ("/1", False, 90),
    ],
)
async def test_which_end_ends_which_start(lifesign: Lifesign, end: str, is_open: bool, duration: int | None) -> None:
    made = await check(lifesign)
    await send(lifesign, made["ping_url"] + f"/start?rid={RID}")
    await lifesign.advance(90)

    await send(lifesign, made["ping_url"] + end)

    after = await read(lifesign, made)
    assert (after["started"], after.get("last_duration")) == (is_open, duration)
    assert (await pings(lifesign, made))[0].get("duration") == duration


@pytest.mark.parametrize("meanwhile", ["pause", "overdue"])
async def test_a_success_ends_a_run_of_which_nothing_is_expected_any_more(lifesign: Lifesign, meanwhile: str) -> None:
    made, ping_id = await of_heartbeat(lifesign)
    await send(lifesign, f"{ping_id}/start")
    if meanwhile == "pause":
        await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/pause")
        await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/resume")
        await lifesign.advance(60)
    else:
        await lifesign.advance(60)
        assert (await lifesign.get(made["id"]))["status"] == "firing"
        await lifesign.check_in(made["id"])

    await send(lifesign, ping_id)

    shown = (await api(lifesign, "GET", f"checks/{ping_id}")).json()
    assert (shown["started"], shown["last_duration"]) == (False, 60)
    (run,) = (await lifesign.ask("GET", f"/v1/heartbeats/{made['id']}/runs"))["runs"]
    assert run["status"] == "finished"


async def test_a_run_that_a_ping_began_may_end_elsewhere(lifesign: Lifesign) -> None:
    made, ping_id = await of_heartbeat(lifesign)
    await send(lifesign, f"{ping_id}/start?rid={RID}")
    await lifesign.advance(30)

    await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/runs/{RID}/finish")

    shown = (await api(lifesign, "GET", f"checks/{ping_id}")).json()
    assert (shown["started"], shown["status"], shown["last_duration"]) == (False, "up", 30)


async def test_a_new_start_takes_the_place_of_the_older_one(lifesign: Lifesign) -> None:
    made, ping_id = await of_heartbeat(lifesign)
    for rid in (RID, OTHER_RID):
        await send(lifesign, f"{ping_id}/start?rid={rid}")
        await lifesign.advance(1)

    runs = (await lifesign.ask("GET", f"/v1/heartbeats/{made['id']}/runs"))["runs"]

    assert [(run["runId"], run["status"]) for run in runs] == [(OTHER_RID, "running"), (RID, "superseded")]


async def test_the_same_run_id_again_and_again_is_a_run_each_time(lifesign: Lifesign) -> None:
    made = await check(lifesign)
    for _ in range(3):
        await send(lifesign, made["ping_url"] + f"/start?rid={RID}")
        await lifesign.advance(30)
        await send(lifesign, made["ping_url"] + f"?rid={RID}")
        await lifesign.advance(3600)

    assert await _kinds(lifesign, made) == ["success", "start"] * 3
    assert [ping.get("duration") for ping in await pings(lifesign, made)] == [30, None] * 3


async def test_a_run_that_was_begun_elsewhere_ends_with_its_own_id_only(lifesign: Lifesign) -> None:
    made, ping_id = await of_heartbeat(lifesign)
    await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/runs", {"runId": RID, "lease": 60}, expect=201)

    await send(lifesign, ping_id)
    before = (await lifesign.ask("GET", f"/v1/heartbeats/{made['id']}/runs/{RID}"))["status"]
    await send(lifesign, f"{ping_id}?rid={RID}")

    after = (await lifesign.ask("GET", f"/v1/heartbeats/{made['id']}/runs/{RID}"))["status"]
    assert (before, after) == ("running", "finished")


# Repeats ------------------------------------------------------------------------------------------------------------
async def test_copies_of_a_ping_with_a_run_id_count_once(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    answers = await asyncio.gather(*(send(lifesign, made["ping_url"] + f"?rid={RID}") for _ in range(8)))

    assert {each.status_code for each in answers} == {200}
    assert sorted(each.headers.get("ping-duplicate", "") for each in answers) == ["", *["1"] * 7]
    assert (await read(lifesign, made))["n_pings"] == 1
    await send(lifesign, made["ping_url"] + f"/start?rid={RID}")
    assert (await read(lifesign, made))["n_pings"] == 2


async def test_no_ping_is_a_copy_where_that_is_turned_off(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(ping_dedup_seconds=0) as lifesign:
        made = await check(lifesign)

        answers = [await send(lifesign, made["ping_url"] + f"?rid={RID}") for _ in range(2)]

        assert ["ping-duplicate" in each.headers for each in answers] == [False, False]
        assert (await read(lifesign, made))["n_pings"] == 2


async def test_a_run_id_that_never_changes_keeps_a_check_alive(lifesign: Lifesign) -> None:
    made = await check(lifesign, timeout=60, grace=60)

    for _ in range(30):
        await send(lifesign, made["ping_url"] + f"?rid={RID}")
        await lifesign.advance(40)

    assert (await read(lifesign, made))["status"] == "up"


async def test_without_a_run_id_every_request_counts(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    await asyncio.gather(*(send(lifesign, made["ping_url"]) for _ in range(10)))

    assert (await read(lifesign, made))["n_pings"] == 10


async def test_run_ids_are_forgotten_when_they_tell_nothing_any_more(lifesign: Lifesign) -> None:
    made = await check(lifesign)
    await send(lifesign, made["ping_url"] + f"/start?rid={RID}")
    await lifesign.advance(72 * 3600 - 1)
    early = await send(lifesign, made["ping_url"] + f"?rid={OTHER_RID}")
    kept = await lifesign.node.db.read(lambda conn: list(conn.scalars(select(ping_rids.c.rid))))
    await lifesign.advance(120)

    left = await lifesign.node.db.read(lambda conn: list(conn.scalars(select(ping_rids.c.rid))))

    assert early.status_code == 200
    assert sorted(kept) == sorted([RID, OTHER_RID])
    assert left == [OTHER_RID]


# What counts --------------------------------------------------------------------------------------------------------
async def test_a_paused_check_is_un_paused_by_a_ping_unless_it_is_to_be_resumed_by_hand(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await lifesign.webhook(hook(ledger))
    usual = await check(lifesign, channels="*")
    by_hand = await check(lifesign, channels="*", manual_resume=True)
    for made in (usual, by_hand):
        await api(lifesign, "POST", f"checks/{made['uuid']}/pause")
        await send(lifesign, made["ping_url"])
    await lifesign.advance(60)

    assert [(await read(lifesign, made))["status"] for made in (usual, by_hand)] == ["up", "paused"]
    assert [await _kinds(lifesign, made) for made in (usual, by_hand)] == [["success"], ["ign"]]
    assert told(ledger) == []


async def test_a_check_for_post_alone_ignores_the_rest(lifesign: Lifesign) -> None:
    made = await check(lifesign, methods="POST")

    ignored, counted = await send(lifesign, made["ping_url"]), await send(lifesign, made["ping_url"], "POST")

    assert (ignored.text, counted.text) == ("OK", "OK")
    assert await _kinds(lifesign, made) == ["success", "ign"]


@pytest.mark.parametrize(
    ("body", "default_fail", "kind"),
    [
        (b"done ERR", False, "fail"),
        (b"all done", False, "success"),
        (b"begun", False, "start"),
        (b"x", False, "ign"),
        (b"x", True, "fail"),
        (b"err DONE", False, "ign"),
        (b"\xff\xfe done", False, "success"),
    ],
)
async def test_keywords_decide_what_a_body_means(
    lifesign: Lifesign, body: bytes, default_fail: bool, kind: str
) -> None:
    made = await check(
        lifesign,
        filter_http_body=True,
        failure_kw="ERR, FAIL",
        success_kw=",done,",
        start_kw="begun",
        filter_default_fail=default_fail,
    )

    await send(lifesign, made["ping_url"], "POST", content=body)

    assert await _kinds(lifesign, made) == [kind]


async def test_a_path_that_says_what_it_means_is_not_looked_through_for_keywords(lifesign: Lifesign) -> None:
    made = await check(lifesign, filter_http_body=True, failure_kw="ERR")

    await send(lifesign, made["ping_url"] + "/0", "POST", content=b"ERR")

    assert await _kinds(lifesign, made) == ["success"]


@pytest.mark.parametrize("body", [b"\xff\xfe\x00", b"\x00", "ü".encode()[:1], b"<script>"])
async def test_any_bytes_are_kept_as_they_came(lifesign: Lifesign, body: bytes) -> None:
    made = await check(lifesign, filter_http_body=True, filter_default_fail=True)

    await send(lifesign, made["ping_url"], "POST", content=body)

    (ping,) = await pings(lifesign, made)
    answer = await api(lifesign, "GET", ping["body_url"].partition("/api/v3/")[2])
    assert answer.content == body
    assert answer.headers["content-type"].startswith("text/plain")


async def test_of_a_long_body_the_beginning_is_kept(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        made = await check(lifesign)
        await send(lifesign, made["ping_url"], "POST", content=b"x" * 20_000)
        assert len((await api(lifesign, "GET", f"checks/{made['uuid']}/pings/1/body")).content) == 10_000
    async with start_lifesign(ping_body_limit=0) as lifesign:
        answer = await send(lifesign, made["ping_url"], "POST", content=b"x" * 20_000)
        assert "ping-body-limit" not in answer.headers
        assert len((await api(lifesign, "GET", f"checks/{made['uuid']}/pings/2/body")).content) == 20_000


async def test_a_huge_body_is_refused_and_a_large_one_is_not(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    huge = await send(lifesign, made["ping_url"], "POST", content=b"x" * (10 * 1024 * 1024 + 1))
    large = await send(lifesign, made["ping_url"], "POST", content=b"x" * 3 * 1024 * 1024)

    assert (huge.status_code, huge.text) == (413, "body too large")
    assert large.status_code == 200
    assert (await read(lifesign, made))["n_pings"] == 1


async def test_bodies_of_the_newest_pings_only_are_kept(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(ping_bodies_kept=2) as lifesign:
        made = await check(lifesign)
        for n in range(4):
            await send(lifesign, made["ping_url"], "POST", content=b"%d" % n)

        kept = [each["body_url"] is not None for each in await pings(lifesign, made)]
        gone = await api(lifesign, "GET", f"checks/{made['uuid']}/pings/1/body")

    assert kept == [True, True, False, False]
    assert (gone.status_code, gone.json()) == (404, {"error": "not found"})


@pytest.mark.parametrize(
    ("header", "shown"),
    [
        ("garbage", "127.0.0.1"),
        ("1.2.3.4:99, 5.6.7.8", "1.2.3.4"),
        ("1.2.3.4", "1.2.3.4"),
        ("[2001:db8::1]:99", "2001:db8::1"),
        ("2001:db8::1", "2001:db8::1"),
        (", 1.2.3.4", "127.0.0.1"),
        ("999.1.1.1", "127.0.0.1"),
    ],
)
async def test_who_sent_it_is_shown_if_that_can_be_told(lifesign: Lifesign, header: str, shown: str) -> None:
    made = await check(lifesign)

    await send(lifesign, made["ping_url"], X_Forwarded_For=header, X_Forwarded_Proto="https", User_Agent="u" * 300)

    (ping,) = await pings(lifesign, made)
    assert (ping["remote_addr"], ping["scheme"], ping["ua"]) == (shown, "https", "u" * 200)


async def test_of_several_headers_the_first_tells_who_sent_it(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    async with lifesign.client(None) as http:
        await http.get(made["ping_url"], headers=[("X-Forwarded-For", "1.2.3.4"), ("X-Forwarded-For", "5.6.7.8")])

    assert [each["remote_addr"] for each in await pings(lifesign, made)] == ["1.2.3.4"]


# Refused ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("path", "status", "text"),
    [
        (UNKNOWN, 404, "not found"),
        (f"{UNKNOWN}/256", 404, "not found"),
        (f"{UNKNOWN}?rid=abc", 404, "not found"),
        ("{upper}", 404, "not found"),
        ("{bare}", 404, "not found"),
        ("{uuid}//", 404, "not found"),
        ("{uuid}/finish", 404, "not found"),
        ("{uuid}/start/", 404, "not found"),
        ("{uuid}/-1", 404, "not found"),
        ("{uuid}/1.5", 404, "not found"),
        ("{uuid}/256", 400, "invalid url format"),
        ("{uuid}/" + "9" * 5000, 400, "invalid url format"),
        ("{uuid}?rid=abc", 400, "invalid uuid format"),
        ("{uuid}?rid=", 400, "invalid uuid format"),
        ("{uuid}?rid=" + RID.replace("-", ""), 400, "invalid uuid format"),
        ("{key}", 404, "not found"),
        ("{key}/", 404, "not found"),
        ("{key}/none", 404, "not found"),
        ("{key}/none/300", 404, "not found"),
        ("{key}/nightly-export/300", 400, "invalid url format"),
        ("{key}/nightly-export/a/b", 404, "not found"),
        ("{key}/Nightly", 400, "invalid url format"),
        ("{key}/Nightly/7", 400, "invalid url format"),
        ("{key}/Nightly/300", 400, "invalid url format"),
        ("{key}/Nightly/fail", 400, "invalid url format"),
        ("{key}/" + "x" * 101, 400, "invalid url format"),
        ("{key}/%00", 404, "not found"),
        ("nobody/Nightly", 404, "not found"),
        ("nobody/nightly-export", 404, "not found"),
        ("test-admin-key-0123456789/nightly-export", 404, "not found"),
        ("", 404, "not found"),
        ("%E2%82%AC/x", 404, "not found"),
    ],
)
async def test_what_is_no_ping_url_is_refused_and_nothing_is_recorded(
    lifesign: Lifesign, path: str, status: int, text: str
) -> None:
    made, ping_id = await of_heartbeat(lifesign)
    key = await ping_key(lifesign)
    names = {"uuid": ping_id, "upper": ping_id.upper(), "bare": ping_id.replace("-", ""), "key": key}

    answer = await send(lifesign, path.format(**names))

    assert (answer.status_code, answer.text if path else "not found") == (status, text)
    assert await lifesign.event_types(made["id"]) == ["created"]


async def test_a_key_that_may_ping_and_nothing_else_may_stand_in_a_url_in_any_case(lifesign: Lifesign) -> None:
    made, _ = await of_heartbeat(lifesign)
    key, more = await ping_key(lifesign), await ping_key(lifesign, "checkins:write", "heartbeats:read")

    answers = [(await send(lifesign, f"{each}/nightly-export")).status_code for each in (key, key.upper(), more)]

    assert answers == [200, 200, 404]
    assert (await lifesign.event_types(made["id"])).count("checkin") == 2


async def test_a_system_cannot_be_pinged(lifesign: Lifesign) -> None:
    made = await lifesign.ask("POST", "/api/systems", {"name": "db1"}, expect=201)
    slug = (await lifesign.get(made["data"]["heartbeat_id"]))["slug"]

    answer = await send(lifesign, f"{await ping_key(lifesign)}/{slug}")

    assert answer.status_code == 404
    assert "pingUrl" not in await lifesign.get(slug)


async def test_a_full_queue_asks_to_come_again(lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch) -> None:
    made = await check(lifesign)

    async def is_full(*_: object) -> None:
        raise WriterBusy

    monkeypatch.setattr(lifesign.node.db, "write_batched", is_full)
    answer = await send(lifesign, made["ping_url"])

    assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "overloaded", "1")


# Creating -----------------------------------------------------------------------------------------------------------
async def test_many_first_pings_make_one_check(lifesign: Lifesign) -> None:
    key = await ping_key(lifesign)

    answers = await asyncio.gather(*(send(lifesign, f"{key}/backup?create=1") for _ in range(12)))

    assert sorted(each.status_code for each in answers) == [200] * 11 + [201]
    assert next(each.text for each in answers if each.status_code == 201) == "Created"
    (made,) = (await api(lifesign, "GET", "checks/")).json()["checks"]
    assert (made["name"], made["slug"], made["n_pings"]) == ("backup", "backup", 12)
    assert (made["timeout"], made["grace"], made["status"], made["manual_resume"]) == (86_400, 3600, "up", False)


async def test_what_a_first_ping_asks_for_counts_when_it_makes_the_check_only(lifesign: Lifesign) -> None:
    await lifesign.webhook("http://127.0.0.1:1")
    key = await ping_key(lifesign)

    await send(lifesign, f"{key}/backup/start?create=1&period=2h&grace=5m&tags=a+b,c&tz=Europe/Berlin")
    again = await send(lifesign, f"{key}/backup?create=1&period=9h")
    await send(lifesign, f"{key}/cron?create=1&schedule=0+2+*+*+*&tz=Europe/Berlin")

    backup, cron = (await api(lifesign, "GET", "checks/")).json()["checks"]
    assert again.status_code == 200
    assert (backup["timeout"], backup["grace"], backup["tags"], backup["n_pings"]) == (7200, 300, "a b c", 2)
    assert (cron["schedule"], cron["tz"]) == ("0 2 * * *", "Europe/Berlin")
    assert backup["channels"].startswith("ch_")


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("period=x", "invalid period"),
        ("period=0", "invalid period"),
        ("period=366d", "invalid period"),
        ("grace=-1", "invalid grace"),
        ("schedule=x", "invalid schedule"),
        ("schedule=*+*+*+*+*&period=60", "invalid schedule"),
        ("tz=Mars", "invalid tz"),
        ("tags=" + "x" * 101, "invalid tags"),
        ("rid=x", "invalid uuid format"),
    ],
)
async def test_what_cannot_be_made_is_told_and_nothing_is_made(lifesign: Lifesign, query: str, text: str) -> None:
    answer = await send(lifesign, f"{await ping_key(lifesign)}/backup?create=1&{query}")

    assert (answer.status_code, answer.text) == (400, text)
    assert (await api(lifesign, "GET", "checks/")).json() == {"checks": []}


async def test_a_bad_exit_status_makes_nothing_and_creation_can_be_turned_off(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as lifesign:
        key = await ping_key(lifesign)
        assert (await send(lifesign, f"{key}/backup/300?create=1")).status_code == 400
        assert (await api(lifesign, "GET", "checks/")).json() == {"checks": []}
    async with start_lifesign(ping_create=False) as lifesign:
        assert (await send(lifesign, f"{key}/backup?create=1")).status_code == 404
    async with start_lifesign(max_heartbeats=1) as lifesign:
        assert (await send(lifesign, f"{key}/one?create=1")).status_code == 201
        assert (await send(lifesign, f"{key}/two?create=1")).status_code == 404
        assert (await send(lifesign, f"{key}/one?create=1")).status_code == 200
