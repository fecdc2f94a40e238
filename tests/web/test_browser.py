"""The pages in a real browser, against a real server: live updates, the keyboard, narrow screens."""

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.faults.server import Server, serving
from tests.web.browser import OWNER, PASSWORD

_CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
PATIENCE_MS = 20_000


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("browser"), log_level="error") as started:
        yield started


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    if _CHROMIUM is None:
        # Where changes are judged nothing may be left out quietly.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium here: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=_CHROMIUM, args=list(_ARGUMENTS))
        yield opened
        opened.close()


def setup_link(server: Server) -> str:
    """The path of the link that the server printed."""
    link = re.search(r"^setup link: \S+?(/setup/\S+)$", server.output.read_text(), re.MULTILINE)
    assert link is not None
    return link[1]


@pytest.fixture(scope="module")
def signed_in(server: Server, chromium: Browser) -> Iterator[tuple[Page, list[str]]]:
    """A page of the owner, made with the link that the server printed, and what its console complained of."""
    page = chromium.new_context(viewport={"width": 1280, "height": 800}, timezone_id="America/New_York").new_page()
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(server.url + setup_link(server))
    page.get_by_label("E-mail").fill(OWNER)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_label("Password again").fill(PASSWORD)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Nothing beats yet")).to_be_visible(timeout=PATIENCE_MS)
    yield page, complaints
    page.context.close()


def test_a_silent_row_turns_amber_and_then_red_without_a_reload(
    server: Server, signed_in: tuple[Page, list[str]]
) -> None:
    page, complaints = signed_in
    page.evaluate("window.isTheSamePage = true")
    server.heartbeat("silent", interval=1, grace=3)
    server.heartbeat("steady")
    server.ask("POST", "/v1/heartbeats/silent/checkin")

    row = page.get_by_role("row", name="silent")
    for look in ("late", "firing"):
        expect(row).to_have_class(re.compile(rf"\b{look}\b"), timeout=PATIENCE_MS)
    expect(page.get_by_role("row").nth(1)).to_contain_text("silent")
    expect(page).to_have_title(re.compile("1 firing"))

    assert page.evaluate("window.isTheSamePage") is True
    assert complaints == []


def test_the_page_of_a_run_goes_along_with_it_to_its_end_without_a_reload(
    server: Server, signed_in: tuple[Page, list[str]]
) -> None:
    page, complaints = signed_in
    here = {"project_id": "default"}
    pull = {"name": "Night watch", "heartbeat": 1, "lifesign": {"runner": {"kind": "pull"}}}
    made = server.ask("POST", "/v1/bot/create", here | pull)["bot"]
    ref = here | {"bot_id": made["id"]}
    schedule = server.ask("POST", "/v1/bot/heartbeat/configure", ref | {"prompt": "Look."})["heartbeat"]
    ref |= {"heartbeat_id": schedule["uuid"]}
    run_id = server.ask("POST", "/v1/bot/heartbeat/trigger?async=true", ref, expect=202)["run"]["uuid"]
    page.goto(f"{server.url}/runs/{run_id}")
    page.evaluate("window.isTheSamePage = true")
    main = page.get_by_role("main")
    expect(main.get_by_text("queued")).to_be_visible(timeout=PATIENCE_MS)

    run = server.ask("POST", "/v1/bot/runs/claim", here)["run"]
    hold = here | {"run_id": run_id, "lease_token": run["lease_token"]}
    expect(main.get_by_text("running", exact=True)).to_be_visible(timeout=PATIENCE_MS)
    server.ask("POST", "/v1/bot/runs/heartbeat", hold | {"log": "Half way."})
    expect(main.get_by_text("Half way.")).to_be_visible(timeout=PATIENCE_MS)
    server.ask("POST", "/v1/bot/runs/finish", hold | {"status": "success", "response": "All quiet."})

    expect(main.get_by_text("All quiet.")).to_be_visible(timeout=PATIENCE_MS)
    assert page.evaluate("window.isTheSamePage") is True
    assert complaints == []


def test_an_incident_is_found_and_acknowledged_with_the_keyboard_alone(
    server: Server, signed_in: tuple[Page, list[str]]
) -> None:
    page, complaints = signed_in
    server.heartbeat("broken")
    server.fire("broken")
    page.goto(server.url)

    page.keyboard.press("/")
    page.keyboard.type("broken")
    page.keyboard.press("Enter")
    expect(page.get_by_role("row", name="broken")).to_be_visible()
    expect(page.get_by_role("row", name="steady")).to_have_count(0)
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="broken")).to_be_visible()
    page.get_by_label("Reason").first.focus()
    page.keyboard.type("making room <b>now</b>")
    page.keyboard.press("Enter")

    expect(page.get_by_text(f"Acknowledged by user:{OWNER}: making room <b>now</b>")).to_be_visible()
    assert complaints == []


def test_a_long_history_grows_as_it_is_read_and_stays_when_something_happens(
    server: Server, signed_in: tuple[Page, list[str]]
) -> None:
    page, complaints = signed_in
    beat = server.heartbeat("chatty")
    for _ in range(120):
        server.ask("POST", "/v1/heartbeats/chatty/checkin")
    page.goto(f"{server.url}/heartbeats/{beat}")
    events = page.locator("[data-endless] > li")
    expect(events).to_have_count(50)

    page.get_by_role("link", name="Older").scroll_into_view_if_needed()
    expect(events).to_have_count(100, timeout=PATIENCE_MS)
    page.mouse.wheel(0, 100_000)
    expect(events).to_have_count(121, timeout=PATIENCE_MS)
    expect(page.get_by_role("link", name="Older")).to_have_count(0)

    server.ask("POST", "/v1/heartbeats/chatty/checkin")
    expect(events).to_have_count(122, timeout=PATIENCE_MS)
    seqs = events.evaluate_all("all => all.map((each) => Number(each.id.slice('event-'.length)))")
    assert seqs == sorted(set(seqs), reverse=True)
    assert complaints == []


def test_exact_times_are_those_of_the_browser_until_another_zone_is_chosen(
    server: Server, signed_in: tuple[Page, list[str]]
) -> None:
    page, complaints = signed_in
    beat = server.heartbeat("zoned")
    server.ask("POST", "/v1/heartbeats/zoned/checkin")
    page.goto(f"{server.url}/heartbeats/{beat}")
    seen = page.locator("dl.facts time").first
    instant = seen.get_attribute("datetime")
    told = "([instant, timeZone]) => new Intl.DateTimeFormat(undefined,"
    told += " { dateStyle: 'medium', timeStyle: 'long', timeZone }).format(Date.parse(instant))"
    expect(seen).to_have_attribute("title", page.evaluate(told, [instant, "America/New_York"]))

    page.get_by_label("Times in").fill("Asia/Kolkata")
    page.keyboard.press("Enter")

    expect(page.get_by_label("Times in")).to_have_value("Asia/Kolkata")
    expect(seen).to_have_attribute("title", page.evaluate(told, [instant, "Asia/Kolkata"]))
    assert complaints == []


def test_steps_of_a_policy_are_moved_by_keyboard_and_by_pointer(
    server: Server, signed_in: tuple[Page, list[str]]
) -> None:
    page, complaints = signed_in
    hook = server.webhook("http://127.0.0.1:9/x")
    steps = [{"channels": [hook], "wait": wait} for wait in (0, 60, 120)]
    made = server.ask("POST", "/v1/policies", {"name": "Ladder", "steps": steps}, expect=201)["id"]
    page.goto(f"{server.url}/policies/{made}")
    foreseen = page.get_by_role("region", name="If it fired now").get_by_role("listitem")
    expect(foreseen.nth(2)).to_contain_text("After 3m")

    page.get_by_role("button", name="Move step 3 up").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Move step 2 up")).to_be_focused()
    expect(foreseen.nth(1)).to_contain_text("After 2m", timeout=PATIENCE_MS)
    grip, top = page.locator("[data-grip]").nth(2), page.locator("[data-grip]").nth(0)
    start, end = grip.bounding_box(), top.bounding_box()
    assert start is not None
    assert end is not None
    page.mouse.move(start["x"] + 5, start["y"] + 5)
    page.mouse.down()
    # One rung at a time, as a hand would.
    page.mouse.move(start["x"] + 5, (start["y"] + end["y"]) / 2, steps=20)
    page.mouse.move(start["x"] + 5, end["y"], steps=20)
    page.mouse.up()
    page.get_by_role("button", name="Keep the changes").click()

    expect(foreseen.nth(0)).to_contain_text("After 1m")
    after = server.ask("GET", f"/v1/policies/{made}")["steps"]
    assert [each.get("wait", 0) for each in after] == [60, 0, 120]
    assert complaints == []


def test_an_open_page_comes_back_by_itself_when_the_server_was_restarted(tmp_path: Path, chromium: Browser) -> None:
    with serving(tmp_path, log_level="error") as first:
        port = first.port
        context = chromium.new_context()
        page = context.new_page()
        page.goto(first.url + setup_link(first))
        page.get_by_label("E-mail").fill(OWNER)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password again").fill(PASSWORD)
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="Nothing beats yet")).to_be_visible(timeout=PATIENCE_MS)
        first.terminate()
        # It waits for 20 s for what is under way: the stream of the page must not be among that.
        assert first.exit_code(within_s=15) == 0
    expect(page.get_by_text("reconnecting")).to_be_visible(timeout=PATIENCE_MS)

    with serving(tmp_path, log_level="error", port=port) as second:
        second.heartbeat("after-the-restart")
        expect(page.get_by_role("row", name="after-the-restart")).to_be_visible(timeout=PATIENCE_MS)
        expect(page.get_by_text("reconnecting")).to_be_hidden(timeout=PATIENCE_MS)
    context.close()
