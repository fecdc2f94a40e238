"""The management API: checks as clients of Healthchecks make, change and read them."""

import asyncio
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

from lifesign.db import StorageUnavailable
from lifesign.pings import checks
from tests.engine.steps import hook
from tests.harness import Json, Lifesign, MakeLifesign
from tests.peers.process import LedgerPeer
from tests.pings.pinging import api, check, of_heartbeat, ping_key, pings, read, send
from tests.shared import new_project

UNKNOWN = "0b6b7f3e-0000-4b0e-9d0f-3a1c2b4d5e6f"
REFUSED = "json validation error: "


# Making -------------------------------------------------------------------------------------------------------------
async def test_a_check_of_nothing_is_new_and_waits_for_its_first_ping(lifesign: Lifesign) -> None:
    made = await check(lifesign)

    assert (made["status"], made["timeout"], made["grace"], made["next_ping"]) == ("new", 86_400, 3600, None)
    (heartbeat,) = (await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"]
    assert (heartbeat["status"], heartbeat["armed"], heartbeat["pingUrl"]) == ("active", False, made["ping_url"])
    assert "nextDeadline" not in heartbeat
    await lifesign.advance(30 * 86_400)
    assert (await read(lifesign, made))["status"] == "new"


@pytest.mark.parametrize("version", [1, 2, 3])
async def test_a_check_is_shown_whole(lifesign: Lifesign, version: int) -> None:
    made = await check(lifesign, version=version, name="Job", tags="b  a b", desc="d", schedule="0 2 * * *", tz="UTC")

    base = "http://lifesign.test"
    update_url = f"{base}/api/v{version}/checks/{made['uuid']}"
    assert made == {
        "name": "Job",
        "slug": "" if version == 3 else "job",
        "tags": "b a",
        "desc": "d",
        "grace": 3600,
        "n_pings": 0,
        "status": "new",
        "started": False,
        "last_ping": None,
        "next_ping": None,
        "manual_resume": False,
        "methods": "",
        "subject": "",
        "subject_fail": "",
        "start_kw": "",
        "success_kw": "",
        "failure_kw": "",
        "filter_subject": False,
        "filter_body": False,
        "filter_http_body": False,
        "filter_default_fail": False,
        "badge_url": made["badge_url"],
        "uuid": made["uuid"],
        "ping_url": f"{base}/ping/{made['uuid']}",
        "update_url": update_url,
        "pause_url": f"{update_url}/pause",
        "resume_url": f"{update_url}/resume",
        "channels": "",
        "schedule": "0 2 * * *",
        "tz": "UTC",
    }


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"name": 1}, "name is not a string"),
        ({"name": "x" * 101}, "name is too long"),
        ({"name": None}, "name is not a string"),
        ({"slug": "Not"}, "slug does not match pattern"),
        ({"slug": "hb_x"}, "slug does not match pattern"),
        ({"slug": "x" * 101}, "slug is too long"),
        ({"tags": "x" * 501}, "tags is too long"),
        ({"tags": "x" * 101}, "tags is too long"),
        ({"tags": ["a"]}, "tags is not a string"),
        ({"desc": "x" * 10_001}, "desc is too long"),
        ({"timeout": 59}, "timeout is too small"),
        ({"timeout": 31_536_001}, "timeout is too large"),
        ({"timeout": "60"}, "timeout is not a number"),
        ({"timeout": None}, "timeout is not a number"),
        ({"timeout": True}, "timeout is not a number"),
        ({"timeout": 60.5}, "timeout is not a number"),
        ({"grace": 59}, "grace is too small"),
        ({"schedule": "a b c d e"}, "schedule is not a valid cron or OnCalendar expression"),
        ({"schedule": "nonsense"}, "schedule is not a valid cron or OnCalendar expression"),
        ({"schedule": "2020-01-01"}, "schedule is not a valid cron or OnCalendar expression"),
        ({"schedule": ""}, "schedule is not a valid cron or OnCalendar expression"),
        ({"schedule": "* * * * *", "tz": "Mars"}, "tz is not a valid timezone"),
        ({"manual_resume": 1}, "manual_resume is not a boolean"),
        ({"filter_body": "yes"}, "filter_body is not a boolean"),
        ({"methods": "GET"}, "methods has unexpected value"),
        ({"subject": 1}, "subject is not a string"),
        ({"success_kw": "x" * 201}, "success_kw is too long"),
        ({"unique": "name"}, "unique is not an array"),
        ({"unique": ["desc"]}, "an item in 'unique' has unexpected value"),
        ({"policy": "pol_x"}, "policy is not a known policy"),
        # The first in the order of the fields, not of the body.
        ({"tz": "Mars", "grace": 1, "name": 1}, "name is not a string"),
    ],
)
async def test_what_cannot_be_made_is_told_and_nothing_is_made(lifesign: Lifesign, body: Json, text: str) -> None:
    answer = await api(lifesign, "POST", "checks/", body)

    assert (answer.status_code, answer.json()) == (400, {"error": REFUSED + text})
    assert answer.headers["access-control-allow-origin"] == "*"
    assert (await api(lifesign, "GET", "checks/")).json() == {"checks": []}


@pytest.mark.parametrize(
    ("content", "status", "text"),
    [
        (b"{", 400, "could not parse request body"),
        (b"[]", 400, "json validation error: value is not an object"),
        (b"\xff", 400, "could not parse request body"),
        (b" " * 300_000, 413, "request body too large"),
    ],
)
async def test_a_body_that_is_none_is_told(lifesign: Lifesign, content: bytes, status: int, text: str) -> None:
    headers = {"X-Api-Key": "test-admin-key-0123456789"}

    answer = await lifesign.client(None).post("/api/v3/checks/", content=content, headers=headers)

    assert (answer.status_code, answer.json()) == (status, {"error": text})


async def test_a_schedule_beats_a_period_and_each_takes_the_place_of_the_other(lifesign: Lifesign) -> None:
    made = await check(lifesign, schedule=" *  * * * * ", timeout=60)
    uuid = made["uuid"]

    timed = (await api(lifesign, "POST", f"checks/{uuid}", {"timeout": 120})).json()
    cron = (await api(lifesign, "POST", f"checks/{uuid}", {"schedule": "0 2 * * *"})).json()

    assert made["schedule"] == "* * * * *"
    assert "timeout" not in made
    assert timed["timeout"] == 120
    assert "schedule" not in timed
    assert (cron["schedule"], cron["tz"]) == ("0 2 * * *", "UTC")


async def test_schedules_of_systemd_are_taken_and_come_true(lifesign: Lifesign) -> None:
    made = await check(lifesign, schedule="Mon *-*-* 13:00\n\n*-*-* 15:30 ", tz="Europe/Berlin", grace=60)

    await send(lifesign, made["ping_url"])

    after = await read(lifesign, made)
    assert after["schedule"] == "Mon *-*-* 13:00\n*-*-* 15:30"
    # Noon in UTC is 13:00 in Berlin, and just over.
    assert after["next_ping"] == "2026-01-05T14:30:00+00:00"
    await lifesign.advance(9060)
    assert (await read(lifesign, made))["status"] == "down"


async def test_channels_are_named_by_id_or_name(lifesign: Lifesign) -> None:
    ops = (await lifesign.webhook("http://127.0.0.1:1", "ops"))["id"]
    dev = (await lifesign.webhook("http://127.0.0.1:1", "dev"))["id"]
    for _ in range(2):
        await lifesign.webhook("http://127.0.0.1:1", "twin")

    async def named(text: str) -> Any:  # Any: JSON
        return (await api(lifesign, "POST", "checks/", {"channels": text})).json()

    assert len((await named("*"))["channels"].split(",")) == 4
    assert (await named(""))["channels"] == ""
    assert (await named(f"{dev}, ops"))["channels"] == f"{dev},{ops}"
    assert await named("ops,,dev") == {"error": "empty channel identifier"}
    assert await named("nobody") == {"error": "invalid channel identifier: nobody"}
    assert await named("twin") == {"error": "non-unique channel identifier: twin"}
    listed = (await api(lifesign, "GET", "channels/")).json()["channels"]
    assert listed[0] == {"id": ops, "name": "ops", "kind": "webhook"}


async def test_kinds_of_channels_are_called_as_there(lifesign: Lifesign) -> None:
    for kind, config in (
        ("email", {"to": "ops@example.org"}),
        ("pagerduty", {"routingKey": "R0123456789ABCDEFGHIJKLMNOPQRSTU"}),
        ("slack", {"webhookUrl": "https://hooks.slack.com/services/T00000000/B00000000/XXXXXXXXXXXX"}),
        ("sms", {"to": "+15550100200"}),
    ):
        await lifesign.ask("POST", "/v1/channels", {"name": kind, "type": kind, "config": config}, expect=201)
    key = await ping_key(lifesign, "channels:read")

    listed = (await api(lifesign, "GET", "channels/", key=key)).json()["channels"]

    assert [(each["name"], each["kind"]) for each in listed] == [
        ("email", "email"),
        ("pagerduty", "pd"),
        ("slack", "slack"),
        ("sms", "sms"),
    ]
    assert {each["id"][:3] for each in listed} == {"ch_"}
    assert {len(each) for each in listed} == {3}


async def test_a_policy_may_be_named_and_taken_away(lifesign: Lifesign) -> None:
    hook = await lifesign.webhook("http://127.0.0.1:1")
    policy = (await lifesign.policy({"channels": [hook["id"]]}))["id"]

    made = await check(lifesign, name="A", policy=policy)

    (heartbeat,) = (await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"]
    (hidden,) = (await api(lifesign, "GET", "checks/", key=await ping_key(lifesign, "heartbeats:read"))).json()[
        "checks"
    ]
    kept = (await api(lifesign, "POST", f"checks/{made['uuid']}", {"name": "B"})).json()
    cleared = (await api(lifesign, "POST", f"checks/{made['uuid']}", {"policy": ""})).json()
    assert made["policy"] == heartbeat["policy"] == kept["policy"] == policy
    assert "policy" not in hidden
    assert "policy" not in cleared


async def test_a_check_too_many_is_refused_and_a_change_is_none(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(max_heartbeats=1) as lifesign:
        await check(lifesign, name="A")

        refused = await api(lifesign, "POST", "checks/", {"name": "B", "unique": ["name"]})
        changed = await api(lifesign, "POST", "checks/", {"name": "A", "unique": ["name"], "timeout": 60})

        assert (refused.status_code, refused.json()) == (403, {"error": "too many checks"})
        assert (changed.status_code, changed.json()["timeout"]) == (200, 60)
        assert len((await api(lifesign, "GET", "checks/")).json()["checks"]) == 1


async def test_the_same_by_name_is_made_once_and_changed_then(lifesign: Lifesign) -> None:
    first = await api(lifesign, "POST", "checks/", {"name": "A", "unique": ["name"]})
    second = await api(lifesign, "POST", "checks/", {"name": "A", "unique": ["name"], "timeout": 60})
    other = await api(lifesign, "POST", "checks/", {"name": "A", "unique": ["name", "timeout"], "timeout": 90})
    missing = await api(lifesign, "POST", "checks/", {"name": "A", "unique": ["name", "tags"]})

    assert [each.status_code for each in (first, second, other, missing)] == [201, 200, 201, 201]
    assert second.json()["uuid"] == first.json()["uuid"]
    assert second.json()["timeout"] == 60


async def test_the_same_at_once_is_one_check(lifesign: Lifesign) -> None:
    body = {"name": "A", "tags": "x y", "unique": ["name", "tags"]}

    answers = await asyncio.gather(*(api(lifesign, "POST", "checks/", body) for _ in range(10)))

    assert sorted(each.status_code for each in answers) == [200] * 9 + [201]
    assert len((await api(lifesign, "GET", "checks/")).json()["checks"]) == 1


async def test_slugs_come_from_names_in_the_older_versions_only(lifesign: Lifesign) -> None:
    old = [(await check(lifesign, version=1, name="My Job", slug="x"))["slug"] for _ in range(2)]
    nameless = await check(lifesign, version=2)
    new = await check(lifesign, name="My Job", slug="mine")
    taken = await api(lifesign, "POST", "checks/", {"slug": "my-job"})
    renamed = await api(lifesign, "POST", f"checks/{nameless['uuid']}", {"name": "My Job"}, version=2)
    cleared = await api(lifesign, "POST", f"checks/{new['uuid']}", {"slug": ""})
    clash = await api(lifesign, "POST", f"checks/{new['uuid']}", {"slug": "my-job"})

    assert (old, nameless["slug"], new["slug"]) == (["my-job", "my-job-2"], "", "mine")
    assert (taken.status_code, taken.json()) == (400, {"error": REFUSED + "slug is already in use"})
    assert (renamed.json()["slug"], cleared.json()["slug"]) == ("my-job-3", "")
    assert clash.status_code == 400


async def test_the_older_words_for_subjects_turn_the_filter_on_and_off(lifesign: Lifesign) -> None:
    made = await check(lifesign, subject="ok", subject_fail="bad")
    off = (await api(lifesign, "POST", f"checks/{made['uuid']}", {"subject": "", "subject_fail": ""})).json()

    assert (made["success_kw"], made["failure_kw"], made["filter_subject"]) == ("ok", "bad", True)
    assert (made["subject"], made["subject_fail"]) == ("ok", "bad")
    assert (off["success_kw"], off["filter_subject"], off["subject"]) == ("", False, "")


# Changing -----------------------------------------------------------------------------------------------------------
async def test_a_change_keeps_what_it_does_not_name_and_re_arms(lifesign: Lifesign) -> None:
    made = await check(lifesign, name="A", desc="d", failure_kw="ERR", filter_http_body=True)
    await send(lifesign, made["ping_url"], "POST", content=b"-")
    await send(lifesign, made["ping_url"] + "/0")

    after = (await api(lifesign, "POST", f"checks/{made['uuid']}", {"timeout": 120, "methods": "POST"})).json()

    assert (after["name"], after["desc"], after["failure_kw"], after["methods"]) == ("A", "d", "ERR", "POST")
    assert after["next_ping"] == "2026-01-05T12:02:00+00:00"


async def test_pausing_twice_is_as_once_and_resuming_makes_it_new(lifesign: Lifesign) -> None:
    made = await check(lifesign)
    await send(lifesign, made["ping_url"] + "/start")
    await send(lifesign, made["ping_url"] + "/fail")
    await send(lifesign, made["ping_url"] + "/start")
    path = f"checks/{made['uuid']}"

    paused = [await api(lifesign, "POST", f"{path}/pause") for _ in range(2)]
    resumed = await api(lifesign, "POST", f"{path}/resume/")
    again = await api(lifesign, "POST", f"{path}/resume")
    await lifesign.advance(90_000)

    assert [each.status_code for each in paused] == [200, 200]
    assert (paused[0].json()["status"], paused[0].json()["started"]) == ("paused", False)
    assert (resumed.json()["status"], resumed.json()["last_ping"], resumed.json()["n_pings"]) == ("new", None, 3)
    assert (again.status_code, again.json()) == (409, {"error": "check is not paused"})
    assert (await read(lifesign, made))["status"] == "new"


async def test_pausing_what_was_paused_elsewhere_drops_its_open_run(lifesign: Lifesign) -> None:
    made, ping_id = await of_heartbeat(lifesign)
    await send(lifesign, f"{ping_id}/start")
    await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/pause")

    paused = (await api(lifesign, "POST", f"checks/{ping_id}/pause")).json()

    assert (paused["status"], paused["started"]) == ("paused", False)
    (run,) = (await lifesign.ask("GET", f"/v1/heartbeats/{made['id']}/runs"))["runs"]
    assert run["status"] == "superseded"


async def test_a_deleted_check_is_gone_with_all_that_was_kept_of_it(lifesign: Lifesign) -> None:
    made = await check(lifesign, name="A")
    await send(lifesign, made["ping_url"], "POST", content=b"x")

    deleted = await api(lifesign, "DELETE", f"checks/{made['uuid']}")

    assert (deleted.status_code, deleted.json()["name"], deleted.json()["n_pings"]) == (200, "A", 1)
    assert (await api(lifesign, "DELETE", f"checks/{made['uuid']}")).status_code == 404
    assert (await send(lifesign, made["ping_url"])).status_code == 404


# Reading ------------------------------------------------------------------------------------------------------------
async def test_checks_are_listed_by_tags_and_slug_and_in_pages_if_asked(lifesign: Lifesign) -> None:
    for name, tags in (("a", "x y"), ("b", "y"), ("c", "x")):
        await check(lifesign, name=name, tags=tags, slug=name)

    async def listed(query: str) -> list[str]:
        return [each["name"] for each in (await api(lifesign, "GET", f"checks/?{query}")).json()["checks"]]

    assert await listed("") == ["a", "b", "c"]
    assert (await api(lifesign, "GET", "checks")).json() == (await api(lifesign, "GET", "checks/")).json()
    assert await listed("tag=x&tag=y") == ["a"]
    assert await listed("slug=b") == ["b"]
    assert await listed("tag=nothing") == []
    assert await listed("tag=%00") == []
    assert await listed("slug=%00") == []
    page = (await api(lifesign, "GET", "checks/?limit=2")).json()
    assert await listed(f"limit=2&cursor={page['next_cursor']}") == ["c"]
    assert (await api(lifesign, "GET", "checks/?limit=0")).json() == {"error": "invalid limit"}
    assert (await api(lifesign, "GET", "checks/?cursor=x")).json() == {"error": "invalid cursor"}


async def test_who_may_only_read_sees_nothing_that_lets_them_ping(lifesign: Lifesign) -> None:
    made = await check(lifesign, name="A")
    key = await ping_key(lifesign, "heartbeats:read")

    (seen,) = (await api(lifesign, "GET", "checks/", key=key)).json()["checks"]
    by_key = await api(lifesign, "GET", f"checks/{seen['unique_key']}", key=key)
    flips = await api(lifesign, "GET", f"checks/{seen['unique_key']}/flips/", key=key)

    hidden = {"uuid", "ping_url", "update_url", "pause_url", "resume_url", "channels", "policy"}
    assert not hidden & set(seen)
    assert len(seen["unique_key"]) == 40
    assert (by_key.status_code, by_key.json()) == (200, seen)
    assert flips.json() == {"flips": []}
    for method, path in (
        ("POST", "checks/"),
        ("POST", f"checks/{made['uuid']}"),
        ("POST", f"checks/{made['uuid']}/pause"),
        ("POST", f"checks/{made['uuid']}/resume"),
        ("GET", f"checks/{made['uuid']}/pings/"),
        ("GET", f"checks/{made['uuid']}/pings/1/body"),
        ("GET", "channels/"),
        ("DELETE", f"checks/{made['uuid']}"),
    ):
        answer = await api(lifesign, method, path, key=key)
        assert (answer.status_code, answer.json()) == (401, {"error": "wrong api key"})


@pytest.mark.parametrize(
    ("key", "text"),
    [(None, "missing api key"), ("short", "missing api key"), ("x" * 16, "wrong api key"), ("é" * 20, "wrong api key")],
)
async def test_whoever_has_no_key_is_refused(lifesign: Lifesign, key: str | None, text: str) -> None:
    body = {} if key is None else {"api_key": key}

    answer = await lifesign.client(None).post("/api/v3/checks/", json=body)

    assert (answer.status_code, answer.json()) == (401, {"error": text})


async def test_a_key_may_stand_in_the_body(lifesign: Lifesign) -> None:
    answer = await lifesign.client(None).post("/api/v1/checks/", json={"api_key": "test-admin-key-0123456789"})

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("method", "path", "status", "text"),
    [
        ("GET", f"checks/{UNKNOWN}", 404, "not found"),
        ("GET", f"checks/{UNKNOWN.upper()}", 404, "not found"),
        ("GET", "checks/" + "0" * 40, 404, "not found"),
        ("GET", "nothing/", 404, "not found"),
        ("PUT", "checks/", 405, "method not allowed"),
        ("PATCH", f"checks/{UNKNOWN}", 405, "method not allowed"),
        ("GET", f"checks/{UNKNOWN}/pings/?limit=1001", 400, "invalid limit"),
        ("GET", f"checks/{UNKNOWN}/flips/?seconds=-1", 400, "invalid seconds"),
        ("GET", f"checks/{UNKNOWN}/flips/?start=abc", 400, "invalid start"),
        ("GET", f"checks/{UNKNOWN}/flips/?end=10000000001", 400, "invalid end"),
        ("GET", f"checks/{UNKNOWN}/pings/999999999999999999999/body", 404, "not found"),
        ("GET", "metrics/", 403, "forbidden"),
    ],
)
async def test_what_is_not_there_is_told_as_json(
    lifesign: Lifesign, method: str, path: str, status: int, text: str
) -> None:
    answer = await api(lifesign, method, path)

    assert (answer.status_code, answer.json()) == (status, {"error": text})
    allowed = {"checks/": "GET, POST, OPTIONS", f"checks/{UNKNOWN}": "GET, POST, DELETE, OPTIONS"}
    assert answer.headers.get("allow") == (allowed[path] if status == 405 else None)


async def test_a_check_of_another_project_is_nobody_elses(lifesign: Lifesign) -> None:
    made = await check(lifesign, name="Mine")
    unique_key = (await api(lifesign, "GET", "checks/", key=await ping_key(lifesign, "heartbeats:read"))).json()
    async with new_project(lifesign) as elsewhere:
        key = elsewhere.http.headers["authorization"].removeprefix("Bearer ")
        path = f"checks/{made['uuid']}"
        answers = [
            await api(lifesign, method, f"{path}{tail}", {} if method == "POST" else None, key=key)
            for method, tail in (
                ("GET", ""),
                ("POST", ""),
                ("DELETE", ""),
                ("POST", "/pause"),
                ("POST", "/resume"),
                ("GET", "/pings/"),
                ("GET", "/pings/1/body"),
                ("GET", "/flips/"),
            )
        ]
        hidden = await api(lifesign, "GET", f"checks/{unique_key['checks'][0]['unique_key']}", key=key)
        listed = (await api(lifesign, "GET", "checks/", key=key)).json()

    assert [(each.status_code, each.json()) for each in answers] == [(403, {"error": "forbidden"})] * 8
    assert (hidden.status_code, listed) == (404, {"checks": []})
    assert await read(lifesign, made) == made


async def test_what_browsers_ask_first_is_answered(lifesign: Lifesign) -> None:
    answer = await api(lifesign, "OPTIONS", "checks/")

    assert answer.status_code == 204
    assert answer.headers["access-control-allow-methods"] == "GET, POST, OPTIONS"
    assert answer.headers["access-control-allow-headers"] == "X-Api-Key"
    assert answer.headers["access-control-max-age"] == "600"


async def test_the_server_tells_of_itself(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(metrics_key=SecretStr("scraper")) as lifesign:
        status = await lifesign.client(None).get("/api/v1/status/")
        head = await lifesign.client(None).head("/api/v3/status/")
        metrics = await lifesign.client(None).get("/api/v3/metrics/", headers={"X-Metrics-Key": "scraper"})
        wrong = await lifesign.client(None).get("/api/v3/metrics/", headers={"X-Metrics-Key": "other"})

    assert (status.status_code, status.text) == (200, "OK")
    assert head.status_code == 200
    assert set(metrics.json()) == {"ts", "max_ping_id", "max_notification_id", "num_unprocessed_flips"}
    assert metrics.json()["ts"] == 1_767_614_400
    assert wrong.status_code == 403


async def test_a_fault_of_the_server_is_told_without_its_cause(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ValueError("internal words")

    def away(*_: object, **__: object) -> None:
        raise StorageUnavailable("disk of the server")

    monkeypatch.setattr(checks, "all_of", broken)
    fault = await api(lifesign, "GET", "checks/")
    monkeypatch.setattr(checks, "all_of", away)
    monkeypatch.setattr("lifesign.pings.routes._answers", away)
    passing = await api(lifesign, "GET", "checks/")
    status = await lifesign.client(None).get("/api/v3/status/")

    request_id = fault.headers["x-request-id"]
    assert (fault.status_code, fault.json()) == (500, {"error": "internal server error", "request_id": request_id})
    assert fault.headers["access-control-allow-origin"] == "*"
    assert "words" not in fault.text
    # What passes asks to come again; but whoever only asks whether the server lives is told that it does not.
    assert (passing.status_code, passing.json(), passing.headers["retry-after"]) == (503, {"error": "overloaded"}, "1")
    assert (status.status_code, status.json()["error"]) == (500, "internal server error")


async def test_pings_are_listed_newest_first_and_in_pages(lifesign: Lifesign) -> None:
    made = await check(lifesign)
    for path in ("/start", "", "/log", "/fail"):
        await send(lifesign, made["ping_url"] + path)
    await lifesign.check_in((await lifesign.ask("GET", "/v1/heartbeats"))["heartbeats"][0]["id"])

    everything = await pings(lifesign, made)
    page = (await api(lifesign, "GET", f"checks/{made['uuid']}/pings/?limit=2&before=4")).json()["pings"]

    assert [(each["n"], each["type"]) for each in everything] == [
        (5, "success"),
        (4, "fail"),
        (3, "log"),
        (2, "success"),
        (1, "start"),
    ]
    assert [each["n"] for each in page] == [3, 2]


async def test_a_heartbeat_made_elsewhere_is_a_check_here_and_the_other_way_round(lifesign: Lifesign) -> None:
    made, ping_id = await of_heartbeat(lifesign)
    await send(lifesign, f"{ping_id}/fail")
    acked = await lifesign.ask("POST", f"/v1/heartbeats/{made['id']}/ack")

    shown = (await api(lifesign, "GET", f"checks/{ping_id}")).json()

    assert acked["status"] == "resolved"
    assert (shown["status"], shown["manual_resume"], shown["timeout"]) == ("up", True, 3600)


async def test_messages_name_a_check_on_one_line_and_one_without_a_name_by_its_uuid(
    lifesign: Lifesign, ledger: LedgerPeer
) -> None:
    await lifesign.webhook(hook(ledger))
    nameless = await check(lifesign, channels="*")
    broken = await check(lifesign, name="two\r\nlines", channels="*")
    for made in (nameless, broken):
        await send(lifesign, made["ping_url"] + "/fail")
    await lifesign.advance(0)

    told = [record.json["data"]["heartbeat"]["name"] for record in ledger.requests("/hook/ops")]

    assert sorted(told) == sorted([nameless["uuid"], "two lines"])
    assert (await read(lifesign, broken))["name"] == "two\r\nlines"


# Badges and metrics -------------------------------------------------------------------------------------------------
async def test_badges_tell_the_worst_of_what_they_stand_for(lifesign: Lifesign) -> None:
    up, late = await check(lifesign, name="<up>", tags="prod a/b"), await check(lifesign, tags="prod", timeout=60)
    await send(lifesign, late["ping_url"])
    await lifesign.advance(60)
    urls = (await api(lifesign, "GET", "badges/")).json()["badges"]

    async def shown(url: str) -> Any:  # Any: JSON, or text
        answer = await lifesign.client(None).get(url)
        assert answer.status_code == 200, url
        assert (answer.headers["cache-control"], answer.headers["access-control-allow-origin"]) == ("no-cache", "*")
        return answer.json() if "json" in answer.headers["content-type"] else answer.text

    assert sorted(urls) == ["*", "a/b", "prod"]
    assert await shown(urls["*"]["json3"]) == {"status": "late", "total": 2, "grace": 1, "down": 0}
    assert (await shown(urls["*"]["json"]))["status"] == "up"
    of_late = late["badge_url"].replace(".svg", ".json")
    assert await shown(of_late) == {"status": "up", "total": 1, "grace": 1, "down": 0}
    assert await shown(of_late.replace("/b/2/", "/b/3/")) == {"status": "late", "total": 1, "grace": 1, "down": 0}
    await api(lifesign, "POST", f"checks/{late['uuid']}/pause")
    assert await shown(urls["prod"]["json3"]) == {"status": "up", "total": 2, "grace": 0, "down": 0}
    assert await shown(urls["a/b"]["shields"]) == {
        "schemaVersion": 1,
        "label": "a/b",
        "message": "up",
        "color": "success",
    }
    await send(lifesign, up["ping_url"] + "/fail")
    assert (await shown(urls["a/b"]["json"]))["status"] == "down"
    assert (await shown(urls["prod"]["shields3"]))["color"] == "critical"
    drawn = await shown(up["badge_url"])
    assert "&lt;up&gt;: down" in drawn
    assert "<up>" not in drawn
    assert "Lifesign" in await shown(urls["*"]["svg"])


async def test_the_badge_of_all_checks_is_labelled_as_the_settings_say(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(master_badge_label="Backups") as lifesign:
        urls = (await api(lifesign, "GET", "badges/")).json()["badges"]["*"]

        assert (await lifesign.client(None).get(urls["shields"])).json()["label"] == "Backups"


async def test_an_address_of_a_badge_cannot_be_made_up(lifesign: Lifesign) -> None:
    made = await check(lifesign, tags="prod dev")
    urls = (await api(lifesign, "GET", "badges/")).json()["badges"]
    url = urls["prod"]["json"]
    head, _, tail = url.rpartition("/prod")
    worse = [
        f"{head}/dev{tail}",
        url.replace("-2/", "x-2/"),
        head[:-3] + tail,
        url.replace(".json", ".png"),
        made["badge_url"].replace("/b/2/", "/b/4/"),
        "http://lifesign.test/b/2/" + UNKNOWN + ".svg",
        "http://lifesign.test/badge/x/y.svg",
    ]

    assert [(await lifesign.client(None).get(each)).status_code for each in worse] == [404] * len(worse)


async def test_prometheus_can_scrape_a_project(lifesign: Lifesign) -> None:
    await check(lifesign, name='A "b"\\\n', tags="prod x")
    down = await check(lifesign, name="B", tags="prod")
    await send(lifesign, down["ping_url"] + "/fail")
    late, paused = await check(lifesign, name="late", timeout=60), await check(lifesign, name="paused")
    await send(lifesign, late["ping_url"])
    await send(lifesign, late["ping_url"] + "/start")
    await api(lifesign, "POST", f"checks/{paused['uuid']}/pause")
    await lifesign.advance(61)
    key = await ping_key(lifesign, "heartbeats:read")
    (seen, *_) = (await api(lifesign, "GET", "checks/", key=key)).json()["checks"]
    project = (await api(lifesign, "GET", "badges/")).json()["badges"]["*"]["svg"].split("/")[4]

    in_url = await lifesign.client(None).get(f"/projects/{project}/metrics/{key}")
    by_header = await lifesign.http.get(f"/projects/{project}/metrics/")

    assert in_url.content == by_header.content
    assert in_url.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {each.name: each.samples for each in text_string_to_metric_families(in_url.text)}
    first, *_ = families["hc_check_up"]
    assert first.labels == {"name": 'A "b"\\\n', "tags": "prod x", "unique_key": seen["unique_key"]}
    names = ('A "b"\\\n', "B", "late", "paused")
    for family, values in (
        ("hc_check_up", (1, 0, 1, 1)),
        ("hc_check_started", (0, 0, 1, 0)),
        ("hc_check_grace", (0, 0, 1, 0)),
        ("hc_check_paused", (0, 0, 0, 1)),
    ):
        assert [(each.labels["name"], each.value) for each in families[family]] == list(zip(names, values, strict=True))
    assert {(each.labels["tag"], each.value) for each in families["hc_tag_up"]} == {("prod", 0), ("x", 1)}
    assert [each.value for each in families["hc_checks_total"]] == [4]
    assert [each.value for each in families["hc_checks_down_total"]] == [1]
    for path, status in (
        (f"/projects/nonsense/metrics/{key}", 400),
        (f"/projects/{project}/metrics/wrong", 401),
        (f"/projects/{project}/metrics/", 401),
        (f"/projects/{project}/metrics/test-admin-key-0123456789", 401),
        (f"/projects/{UNKNOWN}/metrics/{key}", 403),
    ):
        answer = await lifesign.client(None).get(path)
        assert (answer.status_code, answer.headers["content-type"]) == (status, "text/plain; charset=utf-8"), path
