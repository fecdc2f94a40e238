"""What is sent to do harm, or by something broken: it is refused in words, soon, and nothing of it stays."""

import asyncio
import contextlib
import gzip
import os
import random
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

from lifesign.vitals import Stream, analyze_traces, jobs, stream
from lifesign.vitals.rules import InvalidTraces, VideoError, image_side
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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def worker() -> AsyncIterator[Workers]:
    """A process that analyses, for all who leave it alive."""
    workers = Workers(1)
    yield workers
    await workers.close()


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


async def test_a_worker_decodes_no_image_that_is_larger_whatever_its_header_hides(worker: Workers) -> None:
    hidden = _WIDE_JPEG[:2] + b"\xff\xe0\x00\x02" * 1000 + _WIDE_JPEG[2:]
    assert image_side(hidden) is None
    assert _decoded_side(hidden) == 4097
    assert await worker.run(_decoded_side, hidden) is None
    assert await worker.run(_decoded_side, _JPEG) == 8


def _turned(image: bytes, orientation: int) -> bytes:
    """A JPEG that says how it was held (Exif, tag 274)."""
    entry = struct.pack("<HHIHH", 274, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return image[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + image[2:]


async def test_an_image_that_was_taken_sideways_is_read_upright() -> None:
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:20] = 200
    lying = bytes(cv2.imencode(".png", np.rot90(upright))[1]), bytes(cv2.imencode(".jpg", np.rot90(upright))[1])
    assert image_side(_turned(lying[1], 6)) == 60

    plain, turned = jobs.decoded([lying[1], _turned(lying[1], 6)], [0, 1])

    assert (plain.image.shape, turned.image.shape) == ((60, 40, 3), (40, 60, 3))
    assert np.abs(turned.image.astype(int) - upright).mean() < 3


@pytest.mark.parametrize(
    "begin",
    [
        b"GIF89a",
        b"RIFF\x24\0\0\0WEBPVP8 ",
        b"BM",
        b"II*\0",
        b"\0\0\0\x1cftypheic",
        b"<svg xmlns=",
        b"%PDF-1.7",
        b"\0\0\1\0",
    ],
    ids=["gif", "webp", "bmp", "tiff", "heic", "svg", "pdf", "ico"],
)
async def test_only_two_kinds_of_images_are_taken(api: httpx2.AsyncClient, begin: bytes) -> None:
    answer = await api.post(_MEASURE, files=[("frame", ("a.jpg", begin + b"\0" * 60, "image/jpeg"))] * 2)

    assert (answer.status_code, answer.json()["message"]) == (415, "Unsupported media type")


@pytest.mark.parametrize(
    "begin", [b"GIF89a", b"RIFF\x24\0\0\0WEBPVP8 ", b"RIFF\x24\0\0\0WAVEfmt ", b"FLV\1", b"\x00\x00\x01\xba"]
)
async def test_pictures_that_move_are_no_videos(api: httpx2.AsyncClient, begin: bytes) -> None:
    for path in (_MEASURE, _ANALYZE):
        answer = await api.post(path, files={"video": ("a.mp4", begin + b"\0" * 60, "video/mp4")})
        assert (answer.status_code, answer.json()["message"]) == (415, "Unsupported media type")


def _outcome(path: str) -> str:
    """What becomes of a file: the code of its refusal, or that a report was made."""
    try:
        told = jobs.analyze_file(path, {}, jobs.Gate(1.0, 0.5))
    except VideoError as error:
        return error.code
    rate = told["report"]["vitals"]["heart_rate"]
    return "report" if rate["value"] is None else f"made up: {rate['value']}"


async def test_however_a_video_is_damaged_it_is_told_and_no_worker_dies(tmp_path: Path, worker: Workers) -> None:
    choose = random.Random(4)
    times = np.arange(3) / 10
    damaged: list[Path] = []
    for name, codec in (("a.mp4", "libx264"), ("a.mkv", "ffv1"), ("a.avi", "mpeg4"), ("a.webm", "libvpx")):
        whole = write_clip(tmp_path / name, pulsing(times), times, codec=codec).read_bytes()
        for number in range(6):
            content = bytearray(whole)
            if number < 3:
                del content[choose.randrange(12, len(content)) :]
            else:
                for _ in range(20):
                    # Its first bytes say what it is: others would be refused for what they are not.
                    content[choose.randrange(12, len(content))] = choose.randrange(256)
            damaged.append(tmp_path / f"{number}{name}")
            damaged[-1].write_bytes(content)

    outcomes = [await worker.run(_outcome, str(each)) for each in damaged]

    assert {"report", "decode_failed"} <= set(outcomes) <= {"report", "decode_failed", "empty", "unsupported"}


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worker: Workers
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for size in (10, 3 << 20):
        with SpooledTemporaryFile(max_size=1 << 20) as file:
            upload = UploadFile(file)  # type: ignore[arg-type]  # binary, as it is used
            await upload.write(b"x" * size)
            path = await path_of(upload)
            assert await worker.run(_size_of, path) == size
            assert _names_in(tmp_path) == []
        with pytest.raises(FileNotFoundError):
            _size_of(path)


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


@pytest.mark.parametrize(
    ("times", "status"),
    [
        # So many instants next to nothing that the usual step is nothing, too.
        ([n * 5e-324 for n in range(200)] + [400.0 * n for n in range(1, 40)], 400),
        ([n * 1e-4 for n in range(20)], 400),
        ([n * 0.001 for n in range(20)], 200),
        ([-10_000 + 33.3 * n for n in range(400)], 200),
        ([1e15 + 40 * n for n in range(400)], 200),
    ],
    ids=["nothing", "too near", "near enough", "negative", "late"],
)
async def test_instants_are_apart_and_may_be_any(api: httpx2.AsyncClient, times: list[float], status: int) -> None:
    rgb = [[100, 90, 80 + n % 7] for n in range(len(times))]

    answer = await api.post(_ANALYZE, json={"rgb": rgb, "t_ms": times})

    assert answer.status_code == status, answer.text
    if status == 400:
        assert answer.json()["message"] == "t_ms must be strictly increasing"
    else:
        assert answer.json()["report"]["samples"] == len(times)
        assert isinstance(answer.json()["report"]["fps"], float)
    with contextlib.suppress(InvalidTraces) if status == 400 else contextlib.nullcontext():
        Stream().push_rgb(rgb, times)
        assert status == 200


async def test_a_gzip_that_is_not_whole_or_more_than_one_is_refused(api: httpx2.AsyncClient) -> None:
    packed = gzip.compress(b'{"fps":30,"rgb":[]}')
    fits = gzip.compress(b" " * (16 << 20))

    async def told(content: bytes) -> tuple[int, str]:
        answer = await api.post(_ANALYZE, content=content, headers={"Content-Encoding": "gzip"})
        return answer.status_code, answer.json()["message"]

    broken = (400, "Request body is not one whole gzip file")
    assert await told(packed) == (400, "Too few samples")
    assert await told(packed[:-1]) == broken
    assert await told(packed + packed) == broken
    assert await told(packed[:9]) == broken
    assert await told(b"") == broken
    # As much as there may be, and a byte more.
    assert await told(fits) == (400, "Request body must be a JSON object")
    assert await told(gzip.compress(b" " * ((16 << 20) + 1))) == (413, "Request body too large")


# Streams ------------------------------------------------------------------------------------------------------------
_WRONG = {
    "a word": '"x"',
    "nothing": "null",
    "yes": "true",
    "a number": "5",
    "a fraction": "0.5",
    "an object": "{}",
    "a list": "[[[[1]]]]",
    "of words": '["x"]',
    "of nothing": "[null]",
    "half a word": '"\\ud800"',
}
_ABSENT = {("face", "nothing"), ("box", "nothing"), ("clipped", "nothing")}
_FITTING = {("seq", "a number"), ("dropped", "a number"), ("rgb", "of nothing")}


@pytest.mark.parametrize("member", ["seq", "t", "rgb", "face", "box", "clipped", "dropped", "type"])
async def test_a_member_of_a_wrong_kind_closes_the_stream_and_says_which(
    shared_node: Lifesign, api: httpx2.AsyncClient, member: str
) -> None:
    fields = {"type": '"frames"', "seq": "0", "t": "[0]", "rgb": "[[[1,2,3]]]"}
    values = [value for kind, value in _WRONG.items() if (member, kind) not in _ABSENT | _FITTING]
    assert len(values) >= 8
    for value in values:
        session = await session_of(api)
        async with connected(shared_node) as socket:
            socket.start(session["token"])
            await socket.hear("ready")
            socket.say_text(
                "{" + ",".join(f'"{name}":{each}' for name, each in (fields | {member: value}).items()) + "}"
            )
            code, said = await socket.end()

        [error] = said
        is_of_values = member not in {"seq", "dropped", "type"} and value != _WRONG["half a word"]
        wanted = (1007, "bad_value") if is_of_values else (1003, "bad_message")
        assert (code, error["code"]) == wanted, f"{member}: {value}: {error}"


@pytest.mark.parametrize("missing", ["seq", "t", "rgb"])
async def test_frames_without_what_they_are_made_of_are_no_message(
    shared_node: Lifesign, api: httpx2.AsyncClient, missing: str
) -> None:
    message = {"type": "frames", "seq": 0, "t": [0], "rgb": [[[1, 2, 3]]]}
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        socket.say({name: each for name, each in message.items() if name != missing})
        code, said = await socket.end()

    assert (code, said[-1]["code"]) == (1003, "bad_message")
    assert missing in said[-1]["message"]


async def test_frames_of_nothing_are_no_message_and_hold_no_place(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    session = await session_of(api)

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        socket.say({"type": "frames", "seq": 0, "t": [], "rgb": []})
        code, said = await socket.end()

    assert (code, said[-1]["code"], said[-1]["message"]) == (1003, "bad_message", "frames has 1 to 300 frames")


async def test_who_sends_less_than_a_camera_does_keeps_no_place_for_ever(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    session = await session_of(api, {"max_s": 10})
    slow = synthetic(Scene(seconds=1, fps=15))

    async with connected(shared_node) as socket:
        socket.start(session["token"])
        await socket.hear("ready")
        # A frame in ten seconds, of a fifteenth of a second each: so there would be hours of them.
        for number in range(4):
            socket.frames(slow, number, number + 1)
            told = (await api.get(f"/api/vitals/sessions/{session['id']}")).json()["session"]
            assert told["state"] == "open"
            await shared_node.advance(10)
        socket.frames(slow, 4, 5)
        code, said = await socket.end()

    assert (code, [each["type"] for each in said]) == (1000, ["final"])
    assert said[-1]["report"]["samples"] == 5


async def test_who_never_reads_is_let_go_without_taking_the_farewell(
    shared_node: Lifesign, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_SEND_S", 0.0)
    monkeypatch.setattr(stream, "_CLOSE_S", 0.0)
    session = await session_of(api)

    # There is room for the handshake and nothing else; the block ends once the server is through with it.
    async with connected(shared_node, room=1) as socket:
        socket.start(session["token"])

    told = (await api.get(f"/api/vitals/sessions/{session['id']}")).json()["session"]
    assert (told["state"], told["report"]) == ("finished", None)


async def test_hundreds_who_open_a_stream_and_say_nothing_are_sent_away_and_others_are_served(
    shared_node: Lifesign, api: httpx2.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "_START_S", 1.0)
    made = synthetic(Scene(seconds=12, fps=15))
    session = await session_of(api)
    before = len(asyncio.all_tasks())
    async with contextlib.AsyncExitStack() as stack:
        silent = [await stack.enter_async_context(connected(shared_node)) for _ in range(300)]
        socket = await stack.enter_async_context(connected(shared_node))
        socket.start(session["token"])
        socket.frames(made, 0, len(made.t_ms))
        socket.say({"type": "stop"})
        report = (await socket.hear("final"))["report"]
        assert report["vitals"]["heart_rate"]["value"] == pytest.approx(72, abs=1)
        # They hold none of the places that streams have.
        assert shared_node.node.api.state.vitals.sessions.open_streams == 0
        assert [await each.end() for each in silent] == [(1008, [])] * 300

    assert len(asyncio.all_tasks()) <= before + 1


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
