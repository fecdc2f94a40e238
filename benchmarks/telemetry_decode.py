"""From the bytes of a request to records: decoding and mapping, without HTTP and without a store.

The whole way must reach 10,000 stored spans per second of processor time from protobuf, and 8,000 from JSON; this part
of it may take 35 us a span.
"""

import gc
import time
from collections.abc import Callable
from typing import TypeVar

from benchmarks.otlp import as_json, request
from benchmarks.report import Figure, Goal
from benchmarks.stage import Options
from lifesign.clock import EpochMs
from lifesign.prices import Prices
from lifesign.telemetry.mapping import records_of
from lifesign.telemetry.otlp import Batch, decode_json, decode_protobuf
from lifesign.telemetry.rules import SlowAfter

_SPANS = 200
_REQUESTS = 20
_RECEIVED_AT = EpochMs(1_767_614_500_000)
_GOAL = Goal(35)
_Given = TypeVar("_Given")


def run(options: Options) -> list[Figure]:
    told = [request(seed, _SPANS) for seed in range(_REQUESTS)]
    protobuf = [each.SerializeToString() for each in told]
    written = [as_json(each) for each in told]
    # In the spelling of protobuf: read leniently.
    snake = [each.replace(b'"traceId"', b'"trace_id"') for each in written]
    batches = [decode_protobuf(each, arrival_ns=1) for each in protobuf]
    prices = Prices()
    return [
        _figure("protobuf: decoded", options, protobuf, _protobuf),
        _figure(
            "protobuf: decoded, mapped and priced", options, protobuf, lambda body: _map(_protobuf(body), prices), _GOAL
        ),
        _figure("JSON: decoded", options, written, _json),
        _figure("JSON: decoded, mapped and priced", options, written, lambda body: _map(_json(body), prices), _GOAL),
        _figure("JSON in snake_case: decoded", options, snake, _json),
        _figure("mapped", options, batches, lambda batch: _map(batch, None)),
        _figure("mapped and priced", options, batches, lambda batch: _map(batch, prices)),
    ]


def _protobuf(body: bytes) -> Batch:
    return decode_protobuf(body, arrival_ns=1)


def _json(body: bytes) -> Batch:
    return decode_json(body, arrival_ns=1)


def _map(batch: Batch, prices: Prices | None) -> None:
    assert len(records_of(batch.spans, _RECEIVED_AT, slow_after=SlowAfter(), prices=prices)) == _SPANS


def _figure(
    name: str, options: Options, given: list[_Given], act: Callable[[_Given], object], goal: Goal | None = None
) -> Figure:
    """Processor time per span, once per round, over all requests; what is remembered is warm."""
    act(given[0])
    values: list[float] = []
    for _ in range(options.rounds):
        gc.collect()
        began = time.process_time()
        for each in given:
            act(each)
        values.append((time.process_time() - began) * 1e6 / (_SPANS * len(given)))
    return Figure(name, values, "us of processor time a span", goal)
