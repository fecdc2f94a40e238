"""Bodies in: bounded, JSON objects in UTF-8 whatever the Content-Type says, every fault told by field."""

from collections.abc import Iterable
from typing import Any, TypeVar

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails
from starlette.requests import ClientDisconnect, Request

from lifesign.faults import MAX_FAULTS, Fault, InvalidInput
from lifesign.http.context import header_of

MAX_BODY_BYTES = 262_144
_MAX_ECHO_BYTES = 200

M = TypeVar("M", bound=BaseModel)

_WORDS = {
    "missing": "is required",
    "int_type": "must be an integer",
    "int_parsing_size": "is out of range",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "list_type": "must be a list",
    "dict_type": "must be an object",
    "model_type": "must be an object",
    "model_attributes_type": "must be an object",
}


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


def validate(model: type[M], values: dict[str, Any], *, secret: Iterable[str] = ()) -> M:
    """`values` as a `model`. Raises InvalidInput with every fault; values of `secret` fields are not echoed."""
    try:
        return model.model_validate(values)
    except ValidationError as error:
        hidden = set(secret)
        details = error.errors(include_url=False)
        raise InvalidInput(*(_fault(detail, hidden) for detail in details[:MAX_FAULTS])) from None


async def read_model(request: Request, model: type[M], *, required: bool = True, secret: Iterable[str] = ()) -> M:
    """Read, parse and validate in one call. Raises BodyTooLarge, InvalidInput."""
    return validate(model, parse_object(await read_body(request), required=required), secret=secret)


def field_path(loc: tuple[int | str, ...]) -> str:
    """`("steps", 0, "channels", 1)` as `steps[0].channels[1]`; the whole body is `body`."""
    path = ""
    for part in loc:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{part}" if path else part
    return path or "body"


def _fault(detail: ErrorDetails, hidden: set[str]) -> Fault:
    loc = detail["loc"]
    path = field_path(loc)
    kind = detail["type"]
    message = (
        str(detail["ctx"]["error"])
        if kind == "value_error" and "ctx" in detail
        else _WORDS.get(kind, _plain(detail["msg"]))
    )
    if kind == "missing" or (loc and loc[0] in hidden) or not is_short(detail["input"]):
        return Fault(path, message)
    return Fault(path, message, detail["input"], has_value=True)


def _plain(message: str) -> str:
    """Pydantic's sentence as the end of ours: `Input should be 'a' or 'b'` becomes `must be 'a' or 'b'`."""
    for prefix in ("Input should ", "List should ", "String should ", "Value should ", "Dictionary should "):
        if message.startswith(prefix):
            return "must " + message.removeprefix(prefix)
    return message


def is_short(value: Any) -> bool:
    """Whether a refused value is worth repeating to whoever sent it."""
    try:
        return len(orjson.dumps(value)) <= _MAX_ECHO_BYTES
    except TypeError:
        return False
