"""Multipart bodies: frames, videos and fields, bounded before they are kept, gone before the answer."""

import os
import zlib
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from tempfile import SpooledTemporaryFile

import anyio
from python_multipart.exceptions import MultipartParseError
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from lifesign.http.body import BodyTooLarge, read_body
from lifesign.http.context import header_of
from lifesign.vitals.arrivals import Arrivals
from lifesign.vitals.rules import FieldRefused, InvalidTraces

MEASURE_BYTES = 128 << 20
VIDEO_BYTES = 256 << 20
JSON_BYTES = 16 << 20
MAX_FRAMES = 3600
MAX_FRAME_BYTES = 4 << 20
_MAX_FIELD_BYTES = 1 << 20
_GZIP = 16 + zlib.MAX_WBITS


@dataclass(frozen=True, slots=True)
class Upload:
    """The parts of a request. video: the open file of the part, if there is one."""

    frames: list[bytes] = field(default_factory=list)
    video: UploadFile | None = None
    fields: Mapping[str, str] = field(default_factory=dict)


def is_multipart(request: Request) -> bool:
    """Whether the body says that it has parts."""
    return (header_of(request, b"content-type") or b"").lower().startswith(b"multipart/form-data")


async def read_json_body(request: Request, arrivals: Arrivals) -> bytes:
    """The body, inflated where it was deflated by gzip.

    Raises BodyTooLarge, InvalidTraces, ServerBusy, UploadTooSlow.
    """
    async with arrivals.admitted(request) as timed:
        raw = await read_body(timed, JSON_BYTES)
    if (header_of(request, b"content-encoding") or b"").strip().lower() != b"gzip":
        return raw
    # Beside the event loop: a body that inflates as far as it may takes a tenth of a second.
    return await anyio.to_thread.run_sync(_inflated, raw)


def _inflated(raw: bytes) -> bytes:
    inflater = zlib.decompressobj(_GZIP)
    try:
        inflated = inflater.decompress(raw, JSON_BYTES)
    except zlib.error:
        raise InvalidTraces("Request body is not gzip") from None
    if inflater.unconsumed_tail or (len(inflated) == JSON_BYTES and not inflater.eof):
        raise BodyTooLarge
    if not inflater.eof or inflater.unused_data:
        raise InvalidTraces("Request body is not one whole gzip file")
    return inflated


@asynccontextmanager
async def upload_of(request: Request, arrivals: Arrivals, most_bytes: int) -> AsyncIterator[Upload]:
    """The parts of a multipart body; its files are gone at the end.

    Raises BodyTooLarge, FieldRefused, ServerBusy, UploadTooSlow.
    """
    announced = header_of(request, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > most_bytes:
        raise BodyTooLarge
    if not is_multipart(request):
        raise FieldRefused("frame is required")
    opened: list[SpooledTemporaryFile[bytes]] = []
    try:
        async with arrivals.admitted(request) as timed:
            parser = _parser(timed, most_bytes)
            # Whatever it opens: it closes files itself for one kind of error only, and a form that ends in the middle
            # of a file does not have it.
            opened = parser._files_to_close_on_error  # noqa: SLF001 - as above
            form = await _parsed(parser)
        frames = [each for each in form.getlist("frame") if isinstance(each, UploadFile)]
        videos = [each for each in form.getlist("video") if isinstance(each, UploadFile)]
        # Before anything is read: a file that is too large may be on disk, and is not to be in memory.
        if len(frames) > MAX_FRAMES or any((each.size or 0) > MAX_FRAME_BYTES for each in frames):
            raise BodyTooLarge
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        contents = [await each.read() for each in frames]
        yield Upload(contents, videos[-1] if videos else None, fields)
    finally:
        for file in opened:
            file.close()


def _parser(request: Request, most_bytes: int) -> MultiPartParser:
    size = 0

    async def bounded() -> AsyncIterator[bytes]:
        nonlocal size
        async for chunk in request.stream():
            size += len(chunk)
            if size > most_bytes:
                raise BodyTooLarge
            yield chunk

    # One file more than there may be, so that too many are told as too much and not as nonsense.
    return MultiPartParser(
        request.headers,
        bounded(),  # type: ignore[arg-type]  # a generator, though of a method of its own
        max_files=MAX_FRAMES + 1,
        max_fields=32,
        max_part_size=_MAX_FIELD_BYTES,
    )


async def _parsed(parser: MultiPartParser) -> FormData:
    try:
        return await parser.parse()
    except MultiPartException as error:
        if error.message.startswith("Too many files"):
            raise BodyTooLarge from None
        raise FieldRefused(f"multipart body: {error.message}") from None
    except (MultipartParseError, KeyError, UnicodeDecodeError):
        raise FieldRefused("frame is required") from None


async def path_of(upload: UploadFile) -> str:
    """Where a process of this server finds what was uploaded, until the upload is closed.

    The file has no name, and so is gone when this process is, however that ends: what leads to it is that it is open
    here. Whoever opens it there reads from its beginning.
    """
    descriptor = await anyio.to_thread.run_sync(upload.file.fileno)
    await anyio.to_thread.run_sync(upload.file.flush)
    return f"/proc/{os.getpid()}/fd/{descriptor}"
