"""Every page in a real browser: what axe-core finds, in both colour schemes, and what scrolls sideways at 360 px.

And the way from nothing to an alarm that somebody acknowledged, with what it costs in clicks and fields.
"""

import json
import re
from collections.abc import Iterator

import httpx2
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, expect

from lifesign.vitals.signal.synth import Scene, synthetic
from tests.faults.server import Server, serving
from tests.telemetry.requests import TRACE, USUAL, body_of
from tests.web.browser import OWNER, PASSWORD
from tests.web.pictures import keep_picture
from tests.web.test_browser import PATIENCE_MS, chromium, setup_link

__all__ = ["chromium"]

_LONG = "x" * 200
_GRAVE = {"serious", "critical"}
# What the page with the camera does, with numbers that were made up.
_MEASURE = """async ({ t, rgb }) => {
  const { session: address, csrf } = document.getElementById("capture").dataset;
  const answer = await fetch(address, { method: "POST", body: new URLSearchParams({ csrf, keep: "on" }) });
  const { session } = await answer.json();
  const socket = new WebSocket(location.origin.replace("http", "ws") + session.ws_url);
  return new Promise((resolve, reject) => {
    const send = (message) => socket.send(JSON.stringify(message));
    socket.onopen = () => send({ type: "start", token: session.token });
    socket.onclose = ({ code }) => reject(new Error(`closed with ${code}`));
    socket.onmessage = ({ data }) => {
      const message = JSON.parse(data);
      if (message.type === "ready") { send({ type: "frames", seq: 0, t, rgb }); send({ type: "stop" }); }
      if (message.type === "final") resolve(message.report.vitals.heart_rate.value);
    };
  });
}"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    # Nobody is sent to the provider: what is looked at is the button that leads there.
    provider = {"oidc_issuer": "https://id.example.org", "oidc_client_id": "lifesign"}
    with serving(tmp_path_factory.mktemp("accessible"), log_level="error", **provider) as started:
        yield started


@pytest.fixture(scope="module")
def page(server: Server, chromium: Browser) -> Iterator[Page]:
    """A page of the owner, who has just signed up."""
    opened = chromium.new_context(viewport={"width": 1280, "height": 800}).new_page()
    opened.goto(server.url + setup_link(server))
    opened.get_by_label("E-mail").fill(OWNER)
    opened.get_by_label("Password", exact=True).fill(PASSWORD)
    opened.get_by_label("Password again").fill(PASSWORD)
    opened.keyboard.press("Enter")
    expect(opened.get_by_role("heading", name="Nothing beats yet")).to_be_visible(timeout=PATIENCE_MS)
    yield opened
    opened.context.close()


def _keep_measurements(server: Server, page: Page) -> None:
    """Two rows of history on the page with the camera."""
    page.goto(f"{server.url}/vitals")
    for bpm in (60, 85):
        made = synthetic(Scene(bpm=bpm, seconds=12, fps=15))
        told = page.evaluate(_MEASURE, {"t": made.t_ms.tolist(), "rgb": made.rgb.tolist()})
        assert told == pytest.approx(bpm, abs=1)


@pytest.fixture(scope="module")
def paths(server: Server, page: Page) -> list[str]:
    """Every page, of things with long names that fire, are broken, or have never been seen."""
    hook = server.webhook("http://127.0.0.1:9/x")
    policy = server.ask("POST", "/v1/policies", {"name": _LONG, "steps": [{"channels": [hook]}]}, expect=201)["id"]
    beat = server.heartbeat("narrow", name="N" * 200, namespace="n" * 100, tags=["t" * 100], policy=policy)
    server.heartbeat("late", interval=1, grace=3600)
    server.ask("POST", "/v1/heartbeats/late/checkin")
    server.heartbeat("paused")
    server.ask("POST", "/v1/heartbeats/paused/pause")
    server.fire("narrow")
    incident = server.ask("GET", "/v1/incidents")["incidents"][0]["id"]
    system = {"name": _LONG, "fqdn": _LONG, "tags": ["y" * 50]}
    made = server.ask("POST", "/api/systems", system, expect=201)["data"]["id"]
    window = {"name": _LONG, "schedule": "0 3 * * *", "duration": 3600, "tags": ["t" * 100]}
    announced = server.ask("POST", "/v1/maintenance", window, expect=201)["id"]
    spans = [USUAL | {"name": _LONG, "spanId": f"{n:016x}", "status": {"code": 2}} for n in range(1, 20)]
    spans[1] |= {"parentSpanId": f"{1:016x}"}
    server.ask("POST", "/v1/traces", json.loads(body_of(*spans)), expect=202)
    packet = server.ask("POST", "/v1/runs/diagnose", {})["packet"]
    assert packet["issues"]
    owned = {
        "project_id": "default",
        "name": _LONG,
        "model": _LONG,
        "heartbeat": 1,
        "lifesign": {"runner": {"kind": "pull"}},
    }
    lists = {
        "providers": [{"name": "n" * 64, "kind": "openai", "base_url": "https://llm.example.com/" + _LONG}],
        "mcp_servers": [{"name": "m" * 64, "url": "https://mcp.example.com/" + _LONG}],
        "prices": [{"model": _LONG, "input_usd_per_million": 0.25, "output_usd_per_million": 15}],
    }
    server.ask("PUT", "/v1/bot/settings", {"project_id": "default"} | lists)
    bot = server.ask("POST", "/v1/bot/create", owned)["bot"]["uuid"]
    asked = {
        "project_id": "default",
        "bot_id": bot,
        "enabled": True,
        "credit_budget": 3,
        "active_days": "1,2,3,4,5,6,7",
    }
    prompt = {"prompt": _LONG, "active_hours_start": "00:30", "active_hours_end": "23:30"}
    schedule = server.ask("POST", "/v1/bot/heartbeat/configure", asked | prompt)["heartbeat"]["uuid"]
    ref = {"project_id": "default", "bot_id": bot, "heartbeat_id": schedule}
    server.ask("POST", "/v1/bot/heartbeat/trigger?async=true", ref, expect=202)
    run = server.ask("POST", "/v1/bot/runs/claim", ref)["run"]
    said = {"project_id": "default", "run_id": run["run_id"], "lease_token": run["lease_token"]}
    server.ask("POST", "/v1/bot/runs/heartbeat", said | {"log": _LONG})
    server.ask("POST", "/v1/bot/runs/finish", said | {"status": "error", "response": _LONG, "error_message": _LONG})
    record = f"rec_{TRACE}{1:016x}"
    _keep_measurements(server, page)
    return [
        "/vitals",
        "/try",
        "/vitals/keys",
        "/telemetry",
        f"/telemetry?q={_LONG}",
        f"/sessions/{TRACE}",
        f"/traces/{TRACE}?span={record}",
        "/diagnosis",
        f"/packets/{packet['packet_id']}",
        "/usage",
        "/bots",
        "/bots/new",
        f"/bots/{bot}",
        f"/bots/{bot}/edit",
        f"/bots/{bot}/schedules/new",
        f"/bots/{bot}/schedules/{schedule}/edit",
        f"/runs/{run['run_id']}",
        "/",
        "/?q=nothing",
        "/incidents",
        f"/incidents/{incident}",
        f"/heartbeats/{beat}",
        f"/heartbeats/{beat}/edit",
        "/heartbeats/new",
        "/policies",
        "/policies/new",
        f"/policies/{policy}",
        "/channels",
        "/channels/new",
        "/channels/new?type=webhook",
        f"/channels/{hook}",
        f"/channels/{hook}/edit",
        "/systems",
        "/systems/new",
        f"/systems/{made}",
        f"/systems/{made}/edit",
        "/keys",
        "/settings",
        *(f"/settings/bots/{kind}/new" for kind in ("providers", "servers", "prices")),
        f"/settings/bots/prices/edit?of={_LONG}",
        "/settings/maintenance/new",
        f"/settings/maintenance/{announced}/edit",
        "/settings/status/new",
        "/account",
        "/audit",
        "/dashboard?project=shop",
        "/no/such/page",
    ]


def test_from_nothing_to_an_alarm_that_is_acknowledged(server: Server, page: Page) -> None:
    """What a newcomer does, counted: presses are clicks on buttons and links, fields are typed in or chosen."""
    presses = fields = 0

    def press(name: str, role: str = "button") -> None:
        nonlocal presses
        presses += 1
        page.get_by_role(role, name=name, exact=True).first.click()  # type: ignore[arg-type]  # a role, as text

    def fill(label: str, text: str) -> None:
        nonlocal fields
        fields += 1
        page.get_by_label(label, exact=True).fill(text)

    press("Channels", "link")
    press("Make the first one", "link")
    page.get_by_role("link", name=re.compile("^Webhook")).click()
    presses += 1
    fill("Name", "Ops")
    fill("URL", "http://127.0.0.1:9/hook")
    press("Make it")
    press("Policies", "link")
    press("Make the first one", "link")
    fill("Name", "Standard")
    page.get_by_label(re.compile("^Ops")).check()
    fields += 1
    press("Make it")
    press("Overview", "link")
    press("New heartbeat", "link")
    fill("Name", "Backup")
    fill("Interval", "1s")
    fill("Grace", "0s")
    page.get_by_label("Policy").select_option(label="Standard")
    fields += 1
    press("Make it")
    press("Check in")
    expect(page.get_by_text("An incident is open.")).to_be_visible(timeout=PATIENCE_MS)
    page.get_by_label("Reason").first.fill("looking into it")
    fields += 1
    press("Acknowledge")

    expect(page.get_by_text(f"by user:{OWNER}")).to_be_visible(timeout=PATIENCE_MS)
    # On a slow machine it may have fired before the check-in, and again since.
    assert "ack" in {each.get("resolution") for each in server.ask("GET", "/v1/incidents")["incidents"]}
    # No more than the steps need: three things made, one look, one answer.
    assert (presses, fields) == (12, 9)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_grave_on_any_page(server: Server, page: Page, paths: list[str], scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]  # one of the two, as text
    page.set_viewport_size({"width": 1280, "height": 800})

    found = {}
    for path in [*paths, _shown_to_everybody(server, page)]:
        page.goto(server.url + path)
        keep_picture(page, f"{scheme}{path}")
        told = Axe().run(page).response["violations"]
        grave = [f"{each['id']}: {each['nodes'][0]['html'][:200]}" for each in told if each["impact"] in _GRAVE]
        if grave:
            found[path] = grave

    assert found == {}


@pytest.mark.parametrize(("width", "height"), [(360, 800), (2560, 1440)])
def test_nothing_scrolls_sideways_on_narrow_and_wide_screens(
    server: Server, page: Page, paths: list[str], width: int, height: int
) -> None:
    page.set_viewport_size({"width": width, "height": height})

    wide = {}
    for path in [*paths, _shown_to_everybody(server, page)]:
        page.goto(server.url + path)
        keep_picture(page, f"{width}{path}")
        over = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        if over:
            wide[path] = over

    assert wide == {}


@pytest.mark.usefixtures("page")
def test_signing_in_is_accessible(server: Server, chromium: Browser) -> None:
    stranger = chromium.new_context(viewport={"width": 360, "height": 800}).new_page()
    found = {}
    for path in ("/signin", "/signin/oidc/callback"):
        stranger.goto(server.url + path)
        expect(stranger.get_by_role("link", name="Sign in with id.example.org")).to_be_visible()
        told = Axe().run(stranger).response["violations"]
        found[path] = [each["id"] for each in told if each["impact"] in _GRAVE]

    expect(stranger.get_by_role("alert")).to_contain_text("This sign-in began in another browser")
    assert found == {"/signin": [], "/signin/oidc/callback": []}
    stranger.context.close()


def test_the_dashboard_of_a_project_is_for_everybody_who_has_its_key(server: Server, chromium: Browser) -> None:
    """By keyboard, at 360 px, in both colour schemes: in with the key, a session, lost keys, in with the new one."""
    with httpx2.Client(base_url=server.url, timeout=20) as client:
        made = client.post("/v1/provision", json={"project_name": "y" * 100}).json()
        spans = [USUAL | {"name": _LONG, "spanId": f"{n:016x}", "status": {"code": 2}} for n in range(1, 20)]
        producer, agent = ({"Authorization": f"Bearer {made[name]}"} for name in ("producer_key", "agent_key"))
        sent = client.post("/v1/traces", json=json.loads(body_of(*spans)), headers=producer)
        assert sent.json()["accepted"] == 19
        assert client.post("/v1/runs/diagnose", headers=agent).json()["packet"]["issues"]
    visit = chromium.new_context(
        viewport={"width": 360, "height": 800}, permissions=["clipboard-read", "clipboard-write"]
    )
    shown = visit.new_page()
    complaints: list[str] = []
    shown.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    found: list[str] = []

    def judge() -> None:
        for scheme in ("light", "dark"):
            shown.emulate_media(color_scheme=scheme)
            told = Axe().run(shown).response["violations"]
            found.extend(f"{shown.url} {scheme} {each['id']}" for each in told if each["impact"] in _GRAVE)
        if shown.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"):
            found.append(f"{shown.url} is too wide")

    shown.goto(made["dashboard_url"])
    judge()
    # The cursor stands in the field already.
    shown.keyboard.type(made["agent_key"])
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("heading", name="Quota of this month")).to_be_visible(timeout=PATIENCE_MS)
    judge()
    shown.get_by_role("link", name=TRACE).press("Enter")
    expect(shown.get_by_role("heading", name="Spans")).to_be_visible(timeout=PATIENCE_MS)
    judge()
    shown.get_by_role("link", name="All sessions").press("Enter")
    shown.get_by_label("Recovery code").fill(made["recovery_code"])
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("heading", name="New keys of")).to_be_visible(timeout=PATIENCE_MS)
    judge()
    shown.get_by_role("button", name="Copy").nth(1).press("Enter")
    expect(shown.get_by_role("button", name="Copied")).to_be_visible(timeout=PATIENCE_MS)
    copied = shown.evaluate("navigator.clipboard.readText()")
    shown.get_by_role("link", name="I have kept them").press("Enter")
    shown.get_by_role("textbox", name="Agent key").fill(copied)
    shown.keyboard.press("Enter")
    expect(shown.get_by_role("heading", name="Quota of this month")).to_be_visible(timeout=PATIENCE_MS)
    kept = shown.evaluate("JSON.stringify(localStorage) + JSON.stringify(sessionStorage) + document.cookie")
    visit.close()

    assert copied.startswith("lk_agent_")
    assert kept == "{}{}"
    assert complaints == []
    assert found == []


def _shown_to_everybody(server: Server, page: Page) -> str:
    """A public status page, made on the pages when there is none yet."""
    page.goto(f"{server.url}/settings")
    if page.get_by_role("link", name="/status/everybody").count() == 0:
        page.goto(f"{server.url}/settings/status/new")
        page.get_by_label("Title").fill(_LONG)
        page.get_by_label("Address").fill("everybody")
        page.get_by_label("What it shows").fill("narrow\nlate\npaused")
        page.get_by_label(re.compile("^Switched on")).check()
        page.get_by_role("button", name="Make it").click()
    return "/status/everybody"
