"""What counting the requests of the Vitals API costs: itself, and the others; keys, and dashboards over full tables.

The same server runs with its log and without it, side by side, and both are asked in turns: what the machine does
besides hits both alike, so that the ratio means something where the rates do not.
"""

import asyncio
import contextlib
import gc
import itertools
import os
import re
import sys
import time
import tracemalloc
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from statistics import median

import httpx2
from sqlalchemy import Connection, insert
from starlette.types import Message, Receive, Scope, Send

from benchmarks.counting import TRIVIAL, trivial
from benchmarks.report import Figure, Goal
from benchmarks.stage import (
    ADMIN_KEY,
    DATABASES,
    DatabaseKind,
    Options,
    Server,
    fill,
    fresh_settings,
    insert_heartbeats,
    percentile,
    program,
    serving,
    timed_ms,
)
from benchmarks.wrk import Load, check_in_load, ping_load
from lifesign import log
from lifesign.app import open_node
from lifesign.auth.vitals import rules as key_rules
from lifesign.auth.vitals.service import VitalsKeyring
from lifesign.auth.vitals.store import VitalsKey
from lifesign.clock import EpochMs, SystemClock
from lifesign.db import schema
from lifesign.settings import Settings
from lifesign.usage import service as usage_service
from lifesign.usage.counted import Counted
from lifesign.usage.log import UsageLog
from lifesign.usage.rules import Minute, Sums

_LISTENING = re.compile(r"listening on (\S+)")
_PARTS_OF_A_ROUND = 4
_TURNS_OF_A_ROUND = 20
_TIMES = 100
_KEYS = 10_000
_MINUTES = 43_200
_ERRORS = 1_000
_BURST = 50_000
_NOTED_PER_S = 1_000
_PATIENCE_S = 60
_KEEPS = Goal(0.97, is_floor=True)


def run(options: Options) -> list[Figure]:
    return [
        *asyncio.run(_recording()),
        asyncio.run(_whole(options)),
        *asyncio.run(_checking_keys()),
        *_beside_each_other(options),
        *(figure for kind in DATABASES for figure in _dashboards(kind, options)),
    ]


# One request --------------------------------------------------------------------------------------------------------
async def _null(_: Scope, receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class _Nowhere:
    """A database that takes everything at once."""

    async def write(self, *_: object) -> None:
        return None


async def _recording() -> list[Figure]:
    """What is put around an app that does nothing, in time of the processor: others do not lengthen that."""
    clock = SystemClock()
    usage_log = UsageLog(_Nowhere(), clock)  # type: ignore[arg-type]  # the one method that it calls
    counted = Counted(_null, usage_log, clock, [])
    header = (b"x-api-key", key_rules.new_key().encode())
    ours: list[float] = []
    others: list[float] = []
    for _ in range(30):
        for path, costs in ((TRIVIAL, ours), ("/v1/heartbeats/nightly-export/checkin", others)):
            scope = {"type": "http", "method": "GET", "path": path, "headers": [header], "state": {"vitals_key_id": 7}}
            bare = await _spent_us(_null, scope)
            costs.append(await _spent_us(counted, scope) - bare)
        await usage_log.settle()
    await usage_log.close()
    return [
        Figure("counting a request", [median(ours)], "us of the processor", Goal(20)),
        Figure("letting a request of another API pass", [median(others)], "us of the processor"),
    ]


async def _spent_us(app: Callable[[Scope, Receive, Send], Awaitable[None]], scope: Scope, times: int = 400) -> float:
    waiting = asyncio.Event()
    is_read = False

    async def receive() -> Message:
        nonlocal is_read
        if is_read:
            await waiting.wait()
        is_read = True
        return {"type": "http.request", "body": b""}

    async def send(_: Message) -> None:
        return None

    began = time.thread_time()
    for _ in range(times):
        is_read = False
        await app(scope, receive, send)
    return (time.thread_time() - began) / times * 1_000_000


async def _whole(options: Options) -> Figure:
    """All that counting a request costs: what is put around the app, adding up, and writing; beside a whole request.

    Both ways by turns in one process, by its time of the processor: neither what else the machine does nor a socket
    comes into it, so that this means something where rates do not.
    """
    # As the servers of the other figures: a line for each request would be all that is measured.
    log.configure("json", "warning")
    with fresh_settings("sqlite") as settings:
        node = await open_node(settings)
        node.api.add_route(TRIVIAL, trivial)
        plain = node.app._app  # type: ignore[attr-defined]  # noqa: SLF001 - the same, but for the log
        scope = {
            "type": "http",
            "method": "GET",
            "path": TRIVIAL,
            "raw_path": TRIVIAL.encode(),
            "query_string": b"",
            "headers": [(b"host", b"lifesign.test"), (b"x-api-key", key_rules.new_key().encode())],
            "scheme": "http",
            "http_version": "1.1",
            "server": ("lifesign.test", 80),
            "client": ("127.0.0.1", 1),
        }
        for app in (node.app, plain):
            await _spent_us(app, scope)
        await node.usage.settle()
        gc.collect()
        gc.freeze()
        counted: list[float] = []
        bare: list[float] = []
        for turn in range(options.rounds * _TURNS_OF_A_ROUND):
            for is_counted in (True, False) if turn % 2 == 0 else (False, True):
                began = time.process_time()
                await _spent_us(node.app if is_counted else plain, scope)
                await node.usage.settle()
                (counted if is_counted else bare).append((time.process_time() - began) / 400 * 1_000_000)
        gc.unfreeze()
        await node.close()
    cost = [one - other for one, other in zip(counted, bare, strict=True)]
    return Figure(
        "counting a request, adding up and writing included",
        cost,
        "us of the processor",
        reference=bare,
        reference_name="us of a request without, no socket",
    )


class _OneKey:
    """A database that has every key."""

    is_sqlite = True

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    async def read(self, *_: object) -> VitalsKey:
        return VitalsKey(next(self._ids), "prj_1", "n", "e@x.io", None, None, "beam_0000", EpochMs(0), None, 0, None)


async def _checking_keys() -> list[Figure]:
    keyring = VitalsKeyring(_OneKey(), SystemClock())  # type: ignore[arg-type]  # the one method that it calls
    keys = [key_rules.new_key().encode() for _ in range(_KEYS)]
    gc.collect()
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for key in keys:
        await keyring.caller(key)
    grown = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    rounds: list[float] = []
    for _ in range(10):
        began = time.thread_time()
        for key in keys:
            await keyring.caller(key)
        rounds.append((time.thread_time() - began) / _KEYS * 1_000_000)
    return [
        Figure("knowing a key that was seen before", [median(rounds)], "us of the processor", Goal(30)),
        Figure("remembering 10,000 keys", [grown / 2**20], "MiB", Goal(8)),
    ]


# With the log and without -------------------------------------------------------------------------------------------
@contextlib.contextmanager
def _counting(settings: Settings, *arguments: str) -> Iterator[Server]:
    variables = {
        "LIFESIGN_DATA_DIR": str(settings.data_dir),
        "LIFESIGN_ADMIN_KEY": ADMIN_KEY,
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    with program(["-m", "benchmarks.counting", *arguments], variables, _LISTENING) as server:
        yield server


def _beside_each_other(options: Options) -> list[Figure]:
    noting = f"check-ins beside {_NOTED_PER_S:,} counted requests a second"
    return [
        *_with_and_without(options, {"a trivial route of the Vitals API": _ask_trivial, "check-ins": _check_in}),
        *_with_and_without(options, {noting: _check_in}, "--noting", str(_NOTED_PER_S)),
    ]


Ask = Callable[[Server, Sequence[str]], Load]


def _ask_trivial(server: Server, _: Sequence[str]) -> Load:
    return ping_load(server, [TRIVIAL], seconds=1)


def _check_in(server: Server, heartbeat_ids: Sequence[str]) -> Load:
    return check_in_load(server, heartbeat_ids, seconds=1)


def _with_and_without(options: Options, asks: Mapping[str, Ask], *arguments: str) -> list[Figure]:
    with fresh_settings("sqlite") as one, fresh_settings("sqlite") as other:
        heartbeats = [_heartbeats(settings) for settings in (one, other)]
        with _counting(one, *arguments) as counted, _counting(other, "--without") as plain:
            subjects = ((counted, heartbeats[0]), (plain, heartbeats[1]))
            return [figure for name, ask in asks.items() for figure in _in_turns(name, ask, subjects, options)]


def _heartbeats(settings: Settings) -> list[str]:
    ids: list[str] = []
    fill(settings, lambda conn, now: ids.extend(insert_heartbeats(conn, now, 1000)))
    return ids


Subject = tuple[Server, Sequence[str]]


def _in_turns(name: str, ask: Ask, subjects: tuple[Subject, Subject], options: Options) -> list[Figure]:
    for subject in subjects:
        ask(*subject)  # caches and connections are warm
    rates: tuple[list[float], list[float]] = ([], [])
    spent_us: tuple[list[float], list[float]] = ([], [])
    for turn in range(options.rounds * _PARTS_OF_A_ROUND):
        for which in (0, 1) if turn % 2 == 0 else (1, 0):
            server = subjects[which][0]
            cpu_s = server.cpu_s()
            load = ask(*subjects[which])
            rates[which].append(load.rate)
            spent_us[which].append((server.cpu_s() - cpu_s) * 1_000_000 / load.requests)
    kept = [counted / plain for counted, plain in zip(*rates, strict=True)]
    cost = [plain / counted for counted, plain in zip(*spent_us, strict=True)]
    return [
        Figure(f"{name}: rate, part of that without the log", kept, "", _KEEPS, rates[1], "rate without"),
        Figure("  the same by time of the processor", cost, "", _KEEPS, spent_us[1], "us without"),
    ]


# Full tables --------------------------------------------------------------------------------------------------------
def _dashboards(kind: DatabaseKind, options: Options) -> list[Figure]:
    with fresh_settings(kind) as settings:
        fill(settings, _insert_usage)
        with serving(settings) as server, server.client() as http:
            made = http.post("/api/keys", json={"name": "Jane", "email": "jane@x.io"}).json()["api_key"]["key"]
            headers = {"X-API-Key": made}

            def measured(name: str, path: str, goal_ms: float) -> Figure:
                answer = http.get(path, headers=headers)
                assert answer.status_code == 200, answer.text
                rounds = [
                    percentile(timed_ms(lambda: http.get(path, headers=headers), _TIMES), 0.5)
                    for _ in range(options.rounds)
                ]
                return Figure(f"{kind}: {name}, median", rounds, "ms", Goal(goal_ms))

            return [
                measured("overview", "/api/dashboard/overview", 25),
                measured("metrics of 30 days", "/api/dashboard/metrics?range=30d", 60),
                measured("recent errors", "/api/dashboard/recent-errors", 15),
                _taking_keys(kind, http, options),
                *_burst(kind, server, http, headers),
            ]


def _busy_minute(count: int) -> Minute:
    return Minute(count, count, count, count, count, 1, 900)


def _insert_usage(conn: Connection, now: EpochMs) -> None:
    minute = now - now % 60_000
    hour = minute - minute % 3_600_000
    sums = Sums(
        minutes={EpochMs(minute - n * 60_000): _busy_minute(n % 50) for n in range(_MINUTES)},
        latency={(EpochMs(hour - n * 3_600_000), each): 3 for n in range(_MINUTES // 60) for each in range(150)},
    )
    usage_service.add(conn, sums)
    conn.execute(
        insert(schema.usage_errors),
        [
            {
                "error_type": "client_error",
                "message": f"GET /api/vitals/{n} → 404",
                "count": n,
                "first_seen": now - n * 1000,
                "last_seen": now - n * 1000,
            }
            for n in range(_ERRORS)
        ],
    )
    conn.execute(
        insert(schema.vitals_keys),
        [
            {
                "project_id": "prj_1",
                "name": "n",
                "email": f"a{n}@x.io",
                "email_identity": f"a{n}@x.io",
                "slot": 1,
                "hash": f"{n:064x}",
                "prefix": "beam_0000",
                "created_at": now,
                "last_used_at": now - n * 600_000,
            }
            for n in range(_KEYS)
        ],
    )


def _taking_keys(kind: str, http: httpx2.Client, options: Options) -> Figure:
    numbers = itertools.count()

    def take() -> None:
        answer = http.post("/api/keys", json={"name": "Jane", "email": f"taken{next(numbers)}@x.io"})
        assert answer.status_code == 201, answer.text

    rounds = [percentile(timed_ms(take, _TIMES), 0.95) for _ in range(options.rounds)]
    return Figure(f"{kind}: taking a key, p95", rounds, "ms", Goal(25))


def _burst(kind: str, server: Server, http: httpx2.Client, headers: dict[str, str]) -> list[Figure]:
    """As many requests as come within some seconds, at least so many; then when the last of them is counted."""

    def counted() -> int:
        found = http.get("/api/dashboard/overview", headers=headers).json()["overview"]
        return int(found["requests"]["last_24h"])

    ping_load(server, ["/api/keys"], seconds=1, are_refused=True)
    before, resident = counted(), server.rss_mib()
    sent = 0
    while sent < _BURST:
        sent += ping_load(server, ["/api/keys"], seconds=5, are_refused=True).requests
    began = time.perf_counter()
    # The overviews before it.
    while counted() < before + 1 + sent:
        assert time.perf_counter() - began < _PATIENCE_S, "some were not counted"
    return [
        Figure(
            f"{kind}: {_BURST:,} requests or more, until all are counted", [time.perf_counter() - began], "s", Goal(2)
        ),
        Figure("  grown by", [server.rss_mib() - resident], "MiB", Goal(30)),
    ]
