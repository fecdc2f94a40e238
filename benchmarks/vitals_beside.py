"""What machines notice of a video that is analysed: their heartbeats, beside it and without it, by turns.

Both are measured on one server within seconds of each other: their ratio means something where the times do not.
"""

import contextlib
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path

import httpx2

from benchmarks.report import Figure, Goal
from benchmarks.stage import Options, Server, fill, fresh_settings, serving
from benchmarks.systems import Systems, insert_systems
from benchmarks.vitals import write_clip
from benchmarks.wrk import Load, beat_load

_CLIP_S = 9
_WARM_S = 2
_TWICE = Goal(2)


def run(options: Options) -> list[Figure]:
    with fresh_settings("sqlite") as settings, tempfile.TemporaryDirectory() as directory:
        systems: list[tuple[str, str]] = []
        fill(settings, lambda conn, now: systems.extend(insert_systems(conn, now)))
        clip = Path(directory) / "clip.mp4"
        write_clip(clip, _CLIP_S)
        with serving(settings) as server, server.client() as http:
            made = http.post("/api/keys", json={"name": "Jane", "email": "jane@x.io"}).json()["api_key"]["key"]
            analyst = _Analyst(server, made, clip.read_bytes())
            analyst.analyze()  # there is a worker, and it has loaded what it needs
            beat_load(server, systems, seconds=_WARM_S)
            return [
                *_compared("64 connections, as many as there can be", 64, (server, systems), analyst, options),
                *_compared("8 connections", 8, (server, systems), analyst, options),
                Figure("videos of 9 s analysed meanwhile", [analyst.count], ""),
            ]


class _Analyst:
    """Sends one video after another."""

    def __init__(self, server: Server, key: str, clip: bytes) -> None:
        self._server = server
        self._key = key
        self._clip = clip
        self._stopped = threading.Event()
        self.count = 0

    def analyze(self) -> None:
        with httpx2.Client(base_url=self._server.url, timeout=90) as http:
            answer = http.post("/api/vitals/analyze", files={"video": self._clip}, headers={"X-API-Key": self._key})
        assert answer.status_code == 200, answer.text
        assert answer.json()["report"]["duration_ms"] > (_CLIP_S - 1) * 1000
        self.count += 1

    @contextlib.contextmanager
    def busy(self) -> Iterator[None]:
        """At work for as long as the block goes on, and to the end of what was begun."""
        self._stopped.clear()
        thread = threading.Thread(target=self._keep_analyzing)
        thread.start()
        try:
            yield
        finally:
            self._stopped.set()
            thread.join()

    def _keep_analyzing(self) -> None:
        while not self._stopped.is_set():
            self.analyze()


def _compared(
    name: str, connections: int, subject: tuple[Server, Systems], analyst: _Analyst, options: Options
) -> list[Figure]:
    server, systems = subject
    idle: list[Load] = []
    beside: list[Load] = []
    # As long as the others: each turn has its share of the moments in which the log is folded into the file.
    for _ in range(options.rounds):
        idle.append(beat_load(server, systems, seconds=options.seconds, connections=connections))
        with analyst.busy():
            beside.append(beat_load(server, systems, seconds=options.seconds, connections=connections))
    return [
        Figure(f"heartbeats, {name}: p99 beside a video, part of p99 without", _ratios(beside, idle), "", _TWICE),
        Figure(
            "  p99 beside a video", [each.p99_ms for each in beside], "ms", None, [each.p99_ms for each in idle], "idle"
        ),
        Figure(
            "  heartbeats beside a video",
            [each.rate for each in beside],
            "/s",
            None,
            [each.rate for each in idle],
            "idle",
        ),
    ]


def _ratios(beside: Sequence[Load], idle: Sequence[Load]) -> list[float]:
    return [one.p99_ms / other.p99_ms for one, other in zip(beside, idle, strict=True)]
