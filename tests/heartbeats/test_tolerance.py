"""Tolerance: a heartbeat fires when k of its last n results are bad."""

import pytest

from tests.harness import Json, Lifesign


async def _newest(lifesign: Lifesign, ref: str) -> tuple[str, Json]:
    event = (await lifesign.events(ref))[0]
    return event["type"], event["metadata"]


async def test_the_first_miss_is_tolerated_and_the_second_fires(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job", interval=10, grace=0, tolerance={"failures": 2, "window": 3})

    await lifesign.advance(10)

    shown = await lifesign.get("job")
    assert (shown["status"], shown["nextDeadline"]) == ("active", "2026-01-05T12:00:20.000Z")
    assert shown["tolerance"] == {"failures": 2, "window": 3}
    assert await _newest(lifesign, "job") == ("missed", {"deadline": "2026-01-05T12:00:10.000Z", "tolerated": True})
    await lifesign.advance(10)
    assert (await lifesign.get("job"))["status"] == "firing"
    (incident,) = await lifesign.incidents(shown["id"])
    assert incident["reason"] == "missed"


async def test_good_results_push_bad_ones_out(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job", interval=10, grace=5, tolerance={"failures": 2, "window": 3})
    await lifesign.advance(15)
    for _ in range(2):
        await lifesign.check_in("job")
    # bad, good, good: the next bad one pushes the first out.
    await lifesign.advance(15)
    assert (await lifesign.get("job"))["status"] == "active"

    await lifesign.check_in("job", healthy=False)

    assert (await lifesign.get("job"))["status"] == "firing"


async def test_tolerated_bad_news_is_answered_as_active(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job", tolerance={"failures": 2, "window": 2})
    await lifesign.advance(60)

    answer = await lifesign.check_in("job", healthy=False)

    assert answer == {"status": "active", "healthy": False, "nextDeadline": "2026-01-05T13:01:00.000Z"}
    kind, metadata = await _newest(lifesign, "job")
    assert (kind, metadata["tolerated"]) == ("checkin_unhealthy", True)


@pytest.mark.parametrize("clearing", ["pause", "edit", "ack", "recovery"])
async def test_the_window_is_cleared(lifesign: Lifesign, clearing: str) -> None:
    await lifesign.heartbeat("Job", tolerance={"failures": 2, "window": 5})
    await lifesign.check_in("job", healthy=False)
    match clearing:
        case "pause":
            await lifesign.ask("POST", "/v1/heartbeats/job/pause")
            await lifesign.ask("POST", "/v1/heartbeats/job/resume")
        case "edit":
            await lifesign.ask("PATCH", "/v1/heartbeats/job", {"grace": 61})
        case "recovery":
            await lifesign.check_in("job", healthy=False)
            await lifesign.check_in("job")
        case _:
            await lifesign.check_in("job", healthy=False)
            await lifesign.ask("POST", "/v1/heartbeats/job/ack")

    await lifesign.check_in("job", healthy=False)

    assert (await lifesign.get("job"))["status"] in {"active", "resolved"}
    await lifesign.check_in("job", healthy=False)
    assert (await lifesign.get("job"))["status"] == "firing"


async def test_a_tolerated_miss_long_ago_counts_the_next_from_now(lifesign: Lifesign) -> None:
    await lifesign.heartbeat(
        "Job", mode="scheduled", schedule="0 * * * *", grace=7200, tolerance={"failures": 2, "window": 2}
    )

    await lifesign.advance(3 * 3600)

    # Missed at 13:00, judged at 15:00: 14:00 and its grace are over in an hour, so that it is the next.
    assert (await lifesign.get("job"))["nextDeadline"] == "2026-01-05T14:00:00.000Z"


@pytest.mark.parametrize(
    "tolerance",
    [
        {"failures": 3, "window": 2},
        {"failures": 0, "window": 2},
        {"failures": 1, "window": 101},
        {"failures": 1},
        2,
        [],
    ],
)
async def test_a_tolerance_that_makes_no_sense_is_refused(lifesign: Lifesign, tolerance: object) -> None:
    body = {"name": "Job", "mode": "recurring", "interval": 60, "tolerance": tolerance}

    refused = await lifesign.ask("POST", "/v1/heartbeats", body, expect=400)

    assert refused["error"]["details"][0]["field"].startswith("tolerance")


async def test_a_one_shot_tolerates_nothing(lifesign: Lifesign) -> None:
    body = {"name": "Job", "mode": "oneshot", "interval": 60, "tolerance": {"failures": 1, "window": 2}}

    refused = await lifesign.ask("POST", "/v1/heartbeats", body, expect=400)

    assert refused["error"]["details"][0]["field"] == "tolerance"


async def test_null_takes_the_tolerance_away(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("Job", tolerance={"failures": 2, "window": 3})

    shown = await lifesign.ask("PATCH", "/v1/heartbeats/job", {"tolerance": None})

    assert "tolerance" not in shown
    assert (await lifesign.events("job"))[0]["metadata"]["fields"] == ["tolerance"]
    await lifesign.check_in("job", healthy=False)
    assert (await lifesign.get("job"))["status"] == "firing"
