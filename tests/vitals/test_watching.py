"""A pulse that checks in a heartbeat: who may ask for it, when it does, and what silence does."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import httpx2
import numpy as np
import pytest

from lifesign.db import StorageUnavailable
from lifesign.vitals.rules import Remembered, Watch, Watching, WatchInvalid, watch_in
from lifesign.vitals.signal.synth import Scene, Synthetic, noise_trace, synthetic
from tests.harness import ADMIN_KEY, Json, Lifesign
from tests.shared import new_project
from tests.vitals.sockets import connected
from tests.vitals.test_stream import play, session_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

_ADMIN = {"Authorization": f"Bearer {ADMIN_KEY}"}
_ANALYZE = "/api/vitals/analyze"
_FPS = 15
_SCENE = Scene(seconds=12, fps=_FPS)


def body_of(scene: Scene, **members: object) -> Json:
    made = synthetic(scene)
    return {"t_ms": made.t_ms.round(2).tolist(), "rgb": made.rgb.round(3).tolist(), **members}


def joined(*parts: Synthetic) -> Synthetic:
    """One after the other."""
    step = 1000 / _FPS
    times = [part.t_ms + index * (parts[0].t_ms[-1] + step) for index, part in enumerate(parts)]
    return Synthetic(np.concatenate(times), np.concatenate([part.rgb for part in parts]), parts[0].beats_s)


async def history(lifesign: Lifesign, ref: str) -> list[Json]:
    """What a heartbeat went through, oldest first, without its making and who was told."""
    return [each for each in reversed(await lifesign.events(ref)) if each["type"] not in {"created", "unattended"}]


async def types(lifesign: Lifesign, ref: str) -> list[str]:
    return [each["type"] for each in await history(lifesign, ref)]


# Whole recordings ---------------------------------------------------------------------------------------------------
async def test_a_given_heart_rate_checks_in_and_a_refused_one_does_not(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    ref = (await shared_node.heartbeat("Resting"))["id"]
    noise = noise_trace(12, 30, 5)
    refused = {"t_ms": noise.t_ms.round(2).tolist(), "rgb": noise.rgb.round(3).tolist()}
    watch = {"heartbeat": ref, "every_s": 10}

    assert (await api.post(_ANALYZE, json=refused | {"watch": watch}, headers=_ADMIN)).status_code == 200
    assert await types(shared_node, ref) == []
    for advance_s in (1, 8, 1):
        answer = await api.post(_ANALYZE, json=body_of(_SCENE, watch=watch), headers=_ADMIN)
        assert "warnings" not in answer.json()
        await shared_node.advance(advance_s)
    assert await types(shared_node, ref) == ["checkin"]
    await api.post(_ANALYZE, json=body_of(_SCENE, watch=watch), headers=_ADMIN)

    first, second = await history(shared_node, ref)
    assert first["metadata"]["metadata"] == second["metadata"]["metadata"] == {"source": "vitals"}


async def test_what_is_provisional_checks_nothing_in(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    ref = (await shared_node.heartbeat("Not yet"))["id"]
    watch = {"heartbeat": ref, "every_s": 10}

    told = (await api.post(_ANALYZE, json=body_of(replace(_SCENE, seconds=9), watch=watch), headers=_ADMIN)).json()
    assert told["report"]["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1.5)
    assert "provisional" in told["report"]["warnings"]
    assert await types(shared_node, ref) == []
    session = await session_of(api, {"watch": watch}, **_ADMIN)
    async with connected(shared_node) as socket:
        socket.start(session["token"])
        updates = await play(shared_node, socket, synthetic(_SCENE), 9)
        assert updates[-1]["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1.5)
        assert "provisional" in updates[-1]["warnings"]
        assert await types(shared_node, ref) == []
        await play(shared_node, socket, synthetic(_SCENE), 3, since=9)
        socket.say({"type": "stop"})
        await socket.hear("final")

    assert await types(shared_node, ref) == ["checkin"]


async def test_a_key_of_another_project_watches_nothing_here(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    ref = (await shared_node.heartbeat("Of this project"))["id"]
    async with new_project(shared_node) as elsewhere:
        may = {"Authorization": elsewhere.http.headers["Authorization"]}
        for path, body in ((_ANALYZE, body_of(_SCENE)), ("/api/vitals/sessions", {})):
            answer = await api.post(path, json=body | {"watch": {"heartbeat": ref}}, headers=may)
            assert (answer.status_code, answer.json()["message"]) == (404, "Heartbeat not found")

    assert await types(shared_node, ref) == []


async def test_a_heart_rate_outside_the_limits_is_unhealthy(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    ref = (await shared_node.heartbeat("Slow"))["id"]
    watch = {"heartbeat": "slow", "min_bpm": 80, "include_value": True}

    for scene in (_SCENE, _SCENE, replace(_SCENE, bpm=90.0)):
        await api.post(_ANALYZE, json=body_of(scene, watch=watch), headers=_ADMIN)

    assert await types(shared_node, ref) == ["checkin_unhealthy", "firing", "checkin", "resolved"]
    metadata = (await history(shared_node, ref))[0]["metadata"]["metadata"]
    assert metadata["source"] == "vitals"
    assert metadata["heart_rate"] == pytest.approx(72, abs=0.5)
    assert 0.5 < metadata["confidence"] <= 1


@pytest.mark.parametrize("path", [_ANALYZE, "/api/vitals/sessions"])
async def test_a_key_of_this_api_alone_may_watch_nothing(
    shared_node: Lifesign, api: httpx2.AsyncClient, path: str
) -> None:
    ref = (await shared_node.heartbeat("Not yours"))["id"]
    narrow = await shared_node.ask("POST", "/v1/keys", {"name": "reader", "scopes": ["keys:read"]}, expect=201)
    body = body_of(_SCENE, watch={"heartbeat": ref}) if path == _ANALYZE else {"watch": {"heartbeat": ref}}

    for headers in ({}, {"Authorization": "Bearer lsk_x"}, {"Authorization": f"Bearer {narrow['token']}"}):
        answer = await api.post(path, json=body, headers=headers)
        assert (answer.status_code, answer.json()) == (
            403,
            {"success": False, "message": "A key with scope checkins:write is required to watch a heartbeat"},
        )
    unknown = await api.post(path, json=body | {"watch": {"heartbeat": "hb_0"}}, headers=_ADMIN)
    assert (unknown.status_code, unknown.json()["message"]) == (404, "Heartbeat not found")
    wrong = await api.post(path, json=body | {"watch": {"heartbeat": ref, "every_s": 9}}, headers=_ADMIN)
    assert (wrong.status_code, wrong.json()["message"]) == (400, "Invalid watch")
    assert await types(shared_node, ref) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b'{"watch":{"heartbeat":"nope"},"rgb":[]}', 403),
        (b'{"watch":{"heartbeat":"nope"},"rgb":[],"x":NaN}', 403),
        (b'\xef\xbb\xbf{"watch":{"heartbeat":"nope"},"rgb":[]}', 403),
        (b'{"watch":{"heartbeat":"nope","every_s":1e999},"rgb":[]}', 400),
        (b'{"watch":{"heartbeat":"\xff"},"rgb":[]}', 400),
        (b'{"rgb":[],"x":NaN}', 400),
    ],
)
async def test_however_a_body_is_written_what_it_watches_is_judged(
    api: httpx2.AsyncClient, body: bytes, status: int
) -> None:
    answer = await api.post(_ANALYZE, content=body, headers={"Content-Type": "application/json"})

    assert answer.status_code == status, answer.text


async def test_a_form_says_what_is_watched_in_json(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    for watch, status in (("{", 400), ('{"heartbeat":"nobody"}', 404)):
        files = {"frame": ("0.jpg", b"\xff\xd8\xff", "image/jpeg")}
        answer = await api.post("/api/rppg/measure", files=files, data={"watch": watch}, headers=_ADMIN)
        assert answer.status_code == status


async def test_a_check_in_that_fails_is_told_and_the_measurement_is_given(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    await shared_node.heartbeat("Gone soon", slug="gone-soon")
    watch = {"heartbeat": "gone-soon"}
    with _failing(shared_node):
        answer = await api.post(_ANALYZE, json=body_of(_SCENE, watch=watch), headers=_ADMIN)

    assert answer.json()["warnings"] == ["checkin_failed"]
    assert answer.json()["report"]["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=0.5)


@contextmanager
def _failing(lifesign: Lifesign) -> Iterator[None]:
    """Check-ins meet a database that is away."""

    def away(*_: object) -> None:
        raise StorageUnavailable("gone")

    state = lifesign.node.api.state
    kept, state.check_ins = state.check_ins, SimpleNamespace(record=away)
    try:
        yield
    finally:
        state.check_ins = kept


# Streams ------------------------------------------------------------------------------------------------------------
async def test_a_watched_stream_checks_in_and_fires_when_the_pulse_is_lost(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    ref = (await shared_node.heartbeat("Watched", interval=30, grace=0))["id"]
    session = await session_of(api, {"watch": {"heartbeat": ref, "every_s": 10}, "max_s": 120}, **_ADMIN)
    good = synthetic(Scene(seconds=25, fps=_FPS))

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        await play(shared_node, socket, joined(good, noise_trace(60, _FPS, 3)), 75)
        given = [each for each in await history(shared_node, ref) if each["type"] == "checkin"]
        assert len(given) == 2
        assert all(each["metadata"]["metadata"] == {"source": "vitals"} for each in given)
        socket.say({"type": "stop"})
        await socket.hear("final")

    assert await types(shared_node, ref) == ["checkin", "checkin", "firing"]
    [incident] = await shared_node.incidents(ref)
    assert incident["reason"] == "missed"


async def test_a_watched_stream_tells_when_the_pulse_crosses_a_limit_and_tries_again_what_failed(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    ref = (await shared_node.heartbeat("Limits"))["id"]
    watch = {"heartbeat": ref, "every_s": 60, "max_bpm": 80}
    session = await session_of(api, {"watch": watch}, **_ADMIN)
    fast = synthetic(Scene(seconds=50, fps=_FPS, bpm=70, bpm_step=100))

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        with _failing(shared_node):
            updates = await play(shared_node, socket, fast, 12)
            assert (await socket.hear("warning"))["code"] == "checkin_failed"
        assert updates[-1]["vitals"]["heart_rate"]["value"] == pytest.approx(70, abs=1)
        assert await types(shared_node, ref) == []
        await play(shared_node, socket, fast, 38, since=12)
        socket.say({"type": "stop"})
        await socket.hear("final")

    assert await types(shared_node, ref) == ["checkin", "checkin_unhealthy", "firing"]


async def test_a_stream_checks_nothing_in_once_the_key_that_may_was_revoked(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    ref = (await shared_node.heartbeat("Taken back"))["id"]
    key = await shared_node.ask("POST", "/v1/keys", {"name": "pulse", "scopes": ["checkins:write"]}, expect=201)
    may = {"Authorization": f"Bearer {key['token']}"}
    session = await session_of(api, {"watch": {"heartbeat": ref, "every_s": 10}}, **may)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        await play(shared_node, socket, joined(synthetic(_SCENE)), 2)
        await shared_node.ask("DELETE", f"/v1/keys/{key['id']}", expect=204)
        await shared_node.advance(10)
        socket.frames(synthetic(_SCENE), 2 * _FPS, 12 * _FPS)
        code, said = await socket.end()

    assert (code, said[-1]["code"]) == (1008, "key_revoked")
    assert await types(shared_node, ref) == []


# The rules ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "wrong",
    [
        5,
        {},
        {"heartbeat": ""},
        {"heartbeat": 5},
        {"heartbeat": "a\x00b"},
        {"heartbeat": "\ud800"},
        {"heartbeat": "a" * 201},
        {"heartbeat": "a", "every_s": 9},
        {"heartbeat": "a", "every_s": 3601},
        {"heartbeat": "a", "every_s": True},
        {"heartbeat": "a", "min_bpm": 19},
        {"heartbeat": "a", "max_bpm": "90"},
        {"heartbeat": "a", "min_bpm": 90, "max_bpm": 90},
        {"heartbeat": "a", "include_value": 1},
    ],
)
async def test_what_cannot_be_watched_is_refused(wrong: object) -> None:
    with pytest.raises(WatchInvalid):
        watch_in(wrong)


async def test_recordings_in_a_row_check_in_as_seldom_as_they_should_and_once_for_each_crossing() -> None:
    remembered, of = Remembered(), ("prj_1", "grandma")
    watch = Watch("grandma", every_s=30, max_bpm=100)

    def ask(bpm: float, at_s: float) -> bool | None:
        beat = remembered.due(of, watch, (bpm, 0.9), at_s)
        if beat is not None:
            remembered.sent(of, beat, at_s)
        return None if beat is None else beat.is_healthy

    said = [ask(bpm, at_s) for bpm, at_s in ((70, 0), (70, 29), (70, 30), (120, 31), (120, 99), (70, 100), (70, 101))]

    assert said == [True, None, True, False, None, True, None]


async def test_a_stream_is_outside_by_the_median_of_three_lately_and_says_so_once() -> None:
    watching = Watching(Watch("grandma", every_s=10, max_bpm=100))

    def ask(bpm: float, at_s: float) -> bool | None:
        beat = watching.due(at_s, bpm, 0.9)
        if beat is not None:
            watching.sent(beat, at_s)
        return None if beat is None else beat.is_healthy

    # Two are too few to say so; the third makes it.
    assert [ask(120, at_s) for at_s in (10, 11, 12, 13, 25)] == [True, None, False, None, None]
    # Five of each: the median is 100, which is inside.
    assert [ask(80, at_s) for at_s in (26, 27, 28, 29, 30)] == [None, None, None, None, True]
    # One that is far off is nobody's median, and what is older than half a minute counts no more.
    assert [ask(bpm, at_s) for bpm, at_s in ((80, 31), (80, 40), (200, 41))] == [None, True, None]
    assert [ask(130, at_s) for at_s in (71, 72, 73)] == [True, None, False]
