"""What the dashboards show of the requests that came. Spec "Usage", section 3."""

import itertools
import random
from collections import Counter
from datetime import UTC, datetime

import pytest
from starlette.requests import Request
from starlette.responses import Response

from lifesign.clock import EpochMs, rfc3339
from lifesign.db import StorageUnavailable
from lifesign.http.answers import json_answer
from lifesign.usage import log, rules, service
from lifesign.usage.rules import UsageRecord
from tests.harness import Lifesign
from tests.usage.builders import TRIAL, Builder, builder, take_key, trial_route

HOUR_S = 3600
DAY_S = 24 * HOUR_S


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who reads waits for what was counted, however slow the machine is just now."""
    monkeypatch.setattr(log, "_READERS_WAIT_S", 30.0)


async def add(lifesign: Lifesign, *records: UsageRecord) -> None:
    """Write requests into the sums, as another node would."""
    await lifesign.node.db.write(service.add, rules.sums_of(records))


def record(at: int, *, status: int = 200, duration_ms: int | None = 5, path: str = "/api/vitals/x") -> UsageRecord:
    return UsageRecord(EpochMs(at), "GET", path, status, duration_ms, None)


# Overview -----------------------------------------------------------------------------------------------------------
async def test_a_fresh_server_has_one_key_that_was_not_used_and_one_request(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        assert await jane.overview() == {
            "total_api_keys": 1,
            "active_api_keys_30d": 0,
            "requests": {"last_24h": 1, "last_7d": 1, "last_30d": 1},
            "error_rate_pct_30d": 0,
        }
        assert (await jane.overview())["active_api_keys_30d"] == 1


async def test_an_overview_counts_what_came_before_it(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane, trial_route(lifesign):
        before = await jane.last_24h()
        for _ in range(3):
            await jane.ask("GET", TRIAL)
        await jane.ask("GET", "/api/vitals/nothing")

        after = await jane.overview()

        assert after["requests"]["last_24h"] == before + 5
        # One of key, overview, three good ones and the bad one.
        assert after["error_rate_pct_30d"] == 16.67


async def test_what_is_a_day_old_is_in_the_week_and_the_month_only(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        await lifesign.advance(DAY_S)
        assert await jane.last_24h() == 1
        await lifesign.advance(HOUR_S)

        assert (await jane.overview())["requests"] == {"last_24h": 1, "last_7d": 2, "last_30d": 2}
        await lifesign.advance(6 * DAY_S)
        assert (await jane.overview())["requests"] == {"last_24h": 0, "last_7d": 2, "last_30d": 3}


async def test_a_window_begins_with_the_minute_a_whole_range_ago(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        minute = rules.start_of(lifesign.now(), 60_000)
        for days in (1, 7, 30):
            await add(lifesign, record(minute - days * DAY_S * 1000), record(minute - days * DAY_S * 1000 - 1))

        assert (await jane.overview())["requests"] == {"last_24h": 2, "last_7d": 4, "last_30d": 6}


async def test_a_key_is_active_for_thirty_days_after_its_last_request(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane, builder(lifesign) as joe, builder(lifesign) as gone:
        await joe.ask("GET", "/api/dashboard/metrics?range=1h")
        await gone.ask("DELETE", "/api/keys/me")
        await lifesign.advance(30 * DAY_S)

        found = await jane.overview()
        assert (found["total_api_keys"], found["active_api_keys_30d"]) == (2, 1)
        await lifesign.advance(1)
        found = await jane.overview()
        # Joe's was a second too long ago, Jane asked a second ago.
        assert (found["total_api_keys"], found["active_api_keys_30d"]) == (2, 1)
        await lifesign.advance(30 * DAY_S + 1)
        assert (await jane.overview())["active_api_keys_30d"] == 0


async def test_other_apis_never_count(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        await lifesign.heartbeat()
        before = await jane.last_24h()
        for _ in range(20):
            await lifesign.check_in("nightly-export")
            await lifesign.http.get("/ping/nobody/here")
            await lifesign.http.post("/api/systems/heartbeat")
            await lifesign.http.get("/health")

        assert await jane.last_24h() == before + 1


# Metrics ------------------------------------------------------------------------------------------------------------
async def test_a_month_is_shown_by_days_and_a_day_by_hours(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        await lifesign.advance(20 * 60)
        shown = {
            of: [each["bucket"] for each in (await jane.metrics(of))["time_series"]] for of in ("24h", "7d", "30d")
        }
        unsaid = await jane.told("/api/dashboard/metrics")

    assert (unsaid["range"], len(unsaid["time_series"])) == ("30d", 31)
    assert (shown["24h"][0], shown["24h"][-1]) == ("2026-01-04T12:00:00Z", "2026-01-05T12:00:00Z")
    assert shown["7d"] == [f"{day}T00:00:00Z" for day in ("2025-12-29", "2025-12-30", "2025-12-31")] + [
        f"2026-01-0{day}T00:00:00Z" for day in range(1, 6)
    ]
    assert (shown["30d"][0], shown["30d"][-1]) == ("2025-12-06T00:00:00Z", "2026-01-05T00:00:00Z")
    assert [len(each) for each in shown.values()] == [25, 8, 31]
    for each in shown.values():
        begins = [datetime.fromisoformat(bucket) for bucket in each]
        assert len({later - earlier for earlier, later in itertools.pairwise(begins)}) == 1


@pytest.mark.parametrize(
    "query", ["range=1h", "range=", "range", "range=24H", "range=30d&range=x", "range=%00", "range=24h "]
)
async def test_there_are_three_ranges(lifesign: Lifesign, query: str) -> None:
    async with builder(lifesign) as jane:
        answer = await jane.ask("GET", f"/api/dashboard/metrics?{query}")

        assert answer.status_code == 400
        assert answer.json() == {"success": False, "message": "Invalid range. Must be one of: 24h, 7d, 30d"}


async def test_of_a_parameter_that_is_repeated_the_last_counts(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        assert (await jane.told("/api/dashboard/metrics?range=x&range=7d"))["range"] == "7d"


async def test_a_bucket_counts_its_requests_and_its_errors(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        hour = rules.start_of(lifesign.now(), rules.HOUR_MS) - rules.HOUR_MS
        await add(
            lifesign, *(record(hour + n, status=[200, 404, 500][n % 3]) for n in range(300)), record(hour, status=101)
        )

        series = (await jane.metrics("24h"))["time_series"]

    assert series[-2] == {
        "bucket": "2026-01-05T11:00:00Z",
        "total_requests": 301,
        "error_count": 200,
        "server_error_count": 100,
        "error_rate_pct": 66.45,
    }
    assert sum(each["total_requests"] for each in series) == 302


async def test_all_buckets_together_are_the_number_of_the_overview(lifesign: Lifesign) -> None:
    choose = random.Random(7)
    async with builder(lifesign) as jane:
        await lifesign.advance(choose.randrange(DAY_S))
        now = lifesign.now()
        # Of a node whose clock is ahead, too.
        ages_s = [choose.randrange(-7200, 31 * DAY_S) for _ in range(400)]
        await add(lifesign, *(record(now - age * 1000, status=choose.choice([200, 400, 500])) for age in ages_s))
        await jane.overview()

        for of, name in (("24h", "last_24h"), ("7d", "last_7d"), ("30d", "last_30d")):
            series = (await jane.metrics(of))["time_series"]
            # Itself, which is counted by now.
            assert sum(each["total_requests"] for each in series) + 1 == (await jane.overview())["requests"][name]
            for each in series:
                assert each["server_error_count"] <= each["error_count"] <= each["total_requests"]


async def test_windows_that_begin_anywhere_tell_the_same_as_the_requests_one_by_one(lifesign: Lifesign) -> None:
    """Whole hours and days are read from sums of their own: those are of the very same requests."""
    choose = random.Random(5)
    async with builder(lifesign):
        await lifesign.advance(40 * DAY_S)
        sent: list[UsageRecord] = []
        # In the middle of an hour, on its boundary, and on that of a day.
        for seconds in (0, 17 * 60 + 5, 42 * 60 + 55, 11 * HOUR_S):
            await lifesign.advance(seconds)
            now = lifesign.now()
            ages_s = [
                *(choose.randrange(31 * DAY_S) for _ in range(200)),
                *(choose.randrange(2 * HOUR_S) for _ in ".."),
            ]
            ages_s += [days * DAY_S + each for days in (1, 7, 30) for each in (0, -60, 60, 3 * HOUR_S, -HOUR_S, -DAY_S)]
            some = [
                record(
                    now - max(0, age) * 1000, status=choose.choice([200, 404, 500]), duration_ms=choose.randrange(128)
                )
                for age in ages_s
            ]
            await add(lifesign, *some)
            sent += some

            for of, days, length_s in (("24h", 1, HOUR_S), ("7d", 7, DAY_S), ("30d", 30, DAY_S)):
                found = await lifesign.node.db.read(service.metrics, rules.range_of(of), now)
                begin = now - now % 60_000 - days * DAY_S * 1000
                shown = Counter(each.at // (length_s * 1000) for each in sent if each.at >= begin)
                failed = Counter(
                    each.at // (length_s * 1000) for each in sent if each.at >= begin and each.status >= 400
                )
                whole_hours = begin - begin % (HOUR_S * 1000)
                durations = sorted(each.duration_ms or 0 for each in sent if each.at >= whole_hours)

                assert {each.at // (length_s * 1000): each.total for each in found.series if each.total} == shown
                assert {each.at // (length_s * 1000): each.errors for each in found.series if each.errors} == failed
                assert found.latency[:3] == tuple(
                    durations[-(-percent * len(durations) // 100) - 1] for percent in (50, 95, 99)
                )
                assert found.latency.avg_ms == int(sum(durations) / len(durations) + 0.5)
                overview = await lifesign.node.db.read(service.overview, now)
                asked = {"24h": overview.last_24h, "7d": overview.last_7d, "30d": overview.last_30d}
                assert asked[of] == sum(shown.values())


# Latency ------------------------------------------------------------------------------------------------------------
async def taking(lifesign: Lifesign, jane: Builder, durations_ms: list[int]) -> None:
    """Requests that take as long, on the node's clock."""
    left = iter(durations_ms)

    async def slow(_: Request) -> Response:
        lifesign.clock.set(EpochMs(lifesign.now() + next(left)))
        return json_answer({"success": True})

    async with trial_route(lifesign, slow):
        for _ in durations_ms:
            await jane.ask("GET", TRIAL)


async def test_percentiles_are_of_what_requests_took(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        await lifesign.advance(2 * DAY_S)
        durations = [*range(10, 1001, 10)]
        random.Random(3).shuffle(durations)
        await taking(lifesign, jane, durations)

        found = (await jane.metrics("24h"))["latency_percentiles"]

    # The middles of [500, 504), [944, 952) and [984, 992), in which the 50th, 95th and 99th of the hundred lie.
    assert found == {"p50_ms": 502, "p95_ms": 948, "p99_ms": 988, "avg_ms": 505}
    assert {type(each) for each in found.values()} == {int}


async def test_without_a_request_in_the_window_there_is_no_latency(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        await jane.overview()
        await lifesign.advance(31 * DAY_S)

        empty = await jane.metrics("30d")
        next_one = await jane.metrics("30d")

    assert empty["latency_percentiles"] == dict.fromkeys(("p50_ms", "p95_ms", "p99_ms", "avg_ms"))
    assert {each["total_requests"] for each in empty["time_series"]} == {0}
    assert {each["error_rate_pct"] for each in empty["time_series"]} == {0}
    assert sum(each["total_requests"] for each in next_one["time_series"]) == 1
    assert next_one["latency_percentiles"]["p99_ms"] == 0


async def test_requests_of_the_first_hour_that_lie_before_the_window_tell_nothing_without_one_in_it(
    lifesign: Lifesign,
) -> None:
    async with builder(lifesign) as jane:
        await lifesign.advance(2 * DAY_S + 30 * 60)
        await add(lifesign, record(lifesign.now() - DAY_S * 1000 - 10 * 60_000, duration_ms=900))

        assert (await jane.metrics("24h"))["latency_percentiles"]["p50_ms"] is None
        # Then the whole hour is read.
        assert (await jane.metrics("24h"))["latency_percentiles"]["p99_ms"] == 900


async def test_sockets_have_no_latency(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        await lifesign.advance(2 * DAY_S)
        await add(lifesign, record(lifesign.now(), status=101, duration_ms=None))

        found = await jane.metrics("24h")

    assert found["latency_percentiles"]["p50_ms"] is None
    assert found["time_series"][-1]["total_requests"] == 1


# Errors -------------------------------------------------------------------------------------------------------------
async def test_a_kind_of_error_has_one_entry(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        await lifesign.advance(1)
        assert (await jane.ask("GET", "/api/keys")).status_code == 404
        first = lifesign.now()
        [entry] = (await jane.errors())["errors"]
        await lifesign.advance(60)
        assert (await jane.ask("GET", "/api/keys")).status_code == 404

        found = await jane.errors()

    assert entry["count"] == 1
    assert found == {
        "success": True,
        "errors": [
            {
                "id": entry["id"],
                "error_type": "client_error",
                "message": "GET /api/keys → 404",
                "count": 2,
                "first_seen": rfc3339(first),
                "last_seen": rfc3339(EpochMs(first + 60_000)),
            }
        ],
        "total": 1,
    }


async def test_fifty_errors_are_listed_newest_first(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        for n in range(60):
            await lifesign.advance(1)
            assert (await jane.ask("GET", f"/api/vitals/n{n}")).status_code == 404

        found = await jane.errors()

    assert found["total"] == 60
    assert "next_cursor" not in found
    assert [each["message"] for each in found["errors"]] == [f"GET /api/vitals/n{n} → 404" for n in range(59, 9, -1)]


async def test_errors_can_be_read_page_by_page(lifesign: Lifesign) -> None:
    async with builder(lifesign) as jane:
        # All in one millisecond: then the last one made comes first.
        await add(lifesign, *(record(lifesign.now(), status=400 + n) for n in range(7)))
        pages = []
        cursor = ""
        while True:
            page = await jane.errors(f"?limit=3{cursor}")
            pages.append([each["message"][-3:] for each in page["errors"]])
            assert page["total"] == 7
            if "next_cursor" not in page:
                break
            cursor = f"&cursor={page['next_cursor']}"

        assert pages == [["406", "405", "404"], ["403", "402", "401"], ["400"]]
        assert len((await jane.errors(cursor.replace("&", "?")))["errors"]) == 1


@pytest.mark.parametrize(
    ("query", "told"),
    [
        *(
            (f"limit={each}", "limit must be an integer from 1 to 50")
            for each in ("0", "51", "-1", "1.0", "x", "", "9" * 30)
        ),
        *(
            (f"cursor={each}", "cursor is not a cursor of this list")
            for each in ("", "x", "MS4", "Li4=", "OTk5OTk5OTk5OTk5OTk5OTk5OTk5OS4x")
        ),
    ],
)
async def test_a_page_that_there_is_none_of_is_refused(lifesign: Lifesign, query: str, told: str) -> None:
    async with builder(lifesign) as jane:
        answer = await jane.ask("GET", f"/api/dashboard/recent-errors?{query}")

        assert (answer.status_code, answer.json()) == (400, {"success": False, "message": told})


async def test_a_fault_of_the_server_is_told_without_its_cause(lifesign: Lifesign) -> None:
    async def fails(_: Request) -> Response:
        raise RuntimeError("a secret of the server")

    async with builder(lifesign) as jane, trial_route(lifesign, fails):
        answer = await jane.ask("GET", f"{TRIAL}?key={jane.key}&email={jane.email}")

        assert answer.status_code == 500
        assert answer.json() == {"success": False, "message": "Internal server error"}
        [entry] = (await jane.errors())["errors"]
        assert (entry["error_type"], entry["message"]) == ("server_error", f"GET {TRIAL} → 500")


async def test_a_database_that_is_away_is_a_fault_of_the_server(
    lifesign: Lifesign, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*_: object, **__: object) -> None:
        raise StorageUnavailable

    async with builder(lifesign) as jane, trial_route(lifesign):
        monkeypatch.setattr(lifesign.node.db, "read", away)
        monkeypatch.setattr(lifesign.node.db, "write", away)
        answers = [
            await take_key(jane.http, "joe@x.io"),
            *[await jane.ask("GET", f"/api/dashboard/{name}") for name in ("overview", "metrics", "recent-errors")],
        ]

        assert [each.status_code for each in answers] == [500] * 4
        assert all(each.json() == {"success": False, "message": "Internal server error"} for each in answers)
        assert (await jane.http.get(TRIAL)).status_code == 200


# A known log --------------------------------------------------------------------------------------------------------
async def test_the_numbers_are_those_of_a_log_kept_beside(lifesign: Lifesign) -> None:
    """Hundreds of requests of several people, with the clock turned between them, against a list of what was sent."""
    choose = random.Random(11)
    kept: list[tuple[EpochMs, str, int]] = []

    async def answered(request: Request) -> Response:
        return json_answer({}, int(request.query_params["status"]))

    async with builder(lifesign) as jane, builder(lifesign) as joe, trial_route(lifesign, answered):
        kept += [(lifesign.now(), "POST /api/keys", 201)] * 2
        uses: Counter[int] = Counter()
        for _ in range(300):
            await lifesign.advance(choose.choice([0, 0, 0, 1, 59, 3600, 20_000]))
            who, method = choose.choice([jane, joe]), choose.choice(["GET", "POST"])
            path, status = choose.choice([(TRIAL, 200), (TRIAL, 404), (TRIAL, 503), ("/api/keys/me/x", 404)])
            assert (await who.ask(method, f"{path}?status={status}")).status_code == status
            kept.append((lifesign.now(), f"{method} {path}", status))
            uses[who.id] += 1
        overview, minute = await jane.overview(), rules.start_of(lifesign.now(), 60_000)
        errors = {each["message"]: each["count"] for each in (await jane.errors())["errors"]}
        series = (await jane.metrics("24h"))["time_series"]

        assert overview["requests"] == {
            name: sum(at // 60_000 * 60_000 >= minute - days * DAY_S * 1000 for at, _, _ in kept)
            for name, days in (("last_24h", 1), ("last_7d", 7), ("last_30d", 30))
        }
        assert errors == Counter(f"{what} → {status}" for _, what, status in kept if status >= 400)
        kept += [(lifesign.now(), "GET dashboard", 200)] * 2
        hours = Counter(
            datetime.fromtimestamp(at / 1000, UTC).strftime("%Y-%m-%dT%H:00:00Z")
            for at, _, _ in kept
            if at // 60_000 * 60_000 >= minute - DAY_S * 1000
        )
        assert {each["bucket"]: each["total_requests"] for each in series if each["total_requests"]} == hours
        assert (await joe.own())["request_count"] == uses[joe.id]
        assert (await jane.own())["request_count"] == uses[jane.id] + 3
