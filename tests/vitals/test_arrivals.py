"""How slowly a recording may come in, and what slow ones do to others. Spec "Vitals", section 5."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx2
import pytest
import pytest_asyncio
from starlette.types import Message

from lifesign.vitals.arrivals import Arrivals, Pace, _Arrival
from lifesign.vitals.bodies import watch_in_body
from lifesign.vitals.service import Vitals
from tests.harness import SETTINGS, Json, Lifesign

pytestmark = pytest.mark.asyncio(loop_scope="module")

_MEASURE, _ANALYZE, _TRY = "/api/rppg/measure", "/api/vitals/analyze", "/api/demo/analyze"
_PATIENCE_S = 30
_FORM = b"multipart/form-data; boundary=b"
_VIDEO = b'--b\r\nContent-Disposition: form-data; name="video"; filename="a.mp4"\r\n\r\n'
_TOO_SLOW = (
    "The upload is too slow: it has to arrive within 600 s, at 16 KiB per second or more. Send less, or over a better "
    "connection"
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_node(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Lifesign]:
    """A node on one database only: nothing here gets as far as that."""
    settings = SETTINGS.model_copy(update={"data_dir": tmp_path_factory.mktemp("node")})
    async with Lifesign.started(settings, at="2026-01-05T12:00:00.000Z") as started:
        yield started


@dataclass(slots=True)
class Sending:
    """A request whose body is sent piece by piece."""

    serving: "asyncio.Task[None]"
    to_server: "asyncio.Queue[Message]"
    from_server: "list[Message]" = field(default_factory=list)
    answered: asyncio.Event = field(default_factory=asyncio.Event)

    def send(self, piece: bytes, *, is_last: bool = False) -> None:
        self.to_server.put_nowait({"type": "http.request", "body": piece, "more_body": not is_last})

    async def answer(self) -> tuple[int, Json]:
        """Status and body, once whoever sends has gone."""
        async with asyncio.timeout(_PATIENCE_S):
            await self.answered.wait()
            self.to_server.put_nowait({"type": "http.disconnect"})
            await self.serving
        body = b"".join(each["body"] for each in self.from_server if each["type"] == "http.response.body")
        return self.from_server[0]["status"], json.loads(body)


@asynccontextmanager
async def sending(
    node: Lifesign, key: str | None, path: str = _ANALYZE, content_type: bytes = _FORM
) -> AsyncIterator[Sending]:
    to_server: asyncio.Queue[Message] = asyncio.Queue()

    async def hear(message: Message) -> None:
        sent.from_server.append(message)
        sent.answered.set()

    scope = {
        "type": "http",
        "method": "POST",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": [(b"content-type", content_type), *([(b"x-api-key", key.encode())] if key else [])],
        "scheme": "http",
        "server": ("lifesign.test", 80),
        "client": ("127.0.0.1", 1),
        "state": {},
    }
    serving = asyncio.ensure_future(node.node.app(scope, to_server.get, hear))
    sent = Sending(serving, to_server)
    try:
        yield sent
    finally:
        to_server.put_nowait({"type": "http.disconnect"})
        await asyncio.wait([serving], timeout=_PATIENCE_S)


async def come(arrivals: Arrivals, count: int) -> None:
    async with asyncio.timeout(_PATIENCE_S):
        while len(arrivals) < count:  # noqa: ASYNC110 - there is no event of it
            await asyncio.sleep(0.001)


@asynccontextmanager
async def arriving(node: Lifesign, arrivals: Arrivals) -> AsyncIterator[Arrivals]:
    state = node.node.api.state
    vitals: Vitals = state.vitals
    state.vitals = replace(vitals, arrivals=arrivals)
    try:
        yield arrivals
    finally:
        state.vitals = vitals


# Patience -----------------------------------------------------------------------------------------------------------
async def test_the_next_piece_may_take_as_long_as_the_pace_allows() -> None:
    pace = Pace(600, grace_s=10, silence_s=30, bytes_per_s=1000)

    assert pace.patience_s(0, 0) == 10
    assert pace.patience_s(4, 0) == 6
    # 5 s worth of bytes came: they earn 5 s.
    assert pace.patience_s(4, 5000) == 11
    assert pace.patience_s(16, 5000) == -1
    # However quick it was before, nobody is waited for longer than this.
    assert pace.patience_s(4, 100_000_000) == 30
    assert pace.patience_s(590, 100_000_000) == 10
    assert pace.patience_s(601, 100_000_000) == -1


async def test_settings_say_how_long_an_upload_may_take() -> None:
    assert Vitals.of(SETTINGS).arrivals.pace.total_s == 600
    assert Vitals.of(SETTINGS.model_copy(update={"vitals_upload_s": 20})).arrivals.pace.total_s == 20


@pytest.mark.parametrize(
    "case",
    [
        (_ANALYZE, _FORM, _VIDEO + b"\x1aE\xdf\xa3" + b"x" * (3 << 20)),
        (_MEASURE, _FORM, _VIDEO[:30]),
        (_TRY, _FORM, _VIDEO),
        (_ANALYZE, b"application/json", b'{"t_ms":[0,'),
        (_TRY, b"application/json", b""),
    ],
)
async def test_a_body_that_stops_coming_is_408_and_leaves_no_file(
    shared_node: Lifesign,
    api: httpx2.AsyncClient,
    files: Path,
    case: tuple[str, bytes, bytes],
) -> None:
    path, content_type, beginning = case
    key = None if path == _TRY else api.headers["X-API-Key"]

    async with arriving(shared_node, Arrivals(Pace(600, silence_s=0.05))) as arrivals:
        async with sending(shared_node, key, path, content_type) as slow:
            slow.send(beginning)
            status, told = await slow.answer()
        assert len(arrivals) == 0

    assert (status, told) == (408, {"success": False, "message": _TOO_SLOW})
    assert (b"connection", b"close") in slow.from_server[0]["headers"]
    assert [each for each in _open_files() if str(files) in each] == []


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where uploads that are no longer small are kept."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def _open_files() -> list[str]:
    return [str(each.readlink()) for each in Path("/proc/self/fd").iterdir() if each.is_symlink()]


async def test_pieces_that_come_soon_but_are_tiny_do_not_keep_an_upload_alive(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    async with (
        arriving(shared_node, Arrivals(Pace(600, grace_s=0.05))),
        sending(shared_node, api.headers["X-API-Key"]) as slow,
    ):
        slow.send(_VIDEO)
        for _ in range(400):
            slow.send(b"x")
            await asyncio.sleep(0 if slow.answered.is_set() else 0.005)

        assert (await slow.answer())[0] == 408


async def test_what_is_there_already_counts_for_nothing_once_the_time_is_over(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    async with (
        arriving(shared_node, Arrivals(Pace(0))),
        sending(shared_node, api.headers["X-API-Key"]) as slow,
    ):
        slow.send(_VIDEO, is_last=True)

        assert (await slow.answer())[0] == 408


# Places -------------------------------------------------------------------------------------------------------------
async def test_slow_uploads_keep_nobody_out(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    key = api.headers["X-API-Key"]
    async with (
        arriving(shared_node, Arrivals(Pace(600, grace_s=0.3, bytes_per_s=0.001), places=2)) as arrivals,
        sending(shared_node, key) as slow,
        sending(shared_node, key) as slower,
    ):
        slow.send(_VIDEO + b"x" * 1000)
        slower.send(_VIDEO)
        await come(arrivals, 2)
        # Until then they have only just begun.
        await asyncio.sleep(arrivals.pace.grace_s)

        refused = await api.post(_ANALYZE, json={"rgb": []})

        assert (refused.status_code, refused.json()["message"]) == (400, "Too few samples")
        # The place was that of the slowest, who is told; the other goes on.
        assert (await slower.answer())[0] == 408
        assert not slow.serving.done()
        assert len(arrivals) == 1


async def test_those_who_are_quick_or_have_just_begun_keep_their_places(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    async with (
        arriving(shared_node, Arrivals(Pace(600), places=1)) as arrivals,
        sending(shared_node, api.headers["X-API-Key"]) as first,
    ):
        first.send(_VIDEO)
        await come(arrivals, 1)

        busy = await api.post(_ANALYZE, json={"rgb": []})

        assert (busy.status_code, busy.json()["message"]) == (503, "Server is busy")
        assert busy.headers["Retry-After"] == "5"
        assert not first.serving.done()


async def test_what_has_arrived_takes_no_place_while_it_is_analysed(
    shared_node: Lifesign, api: httpx2.AsyncClient
) -> None:
    async with arriving(shared_node, Arrivals(Pace(600), places=1)) as arrivals:
        for _ in range(3):
            assert (await api.post(_ANALYZE, json={"rgb": []})).status_code == 400
            assert (await api.post(_ANALYZE, files={"video": b"nothing"})).status_code == 415
            assert len(arrivals) == 0


async def test_one_whose_time_is_up_already_is_ended_by_that() -> None:
    loop = asyncio.get_running_loop()
    arrival = _Arrival(loop.time())
    faults: list[object] = []
    loop.set_exception_handler(lambda _, fault: faults.append(fault))

    async def wait() -> None:
        async with asyncio.timeout(0.01) as arrival.waiting:
            # In the same turn of the loop, before whoever waits hears of it.
            loop.call_at(arrival.waiting.when() or 0.0, lambda: arrival.end(loop.time()))
            await loop.create_future()

    with pytest.raises(TimeoutError):
        await wait()
    loop.set_exception_handler(None)

    assert arrival.is_ended
    assert faults == []


# Beside the event loop ----------------------------------------------------------------------------------------------
async def test_a_watch_is_found_without_reading_the_rest(shared_node: Lifesign, api: httpx2.AsyncClient) -> None:
    assert watch_in_body(b'{"rgb":[[1,2,3]],"watch":{"heartbeat":"x"}}') == {"heartbeat": "x"}
    assert watch_in_body(b'{"\\u0077atch":{"heartbeat":"x"}}') == {"heartbeat": "x"}
    assert watch_in_body(b'{"watch":1,"watch":{"heartbeat":"last"}}') == {"heartbeat": "last"}
    assert watch_in_body(b'{"watch":null,"rgb":{"watch":1}}') is None
    for nothing in (b"", b"[1]", b"nonsense", b'{"watch":' + b"[" * 1_000_000, b"\xff"):
        assert watch_in_body(nothing) is None
    # Nobody's heartbeat has such a name; it is told as what it is.
    long = await api.post(_ANALYZE, json={"watch": {"heartbeat": "x" * 20_000}})
    assert (long.status_code, long.json()["message"]) == (400, "Invalid watch")


@pytest.mark.parametrize("padding", [0, 2 << 20])
async def test_a_watch_is_judged_first_however_long_the_body_is(
    shared_node: Lifesign, api: httpx2.AsyncClient, padding: int
) -> None:
    body = {"rgb": [], "note": "x" * padding, "watch": {"heartbeat": "nightly-export"}}

    answer = await api.post(_ANALYZE, json=body)

    assert answer.status_code == 403
    without = await api.post(_ANALYZE, json={name: each for name, each in body.items() if name != "watch"})
    assert (without.status_code, without.json()["message"]) == (400, "Too few samples")
