"""Streams: from the token to the report, and what closes them with which code."""

import json
from dataclasses import replace

import httpx2
import pytest

from lifesign.vitals import stream
from lifesign.vitals.signal.params import DISCLAIMER
from lifesign.vitals.signal.synth import Scene, Synthetic, synthetic
from tests.harness import Json, Lifesign
from tests.usage.builders import new_email, take_key
from tests.vitals.sockets import Socket, connected

pytestmark = pytest.mark.asyncio(loop_scope="module")

_FPS = 15
_GOOD = synthetic(Scene(seconds=12, fps=_FPS))


async def session_of(api: httpx2.AsyncClient, body: Json | None = None, **headers: str) -> Json:
    answer = await api.post("/api/vitals/sessions", json=body or {}, headers=headers)
    assert answer.status_code == 201, answer.text
    made: Json = answer.json()["session"]
    return made


async def play(lifesign: Lifesign, socket: Socket, made: Synthetic, seconds: int, *, since: int = 0) -> list[Json]:
    """Send a recording at its own pace, by the node's clock; the updates that came of it."""
    updates = []
    for second in range(since, since + seconds):
        socket.frames(made, second * _FPS, (second + 1) * _FPS)
        if second >= 1:
            updates.append(await socket.hear("update"))
        await lifesign.advance(1)
    return updates


# To the report ------------------------------------------------------------------------------------------------------
async def test_a_stream_tells_the_pulse_once_a_second_and_a_report_at_its_end(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    session = await session_of(api, {"max_s": 60, "store": True})
    path = f"/api/vitals/sessions/{session['id']}"
    assert (await api.get(path)).json()["session"]["state"] == "waiting"

    async with connected(shared_node) as socket:
        socket.start(session["token"], rois=["forehead", "cheek_l", "cheek_r"])
        assert await socket.hear() == {"type": "ready", "session": session["id"], "max_s": 60}
        updates = await play(shared_node, socket, _GOOD, 12)
        assert (await api.get(path)).json()["session"]["state"] == "open"
        socket.say({"type": "stop"})
        report = (await socket.hear("final"))["report"]
        assert await socket.end() == (1000, [])

    reasons = [each["vitals"]["heart_rate"]["reason"] for each in updates]
    assert reasons[:6] == ["too_short"] * 6
    assert updates[-1]["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1)
    assert updates[-1]["t_ms"] == updates[-2]["t_ms"] + 1000
    assert "provisional" in next(each for each in updates if each["vitals"]["heart_rate"]["value"])["warnings"]
    assert report["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=0.5)
    assert (report["vitals"]["spo2"]["value"], report["vitals"]["spo2"]["reason"]) == (None, "not_calibrated")
    assert report["vitals"]["spo2"]["ratio"] == pytest.approx(0.57, abs=0.1)
    assert (report["disclaimer"], report["version"]) == (DISCLAIMER, "1.0")
    kept = (await api.get(path)).json()["session"]
    assert (kept["state"], kept["report"]) == ("finished", report)
    measured = await api.get(f"/api/vitals/measurements/{kept['measurement_id']}")
    assert measured.json()["measurement"]["report"] == report
    await shared_node.advance(601)
    assert (await api.get(path)).status_code == 404


async def test_a_stream_ends_by_itself_and_is_its_keys_own(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    session = await session_of(api, {"max_s": 10, "method": "chrom"})
    other = (await take_key(api, new_email())).json()["api_key"]["key"]

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        for since in range(0, 180, 30):
            socket.frames(_GOOD, since, since + 30)
        code, said = await socket.end()

    assert (code, said[-1]["type"], said[-1]["report"]["method"]) == (1000, "final", "chrom")
    assert (await api.get(f"/api/vitals/sessions/{session['id']}", headers={"X-API-Key": other})).status_code == 404


async def test_a_stream_ends_soon_after_its_key_was_revoked(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    mine = {"X-API-Key": (await take_key(api, new_email())).json()["api_key"]["key"]}
    session = await session_of(api, **mine)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        await play(shared_node, socket, _GOOD, 2)
        assert (await api.delete("/api/keys/me", headers=mine)).status_code == 200
        socket.frames(_GOOD, 2 * _FPS, 3 * _FPS)
        await socket.hear("update")
        await shared_node.advance(10)
        socket.frames(_GOOD, 3 * _FPS, 4 * _FPS)
        code, said = await socket.end()

    assert (code, said[-1]["type"], said[-1]["code"]) == (1008, "error", "key_revoked")


async def test_the_demo_streams_for_a_minute_and_keeps_nothing(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    await shared_node.advance(3600)
    session = (await shared_node.client(None).post("/api/demo/session")).json()["session"]

    async with connected(shared_node, origin="http://lifesign.test") as socket:
        socket.start(session["token"])
        assert (await socket.hear())["max_s"] == 60

    assert (await api.get(f"/api/vitals/sessions/{session['id']}")).status_code == 404


async def test_whoever_is_silent_is_given_the_report(
    shared_node: Lifesign, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_SILENCE_S", 0.0)
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        code, said = await socket.end()

    assert (code, [each["type"] for each in said]) == (1000, ["ready", "final"])


async def test_a_connection_that_is_lost_frees_its_place(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        await socket.hear("ready")

    told = (await api.get(f"/api/vitals/sessions/{session['id']}")).json()["session"]
    assert (told["state"], told["report"]) == ("finished", None)


# What closes it -----------------------------------------------------------------------------------------------------
async def test_a_token_opens_one_connection_and_not_for_long(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    used, late = await session_of(api), await session_of(api)
    async with connected(shared_node) as socket:
        socket.start(used["token"])
        await socket.hear("ready")
    await shared_node.advance(61)

    for token in (used["token"], late["token"], "vst_" + "0" * 64, "x"):
        async with connected(shared_node) as socket:
            socket.start(token)
            assert await socket.end() == (1008, [])
    assert (await api.get(f"/api/vitals/sessions/{late['id']}")).json()["session"]["state"] == "expired"


@pytest.mark.parametrize(
    "first", ['{"type":"stop"}', "nonsense", '{"type":"frames","seq":0,"t":[],"rgb":[]}', '{"type":"start"}']
)
async def test_the_first_message_is_start(shared_node: Lifesign, first: str) -> None:
    async with connected(shared_node) as socket:
        socket.say_text(first)
        assert await socket.end() == (1008, [])


async def test_the_first_message_comes_soon(shared_node: Lifesign, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_START_S", 0.0)

    async with connected(shared_node) as socket:
        assert await socket.end() == (1008, [])


async def test_pages_of_elsewhere_may_not(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    session = await session_of(api)

    async with connected(shared_node, origin="https://elsewhere.example") as socket:
        socket.start(session["token"])
        assert await socket.end() == (1008, [])
    state = shared_node.node.api.state
    context = state.context
    state.context = replace(
        context, settings=context.settings.model_copy(update={"vitals_origins": "https://elsewhere.example"})
    )
    try:
        async with connected(shared_node, origin="https://elsewhere.example") as socket:
            socket.start(session["token"])
            await socket.hear("ready")
    finally:
        state.context = context


def _told(seq: int, times: list[float], rgb: list[object], **members: object) -> str:
    return json.dumps({"type": "frames", "seq": seq, "t": times, "rgb": rgb} | members)


_RGB = [[1, 2, 3]]


@pytest.mark.parametrize(
    ("text", "code", "error"),
    [
        (_told(0, [0, 1, 1], [_RGB] * 3), 1007, "bad_time"),
        (_told(0, [0, 1], [_RGB] * 3), 1007, "bad_time"),
        (_told(0, [0], [[[1, 2, 256]]]), 1007, "bad_value"),
        (_told(0, [0], [[[1, 2]]]), 1007, "bad_value"),
        (_told(0, [0], [[]]), 1007, "bad_value"),
        (_told(0, [0], []), 1007, "bad_value"),
        (_told(0, [0], [["a"]]), 1007, "bad_value"),
        (_told(0, [0], [_RGB], face=[2]), 1007, "bad_value"),
        (_told(0, [0], [_RGB], box=[[1]]), 1007, "bad_value"),
        ('{"type":"frames","seq":0,"t":[0],"rgb":[[[NaN,1,1]]]}', 1003, "bad_message"),
        (_told(1, [0], [_RGB]), 1007, "bad_sequence"),
        (_told(0, list(range(301)), [_RGB] * 301), 1009, None),
        ('{"type":"frames","x":"' + "x" * (256 * 1024) + '"}', 1009, None),
        ("{", 1003, "bad_message"),
        ('{"type":"dance"}', 1003, "bad_message"),
        ('{"type":"start","token":"again"}', 1003, "bad_message"),
    ],
)
async def test_bad_messages_close_it_and_say_why(
    shared_node: Lifesign, api: httpx2.AsyncClient, text: str, code: int, error: str | None
) -> None:
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        await socket.hear("ready")
        socket.say_text(text)
        closed, said = await socket.end()

    assert closed == code
    assert [(each["type"], each["code"]) for each in said] == ([] if error is None else [("error", error)])


async def test_time_goes_forwards_from_message_to_message(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        socket.frames(_GOOD, 0, 30)
        socket.frames(_GOOD, 29, 40)
        code, said = await socket.end()

    assert (code, said[-1]["code"]) == (1007, "bad_time")


async def test_bytes_are_no_message(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        await socket.hear("ready")
        socket.to_server.put_nowait({"type": "websocket.receive", "bytes": b"{}"})
        code, said = await socket.end()

    assert (code, said[-1]["code"]) == (1003, "bad_message")


async def test_more_frames_than_a_camera_makes_are_too_many(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        for seq in range(2):
            socket.say_text(_told(seq, [300 * seq + each for each in range(300)], [_RGB] * 300))
        code, said = await socket.end()

    assert (code, said[-1]["code"]) == (1013, "too_fast")


async def test_a_server_with_enough_streams_says_so(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    vitals = shared_node.node.api.state.vitals
    first, second = await session_of(api), await session_of(api)
    most, vitals.sessions.most_open = vitals.sessions.most_open, 1
    try:
        async with connected(shared_node) as one, connected(shared_node) as other:
            one.start(first["token"])
            await one.hear("ready")
            other.start(second["token"])
            code, said = await other.end()
    finally:
        vitals.sessions.most_open = most

    assert (code, said[-1]["code"]) == (1013, "server_full")


async def test_whoever_does_not_read_is_gone(
    shared_node: Lifesign, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_SEND_S", 0.0)
    session = await session_of(api)

    async with connected(shared_node, room=1) as socket:
        socket.start(session["token"])
        code, _ = await socket.end()

    assert code == 1013


async def test_a_stream_is_counted_by_its_handshake(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    before = (await api.get("/api/dashboard/overview")).json()["overview"]["requests"]["last_24h"]

    async with connected(shared_node) as socket:
        socket.say_text("nonsense")
        await socket.end()

    after = (await api.get("/api/dashboard/overview")).json()["overview"]["requests"]["last_24h"]
    assert after - before == 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"max_s": 9}, "max_s must be an integer between 10 and 600"),
        ({"max_s": True}, "max_s must be an integer between 10 and 600"),
        ({"mode": "sleep"}, "Unknown mode"),
        ({"method": 5}, "Unknown method"),
        ({"store": "yes"}, "store must be true or false"),
        ([], "Request body must be a JSON object"),
    ],
)
async def test_bad_wishes_are_refused(api: httpx2.AsyncClient, body: object, message: str) -> None:
    answer = await api.post("/api/vitals/sessions", json=body)

    assert (answer.status_code, answer.json()["message"]) == (400, message)
