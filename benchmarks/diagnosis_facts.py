"""What diagnosis costs a store: the records of a window and as many before, 2 % of them failing, and a small window.

With `--million`: a million in each window, as the goal has it; otherwise a tenth of that.
"""

import random
from collections.abc import Iterator
from typing import Final

from lifesign.clock import EpochMs
from lifesign.telemetry.hashes import operation_hash
from lifesign.telemetry.otlp.spans import Resource, Scope
from lifesign.telemetry.records import Body, Kind, Origin, Record
from lifesign.telemetry.rules import duration_bucket
from lifesign.telemetry.store import SpanStore

PROJECT: Final = "bench"
UNTIL: Final = EpochMs(1_767_614_400_000)
HOUR_MS: Final = 3_600_000
_SPANS_A_TRACE: Final = 10
_PER_REQUEST: Final = 1000
_KINDS: Final[tuple[Kind, ...]] = ("agent", "llm", "tool", "llm", "tool", "http", "llm", "tool", "llm", "other")
_OPERATIONS: Final = {kind: [f"{kind}-{chr(97 + n)}" for n in range(20)] for kind in _KINDS}
_HERE: Final = Origin(Resource({"service.name": "shop"}, 0, ""), Scope("lib", "1", {}, 0, ""))
_MS: Final = 1_000_000


async def fill(store: SpanStore, count: int) -> None:
    """`count` records in each of two hours."""
    dice = random.Random(7)
    for since in (UNTIL - 2 * HOUR_MS, UNTIL - HOUR_MS):
        requests = max(1, count // _PER_REQUEST)
        for number in range(requests):
            at = EpochMs(since + number * HOUR_MS // requests)
            await store.append(PROJECT, list(_records(dice, at, min(count, _PER_REQUEST))), quota=0, now=at)


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
