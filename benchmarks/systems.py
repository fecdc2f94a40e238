"""Machines: their heartbeats over HTTP beside check-ins, what people read of them, inventories, and the agent."""

import base64
import itertools
import json
import os
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Sequence
from statistics import median

from sqlalchemy import Connection, bindparam, insert, update

from benchmarks.report import Figure, Goal
from benchmarks.stage import (
    DATABASES,
    DatabaseKind,
    Options,
    Server,
    fill,
    fresh_settings,
    insert_heartbeats,
    percentile,
    serving,
    timed_ms,
)
from benchmarks.wrk import Load, bare_route, beat_load, check_in_load
from lifesign.clock import EpochMs
from lifesign.db import schema
from lifesign.ids import new_uuid
from lifesign.projects import service as projects
from lifesign.systems import rules
from lifesign.systems.store import Known

_SECRET = "lss_" + "5" * 64
_SYSTEMS = 10_000
_TIMES = 50
_BARE = "bare route"
_CHECK_INS = "check-ins"
Systems = Sequence[tuple[str, str]]


def run(options: Options) -> list[Figure]:
    figures = [figure for kind in DATABASES for figure in _on(kind, options)]
    return [*figures, *_cache(), *_agent(options)]


def _on(kind: DatabaseKind, options: Options) -> list[Figure]:
    with fresh_settings(kind) as settings:
        systems: list[tuple[str, str]] = []
        plain: list[str] = []

        def rows(conn: Connection, now: EpochMs) -> None:
            systems.extend(insert_systems(conn, now))
            plain.extend(insert_heartbeats(conn, now, _SYSTEMS // 2, prefix="plain"))

        fill(settings, rows)
        with bare_route() as bare, serving(settings) as server:
            figures = [
                *_beats(kind, (bare, server), (systems[: _SYSTEMS // 2], plain), options),
                *_reads(server, options),
                *_inventory(server, systems, options),
            ]
    return [
        Figure(f"{kind}: {each.name}", each.values, each.unit, each.goal, each.reference, each.reference_name)
        for each in figures
    ]


def insert_systems(conn: Connection, now: EpochMs) -> list[tuple[str, str]]:
    """Systems that reported once, each with a heartbeat of its own; id and Basic credentials of each."""
    heartbeats = insert_heartbeats(conn, now, _SYSTEMS, prefix="machine")
    project_id = projects.ensure_default(conn, now)
    ids = [new_uuid(now) for _ in heartbeats]
    hashed = rules.secret_hash(_SECRET)
    rows = [
        {
            "id": system_id,
            "project_id": project_id,
            "key": rules.new_key(),
            "name": f"machine {n}",
            "type": "server",
            "fqdn": f"m{n}.example.org",
            "notes": "",
            "heartbeat_id": heartbeat_id,
            "secret_hash": hashed,
            "secret_hint": _SECRET[-4:],
            "credential_version": 1,
            "first_heartbeat": now,
            "created_at": now,
            "updated_at": now,
            "search": f"machine {n}",
        }
        for n, (system_id, heartbeat_id) in enumerate(zip(ids, heartbeats, strict=True))
    ]
    conn.execute(insert(schema.systems), rows)
    owned = update(schema.heartbeats).where(schema.heartbeats.c.id == bindparam("heartbeat"))
    owners = [
        {"heartbeat": heartbeat_id, "owner": rules.owner(system_id)}
        for heartbeat_id, system_id in zip(heartbeats, ids, strict=True)
    ]
    conn.execute(owned.values(managed_by=bindparam("owner")), owners)
    return [(system_id, _basic(system_id, _SECRET)) for system_id in ids]


def _basic(system_id: str, secret: str) -> str:
    return base64.b64encode(f"{system_id}:{secret}".encode()).decode()


def _beats(
    kind: DatabaseKind, servers: tuple[Server, Server], subjects: tuple[Systems, Sequence[str]], options: Options
) -> list[Figure]:
    bare, server = servers
    systems, plain = subjects
    wrong = [(system_id, _basic(system_id, "x" * 68)) for system_id, _ in systems]
    beat_load(server, systems, seconds=2)  # caches and connections are warm
    reference: list[Load] = []
    check_ins: list[Load] = []
    beats: list[Load] = []
    refused: list[Load] = []
    for _ in range(options.rounds):
        reference.append(beat_load(bare, systems, seconds=max(2, options.seconds // 2)))
        check_ins.append(check_in_load(server, plain, seconds=options.seconds))
        beats.append(beat_load(server, systems, seconds=options.seconds))
        refused.append(beat_load(server, wrong, seconds=max(2, options.seconds // 2), are_refused=True))
    alone = [beat_load(server, systems, seconds=2, connections=1) for _ in range(options.rounds)]
    is_sqlite = kind == "sqlite"
    rates = [load.rate for load in beats]
    return [
        Figure(
            "heartbeats of 5,000 systems, 64 connections",
            rates,
            "/s",
            Goal(8_000, is_floor=True) if is_sqlite else None,
            [load.rate for load in reference],
            _BARE,
        ),
        Figure(
            "  the same, beside check-ins",
            rates,
            "/s",
            None,
            [load.rate for load in check_ins],
            _CHECK_INS,
        ),
        Figure("  p50", [load.p50_ms for load in beats], "ms"),
        Figure("  p99", [load.p99_ms for load in beats], "ms", Goal(60) if is_sqlite else None),
        Figure(
            "401 for a wrong secret, 64 connections", [load.rate for load in refused], "/s", Goal(2000, is_floor=True)
        ),
        Figure("one connection, median", [load.p50_ms for load in alone], "ms", Goal(5) if is_sqlite else None),
        Figure("one connection, p99", [load.p99_ms for load in alone], "ms", Goal(25) if is_sqlite else None),
    ]


def _reads(server: Server, options: Options) -> list[Figure]:
    with server.client() as http:

        def measured(name: str, path: str, goal_ms: float) -> Figure:
            assert http.get(path).status_code == 200
            rounds = [percentile(timed_ms(lambda: http.get(path), _TIMES), 0.5) for _ in range(options.rounds)]
            return Figure(f"{name} over 10,000 systems, median", rounds, "ms", Goal(goal_ms))

        return [
            measured("list of 50", "/api/systems", 25),
            measured("totals", "/api/systems/totals", 25),
            measured("trend", "/api/systems/trend?period=30", 60),
        ]


# Inventories --------------------------------------------------------------------------------------------------------
def _document(n: int) -> bytes:
    """A document of about 1 MiB with 20,000 values, of which a few differ from `n` to `n`."""
    packages = [
        {
            "name": f"package-{each}",
            "version": f"{n if each % 500 == 0 else 1}.{each}",
            "size": each * 1000,
            "description": "x" * 120,
        }
        for each in range(4000)
    ]
    return json.dumps({"os": {"name": "Debian"}, "packages": packages, "uptime": n}).encode()


def _inventory(server: Server, systems: Systems, options: Options) -> list[Figure]:
    _, basic = systems[-1]
    headers = {"Authorization": f"Basic {basic}"}
    # Made beforehand: what it takes to make them is not the server's.
    documents = itertools.cycle([_document(n) for n in range(8)])
    with server.client() as http:

        def send() -> None:
            answer = http.post("/api/systems/inventory", content=next(documents), headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["data"]["changed"]

        send()
        rounds = [median(timed_ms(send, 8)) for _ in range(options.rounds)]
        stopped = threading.Event()

        def keep_sending() -> None:
            while not stopped.is_set():
                send()

        sending = threading.Thread(target=keep_sending)
        sending.start()
        try:
            meanwhile = [beat_load(server, systems[:5000], seconds=4) for _ in range(options.rounds)]
        finally:
            stopped.set()
            sending.join()
    return [
        Figure("inventory of 1 MiB and 20,000 values, stored", rounds, "ms", Goal(400)),
        Figure("  p99 of heartbeats meanwhile", [load.p99_ms for load in meanwhile], "ms", Goal(60)),
        Figure("  heartbeats meanwhile", [load.rate for load in meanwhile], "/s"),
    ]


# Memory and the agent -----------------------------------------------------------------------------------------------
def _cache() -> list[Figure]:
    """What remembering 10,000 systems takes, measured by the allocator."""
    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    cached = {}
    for n in range(_SYSTEMS):
        system_id = new_uuid(EpochMs(n))
        known = Known(system_id, f"prj_{n}", f"hb_{n:032x}", rules.secret_hash(str(n)), n)
        cached[bytes(system_id, "ascii").decode()] = known
    grown = tracemalloc.take_snapshot().compare_to(before, "filename")
    tracemalloc.stop()
    assert len(cached) == _SYSTEMS
    return [Figure("cache of 10,000 credentials", [sum(each.size_diff for each in grown) / 2**20], "MiB", Goal(12))]


def _agent(options: Options) -> list[Figure]:
    """How quickly the agent starts and ends when nobody answers, and what it weighs while it waits."""
    env = {
        "PATH": os.environ["PATH"],
        "LIFESIGN_URL": "http://127.0.0.1:9",
        "LIFESIGN_SYSTEM_ID": "x",
        "LIFESIGN_SYSTEM_SECRET": "x",
    }
    command = [sys.executable, "-m", "lifesign", "agent"]
    bare = [median(timed_ms(lambda: subprocess.run([sys.executable, "-c", ""], check=True), 5)) for _ in range(3)]
    once = [
        median(timed_ms(lambda: subprocess.run([*command, "--once"], env=env, capture_output=True, check=False), 5))
        for _ in range(options.rounds)
    ]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
    try:
        assert process.stderr is not None
        process.stderr.readline()
        time.sleep(0.5)
        resident = Server("", process.pid, 0).rss_mib()
    finally:
        process.terminate()
        process.communicate()
    return [
        Figure("agent: start, one beat to nobody, end", once, "ms", Goal(300), bare, "python -c ''"),
        Figure("agent: resident", [resident], "MiB", Goal(30)),
    ]
