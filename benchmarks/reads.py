"""What one request costs when it is alone: reading, listing, creating."""

import base64
import itertools
from collections.abc import Callable

import httpx2
from sqlalchemy import Connection, insert

from benchmarks.report import Figure, Goal
from benchmarks.stage import (
    DATABASES,
    DatabaseKind,
    Options,
    fill,
    fresh_settings,
    insert_heartbeats,
    percentile,
    serving,
    timed_ms,
)
from lifesign.clock import EpochMs
from lifesign.db import schema
from lifesign.ids import new_id

_TIMES = 100
_EVENTS = 1000


def run(options: Options) -> list[Figure]:
    return [figure for kind in DATABASES for figure in _on(kind, options)]


def _on(kind: DatabaseKind, options: Options) -> list[Figure]:
    ids: list[str] = []

    def rows(conn: Connection, now: EpochMs) -> None:
        ids.extend(insert_heartbeats(conn, now, options.armed))
        conn.execute(insert(schema.events), [_event_row(ids[0], now) for _ in range(_EVENTS)])

    with fresh_settings(kind) as settings:
        fill(settings, rows)
        with serving(settings) as server, server.client() as http:

            def measured(name: str, call: Callable[[int], httpx2.Response], goal_ms: float) -> Figure:
                status = call(0).status_code
                assert status in {200, 201}, f"{name}: {status}"
                numbers = itertools.count(1)
                rounds = [percentile(timed_ms(lambda: call(next(numbers)), _TIMES), 0.5) for _ in range(options.rounds)]
                return Figure(f"{kind}: {name}, median", rounds, "ms", Goal(goal_ms))

            step = max(1, (len(ids) - 101) // (_TIMES * options.rounds + 1))
            bare = [percentile(timed_ms(lambda: http.get("/health"), _TIMES), 0.5) for _ in range(options.rounds)]
            return [
                Figure(f"{kind}: GET /health, the client's own share, median", bare, "ms"),
                measured("GET one heartbeat", lambda n: http.get(f"/v1/heartbeats/{ids[n]}"), 4),
                measured(
                    f"list of 100 among {len(ids):,}, pages all over",
                    lambda n: http.get("/v1/heartbeats", params={"limit": 100, "cursor": _cursor(ids[n * step])}),
                    25,
                ),
                measured(
                    "events page of 100 out of 1,000",
                    lambda _: http.get(f"/v1/heartbeats/{ids[0]}/events", params={"limit": 100}),
                    15,
                ),
                measured("create", lambda n: http.post("/v1/heartbeats", json=_new(n)), 15),
            ]


def _cursor(heartbeat_id: str) -> str:
    return base64.urlsafe_b64encode(heartbeat_id.encode()).rstrip(b"=").decode()


def _new(n: int) -> dict[str, object]:
    return {"name": f"made {n}", "mode": "recurring", "interval": 3600}


def _event_row(heartbeat_id: str, now: EpochMs) -> dict[str, object]:
    return {
        "id": new_id("evt", now),
        "project_id": "prj_bench",
        "heartbeat_id": heartbeat_id,
        "type": "checkin",
        "metadata": '{"via":"api","key":"key_bench"}',
        "created_at": now,
    }
