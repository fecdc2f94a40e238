"""The plain form of spans, its limits, and what happens to what exceeds them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

# Any, throughout: an attribute's value is JSON, with bytes as base64 and numbers that are not finite as text.
Attributes = dict[str, Any]

MAX_ATTRIBUTES: Final = 256
MAX_TEXT: Final = 32_768
MAX_NAME: Final = 1024
MAX_EVENTS: Final = 128
MAX_LINKS: Final = 128
MAX_DEPTH: Final = 16
MAX_ATTRIBUTE_BYTES: Final = 262_144
CUT: Final = "..."
LATEST_NS: Final = 2**63 - 1
NO_TRACE, NO_SPAN = "0" * 32, "0" * 16
_SHORTEST: Final = 256


class InvalidOtlp(Exception):
    """The body is no request of OTLP for traces; the message says why."""


class SpanEvent(NamedTuple):
    """Something that happened during a span. dropped: attributes that are not there."""

    time_ns: int
    name: str
    attributes: Attributes
    dropped: int


class SpanLink(NamedTuple):
    """Another span that has to do with a span."""

    trace_id: str
    span_id: str
    trace_state: str
    attributes: Attributes
    dropped: int
    flags: int


class Resource(NamedTuple):
    """What made the spans: a process, a service."""

    attributes: Attributes
    dropped: int
    schema_url: str


class Scope(NamedTuple):
    """The library that made the spans."""

    name: str
    version: str
    attributes: Attributes
    dropped: int
    schema_url: str


class Span(NamedTuple):
    """A span as it came, within the limits. Ids in lower-case hex; `parent_id` empty: a root. Times in ns since 1970.

    is_cut: some text or list of it was shortened; is_skewed: it ended before it began, and counts as over at once.
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

    def reject(self, reason: str, which: str) -> None:
        """Leave a span out. which: what it is called, for the person who sent it."""
        if not self.rejected:
            self.first_rejected = which[:MAX_NAME]
        self.rejected[reason] += 1

    @property
    def message(self) -> str:
        """`2 spans rejected: invalid traceId (1), over quota (1)`; empty when none was."""
        count = self.rejected.total()
        if not count:
            return ""
        reasons = ", ".join(f"{reason} ({number})" for reason, number in self.rejected.items())
        first = f"; first: {self.first_rejected[:100]!r}" if self.first_rejected else ""
        return f"{count} span{'s' if count > 1 else ''} rejected: {reasons}{first}"


class Rejected(Exception):
    """One span cannot be taken; the message is the reason."""


@dataclass(slots=True)
class Cutter:
    """Keeps the values of one span within the limits, and remembers whether it had to cut."""

    is_cut: bool = False

    def text(self, text: str, longest: int = MAX_TEXT) -> str:
        """Valid text of at most `longest` characters."""
        if len(text) > longest:
            self.is_cut = True
            text = text[: longest - len(CUT)] + CUT
        return clean(text)

    def attributes(self, pairs: Iterable[tuple[str, Any]]) -> tuple[Attributes, int]:
        """At most 256 attributes, of repeated ones the last; and how many are left out."""
        found: Attributes = {}
        left_out: set[str] = set()
        for key, value in pairs:
            if key in found or len(found) < MAX_ATTRIBUTES:
                found[key] = value
            else:
                left_out.add(key)
        self.is_cut = self.is_cut or bool(left_out)
        return found, len(left_out)

    def fitted(self, attributes: Attributes) -> Attributes:
        """The same in at most 262,144 bytes of text: the longest values are shortened first."""
        size = _bytes_of(attributes)
        if size <= MAX_ATTRIBUTE_BYTES:
            return attributes
        self.is_cut = True
        fitted = dict(attributes)
        while size > MAX_ATTRIBUTE_BYTES:
            key, longest = max(((key, _bytes_of(value)) for key, value in fitted.items()), key=lambda each: each[1])
            keep = max(longest // 2, longest - (size - MAX_ATTRIBUTE_BYTES) - len(CUT))
            if longest <= _SHORTEST:
                del fitted[key]
            else:
                fitted[key] = _shortened(fitted[key], keep)
            size = _bytes_of(fitted)
        return fitted


def clean(text: str) -> str:
    """Text that every store can keep: NUL and lone surrogates become U+FFFD."""
    if "\x00" in text:
        text = text.replace("\x00", "\ufffd")
    try:
        text.encode()
    except UnicodeEncodeError:
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _bytes_of(value: Any) -> int:
    """About how many bytes a value takes; close enough to bound what is kept."""
    if isinstance(value, str):
        return len(value.encode()) if not value.isascii() else len(value)
    if isinstance(value, dict):
        return sum(_bytes_of(key) + _bytes_of(each) + 4 for key, each in value.items())
    if isinstance(value, list):
        return sum(_bytes_of(each) + 2 for each in value)
    return 8


def _shortened(value: Any, keep_bytes: int) -> str:
    """A long value as text of so many bytes; a structure becomes its text."""
    text = value if isinstance(value, str) else str(value)
    return text.encode()[: max(0, keep_bytes - len(CUT))].decode(errors="ignore") + CUT


def times(start_ns: int, end_ns: int, arrival_ns: int) -> tuple[int, int, bool]:
    """Start, end, and whether the end was before the start. 0: not said."""
    if not start_ns and not end_ns:
        return arrival_ns, arrival_ns, False
    start_ns, end_ns = start_ns or end_ns, end_ns or start_ns
    return (start_ns, start_ns, True) if end_ns < start_ns else (start_ns, end_ns, False)
