"""Telemetry, diagnosis and usage on pages."""

import html
import re

import pytest

from lifesign.telemetry.store import Stored
from lifesign.web import waterfall
from lifesign.web.telemetry_routes import says, took
from tests.diagnosis.runs import Agent
from tests.harness import Json, Lifesign
from tests.telemetry.requests import body_of
from tests.telemetry.senders import sender
from tests.telemetry.stores.builder import record
from tests.usage.builders import builder
from tests.web.browser import Browser, browser, executed_by, said, signed_up

MARKUP = "<script>alert(1)</script>"
JSON = {"Content-Type": "application/json"}
_nobody = Agent(None)  # type: ignore[arg-type]  # it only makes spans


async def send(lifesign: Lifesign, *spans: Json) -> None:
    """Send spans to the project that the owner's pages show."""
    answer = await lifesign.http.post("/v1/traces", content=body_of(*spans), headers=JSON)
    assert answer.status_code in {200, 202}, answer.text


def conversation(session: str = "s/1 é", **said: str) -> list[Json]:
    """A root that called a model and a tool, which failed."""
    root = _nobody.span("invoke_agent planner", session=session, seconds=2, gen_ai__agent__name="planner")
    chat = _nobody.span(
        "chat m1", parent=root, gen_ai__operation__name="chat", gen_ai__request__model="m1",
        gen_ai__usage__input_tokens=1000, gen_ai__usage__output_tokens=200,
    )  # fmt: skip
    tool = _nobody.tool(parent=root, failing=True, message="no route to host", **said)
    return [root, chat, tool]


async def failing(lifesign: Lifesign, times: int = 12) -> None:
    """So many runs whose tool fails that it is an issue."""
    await send(lifesign, *(span for n in range(times) for span in conversation(f"run-{n}")))


# Telemetry ----------------------------------------------------------------------------------------------------------
async def test_an_empty_page_says_how_to_send(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)

    page = said(await owner.get("/telemetry"))

    assert "Nothing arrived in this window" in page
    assert "OTEL_EXPORTER_OTLP_ENDPOINT=http" in page


async def test_what_arrived_is_counted_and_sessions_are_listed(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await send(lifesign, *conversation())

    page = await owner.get("/telemetry")

    assert re.search(r"<b>3</b><span>records</span>", page)
    assert re.search(r'<b>1</b><span class="state firing">failed</span>', page)
    assert re.search(r"<b>1,200</b><span>tokens</span>", page)
    assert '<a href="/sessions/s%2F1%20%C3%A9">s/1 é</a>' in page
    # The bar of the last part of the window has what just arrived.
    assert "12:00: 1 failed" in page.replace("11:00", "12:00")


async def test_a_window_or_an_environment_without_anything_says_so(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await send(lifesign, *conversation())
    await lifesign.advance(3 * 3600)

    assert "Nothing arrived in this window" in await owner.get("/telemetry?minutes=60")
    assert "s/1 é" in await owner.get("/telemetry?minutes=1440")
    narrowed = await owner.get("/telemetry?environment=nowhere")
    assert "No session in this window" in narrowed
    assert "These numbers are of every environment" in narrowed
    assert "s/1 é" in await owner.get("/telemetry?minutes=nonsense")


async def test_a_session_is_a_waterfall_and_a_span_tells_all_it_says(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    spans = conversation(note=MARKUP)
    await send(lifesign, *spans)

    page = await owner.get("/sessions/s%2F1%20%C3%A9")

    assert page.index("invoke_agent planner") < page.index("chat m1") < page.index("execute_tool search")
    assert 'class="name depth-1"' in page
    assert page.count('<svg class="fall"') == 3
    record_id = f"rec_{spans[2]['traceId']}{spans[2]['spanId']}"
    chosen = await owner.get(f"/sessions/s%2F1%20%C3%A9?span={record_id}")
    assert "no route to host" in said(chosen)
    assert MARKUP not in chosen
    assert html.escape(MARKUP) in chosen
    assert "Timeout" in said(chosen)


async def test_a_session_that_is_called_like_a_step_in_a_path_has_a_page(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    names = [".", "..", "../..", "/", "?a=b#c", "%2e%2e", "\\"]
    for name in names:
        await send(lifesign, *conversation(name))
        await lifesign.advance(1)

    listed = await owner.get("/telemetry")
    ways = [html.unescape(each) for each in re.findall(r'<a href="(/sessions/[^"]*)"', listed)]
    pages = [await owner.get(way) for way in ways]

    assert [re.findall(r'<h1>Session <span class="mono">(.*)</span>', each) for each in pages] == [
        [html.escape(name)] for name in reversed(names)
    ]
    # The links of its own page lead to it, too.
    assert all(f'href="{way}?span=' in html.unescape(each) for way, each in zip(ways, pages, strict=True))


async def test_evidence_leads_to_its_span_within_its_trace(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    spans = conversation()
    await send(lifesign, *spans)
    record_id = f"rec_{spans[2]['traceId']}{spans[2]['spanId']}"

    await owner.get(f"/records/{record_id}", expect=303)
    place = owner.last.headers["location"]
    page = said(await owner.get(place))

    assert place == f"/traces/{spans[2]['traceId']}?span={record_id}#span"
    assert "no route to host" in page
    assert "In the session s/1 é" in page


@pytest.mark.parametrize(
    "path", ["/sessions/none", f"/traces/{'0' * 32}", "/traces/x", "/records/rec_1", f"/packets/pkt_{'0' * 32}"]
)
async def test_what_is_not_there_is_a_page_that_says_so(lifesign: Lifesign, path: str) -> None:
    owner = await signed_up(lifesign)

    await owner.get(path, expect=404, accept="text/html")


async def test_another_projects_spans_are_nobodys(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    async with sender(lifesign) as other:
        spans = conversation("secret")
        await other.told(*spans)

    assert "secret" not in await owner.get("/telemetry")
    await owner.get("/sessions/secret", expect=404)
    await owner.get(f"/traces/{spans[0]['traceId']}", expect=404)


@pytest.mark.parametrize(
    ("search", "found"),
    [("no route", 1), ("NO ROUTE", 1), ("gen_ai.tool.name=search", 1), ("gen_ai.tool.name=sea", 1), ("nowhere", 0)],
)
async def test_spans_are_found_by_what_they_say(lifesign: Lifesign, search: str, found: int) -> None:
    owner = await signed_up(lifesign)
    await send(lifesign, *conversation())

    page = await owner.get(f"/telemetry?q={search}")

    assert page.count('href="/records/') == found
    assert "the newest 3 of the window" in said(page)


def test_a_value_is_compared_as_text_and_a_key_that_is_not_there_is_text_too() -> None:
    said_: Json = {"resource": {"attributes": {"host": "a"}}, "attributes": {"n": 17, "list": ["x", "y"]}}
    said_ |= dict.fromkeys(
        ("name", "operation", "tool", "model", "agent", "service", "error_type", "message", "session_id")
    )

    assert says(said_, "n=17")
    assert not says(said_, "n=18")
    assert says(said_, "host=A")
    assert says(said_, '["x","y"]')
    assert not says(said_, "m=17")


@pytest.mark.parametrize(
    ("ns", "words"),
    [
        (0, "0 ms"),
        (1_500_000, "1.5 ms"),
        (999_400_000, "999 ms"),
        (999_600_000, "1.0 s"),
        (2_000_000_000, "2.0 s"),
        (61_000_000_000, "1m 1s"),
        (3.7e12, "1h 1m"),
    ],
)
def test_durations_are_said_shortly(ns: float, words: str) -> None:
    assert took(int(ns)) == words


# Waterfalls ---------------------------------------------------------------------------------------------------------
def stored(span: int, parent: int | None, start: int, end: int) -> Stored:
    parent_id = "" if parent is None else f"{parent:016x}"
    return Stored(record(span_id=f"{span:016x}", parent_id=parent_id, start_ns=start, end_ns=end), "s")


def placed(*spans: Stored) -> list[tuple[int, int]]:
    return [(int(each.stored.record.span_id, 16), each.depth) for each in waterfall.rows_of(spans)]


def test_what_a_span_called_stands_below_it_by_start() -> None:
    spans = [stored(3, 1, 30, 40), stored(2, 1, 10, 20), stored(4, 2, 12, 15), stored(1, None, 0, 100)]

    assert placed(*spans) == [(1, 0), (2, 1), (4, 2), (3, 1)]


def test_a_lost_parent_and_a_ring_lose_no_span() -> None:
    assert placed(stored(1, 9, 0, 1)) == [(1, 0)]
    assert sorted(placed(stored(1, 2, 0, 1), stored(2, 1, 0, 1), stored(3, 3, 0, 1))) == [(1, 0), (2, 0), (3, 0)]
    assert placed() == []


def test_bars_lie_where_the_spans_ran_and_are_never_too_thin() -> None:
    first, second = waterfall.rows_of([stored(1, None, 0, 1000), stored(2, 1, 500, 500)])

    assert (first.x, first.width) == (0, waterfall.WIDTH)
    assert (second.x, second.width) == (500, 3)
    [lone] = waterfall.rows_of([stored(1, None, 5, 5)])
    assert lone.x + lone.width <= waterfall.WIDTH


# Diagnosis ----------------------------------------------------------------------------------------------------------
async def diagnosed(owner: Browser, **fields: str) -> str:
    await owner.get("/diagnosis")
    return await owner.post("/diagnosis", {"minutes": "60"} | fields)


async def test_a_diagnosis_is_run_and_shows_issues_with_evidence(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    empty = said(await owner.get("/diagnosis"))
    assert "Nothing was diagnosed yet" in empty
    assert "lifesign diagnose --since-minutes 60" in empty
    await failing(lifesign)

    place = await diagnosed(owner)
    page = await owner.get(place)

    [told] = [await lifesign.ask("GET", f"/v1/runs/{place.removeprefix('/packets/')}")]
    assert told["packet"]["issues"]
    for issue in told["packet"]["issues"]:
        assert html.escape(issue["title"], quote=True) in page
        assert f'href="/records/{issue["evidence_ids"][0]}"' in page
    listed = said(await owner.get("/diagnosis"))
    assert "new" in listed
    assert "36" in listed
    assert "No issue is fixed" in said(await owner.get("/diagnosis?state=fixed"))


async def test_a_decision_has_the_name_of_whoever_made_it(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await failing(lifesign)
    place = await diagnosed(owner)
    found = re.search(r'name="fingerprint" value="([^"]+)"', await owner.get(place))
    assert found is not None

    back = await owner.post(f"{place}/decisions", {"fingerprint": found[1], "decision": "dismissed"})

    assert "dismissed by ada@example.org" in said(await owner.get(back.partition("#")[0]))
    before = await lifesign.ask("GET", f"/v1/runs/{place.removeprefix('/packets/')}")
    ledger = await lifesign.ask("GET", "/v1/issues")
    await owner.post(f"{place}/decisions", {"fingerprint": found[1], "decision": "approved"})
    page = said(await owner.get(place))
    assert "approved by ada@example.org" in page
    assert "dismissed by ada@example.org" not in page
    # It is said beside the issue, and changes nothing of it.
    assert await lifesign.ask("GET", f"/v1/runs/{place.removeprefix('/packets/')}") == before
    assert await lifesign.ask("GET", "/v1/issues") == ledger
    assert before["packet"]["approval_required"] is True
    await owner.post(f"{place}/decisions", {"fingerprint": "none:1", "decision": "approved"}, expect=404)


async def test_what_no_form_offers_is_refused_by_its_name(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await failing(lifesign)
    place = await diagnosed(owner)
    await owner.get(place)

    for path, field in (("/diagnosis", "minutes"), (f"{place}/verify", "minutes"), (f"{place}/decisions", "decision")):
        assert f"{field} must be one of" in said(await owner.post(path, {field: "x", "fingerprint": "y"}, expect=400))
    long = {"minutes": "60", "environment": "x" * 257}
    assert "environment must be at most 256 characters long" in said(await owner.post("/diagnosis", long, expect=400))


async def test_verifying_says_what_became_of_each_issue(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await failing(lifesign)
    place = await diagnosed(owner)
    await owner.get(place)
    await lifesign.advance(2 * 3600)
    await failing(lifesign)

    page = said(await owner.post(f"{place}/verify", {"minutes": "60"}, expect=200))

    assert "What arrived since says" in page
    assert "now ongoing" in page


async def test_a_ticket_says_the_same_in_markdown(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    await failing(lifesign)

    page = html.unescape(await owner.get(await diagnosed(owner)))

    assert "- Severity: " in page
    assert re.search(r"- `rec_[0-9a-f]{48}`", page)


# Usage --------------------------------------------------------------------------------------------------------------
async def test_usage_says_how_to_take_the_first_key_and_then_what_was_asked(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    assert "Nobody asked yet" in await owner.get("/usage")
    wish = {"name": "App", "email": "dev@example.org"}
    assert (await lifesign.client(None).post("/api/keys", json=wish)).status_code == 201
    assert (await lifesign.client(None).get("/api/keys/me")).status_code == 401

    page = await owner.get("/usage?range=7d")

    assert re.search(r"<b>1</b><span>keys</span>", page)
    assert re.search(r"<b>2</b><span>requests, 24 h</span>", page)
    assert "client error" in page
    assert 'href="/usage?range=7d" aria-current="true"' in page


async def test_usage_shows_what_the_dashboards_of_the_api_tell(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    async with builder(lifesign) as jane:
        await lifesign.advance(3600)
        for path in ("/api/keys", "/api/vitals/nothing", "/api/keys"):
            assert (await jane.http.get(path)).status_code == 404
            await lifesign.advance(60)

        page = await owner.get("/usage?range=24h")
        overview, metrics, errors = await jane.overview(), await jane.metrics("24h"), await jane.errors()

    tiles = re.findall(r'<div class="tile">\s*<b>(.*?)</b><span.*?>(.*?)</span>', page)
    # Four requests: a key, and three that found nothing. The page asks no API, and so counts for none.
    assert tiles == [
        ("1", "keys"),
        ("0", "active keys"),
        ("4", "requests, 24 h"),
        ("4", "7 days"),
        ("4", "30 days"),
        ("75.00 %", "errors"),
    ]
    assert overview["requests"] == {"last_24h": 4, "last_7d": 4, "last_30d": 4}
    assert overview["error_rate_pct_30d"] == 75.0
    table = re.findall(r"<td>(\d\d:00)</td><td>(\d+)</td><td>(\d+)</td><td>(\d+)</td>", page)
    shown = [(at, int(good) + int(bad) + int(failed)) for at, good, bad, failed in table]
    series = [(each["bucket"][11:16], each["total_requests"]) for each in metrics["time_series"]]
    # The overview was asked between the two.
    assert len(shown) == 25
    assert shown[:-1] == series[:-1]
    assert shown[-1][1] + 1 == series[-1][1]
    rows = re.findall(r'<td class="wide mono">(.*?)</td><td class="num">(.*?)</td>', page)
    assert rows == [(each["message"], str(each["count"])) for each in errors["errors"]]
    assert rows == [("GET /api/keys \u2192 404", "2"), ("GET /api/vitals/nothing \u2192 404", "1")]
    assert "<dd>0 ms</dd>" in page
    assert executed_by(page) == []


async def test_usage_is_for_people_who_are_signed_in_and_an_unknown_range_is_the_last_day(lifesign: Lifesign) -> None:
    viewer, nobody = await signed_up(lifesign, "eve@example.org", role="viewer"), browser(lifesign)
    async with builder(lifesign):
        await nobody.get("/usage", expect=303)
        assert nobody.last.headers["location"] == "/signin?next=/usage"
        for query in ("", "?range=1h", "?range="):
            assert 'href="/usage?range=24h" aria-current="true"' in await viewer.get(f"/usage{query}")
