"""Arize Phoenix with the same bytes, on the same machine: what a span costs another server that keeps spans.

Only when asked for by name, since Phoenix weighs most of a gigabyte: `pip install arize-phoenix` into an environment of
its own, and name its Python in PHOENIX_PYTHON. Phoenix answers before it has stored a span, so that its rows are
counted until they are all there.
"""

import itertools
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import httpx2

from benchmarks.report import Figure, Goal
from benchmarks.stage import Options, Server, free_port, fresh_settings, program, serving
from benchmarks.telemetry_stores import SPANS, bodies_of, post_all, stored_per_cpu_s

_REQUESTS = 15
_PATIENCE_S = 900.0
_READY = re.compile(r"running.*(http://127\.0\.0\.1:\d+)")
_TIMES = 60


def run(options: Options) -> list[Figure]:
    """Both servers in turn, with requests that neither has seen."""
    seeds = itertools.count(1_000_000)
    theirs: list[float] = []
    ours: list[float] = []
    with _phoenix() as (phoenix, database), fresh_settings("sqlite") as settings, serving(settings) as server:
        for _ in range(options.rounds):
            theirs.append(_of_phoenix(phoenix, database, seeds))
            ours.append(stored_per_cpu_s(server, bodies_of(seeds, 20 * _REQUESTS)))
    multiple = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return [
        Figure("spans stored", ours, "/s of processor time", None, theirs, "Arize Phoenix"),
        Figure("times as many as Arize Phoenix", multiple, "", Goal(_TIMES, is_floor=True)),
    ]


def _of_phoenix(phoenix: Server, database: Path, seeds: Iterator[int]) -> float:
    before, cpu_before = _rows(database), phoenix.cpu_s()
    post_all(phoenix, bodies_of(seeds, _REQUESTS))
    began = time.monotonic()
    while _rows(database) - before < _REQUESTS * SPANS:
        assert time.monotonic() - began < _PATIENCE_S, "Phoenix never stored them all"
        time.sleep(0.2)
    return _REQUESTS * SPANS / (phoenix.cpu_s() - cpu_before)


def _rows(database: Path) -> int:
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        return int(connection.execute("SELECT count(*) FROM spans").fetchone()[0])


@contextmanager
def _phoenix() -> Iterator[tuple[Server, Path]]:
    python = os.environ.get("PHOENIX_PYTHON")
    if not python:
        raise SystemExit("telemetry_phoenix: name the Python that has arize-phoenix in PHOENIX_PYTHON")
    with tempfile.TemporaryDirectory(prefix="phoenix-bench-") as name:
        variables = {
            "PHOENIX_WORKING_DIR": name,
            "HOME": name,
            "PHOENIX_HOST": "127.0.0.1",
            "PHOENIX_PORT": str(free_port()),
            "PHOENIX_GRPC_PORT": str(free_port()),
            "PHOENIX_TELEMETRY_ENABLED": "false",
            "PYTHONUNBUFFERED": "1",
        }
        arguments = ["-m", "phoenix.server.main", "serve"]
        with program(arguments, variables, _READY, python=python) as server:
            httpx2.get(f"{server.url}/healthz").raise_for_status()
            yield server, Path(name) / "phoenix.db"
