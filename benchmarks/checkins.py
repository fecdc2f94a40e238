"""Durable check-ins over HTTP, beside a route of the same server library that does nothing."""

from collections.abc import Sequence

from benchmarks.report import Figure, Goal
from benchmarks.stage import (
    DATABASES,
    DatabaseKind,
    Options,
    Server,
    disk_bytes,
    fill,
    fresh_settings,
    fsyncs_per_s,
    insert_heartbeats,
    insert_runs,
    serving,
)
from benchmarks.wrk import Load, bare_route, check_in_load
from lifesign.settings import Settings

_BARE = "bare route"


def run(options: Options) -> list[Figure]:
    return [figure for kind in DATABASES for figure in _on(kind, options)]


def _on(kind: DatabaseKind, options: Options) -> list[Figure]:
    with fresh_settings(kind) as settings:
        ids: list[str] = []
        fill(settings, lambda conn, now: ids.extend(insert_heartbeats(conn, now, options.heartbeats)))
        # Heartbeats of their own: a check-in of one with an open run is no ordinary one.
        running: list[str] = []
        fill(settings, lambda conn, now: running.extend(insert_heartbeats(conn, now, options.heartbeats, prefix="run")))
        fill(settings, lambda conn, now: insert_runs(conn, now, running, "bench"))
        fsyncs = [fsyncs_per_s(settings.data_dir) for _ in range(options.rounds)]
        with bare_route() as bare, serving(settings) as server:
            return [
                Figure(f"{kind}: fsyncs of the directory, one after the other", fsyncs, "/s"),
                *_measure(kind, settings, (bare, server), (ids, running), options),
            ]


def _measure(
    kind: DatabaseKind,
    settings: Settings,
    servers: tuple[Server, Server],
    heartbeats: tuple[Sequence[str], Sequence[str]],
    options: Options,
) -> list[Figure]:
    bare, server = servers
    ids, running = heartbeats
    idle_mib = server.rss_mib()
    check_in_load(server, ids, seconds=1)  # caches and connections are warm
    reference: list[Load] = []
    plain: list[Load] = []
    keyed: list[Load] = []
    progress: list[Load] = []
    cpu_us: list[float] = []
    disk: list[float] = []
    for n in range(options.rounds):
        reference.append(check_in_load(bare, ids, seconds=max(2, options.seconds // 2)))
        cpu_s, size = server.cpu_s(), disk_bytes(settings.data_dir)
        plain.append(check_in_load(server, ids, seconds=options.seconds))
        cpu_us.append((server.cpu_s() - cpu_s) * 1_000_000 / plain[-1].requests)
        disk.append((disk_bytes(settings.data_dir) - size) / plain[-1].requests)
        keyed.append(check_in_load(server, ids, seconds=options.seconds, salt=f"round-{n}"))
        progress.append(check_in_load(server, running, seconds=options.seconds, report="runs/bench/progress"))
    alone = [check_in_load(server, ids, seconds=2, connections=1) for _ in range(options.rounds)]
    base = [load.rate for load in reference]
    rates = [load.rate for load in plain]
    # What the goals name is SQLite; on PostgreSQL the same figures are shown without them.
    is_sqlite = kind == "sqlite"
    figures = [
        Figure(
            "check-ins, 64 connections", rates, "/s", Goal(10_000, is_floor=True) if is_sqlite else None, base, _BARE
        ),
        Figure("  p50", [load.p50_ms for load in plain], "ms"),
        Figure("  p99", [load.p99_ms for load in plain], "ms", Goal(50) if is_sqlite else None),
        Figure("  processor time of one", cpu_us, "us"),
        Figure(
            "check-ins with Idempotency-Key, part of those without",
            [with_key.rate / without.rate for with_key, without in zip(keyed, plain, strict=True)],
            "",
            Goal(0.7, is_floor=True),
        ),
        Figure(
            "progress of runs with a lease, part of check-ins",
            [of_runs.rate / without.rate for of_runs, without in zip(progress, plain, strict=True)],
            "",
            Goal(0.7, is_floor=True),
        ),
        Figure("one connection, median", [load.p50_ms for load in alone], "ms", Goal(5)),
        Figure("one connection, p99", [load.p99_ms for load in alone], "ms"),
        Figure("resident, idle", [idle_mib], "MiB", Goal(150)),
        Figure("resident, after the load", [server.rss_mib()], "MiB"),
    ]
    if is_sqlite:
        figures.append(Figure("disk per check-in", disk, "bytes"))
    return [Figure(f"{kind}: {each.name}", *_rest(each)) for each in figures]


def _rest(each: Figure) -> tuple[Sequence[float], str, Goal | None, Sequence[float], str]:
    return each.values, each.unit, each.goal, each.reference, each.reference_name
