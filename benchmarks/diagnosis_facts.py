"""What diagnosis costs a store: the records of a window and as many before, 2 % of them failing, and a small window.

With `--million`: a million in each window, as the goal has it; otherwise a tenth of that. ClickHouse is asked twice: as
the engine within this process, and as a server, where the memory is that of who asks.
"""

import asyncio
import random
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from pydantic import SecretStr
from sqlalchemy import text

from benchmarks.report import Figure, Goal
from benchmarks.stage import DatabaseKind, Options, fresh_settings
from lifesign.clock import EpochMs
from lifesign.diagnosis.details import Fetch
from lifesign.diagnosis.facts import Facts, Windows
from lifesign.diagnosis.packet import examined, issues_in, packet_of
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.otlp.spans import Resource, Scope
from lifesign.telemetry.records import Body, Kind, Origin, Record
from lifesign.telemetry.rules import duration_bucket
from lifesign.telemetry.store import SpanStore
from lifesign.telemetry.stores import open_store
from lifesign.telemetry.stores.clickhouse.client import Asked
from lifesign.telemetry.stores.clickhouse.store import ClickHouseStore
from lifesign.telemetry.stores.sql import SqlStore
from tests.peers.process import peer_process

PROJECT: Final = "bench"
SMALL: Final = "small"
UNTIL: Final = EpochMs(1_767_614_400_000)
HOUR_MS: Final = 3_600_000
_SPANS_A_TRACE: Final = 10
_PER_REQUEST: Final = 1000
_KINDS: Final[tuple[Kind, ...]] = ("agent", "llm", "tool", "llm", "tool", "http", "llm", "tool", "llm", "other")
_OPERATIONS: Final = {kind: [f"{kind}-{chr(97 + n)}" for n in range(20)] for kind in _KINDS}
_HERE: Final = Origin(Resource({"service.name": "shop"}, 0, ""), Scope("lib", "1", {}, 0, ""))
_MS: Final = 1_000_000


_STORES: Final[tuple[tuple[str, DatabaseKind, str], ...]] = (
    ("sqlite", "sqlite", ""),
    ("postgresql", "postgresql", ""),
    ("clickhouse (chdb)", "sqlite", "chdb:///{directory}/clickhouse"),
    ("clickhouse (a server)", "sqlite", "clickhouse://"),
)
_MILLION: Final = 1_000_000
_FEW: Final = 10_000
_WINDOWS: Final = Windows((EpochMs(UNTIL - HOUR_MS), UNTIL), (EpochMs(UNTIL - 2 * HOUR_MS), EpochMs(UNTIL - HOUR_MS)))
_SCAN: Final = "SELECT count(*), sum(end_ns - start_ns) FROM spans WHERE {0} AND received_at < {1}"
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")


def run(options: Options) -> list[Figure]:
    count = count_of(options)
    return [figure for store in _STORES for figure in asyncio.run(_on(*store, count, options))]


def count_of(options: Options) -> int:
    """How many records a window has."""
    return _MILLION if options.armed >= _MILLION else _MILLION // 10 if options.rounds > 1 else _FEW


@contextmanager
def _served(url: str, directory: Path) -> Iterator[str]:
    """The address of a store; of a server of ClickHouse when that is what it names."""
    if url != "clickhouse://":
        yield url.format(directory=directory)
        return
    with tempfile.TemporaryDirectory() as data, peer_process("tests.peers.clickhouse", [data]) as (_, address):
        yield address


async def _on(name: str, kind: DatabaseKind, url: str, count: int, options: Options) -> list[Figure]:
    with fresh_settings(kind) as settings, _served(url, settings.data_dir) as address:
        changes = {
            "telemetry_url": SecretStr(address),
            "telemetry_retention_days": 3650,
        }
        store = open_store(settings.model_copy(update=changes) if url else settings)
        if isinstance(store, ClickHouseStore):
            store.drain_s = 600
        await fill(store, PROJECT, count)
        await fill(store, SMALL, _FEW)
        seconds: list[float] = []
        more_mib: list[float] = []
        scans: list[float] = []
        small_ms: list[float] = []
        for _ in range(options.rounds + 1):
            scans.append(await _scanned(store))
            before = _peak_mib(anew=True)
            seconds.append(await _diagnosed(store, PROJECT))
            more_mib.append(_peak_mib() - before)
            small_ms.append(await _diagnosed(store, SMALL) * 1000)
        await store.close()
    goals = (Goal(5), Goal(200)) if count == _MILLION else (None, None)
    # The first round finds nothing in memory.
    title = f"{name}: {count:,} records and as many before, diagnosed"
    return [
        Figure(title, seconds[1:], "s", goals[0], scans[1:], "a bare scan of them"),
        Figure("  memory meanwhile, at most", more_mib, "MiB more", goals[1]),
        Figure(f"  {_FEW:,} records", small_ms[1:], "ms", Goal(150)),
    ]


async def _diagnosed(store: SpanStore, project_id: str) -> float:
    began = time.perf_counter()
    packet = await store.examine(project_id, _WINDOWS, _packet)
    assert packet["failures"] > 0
    return time.perf_counter() - began


# Any: JSON.
def _packet(facts: Facts, fetch: Fetch) -> dict[str, Any]:
    seen = examined(facts)
    return packet_of(seen, issues_in(seen, fetch(seen.wanted), ledger={}, window_start=_WINDOWS.current[0]))


async def _scanned(store: SpanStore) -> float:
    """How long it takes to look at every row once."""
    began = time.perf_counter()
    if isinstance(store, SqlStore):
        its = "project = (SELECT id FROM span_projects WHERE project_id = :project)"
        await store.db.read(lambda conn: conn.execute(text(_SCAN.format(its, UNTIL)), {"project": PROJECT}).one())
    elif isinstance(store, ClickHouseStore):
        until = f"fromUnixTimestamp64Milli(toInt64({UNTIL}), 'UTC')"
        scan = _SCAN.format("project_id = {project:String}", until)

        def ask(asked: Asked, _beside: Asked) -> object:
            return asked.rows(scan, {"project": PROJECT})

        await store._clickhouse.at_length(ask, limit_s=60)  # noqa: SLF001 - no store answers that
    return time.perf_counter() - began


def _peak_mib(*, anew: bool = False) -> float:
    """The most memory that this process had; anew: from now on."""
    if anew:
        Path("/proc/self/clear_refs").write_text("5")
    found = _PEAK.search(Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


async def fill(store: SpanStore, project_id: str, count: int) -> None:
    """`count` records in each of two hours."""
    dice = random.Random(7)
    for since in (UNTIL - 2 * HOUR_MS, UNTIL - HOUR_MS):
        requests = max(1, count // _PER_REQUEST)
        for number in range(requests):
            at = EpochMs(since + number * HOUR_MS // requests)
            await store.append(project_id, list(_records(dice, at, min(count, _PER_REQUEST))), quota=0, now=at)


def _records(dice: random.Random, at: EpochMs, count: int) -> Iterator[Record]:
    for trace in range(count // _SPANS_A_TRACE):
        trace_id, spans = dice.randbytes(16).hex(), [dice.randbytes(8).hex() for _ in _KINDS]
        session = f"conv-{at // 10_000}-{trace // 5}"
        for place, kind in enumerate(_KINDS):
            operation = dice.choice(_OPERATIONS[kind])
            fails = dice.random() < 0.02
            duration_ns = dice.randrange(1_000, 900_000) * 1000
            start_ns = at * _MS + place * _MS
            yield Record(
                trace_id=trace_id,
                span_id=spans[place],
                parent_id=spans[0] if place else "",
                received_at=at,
                start_ns=start_ns,
                end_ns=start_ns + duration_ns,
                kind=kind,
                operation=operation,
                op_hash=operation_hash(kind, operation),
                status="error" if fails else "ok",
                signal_type="info" if not fails else "tool_call_failed" if kind == "tool" else "error",
                own_session=None if place else session,
                agent=f"agent-{trace % 7}",
                service="shop",
                tool=operation if kind == "tool" else None,
                model="gpt-5" if kind == "llm" else None,
                environment="production" if trace % 10 else "staging",
                version=f"1.{trace % 3}.0",
                error_type=dice.choice(["Timeout", "ValueError", "http.503"]) if fails else None,
                args_hash=dice.randrange(1, 50) if kind == "tool" else None,
                result_hash=dice.randrange(1, 50) if kind == "tool" else None,
                bucket=duration_bucket(duration_ns),
                finish_reason="stop" if kind == "llm" else None,
                input_tokens=1_000 if kind == "llm" else None,
                output_tokens=200 if kind == "llm" else None,
                total_tokens=1_200 if kind == "llm" else None,
                cost_nano=1_000_000 if kind == "llm" else None,
                body=Body(name=operation, message=f"order {trace} lost after {place} ms" if fails else None),
                origin=_HERE,
            )
