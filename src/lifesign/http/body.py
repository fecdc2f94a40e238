"""Bodies in: bounded, JSON objects in UTF-8 whatever the Content-Type says, every fault told by field."""

from collections.abc import Iterable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel
from starlette.requests import ClientDisconnect, Request

from lifesign.faults import Fault, InvalidInput
from lifesign.http.context import header_of
from lifesign.http.validation import validate

MAX_BODY_BYTES = 262_144

M = TypeVar("M", bound=BaseModel)


class BodyTooLarge(Exception):
    """The body is over the limit; it was not read to its end."""


async def read_body(request: Request, limit: int = MAX_BODY_BYTES) -> bytes:
    """The raw body. Raises BodyTooLarge, before reading where the length is announced."""
    announced = header_of(request, b"content-length")
    if announced is not None and announced.isdigit() and int(announced) > limit:
        raise BodyTooLarge
    chunks: list[bytes] = []
    size = 0
    has_more = True
    # Not `request.stream()`: a check-in's body is mostly empty, and the generator would be most of reading it.
    while has_more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk: bytes = message.get("body", b"")
        size += len(chunk)
        if size > limit:
            raise BodyTooLarge
        chunks.append(chunk)
        has_more = message.get("more_body", False)
    return b"".join(chunks)


async def still_asked(request: Request) -> None:
    """Raises ClientDisconnect when whoever asked has left. The body has been read; does not wait."""
    if await request.is_disconnected():
        raise ClientDisconnect


# Any: JSON of the caller, before a model has looked at it.
def parse_object(raw: bytes, *, required: bool) -> dict[str, Any]:
    """The JSON object in `raw`; `{}` for a blank body unless it is required. Raises InvalidInput on field `body`."""
    if not raw or raw.isspace():
        if required:
            raise InvalidInput(Fault("body", "is required"))
        return {}
    try:
        value = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidInput(Fault("body", f"is not valid JSON: {error.msg}")) from error
    if not isinstance(value, dict):
        raise InvalidInput(Fault("body", "must be a JSON object"))
    return value


async def read_model(request: Request, model: type[M], *, required: bool = True, secret: Iterable[str] = ()) -> M:
    """Read, parse and validate in one call. Raises BodyTooLarge, InvalidInput."""
    return validate(model, parse_object(await read_body(request), required=required), secret=secret)
