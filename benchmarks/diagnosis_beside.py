"""What check-ins feel of a diagnosis in the same server: their latency alone, and while windows are diagnosed.

With `--million`: a million records in each window; otherwise a tenth of that, and with `--quick` ten thousand.
"""

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from benchmarks.diagnosis_facts import UNTIL, count_of
from benchmarks.diagnosis_facts import fill as fill_with_spans
from benchmarks.report import Figure, Goal
from benchmarks.stage import AUTHORIZATION, Options, Server, fill, fresh_settings, insert_heartbeats, serving
from benchmarks.wrk import Load, check_in_load
from lifesign.clock import rfc3339
from lifesign.projects import service as projects
from lifesign.settings import Settings
from lifesign.telemetry.stores import open_store

_CONNECTIONS: Final = 1
_ASKED: Final = {"since_minutes": 60, "until": rfc3339(UNTIL)}
_ANSWER_S: Final = 60


def run(options: Options) -> list[Figure]:
    count = count_of(options)
    with fresh_settings("sqlite") as settings:
        ids: list[str] = []
        fill(settings, lambda conn, now: ids.extend(insert_heartbeats(conn, now, options.heartbeats)))
        project_ids: list[str] = []
        fill(settings, lambda conn, now: project_ids.append(projects.ensure_default(conn, now)))
        asyncio.run(_store_spans(settings, project_ids[0], count))
        with serving(settings, LIFESIGN_TELEMETRY_RETENTION_DAYS="3650") as server:
            check_in_load(server, ids, seconds=1, connections=_CONNECTIONS)
            alone: list[Load] = []
            beside: list[Load] = []
            took_s: list[float] = []
            for _ in range(options.rounds):
                alone.append(check_in_load(server, ids, seconds=options.seconds, connections=_CONNECTIONS))
                with _diagnosing(server, count) as seconds:
                    beside.append(check_in_load(server, ids, seconds=options.seconds, connections=_CONNECTIONS))
                took_s += seconds
    return [
        Figure(
            f"check-ins while {count:,} records and as many before are diagnosed, p99",
            [load.p99_ms for load in beside],
            "ms",
            Goal(100),
            [load.p99_ms for load in alone],
            "alone",
        ),
        Figure("  p50", [load.p50_ms for load in beside], "ms", None, [load.p50_ms for load in alone], "alone"),
        Figure("  check-ins", [load.rate for load in beside], "/s", None, [load.rate for load in alone], "alone"),
        Figure("  a diagnosis beside them", took_s, "s"),
    ]


async def _store_spans(settings: Settings, project_id: str, count: int) -> None:
    store = open_store(settings)
    await fill_with_spans(store, project_id, count)
    await store.close()


@contextmanager
def _diagnosing(server: Server, count: int) -> Iterator[list[float]]:
    """One diagnosis after the other, from before the block until after it; how long each took."""
    took_s: list[float] = []
    read: list[int] = []
    has_begun, is_over = threading.Event(), threading.Event()

    def diagnose() -> None:
        with server.client() as client:
            while not is_over.is_set():
                began = time.perf_counter()
                has_begun.set()
                answer = client.post("/v1/runs/diagnose", json=_ASKED, headers=AUTHORIZATION, timeout=_ANSWER_S)
                read.append(answer.raise_for_status().json()["packet"]["telemetry_read"])
                took_s.append(time.perf_counter() - began)

    thread = threading.Thread(target=diagnose)
    thread.start()
    has_begun.wait()
    try:
        yield took_s
    finally:
        is_over.set()
        thread.join()
    if set(read) != {count}:
        raise RuntimeError(f"diagnoses read {sorted(set(read))} records, not {count}")
