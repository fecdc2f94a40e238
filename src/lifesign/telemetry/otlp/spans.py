"""The plain form of spans, its limits, and what happens to what exceeds them."""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final, TypeVar

import orjson
from msgspec import Struct
from msgspec.structs import replace

# Any, throughout: an attribute's value is JSON, with bytes as base64 and numbers that are not finite as text.
Attributes = dict[str, Any]

MAX_ATTRIBUTES: Final = 256
MAX_TEXT: Final = 32_768
MAX_NAME: Final = 1024
MAX_EVENTS: Final = 128
MAX_LINKS: Final = 128
MAX_DEPTH: Final = 16
MAX_ATTRIBUTE_BYTES: Final = 262_144
MAX_RESOURCE_BYTES: Final = MAX_ATTRIBUTE_BYTES * 3 // 8
MAX_SCOPE_BYTES: Final = MAX_ATTRIBUTE_BYTES // 8
"""What a resource and a scope may take of it. They are the same for many spans, so they are not cut for each."""

CUT: Final = "..."
LATEST_NS: Final = 2**63 - 1
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16
TRACE_BYTES, SPAN_BYTES = 16, 8
LAST_KIND: Final = 5
LAST_STATUS: Final = 2

PLAINLY_SHORT: Final = 1000
"""Key and text of so many characters together are within the limits of both."""
NUMBER_SIZE: Final = 3
"""What a value that is no text counts for in `Cutter.size`."""

_CHARACTER_BYTES: Final = 4
_NUMBER_BYTES: Final = 8
_PER_ATTRIBUTE_BYTES: Final = 4
_SHORTEST_BYTES: Final = 16


class InvalidOtlp(Exception):
    """The body is no request of OTLP for traces; the message says why."""


# Structs of msgspec: made seven times as fast as dataclasses and ten times as fast as named tuples.
# gc=False: hundreds of thousands a second, and none can be part of a cycle.
class SpanEvent(Struct, frozen=True, gc=False, array_like=True):
    """Something that happened during a span. dropped: attributes that are not there."""

    time_ns: int
    name: str
    attributes: Attributes
    dropped: int


class SpanLink(Struct, frozen=True, gc=False, array_like=True):
    """Another span that has to do with a span. Ids are empty when they were none."""

    trace_id: str
    span_id: str
    trace_state: str
    attributes: Attributes
    dropped: int
    flags: int


class Resource(Struct, frozen=True, gc=False, array_like=True):
    """What made the spans: a process, a service."""

    attributes: Attributes
    dropped: int
    schema_url: str


class Scope(Struct, frozen=True, gc=False, array_like=True):
    """The library that made the spans."""

    name: str
    version: str
    attributes: Attributes
    dropped: int
    schema_url: str


class Span(Struct, frozen=True, gc=False):
    """A span as it came, within the limits. Ids in lower-case hex; `parent_id` empty: a root. Times in ns since 1970.

    resource, scope: the same objects for all spans that came under them. is_cut: some text or list was shortened.
    is_skewed: it ended before it began.
    """

    trace_id: str
    span_id: str
    parent_id: str
    trace_state: str
    flags: int
    name: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: Attributes
    dropped_attributes: int
    events: tuple[SpanEvent, ...]
    dropped_events: int
    links: tuple[SpanLink, ...]
    dropped_links: int
    status_code: int
    status_message: str
    resource: Resource
    scope: Scope
    is_cut: bool
    is_skewed: bool


@dataclass(slots=True)
class Batch:
    """The spans of one request, in their order, and those that cannot be taken: counts by reason, the first one."""

    spans: list[Span] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    first_rejected: str = ""

    def reject(self, reason: str, name: str) -> None:
        """Leave a span out. name: what it is called, for the person who sent it; its place in the request otherwise."""
        if not self.rejected:
            self.first_rejected = clean(name[:MAX_NAME]) or f"#{len(self.spans) + 1}"
        self.rejected[reason] += 1

    @property
    def message(self) -> str:
        """`2 spans rejected: invalid traceId (1), over quota (1); first: 'chat'`; empty when none was."""
        count = self.rejected.total()
        if not count:
            return ""
        reasons = ", ".join(f"{reason} ({number})" for reason, number in self.rejected.items())
        first = f"; first: {self.first_rejected[:100]!r}" if self.first_rejected else ""
        return f"{count} span{'s' if count > 1 else ''} rejected: {reasons}{first}"


@dataclass(slots=True)
class Cutter:
    """Keeps what came within the limits, and remembers of each span whether it had to cut.

    is_clean: no text has NUL or lone surrogates. size: characters so far, at least as many as a quarter of the bytes
    that the attributes take; while it is low nothing needs to be measured.
    """

    is_clean: bool = False
    is_cut: bool = False
    size: int = 0

    def text(self, text: str, longest: int = MAX_TEXT) -> str:
        """Valid text of at most `longest` characters."""
        if len(text) > longest:
            self.is_cut = True
            text = text[: longest - len(CUT)] + CUT
        self.size += len(text) + 1
        return text if self.is_clean else clean(text)

    def few(self, attributes: Attributes) -> tuple[Attributes, int]:
        """The first 256 attributes, and how many are left out."""
        left_out = len(attributes) - MAX_ATTRIBUTES
        if left_out <= 0:
            return attributes, 0
        self.is_cut = True
        return dict(islice(attributes.items(), MAX_ATTRIBUTES)), left_out

    def fit_resource(self, resource: Resource) -> Resource:
        """The resource with its attributes in the bytes that it may take."""
        kept = self._fit([resource.attributes], MAX_RESOURCE_BYTES)
        return resource if kept is None else _with(resource, kept[0])

    def fit_scope(self, scope: Scope) -> Scope:
        """The scope with its attributes in the bytes that it may take."""
        kept = self._fit([scope.attributes], MAX_SCOPE_BYTES)
        return scope if kept is None else _with(scope, kept[0])

    def fit_span(self, span: Span) -> Span:
        """The span with its attributes, those of its events and of its links in the bytes that are left for them."""
        if self.size * _CHARACTER_BYTES <= MAX_ATTRIBUTE_BYTES - MAX_RESOURCE_BYTES - MAX_SCOPE_BYTES:
            return span
        room = MAX_ATTRIBUTE_BYTES - _bytes_of(span.resource.attributes) - _bytes_of(span.scope.attributes)
        events, links = span.events, span.links
        groups = [span.attributes, *(event.attributes for event in events), *(link.attributes for link in links)]
        kept = self._fit(groups, room)
        if kept is None:
            return span
        of_span, of_events, of_links = kept[0], kept[1 : len(events) + 1], kept[len(events) + 1 :]
        return replace(
            span,
            attributes=of_span,
            dropped_attributes=span.dropped_attributes + len(span.attributes) - len(of_span),
            events=tuple(_with(event, left) for event, left in zip(events, of_events, strict=True)),
            links=tuple(_with(link, left) for link, left in zip(links, of_links, strict=True)),
            is_cut=True,
        )

    def _fit(self, groups: Sequence[Attributes], room: int) -> list[Attributes] | None:
        """The groups in so many bytes, the longest values shortened first; None when they are as short already."""
        sizes = [[(key, value, _bytes_of(value)) for key, value in group.items()] for group in groups]
        if sum(_PER_ATTRIBUTE_BYTES + _text_bytes(key) + size for group in sizes for key, _, size in group) <= room:
            return None
        self.is_cut = True
        # Keys are not cut. Where they alone are too many, those that come last are left out.
        lengths: list[int] = []
        kept: list[list[tuple[str, Any, int]]] = [[] for _ in sizes]
        for group, left in zip(sizes, kept, strict=True):
            for key, value, size in group:
                least = _PER_ATTRIBUTE_BYTES + _text_bytes(key) + min(size, _SHORTEST_BYTES)
                if least <= room:
                    room -= least
                    lengths.append(size)
                    left.append((key, value, size))
        longest = _water_level(lengths, room)
        return [
            {key: value if size <= longest else _shortened(value, longest) for key, value, size in left}
            for left in kept
        ]


_Attributed = TypeVar("_Attributed", SpanEvent, SpanLink, Resource, Scope)


def _with(each: _Attributed, attributes: Attributes) -> _Attributed:
    return replace(each, attributes=attributes, dropped=each.dropped + len(each.attributes) - len(attributes))


def _water_level(lengths: Sequence[int], room: int) -> int:
    """The length to which the longest must be cut for all to fit, when each has _SHORTEST_BYTES besides the room."""
    for position, length in enumerate(ordered := sorted(lengths)):
        beyond = max(0, length - _SHORTEST_BYTES)
        rest = len(ordered) - position
        if beyond * rest > room:
            return _SHORTEST_BYTES + room // rest
        room -= beyond
    return max(ordered, default=0)


def _bytes_of(value: Any) -> int:
    """About how many bytes a value takes; close enough to bound what is kept."""
    if isinstance(value, str):
        return _text_bytes(value)
    if isinstance(value, dict):
        return sum(_text_bytes(key) + _bytes_of(each) + _PER_ATTRIBUTE_BYTES for key, each in value.items())
    if isinstance(value, list):
        return sum(_bytes_of(each) + _PER_ATTRIBUTE_BYTES for each in value)
    return _NUMBER_BYTES


def _text_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _shortened(value: Any, longest: int) -> str:
    """A long value as text of so many bytes; a structure becomes its JSON."""
    text = value if isinstance(value, str) else orjson.dumps(value).decode()
    encoded = text.encode()
    return text if len(encoded) <= longest else encoded[: longest - len(CUT)].decode(errors="ignore") + CUT


def clean(text: str) -> str:
    """Text that every store can keep: NUL and lone surrogates become U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def times(start_ns: int, end_ns: int, arrival_ns: int) -> tuple[int, int]:
    """Start and end. 0: not said."""
    if not start_ns and not end_ns:
        return arrival_ns, arrival_ns
    return start_ns or end_ns, end_ns or start_ns


def finite(number: float) -> float | str:
    """A number that JSON can say, or its name."""
    if math.isfinite(number):
        return number
    return "NaN" if math.isnan(number) else "Infinity" if number > 0 else "-Infinity"
