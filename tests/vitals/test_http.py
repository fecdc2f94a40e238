"""Traces, images and videos over HTTP: what is told, what is refused in which words, what is kept and for whom."""

import asyncio
import gzip
import json
import os
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import av
import cv2
import httpx2
import numpy as np
import orjson
import pytest
import pytest_asyncio

from lifesign.clock import rfc3339
from lifesign.vitals import extras, service, uploads
from lifesign.vitals.rules import VIDEO_MISSING, VITALS_MISSING, AnalysisDied, ServerBusy, image_side
from lifesign.vitals.signal.params import DISCLAIMER
from lifesign.vitals.signal.synth import Scene, noise_trace, synthetic
from lifesign.vitals.video import models
from lifesign.vitals.workers import Workers
from tests.harness import ADMIN_KEY, Lifesign, MakeLifesign
from tests.usage.builders import new_email, take_key
from tests.vitals.clips import pulsing, write_clip

Json = dict[str, Any]
_MEASURE, _ANALYZE = "/api/rppg/measure", "/api/vitals/analyze"


pytestmark = pytest.mark.asyncio(loop_scope="module")


def body_of(scene: Scene, **members: object) -> Json:
    made = synthetic(scene)
    return {"t_ms": made.t_ms.round(2).tolist(), "rgb": made.rgb.round(3).tolist(), **members}


def noise_body(**members: object) -> Json:
    made = noise_trace(12, 30, 5)
    return {"t_ms": made.t_ms.round(2).tolist(), "rgb": made.rgb.round(3).tolist(), **members}


_GOOD = Scene(seconds=12, fps=15)


async def refusal(answer: httpx2.Response) -> tuple[int, str, str | None]:
    told = answer.json()
    assert told["success"] is False
    assert answer.headers["X-Request-Id"]
    return answer.status_code, told["message"], told.get("reason")


# Traces -------------------------------------------------------------------------------------------------------------
async def test_traces_are_reported_on(api: httpx2.AsyncClient) -> None:
    answer = await api.post(_ANALYZE, json=body_of(_GOOD))

    told = answer.json()
    assert (answer.status_code, told["success"]) == (200, True)
    assert told["report"]["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=0.5)
    assert told["report"]["vitals"]["spo2"]["reason"] == "not_calibrated"
    assert told["report"]["vitals"]["spo2"]["ratio"] == pytest.approx(0.57, abs=0.1)
    assert told["report"]["disclaimer"] == DISCLAIMER


async def test_noise_is_a_report_too(api: httpx2.AsyncClient) -> None:
    answer = await api.post(_ANALYZE, json=noise_body())

    assert answer.status_code == 200
    assert {each["value"] for each in answer.json()["report"]["vitals"].values()} == {None}


async def test_a_calibration_gives_a_saturation_within_its_span_only(api: httpx2.AsyncClient) -> None:
    body = body_of(Scene(seconds=30, fps=15, noise=0.05))
    wide = [{"ratio": 0.4, "spo2": 99}, {"ratio": 0.8, "spo2": 91}]
    high = [{"ratio": 0.9, "spo2": 95}, {"ratio": 1.2, "spo2": 90}]

    within = (await api.post(_ANALYZE, json=body | {"calibration": wide})).json()["report"]["vitals"]["spo2"]
    outside = (await api.post(_ANALYZE, json=body | {"calibration": high})).json()["report"]["vitals"]["spo2"]

    assert within["value"] == pytest.approx(107 - 20 * within["ratio"], abs=0.1)
    assert within["uncertainty"] == 4.0
    assert (outside["value"], outside["reason"]) == (None, "out_of_calibration")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"t_ms": [0, 1, 1, 2, 3, 4, 5, 6]}, "t_ms must be strictly increasing"),
        ({"t_ms": [0, 1]}, "t_ms and rgb must have the same length"),
        ({"rgb": [[1, 2, 256]] * 8}, "rgb values must be finite numbers between 0 and 255"),
        ({"rgb": [[1, 2, -1]] * 8}, "rgb values must be finite numbers between 0 and 255"),
        ({"method": "best"}, "Unknown method"),
        ({"mode": "sleep"}, "Unknown mode"),
        ({"rgb": [[1, 2, 3]] * 7, "t_ms": list(range(7))}, "Too few samples"),
        ({"store": 1}, "store must be true or false"),
        ({"calibration": [{"ratio": 1, "spo2": 90}]}, "calibration must be 2 to 50 pairs"),
        ({"recordings": []}, "recordings must be an array of 1 to 50 recordings"),
    ],
)
async def test_bad_traces_are_refused_in_words(api: httpx2.AsyncClient, members: Json, message: str) -> None:
    good = {"t_ms": list(range(8)), "rgb": [[100, 100, 100]] * 8}

    status, told, _ = await refusal(await api.post(_ANALYZE, json=good | members))

    assert status == 400
    assert told.startswith(message)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000])
async def test_what_is_no_object_is_refused(api: httpx2.AsyncClient, content: bytes) -> None:
    assert await refusal(await api.post(_ANALYZE, content=content)) == (
        400,
        "Request body must be a JSON object",
        None,
    )


async def test_numbers_that_are_none_are_refused(api: httpx2.AsyncClient) -> None:
    for word in ("NaN", "Infinity", "1e999"):
        content = f'{{"fps":30,"rgb":[{",".join(["[1,2,3]"] * 8)},[{word},1,1]]}}'
        assert await refusal(await api.post(_ANALYZE, content=content)) == (
            400,
            "rgb values must be finite numbers between 0 and 255",
            None,
        )


async def test_many_recordings_are_judged_one_by_one(api: httpx2.AsyncClient) -> None:
    answer = await api.post(_ANALYZE, json={"recordings": [body_of(_GOOD), {"fps": 30, "rgb": []}, 5]})

    good, empty, none = answer.json()["reports"]
    assert good["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=0.5)
    assert empty == {"error": "Too few samples"}
    assert none == {"error": "Request body must be a JSON object"}


async def test_a_body_may_be_gzip_and_may_not_inflate_too_far(api: httpx2.AsyncClient) -> None:
    packed = gzip.compress(orjson.dumps(body_of(_GOOD)))
    bomb = gzip.compress(b" " * (17 << 20))
    header = {"Content-Encoding": "gzip"}

    assert (await api.post(_ANALYZE, content=packed, headers=header)).status_code == 200
    assert (await refusal(await api.post(_ANALYZE, content=bomb, headers=header)))[:2] == (
        413,
        "Request body too large",
    )
    assert (await refusal(await api.post(_ANALYZE, content=b"x", headers=header)))[0] == 400


async def test_whoever_shows_no_key_is_refused(api: httpx2.AsyncClient) -> None:
    del api.headers["X-API-Key"]

    for method, path in (("POST", _MEASURE), ("POST", _ANALYZE), ("GET", "/api/vitals/measurements")):
        assert (await refusal(await api.request(method, path)))[0] == 401


# Measurements -------------------------------------------------------------------------------------------------------
async def test_nothing_is_kept_unless_it_is_wanted(api: httpx2.AsyncClient) -> None:
    told = (await api.post(_ANALYZE, json=body_of(_GOOD))).json()

    assert "measurement_id" not in told
    assert (await api.get("/api/vitals/measurements")).json() == {"success": True, "measurements": []}


async def test_a_measurement_is_its_keys_own(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    told = (await api.post(_ANALYZE, json=body_of(_GOOD, store=True))).json()
    path = f"/api/vitals/measurements/{told['measurement_id']}"
    other = {"X-API-Key": (await take_key(api, new_email())).json()["api_key"]["key"]}

    kept = (await api.get(path)).json()["measurement"]
    assert kept["report"] == told["report"]
    assert "rgb" not in kept["report"]
    assert kept["created_at"] == rfc3339(shared_node.now())
    assert (await refusal(await api.get(path, headers=other)))[:2] == (404, "Not found")
    assert (await refusal(await api.delete(path, headers=other)))[0] == 404
    assert (await api.delete(path)).json() == {"success": True}
    assert (await refusal(await api.get(path)))[0] == 404


async def test_measurements_come_in_pages_the_newest_first(api: httpx2.AsyncClient) -> None:
    recordings = [body_of(_GOOD, store=True)] * 3
    made = (await api.post(_ANALYZE, json={"recordings": recordings})).json()["reports"]
    path = "/api/vitals/measurements?limit=2"

    first = (await api.get(path)).json()
    second = (await api.get(f"{path}&cursor={first['next_cursor']}")).json()

    listed = [each["id"] for each in first["measurements"] + second["measurements"]]
    assert listed == [each["measurement_id"] for each in reversed(made)]
    assert "next_cursor" not in second
    for query in ("limit=0", "limit=201", "limit=x", "cursor=x"):
        assert (await refusal(await api.get(f"/api/vitals/measurements?{query}")))[0] == 400


async def test_a_page_of_measurements_has_fifty_unless_it_is_asked_for_more(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    caller = await shared_node.node.api.state.vitals_keyring.caller(api.headers["X-API-Key"].encode())
    reports: list[Json | None] = [{}] * 201
    await shared_node.node.db.write(service.keep_all, caller, reports, shared_node.now())

    usual = (await api.get("/api/vitals/measurements")).json()
    most = (await api.get("/api/vitals/measurements?limit=200")).json()

    assert [len(each["measurements"]) for each in (usual, most)] == [50, 200]
    assert {"next_cursor"} <= set(usual) & set(most)


async def test_measurements_are_kept_for_a_time(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    await api.post(_ANALYZE, json=body_of(_GOOD, store=True))

    await shared_node.advance(29 * 86_400)
    assert len((await api.get("/api/vitals/measurements")).json()["measurements"]) == 1
    await shared_node.advance(2 * 86_400)
    assert (await api.get("/api/vitals/measurements")).json()["measurements"] == []


# Images -------------------------------------------------------------------------------------------------------------
def jpeg(image: Any) -> bytes:
    return bytes(cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 95])[1])


@pytest.fixture(scope="module")
def faces() -> list[bytes]:
    return [jpeg(each) for each in pulsing(np.arange(110) / 10)]


def as_parts(frames: list[bytes]) -> list[tuple[str, tuple[str, bytes, str]]]:
    return [("frame", (f"{index}.jpg", each, "image/jpeg")) for index, each in enumerate(frames)]


async def test_frames_of_a_face_are_measured(
    shared_node: Lifesign, api: httpx2.AsyncClient, faces: list[bytes]
) -> None:
    ref = (await shared_node.heartbeat("Measured"))["id"]
    watch = json.dumps({"heartbeat": ref, "include_value": True})
    form = {"duration_ms": "10900", "include_raw": "true", "watch": watch}
    may = {"Authorization": f"Bearer {ADMIN_KEY}"}
    unproven = await api.post(_MEASURE, files=as_parts(faces), data=form)
    assert (await refusal(unproven))[:2] == (403, "A key with scope checkins:write is required to watch a heartbeat")
    assert "checkin" not in await shared_node.event_types(ref)

    answer = await api.post(_MEASURE, files=as_parts(faces), data=form, headers=may)

    told = answer.json()
    assert answer.status_code == 200, answer.text
    data = told["data"]
    assert data["heart_rate"] == pytest.approx(72, abs=2)
    assert data["confidence"] >= 0.7
    assert {name: data[name] for name in ("hrv", "spo2", "stress_index")} == dict.fromkeys(
        ("hrv", "spo2", "stress_index")
    )
    assert data["reasons"] == {
        "hrv": "too_short",
        "spo2": "not_calibrated",
        "stress_index": "too_short",
        "respiration_rate": "too_short",
    }
    assert (data["duration_ms"], data["timestamp"]) == (10_900, rfc3339(shared_node.now()))
    assert told["meta"]["api_version"] == "1.0"
    assert data["disclaimer"] == DISCLAIMER
    [checked_in] = [each for each in await shared_node.events(ref) if each["type"] == "checkin"]
    assert round(checked_in["metadata"]["metadata"]["heart_rate"]) == data["heart_rate"]
    assert len(data["raw"]["t_ms"]) == len(data["raw"]["rgb"]) == len(data["raw"]["pulse"]) > 90


async def test_frames_may_have_times_of_their_own_and_some_may_be_lost(
    api: httpx2.AsyncClient, faces: list[bytes]
) -> None:
    broken = [each if index % 25 else each[:30] for index, each in enumerate(faces)]
    times = json.dumps([100 * index for index in range(len(faces))])

    answer = await api.post(_MEASURE, files=as_parts(broken), data={"timestamps_ms": times})

    assert answer.json()["data"]["heart_rate"] == pytest.approx(72, abs=2)


async def test_one_image_gives_no_number(api: httpx2.AsyncClient, faces: list[bytes]) -> None:
    answer = await api.post(_MEASURE, files=as_parts(faces[:1]))

    assert await refusal(answer) == (
        422,
        (
            "Not enough frames: a pulse cannot be read from 1 image(s). "
            "Send at least 8 frames per second over 10 seconds or more."
        ),
        "not_enough_frames",
    )
    assert "data" not in answer.json()


@pytest.mark.parametrize(
    ("count", "form"), [(79, {"duration_ms": "10000"}), (239, {}), (2, {"timestamps_ms": "[0,9]"})]
)
async def test_too_few_images_for_their_time_are_not_even_decoded(
    api: httpx2.AsyncClient, count: int, form: Json
) -> None:
    answer = await api.post(_MEASURE, files=as_parts([b"\xff\xd8\xff"] * count), data=form)

    status, message, reason = await refusal(answer)
    assert (status, reason) == (422, "not_enough_frames")
    assert message.startswith(f"Not enough frames: a pulse cannot be read from {count} image(s).")


async def test_flat_images_have_no_face(api: httpx2.AsyncClient) -> None:
    grey = jpeg(np.full((240, 320, 3), 128, np.uint8))

    answer = await api.post(_MEASURE, files=as_parts([grey] * 100), data={"duration_ms": "10000"})

    assert await refusal(answer) == (422, "No measurable pulse: no_face", "no_face")


@pytest.mark.parametrize(
    ("files", "form", "status", "message"),
    [
        ([], {}, 400, "frame is required"),
        ([("other", ("a.jpg", b"x", "image/jpeg"))], {}, 400, "frame is required"),
        ([("frame", ("a.txt", b"text", "text/plain"))], {}, 415, "Unsupported media type"),
        ([("video", ("a.mp4", b"text of some length", "video/mp4"))], {}, 415, "Unsupported media type"),
        ([("frame", ("a.jpg", b"text", "image/jpeg"))], {"duration_ms": "9999"}, 400, "duration_ms must be an integer"),
        ([("frame", ("a.jpg", b"text", "image/jpeg"))], {"duration_ms": "120001"}, 400, "duration_ms must be"),
        ([("frame", ("a.jpg", b"text", "image/jpeg"))], {"duration_ms": "abc"}, 400, "duration_ms must be"),
        (
            [("frame", ("a.jpg", b"text", "image/jpeg"))],
            {"include_raw": "yes"},
            400,
            "include_raw must be true or false",
        ),
        ([("frame", ("a.jpg", b"text", "image/jpeg"))], {"timestamps_ms": "[1,2]"}, 400, "timestamps_ms must be"),
        ([("frame", ("a.jpg", b"x" * ((4 << 20) + 1), "image/jpeg"))], {}, 413, "Request body too large"),
    ],
)
async def test_bad_uploads_are_refused_in_order(
    api: httpx2.AsyncClient, files: Any, form: Json, status: int, message: str
) -> None:
    told = await refusal(await api.post(_MEASURE, files=files, data=form))

    assert told[0] == status
    assert told[1].startswith(message)


@pytest.mark.parametrize(
    ("path", "content_type", "most"),
    [
        (_MEASURE, "multipart/form-data; boundary=b", 128 << 20),
        (_ANALYZE, "multipart/form-data; boundary=b", 256 << 20),
        (_ANALYZE, "application/json", 16 << 20),
    ],
)
async def test_a_body_that_is_announced_as_too_large_is_refused_before_it_comes(
    api: httpx2.AsyncClient, path: str, content_type: str, most: int
) -> None:
    def announced(size: int) -> dict[str, str]:
        return {"Content-Type": content_type, "Content-Length": str(size)}

    too_large = await api.post(path, content=b"--b--\r\n", headers=announced(most + 1))
    assert await refusal(too_large) == (413, "Request body too large", None)
    assert (await refusal(await api.post(path, content=b"--b--\r\n", headers=announced(most))))[0] == 400


async def test_a_body_that_grows_too_large_is_refused_whatever_else_is_wrong_with_it(
    api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MEASURE_BYTES", 1000)

    async def growing() -> AsyncIterator[bytes]:
        yield b'--b\r\nContent-Disposition: form-data; name="duration_ms"\r\n\r\n1\r\n'
        for _ in range(20):
            yield b'--b\r\nContent-Disposition: form-data; name="x"\r\n\r\ny\r\n'

    answer = await api.post(_MEASURE, content=growing(), headers={"Content-Type": "multipart/form-data; boundary=b"})

    assert await refusal(answer) == (413, "Request body too large", None)
    large = [("frame", ("a.txt", b"x" * ((4 << 20) + 1), "text/plain"))]
    monkeypatch.undo()
    wrong = await api.post(_MEASURE, files=large, data={"duration_ms": "1", "include_raw": "?"})
    assert (await refusal(wrong))[0] == 413


async def test_images_that_are_too_large_are_told_before_they_are_decoded(api: httpx2.AsyncClient) -> None:
    wide = jpeg(np.zeros((8, 4097, 3), np.uint8))
    assert image_side(wide) == 4097
    assert image_side(bytes(cv2.imencode(".png", np.zeros((5000, 4, 3), np.uint8))[1])) == 5000

    assert (await refusal(await api.post(_MEASURE, files=as_parts([wide]))))[0] == 413


async def test_a_body_that_is_not_multipart_has_no_frame(api: httpx2.AsyncClient) -> None:
    assert await refusal(await api.post(_MEASURE, json={"frame": 1})) == (400, "frame is required", None)


# Videos -------------------------------------------------------------------------------------------------------------
async def test_a_video_is_analysed_and_nothing_of_it_stays(
    api: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = np.arange(100) / 10
    clip = write_clip(tmp_path / "clip.mkv", pulsing(times), times)
    (tmp_path / "spool").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "spool"))

    form = {"method": "green", "debug": "true", "store": "true"}
    answer = await api.post(_ANALYZE, files={"video": clip.read_bytes()}, data=form)

    report = answer.json()["report"]
    kept = await api.get(f"/api/vitals/measurements/{answer.json()['measurement_id']}")
    assert kept.json()["measurement"]["report"] == report
    assert report["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1)
    assert (report["method"], "debug" in report) == ("green", True)
    assert list((tmp_path / "spool").iterdir()) == []


def audio_only(path: Path) -> bytes:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=48_000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48_000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


async def test_broken_videos_are_told_apart(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    times = np.arange(90) / 10
    whole = write_clip(tmp_path / "clip.mkv", pulsing(times), times).read_bytes()
    broken = {
        "nonsense": b"\x1aE\xdf\xa3" + b"\0" * 100,
        "empty": b"",
        "only its head": whole[:600],
        "audio only": audio_only(tmp_path / "sound.mp4"),
    }

    for name, content in broken.items():
        status, message, reason = await refusal(await api.post(_ANALYZE, files={"video": ("a.mp4", content)}))
        assert (status, reason) == (422, "decode_failed"), f"{name}: {message}"
    assert (await refusal(await api.post(_ANALYZE, files={"video": b"plain text, no video"})))[0] == 415
    assert (await refusal(await api.post(_ANALYZE, files={"other": b"x"})))[:2] == (400, "video is required")


# What is not installed ----------------------------------------------------------------------------------------------
async def test_what_is_not_installed_is_named_and_the_rest_is_served(
    api: httpx2.AsyncClient, faces: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"cv2", "av"}
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name in missing else find_spec(name))
    extras._are_there.cache_clear()  # noqa: SLF001 - as in a process that has just begun
    try:
        for path, files in ((_MEASURE, as_parts(faces)), (_ANALYZE, [("video", ("a.mkv", b"\x1aE\xdf\xa3" * 9))])):
            answer = await api.post(path, files=files, data={"duration_ms": "10900"})
            assert await refusal(answer) == (501, VIDEO_MISSING, None)
        assert (await api.post(_ANALYZE, json=body_of(_GOOD))).status_code == 200

        missing |= {"numpy", "scipy"}
        extras._are_there.cache_clear()  # noqa: SLF001 - as above
        for path in (_ANALYZE, "/api/vitals/sessions", "/api/demo/analyze", "/api/demo/session"):
            assert await refusal(await api.post(path, json={})) == (501, VITALS_MISSING, None)
        assert (await api.get("/api/vitals/measurements")).status_code == 200
    finally:
        monkeypatch.undo()
        extras._are_there.cache_clear()  # noqa: SLF001 - as above


def _with_a_changed_model(*_: object, **__: object) -> None:
    """What a worker meets whose copy of a model is another one."""
    models.checked(models.DETECTOR, b"changed")


async def test_a_changed_model_is_no_video_support(api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lifesign.vitals.jobs.analyze_file", _with_a_changed_model)

    answer = await api.post(_ANALYZE, files={"video": ("a.mkv", b"\x1aE\xdf\xa3" * 9)})

    assert await refusal(answer) == (501, "model_hash_mismatch: face_detection_short_range.tflite", None)


# The demo -----------------------------------------------------------------------------------------------------------
@pytest_asyncio.fixture(loop_scope="module")
async def fresh_demo(shared_node: Lifesign) -> httpx2.AsyncClient:
    """Somebody without a key, an hour after whoever tried before."""
    await shared_node.advance(3600)
    return shared_node.client(None)


async def test_the_demo_needs_no_key_and_has_a_limit(shared_node: Lifesign, fresh_demo: httpx2.AsyncClient) -> None:
    guest = fresh_demo

    for _ in range(2):
        assert (await guest.post("/api/demo/analyze", json=body_of(_GOOD))).json()["success"] is True
    for _ in range(8):
        assert (await guest.post("/api/demo/analyze", content=b"{")).status_code == 400
    last = await guest.post("/api/demo/analyze", json={})

    assert await refusal(last) == (
        429,
        "Demo limit reached: 10 requests per hour. Request a free API key for more.",
        None,
    )
    assert last.headers["Retry-After"] == "3600"
    assert (await guest.post("/api/demo/session")).status_code == 429
    await shared_node.advance(3600)
    assert (await guest.post("/api/demo/session")).status_code == 201


async def test_the_demo_counts_by_address_and_by_network_of_ipv6_whatever_is_said_to_be_forwarded(
    shared_node: Lifesign,
) -> None:
    async def tries(address: str, times: int, **headers: str) -> list[int]:
        transport = httpx2.ASGITransport(shared_node.node.app, client=(address, 1))
        async with httpx2.AsyncClient(transport=transport, base_url="http://lifesign.test") as guest:
            return [(await guest.post("/api/demo/session", headers=headers)).status_code for _ in range(times)]

    assert await tries("2001:db8::1", 6) == [201] * 6
    assert await tries("2001:db8::ffff:2", 5) == [201] * 4 + [429]
    assert await tries("2001:db8:0:1::1", 1) == [201]
    assert await tries("192.0.2.1", 11) == [201] * 10 + [429]
    assert await tries("192.0.2.1", 1, **{"X-Forwarded-For": "192.0.2.7"}) == [429]


async def test_the_demo_takes_a_minute_and_keeps_nothing(fresh_demo: httpx2.AsyncClient) -> None:
    guest = fresh_demo

    long = await guest.post("/api/demo/analyze", json=body_of(Scene(seconds=70, fps=10)))
    many = await guest.post("/api/demo/analyze", json={"recordings": [body_of(_GOOD)]})
    kept = await guest.post("/api/demo/analyze", json=body_of(_GOOD, store=True))

    assert (await refusal(long))[:2] == (400, "The demo takes at most 60 s")
    assert (await refusal(many))[0] == 400
    assert "measurement_id" not in kept.json()


async def test_the_demo_works_without_a_database(shared_node: Lifesign, fresh_demo: httpx2.AsyncClient) -> None:
    state = shared_node.node.api.state
    context, state.context = state.context, replace(state.context, db=None)
    try:
        answer = await fresh_demo.post("/api/demo/analyze", json=body_of(_GOOD))
    finally:
        state.context = context

    assert answer.json()["report"]["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=0.5)


async def test_a_demo_that_is_off_is_not_there(start_lifesign: MakeLifesign) -> None:
    async with start_lifesign(demo=False) as lifesign:
        answer = await lifesign.client(None).post("/api/demo/analyze", json={})

        assert await refusal(answer) == (404, "Not found", None)
        assert await refusal(await lifesign.client(None).get("/api/demo/nothing")) == (404, "Not found", None)


# Workers ------------------------------------------------------------------------------------------------------------
def _exit() -> None:
    import os  # noqa: PLC0415 - in the worker

    os._exit(3)


def _wait(path: str) -> None:
    """Until somebody has written the file."""
    with open(path, "rb") as pipe:  # noqa: PTH123 - a pipe
        pipe.read()


def _threads() -> int:
    return len(list(Path("/proc/self/task").iterdir()))


def _threads_of_a_product() -> int:
    """How many threads there are once two matrices were multiplied that are worth sharing."""
    import numpy as np  # noqa: PLC0415 - as a job does

    large = np.ones((600, 600))
    _ = large @ large
    return _threads()


def _take_memory() -> int:
    return len(b"x" * (2 << 30))


async def test_a_worker_that_dies_is_replaced() -> None:
    workers = Workers(1)
    try:
        with pytest.raises(AnalysisDied):
            await workers.run(_exit)
        assert await workers.run(max, 1, 2) == 2
        with pytest.raises(AnalysisDied):
            await workers.run(_take_memory)
        # Check-ins come first, and it is one core that a job takes.
        assert await workers.run(os.nice, 0) == min(os.nice(0) + 2, 19)
        assert await workers.run(os.getenv, "OPENBLAS_NUM_THREADS") == "1"
        assert await workers.run(_threads_of_a_product) == await workers.run(_threads)
    finally:
        await workers.close()


async def test_a_job_that_takes_too_long_is_ended_and_too_many_are_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    workers = Workers(1, waiting=1, job_s=3.0)
    try:
        stuck = asyncio.create_task(workers.run(_wait, str(pipe)))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(workers.run(max, 1, 2))
        await asyncio.sleep(0)
        with pytest.raises(ServerBusy):
            await workers.run(max, 1, 2)
        with pytest.raises(AnalysisDied):
            await stuck
        assert await waiting == 2
    finally:
        await workers.close()
