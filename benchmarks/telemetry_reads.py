"""The session list over many stored spans, through the API, warm.

With `--million`: five million spans in half a million traces, as the goal has it; otherwise a tenth of that. `--spans`
says how many. They go through the store's own `append`, as copies of some that were decoded.
"""

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from typing import Final

from msgspec.structs import replace

from benchmarks.otlp import SPANS_PER_TRACE, request
from benchmarks.report import Figure, Goal
from benchmarks.stage import (
    DATABASES,
    DatabaseKind,
    Options,
    clock,
    fill,
    fresh_settings,
    percentile,
    serving,
    timed_ms,
)
from lifesign.clock import EpochMs
from lifesign.projects import service as projects
from lifesign.settings import Settings
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import decode_protobuf
from lifesign.telemetry.records import Record
from lifesign.telemetry.rules import SlowAfter
from lifesign.telemetry.stores import open_store

_SPANS_PER_REQUEST: Final = 1000
_MOULDS: Final = 8
_TIMES: Final = 20
_MILLION: Final = 1_000_000
_HOUR_MS: Final = 3_600_000
_NS_PER_MS: Final = 1_000_000
_SESSION: Final = "gen_ai.conversation.id"


def run(options: Options) -> list[Figure]:
    return [figure for kind in DATABASES for figure in _on(kind, options)]


def _on(kind: DatabaseKind, options: Options) -> list[Figure]:
    """The store is filled without a server; then one is asked."""
    usual = 5_000_000 if options.armed >= _MILLION else 500_000 if options.rounds > 1 else 50_000
    count = options.spans or usual
    with fresh_settings(kind) as settings:
        project_ids: list[str] = []
        fill(settings, lambda conn, now: project_ids.append(projects.ensure_default(conn, now)))
        spent_s = asyncio.run(_filled(settings, project_ids[0], count))
        with serving(settings) as server, server.client() as http:

            def measured(name: str, path: str, goal_ms: float | None = None) -> Figure:
                assert http.get(path).status_code == 200, path
                rounds = [percentile(timed_ms(lambda: http.get(path), _TIMES), 0.95) for _ in range(options.rounds)]
                return Figure(f"{name}, p95 of {_TIMES}", rounds, "ms", None if goal_ms is None else Goal(goal_ms))

            session = http.get("/v1/sessions?limit=1").json()["sessions"][0]["session_id"]
            record = http.get("/v1/telemetry?limit=1").json()["records"][0]
            title = f"{kind}: sessions, the newest 50 among {count // SPANS_PER_TRACE:,}"
            return [
                measured(title, "/v1/sessions", 300),
                measured("  of one environment", "/v1/sessions?environment=production"),
                measured("  one session with its records", f"/v1/sessions/{session}"),
                measured("  one session by a trace of it", f"/v1/sessions/{record['trace_id']}"),
                measured("  one record by its id", f"/v1/telemetry?ids={record['record_id']}"),
                measured("  telemetry, the newest 100", "/v1/telemetry"),
                measured("  GET /health, the client's own share", "/health"),
                Figure("  server: resident afterwards", [server.rss_mib()], "MiB"),
                Figure("  spans appended to fill it", [count / spent_s], "/s"),
            ]


async def _filled(settings: Settings, project_id: str, count: int) -> float:
    """Traces of ten spans, each a session of its own, as they come over an hour; how long it took."""
    moulds = [_mould(seed) for seed in range(_MOULDS)]
    chance = random.Random(7)
    store = open_store(settings)
    first_at = EpochMs(clock.now() - _HOUR_MS)
    requests = count // _SPANS_PER_REQUEST
    began = time.monotonic()
    for number in range(requests):
        at = EpochMs(first_at + number * _HOUR_MS // requests)
        records = list(_cast(moulds[number % _MOULDS], chance, at))
        await store.append(project_id, records, quota=0, now=at)
    spent_s = time.monotonic() - began
    await store.close()
    return spent_s


def _mould(seed: int) -> list[Record]:
    """Records of a request, the whole way from its bytes."""
    batch = decode_protobuf(request(seed, _SPANS_PER_REQUEST).SerializeToString(), arrival_ns=1)
    return records_of(batch.spans, EpochMs(0), slow_after=SlowAfter())


def _cast(mould: Sequence[Record], chance: random.Random, at: EpochMs) -> Iterator[Record]:
    """The same spans of other runs: what they did is as it was, ids and times are new."""
    for start in range(0, len(mould), SPANS_PER_TRACE):
        trace = mould[start : start + SPANS_PER_TRACE]
        trace_id, session = f"{chance.getrandbits(128):032x}", f"conv-{chance.getrandbits(48):012x}"
        span_ids = {each.span_id: f"{chance.getrandbits(64):016x}" for each in trace}
        later_ns = at * _NS_PER_MS - trace[0].start_ns
        for each in trace:
            yield replace(
                each,
                trace_id=trace_id,
                span_id=span_ids[each.span_id],
                parent_id=span_ids.get(each.parent_id, ""),
                received_at=at,
                start_ns=each.start_ns + later_ns,
                end_ns=each.end_ns + later_ns,
                own_session=session,
                body=replace(each.body, attributes=each.body.attributes | {_SESSION: session}),
            )
