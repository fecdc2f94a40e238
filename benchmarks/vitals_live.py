"""Streams of many minutes over a real connection: whether the server grows, and what an update takes it.

They are sent four times as fast as a camera sends, which is as much as one stream may send with room to spare: ten
minutes of signal take two and a half.
"""

import asyncio
import time
from collections.abc import Sequence

import orjson
from websockets.asyncio.client import ClientConnection, connect

from benchmarks.report import Figure, Goal
from benchmarks.stage import Options, Server, fresh_settings, serving
from lifesign.vitals.signal.synth import Scene, synthetic

_FPS = 30
_STREAMS = 4
_BATCH = 15
_FASTER = 4
_LOOKS = 100
_RING_S = 300
"""What a stream remembers: once that is full it has all that it will ever need."""
_SETTLED_S = 30
_MAX_S = 600
_EACH = Goal(4)
_FLAT = Goal(1)


def run(options: Options) -> list[Figure]:
    seconds = min(round((options.minutes or (10 if options.rounds > 1 else 1)) * 60), _MAX_S - 1)
    with fresh_settings("sqlite") as settings, serving(settings) as server:
        # What the first stream loads is not the stream's.
        asyncio.run(_watched(server, seconds=20, streams=1))
        before, cpu_s = server.rss_mib(), server.cpu_s()
        seen, updates = asyncio.run(_watched(server, seconds=seconds, streams=_STREAMS))
        spent_s = server.cpu_s() - cpu_s
    figures = [
        Figure(
            f"{_STREAMS} streams of {seconds} s: grown by, for each", [(seen[-2][1] - before) / _STREAMS], "MiB", _EACH
        ),
        Figure("  with their reports, in all", [seen[-1][1] - before], "MiB"),
        Figure("  an update, with all that is around it", [spent_s / updates * 1000], "ms of the processor"),
    ]
    # The last look is after the reports, which are of all five minutes at once.
    settled = [mib for at_s, mib in seen[:-1] if at_s >= _RING_S + _SETTLED_S]
    if len(settled) > 1:
        figures.append(
            Figure(
                "  since they remember all that they will, for each",
                [(settled[-1] - settled[0]) / _STREAMS],
                "MiB",
                _FLAT,
            )
        )
    return figures


async def _watched(server: Server, *, seconds: int, streams: int) -> tuple[list[tuple[float, float]], int]:
    """Memory of the server over the seconds of signal, as pairs; and how many updates came."""
    seen: list[tuple[float, float]] = []
    done = [0.0] * streams
    with server.client() as http:
        made = http.post("/api/keys", json={"name": "Jane", "email": f"jane{seconds}@x.io"}).json()["api_key"]["key"]
        tokens = [
            http.post("/api/vitals/sessions", json={"max_s": _MAX_S}, headers={"X-API-Key": made}).json()["session"][
                "token"
            ]
            for _ in range(streams)
        ]

    async def look() -> None:
        while max(done) < seconds - 1:
            seen.append((min(done), server.rss_mib()))
            await asyncio.sleep(seconds / _FASTER / _LOOKS)

    looking = asyncio.create_task(look())
    counts = await asyncio.gather(*(_streamed(server, token, seconds, done, n) for n, token in enumerate(tokens)))
    looking.cancel()
    seen.append((min(done), server.rss_mib()))
    return seen, sum(counts)


async def _streamed(server: Server, token: str, seconds: int, done: list[float], number: int) -> int:
    made = synthetic(Scene(seconds=seconds, fps=_FPS, seed=number))
    address = server.url.replace("http", "ws", 1) + "/api/vitals/stream"
    async with connect(address, max_size=None) as socket:
        await socket.send(orjson.dumps({"type": "start", "token": token, "fps": _FPS}).decode())
        hearing = asyncio.create_task(_heard(socket))
        began = time.monotonic()
        for seq, at in enumerate(range(0, len(made.t_ms), _BATCH)):
            part = slice(at, at + _BATCH)
            message = {"type": "frames", "seq": seq, "t": made.t_ms[part].tolist(), "rgb": made.rgb[part].tolist()}
            await socket.send(orjson.dumps(message).decode())
            done[number] = made.t_ms[part][-1] / 1000
            await asyncio.sleep(max(0.0, began + at / _FPS / _FASTER - time.monotonic()))
        await socket.send('{"type":"stop"}')
        kinds = await hearing
    assert kinds[-1] == "final", kinds[-5:]
    return kinds.count("update")


async def _heard(socket: ClientConnection) -> Sequence[str]:
    return [orjson.loads(message)["type"] async for message in socket]
