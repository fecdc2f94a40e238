"""What is sent to do harm, or by something broken: it is refused in words, soon, and nothing of it stays."""

import asyncio
import contextlib
import os
import re
import struct
import zlib
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import av
import cv2
import httpx2
import numpy as np
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from starlette.datastructures import UploadFile
from starlette.types import Message

from lifesign.vitals import Stream, analyze_traces
from lifesign.vitals.rules import InvalidTraces, image_side
from lifesign.vitals.signal.synth import Scene, synthetic
from lifesign.vitals.uploads import path_of
from lifesign.vitals.workers import Workers
from tests.harness import SETTINGS, Json, Lifesign
from tests.vitals.clips import pulsing, write_clip
from tests.vitals.sockets import connected
from tests.vitals.test_stream import session_of

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MEASURE, _ANALYZE = "/api/rppg/measure", "/api/vitals/analyze"
_FORM = {"Content-Type": "multipart/form-data; boundary=b"}
_JPEG = bytes(cv2.imencode(".jpg", np.zeros((8, 8, 3), np.uint8))[1])
_WIDE_JPEG = bytes(cv2.imencode(".jpg", np.zeros((8, 4097, 3), np.uint8))[1])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lifesign]:
    """A node on one database only: nothing here gets as far as that."""
    settings = SETTINGS.model_copy(update={"data_dir": tmp_path_factory.mktemp("node")})
    async with Lifesign.started(settings, at="2026-01-05T12:00:00.000Z") as started:
        yield started


# Multipart ----------------------------------------------------------------------------------------------------------
def part(head: bytes, content: bytes = b"x") -> bytes:
    return b"--b\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


_FRAME = b'Content-Disposition: form-data; name="frame"; filename="a.jpg"'
_END = b"--b--\r\n"


@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (b"", _FORM),
        (b"\x00" * 1000, _FORM),
        (b"--c\r\n" + _FRAME + b"\r\n\r\nx\r\n--c--", _FORM),
        (part(_FRAME) + _END, {"Content-Type": "multipart/form-data"}),
        (part(_FRAME) + _END, {"Content-Type": "multipart/form-data; boundary="}),
        (part(_FRAME) + _END, {"Content-Type": "multipart/form-data; boundary=" + "b" * 5000}),
        (part(_FRAME)[:20], _FORM),
        (part(b'Content-Disposition: form-data; filename="a.jpg"') + _END, _FORM),
        (part(b"Content-Disposition: form-data") + _END, _FORM),
        (part(b"X: y") + _END, _FORM),
        (part(b"X" * 100_000 + b": y") + _END, _FORM),
        (part(b'Content-Disposition: form-data; name="\xff\xfe"') + _END, _FORM),
        (part(b'Content-Disposition: form-data; name="x"', b"\xff" * 9) + _END, _FORM),
        (part(b'Content-Disposition: form-data; name="x"', b"y" * (2 << 20)) + _END, _FORM),
        (part(b'Content-Disposition: form-data; name="x"') * 33 + _END, _FORM),
    ],
)
@pytest.mark.parametrize("path", [_MEASURE, _ANALYZE])
async def test_what_is_no_form_is_refused_in_words(
    api: httpx2.AsyncClient, path: str, content: bytes, headers: dict[str, str]
) -> None:
    answer = await api.post(path, content=content, headers=headers)

    assert answer.status_code == 400
    told = answer.json()
    assert told["success"] is False
    assert re.match(r"(frame|video) is required|multipart body: ", told["message"])


async def test_more_frames_than_there_may_be_are_too_much(api: httpx2.AsyncClient) -> None:
    answer = await api.post(_MEASURE, content=part(_FRAME, _JPEG[:20]) * 3601 + _END, headers=_FORM)

    assert (answer.status_code, answer.json()["message"]) == (413, "Request body too large")


@pytest.mark.parametrize(
    "times", ["[0,NaN]", "[0,Infinity]", "[0,1e999]", "[0,-1]", '[0,"1"]', "[0,[1]]", "{}", "[" * 100_000, "[0,true]"]
)
async def test_times_of_frames_are_increasing_numbers_or_refused(api: httpx2.AsyncClient, times: str) -> None:
    frames = [("frame", ("a.jpg", _JPEG, "image/jpeg"))] * 2

    answer = await api.post(_MEASURE, files=frames, data={"timestamps_ms": times})

    assert answer.status_code == 400
    assert answer.json()["message"] == "timestamps_ms must be an increasing array with one number per frame"


@pytest.mark.parametrize(
    "text", ["NaN", "1e4", "\uff11\uff10\uff10\uff10\uff10", "10_000", "+10000", "-10000", "9" * 5000, "", "\x00"]
)
async def test_a_duration_is_written_in_plain_digits(api: httpx2.AsyncClient, text: str) -> None:
    answer = await api.post(_MEASURE, files={"frame": _JPEG}, data={"duration_ms": text})

    assert answer.status_code == 400
    assert answer.json()["message"] == "duration_ms must be an integer between 10000 and 120000"


# Images and videos that are larger than they look -------------------------------------------------------------------
def _png_of_nothing(wide: int, high: int) -> bytes:
    """A hundred bytes that say they are an image of any size."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", wide, high, 8, 2, 0, 0, 0)
    packed = zlib.compress(b"\x00" * 100)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "image",
    [_png_of_nothing(60_000, 60_000), _WIDE_JPEG, _WIDE_JPEG[:2] + b"\xff" * 7 + _WIDE_JPEG[2:]],
    ids=["png", "jpeg", "padded jpeg"],
)
async def test_an_image_that_says_it_is_huge_is_refused_undecoded(api: httpx2.AsyncClient, image: bytes) -> None:
    answer = await api.post(_MEASURE, files=[("frame", ("a", image, "image/jpeg"))] * 100)

    assert (answer.status_code, answer.json()["message"]) == (413, "Request body too large")


async def test_the_size_of_an_image_is_found_behind_padding_and_not_looked_for_long() -> None:
    head, rest = _WIDE_JPEG[:2], _WIDE_JPEG[2:]

    assert image_side(head + b"\xff" * 100_000 + rest) == 4097
    assert image_side(head + b"\xff\xe0\x00\x02" * 100 + rest) == 4097
    # Of a million segments only the first are looked at: the answer would otherwise be the size.
    assert image_side(head + b"\xff\xe0\x00\x02" * 1_000_000 + rest) is None
    assert image_side(head + b"\xff" * 1_000_000) is None
    assert image_side(head + b"\x00" * 100) is None
    assert image_side(b"\x89PNG\r\n\x1a\n") is None


def _decoded_side(image: bytes) -> int | None:
    try:
        decoded = cv2.imdecode(np.frombuffer(image, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error:
        return None
    return None if decoded is None else max(decoded.shape[:2])


async def test_a_worker_decodes_no_image_that_is_larger_whatever_its_header_hides() -> None:
    hidden = _WIDE_JPEG[:2] + b"\xff\xe0\x00\x02" * 1000 + _WIDE_JPEG[2:]
    assert image_side(hidden) is None
    assert _decoded_side(hidden) == 4097
    workers = Workers(1)
    try:
        assert await workers.run(_decoded_side, hidden) is None
        assert await workers.run(_decoded_side, _JPEG) == 8
    finally:
        await workers.close()


def _grey_video(path: Path, wide: int, high: int, count: int, codec: str = "ffv1") -> bytes:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(codec, rate=10)
        stream.width, stream.height, stream.pix_fmt = wide, high, "yuv420p"
        frame = av.VideoFrame(wide, high, "yuv420p")
        for plane in frame.planes:
            plane.update(b"\x80" * plane.buffer_size)
        for index in range(count):
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path.read_bytes()


async def test_a_small_file_of_huge_images_is_no_video_for_us(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    bomb = _grey_video(tmp_path / "bomb.mkv", 8192, 4000, 3)
    assert len(bomb) < 500_000

    answer = await api.post(_ANALYZE, files={"video": bomb})

    assert answer.status_code == 415
    assert answer.json()["message"] == (
        "Unsupported media type: the image is 8192 x 4000, which is more than 4096 a side"
    )


async def test_images_that_no_decoder_knows_cannot_be_decoded(api: httpx2.AsyncClient, tmp_path: Path) -> None:
    times = np.arange(10) / 10
    clip = write_clip(tmp_path / "clip.mp4", pulsing(times), times, codec="libx264").read_bytes()
    assert clip.count(b"avc1") >= 1

    answer = await api.post(_ANALYZE, files={"video": clip.replace(b"avc1", b"zzzz")})

    assert (answer.status_code, answer.json()["reason"]) == (422, "decode_failed")


# Memory, and files --------------------------------------------------------------------------------------------------
def _peak_after(path: str) -> tuple[int, float]:
    """The most memory that this process ever had, MiB, after it analysed a file; and for how many seconds that goes."""
    from lifesign.vitals import analyze_video  # noqa: PLC0415 - after the limits of the worker are set

    report = analyze_video(path).to_dict()
    status = Path("/proc/self/status").read_text(encoding="ascii")
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found is not None
    return int(found[1]) // 1024, report["duration_ms"] / 1000


async def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    short, long = tmp_path / "short.mkv", tmp_path / "long.mkv"
    # 1280 x 720 as RGB is 2.6 MiB an image: the long one would take 1.3 GiB if all of it were held.
    _grey_video(short, 1280, 720, 30, "mpeg4")
    _grey_video(long, 1280, 720, 500, "mpeg4")
    workers = Workers(1)
    try:
        little, _ = await workers.run(_peak_after, str(short))
        much, seconds = await workers.run(_peak_after, str(long))
    finally:
        await workers.close()

    assert seconds == pytest.approx(50, abs=0.2)
    assert much - little < 100
    assert much < 600


def _names_in(folder: Path) -> list[str]:
    return [each.name for each in folder.iterdir()]


def _size_of(path: str) -> int:
    return len(Path(path).read_bytes())


async def test_an_upload_has_no_name_that_could_stay_when_the_server_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    workers = Workers(1)
    try:
        for size in (10, 3 << 20):
            with SpooledTemporaryFile(max_size=1 << 20) as file:
                upload = UploadFile(file)  # type: ignore[arg-type]  # binary, as it is used
                await upload.write(b"x" * size)
                path = await path_of(upload)
                assert await workers.run(_size_of, path) == size
                assert _names_in(tmp_path) == []
            with pytest.raises(FileNotFoundError):
                _size_of(path)
    finally:
        await workers.close()


def _open_files() -> list[str]:
    """What this process has open."""
    found = []
    for each in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(each.readlink()))
    return found


async def test_what_a_refused_upload_held_is_let_go(
    api: httpx2.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    large = b"x" * (3 << 20)
    refused = [
        await api.post(_ANALYZE, files={"video": large}),
        await api.post(_MEASURE, files={"frame": b"x" * (5 << 20)}),
        await api.post(_ANALYZE, files={"video": b"\x1aE\xdf\xa3" + large}, data={"debug": "perhaps"}),
        await api.post(_ANALYZE, content=part(_FRAME, large)[:-100], headers=_FORM),
    ]

    assert [each.status_code for each in refused] == [415, 413, 400, 400]
    assert _names_in(tmp_path) == []
    assert [each for each in _open_files() if str(tmp_path) in each] == []


async def test_who_leaves_while_sending_leaves_nothing_behind(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    """A client that is slow may take its time; one that goes is let go, and nothing was analysed for it."""
    scope = {
        "type": "http",
        "method": "POST",
        "path": _ANALYZE,
        "raw_path": _ANALYZE.encode(),
        "query_string": b"",
        "headers": [
            (b"x-api-key", api.headers["X-API-Key"].encode()),
            (b"content-type", _FORM["Content-Type"].encode()),
        ],
        "scheme": "http",
        "server": ("lifesign.test", 80),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    incoming: asyncio.Queue[Message] = asyncio.Queue()
    answered: asyncio.Queue[Message] = asyncio.Queue()
    before = await _jobs(shared_node)
    serving = asyncio.ensure_future(shared_node.node.app(scope, incoming.get, answered.put))
    incoming.put_nowait({"type": "http.request", "body": part(_FRAME, b"x" * 1000), "more_body": True})
    await asyncio.sleep(0)
    # Others are served meanwhile.
    assert (await api.get("/api/vitals/measurements")).status_code == 200
    assert not serving.done()

    incoming.put_nowait({"type": "http.disconnect"})
    async with asyncio.timeout(30):
        await serving

    assert await _jobs(shared_node) == before


async def _jobs(node: Lifesign) -> dict[str, float]:
    return await _told(node, "lifesign_vitals_jobs", "outcome")


async def _told(node: Lifesign, family: str, label: str = "") -> dict[str, float]:
    """A family of `/metrics` by a label."""
    text = (await node.http.get("/metrics")).text
    samples = [each for found in text_string_to_metric_families(text) for each in found.samples]
    return {each.labels.get(label, ""): each.value for each in samples if each.name in {family, f"{family}_total"}}


# Numbers ------------------------------------------------------------------------------------------------------------
async def test_a_recording_of_a_million_years_is_refused(api: httpx2.AsyncClient) -> None:
    body = {"rgb": [[100, 90, 80]] * 20, "t_ms": [*range(0, 19 * 33, 33), 1e17]}

    answer = await api.post(_ANALYZE, json=body)

    assert (answer.status_code, answer.json()["message"]) == (400, "t_ms must span at most 7200 s")
    with pytest.raises(InvalidTraces, match="span at most"):
        analyze_traces([[1, 1, 1]] * 8, [-1.7e308, *range(6), 1.7e308])
    stream = Stream()
    stream.push_rgb([[1, 1, 1]], [0.0])
    with pytest.raises(InvalidTraces, match="span at most"):
        stream.push_rgb([[1, 1, 1]], [1e12])


@pytest.mark.parametrize("content", ["[" * 1_000_000, '{"rgb":' + "[" * 1_000_000, '{"watch":' + "[" * 1_000_000])
async def test_a_deep_body_is_no_object(api: httpx2.AsyncClient, content: str) -> None:
    answer = await api.post(_ANALYZE, content=content)

    assert (answer.status_code, answer.json()["message"]) == (400, "Request body must be a JSON object")


# Streams ------------------------------------------------------------------------------------------------------------
async def test_a_stream_whose_time_leaps_ends_with_what_it_had(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    session = await session_of(api, {"max_s": 30})
    made = synthetic(Scene(seconds=12, fps=15))
    leap = {"type": "frames", "seq": 1, "t": [made.t_ms[-1] + 66, 1e17, 2e17], "rgb": [[[1, 2, 3]] * 3] * 3}

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        socket.frames(made, 0, len(made.t_ms))
        socket.say(leap)
        report = (await socket.hear("final"))["report"]
        assert await socket.end() == (1000, [])

    assert report["samples"] == len(made.t_ms) + 1
    assert report["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1)


@pytest.mark.parametrize(
    "first",
    [
        "",
        "null",
        "[]",
        '"start"',
        "\x00",
        "{}",
        '{"type":"start"}',
        '{"type":"start","token":1}',
        '{"type":"start","token":"vst_0"}',
        '{"type":"stop"}',
        '{"type":"frames","seq":0,"t":[],"rgb":[]}',
        "[" * 200_000,
        '{"type":"start","token":"' + "x" * 250_000 + '"}',
        '{"type":"start","token":"' + "x" * 300_000 + '"}',
    ],
)
async def test_garbage_instead_of_a_start_closes_the_stream(shared_node: Lifesign, first: str) -> None:
    async with connected(shared_node) as socket:
        socket.say_text(first)
        assert await socket.end() == (1008, [])


@pytest.mark.parametrize(
    "start", [{"fps": 0}, {"fps": -1e308}, {"fps": 1e308}, {"rois": ["x"] * 3}, {"client": "\x00" * 1000}]
)
async def test_what_start_says_beside_the_token_does_no_harm(
    shared_node: Lifesign, api: httpx2.AsyncClient, start: Json
) -> None:
    session = await session_of(api)
    made = synthetic(Scene(seconds=12, fps=15))

    async with connected(shared_node) as socket:
        socket.start(session["token"], **start)
        socket.frames(made, 0, len(made.t_ms))
        socket.say({"type": "stop"})
        report = (await socket.hear("final"))["report"]

    assert report["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1)


async def test_numbers_that_are_too_large_for_any_machine_are_refused(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    for member in ('"t":[1e999]', '"seq":99999999999999999999999', '"dropped":1e400'):
        session = await session_of(api)
        fields = {"seq": '"seq":0', "t": '"t":[0]', "rgb": '"rgb":[[[1,2,3]]]'}
        fields[member.split(":")[0].strip('"')] = member
        async with connected(shared_node) as socket:
            socket.start(session["token"])
            await socket.hear("ready")
            socket.say_text('{"type":"frames",' + ",".join(fields.values()) + "}")
            code, said = await socket.end()
        assert (code, said[-1]["type"]) in {(1003, "error"), (1007, "error")}


# What is told of all that -------------------------------------------------------------------------------------------
async def test_metrics_count_how_analyses_end(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    made = synthetic(Scene(seconds=12, fps=15))
    good = {"t_ms": made.t_ms.tolist(), "rgb": made.rgb.tolist()}
    jobs, reports = await _jobs(shared_node), await _told(shared_node, "lifesign_vitals_reports", "heart_rate")

    for body in (
        good,
        {"recordings": [good, good]},
        good | {"rgb": made.rgb[:60].tolist(), "t_ms": made.t_ms[:60].tolist()},
    ):
        assert (await api.post(_ANALYZE, json=body)).status_code == 200
    assert (await api.post(_ANALYZE, json=good | {"mode": "x"})).status_code == 400

    since = await _jobs(shared_node)
    given = await _told(shared_node, "lifesign_vitals_reports", "heart_rate")
    assert {key: since[key] - jobs.get(key, 0) for key in since if since[key] != jobs.get(key, 0)} == {
        "done": 3,
        "refused": 1,
    }
    assert {key: given[key] - reports.get(key, 0) for key in given if given[key] != reports.get(key, 0)} == {
        "given": 3,
        "too_short": 1,
    }


async def test_metrics_tell_how_many_streams_are_open(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    async def open_streams() -> float:
        return (await _told(shared_node, "lifesign_vitals_streams_open"))[""]

    before = await open_streams()
    async with connected(shared_node) as socket:
        socket.start((await session_of(api))["token"])
        await socket.hear("ready")
        assert await open_streams() == before + 1
        socket.say({"type": "stop"})
        await socket.end()
    assert await open_streams() == before


async def test_metrics_tell_of_jobs_that_wait_die_and_are_too_many(tmp_path: Path) -> None:
    from lifesign.engine.metrics import REGISTRY  # noqa: PLC0415 - of the process, beside the node of the others
    from lifesign.vitals.rules import AnalysisDied, ServerBusy  # noqa: PLC0415 - as above

    def counted(outcome: str) -> float:
        return REGISTRY.get_sample_value("lifesign_vitals_jobs_total", {"outcome": outcome}) or 0.0

    before = {each: counted(each) for each in ("died", "busy", "abandoned", "done")}
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    workers = Workers(1, waiting=1, job_s=2.0)
    try:
        stuck = asyncio.create_task(workers.run(_size_of, str(pipe)))
        await asyncio.sleep(0)
        waiting = asyncio.create_task(workers.run(max, 1, 2))
        await asyncio.sleep(0)
        assert workers.waiting == 1
        with pytest.raises(ServerBusy):
            await workers.run(max, 1, 2)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(AnalysisDied):
            await stuck
        assert await workers.run(max, 1, 2) == 2
    finally:
        await workers.close()

    assert {each: counted(each) - before[each] for each in before} == {
        "died": 1,
        "busy": 1,
        "abandoned": 1,
        "done": 1,
    }
