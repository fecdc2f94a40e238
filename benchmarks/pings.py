"""Pings over HTTP: by UUID, by key and slug, with bodies; and what people read of checks."""

import smtplib
import time
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from sqlalchemy import Connection, update

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
    serving,
    timed_ms,
)
from benchmarks.wrk import Load, bare_route, check_in_load, ping_load
from lifesign.clock import EpochMs
from lifesign.db import schema
from lifesign.heartbeats.service import unique_key
from lifesign.projects import service as projects

_CHECKS = 1000
_MANY_CHECKS = 10_000
_BODY_BYTES = 10_000
_TIMES = 20
_BARE = "bare route"
_SMTP_PORT = 18_025
_SMTP_CONNECTIONS = 8
_MAILS = 5000
_MAIL = "Subject: backup done\r\n\r\n" + "a line of its output\r\n" * 40


def run(options: Options) -> list[Figure]:
    return [figure for kind in DATABASES for figure in _on(kind, options)]


def _on(kind: DatabaseKind, options: Options) -> list[Figure]:
    with fresh_settings(kind) as settings:
        ids: list[str] = []
        ping_ids: list[str] = []

        def rows(conn: Connection, now: EpochMs) -> None:
            ids.extend(insert_heartbeats(conn, now, _CHECKS))
            ping_ids.extend(_give_ping_ids(conn, ids))

        fill(settings, rows)
        # A port of its own: it is not printed where the benchmark would read it.
        with bare_route() as bare, serving(settings, LIFESIGN_PING_SMTP_LISTEN=f"127.0.0.1:{_SMTP_PORT}") as server:
            figures = [
                *_measure(kind, (bare, server), (ids, ping_ids), options),
                *_reads(server, options),
                _mails(ping_ids, options),
            ]
    return [
        Figure(f"{kind}: {each.name}", each.values, each.unit, each.goal, each.reference, each.reference_name)
        for each in [*figures, *_metrics(kind, options)]
    ]


def _give_ping_ids(conn: Connection, ids: Sequence[str]) -> list[str]:
    given = [str(uuid.uuid4()) for _ in ids]
    for key, ping_id in zip(ids, given, strict=True):
        values = {"ping_id": ping_id, "unique_key": unique_key(ping_id), "badge_id": str(uuid.uuid4())}
        conn.execute(update(schema.heartbeats).where(schema.heartbeats.c.id == key).values(values))
    return given


def _measure(
    kind: DatabaseKind,
    servers: tuple[Server, Server],
    subjects: tuple[Sequence[str], Sequence[str]],
    options: Options,
) -> list[Figure]:
    bare, server = servers
    ids, ping_ids = subjects
    by_uuid = [f"/ping/{each}" for each in ping_ids]
    with server.client() as http:
        key = http.post("/v1/keys", json={"name": "pings", "scopes": ["checkins:write"]}).json()["token"]
    by_slug = [f"/ping/{key}/bench-{n}" for n in range(len(ids))]
    ping_load(server, by_uuid, seconds=2)  # caches and connections are warm
    idle_mib = server.rss_mib()
    reference: list[Load] = []
    check_ins: list[Load] = []
    pings: list[Load] = []
    slugs: list[Load] = []
    bodies: list[Load] = []
    for _ in range(options.rounds):
        reference.append(ping_load(bare, by_uuid, seconds=max(2, options.seconds // 2)))
        check_ins.append(check_in_load(server, ids, seconds=options.seconds))
        pings.append(ping_load(server, by_uuid, seconds=options.seconds))
        slugs.append(ping_load(server, by_slug, seconds=options.seconds))
        bodies.append(ping_load(server, by_uuid, seconds=options.seconds, body_bytes=_BODY_BYTES))
    is_sqlite = kind == "sqlite"
    rates = [load.rate for load in pings]
    return [
        Figure(
            "pings by UUID, 64 connections",
            rates,
            "/s",
            Goal(8000, is_floor=True) if is_sqlite else None,
            [load.rate for load in reference],
            _BARE,
        ),
        Figure("  the same, beside check-ins", rates, "/s", None, [load.rate for load in check_ins], "check-ins"),
        Figure("  p99", [load.p99_ms for load in pings], "ms", Goal(60) if is_sqlite else None),
        Figure(
            "pings by key and slug, part of those by UUID",
            [slug.rate / plain.rate for slug, plain in zip(slugs, pings, strict=True)],
            "",
            Goal(0.85, is_floor=True),
        ),
        Figure(
            "pings with 10,000 bytes, part of those without",
            [body.rate / plain.rate for body, plain in zip(bodies, pings, strict=True)],
            "",
            Goal(0.5, is_floor=True),
        ),
        Figure("resident, idle", [idle_mib], "MiB"),
        Figure("resident, after the load", [server.rss_mib()], "MiB"),
    ]


def _reads(server: Server, options: Options) -> list[Figure]:
    with server.client() as http:
        http.headers["X-Api-Key"] = ADMIN_KEY
        assert len(http.get("/api/v3/checks/").json()["checks"]) == _CHECKS
        rounds = [percentile(timed_ms(lambda: http.get("/api/v3/checks/"), _TIMES), 0.5) for _ in range(options.rounds)]
    return [Figure("list of 1,000 checks, median", rounds, "ms", Goal(150))]


def _mails(ping_ids: Sequence[str], options: Options) -> Figure:
    """How long 5,000 mails take, over a few connections; scaled up from fewer."""

    def send(addresses: Sequence[str]) -> None:
        with smtplib.SMTP("127.0.0.1", _SMTP_PORT, timeout=30) as client:
            for address in addresses:
                client.sendmail("cron@db1.example.org", [f"{address}@x"], _MAIL)

    count = options.mails * 5
    rounds: list[float] = []
    for _ in range(options.rounds):
        addresses = [ping_ids[n % len(ping_ids)] for n in range(count)]
        began = time.monotonic()
        with ThreadPoolExecutor(_SMTP_CONNECTIONS) as pool:
            list(pool.map(send, [addresses[n::_SMTP_CONNECTIONS] for n in range(_SMTP_CONNECTIONS)]))
        rounds.append((time.monotonic() - began) * _MAILS / count)
    return Figure(f"{_MAILS:,} mails over {_SMTP_CONNECTIONS} connections", rounds, "s", Goal(60))


def _metrics(kind: DatabaseKind, options: Options) -> list[Figure]:
    with fresh_settings(kind) as settings:
        found: list[str] = []

        def rows(conn: Connection, now: EpochMs) -> None:
            _give_ping_ids(conn, insert_heartbeats(conn, now, _MANY_CHECKS))
            found.append(projects.ensure_default(conn, now))

        fill(settings, rows)
        project = str(uuid.UUID(hex=found[0].rpartition("_")[2]))
        with serving(settings) as server, server.client() as http:
            path = f"/projects/{project}/metrics/"
            assert http.get(path).status_code == 200
            rounds = [percentile(timed_ms(lambda: http.get(path), 3), 0.5) for _ in range(options.rounds)]
    return [Figure("metrics of 10,000 checks, median", rounds, "ms", Goal(1000))]
