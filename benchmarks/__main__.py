"""`python -m benchmarks [NAME...] [--quick] [--json]`: run them all, or those named."""

import argparse
import json
import os
import platform
import sqlite3
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace

from rich.console import Console

from benchmarks import (
    bots,
    checkins,
    delivery,
    diagnosis_beside,
    diagnosis_facts,
    expiry,
    pings,
    reads,
    systems,
    telemetry_decode,
    telemetry_ingest,
    telemetry_memory,
    telemetry_phoenix,
    telemetry_reads,
    telemetry_stores,
    usage,
    vitals,
    vitals_beside,
    vitals_live,
)
from benchmarks.report import Figure, table
from benchmarks.stage import QUICK, Options

ALL: Mapping[str, Callable[[Options], list[Figure]]] = {
    "checkins": checkins.run,
    "pings": pings.run,
    "systems": systems.run,
    "reads": reads.run,
    "expiry": expiry.run,
    "bots": bots.run,
    "delivery": delivery.run,
    "telemetry_decode": telemetry_decode.run,
    "telemetry_ingest": telemetry_ingest.run,
    "telemetry_memory": telemetry_memory.run,
    "telemetry_reads": telemetry_reads.run,
    "telemetry_stores": telemetry_stores.run,
    "diagnosis_facts": diagnosis_facts.run,
    "diagnosis_beside": diagnosis_beside.run,
    "usage": usage.run,
    "vitals": vitals.run,
    "vitals_beside": vitals_beside.run,
    "vitals_live": vitals_live.run,
}
# Need something that is not installed for the others.
_BY_NAME_ONLY: Mapping[str, Callable[[Options], list[Figure]]] = {"telemetry_phoenix": telemetry_phoenix.run}
_MILLION = 1_000_000


def main() -> int:
    """Measure and tell. A missed goal is told, not punished: machines differ; only a benchmark that breaks fails."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of: {', '.join(ALL)}; all of these when absent")
    parser.add_argument("--quick", action="store_true", help="one short round of everything, with less of everything")
    parser.add_argument("--million", action="store_true", help="arm 1,000,000 heartbeats at rest instead of 100,000")
    parser.add_argument("--rounds", type=int, help="rounds of each measurement; the median counts")
    parser.add_argument("--spans", type=int, help="how many spans are stored when telemetry_reads begins to ask")
    parser.add_argument("--minutes", type=float, help="how long telemetry_memory sends, or streams of vitals_live are")
    parser.add_argument("--json", action="store_true", help="print JSON instead of tables")
    asked = parser.parse_args()
    known = {**ALL, **_BY_NAME_ONLY}
    unknown = set(asked.names) - set(known)
    if unknown:
        parser.error(f"unknown benchmark {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    options = QUICK if asked.quick else Options()
    if asked.million:
        options = replace(options, armed=_MILLION)
    if asked.rounds:
        options = replace(options, rounds=asked.rounds)
    options = replace(options, spans=asked.spans, minutes=asked.minutes)
    console = Console(stderr=asked.json, width=None if sys.stdout.isatty() else 160)
    console.print(
        f"{platform.machine()}, {os.cpu_count()} processors, Python {platform.python_version()}, "
        f"SQLite {sqlite3.sqlite_version}, load {os.getloadavg()[0]:.1f} before the start",
        highlight=False,
    )
    measured: dict[str, list[Figure]] = {}
    for name, run in known.items():
        if name in (asked.names or ALL):
            measured[name] = run(options)
            if not asked.json:
                console.print(table(name, measured[name]))
    if asked.json:
        print(json.dumps({name: [each.as_json() for each in figures] for name, figures in measured.items()}, indent=2))
    return 0


if __name__ == "__main__":
    sys.exit(main())
