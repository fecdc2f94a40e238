"""Durable spans over OTLP/HTTP, counted in the store, and check-ins while as many come in as can."""

import http.client
import itertools
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from statistics import quantiles

import psycopg

from benchmarks.otlp import as_json, request
from benchmarks.report import Figure, Goal
from benchmarks.stage import AUTHORIZATION, DATABASES, DatabaseKind, Options, Server, fresh_settings, serving
from lifesign.settings import Settings

_SPANS = 200
_SENDERS = 4
_BODIES_PER_SECOND = 60
_BETWEEN_CHECK_INS_S = 0.005
_ALONE_S = 3
_HUNDREDTHS = 100


def run(options: Options) -> list[Figure]:
    return [figure for kind in DATABASES for figure in _on(kind, options)]


def _on(kind: DatabaseKind, options: Options) -> list[Figure]:
    seeds = itertools.count(1)
    forms: Sequence[tuple[str, Callable[[int], bytes], str, int]] = (
        ("protobuf", lambda seed: bytes(request(seed, _SPANS).SerializeToString()), "application/x-protobuf", 10_000),
        ("JSON", lambda seed: as_json(request(seed, _SPANS)), "application/json", 8_000),
    )
    figures: list[Figure] = []
    with fresh_settings(kind) as settings, serving(settings) as server:
        beat = {"name": "beat", "mode": "recurring", "interval": 3600}
        server.client().post("/v1/heartbeats", json=beat).raise_for_status()
        until = time.monotonic() + _ALONE_S
        alone_ms = _check_ins(server, lambda: time.monotonic() < until)
        figures.append(Figure(f"{kind}: check-ins alone, p99", [_p99(alone_ms)], "ms"))
        for name, make, content_type, goal in forms:
            rounds = [
                _round(settings, server, [make(next(seeds)) for _ in range(_count(options))], content_type)
                for _ in range(options.rounds)
            ]
            is_goal = kind == "sqlite"
            figures += [
                Figure(
                    f"{kind}: {name}, spans stored per second of processor time",
                    [each.stored / each.cpu_s for each in rounds],
                    "/s",
                    Goal(goal, is_floor=True) if is_goal else None,
                ),
                Figure("  spans stored per second", [each.stored / each.took_s for each in rounds], "/s"),
                Figure("  check-ins meanwhile, p99", [each.p99_ms for each in rounds], "ms", Goal(50)),
                Figure("  memory", [each.rss_mib for each in rounds], "MiB", Goal(300) if is_goal else None),
            ]
    return figures


def _count(options: Options) -> int:
    return options.seconds * _BODIES_PER_SECOND


@dataclass(frozen=True, slots=True)
class _Round:
    stored: int
    took_s: float
    cpu_s: float
    p99_ms: float
    rss_mib: float


def _round(settings: Settings, server: Server, bodies: Sequence[bytes], content_type: str) -> _Round:
    """Send all bodies as fast as they are taken."""
    left = iter(bodies)
    lock = threading.Lock()
    senders = [threading.Thread(target=_send, args=(server, left, lock, content_type)) for _ in range(_SENDERS)]
    before, cpu_s, began = _stored(settings), server.cpu_s(), time.monotonic()
    for sender in senders:
        sender.start()
    taken_ms = _check_ins(server, lambda: any(sender.is_alive() for sender in senders))
    for sender in senders:
        sender.join()
    took_s, cpu_s = time.monotonic() - began, server.cpu_s() - cpu_s
    return _Round(_stored(settings) - before, took_s, cpu_s, _p99(taken_ms), server.rss_mib())


def _send(server: Server, left: Iterator[bytes], lock: threading.Lock, content_type: str) -> None:
    headers = AUTHORIZATION | {"Content-Type": content_type}
    with closing(_connection(server)) as connection:
        while True:
            with lock:
                body = next(left, None)
            if body is None:
                return
            connection.request("POST", "/v1/traces", body, headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status not in {200, 202}:
                raise RuntimeError(f"{answer.status}: {told[:200]!r}")


def _check_ins(server: Server, is_on: Callable[[], bool]) -> list[float]:
    """How long each check-in took, in milliseconds, for as long as there is something beside them."""
    taken_ms: list[float] = []
    with closing(_connection(server)) as connection:
        while is_on():
            began = time.perf_counter()
            connection.request("POST", "/v1/heartbeats/beat/checkin", headers=AUTHORIZATION)
            connection.getresponse().read()
            taken_ms.append((time.perf_counter() - began) * 1000)
            time.sleep(_BETWEEN_CHECK_INS_S)
    return taken_ms


def _p99(taken_ms: Sequence[float]) -> float:
    return quantiles(taken_ms, n=_HUNDREDTHS)[-1]


def _connection(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=60)


def _stored(settings: Settings) -> int:
    """Spans in the store, looked at past the server."""
    if settings.database_url is not None:
        with psycopg.connect(settings.database_url.get_secret_value()) as conn:
            row = conn.execute("SELECT count(*) FROM telemetry.spans").fetchone()
            return 0 if row is None else int(row[0])
    with closing(sqlite3.connect(settings.data_dir / "telemetry.db")) as file:
        return int(file.execute("SELECT count(*) FROM spans").fetchone()[0])
