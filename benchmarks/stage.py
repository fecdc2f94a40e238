"""The stage of a benchmark: a real server process on a fresh database, filled with rows; and what watches it."""

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import httpx2
from pydantic import SecretStr
from sqlalchemy import Connection, insert

from lifesign.clock import EpochMs, SystemClock
from lifesign.db import schema
from lifesign.db.migrate import upgrade
from lifesign.db.open import SQLITE_FILE, postgres_engine, sqlite_engine
from lifesign.ids import new_id
from lifesign.projects import service as projects
from lifesign.settings import Settings
from tests import postgres

ADMIN_KEY = "benchmark-admin-key-0123456789"
AUTHORIZATION = {"Authorization": f"Bearer {ADMIN_KEY}"}

DatabaseKind = Literal["sqlite", "postgresql"]
DATABASES: tuple[DatabaseKind, ...] = ("sqlite", "postgresql")

_START_S = 60.0
_STOP_S = 30.0
_ROWS_PER_INSERT = 5000
_LISTENING = re.compile(r"listening on (http://127\.0\.0\.1:\d+)")
_HOUR_MS = 3_600_000
clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Options:
    """How thorough a run is."""

    rounds: int = 3
    seconds: int = 8
    heartbeats: int = 10_000
    armed: int = 100_000
    webhooks: int = 1_000
    mails: int = 200
    minutes: float = 10


QUICK = Options(rounds=1, seconds=3, heartbeats=2_000, armed=20_000, webhooks=200, mails=40, minutes=1)


# Processes ----------------------------------------------------------------------------------------------------------
@dataclass(frozen=True, slots=True)
class Server:
    """A server process."""

    url: str
    pid: int
    started_in_s: float

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, headers=AUTHORIZATION, timeout=30)

    def rss_mib(self) -> float:
        """Resident memory."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS")).split()[1]) / 1024

    def cpu_s(self) -> float:
        """Processor time spent so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def program(
    arguments: Sequence[str], environment: dict[str, str], ready: re.Pattern[str], *, python: str = sys.executable
) -> Iterator[Server]:
    """Run a Python program that prints its address; it is ended with the block, by its process id."""
    began = time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(
            [python, *arguments],
            env={name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ} | environment,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        assert process.stdout is not None
        try:
            url = None
            while url is None and (line := process.stdout.readline()):
                found = ready.search(line)
                url = found[1] if found else None
            if url is None:
                errors.seek(0)
                raise RuntimeError(f"{arguments} did not start: {errors.read()[-2000:]}")
            yield Server(url, process.pid, time.monotonic() - began)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody uses, for programs that cannot choose one themselves."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@contextmanager
def serving(settings: Settings, **environment: str) -> Iterator[Server]:
    """`lifesign serve` on a database that was made ready."""
    database_url = settings.database_url.get_secret_value() if settings.database_url else ""
    variables = {
        "LIFESIGN_DATA_DIR": str(settings.data_dir),
        "LIFESIGN_DATABASE_URL": database_url,
        "LIFESIGN_ADMIN_KEY": ADMIN_KEY,
        "LIFESIGN_ALLOW_PRIVATE_TARGETS": "true",
        "LIFESIGN_MAX_HEARTBEATS": "2000000",
        "LIFESIGN_LOG_LEVEL": "warning",
        "LIFESIGN_PORT": "0",
    }
    with program(["-m", "lifesign", "serve"], variables | environment, _LISTENING) as server:
        yield server


@contextmanager
def fresh_settings(kind: DatabaseKind) -> Iterator[Settings]:
    """A data directory of its own and an empty, migrated database; PostgreSQL with every fsync on."""
    with tempfile.TemporaryDirectory(prefix="lifesign-bench-") as name, contextlib.ExitStack() as stack:
        url = None
        if kind == "postgresql":
            cluster = postgres.start(durable=True)
            stack.callback(cluster.stop)
            database = f"bench_{uuid.uuid4().hex[:8]}"
            cluster.create_database(database)
            url = SecretStr(cluster.url(database))
        settings = Settings(data_dir=Path(name), database_url=url, admin_key=SecretStr(ADMIN_KEY), port=0)
        fill(settings, projects.ensure_default)
        yield settings


# Rows ---------------------------------------------------------------------------------------------------------------
def fill(settings: Settings, work: Callable[[Connection, EpochMs], object]) -> None:
    """Write into a database that no server has open."""
    engine = (
        postgres_engine(settings, size=1) if settings.database_url else sqlite_engine(settings.data_dir / SQLITE_FILE)
    )
    try:
        upgrade(engine)
        with engine.begin() as conn:
            work(conn, clock.now())
    finally:
        engine.dispose()


def insert_heartbeats(
    conn: Connection,
    now: EpochMs,
    count: int,
    *,
    project_id: str | None = None,
    fires_at: Callable[[int], int] | None = None,
    policy_id: str | None = None,
    prefix: str = "bench",
) -> list[str]:
    """Active recurring heartbeats, armed to fire in an hour unless said otherwise; their ids."""
    project_id = project_id or projects.ensure_default(conn, now)
    ids = [new_id("hb", now) for _ in range(count)]
    for start in range(0, count, _ROWS_PER_INSERT):
        rows = [
            _heartbeat_row(ids[n], project_id, f"{prefix}-{n}", now, fires_at(n) if fires_at else now + _HOUR_MS)
            | {"policy_id": policy_id}
            for n in range(start, min(count, start + _ROWS_PER_INSERT))
        ]
        conn.execute(insert(schema.heartbeats), rows)
    return ids


def insert_runs(conn: Connection, now: EpochMs, heartbeat_ids: Sequence[str], run_id: str) -> None:
    """One open run of each heartbeat, with a lease of an hour."""
    project_id = projects.ensure_default(conn, now)
    rows = [
        {
            "id": new_id("hbr", now),
            "project_id": project_id,
            "heartbeat_id": heartbeat_id,
            "run_id": run_id,
            "status": "running",
            "started_at": now,
            "lease_ms": _HOUR_MS,
            "lease_until": now + _HOUR_MS,
            "is_watched": 1,
        }
        for heartbeat_id in heartbeat_ids
    ]
    for start in range(0, len(rows), _ROWS_PER_INSERT):
        conn.execute(insert(schema.runs), rows[start : start + _ROWS_PER_INSERT])


def _heartbeat_row(heartbeat_id: str, project_id: str, slug: str, now: EpochMs, fires_at: int) -> dict[str, object]:
    return {
        "id": heartbeat_id,
        "project_id": project_id,
        "name": slug,
        "slug": slug,
        "search": f"{slug}\n{slug}",
        "mode": "recurring",
        "interval_ms": _HOUR_MS,
        "timezone": "UTC",
        "grace_ms": 0,
        "is_sticky_pause": 1,
        "status": "active",
        "is_armed": 1,
        "anchor_at": now,
        "checkin_count": 0,
        "next_deadline": fires_at,
        "fires_at": fires_at,
        "armed_at": now,
        "check_at": fires_at,
        "created_at": now,
    }


def disk_bytes(directory: Path) -> int:
    """What a SQLite database weighs, with its write-ahead log."""
    return sum(each.stat().st_size for each in directory.glob(f"{SQLITE_FILE}*"))


# Numbers ------------------------------------------------------------------------------------------------------------
def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that `share` (0..1) of all values do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def timed_ms(call: Callable[[], object], times: int) -> list[float]:
    """How long each of `times` calls takes."""
    took: list[float] = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append((time.perf_counter() - began) * 1000)
    return took


def fsyncs_per_s(directory: Path, seconds: float = 1.0) -> float:
    """How many times a second one 4 KiB append reaches this disk: what every durable commit is measured against."""
    block = os.urandom(4096)
    count = 0
    path = directory / "fsync-reference"
    handle = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    try:
        began = time.monotonic()
        while (spent := time.monotonic() - began) < seconds:
            os.write(handle, block)
            os.fdatasync(handle)
            count += 1
    finally:
        os.close(handle)
        path.unlink()
    return count / spent
