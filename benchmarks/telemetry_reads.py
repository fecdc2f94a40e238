"""The session list over many stored spans, through the API, warm.

With `--million`: five million spans in half a million traces, as the goal has it; otherwise a tenth of that.
"""

import asyncio

from benchmarks.otlp import request
from benchmarks.report import Figure, Goal
from benchmarks.stage import Options, clock, fill, fresh_settings, percentile, serving, timed_ms
from lifesign.clock import EpochMs
from lifesign.projects import service as projects
from lifesign.settings import Settings
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import decode_protobuf
from lifesign.telemetry.rules import SlowAfter
from lifesign.telemetry.stores import open_store

_SPANS_PER_REQUEST = 1000
_TIMES = 20
_MILLION = 1_000_000
_HOUR_MS = 3_600_000


def run(options: Options) -> list[Figure]:
    """The store is filled without a server; then one is asked."""
    count = 5_000_000 if options.armed >= _MILLION else 500_000 if options.rounds > 1 else 50_000
    with fresh_settings("sqlite") as settings:
        project_ids: list[str] = []
        fill(settings, lambda conn, now: project_ids.append(projects.ensure_default(conn, now)))
        asyncio.run(_filled(settings, project_ids[0], count))
        with serving(settings) as server, server.client() as http:

            def measured(name: str, path: str, goal_ms: float | None = None) -> Figure:
                assert http.get(path).status_code == 200, path
                rounds = [percentile(timed_ms(lambda: http.get(path), _TIMES), 0.95) for _ in range(options.rounds)]
                return Figure(f"{name}, p95 of {_TIMES}", rounds, "ms", None if goal_ms is None else Goal(goal_ms))

            session = http.get("/v1/sessions?limit=1").json()["sessions"][0]["session_id"]
            return [
                measured("GET /health, the client's own share", "/health"),
                measured(f"sessions, the newest 50 among {count // 10:,}", "/v1/sessions", 300),
                measured("  of one environment", "/v1/sessions?environment=production"),
                measured("one session with its records", f"/v1/sessions/{session}"),
                measured("telemetry, the newest 100", "/v1/telemetry"),
                Figure("server: resident afterwards", [server.rss_mib()], "MiB"),
            ]


async def _filled(settings: Settings, project_id: str, count: int) -> None:
    """Traces of ten spans, each a session of its own, as they come over an hour."""
    store = open_store(settings)
    began = EpochMs(clock.now() - _HOUR_MS)
    requests = count // _SPANS_PER_REQUEST
    for number in range(requests):
        batch = decode_protobuf(request(number, _SPANS_PER_REQUEST).SerializeToString(), arrival_ns=1)
        at = EpochMs(began + number * _HOUR_MS // requests)
        records = records_of(batch.spans, at, slow_after=SlowAfter())
        await store.append(project_id, records, quota=0, now=at)
    await store.close()
