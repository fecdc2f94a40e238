"""The page with the camera in a real browser: a clip of a known pulse stands before a fake camera."""

import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from playwright.sync_api import BrowserContext, ConsoleMessage, Page, WebSocket, expect, sync_playwright

from tests.faults.server import Server, serving
from tests.harness import Json
from tests.vitals.clips import pulsing
from tests.web.browser import OWNER, PASSWORD

_CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium")
_ARGUMENTS = (
    "--no-sandbox",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
)
_PATIENCE_MS = 60_000
_FPS, _BPM = 15, 72


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten seconds, which are twelve beats, so that it goes on when it begins anew."""
    path = tmp_path_factory.mktemp("clip") / "face.y4m"
    with path.open("wb") as file:
        file.write(f"YUV4MPEG2 W640 H480 F{_FPS}:1 Ip A1:1 C420\n".encode())
        for image in pulsing(np.arange(10 * _FPS) / _FPS, bpm=_BPM):
            scene = np.full((480, 640, 3), 90, np.uint8)
            scene[:, 80:560] = cv2.resize(image, (480, 480), interpolation=cv2.INTER_LINEAR)
            file.write(b"FRAME\n" + cv2.cvtColor(scene, cv2.COLOR_RGB2YUV_I420).tobytes())
    return path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("capture"), log_level="error") as started:
        yield started


@contextmanager
def browsing(clip: Path, *arguments: str) -> Iterator[BrowserContext]:
    if _CHROMIUM is None:
        # Where changes are judged nothing may be left out quietly.
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no chromium here: apt-get install chromium")
    camera = ("--use-fake-device-for-media-stream", f"--use-file-for-fake-video-capture={clip}")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_ARGUMENTS, *camera, *arguments])
        yield opened.new_context(viewport={"width": 360, "height": 800})
        opened.close()


def heard_of(page: Page) -> list[str]:
    """What the page asks of servers, and what it sends them, as it goes on."""
    told: list[str] = []
    page.on("request", lambda request: told.append(f"{request.method} {request.url} {request.post_data or ''}"))

    def opened(socket: WebSocket) -> None:
        told.append(f"SOCKET {socket.url}")

        def sent(payload: str | bytes) -> None:
            told.append(f"SENT {payload!s}")

        def heard(payload: str | bytes) -> None:
            told.append(f"HEARD {payload!s}")

        socket.on("framesent", sent)
        socket.on("framereceived", heard)

    page.on("websocket", opened)
    return told


def complaints_of(page: Page) -> list[str]:
    complaints: list[str] = []

    def heard(message: ConsoleMessage) -> None:
        # What finds the face writes everything that it tells where errors stand.
        if message.type == "error" and not message.text.startswith("INFO: "):
            complaints.append(message.text)

    page.on("console", heard)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    return complaints


def test_anybody_sees_their_pulse_and_only_numbers_leave_the_page(server: Server, clip: Path) -> None:
    with browsing(clip, "--use-fake-ui-for-media-stream") as context:
        page = context.new_page()
        told, complaints = heard_of(page), complaints_of(page)
        page.goto(f"{server.url}/try")
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.get_by_role("button", name="Start the camera").focus()
        page.keyboard.press("Enter")

        expect(page.locator("#rate")).to_have_text(re.compile(r"^7[0-4]$"), timeout=_PATIENCE_MS)
        expect(page.locator("#confidence")).to_have_text(re.compile(r"^\d+ %$"))
        drawn = "canvas => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)"
        assert page.locator("#wave").evaluate(drawn)
        page.get_by_role("button", name="Stop").click()
        expect(page.get_by_role("row").nth(1)).to_contain_text("bpm", timeout=_PATIENCE_MS)
        assert page.evaluate("document.querySelector('video').srcObject") is None
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")

    host = server.url.partition("://")[2]
    asked = [urlsplit(each.split(" ")[1]) for each in told if not each.startswith(("SENT ", "HEARD "))]
    assert {each.netloc for each in asked} == {host}
    sent = [each for each in told if each.startswith("SENT ")]
    frames = [each for each in sent if '"frames"' in each]
    assert len(frames) > 5
    assert max(map(len, frames)) < 5000
    assert all(re.fullmatch(r"[\w\s{}\[\]\":,.+-]*", each) for each in sent[1:])
    assert '"face":[0.' in frames[-1]
    assert complaints == []
    heard = [json.loads(each.removeprefix("HEARD ")) for each in told if each.startswith("HEARD ")]
    updates = [each for each in heard if each["type"] == "update"]
    first = next(each for each in updates if each["vitals"]["heart_rate"]["value"] is not None)
    assert 8 <= first["elapsed_s"] <= 15
    assert first["vitals"]["heart_rate"]["value"] == pytest.approx(_BPM, abs=2)


def test_whoever_refuses_the_camera_is_told_and_no_session_is_made(server: Server, clip: Path) -> None:
    with browsing(clip, "--deny-permission-prompts") as context:
        page = context.new_page()
        told = heard_of(page)
        page.goto(f"{server.url}/try")
        page.get_by_role("button", name="Start the camera").click()

        expect(page.get_by_text("The camera was refused, so nothing is measured.")).to_be_visible(timeout=_PATIENCE_MS)
        expect(page.get_by_role("button", name="Start the camera")).to_be_visible()

    assert not [each for each in told if "session" in each or each.startswith("SOCKET")]


def test_without_what_finds_a_face_there_is_an_oval_to_fill(server: Server, clip: Path) -> None:
    with browsing(clip, "--use-fake-ui-for-media-stream") as context:
        page = context.new_page()
        told = heard_of(page)
        page.route("**/vision_bundle.mjs", lambda route: route.abort())
        page.goto(f"{server.url}/try")
        page.get_by_role("button", name="Start the camera").click()

        expect(page.get_by_text("Fill the oval with your face")).to_be_visible(timeout=_PATIENCE_MS)
        expect(page.locator("#reason")).to_have_text(re.compile("Hold still"), timeout=_PATIENCE_MS)
        page.get_by_role("button", name="Stop").click()

    assert [each for each in told if each.startswith("SENT ") and '"frames"' in each and '"face"' not in each]


def test_a_signed_in_person_lets_their_pulse_check_in_a_heartbeat(server: Server, clip: Path) -> None:
    server.heartbeat("grandma")
    link = re.search(r"^setup link: \S+?(/setup/\S+)$", server.output.read_text(), re.MULTILINE)
    assert link is not None
    with browsing(clip, "--use-fake-ui-for-media-stream") as context:
        page = context.new_page()
        page.goto(server.url + link[1])
        page.get_by_label("E-mail").fill(OWNER)
        page.get_by_label("Password", exact=True).fill(PASSWORD)
        page.get_by_label("Password again").fill(PASSWORD)
        page.keyboard.press("Enter")
        page.get_by_role("link", name="Vitals").click()
        page.get_by_label("Let it check in a heartbeat").fill("nobody")
        page.get_by_role("button", name="Start the camera").click()
        expect(page.get_by_text("Heartbeat not found")).to_be_visible(timeout=_PATIENCE_MS)
        page.get_by_label("Let it check in a heartbeat").fill("grandma")
        page.get_by_label("Keep the result in my history").press("Space")
        page.get_by_role("button", name="Start the camera").click()

        expect(page.locator("#rate")).to_have_text(re.compile(r"^7[0-4]$"), timeout=_PATIENCE_MS)
        checked_in: list[Json] = []
        while not checked_in:
            # Each update may be the one that checks in; they come once a second.
            page.wait_for_timeout(200)
            events = server.ask("GET", "/v1/heartbeats/grandma/events")["events"]
            checked_in = [each for each in events if each["type"] == "checkin"]
        page.get_by_role("button", name="Stop").click()
        # What was just kept comes without a reload.
        kept = page.locator("#history tbody").last.get_by_role("row")
        expect(kept).to_have_count(1, timeout=_PATIENCE_MS)
        rate = kept.get_by_role("cell").nth(2).inner_text()
        page.get_by_role("button", name=re.compile("^Delete the measurement of")).press("Enter")
        expect(page.get_by_text("Nothing was kept yet.")).to_be_visible(timeout=_PATIENCE_MS)

    assert re.fullmatch(r"7[0-4]\.\d bpm", rate)
    assert checked_in[-1]["metadata"]["metadata"] == {"source": "vitals"}


def test_a_key_is_shown_once_and_copied(server: Server, clip: Path) -> None:
    with browsing(clip) as context:
        context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = context.new_page()
        complaints = complaints_of(page)
        page.goto(f"{server.url}/vitals/keys")
        page.keyboard.press("Tab")
        page.get_by_label("Name").fill("Jane Smith")
        page.get_by_label("E-mail").fill("jane@healthapp.example")
        page.keyboard.press("Enter")

        key = page.get_by_label("Key of Jane Smith").input_value()
        assert re.fullmatch(r"beam_[0-9a-f]{32}", key)
        page.get_by_role("button", name="Copy").click()
        expect(page.get_by_text("Copied.")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == key
        assert key not in page.url
        assert page.evaluate("localStorage.length + sessionStorage.length") == 0
        assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        page.goto(f"{server.url}/vitals/keys")
        assert key not in page.content()
    assert complaints == []
