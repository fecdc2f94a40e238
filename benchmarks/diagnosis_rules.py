"""What the rules cost: a million records in the window and as many before, 2 % of them failing.

`python -m benchmarks.diagnosis_rules [RECORDS]`. Prints seconds for the facts of records in hand, which a store does in
SQL, and for the rules, the details and the packet.
"""

import random
import sys
import time

from lifesign.clock import EpochMs
from lifesign.diagnosis.details import details_of
from lifesign.diagnosis.facts import facts_of
from lifesign.diagnosis.packet import examined, issues_in, packet_of
from lifesign.diagnosis.preparation import Placed, key_of
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.records import Kind, Narrow
from lifesign.telemetry.rules import duration_bucket

SPANS_A_TRACE = 10
KINDS: tuple[Kind, ...] = ("agent", "llm", "tool", "llm", "tool", "http", "llm", "tool", "llm", "other")
OPERATIONS = {kind: [f"{kind}-{chr(97 + n)}" for n in range(20)] for kind in KINDS}


def records_of(dice: random.Random, number: int, first: int) -> list[Placed]:
    return [_record(dice, first + n) for n in range(number)]


def _record(dice: random.Random, number: int) -> Placed:
    trace, place = divmod(number, SPANS_A_TRACE)
    kind = KINDS[place]
    operation = dice.choice(OPERATIONS[kind])
    fails = dice.random() < 0.02
    duration_us = dice.randrange(1_000, 900_000)
    start_ns = 1_700_000_000_000_000_000 + number * 1_000
    return Placed(
        f"session-{trace // 5}",
        Narrow(
            trace_id=f"{trace:032x}",
            span_id=f"{number:016x}",
            parent_id="" if place == 0 else f"{number - place:016x}",
            received_at=EpochMs(1_700_000_000_000),
            start_ns=start_ns,
            end_ns=start_ns + duration_us * 1_000,
            kind=kind,
            operation=operation,
            op_hash=operation_hash(kind, operation),
            status="error" if fails else "ok",
            signal_type="info" if not fails else "tool_call_failed" if kind == "tool" else "error",
            agent=f"agent-{trace % 7}",
            tool=operation if kind == "tool" else None,
            model="gpt-5" if kind == "llm" else None,
            version=f"1.{trace % 3}.0",
            error_type=dice.choice(["Timeout", "ValueError", "http.503"]) if fails else None,
            args_hash=dice.randrange(1, 50) if kind == "tool" else None,
            bucket=duration_bucket(duration_us * 1_000),
            input_tokens=1_000 if kind == "llm" else None,
            total_tokens=1_200 if kind == "llm" else None,
            cost_nano=1_000_000 if kind == "llm" else None,
        ),
    )


def main(number: int) -> None:
    dice = random.Random(7)
    current, baseline = records_of(dice, number, number), records_of(dice, number, 0)
    messages = {
        key_of(each): f"order {n} lost after {n} ms" for n, each in enumerate(current) if each.record.is_failing
    }

    started = time.perf_counter()
    facts = facts_of(current, baseline)
    summed = time.perf_counter()
    seen = examined(facts)
    judged = time.perf_counter()
    details = details_of(current, seen.wanted, messages)
    detailed = time.perf_counter()
    packet = packet_of(seen, issues_in(seen, details, ledger={}, window_start=EpochMs(0)))
    told = time.perf_counter()

    print(f"records                 {2 * number:>12,}")
    print(
        f"facts in Python         {summed - started:12.2f} s, {(summed - started) / 2 / number * 1e6:.1f} us a record"
    )
    print(f"rules                   {judged - summed:12.2f} s")
    print(f"details in Python       {detailed - judged:12.2f} s")
    print(f"issues and packet       {told - detailed:12.2f} s")
    print(f"failures, issues        {packet['failures']:12,}, {len(packet['issues'])} and {packet['omitted_issues']}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000)
