"""The pages of vitals as they are sent: who may see them, what they may load, and keys that are shown once."""

import hashlib
import json
import re
from typing import Any

from lifesign.vitals.signal.synth import Scene, synthetic
from tests.harness import Lifesign, MakeLifesign
from tests.usage.builders import new_email, take_key
from tests.vitals.sockets import connected
from tests.web.browser import Browser, browser, executed_by, said, signed_up

DISCLAIMER = "Wellness estimate from camera images. Not a medical device. Not for diagnosis, treatment or emergencies."
WANTED = {"name": "Jane Smith", "email": "jane@healthapp.example", "company": "", "use_case": ""}


# The camera ---------------------------------------------------------------------------------------------------------
async def test_the_camera_is_for_people_who_are_signed_in_and_the_trial_for_everybody(lifesign: Lifesign) -> None:
    nobody, owner = browser(lifesign), await signed_up(lifesign)

    await nobody.get("/vitals", expect=303)
    assert nobody.last.headers["location"] == "/signin?next=/vitals"
    for page in (await owner.get("/vitals"), await nobody.get("/try")):
        assert DISCLAIMER in said(page)
        assert "No image and no video is ever sent." in said(page)
        assert executed_by(page) == []
    assert "not a patient monitor" in said(await owner.get("/vitals"))


async def test_its_policy_allows_no_more_than_it_needs(lifesign: Lifesign) -> None:
    nobody = browser(lifesign)

    await nobody.get("/try")
    policy = nobody.last.headers["content-security-policy"]
    await nobody.get("/vitals/keys")

    assert policy == (
        "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; connect-src 'self'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'; object-src 'none'"
    )
    assert "wasm" not in nobody.last.headers["content-security-policy"]


async def test_a_trial_that_is_switched_off_is_not_there(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(demo=False) as lifesign:
        nobody = browser(lifesign)

        assert "Nothing here" in said(await nobody.get("/try", expect=404))
        assert "try it" not in said(await nobody.get("/vitals/keys"))


async def test_a_session_needs_a_form_of_ours_and_a_heartbeat_that_is_known(lifesign: Lifesign) -> None:
    await lifesign.heartbeat("grandma")
    owner, viewer = await signed_up(lifesign), await signed_up(lifesign, "eve@example.org", role="viewer")

    assert re.search(r'"token":"vst_[0-9a-f]{64}"', await owner.post("/vitals/session", expect=201))
    assert '"id":"vs_' in await owner.post("/vitals/session", {"heartbeat": "grandma"}, expect=201)
    assert "Heartbeat not found" in await owner.post("/vitals/session", {"heartbeat": "nobody"}, expect=400)
    await owner.post("/vitals/session", {"csrf": "0"}, expect=403)
    await viewer.post("/vitals/session", expect=201)
    await viewer.post("/vitals/session", {"heartbeat": "grandma"}, expect=403)
    assert "Let it check in" not in said(await viewer.get("/vitals"))


async def test_the_files_of_others_are_those_that_were_chosen(lifesign: Lifesign) -> None:
    place = re.search(r'src="(/static/vitals/\w+)/capture.js"', await browser(lifesign).get("/try"))
    assert place is not None
    hashes = {
        "vision_bundle.mjs": "55d7ab624fbb70dcc5adc4ae6d7ea9cfcb569139d3dbfbf2b1deafcb966bc0fe",
        "vision_wasm_internal.js": "e7fd9858e8e8f221d9b96eddc11f8e077f263e0b7bbd79d3cbe882b134274f8c",
        "vision_wasm_internal.wasm": "6a5c64584c2ab61c763b6e204afbdbc7ce1caf7f5216187322bca8df94f646bc",
        "blaze_face_short_range.tflite": "b4578f35940bf5a1a655214a1cce5cab13eba73c1297cd78e1a04c2380b0152f",
    }

    async with lifesign.client(None) as client:
        for name, sha256 in hashes.items():
            got = await client.get(f"{place[1]}/{name}")
            assert hashlib.sha256(got.content).hexdigest() == sha256
            assert "immutable" in got.headers["cache-control"]
        plain = await client.get(f"{place[1]}/vision_wasm_internal.wasm", headers={"Accept-Encoding": "identity"})
        assert hashlib.sha256(plain.content).hexdigest() == hashes["vision_wasm_internal.wasm"]
        assert plain.headers["content-type"] == "application/wasm"
        assert (await client.get(f"{place[1]}/LICENSE")).status_code == 404


# History ------------------------------------------------------------------------------------------------------------
async def _measure(lifesign: Lifesign, person: Browser, *, bpm: float = 72.0, seconds: int = 12, **fields: str) -> Any:
    """A stream as the page makes it, to its end; the report."""
    await person.get("/vitals")
    made = json.loads(await person.post("/vitals/session", fields, expect=201))["session"]
    recording = synthetic(Scene(bpm=bpm, seconds=seconds, fps=15))
    async with connected(lifesign) as socket:
        socket.start(made["token"])
        socket.frames(recording, 0, len(recording.t_ms))
        socket.say({"type": "stop"})
        report = (await socket.hear("final"))["report"]
        await socket.end()
    await lifesign.advance(60)
    return report


def _rows(page: str) -> list[str]:
    table = re.search(r'<section class="panel" id="history".*?</section>', page, re.DOTALL)
    assert table is not None
    body = re.search(r"<table data-rows>.*?<tbody>(.*?)</tbody>", table[0], re.DOTALL)
    return [said(each) for each in re.findall(r"<tr>.*?</tr>", body[1], re.DOTALL)] if body else []


async def test_what_a_person_keeps_is_their_history_newest_first_with_a_chart(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)
    assert "Nothing was kept yet. Choose" in said(await owner.get("/vitals"))

    first = await _measure(lifesign, owner, bpm=60, keep="on")
    await _measure(lifesign, owner, bpm=80)
    second = await _measure(lifesign, owner, bpm=90, keep="on")
    page = await owner.get("/vitals")

    rows = _rows(page)
    rates = [each["vitals"]["heart_rate"]["value"] for each in (second, first)]
    assert [re.findall(r"([\d.]+) bpm", each) for each in rows] == [[str(rate)] for rate in rates]
    assert [round(rate / 10) for rate in rates] == [9, 6]
    [chart] = re.findall(r'<svg class="chart".*?</svg>', page, re.DOTALL)
    assert 'aria-label="Heart rates that were kept, 60 to 90 bpm (UTC)"' in chart
    # In the order of time, as charts are; the highest fills it.
    assert re.findall(r"<title>.*?: (\d+) bpm</title>", chart) == ["60", "90"]
    assert [float(each) for each in re.findall(r'height="([\d.]+)"><title>', chart)] == [29.3, 44.0]
    assert executed_by(page) == []


async def test_a_history_is_nobody_elses(lifesign: Lifesign) -> None:
    owner, editor = await signed_up(lifesign), await signed_up(lifesign, "eve@example.org", role="editor")
    await _measure(lifesign, owner, keep="on")
    [path] = re.findall(r'action="(/vitals/measurements/\w+/delete)"', await owner.get("/vitals"))
    measurement_id = path.split("/")[3]

    assert _rows(await editor.get("/vitals")) == []
    await editor.post(path, expect=404)
    async with lifesign.client(None) as client:
        client.headers["X-API-Key"] = (await take_key(client, new_email())).json()["api_key"]["key"]
        assert (await client.get("/api/vitals/measurements")).json()["measurements"] == []
        assert (await client.get(f"/api/vitals/measurements/{measurement_id}")).status_code == 404
        assert (await client.delete(f"/api/vitals/measurements/{measurement_id}")).status_code == 404
    assert len(_rows(await owner.get("/vitals"))) == 1


async def test_what_was_kept_can_be_deleted_and_goes_by_itself(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(vitals_retention_days=2) as lifesign:
        owner = await signed_up(lifesign)
        oldest = await _measure(lifesign, owner, bpm=60, keep="on")
        await _measure(lifesign, owner, bpm=90, keep="on")
        newest, *_ = re.findall(r'action="(/vitals/measurements/\w+/delete)"', await owner.get("/vitals"))

        assert await owner.post(newest) == "/vitals#history"
        [left] = _rows(await owner.get("/vitals"))
        assert f" {oldest['vitals']['heart_rate']['value']} bpm " in left
        await owner.post(newest, expect=404)

        await lifesign.advance(3 * 86_400)
        assert "Nothing was kept yet." in said(await owner.get("/vitals"))


async def test_a_measurement_without_a_heart_rate_is_not_kept(lifesign: Lifesign) -> None:
    owner = await signed_up(lifesign)

    report = await _measure(lifesign, owner, seconds=4, keep="on")

    assert report["vitals"]["heart_rate"]["reason"] == "too_short"
    assert _rows(await owner.get("/vitals")) == []


async def test_a_viewer_keeps_nothing_and_sees_what_they_kept_before(lifesign: Lifesign) -> None:
    editor = await signed_up(lifesign, "eve@example.org", role="editor")
    await _measure(lifesign, editor, keep="on")
    [path] = re.findall(r'action="(/vitals/measurements/\w+/delete)"', await editor.get("/vitals"))
    viewer = await signed_up(lifesign, "eve@example.org", role="viewer")
    other = await signed_up(lifesign, "vic@example.org", role="viewer")

    page = await viewer.get("/vitals")
    await viewer.post("/vitals/session", {"keep": "on"}, expect=403)
    await viewer.post(path, expect=403)

    assert len(_rows(page)) == 1
    assert "Delete" not in said(page)
    assert "Keep the result" not in said(page)
    assert "Keeping a measurement takes an editor" in said(await other.get("/vitals"))


async def test_the_trial_has_no_history(lifesign: Lifesign) -> None:
    page = await browser(lifesign).get("/try")

    assert "History" not in said(page)
    assert "Keep the result" not in said(page)


# Keys ---------------------------------------------------------------------------------------------------------------
async def test_a_key_stands_in_one_answer_and_works(lifesign: Lifesign) -> None:
    nobody = browser(lifesign)
    await nobody.get("/vitals/keys")

    page = await nobody.post("/vitals/keys", WANTED, expect=201)

    [key] = set(re.findall(r"beam_[0-9a-f]{32}", page))
    assert "shown here once and never again" in said(page)
    assert executed_by(page) == []
    assert nobody.last.headers["cache-control"] == "no-store"
    assert "set-cookie" not in nobody.last.headers
    async with lifesign.client(None) as client:
        own = (await client.get("/api/keys/me", headers={"X-API-Key": key})).json()["api_key"]
    assert (own["name"], own["email"], own["company"], own["use_case"]) == (
        "Jane Smith",
        "jane@healthapp.example",
        None,
        None,
    )


async def test_faults_stand_beside_their_field_in_the_words_of_the_api(lifesign: Lifesign) -> None:
    nobody = browser(lifesign)

    for field, value, words in (
        ("name", " ", "Name is required"),
        ("email", "a@", "Valid email is required"),
        ("company", "x" * 201, "Company must be a string of at most 200 characters"),
        ("use_case", "gaming", "Invalid use_case. Must be one of: telehealth, wellness, fitness, research, other"),
    ):
        page = await nobody.post("/vitals/keys", WANTED | {field: value}, expect=400)
        assert f'<p class="fault" id="{field}-says">{words}</p>' in page
        assert 'value="jane@healthapp.example"' in page or field == "email"


async def test_three_keys_are_enough_and_what_was_typed_is_no_markup(lifesign: Lifesign) -> None:
    nobody = browser(lifesign)
    hostile = WANTED | {"name": '"><script>alert(1)</script>'}
    for _ in range(3):
        assert executed_by(await nobody.post("/vitals/keys", hostile, expect=201)) == []

    page = await nobody.post("/vitals/keys", hostile, expect=429)

    assert "Maximum 3 API keys per email. Contact support for additional keys." in said(page)
    assert executed_by(page) == []


async def test_networks_may_be_limited_and_forms_of_elsewhere_are_refused(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(keys_per_address_per_hour=1) as lifesign:
        nobody = browser(lifesign)
        await nobody.post("/vitals/keys", WANTED, expect=201)

        assert "Too many key requests from this address" in said(
            await nobody.post("/vitals/keys", WANTED | {"email": "joe@x.io"}, expect=429)
        )
        assert nobody.last.headers["retry-after"] == "3600"
        await nobody.post("/vitals/keys", WANTED, expect=403, Origin="https://elsewhere.example")
