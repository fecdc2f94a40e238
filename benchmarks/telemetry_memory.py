"""What memory a server takes while spans come in for minutes, and what it keeps of requests of 14 MB.

With `--minutes`: how long they come in, as fast as they are taken; a minute otherwise, and ten as the goal has it.
"""

import http.client
import itertools
import random
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Final

from benchmarks.otlp import as_json, request
from benchmarks.report import Figure, Goal
from benchmarks.stage import AUTHORIZATION, Options, Server, fresh_settings, serving

_SENDERS: Final = 4
_SPANS: Final = 200
_MOULDS: Final = 16
_LARGE_REQUESTS: Final = 6
_LARGE_SENDERS: Final = 2
_SETTLED_S: Final = 6.0
_WARM_SHARE: Final = 0.2
_TRACE_BYTES: Final = 16
_PEAK: Final = re.compile(r"VmHWM:\s+(\d+) kB")
_PROTOBUF: Final = "application/x-protobuf"
_JSON: Final = "application/json"
_LARGE: Final = ((_PROTOBUF, 40_000), (_JSON, 20_000))
"""How many spans are 14 MB."""


def run(options: Options) -> list[Figure]:
    minutes = options.minutes or (1 if options.rounds > 1 else 0.2)
    with fresh_settings("sqlite") as settings, serving(settings) as server:
        at_rest = server.rss_mib()
        figures = [Figure("at rest", [at_rest], "MiB"), *_while_they_come_in(server, minutes)]
    for content_type, spans in _LARGE:
        with fresh_settings("sqlite") as settings, serving(settings) as server:
            figures += _of_large_ones(server, content_type, spans)
    return figures


def _while_they_come_in(server: Server, minutes: float) -> list[Figure]:
    _forget_peak(server)
    began = time.monotonic()
    until = began + minutes * 60
    bodies = _small_ones()
    taken: list[int] = []
    lock = threading.Lock()

    def next_body() -> bytes | None:
        if time.monotonic() > until:
            return None
        with lock:
            taken.append(_SPANS)
            return next(bodies)

    senders = [threading.Thread(target=_send, args=(server, next_body, _PROTOBUF)) for _ in range(_SENDERS)]
    for sender in senders:
        sender.start()
    seen: list[tuple[float, float]] = []
    while any(sender.is_alive() for sender in senders):
        seen.append((time.monotonic() - began, server.rss_mib()))
        time.sleep(0.5)
    spent_s = time.monotonic() - began
    warm = [mib for at, mib in seen if at <= spent_s * _WARM_SHARE]
    late = [mib for at, mib in seen if at >= spent_s * (1 - _WARM_SHARE)]
    return [
        Figure(f"spans for {minutes:g} minutes, the most", [_peak_mib(server)], "MiB", Goal(300)),
        Figure("  in the last fifth, at most", [max(late)], "MiB", None, [max(warm)], "in the first"),
        Figure("  spans sent meanwhile", [sum(taken)], ""),
    ]


def _of_large_ones(server: Server, content_type: str, spans: int) -> list[Figure]:
    """Two senders at once, as often as not what comes of many small ones that were held back."""
    made = (request(seed, spans) for seed in range(1, _LARGE_REQUESTS + 1))
    bodies = [as_json(each) if content_type == _JSON else bytes(each.SerializeToString()) for each in made]
    left = iter(bodies)
    lock = threading.Lock()

    def next_body() -> bytes | None:
        with lock:
            return next(left, None)

    _forget_peak(server)
    senders = [threading.Thread(target=_send, args=(server, next_body, content_type)) for _ in range(_LARGE_SENDERS)]
    for sender in senders:
        sender.start()
    for sender in senders:
        sender.join()
    peak = _peak_mib(server)
    time.sleep(_SETTLED_S)
    megabytes = len(bodies[0]) / 1e6
    return [
        Figure(f"{_LARGE_REQUESTS} requests of {megabytes:.0f} MB of {content_type}, the most", [peak], "MiB"),
        Figure(f"  {_SETTLED_S:g} s later", [server.rss_mib()], "MiB"),
    ]


def _small_ones() -> Iterator[bytes]:
    """Requests that were never sent before: the same few, with other traces."""
    moulds = [request(seed, _SPANS) for seed in range(_MOULDS)]
    prepared = [
        (bytes(each.SerializeToString()), {span.trace_id for span in each.resource_spans[0].scope_spans[0].spans})
        for each in moulds
    ]
    chance = random.Random(11)
    for body, trace_ids in itertools.cycle(prepared):
        for trace_id in trace_ids:
            body = body.replace(trace_id, chance.randbytes(_TRACE_BYTES))  # noqa: PLW2901 - of the same length
        yield body


def _send(server: Server, next_body: Callable[[], bytes | None], content_type: str) -> None:
    headers = AUTHORIZATION | {"Content-Type": content_type}
    with closing(http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=120)) as connection:
        while (body := next_body()) is not None:
            connection.request("POST", "/v1/traces", body, headers)
            answer = connection.getresponse()
            told = answer.read()
            if answer.status == http.client.SERVICE_UNAVAILABLE:
                time.sleep(1)
            elif answer.status not in {200, 202}:
                raise RuntimeError(f"{answer.status}: {told[:200]!r}")


def _forget_peak(server: Server) -> None:
    Path(f"/proc/{server.pid}/clear_refs").write_text("5")


def _peak_mib(server: Server) -> float:
    found = _PEAK.search(Path(f"/proc/{server.pid}/status").read_text())
    assert found is not None
    return int(found[1]) / 1024
