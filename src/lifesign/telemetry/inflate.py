"""Bodies that were compressed, inflated in steps and never beyond a limit. Spec "Telemetry", 3, rows 6 and 7."""

import zlib
from collections.abc import Generator, Iterator
from typing import Final, Literal

from lifesign.telemetry.rules import InflatesTooFar, InvalidEncoding

Encoding = Literal["identity", "gzip", "deflate"]

MOST_MEMBERS: Final = 1000
"""Each takes memory and time to begin, and the shortest has 20 bytes and nothing in it."""
_STEP_BYTES: Final = 256 * 1024
_PART_BYTES: Final = 64 * 1024
_GZIP: Final = 16 + zlib.MAX_WBITS
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS
_ZLIB_HEADER_BYTES: Final = 2
_DEFLATE_METHOD: Final = 8
_METHOD_MASK: Final = 15
_HEADER_CHECK: Final = 31


def inflated_size(body: bytes, encoding: Encoding, most: int) -> int:
    """How many bytes `body` inflates to; none of them is kept. Raises InflatesTooFar beyond `most`, InvalidEncoding."""
    return sum(map(len, _steps(body, encoding, most)))


def inflate(body: bytes, encoding: Encoding, most: int) -> bytes:
    """What `body` inflates to. Raises InflatesTooFar beyond `most` bytes, InvalidEncoding."""
    return body if encoding == "identity" else b"".join(_steps(body, encoding, most))


def _steps(body: bytes, encoding: Encoding, most: int) -> Iterator[bytes]:
    """The inflated body, piece by piece."""
    size = 0
    for step in _members(body, encoding):
        size += len(step)
        if size > most:
            raise InflatesTooFar
        yield step


def _members(body: bytes, encoding: Encoding) -> Iterator[bytes]:
    if encoding == "identity":
        yield body
        return
    rest = yield from _stream(memoryview(body), _window_of(body, encoding))
    members = 1
    while rest:
        members += 1
        if encoding == "deflate" or members > MOST_MEMBERS:
            raise InvalidEncoding("The body goes on after its compressed part")
        # RFC 1952, 2.2: a gzip file is a series of members.
        rest = yield from _stream(rest, _GZIP)


def _stream(body: memoryview, window: int) -> Generator[bytes, None, memoryview]:
    """The steps of one compressed stream; returns what follows it."""
    inflater = zlib.decompressobj(window)
    try:
        # In parts: what was not used up is copied at every step.
        for start in range(0, len(body), _PART_BYTES):
            part: memoryview | bytes = body[start : start + _PART_BYTES]
            while part and not inflater.eof:
                step = inflater.decompress(part, _STEP_BYTES)
                part = inflater.unconsumed_tail
                if step:
                    yield step
            # zlib may hold back some of what is inflated when the last of the input is used up.
            while not inflater.eof and (step := inflater.decompress(b"", _STEP_BYTES)):
                yield step
            if inflater.eof:
                return body[min(start + _PART_BYTES, len(body)) - len(inflater.unused_data) :]
    except zlib.error as error:
        raise InvalidEncoding("The compressed body is broken") from error
    raise InvalidEncoding("The compressed body is truncated")


def _window_of(body: bytes, encoding: Encoding) -> int:
    """What zlib calls a format. `deflate` means zlib (RFC 9110, 8.4.1.2); some send the bare stream by that name."""
    if encoding == "gzip":
        return _GZIP
    head = body[:_ZLIB_HEADER_BYTES]
    has_header = (
        len(head) == _ZLIB_HEADER_BYTES
        and head[0] & _METHOD_MASK == _DEFLATE_METHOD
        and int.from_bytes(head, "big") % _HEADER_CHECK == 0
    )
    return _ZLIB if has_header else _RAW
