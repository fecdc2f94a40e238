"""OTLP as JSON lines, one ExportTraceServiceRequest each, in requests of a size that a server likes. Pure."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import orjson

# Any, throughout: JSON of whoever wrote the file.
Json = dict[str, Any]

MAX_SPANS = 1000
# A fifth of what a server takes unless it is told otherwise.
MAX_BYTES = 4 * 2**20
_GROUPS, _PARTS = ("resourceSpans", "resource_spans"), ("scopeSpans", "scope_spans")
_OTHER_SIGNALS = ("resourceLogs", "resource_logs", "resourceMetrics", "resource_metrics")
_OPENING, _CLOSING = b'{"resourceSpans":[', b"]}"


class NotOtlp(Exception):
    """A line is no request for traces; the message says why."""


class OtherSignal(NotOtlp):
    """A line holds logs or metrics, as files of a collector may."""


@dataclass(slots=True)
class Request:
    """The body of a request, as it grows. first_line, last_line: where its spans stand, from 1."""

    first_line: int
    last_line: int
    spans: int = 0
    parts: list[bytes] = field(default_factory=list)
    part_bytes: int = 0

    @property
    def body(self) -> bytes:
        return _OPENING + b",".join(self.parts) + _CLOSING

    def has_room(self, spans: int, part_bytes: int) -> bool:
        """Whether so much more fits."""
        return not self.parts or (self.spans + spans <= MAX_SPANS and self.part_bytes + part_bytes <= MAX_BYTES)

    def add(self, line: int, spans: int, part: bytes) -> None:
        """Take up the spans of a resource."""
        self.last_line = line
        self.spans += spans
        self.parts.append(part)
        self.part_bytes += len(part)


def requests_of(groups: Iterable[tuple[int, Json]]) -> Iterator[Request]:
    """Requests with the spans of these resources, each beside the number of its line, in their order."""
    request: Request | None = None
    for line, group in groups:
        for spans, part in _pieces(group):
            if request is None:
                request = Request(line, line)
            elif not request.has_room(spans, len(part)):
                yield request
                request = Request(line, line)
            request.add(line, spans, part)
    if request is not None:
        yield request


def groups_in(line: bytes) -> list[Json]:
    """The resources, with their spans, of one line. Raises NotOtlp, OtherSignal."""
    request = _parsed(line)
    if not isinstance(request, dict):
        raise NotOtlp("is not a JSON object")
    groups = next((request[name] for name in _GROUPS if request.get(name) is not None), None)
    if groups is None and any(name in request for name in _OTHER_SIGNALS):
        raise OtherSignal("holds another signal")
    if not isinstance(groups, list) or not all(isinstance(group, dict) for group in groups):
        raise NotOtlp("has no list resourceSpans of objects")
    return groups


def _parsed(line: bytes) -> Any:
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError:
        pass
    try:
        # Takes what the server takes as well: lone surrogates, numbers of any length.
        return json.loads(line)
    except (ValueError, RecursionError) as error:
        raise NotOtlp(f"is not JSON: {' '.join(str(error).split())}") from None


def _pieces(group: Json) -> Iterator[tuple[int, bytes]]:
    """A resource with its spans as JSON, and their number: in halves of halves, until each is small enough."""
    spans = _spans_of(group)
    part = _encoded(group)
    if len(spans) <= 1 or (len(spans) <= MAX_SPANS and len(part) <= MAX_BYTES):
        yield len(spans), part
        return
    half = len(spans) // 2
    for some in (spans[:half], spans[half:]):
        yield from _pieces(_with_spans(group, some))


def _spans_of(group: Json) -> list[tuple[int, Any]]:
    """The spans of a resource, each beside the place of its scope."""
    return [
        (place, span)
        for place, part in enumerate(_list(group, _PARTS))
        if isinstance(part, dict)
        for span in _list(part, ("spans",))
    ]


def _with_spans(group: Json, spans: list[tuple[int, Any]]) -> Json:
    """The resource with these spans of its own only."""
    parts = _list(group, _PARTS)
    by_part = groupby(spans, key=lambda each: each[0])
    kept = [{**parts[place], "spans": [span for _, span in some]} for place, some in by_part]
    return {name: value for name, value in group.items() if name not in _PARTS} | {"scopeSpans": kept}


def _list(each: Json, names: tuple[str, ...]) -> list[Any]:
    found = next((each[name] for name in names if each.get(name) is not None), None)
    return found if isinstance(found, list) else []


def _encoded(group: Json) -> bytes:
    try:
        return orjson.dumps(group)
    except TypeError:
        return json.dumps(group).encode()
