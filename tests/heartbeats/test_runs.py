"""Runs with progress leases: watched each for itself, on both databases."""

import asyncio

import pytest
from sqlalchemy import Connection

from lifesign.clock import EpochMs
from lifesign.heartbeats import running
from lifesign.heartbeats import store as heartbeats
from lifesign.heartbeats.running import Progress, Reporter
from lifesign.ids import new_id
from lifesign.runs import store as runs
from lifesign.runs.rules import Report
from tests.harness import Json, Lifesign, MakeLifesign


async def start(lifesign: Lifesign, ref: str, *, expect: int = 201, **body: object) -> Json:
    return await lifesign.ask("POST", f"/v1/heartbeats/{ref}/runs", body or None, expect=expect)


async def progress(lifesign: Lifesign, ref: str, run: str, *, expect: int = 200, **body: object) -> Json:
    return await lifesign.ask("POST", f"/v1/heartbeats/{ref}/runs/{run}/progress", body or None, expect=expect)


async def finish(lifesign: Lifesign, ref: str, run: str, *, expect: int = 200, **body: object) -> Json:
    return await lifesign.ask("POST", f"/v1/heartbeats/{ref}/runs/{run}/finish", body or None, expect=expect)


async def run_of(lifesign: Lifesign, ref: str, run: str) -> Json:
    return await lifesign.ask("GET", f"/v1/heartbeats/{ref}/runs/{run}")


async def test_a_run_is_shown_as_it_began(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")

    begun = await start(lifesign, "export", runId="a", lease=60, maxDuration=600, metadata={"table": 3})

    assert begun == {
        "runId": "a",
        "status": "running",
        "startedAt": "2026-01-05T12:00:00.000Z",
        "leaseExpiresAt": "2026-01-05T12:01:00.000Z",
        "limitAt": "2026-01-05T12:10:00.000Z",
        "metadata": {"table": 3},
    }
    assert await run_of(lifesign, "export", "a") == begun


async def test_a_run_without_an_id_is_given_one(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")

    begun = await start(lifesign, "export")

    assert begun["runId"].startswith("hbr_")
    assert len(begun["runId"]) == 36


async def test_a_start_is_no_check_in(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Export")
    await lifesign.advance(60)

    await start(lifesign, "export")

    shown = await lifesign.get("export")
    assert shown["nextDeadline"] == made["nextDeadline"]
    assert "lastCheckin" not in shown
    assert await lifesign.event_types("export") == ["run_started", "created"]


async def test_a_second_start_of_an_open_run_changes_nothing(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    first = await start(lifesign, "export", runId="a", lease=60)
    await lifesign.advance(5)

    second = await start(lifesign, "export", expect=200, runId="a", lease=900)

    assert second == first
    assert await lifesign.event_types("export") == ["run_started", "created"]


async def test_a_closed_run_does_not_start_again(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a")
    await finish(lifesign, "export", "a")

    refused = await start(lifesign, "export", expect=400, runId="a")

    assert refused["error"]["code"] == "INVALID_STATE"
    assert refused["error"]["message"] == "Run is finished"
    assert refused["error"]["details"] == {"status": "finished"}


async def test_of_parallel_starts_with_one_id_one_begins(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")

    answers = await asyncio.gather(
        *(lifesign.http.post("/v1/heartbeats/export/runs", json={"runId": "a"}) for _ in range(12))
    )

    assert sorted(each.status_code for each in answers) == [200] * 11 + [201]
    assert (await lifesign.event_types("export")).count("run_started") == 1


async def test_progress_keeps_a_run_alive_and_its_end_fires(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", interval=3, grace=0)
    await start(lifesign, "export", runId="a", lease=2)
    for _ in range(5):
        await lifesign.advance(1)
        await progress(lifesign, "export", "a")
    assert (await lifesign.get("export"))["status"] == "active"

    await lifesign.advance(2)

    shown = await lifesign.get("export")
    assert shown["status"] == "firing"
    (incident,) = await lifesign.incidents(shown["id"])
    assert incident["reason"] == "run_stalled"
    assert incident["run"] == "a"
    assert incident["openedAt"] == "2026-01-05T12:00:07.000Z"
    assert (await run_of(lifesign, "export", "a"))["status"] == "stalled"
    assert (await lifesign.event_types("export"))[:3] == ["unattended", "firing", "run_stalled"]


async def test_the_end_of_a_stalled_run_recovers(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", interval=3, grace=0)
    await start(lifesign, "export", runId="a", lease=2)
    await lifesign.advance(2)

    ended = await finish(lifesign, "export", "a")

    assert ended["status"] == "finished"
    assert ended["durationMs"] == 2000
    shown = await lifesign.get("export")
    assert shown["status"] == "active"
    assert shown["nextDeadline"] == "2026-01-05T12:00:05.000Z"
    resolved, checkin, finished = (await lifesign.events("export"))[:3]
    assert [each["type"] for each in (resolved, checkin, finished)] == ["resolved", "checkin", "run_finished"]
    (incident,) = await lifesign.incidents(shown["id"])
    key = finished["metadata"]["key"]
    assert resolved["metadata"] == {"incident": incident["id"], "duration": 0, "key": key}
    assert checkin["metadata"] == {"via": "run", "key": key, "runId": "a"}
    assert finished["metadata"] == {"key": key, "runId": "a", "durationMs": 2000}


async def test_progress_of_a_stalled_run_resolves_what_it_caused(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a", lease=10)
    await lifesign.advance(10)
    assert (await lifesign.get("export"))["status"] == "firing"

    after = await progress(lifesign, "export", "a", message="table 3 of 12")

    assert after["status"] == "running"
    assert after["message"] == "table 3 of 12"
    shown = await lifesign.get("export")
    assert shown["status"] == "active"
    assert "lastCheckin" not in shown
    (incident,) = await lifesign.incidents(made["id"])
    assert (incident["status"], incident["resolution"]) == ("resolved", "checkin")


async def test_progress_of_another_stalled_run_resolves_nothing(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="first", lease=10)
    await start(lifesign, "export", runId="second", lease=20)
    await lifesign.advance(20)
    assert (await run_of(lifesign, "export", "second"))["status"] == "stalled"

    await progress(lifesign, "export", "second")

    assert (await run_of(lifesign, "export", "second"))["status"] == "running"
    assert (await lifesign.get("export"))["status"] == "firing"


async def test_overlapping_runs_are_watched_each(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="long", maxDuration=100)
    await lifesign.advance(1)
    await start(lifesign, "export", runId="short", lease=10)
    await lifesign.advance(5)
    await finish(lifesign, "export", "short")
    assert (await lifesign.get("export"))["firesAt"] == "2026-01-05T12:01:40.000Z"

    await lifesign.advance(94)

    (incident,) = await lifesign.incidents(made["id"])
    assert (incident["reason"], incident["run"]) == ("run_overdue", "long")
    assert (await run_of(lifesign, "export", "long"))["status"] == "overdue"


async def test_progress_of_an_overdue_run_is_recorded_and_nothing_more(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a", maxDuration=10)
    await lifesign.advance(10)

    after = await progress(lifesign, "export", "a", message="still here")

    assert (after["status"], after["message"]) == ("overdue", "still here")
    assert (await lifesign.get("export"))["status"] == "firing"


async def test_the_end_of_an_overdue_run_recovers_and_a_start_does_not(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Export", tolerance={"failures": 1, "window": 5})
    await start(lifesign, "export", runId="a", maxDuration=10)
    await lifesign.advance(10)

    await start(lifesign, "export", runId="b", lease=60)
    assert (await lifesign.get("export"))["status"] == "firing"
    ended = await finish(lifesign, "export", "a")

    assert (ended["status"], ended["durationMs"]) == ("finished", 10_000)
    assert (await lifesign.get("export"))["status"] == "active"
    (incident,) = await lifesign.incidents(made["id"])
    assert (incident["reason"], incident["resolution"]) == ("run_overdue", "checkin")


async def test_progress_says_anew_how_long_and_what_and_writes_no_event(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a", lease=60, metadata={"table": 1, "rows": 5})
    await start(lifesign, "export", runId="b")

    after = await progress(lifesign, "export", "a", lease=90, message="m" * 1000, metadata={"table": 2})
    bare = await progress(lifesign, "export", "b")

    assert (after["leaseExpiresAt"], after["metadata"]) == ("2026-01-05T12:01:30.000Z", {"table": 2})
    assert after["lastProgressAt"] == "2026-01-05T12:00:00.000Z"
    assert "leaseExpiresAt" not in bare
    assert await lifesign.event_types("export") == ["run_started", "run_started", "created"]
    for act in (progress, finish):
        refused = await act(lifesign, "export", "a", expect=400, message="m" * 1001)
        assert refused["error"]["details"][0]["field"] == "message"
    assert await run_of(lifesign, "export", "a") == after


async def test_progress_that_resolves_what_its_run_caused_clears_the_window(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", tolerance={"failures": 2, "window": 5})
    await start(lifesign, "export", runId="a", lease=10)
    await lifesign.check_in("export", healthy=False)
    await lifesign.advance(10)
    assert (await lifesign.get("export"))["status"] == "firing"
    await progress(lifesign, "export", "a")

    await lifesign.check_in("export", healthy=False)

    assert (await lifesign.get("export"))["status"] == "active"


async def test_a_lease_lifts_the_deadline(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", interval=10, grace=0)

    await start(lifesign, "export", lease=60)

    shown = await lifesign.get("export")
    assert shown["nextDeadline"] == "2026-01-05T12:01:00.000Z"
    assert shown["firesAt"] == "2026-01-05T12:01:00.000Z"


async def test_an_edit_leaves_the_deadline_where_a_lease_lifted_it(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", interval=10, grace=0)
    await start(lifesign, "export", runId="a", lease=60)
    await lifesign.advance(20)

    edited = await lifesign.ask("PATCH", "/v1/heartbeats/export", {"interval": 20, "grace": 5})
    await lifesign.advance(39)

    assert (edited["nextDeadline"], edited["firesAt"]) == ("2026-01-05T12:01:00.000Z", "2026-01-05T12:01:00.000Z")
    assert (await lifesign.get("export"))["status"] == "active"
    longer = await lifesign.ask("PATCH", "/v1/heartbeats/export", {"interval": 600})
    assert longer["nextDeadline"] == "2026-01-05T12:10:00.000Z"


async def test_a_report_of_progress_that_is_written_late_takes_no_time_back(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a", lease=60)
    project = await lifesign.node.db.read(lambda conn: heartbeats.by_ids(conn, [made["id"]])[made["id"]].project_id)
    who, earlier = Reporter(project, "key_1", made["id"]), lifesign.now()
    await lifesign.advance(30)
    await progress(lifesign, "export", "a")

    late = await lifesign.node.db.write_batched(running.progress, Progress(who, "a", Report(), earlier))

    assert late.lease_until == lifesign.now() + 60_000
    shown = await run_of(lifesign, "export", "a")
    assert shown["lastProgressAt"] == "2026-01-05T12:00:30.000Z"
    assert shown["leaseExpiresAt"] == "2026-01-05T12:01:30.000Z"


async def test_a_check_in_meanwhile_does_not_end_the_watch_of_a_run(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a", lease=60)

    await lifesign.check_in("export")

    assert (await lifesign.get("export"))["firesAt"] == "2026-01-05T12:01:00.000Z"


async def test_a_run_of_an_unarmed_heartbeat_is_watched_and_arms_nothing(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", armed=False)

    await start(lifesign, "export", lease=60)

    shown = await lifesign.get("export")
    assert shown["firesAt"] == "2026-01-05T12:01:00.000Z"
    assert "nextDeadline" not in shown
    assert shown["armed"] is False


async def test_a_failed_run_is_an_unhealthy_check_in(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a")

    ended = await finish(lifesign, "export", "a", ok=False, message="disk full", metadata={"code": 3})

    assert (ended["status"], ended["message"]) == ("failed", "disk full")
    shown = await lifesign.get("export")
    assert (shown["status"], shown["metadata"]) == ("firing", {"code": 3})
    unhealthy = next(each for each in await lifesign.events("export") if each["type"] == "checkin_unhealthy")
    assert unhealthy["metadata"]["via"] == "run"
    assert unhealthy["metadata"]["runId"] == "a"


async def test_an_end_told_twice_counts_once_and_cannot_be_changed(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a")
    first = await finish(lifesign, "export", "a")

    assert await finish(lifesign, "export", "a") == first
    await finish(lifesign, "export", "a", ok=False, expect=400)
    await progress(lifesign, "export", "a", expect=400)

    assert (await lifesign.event_types("export")).count("checkin") == 1


async def test_runs_of_a_paused_heartbeat_are_watched_again_from_their_next_progress(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a", lease=60)
    await lifesign.ask("POST", "/v1/heartbeats/export/pause")
    await lifesign.advance(300)
    assert (await run_of(lifesign, "export", "a"))["status"] == "running"

    resumed = await lifesign.ask("POST", "/v1/heartbeats/export/resume")
    assert (await lifesign.get("export"))["firesAt"] == "2026-01-05T13:06:00.000Z"
    assert resumed["nextDeadline"] == "2026-01-05T13:05:00.000Z"
    await progress(lifesign, "export", "a")

    assert (await lifesign.get("export"))["firesAt"] == "2026-01-05T12:06:00.000Z"


async def test_a_tolerated_stall_says_so_and_leaves_the_deadline(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Export", tolerance={"failures": 2, "window": 3})
    await start(lifesign, "export", runId="a", lease=10)

    await lifesign.advance(10)

    shown = await lifesign.get("export")
    assert (shown["status"], shown["nextDeadline"]) == ("active", made["nextDeadline"])
    newest = (await lifesign.events("export"))[0]
    assert (newest["type"], newest["metadata"]) == ("run_stalled", {"runId": "a", "tolerated": True})


async def test_when_both_are_due_the_run_is_the_reason(lifesign: Lifesign) -> None:
    made = await lifesign.heartbeat("Export", interval=60, grace=0)
    await start(lifesign, "export", runId="a", maxDuration=60)

    await lifesign.advance(60)

    (incident,) = await lifesign.incidents(made["id"])
    assert incident["reason"] == "run_overdue"


async def test_runs_are_listed_newest_first_with_how_long_they_took(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    for position, seconds in enumerate((1, 2, 3, 4, 30)):
        await start(lifesign, "export", runId=f"r{position}")
        await lifesign.advance(seconds)
        await finish(lifesign, "export", f"r{position}")
    await start(lifesign, "export", runId="open")

    first = await lifesign.ask("GET", "/v1/heartbeats/export/runs?limit=2")

    assert [each["runId"] for each in first["runs"]] == ["open", "r4"]
    assert first["durations"] == {
        "count": 5,
        "shortestMs": 1000,
        "medianMs": 3000,
        "p95Ms": 30000,
        "longestMs": 30000,
    }
    rest = await lifesign.ask("GET", f"/v1/heartbeats/export/runs?cursor={first['nextCursor']}&status=finished")
    assert [each["runId"] for each in rest["runs"]] == ["r3", "r2", "r1", "r0"]
    assert "durations" not in rest


async def test_unknown_runs_and_bad_input_are_told(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    for body, field in (
        ({"runId": "a b"}, "runId"),
        ({"runId": ""}, "runId"),
        ({"runId": "x" * 65}, "runId"),
        ({"runId": "a/b"}, "runId"),
        ({"maxDuration": 0}, "maxDuration"),
        ({"maxDuration": 31_536_001}, "maxDuration"),
        ({"lease": 0}, "lease"),
        ({"lease": 86_401}, "lease"),
        ({"maxDuration": "60"}, "maxDuration"),
        ({"metadata": []}, "metadata"),
    ):
        refused = await start(lifesign, "export", expect=400, **body)
        assert refused["error"]["details"][0]["field"] == field

    await progress(lifesign, "export", "nope", expect=404)
    await finish(lifesign, "export", "nope", expect=404)
    await lifesign.ask("GET", "/v1/heartbeats/export/runs/nope", expect=404)
    await start(lifesign, "nope", expect=404)
    await lifesign.ask("GET", "/v1/heartbeats/export/runs?status=done", expect=400)
    assert await lifesign.event_types("export") == ["created"]


@pytest.mark.parametrize("run_id", ["x" * 64, "A.b_c:9-z"])
async def test_a_run_is_reported_on_by_whatever_it_is_called(lifesign: Lifesign, run_id: str) -> None:
    await lifesign.heartbeat("Export")
    begun = await start(lifesign, "export", runId=run_id, lease=86_400, maxDuration=31_536_000)

    assert (await progress(lifesign, "export", run_id))["leaseExpiresAt"] == "2026-01-06T12:00:00.000Z"
    assert (await finish(lifesign, "export", run_id))["runId"] == begun["runId"] == run_id


async def test_a_run_from_which_nothing_is_heard_for_a_week_is_abandoned(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", armed=False)
    await start(lifesign, "export", runId="silent")
    await start(lifesign, "export", runId="touched")
    await start(lifesign, "export", runId="limited", maxDuration=8 * 86_400)
    await lifesign.advance(3 * 86_400)
    await start(lifesign, "export", runId="younger")
    await progress(lifesign, "export", "touched")

    await lifesign.advance(4 * 86_400 + 120)

    assert (await run_of(lifesign, "export", "silent"))["status"] == "abandoned"
    for open_one in ("limited", "touched", "younger"):
        assert (await run_of(lifesign, "export", open_one))["status"] == "running"
    for act in (progress, finish):
        refused = await act(lifesign, "export", "silent", expect=400)
        assert (refused["error"]["code"], refused["error"]["details"]) == ("INVALID_STATE", {"status": "abandoned"})


async def test_the_newest_thousand_runs_are_kept(lifesign: Lifesign) -> None:
    export = await lifesign.heartbeat("Export", armed=False)
    await start(lifesign, "export", runId="r0")
    await finish(lifesign, "export", "r0")
    # Two thousand requests would tell no more.
    await lifesign.node.db.write(_a_thousand_like_r0, export["id"], lifesign.now())
    await start(lifesign, "export", runId="r1001")
    await finish(lifesign, "export", "r1001")

    await lifesign.ask("GET", "/v1/heartbeats/export/runs/r0", expect=404)
    await lifesign.ask("GET", "/v1/heartbeats/export/runs/r1", expect=404)
    await lifesign.ask("GET", "/v1/heartbeats/export/runs/r2")
    assert len((await lifesign.ask("GET", "/v1/heartbeats/export/runs?limit=1000"))["runs"]) == 1000


def _a_thousand_like_r0(conn: Connection, heartbeat_id: str, now: EpochMs) -> None:
    r0 = runs.by_run_id(conn, heartbeat_id, "r0")
    assert r0 is not None
    for position in range(1, 1001):
        runs.insert_if_new(conn, r0._replace(id=new_id("hbr", now), run_id=f"r{position}"))


async def test_a_run_whose_lease_ended_while_nobody_listened_is_given_time(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign() as before:
        await before.heartbeat("Export")
        await start(before, "export", runId="a", lease=60)
        await before.advance(1)
    async with start_lifesign(at="2026-01-05T12:05:00.000Z") as after:
        await after.advance(1)
        assert (await after.get("export"))["status"] == "active"

        await progress(after, "export", "a")
        await after.advance(50)
        assert (await after.get("export"))["status"] == "active"
        await after.advance(11)

        assert (await after.get("export"))["status"] == "firing"
        assert (await run_of(after, "export", "a"))["status"] == "stalled"


async def test_a_deleted_heartbeat_takes_its_runs_along(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export")
    await start(lifesign, "export", runId="a", lease=5)
    await lifesign.ask("DELETE", "/v1/heartbeats/export", expect=204)
    await lifesign.heartbeat("Export")

    await lifesign.ask("GET", "/v1/heartbeats/export/runs/a", expect=404)
    await lifesign.advance(10)
    assert (await lifesign.get("export"))["status"] == "active"


async def test_of_a_finished_one_shot_runs_are_recorded_and_never_watched(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Once", mode="oneshot")
    await lifesign.check_in("once")

    await start(lifesign, "once", runId="a", lease=5)
    await lifesign.advance(60)

    assert (await run_of(lifesign, "once", "a"))["status"] == "running"
    assert (await lifesign.get("once"))["status"] == "resolved"
    assert "firesAt" not in await lifesign.get("once")


async def test_an_overdue_run_that_reports_after_an_ack_lifts_no_deadline(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Export", interval=60)
    await start(lifesign, "export", runId="a", lease=5000, maxDuration=10)
    await lifesign.advance(10)
    await lifesign.ask("POST", "/v1/heartbeats/export/ack")
    expected = (await lifesign.get("export"))["nextDeadline"]

    await progress(lifesign, "export", "a")

    assert (await lifesign.get("export"))["nextDeadline"] == expected


@pytest.mark.parametrize("report", ["start", "progress"])
async def test_what_a_run_reports_does_not_take_away_the_time_after_a_gap(
    start_lifesign: MakeLifesign, report: str
) -> None:
    async with start_lifesign() as before:
        await before.heartbeat("Export", interval=120, grace=60)
        await start(before, "export", runId="a")
        await before.advance(1)
    async with start_lifesign(at="2026-01-05T12:05:00.000Z") as after:
        # The engine has not looked yet at what was due in the gap.
        if report == "start":
            await start(after, "export", runId="b", maxDuration=600)
        else:
            await progress(after, "export", "a")

        await after.advance(30)

        shown = await after.get("export")
        assert (shown["status"], shown["firesAt"]) == ("active", "2026-01-05T12:06:00.000Z")
