"""Spans over HTTP into each store: what a span costs the server and weighs on disk, and when it can be read."""

import http.client
import itertools
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.otlp import request
from benchmarks.report import Figure, Goal
from benchmarks.stage import AUTHORIZATION, DatabaseKind, Options, Server, fresh_settings, serving
from lifesign.clock import EpochMs
from lifesign.prices import Prices
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import decode_protobuf
from lifesign.telemetry.rules import SlowAfter

SPANS = 200
_CONNECTIONS = 8
_REQUESTS_PER_SECOND = 50
_WARM_UP = 20
_PROTOBUF = {"Content-Type": "application/x-protobuf"}
_RECEIVED_AT = EpochMs(1_767_614_500_000)
_STORES: tuple[tuple[str, DatabaseKind, str, str], ...] = (
    ("sqlite", "sqlite", "", "telemetry.db*"),
    ("postgresql", "postgresql", "", ""),
    ("clickhouse (chdb)", "sqlite", "chdb:///{directory}/clickhouse", "clickhouse/**/*"),
)


def run(options: Options) -> list[Figure]:
    return [figure for store in _STORES for figure in _on(*store, options)]


def _on(name: str, kind: DatabaseKind, url: str, files: str, options: Options) -> list[Figure]:
    seeds = itertools.count(1)
    figures: list[Figure] = []
    with fresh_settings(kind) as settings:
        variables = {"LIFESIGN_TELEMETRY_URL": url.format(directory=settings.data_dir)} if url else {}
        with serving(settings, **variables) as server:
            figures += [_stored(name, server, seeds, options), _visible(server, seeds, options)]
            stored = _count(server)
        if files:
            figures.append(Figure("  on disk", [_weight(settings.data_dir, files) / stored], "bytes a span"))
    return figures


def _stored(name: str, server: Server, seeds: Iterator[int], options: Options) -> Figure:
    """Beside what decoding and mapping alone would do."""
    post_all(server, bodies_of(seeds, _WARM_UP))
    values: list[float] = []
    alone: list[float] = []
    for _ in range(options.rounds):
        bodies = bodies_of(seeds, options.seconds * _REQUESTS_PER_SECOND)
        values.append(stored_per_cpu_s(server, bodies))
        alone.append(_decoded_per_s(bodies))
    title = f"{name}: protobuf, spans stored per second of processor time"
    return Figure(title, values, "/s", None, alone, "decoded and mapped alone")


def stored_per_cpu_s(server: Server, bodies: Sequence[bytes]) -> float:
    """How many spans more can be read, for each second that the server's process used."""
    before, cpu_before = _count(server), server.cpu_s()
    post_all(server, bodies)
    spent_s = server.cpu_s() - cpu_before
    return (_count(server) - before) / spent_s


def _decoded_per_s(bodies: Sequence[bytes]) -> float:
    prices = Prices()
    began = time.process_time()
    for body in bodies:
        batch = decode_protobuf(body, arrival_ns=1)
        records_of(batch.spans, _RECEIVED_AT, slow_after=SlowAfter(), prices=prices)
    return len(bodies) * SPANS / (time.process_time() - began)


def _visible(server: Server, seeds: Iterator[int], options: Options) -> Figure:
    """From the answer until the spans of a request have been read."""
    took_ms: list[float] = []
    with server.client() as client:
        for _ in range(options.rounds * 5):
            told = request(next(seeds), SPANS)
            trace_id = told.resource_spans[0].scope_spans[0].spans[0].trace_id.hex()
            answer = client.post("/v1/traces", content=told.SerializeToString(), headers=_PROTOBUF)
            assert answer.status_code == 200, answer.text
            began = time.monotonic()
            while not client.get("/v1/telemetry", params={"trace_id": trace_id}).json()["count"]:
                assert time.monotonic() - began < 30, "never visible"
            took_ms.append((time.monotonic() - began) * 1000)
    return Figure("  answered to read", took_ms, "ms", Goal(3000))


def bodies_of(seeds: Iterator[int], count: int) -> list[bytes]:
    """Requests that were never sent before."""
    return [request(next(seeds), SPANS).SerializeToString() for _ in range(count)]


def post_all(server: Server, bodies: Sequence[bytes]) -> None:
    """Send every body once, over connections that are kept."""
    host = server.url.removeprefix("http://")

    def post(some: Sequence[bytes]) -> None:
        connection = http.client.HTTPConnection(host, timeout=60)
        for body in some:
            connection.request("POST", "/v1/traces", body, AUTHORIZATION | _PROTOBUF)
            answer = connection.getresponse()
            content = answer.read()
            assert answer.status == 200, content
        connection.close()

    with ThreadPoolExecutor(_CONNECTIONS) as pool:
        list(pool.map(post, [bodies[start::_CONNECTIONS] for start in range(_CONNECTIONS)]))


def _count(server: Server) -> int:
    with server.client() as client:
        return int(client.get("/v1/dashboard").json()["quota"]["used"])


def _weight(directory: Path, pattern: str) -> int:
    return sum(each.stat().st_size for each in directory.glob(pattern) if each.is_file())
