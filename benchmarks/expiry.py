"""Deadlines: many at once, and many at rest."""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import httpx2
from sqlalchemy import Connection, Engine, func, select

from benchmarks.report import Figure, Goal
from benchmarks.stage import (
    AUTHORIZATION,
    DATABASES,
    DatabaseKind,
    Options,
    Server,
    clock,
    fill,
    fresh_settings,
    insert_heartbeats,
    percentile,
    serving,
    timed_ms,
)
from lifesign.clock import EpochMs
from lifesign.db import schema
from lifesign.db.open import SQLITE_FILE, postgres_engine, sqlite_engine
from lifesign.engine import damage
from lifesign.settings import Settings
from tests.peers.process import ledger_peer

_S = 1000
_LEAD_S = 4.0
_GIVE_UP_S = 120.0
_LOOK_AGAIN_S = 0.05
_IDLE_S = 10.0
_SPREAD_S = 20
_AT_REST_FIRING = 200


def run(options: Options) -> list[Figure]:
    figures = [figure for kind in DATABASES for figure in _mass_expiry(kind, options)]
    figures.append(_two_nodes(options))
    return figures + [figure for kind in DATABASES for figure in _at_rest(kind, options)]


@contextmanager
def reading(settings: Settings) -> Iterator[Engine]:
    """A way to look into the database while the server runs."""
    engine = (
        postgres_engine(settings, size=1, read_only=True)
        if settings.database_url
        else sqlite_engine(settings.data_dir / SQLITE_FILE, read_only=True)
    )
    try:
        yield engine
    finally:
        engine.dispose()


# Many at once -------------------------------------------------------------------------------------------------------
def _mass_expiry(kind: DatabaseKind, options: Options) -> list[Figure]:
    lasted: list[float] = []
    late: list[float] = []
    for _ in range(options.rounds):
        seconds, check_ins_ms = _one_mass_expiry(kind, options.heartbeats)
        lasted.append(seconds)
        late.append(percentile(check_ins_ms, 0.99))
    return [
        Figure(f"{kind}: {options.heartbeats:,} with one deadline, last outbox row after it", lasted, "s", Goal(5)),
        Figure(f"{kind}: check-in p99 meanwhile", late, "ms", Goal(250)),
    ]


def _two_nodes(options: Options) -> Figure:
    """The same with a second server on the database, against one alone in the rounds between."""
    alone: list[float] = []
    together: list[float] = []
    for _ in range(options.rounds):
        alone.append(_one_mass_expiry("postgresql", options.heartbeats)[0])
        together.append(_one_mass_expiry("postgresql", options.heartbeats, nodes=2)[0])
    name = f"postgresql: {options.heartbeats:,} with one deadline, two nodes"
    return Figure(name, together, "s", Goal(5), reference=alone, reference_name="one node")


def _one_mass_expiry(kind: DatabaseKind, count: int, *, nodes: int = 1) -> tuple[float, list[float]]:
    """Seconds from the deadline to the last outbox row, and how long each check-in took meanwhile (ms)."""
    with (
        fresh_settings(kind) as settings,
        tempfile.TemporaryDirectory() as peer_directory,
        ledger_peer(Path(peer_directory)) as peer,
        reading(settings) as engine,
    ):
        with serving(settings) as server, server.client() as http:
            hook = {"name": "hook", "type": "webhook", "config": {"url": f"{peer.url}/hook/bench"}}
            policy_id = policy_telling(http, hook)
        alive: list[str] = []
        deadline = 0

        def rows(conn: Connection, now: EpochMs) -> None:
            nonlocal deadline
            alive.extend(insert_heartbeats(conn, now, 100, prefix="alive"))
            # Long enough from now that the rows are in and the server is up.
            deadline = now + round((_LEAD_S + count / 5000) * _S)
            insert_heartbeats(conn, now, count, fires_at=lambda _: deadline, policy_id=policy_id, prefix="due")

        fill(settings, rows)
        with contextlib.ExitStack() as more, serving(settings) as server, checking_in(server, alive) as took_ms:
            for _ in range(nodes - 1):
                more.enter_context(serving(settings))
            if clock.now() > deadline:
                raise RuntimeError("the deadline passed before the server was up")
            # A row's own `created_at` is when its tick began; what counts is when it could be seen.
            last = _seen_at(engine, count)
        with engine.begin() as conn:
            opened = conn.scalar(select(func.count()).select_from(schema.incidents))
            told = conn.scalar(select(func.count()).select_from(schema.notifications))
        assert (opened, told) == (count, count), f"{opened} incidents and {told} messages of {count}"
        return (last - deadline) / _S, [took for at, took in took_ms if deadline <= at <= last]


def policy_telling(http: httpx2.Client, *channels: Mapping[str, object]) -> str:
    """A policy whose one step tells new channels at once."""
    made = [http.post("/v1/channels", json=channel) for channel in channels]
    assert all(each.status_code == 201 for each in made), [each.text for each in made]
    step = {"channels": [each.json()["id"] for each in made], "wait": 0}
    policy = http.post("/v1/policies", json={"name": "bench", "steps": [step]})
    assert policy.status_code == 201, policy.text
    return str(policy.json()["id"])


def _seen_at(engine: Engine, count: int) -> int:
    """The moment at which `count` rows were seen in the outbox."""
    give_up_at = time.monotonic() + _GIVE_UP_S
    while time.monotonic() < give_up_at:
        with engine.begin() as conn:
            if (conn.scalar(select(func.count()).select_from(schema.notifications)) or 0) >= count:
                return clock.now()
        time.sleep(_LOOK_AGAIN_S)
    raise RuntimeError(f"the outbox did not reach {count} rows within {_GIVE_UP_S:.0f} s")


@contextmanager
def checking_in(server: Server, ids: list[str]) -> Iterator[list[tuple[int, float]]]:
    """One client that checks in without a pause; (moment, how long it took in ms) of each."""
    took: list[tuple[int, float]] = []
    over = threading.Event()

    def check_in() -> None:
        with httpx2.Client(base_url=server.url, headers=AUTHORIZATION, timeout=30) as http:
            while not over.is_set():
                for each in ids:
                    at, began = clock.now(), time.perf_counter()
                    http.post(f"/v1/heartbeats/{each}/checkin").raise_for_status()
                    took.append((at, (time.perf_counter() - began) * 1000))
                    over.wait(0.005)

    thread = threading.Thread(target=check_in, name="benchmark-check-ins")
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


# Many at rest -------------------------------------------------------------------------------------------------------
def _at_rest(kind: DatabaseKind, options: Options) -> list[Figure]:
    """Armed heartbeats of which none is due, then a few that fall due one by one."""
    cpu_share: list[float] = []
    with fresh_settings(kind) as settings, reading(settings) as engine:
        first = 0

        def rows(conn: Connection, now: EpochMs) -> None:
            nonlocal first
            insert_heartbeats(conn, now, options.armed)
            first = now + round((_LEAD_S + options.armed / 20_000 + 2 + options.rounds * _IDLE_S) * _S)
            spread = _SPREAD_S * _S // _AT_REST_FIRING
            insert_heartbeats(conn, now, _AT_REST_FIRING, fires_at=lambda n: first + n * spread, prefix="due")

        fill(settings, rows)
        with serving(settings) as server:
            time.sleep(2)  # past the first ticks
            for _ in range(options.rounds):
                cpu_s = server.cpu_s()
                time.sleep(_IDLE_S)
                cpu_share.append((server.cpu_s() - cpu_s) / _IDLE_S * 100)
            with server.client() as http:
                ready_ms = timed_ms(lambda: http.get("/ready").raise_for_status(), 20)
            rss = server.rss_mib()
            time.sleep(max(0.0, (first - clock.now()) / _S + _SPREAD_S + 2))
        audit_ms = [each for _ in range(options.rounds) for each in _audit_queries_ms(engine)]
        late = lateness_s(engine)
        assert len(late) == _AT_REST_FIRING, f"{len(late)} of {_AT_REST_FIRING} fired"
    name = f"{kind}: {options.armed:,} armed at rest"
    limits = (Goal(3), Goal(300), Goal(50)) if options.armed >= 100_000 else (None, None, None)
    return [
        Figure(f"{name}, lateness of firing p99", [percentile(late, 0.99)], "s", Goal(1)),
        Figure(f"{name}, processor", cpu_share, "% of a core", limits[0]),
        Figure(f"{name}, resident", [rss], "MiB", limits[1]),
        Figure(f"{name}, /ready median", [percentile(ready_ms, 0.5)], "ms", limits[2]),
        Figure(f"{name}, start", [server.started_in_s], "s", Goal(5)),
        Figure(f"{name}, slowest query of the auditor", [max(audit_ms)], "ms", Goal(50)),
    ]


def _audit_queries_ms(engine: Engine) -> list[float]:
    """How long each look of the auditor takes."""
    now, took = clock.now(), []
    for rule in damage.RULES:
        with engine.begin() as conn:
            began = time.perf_counter()
            rule.find(conn, now, 500)
            took.append((time.perf_counter() - began) * 1000)
    with engine.begin() as conn:
        began = time.perf_counter()
        damage.sample_bounds(conn, "", 10_000)
        took.append((time.perf_counter() - began) * 1000)
    return took


def lateness_s(engine: Engine) -> list[float]:
    """How late each incident opened."""
    columns = schema.incidents.c
    with engine.begin() as conn:
        rows = conn.execute(select(columns.opened_at, columns.deadline_at)).all()
    return [(row[0] - row[1]) / _S for row in rows]
