"""A large request as several small ones with the same spans, so that decoding it lets others work in between.

The parsers run without pause, and while they do nothing else of the process runs: a tenth of a second for 20 MB.
Each piece has the resource and the scope of its spans. What cannot be divided is a piece of its own.
"""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, TypeVar

import msgspec
from msgspec import Raw

from lifesign.telemetry.otlp.spans import InvalidOtlp
from lifesign.telemetry.otlp.strict import Strict

_Bytes = TypeVar("_Bytes", bytes, Raw, memoryview)

PIECE_BYTES: Final = 32 * 1024
_MOST_SHARED: Final = 4
"""A resource and a scope that take more than this part of a piece are not repeated: it would be mostly them."""

_MANY: Final = 100_000
_LEAST_BYTES: Final = 24
"""The two ids of a span alone take more. What has many parts, most of them shorter, holds no spans, but would be taken
apart for minutes and into gigabytes."""


def without_pause() -> None:
    """How to decode where nobody else wants to work."""


def pieces_of_json(body: bytes, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Requests in JSON of about so many bytes that together say what `body` says.

    Raises InvalidOtlp: too many parts.
    """
    if len(body) <= piece_bytes:
        yield body
        return
    # What is left out of the pieces must be text, too: as a whole the request would be refused otherwise.
    for divide in (_json_pieces, _loose_pieces) if _is_text(body) else ():
        try:
            yield from [*divide(body, piece_bytes)]
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, _Indivisible):
            continue
        return
    yield body


def _is_text(body: bytes) -> bool:
    try:
        body.decode(errors="surrogatepass")
    except UnicodeDecodeError:
        return False
    return True


def pieces_of_protobuf(body: bytes, piece_bytes: int = PIECE_BYTES) -> Iterator[bytes]:
    """Requests in protobuf of about so many bytes that together say what `body` says.

    Raises InvalidOtlp: too many parts.
    """
    if len(body) <= piece_bytes:
        yield body
        return
    try:
        yield from [*_protobuf_pieces(body, piece_bytes)]
    except _Indivisible:
        yield body


class _Indivisible(Exception):
    """It is not written in a way that is understood here."""


# JSON ---------------------------------------------------------------------------------------------------------------
class _Part(Strict):
    spans: list[Raw] | None = None
    scope: Raw = Raw(b"null")
    schema_url: Raw = Raw(b"null")


class _Group(Strict):
    scope_spans: list[_Part] | None = None
    resource: Raw = Raw(b"null")
    schema_url: Raw = Raw(b"null")


class _Whole(Strict):
    resource_spans: list[_Group]


_whole = msgspec.json.Decoder(_Whole)


def _json_pieces(body: bytes, piece_bytes: int) -> Iterator[bytes]:
    # The parser checks the whole of it here, at ten times the speed at which it makes objects.
    groups = _whole.decode(body).resource_spans
    parts = [part for group in groups for part in group.scope_spans or ()]
    _check_count(len(groups) + len(parts) + sum(len(part.spans or ()) for part in parts), len(body))
    texts = (text for group in groups for text in _json_groups(group, piece_bytes))
    for run in _runs(texts, 0, piece_bytes):
        yield b'{"resourceSpans":[%b]}' % b",".join(run)


def _json_groups(group: _Group, piece_bytes: int) -> Iterator[bytes]:
    """The group, once or several times, each with some of its spans; not at all when it has no room for any."""
    if not group.scope_spans:
        return
    # Absent is null to the decoder, too.
    head = b'{"resource":%b,"schemaUrl":%b,"scopeSpans":[' % (bytes(group.resource), bytes(group.schema_url))
    parts = (text for part in group.scope_spans for text in _json_parts(part, len(head), piece_bytes))
    for run in _runs(parts, len(head), piece_bytes):
        if run:
            yield head + b",".join(run) + b"]}"


def _json_parts(part: _Part, shared_bytes: int, piece_bytes: int) -> Iterator[bytes]:
    if not part.spans:
        return
    head = b'{"scope":%b,"schemaUrl":%b,"spans":[' % (bytes(part.scope), bytes(part.schema_url))
    for run in _runs(part.spans, shared_bytes + len(head), piece_bytes):
        yield head + b",".join(run) + b"]}"


# JSON as `lenient` reads it ------------------------------------------------------------------------------------------
_object = msgspec.json.Decoder(dict[str, Raw])
_array = msgspec.json.Decoder(list[Raw])
_NULL: Final = Raw(b"null")


def _loose_pieces(body: bytes, piece_bytes: int) -> Iterator[bytes]:
    """The same in the names of today, without what nobody reads. The spans stay as they are."""
    listed = _told(_object.decode(body), "resourceSpans", "resource_spans")
    if not _is_array(listed):
        raise _Indivisible
    elements = _array.decode(listed)
    _check_count(len(elements), len(body))
    groups = (_group_of(each) for each in elements)
    texts = (text for group in groups for text in _json_groups(group, piece_bytes))
    for run in _runs(texts, 0, piece_bytes):
        yield b'{"resourceSpans":[%b]}' % b",".join(run)


def _group_of(text: Raw) -> _Group:
    told = _members(text)
    parts = _elements(_told(told, "scopeSpans", "scope_spans")) or _elements(
        _told(told, "instrumentationLibrarySpans", "instrumentation_library_spans")
    )
    return _Group([_part_of(each) for each in parts], _told(told, "resource"), _told(told, "schemaUrl", "schema_url"))


def _part_of(text: Raw) -> _Part:
    told = _members(text)
    scope = _told(told, "scope", "instrumentationLibrary", "instrumentation_library")
    return _Part(_elements(_told(told, "spans")), scope, _told(told, "schemaUrl", "schema_url"))


def _told(members: dict[str, Raw], *names: str) -> Raw:
    """The first of these that says something."""
    return next((members[name] for name in names if _begins(members.get(name, _NULL)) != b"n"), _NULL)


def _members(text: Raw) -> dict[str, Raw]:
    return _object.decode(text) if _begins(text) == b"{" else {}


def _elements(text: Raw) -> list[Raw]:
    elements = _array.decode(text) if _is_array(text) else []
    _check_count(len(elements), memoryview(text).nbytes)
    return elements


def _is_array(text: Raw) -> bool:
    return _begins(text) == b"["


def _begins(text: Raw) -> bytes:
    """Its first character, which tells what kind of value it is: only null begins with `n`."""
    return bytes(memoryview(text)[:1])


# Protobuf -----------------------------------------------------------------------------------------------------------
class _Field(NamedTuple):
    """One field of a message: its number, all of it, and what it says when that is bytes."""

    number: int
    whole: memoryview
    content: memoryview | None


_RESOURCE_SPANS: Final = 1
_SCOPE_SPANS: Final = 2
_SPANS: Final = 2
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES: Final = {_FIXED64: 8, _FIXED32: 4}
_LONGEST_VARINT: Final = 10
_CONTINUES: Final = 128


def _protobuf_pieces(body: bytes, piece_bytes: int) -> Iterator[bytes]:
    # What is no span goes along, wherever it stands, so that the parser finds the same faults in it.
    head, groups = _divided(memoryview(body), _RESOURCE_SPANS)
    texts = (text for group, _ in groups for text in _protobuf_groups(group, piece_bytes))
    yield head
    for run in _runs(texts, 0, piece_bytes):
        yield b"".join(run)


def _protobuf_groups(group: memoryview, piece_bytes: int) -> Iterator[bytes]:
    """The group, once or several times, each with some of its spans."""
    head, parts = _divided(group, _SCOPE_SPANS)
    texts = (text for part, _ in parts for text in _protobuf_parts(part, len(head), piece_bytes))
    for run in _runs(texts, len(head), piece_bytes):
        yield _message(_RESOURCE_SPANS, head + b"".join(run))


def _protobuf_parts(part: memoryview, shared_bytes: int, piece_bytes: int) -> Iterator[bytes]:
    head, spans = _divided(part, _SPANS)
    for run in _runs([whole for _, whole in spans], shared_bytes + len(head), piece_bytes):
        yield _message(_SCOPE_SPANS, head + b"".join(run))


def _divided(message: memoryview, number: int) -> tuple[bytes, list[tuple[memoryview, memoryview]]]:
    """What a message says besides its messages of this number; and those, as what they say and as they stand there."""
    shared, divided = [], []
    for count, field in enumerate(_fields(message)):
        _check_count(count, len(message))
        if field.number == number and field.content is not None:
            divided.append((field.content, field.whole))
        else:
            shared.append(field.whole)
    return b"".join(shared), divided


def _fields(message: memoryview) -> Iterator[_Field]:
    at, end = 0, len(message)
    while at < end:
        start = at
        tag, at = _varint(message, at)
        kind, content = tag & 7, None
        if kind == _BYTES:
            size, at = _varint(message, at)
            content, at = message[at : at + size], at + size
        elif kind == _VARINT:
            _, at = _varint(message, at)
        elif kind in _FIXED_SIZES:
            at += _FIXED_SIZES[kind]
        else:
            raise _Indivisible
        if at > end or tag >> 3 == 0:
            raise _Indivisible
        yield _Field(tag >> 3, message[start:at], content)


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number, and where what follows it begins."""
    value = 0
    for count in range(_LONGEST_VARINT):
        if at + count >= len(message):
            raise _Indivisible
        byte = message[at + count]
        value |= (byte & (_CONTINUES - 1)) << (7 * count)
        if byte < _CONTINUES:
            return value, at + count + 1
    raise _Indivisible


def _message(number: int, content: bytes) -> bytes:
    """A field that is a message."""
    size, rest = bytearray(), len(content)
    while rest >= _CONTINUES:
        size.append(rest & (_CONTINUES - 1) | _CONTINUES)
        rest >>= 7
    size.append(rest)
    return bytes([number << 3 | _BYTES]) + bytes(size) + content


# Both ---------------------------------------------------------------------------------------------------------------
def _check_count(count: int, of_bytes: int) -> None:
    if count > _MANY and count * _LEAST_BYTES > of_bytes:
        raise InvalidOtlp(f"The body has {_MANY} parts and more that are too short to hold spans")


def _runs(texts: Iterable[_Bytes], shared_bytes: int, piece_bytes: int) -> Iterator[list[_Bytes]]:
    """Texts in runs that are short enough, in their order; one at least. shared_bytes: of what goes with each run."""
    if shared_bytes > piece_bytes // _MOST_SHARED:
        raise _Indivisible
    run: list[_Bytes] = []
    size = shared_bytes
    for text in texts:
        length = memoryview(text).nbytes
        if run and size + length > piece_bytes:
            yield run
            run, size = [], shared_bytes
        run.append(text)
        size += length
    yield run
